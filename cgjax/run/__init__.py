"""A run's folder: what is in it, whether it is current, and drawing from it.

Opening a folder. Before anything is written, what cannot work is refused; then what is stale is
removed.

* `opening`: `open_run` for writing, `load_run` for sampling.
* `folder_checks` refuses a folder of another config or generator, `run_checks` a config that
  cannot work.
* `folder`: the paths in it, and `config.json`.

What is in it. A stage asks `Maker.result` (`cgjax.stages.graph`); if that is None it writes the
files inside `Maker.making`, which writes the manifest last.

* `artifacts`: what the stages leave, each with its inputs and the leaves of the config that it
  reads; both are hashed into its key. `places`: their names, and where they lie.
* `manifests`: which of them are current: same key, same files (`hashes`), and inputs that hold what
  they held. `legacy`: those of versions before keys.
* `identity`: what distinguishes generators. `traces`: how the user's own code acts.

Using a run that clusters a generator.

* `run`: `Run`, which draws. `clusterings`: its clusterings, and regions of them.
* `samplers`: its samplers. `members`: what they learn from. `sampling`: one of them on its way from
  training to samples.
* `sample_files`, `directions`, `inversions`: files of samples, of edit directions, of inverted
  images.
* `conditional`: generators with classes in its comparison. `citations`: the works to cite.

Using a run that trains a generator.

* `training`: `open_training` to train it, `open_trained` to use it. `training_identity`: whether a
  config still asks for the same training.
* `labelled`: the trained generator, for assigning images to its labels.
"""
