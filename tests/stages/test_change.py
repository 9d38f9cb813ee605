"""A finished run with one leaf changed: what depends on it is made again, and nothing else.

The result is a fresh run's byte for byte. By default a leaf of each kind; all of them with
CGJAX_EVERY_LEAF=1 (ten minutes on two cores).
"""

import json
import os
import shutil

import jax
import numpy as np
import pytest

from cgjax.errors import UserError
from cgjax.run.opening import open_run
from cgjax.run.run import load_run
from cgjax.runtime.signals import Interrupts
from cgjax.stages.pipeline import Pipeline
from tests.run.changes import changed, leaves, small

KINDS = [
    "seed",
    "layer",
    "generator.batch",
    "cluster.max_iter",
    "cluster.memory_mb",
    "samplers.flow.num_steps",
    "samplers.imle.num_epochs",
    "samplers.imle.fit",
    "sample.num",
    "sample.sampler",
    "evaluate.num",
]
CHANGED = leaves() if os.environ.get("CGJAX_EVERY_LEAF") else KINDS
REFUSED = ("transfer.conditions",)  # the planted generator has no classes
NAMED = [{"id": 0, "name": "left", "note": "seen"}, {"id": 1, "name": "right"}]


def run(root, config, **options):
    pipeline = Pipeline(open_run(root, config, allow_change=True, **options), Interrupts())
    try:
        pipeline.run_all()
    finally:
        pipeline.metrics.close()


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
        leaves = jax.tree.leaves(opened.fitted(name).state)
        found[f"state of {name}"] = [np.asarray(leaf).tobytes() for leaf in leaves]
    return found


def finished_at(root):
    manifests = [json.loads(p.read_text()) for p in (root / "stages").glob("*.json")]
    return {m["name"]: m["finished"] for m in manifests}


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    root = tmp_path_factory.mktemp("finished") / "run"
    run(root, small())
    (root / "clusters.json").write_text(json.dumps(NAMED))
    return root


def names_of(root):
    return [entry["name"] for entry in load_run(root).entries]


def test_nothing_is_made_again_without_a_change(finished, tmp_path):
    shutil.copytree(finished, tmp_path / "run")
    before, content = finished_at(finished), content_of(finished)
    run(tmp_path / "run", None)
    after = finished_at(tmp_path / "run")
    assert {name for name in after if after[name] != before[name]} == {"report"}
    assert content_of(tmp_path / "run") == content
    assert names_of(tmp_path / "run") == ["left", "right"]


@pytest.mark.parametrize("path", CHANGED)
def test_a_changed_leaf_ends_as_a_fresh_run_and_makes_only_what_depends_on_it(
    path, finished, tmp_path
):
    config, stale = changed(path)
    before, digest = finished_at(finished), load_run(finished).clustering.digest
    shutil.copytree(finished, tmp_path / "run")
    if path in REFUSED:
        with pytest.raises(UserError, match=path.partition(".")[2]):
            run(tmp_path / "run", config)
        assert content_of(tmp_path / "run") == content_of(finished)
        return
    run(tmp_path / "fresh", config)
    run(tmp_path / "run", config)
    after = finished_at(tmp_path / "run")
    made = {name for name in after if after[name] != before.get(name)}
    new = {name for name in after if name not in before}
    assert made - new - {"report"} == stale & after.keys() - {"report"}
    assert content_of(tmp_path / "run") == content_of(tmp_path / "fresh")
    is_same = load_run(tmp_path / "run").clustering.digest == digest
    assert names_of(tmp_path / "run")[:2] == (["left", "right"] if is_same else [None, None])


def test_names_come_back_with_their_clustering(finished, tmp_path):
    root = tmp_path / "run"
    shutil.copytree(finished, root)
    config, _ = changed("seed")
    run(root, config)
    assert names_of(root) == [None, None]
    run(root, small())
    assert json.loads((root / "clusters.json").read_text()) == NAMED
