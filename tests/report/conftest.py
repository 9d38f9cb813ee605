"""A finished tiny run with everything that its page can show; it is run once."""

import shutil

import pytest

from cgjax.config.plain import to_plain
from cgjax.config.schema import complete
from cgjax.run.opening import open_run
from cgjax.runtime.signals import Interrupts
from cgjax.stages.pipeline import Pipeline
from configs import tiny


def config():
    given = tiny.get_config("quick")
    given.update_from_flattened_dict(
        {
            "latents.num": 300,
            "cluster.num_init": 1,
            "hierarchy.splits": ("0/layer2-k2",),
            "samplers.flow.num_epochs": 1,
            "samplers.imle.fit": False,
            "sample.sampler": "flow",
            "sample.num": 2,
            "evaluate.num": 12,
            "evaluate.components": 4,
            "evaluate.prior_images": 16,
            "compare.num": 12,
            "compare.margins": (0.0,),
            "compare.judge": "image_statistics",
            "compare.attribute": "brightness",
            "compare.directions": 0,
            "sweep.layers": ("layer2",),
            "sweep.numbers": (2, 3),
            "sweep.judges": ("image_statistics",),
            "sweep.judged": 100,
            "sweep.columns": 2,
        }
    )
    return complete(to_plain(given))


def work(root, what, mode="run"):
    """Open the run, call `what` with its pipeline, and close it."""
    pipeline = Pipeline(open_run(root, config(), mode=mode), Interrupts())
    try:
        return what(pipeline)
    finally:
        pipeline.metrics.close()


@pytest.fixture(scope="package")
def finished(tmp_path_factory):
    root = tmp_path_factory.mktemp("page") / "run"
    work(root, Pipeline.sweep, "sweep")
    work(root, Pipeline.run_all)
    work(root, Pipeline.compare, "compare")
    return root


@pytest.fixture
def copied(finished, tmp_path):
    root = tmp_path / "run"
    shutil.copytree(finished, root)
    return root
