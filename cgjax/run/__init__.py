"""A run's folder: what is in it, whether it is current, and drawing from it.

Where to start reading:

* Opening. `opening.open_run` opens a folder for writing, `opening.load_run` for sampling. Before
  anything is written, `folder_checks` refuses a folder of another config or generator and
  `run_checks` a config that cannot work. Then what is stale is removed.
* Making what is stale. `artifacts.declare` lists what the stages leave, each with its inputs and
  the leaves of the config that it reads; both are hashed into its key. A stage asks `Maker.result`
  (`cgjax.stages.graph`); if that is None it writes the files inside `Maker.making`, which writes
  the manifest last.
* Checking. `manifests.Manifests` decides whether an artifact is current: same key, same files, and
  inputs that hold what they held. `places` has the names of the artifacts and where they lie,
  `folder` the paths, `identity` what distinguishes generators.
* Using. `run.Run` draws; `held.HeldClusterings` are its clusterings and regions of them,
  `samplers.RunSamplers` its samplers.
"""
