"""A finished tiny run with everything that its page can show, run once, and the browser."""

import shutil

import pytest

from cgjax.run.opening import open_run
from cgjax.stages.pipeline import Pipeline
from tests.report.browser import chromium
from tests.stages import tiny_runs


def config():
    return tiny_runs.config(
        "0/layer2-k2",
        **{
            "latents.num": 300,
            "cluster.num_init": 1,
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
        },
    )


def work(root, what, mode="run"):
    """Open the run, call `what` with its pipeline, and close it."""
    with tiny_runs.pipeline_of(open_run(root, config(), mode=mode)) as pipeline:
        return what(pipeline)


@pytest.fixture(scope="package")
def finished(tmp_path_factory):
    root = tmp_path_factory.mktemp("page") / "run"
    work(root, Pipeline.sweep, "sweep")
    work(root, Pipeline.run_all)
    work(root, Pipeline.compare, "compare")
    return root


@pytest.fixture(scope="module")
def browser():
    with chromium() as started:
        yield started


@pytest.fixture
def copied(finished, tmp_path):
    root = tmp_path / "run"
    shutil.copytree(finished, root)
    return root
