"""Killed at any write of a change, a folder never mixes two configs, and resumes."""

import csv
import shutil

import jax
import pytest

from cgjax.errors import UserError
from cgjax.run.opening import load_run, open_run
from tests.killing import Killed
from tests.run.changes import changed, small
from tests.stages.tiny_runs import content_of, pipeline_of, run


def samples(root):
    """What --mode=sample answers, by sampler."""
    opened, found = load_run(root), {}
    for name in opened.sampler_names:
        try:
            drawn = opened.sample(jax.random.key(1), 1, 3, name)
            found[name] = drawn.latents.tobytes()
        except UserError:
            found[name] = None
    return found


def copied(root):
    copy = root.with_name("copy")
    shutil.rmtree(copy, ignore_errors=True)
    shutil.copytree(root, copy)
    return copy


def compared(root):
    """What --mode=compare shows for a copy, without times; it makes what is missing."""
    copy = copied(root)
    with pipeline_of(open_run(copy, None, mode="compare")) as pipeline:
        pipeline.compare()
    rows = csv.DictReader((copy / "compare.csv").read_text().splitlines())
    return [{k: v for k, v in row.items() if not k.endswith(("_ms", "_s"))} for row in rows]


def measured(root, mode):
    """What --mode=evaluate or --mode=report shows for a copy."""
    copy = copied(root)
    try:
        run = open_run(copy, None, mode=mode)
    except UserError:
        return None
    with pipeline_of(run) as pipeline:
        if mode == "evaluate":
            pipeline.evaluate(again=True)
        pipeline.report()
    return content_of(copy)["summary"]["samplers"]


@pytest.mark.slow
def test_killed_at_any_write_it_never_mixes_configs_and_resumes_to_a_fresh_runs_bytes(
    finished_run, tmp_path, kill_at
):
    old, (new, _) = small(), changed("cluster.num_clusters")
    expected = {}
    for k, config in ((2, old), (3, new)):
        fresh = finished_run(config)
        expected[k] = content_of(fresh), samples(fresh), compared(fresh)
    root = tmp_path / "run"
    shutil.copytree(finished_run(old), root)
    seen, kills = set(), 0
    while True:
        kill_at(kills + 1)
        try:
            run(root, new)
            break
        except Killed:
            kills += 1
        finally:
            kill_at(0)
        k = load_run(root).config["cluster"]["num_clusters"]
        seen.add(k)
        content, drawn, table = expected[k]
        for path in (p for p in root.rglob("*.*") if p.is_file()):
            name = str(path.relative_to(root))
            assert path.read_bytes() == content.get(name, path.read_bytes()), name
            is_left = name.startswith(("samples/", "figures/")) and not path.name.startswith(".")
            assert not is_left or name in content, name
        for name, latents in samples(root).items():
            assert latents in (None, drawn[name])
        for mode in ("evaluate", "report") if kills % 7 == 0 else ():
            shown = measured(root, mode) or {}
            assert all(content["summary"]["samplers"][name] == shown[name] for name in shown)
        if kills % 30 == 5:
            assert compared(root) == table
    assert seen == {2, 3}
    assert kills > 40
    assert content_of(root) == expected[3][0]
