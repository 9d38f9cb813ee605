"""A sweep finds the planted attribute, resumes to the same bytes, and can be queried."""

import csv
import os
import shutil
from types import SimpleNamespace

import jax
import numpy as np
import pytest

from cgjax.errors import UserError
from cgjax.regions.region import WHOLE
from cgjax.run.manifests import Manifests
from cgjax.run.opening import load_run, open_run
from cgjax.stages import cluster
from cgjax.stages import sweep as stage
from cgjax.stages.pipeline import Pipeline
from cgjax.stages.sweep import SweepStage
from cgjax.testing.planted import true_side
from tests.killing import Killed, killing
from tests.regions.planted import clustering
from tests.stages import tiny_runs
from tests.stages.tiny_runs import pipeline_of


def config(**leaves):
    swept = {
        "latents.num": 360,
        "sweep.numbers": (3, 2),
        "sweep.judges": ("image_statistics",),
        "sweep.judged": 150,
        "sweep.columns": 2,
    }
    return tiny_runs.config(**(swept | leaves))


def sweep(root, given=None, **options):
    given = config() if given is None else given
    with pipeline_of(open_run(root, given, mode="sweep", **options)) as pipeline:
        return pipeline.sweep()


def content_of(root):
    places = ("clusterings", "figures", "sweep*.csv", "sweep.txt", "attributes.npz", "latents.npy")
    paths = [path for place in places for path in root.glob(place)]
    files = [file for path in paths for file in (path.iterdir() if path.is_dir() else [path])]
    return {str(file.relative_to(root)): file.read_bytes() for file in files}


def table(root, name):
    return list(csv.DictReader((root / name).read_text().splitlines()))


@pytest.fixture(scope="module")
def swept(tmp_path_factory):
    root = tmp_path_factory.mktemp("swept") / "run"
    return root, sweep(root)


def test_the_planted_attribute_is_ranked_first_in_a_plain_sentence(swept):
    _, text = swept
    first = next(line for line in text.splitlines() if line.startswith("1. "))
    assert "2 clusters: highly stable in fresh draws" in first
    assert " of left_right (judge image_statistics, which sees it in 150 of 150 images)" in first
    assert "--config.cluster.num_clusters=2" in text


def test_the_suggested_flags_name_the_space_of_the_features(tmp_path):
    given = config(**{"cluster.space": "spherical", "sweep.layers": (1,), "sweep.numbers": (2,)})
    text = sweep(tmp_path / "run", given)
    assert "--config.cluster.num_clusters=2 --config.cluster.space=spherical" in text


def test_every_layer_is_clustered_into_every_number(swept):
    root, _ = swept
    rows = table(root, "sweep.csv")
    found = [(row["layer"], int(row["num_clusters"])) for row in rows]
    assert found == [(layer, k) for layer in ("layer1", "layer2") for k in (2, 3)]
    for row in rows:
        assert sum(map(float, row["shares"].split())) == pytest.approx(1, abs=1e-5)
    two = rows[0]
    assert float(two["eta2 image_statistics.left_right_low"]) > 0.9
    assert float(two["valley_p_value"]) < 0.01
    assert float(rows[1]["valley_p_value"]) > 0.05


def test_clusters_and_pairs_of_clusterings_have_tables(swept):
    root, _ = swept
    clusters = table(root, "sweep_clusters.csv")
    assert len(clusters) == 2 * (2 + 3) * 5
    sides = [row for row in clusters[:10] if row["attribute"] == "image_statistics.left_right"]
    assert all(float(row["low"]) * float(row["high"]) > 0 for row in sides)  # neither holds 0
    pairs = {(row["first"], row["second"]): row for row in table(root, "sweep_pairs.csv")}
    assert len(pairs) == 4
    same = pairs["layer1-k2", "layer2-k2"]  # both are the side
    assert float(same["normalized"]) > 0.95
    assert float(same["adjusted_rand"]) > 0.95


def test_a_current_sweep_is_not_recomputed(swept):
    root, text = swept
    before = {path.name: path.stat().st_mtime_ns for path in (root / "stages").iterdir()}
    assert sweep(root) == text
    after = {path.name: path.stat().st_mtime_ns for path in (root / "stages").iterdir()}
    assert {name for name in after if after[name] != before[name]} == {"report.json"}


@pytest.mark.usefixtures("untyped")
def test_the_picture_shows_no_members_of_an_empty_cluster(monkeypatch):
    rows = []
    monkeypatch.setattr(stage, "contact_sheet", lambda pictures, *_, **__: rows.extend(pictures))
    monkeypatch.setattr(stage, "to_png", lambda picture: picture)
    table = [{"is_chosen": False, "prediction_strength": [0.5]}] * 3
    run = SimpleNamespace(
        manifests=SimpleNamespace(require=lambda name: {"choice": {"table": table}}),
        config={"sweep": {"columns": 2}},
        generator=SimpleNamespace(images=lambda z: z),
    )
    one = clustering("layer1", np.array([0, 2, 2, 2]), 3)
    SweepStage._picture(SimpleNamespace(run=run), [one], np.arange(4))
    assert [row.tolist() for row in rows] == [[0], [], [1, 2]]


@pytest.mark.parametrize("number", [3, 7, 11, 14])
def test_killed_while_writing_it_resumes_to_the_same_bytes(number, swept, tmp_path, monkeypatch):
    root = tmp_path / "run"
    with monkeypatch.context() as patch:
        patch.setattr(os, "replace", killing(os.replace, number))
        with pytest.raises(Killed):
            sweep(root)
    sweep(root)
    assert content_of(root) == content_of(swept[0])


def test_a_change_recomputes_only_the_clusterings_that_depend_on_it(swept, tmp_path):
    root = shutil.copytree(swept[0], tmp_path / "run")
    found = Manifests(load_run(root).folder, load_run(root).manifests.graph)
    assert found.result("sweep layer1") is not None
    other = open_run(root, config(**{"cluster.num_clusters": 3}), mode="sweep", allow_change=True)
    assert other.manifests.result("sweep") is not None
    fewer = open_run(root, config(**{"sweep.layers": (2,)}), mode="sweep", allow_change=True)
    assert fewer.manifests.result("sweep layer2") is not None
    assert fewer.manifests.result("sweep") is None
    assert sorted(path.name for path in (root / "clusterings").iterdir()) == [
        "layer2-k2.npz",
        "layer2-k3.npz",
    ]
    assert not (root / "sweep.csv").exists()
    assert not (root / "figures" / "sweep-layer1.png").exists()


def test_a_damaged_clustering_is_not_read(swept, tmp_path):
    root = shutil.copytree(swept[0], tmp_path / "run")
    (root / "clusterings" / "layer1-k2.npz").write_bytes(b"nonsense")
    assert [one for one in load_run(root).clusterings if one.startswith("layer1")] == []
    with pytest.raises(UserError, match="'sweep layer1' is stale, or its files are not those"):
        load_run(root).held.swept("layer1")


def test_a_folder_with_only_a_sweep_answers_queries_by_rejection(swept):
    run = load_run(swept[0])
    query = "layer1-k2=0 & !layer2-k2=1"
    region = run.region(query)
    arrays = {name: one.labels for name, one in run.clusterings.items()}
    expected = (arrays["layer1-k2"] == 0) & (arrays["layer2-k2"] != 1)
    np.testing.assert_array_equal(region.members(), expected)
    assert run.samplers.name_for(region) == "rejection"
    samples = run.sample(jax.random.key(0), query, 20)
    assert run.are_inside(samples.latents, region).all()
    assert len(np.unique(true_side(samples.latents))) == 1
    with pytest.raises(UserError, match=r"--cluster=0: specify the clustering; this run has: "):
        run.region(0)
    with pytest.raises(UserError, match=r"no clustering 'layer3' in this run; it has: layer1-k2,"):
        run.region("layer3=0")


def test_the_runs_own_clustering_and_a_sweeps_are_queried_together(swept, tmp_path):
    root = shutil.copytree(swept[0], tmp_path / "run")
    with pipeline_of(open_run(root, config())) as pipeline:
        pipeline.cluster()
        pipeline.fit()
    run = load_run(root)
    assert list(run.clusterings) == ["layer1-k2", "layer1-k3", "layer2-k2", "layer2-k3"]
    assert run.clusterings["layer1-k2"] is run.clustering
    region = run.region("0 & layer2-k3!=0")
    assert run.samplers.name_for(region) == "flow"
    expected = run.samplers.source(region, "flow").expected(region)
    own = run.clustering.labels == 0
    assert (expected.num, expected.num_members) == (own.sum(), region.members().sum())
    assert run.samplers.name_for(run.region("0 | layer2-k3=1")) == "rejection"


THREE = config(**{"cluster.num_clusters": 3})
"""Its clustering differs from the sweep's, whose random numbers are others."""


def work(root, what, mode):
    with pipeline_of(open_run(root, THREE, mode=mode, allow_change=True)) as pipeline:
        return what(pipeline)


@pytest.fixture(scope="module")
def named(swept, tmp_path_factory):
    """A folder whose sweep came first, then a name, then the run's own clustering; what it said."""
    root, said = tmp_path_factory.mktemp("named") / "run", []
    shutil.copytree(swept[0], root)
    work(root, lambda pipeline: pipeline.name_cluster("layer1-k3=1", "alpha"), "name")
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(cluster.logging, "info", lambda text, *given: said.append(text % given))
        patched.setattr(cluster.ClusterStage, "_draw_figures", lambda stage: None)
        work(root, Pipeline.cluster, "run")
    return root, said


def test_names_of_a_sweeps_clustering_stay_when_the_run_has_its_own_of_that_id(named):
    root, said = named
    run = load_run(root)
    assert any(line.startswith("layer1-k3 now means these clusters; those of") for line in said)
    others = ["layer1-k2", "sweep:layer1-k3", "layer2-k2", "layer2-k3"]
    assert list(run.clusterings) == ["layer1-k3", *others]
    swept = run.clusterings["sweep:layer1-k3"]
    for text in ("alpha", "layer1-k3=alpha", "layer1=alpha", "sweep:layer1-k3=1"):
        assert run.region(text).fingerprint == f"layer1-k3:{swept.digest}=1", text
    assert run.samplers.name_for(run.region("alpha")) == "rejection"  # flow learns the run's own
    for text in ("1", "layer1-k3=1", "layer1=1"):
        assert run.region(text).clustering is run.clustering, text
    with pytest.raises(UserError, match="no cluster 'beta' in layer1-k3; it has: 0, 1, 2"):
        run.region("layer1-k3=beta")
    assert run.held.cluster_flag(swept, 0) == "sweep:layer1-k3=0"
    assert run.held.named_cluster_flag(swept, 1) == "alpha"
    queries = [f"{id_}=0 & layer2-k2!=0" for id_ in ("layer1-k3", "sweep:layer1-k3")]
    regions = [run.region(query) for query in queries]
    assert [run.samplers.fit_of("flow", one).label for one in regions] == [
        f"flow in {query}" for query in queries
    ]
    assert run.held.in_words(regions[1]).startswith("cluster sweep:layer1-k3=0 & layer2-k2!=0, ")


@pytest.mark.parametrize("asked", [0, "layer1-k3=1", "layer1=0", "alpha", "layer2-k2=0"])
def test_no_clustering_of_a_sweep_stands_in_for_the_runs_own_that_is_damaged(
    asked, named, tmp_path
):
    root = tmp_path / "run"
    shutil.copytree(named[0], root)
    (root / "clusters.npz").write_bytes(b"nonsense")
    held = load_run(root).held
    for ask in (lambda: held.region(asked, WHOLE), lambda: held.clusters_of(f"{asked}")):
        with pytest.raises(UserError, match=r"'cluster' is stale, or its files .*; python -m"):
            ask()


def test_a_page_shows_a_sweeps_clustering_with_the_id_of_the_runs_own_if_it_has_names(named):
    root, _ = named
    page = root / "report" / "index.html"
    work(root, Pipeline.report, "run")
    assert 'value="alpha"' in page.read_text()
    assert "<span>--cluster=sweep:layer1-k3=0</span>" in page.read_text()
    assert "in commands it is <code>sweep:layer1-k3</code>" in page.read_text()
    assert page.read_text().count("The sweep clustered this layer into as many clusters") == 1
    work(root, lambda pipeline: pipeline.name_cluster("alpha", ""), "name")
    assert "sweep:layer1-k3" not in page.read_text()


@pytest.mark.parametrize(
    ("leaves", "message"),
    [
        ({"latents.num": 299}, r"^--config.sweep.numbers=3: choosing among 1 to 3 .* 300 latents"),
        ({"sweep.judged": 361}, r"^--config.sweep.judged=361 is more than latents.num=360$"),
        (
            {"sweep.layers": ("layer7",)},
            r"^--config.sweep.layers: layer='layer7' is not one .* try --config.sweep.layers=layer",
        ),
        ({"sweep.judges": ("face",)}, r"^--config.sweep.judges=face: expected face_mesh, age"),
        ({"sweep.judges": ("no_module:f",)}, r"no_module"),
        ({"sweep.numbers": ()}, r"^--config.sweep.numbers: expected at least one number"),
        ({"sweep.numbers": (0,)}, r"^--config.sweep.numbers=0: expected a number of clusters"),
    ],
)
def test_a_mistake_is_reported_in_one_line_before_any_work(leaves, message, tmp_path):
    with pytest.raises(UserError, match=message):
        sweep(tmp_path / "run", config(**leaves))
    assert not (tmp_path / "run").exists()
