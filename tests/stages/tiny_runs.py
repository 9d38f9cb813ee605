"""Tiny runs that cluster a generator: their config, pipelines and the content of their folders."""

import contextlib
import json

import jax
import numpy as np

from cgjax.config.plain import to_plain
from cgjax.config.schema import complete
from cgjax.run.opening import load_run, open_run
from cgjax.runtime.signals import Interrupts
from cgjax.stages.pipeline import Pipeline
from configs import tiny


def config(*splits, **leaves):
    """The tiny config with these splits and leaves; only rejection and the flow are fitted."""
    given = tiny.get_config("quick")
    given.update_from_flattened_dict(
        {
            "latents.num": 200,
            "cluster.num_init": 2,
            "hierarchy.splits": splits,
            "samplers.flow.num_epochs": 1,
            "samplers.imle.fit": False,
            "sample.sampler": "flow",
            **leaves,
        }
    )
    return complete(to_plain(given))


@contextlib.contextmanager
def pipeline_of(run, interrupts=None):
    """The stages of an open run; its file of metrics is closed at the end of the block."""
    pipeline = Pipeline(run, interrupts or Interrupts())
    with contextlib.closing(pipeline.metrics):
        yield pipeline


def run(root, config, **options):
    """Run all stages, whatever the folder was made with."""
    with pipeline_of(open_run(root, config, allow_change=True, **options)) as pipeline:
        pipeline.run_all()


def content_of(root):
    """What a run leaves, without times."""
    found = {}
    for path in sorted(p for p in root.rglob("*") if p.is_file()):
        name = str(path.relative_to(root))
        if name.split("/")[0] in (
            "latents.npy",
            "clusters.npz",
            "samples",
            "figures",
            "compare.csv",
        ):
            found[name] = path.read_bytes()
    summary = json.loads((root / "summary.json").read_text())
    found["summary"] = {name: value for name, value in summary.items() if name != "stages"}
    opened = load_run(root)
    for name in opened.sampler_names:
        leaves = jax.tree.leaves(opened.samplers.fitted(name).state)
        found[f"state of {name}"] = [np.asarray(leaf).tobytes() for leaf in leaves]
    return found


def bytes_of(folder):
    """The content of every file in a folder, by its path there."""
    return {str(p.relative_to(folder)): p.read_bytes() for p in folder.rglob("*") if p.is_file()}
