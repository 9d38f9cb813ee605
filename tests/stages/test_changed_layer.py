"""A user's generator whose features change at one layer only: its clusterings are stale."""

import jax
import numpy as np
import pytest

from cgjax.errors import UserError
from cgjax.generators.base import PretrainedGenerator
from cgjax.run.opening import load_run, open_run
from cgjax.testing.planted import PlantedDiscs
from tests.stages.tiny_runs import config, pipeline_of


class Steeper(PretrainedGenerator):
    """The planted discs with other features of `layer2`, and the same images."""

    def features(self, z, layer, **options):
        h = super().features(z, layer, **options)
        return 3.0 * h if layer == "layer2" else h


def make(root, given):
    with pipeline_of(open_run(root, given)) as pipeline:
        pipeline.cluster()
        pipeline.split()
        pipeline.sweep()


def test_clusterings_of_a_changed_layer_are_refused_and_then_recomputed(
    tmp_path, monkeypatch, caplog
):
    swept = {"sweep.numbers": (2,), "sweep.judges": ("image_statistics",), "sweep.judged": 100}
    given, root = config("0/layer2-k2", **{"latents.num": 300}, **swept), tmp_path / "run"
    make(root, given)
    own, old = load_run(root).clustering, load_run(root).held.swept("layer2")[0]
    monkeypatch.setattr("cgjax.testing.planted.make_planted", lambda: Steeper(PlantedDiscs()))
    changed = load_run(root)
    with pytest.raises(UserError, match=r"made when layer 'layer2' returned something else; pyth"):
        changed.sample(jax.random.key(0), "0/1", 2)
    assert "layer2-k2" not in changed.clusterings
    assert changed.held.swept("layer1")
    make(root, given)
    assert "layer layer2: returns something else than before" in caplog.messages
    again = load_run(root)
    assert again.clustering.digest == own.digest
    assert again.held.swept("layer2")[0].digest != old.digest
    region = again.region("0/1")
    np.testing.assert_array_equal(again.are_inside(again.latents, region), region.members())
