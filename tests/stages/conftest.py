"""The run that the tests of draws share."""

import pytest

from cgjax.run.opening import open_run
from tests.stages.tiny_runs import config, pipeline_of


@pytest.fixture(scope="session")
def layered(tmp_path_factory):
    """The folder of a run with clusterings of two layers, and one inside a cluster."""
    folder = tmp_path_factory.mktemp("draw") / "run"
    sweep = {"sweep.numbers": (2,), "sweep.layers": ("layer2",), "sweep.judged": 100}
    flow = {"latents.num": 400, "samplers.flow.num_latents": 400, "samplers.flow.num_epochs": 15}
    given = config("1/layer2-k3", **sweep, **flow, **{"sweep.judges": ("image_statistics",)})
    with pipeline_of(open_run(folder, given)) as pipeline:
        pipeline.cluster()
        pipeline.split()
        pipeline.fit()
        pipeline.sweep()
    return folder
