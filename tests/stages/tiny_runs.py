"""Tiny runs that cluster a generator: their config, pipelines and the content of their folders."""

import contextlib

from cgjax.config.plain import to_plain
from cgjax.config.schema import complete
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


def bytes_of(folder):
    """The content of every file in a folder, by its path there."""
    return {str(p.relative_to(folder)): p.read_bytes() for p in folder.rglob("*") if p.is_file()}
