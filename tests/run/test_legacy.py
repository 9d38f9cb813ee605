"""A folder of the version before artifacts had keys opens and resumes, and shows nothing stale."""

import json
import os
import shutil

import jax
import numpy as np
import pytest

from cgjax.errors import UserError
from cgjax.run import legacy
from cgjax.run.opening import load_run, open_run
from cgjax.runtime.log import Metrics
from cgjax.stages.graph import Maker
from cgjax.stages.latents import latents_of
from tests.run.changes import changed, small
from tests.stages.tiny_runs import content_of, run


def as_it_was(root):
    """Turn a run's folder into what the earlier version would have left."""
    results = {}
    for path in (root / "stages").glob("*.json"):
        manifest = json.loads(path.read_text())
        results[manifest["name"]] = manifest["result"]
        path.unlink()
    config = json.loads((root / "config.json").read_text())["config"]
    old = legacy.fingerprints(config, "")
    names = [name for name, settings in config["samplers"].items() if settings["fit"]]
    evaluated = {name: results[f"evaluate {name}"] for name in names}
    stages = {
        "encode": {},
        "cluster": results["cluster"],
        "fit": {name: results[f"fit {name}"] for name in names},
        "sample": {name: results[f"sample {name}"]["acceptance"] for name in names},
        "evaluate": {
            "distance": evaluated["flow"]["distance"],
            "samplers": {name: found["numbers"] for name, found in evaluated.items()},
        },
        "report": {},
    }
    for i, (stage, result) in enumerate(stages.items()):
        manifest = {"stage": stage, "fingerprint": old.stages[stage], "finished": float(i)}
        manifest |= {"seconds": 1.0, "peak_rss_mb": 2.0, "result": result}
        (root / "stages" / f"{stage}.json").write_text(json.dumps(manifest))
    for path in (root / "checkpoints").glob("*/*.json"):
        step = json.loads(path.read_text())
        del step["seal"]
        step["metadata"] = {"fingerprint": old.samplers[path.parent.name], "seconds": 1.0}
        path.write_text(json.dumps(step))
    saved = json.loads((root / "config.json").read_text())
    for later in ("trace", "identity", "seal"):
        del saved[later]
    (root / "config.json").write_text(json.dumps(saved))
    (root / "latents.npy").unlink()


@pytest.fixture
def finished(finished_run):
    return finished_run(small())


@pytest.fixture
def old(finished, tmp_path):
    root = tmp_path / "run"
    shutil.copytree(finished, root)
    as_it_was(root)
    return root


def test_it_gives_the_same_samples(old, finished):
    for name in ("rejection", "flow", "imle"):
        a, b = (load_run(r).sample(jax.random.key(0), 1, 3, name) for r in (old, finished))
        np.testing.assert_array_equal(a.latents, b.latents)


def test_a_second_run_makes_only_the_page_and_keeps_the_numbers(old, finished):
    expected = json.loads((finished / "summary.json").read_text())
    run(old, None)
    made = {json.loads(p.read_text()).get("name") for p in (old / "stages").glob("*.json")}
    assert made == {None, "page own", "report"}
    summary = json.loads((old / "summary.json").read_text())
    assert summary["samplers"] == expected["samplers"]
    assert summary["stages"]["fit"] == {"seconds": 1.0, "peak_rss_mb": 2.0}


def test_a_changed_config_recomputes_everything_that_depends_on_it(old, finished_run):
    config, _ = changed("cluster.num_clusters")
    run(old, config)
    assert content_of(old) == content_of(finished_run(config))


def test_clusters_of_another_config_are_refused(old):
    saved = json.loads((old / "config.json").read_text())
    saved["config"]["cluster"]["max_iter"] += 1
    (old / "config.json").write_text(json.dumps(saved))
    with pytest.raises(UserError, match="'latents' is not there yet"):
        load_run(old).sample(jax.random.key(0), 0, 3)


def test_the_latents_that_it_lacks_are_drawn_when_they_are_needed(old):
    opened = open_run(old, None)
    maker = Maker(opened.manifests, Metrics(os.devnull))
    np.testing.assert_array_equal(latents_of(opened, maker), opened.latents)
