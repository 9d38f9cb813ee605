"""The cluster stage finds the same clusters in memory, streamed, and from a part of the latents."""

import logging
import re
import sys

import jax
import numpy as np
import pytest

from cgjax.config import plain as configuration
from cgjax.errors import Interrupted, UserError
from cgjax.report.build import build_report
from cgjax.run.opening import open_run
from cgjax.runtime.signals import Interrupts
from cgjax.stages import cluster as stage
from cgjax.stages import encoding
from cgjax.stages.encoding import Encoded, clustering_of
from cgjax.stages.pipeline import Pipeline
from cgjax.stages.report import summary_of
from configs import tiny


@pytest.fixture
def make(tmp_path):
    def make(name, **changes):
        config = tiny.get_config("quick")
        for leaf, value in changes.items():
            config.cluster[leaf] = value
        run = open_run(tmp_path / name, configuration.to_plain(config))
        made.append(Pipeline(run, Interrupts()))
        return made[-1]

    made = []
    yield make
    for pipeline in made:
        pipeline.metrics.close()


def test_features_larger_than_memory_are_streamed_to_the_same_clusters(make, caplog):
    held, streamed = make("held"), make("streamed", memory_mb=0)
    with caplog.at_level(logging.INFO, logger="absl"):
        held.cluster()
        assert "memory_mb" not in caplog.text
        streamed.cluster()
    assert re.search("do not fit into --config.cluster.memory_mb=0: (kept|recomputed)", caplog.text)
    assert re.search("cluster: k-means.. 2/2 512/512", caplog.text)
    np.testing.assert_array_equal(held.run.clustering.labels, streamed.run.clustering.labels)
    np.testing.assert_allclose(
        held.run.clustering.centroids, streamed.run.clustering.centroids, rtol=1e-5, atol=1e-6
    )
    assert summary_of(held.run)["features"] == "memory"
    assert summary_of(streamed.run)["features"] in ("disk", "recompute")
    assert (streamed.run.folder.figures / "pca.png").is_file()


def test_max_samples_limits_what_is_clustered_and_all_latents_are_assigned(make, caplog):
    pipeline = make("part", max_samples=100)
    with caplog.at_level(logging.INFO, logger="absl"):
        pipeline.cluster()
    assert "clustered the first 100 latents" in caplog.text
    found = pipeline.run.clustering
    assert len(found.labels) == len(found.margins) == 512
    assert summary_of(pipeline.run)["fitted_latents"] == 100
    features = pipeline.run.generator.all_features(pipeline.run.latents)
    distance = ((features[:, None] - found.centroids[None]) ** 2).sum(-1)
    np.testing.assert_array_equal(found.labels, distance.argmin(1))
    inertia = summary_of(pipeline.run)["inertia"]
    np.testing.assert_allclose(inertia, distance.min(1).sum(), rtol=1e-4)


@pytest.mark.parametrize(
    ("mode", "layer", "leaves", "message"),
    [
        ("run", 1, {"cluster.trimmed": 0.1}, r"and trimmed=0.1 holds .* or use .*trimmed=0$"),
        (
            "compare",
            1,
            {"cluster.backend": "faiss"},
            r"and .* or use --config.cluster.backend=jax$",
        ),
        ("sweep", 2, {"cluster.trimmed": 0.1}, r"and trimmed=0.1 holds them in memory; raise --"),
        ("run", 2, {"cluster.backend": "faiss"}, r"and backend=faiss holds them in memory; raise"),
    ],
)
def test_features_that_must_fit_and_do_not_are_refused_before_anything_is_written(
    mode, layer, leaves, message, tmp_path
):
    """In the last case those at the run's own layer fit, and not those inside a cluster."""
    config = tiny.get_config("quick")
    sweep = {"sweep.layers": ("layer2",), "sweep.numbers": (2,), "sweep.judged": 100}
    splits = {"hierarchy.splits": ("0/layer2-k2",), "hierarchy.num": 10**6}
    judges = {"sweep.judges": ("image_statistics",)}
    memory = {"cluster.memory_mb": 2 if (mode, layer) == ("run", 2) else 0}
    config.update_from_flattened_dict(leaves | sweep | splits | judges | memory)
    with pytest.raises(UserError, match=f"latents at layer{layer} take .* MB {message}"):
        open_run(tmp_path / "run", configuration.to_plain(config), mode=mode)
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize(
    ("leaves", "message"),
    [
        (
            {"cluster.trimmed": 0.5, "cluster.num_clusters": 400},
            "^400 clusters of layer1 need at least 400 latents, and --config.latents.num=512 with "
            "--config.cluster.trimmed=0.5 leaves 256; raise it$",
        ),
        (
            {"hierarchy.splits": ("0/layer2-k3",), "hierarchy.num": 2},
            "^3 clusters of layer2 need at least 3 latents, and --config.hierarchy.num=2 leaves 2",
        ),
    ],
)
def test_too_few_latents_for_the_clusters_are_refused_before_anything_is_written(
    leaves, message, tmp_path
):
    config = tiny.get_config("quick")
    config.update_from_flattened_dict(leaves)
    with pytest.raises(UserError, match=message):
        open_run(tmp_path / "run", configuration.to_plain(config))
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize(
    "leaves", [{"cluster.backend": "faiss"}, {"samplers.imle.matcher": "faiss"}]
)
def test_faiss_that_is_not_there_is_asked_for_before_anything_is_written(
    leaves, monkeypatch, tmp_path
):
    monkeypatch.setitem(sys.modules, "faiss", None)
    config = tiny.get_config("quick")
    config.update_from_flattened_dict(leaves)
    with pytest.raises(UserError, match=r"cgjax\[faiss\]"):
        open_run(tmp_path / "run", configuration.to_plain(config))
    assert not (tmp_path / "run").exists()


@pytest.mark.usefixtures("untyped")
@pytest.mark.parametrize(("most", "num"), [(4, 300), (200, 12_000)])
def test_a_choice_among_many_clusters_is_made_from_as_many_rows_as_it_needs(most, num, monkeypatch):
    def chosen(rows, max_clusters, *, key, num_rows):
        assert (len(rows), max_clusters, num_rows) == (num, most, num)

    monkeypatch.setattr(encoding, "CHOICE_ROWS", 300)
    monkeypatch.setattr(encoding, "choose_num_clusters", chosen)
    encoded = Encoded(np.zeros((20_000, 1), np.float32), None, 20_000)
    encoding.choose(encoded, most, jax.random.key(0))


def test_an_interrupted_streamed_clustering_leaves_no_file(make):
    pipeline = make("stopped", memory_mb=0)
    pipeline.interrupts.requested = True
    with pytest.raises(Interrupted, match="nothing is kept"):
        pipeline.cluster()
    left = {p.name for p in pipeline.run.folder.root.iterdir()}
    assert left <= {"config.json", "metrics.jsonl", "stages", "latents.npy"}


def test_fewer_samples_than_clusters_are_refused(make):
    with pytest.raises(UserError, match="max_samples=1 is less than num_clusters=2"):
        make("few", max_samples=1)


@pytest.mark.parametrize(
    "changes",
    [{"space": "standardised"}, {"space": "pooled"}, {"space": "spherical"}, {"trimmed": 0.1}],
    ids=lambda changes: "-".join(map(str, changes.values())),
)
def test_latents_are_members_of_the_cluster_of_their_label(make, changes):
    pipeline = make("robust", max_samples=200, **changes)  # the others are assigned from a stream
    pipeline.cluster()
    run = pipeline.run
    assert run.clustering.space.name == changes.get("space", "raw")
    for region in run.regions:
        is_member = run.clustering.labels == region.cluster
        np.testing.assert_array_equal(run.are_inside(run.latents, region), is_member)
    assert (run.folder.figures / "means.png").is_file()
    assert summary_of(pipeline.run)["small_clusters"] == []
    make("robust", max_samples=200, memory_mb=0, **changes).cluster()  # there is nothing to make


def test_features_of_a_space_are_streamed_to_the_same_clusters(make):
    held, streamed = (
        make(name, space="standardised", memory_mb=size)
        for name, size in (("held", 64), ("streamed", 0))
    )
    for pipeline in (held, streamed):
        pipeline.cluster()
    ours, theirs = held.run.clustering, streamed.run.clustering
    np.testing.assert_array_equal(ours.labels, theirs.labels)
    np.testing.assert_array_equal(ours.space.mean, theirs.space.mean)


def test_clusters_of_another_space_than_the_configs_are_refused(make):
    pipeline = make("pooled", space="pooled")
    pipeline.cluster()
    data = pipeline.run.folder.clusters.read_bytes()
    with pytest.raises(UserError, match=r"clusters of pooled features; this run has .*space=raw"):
        make("raw").run.held.parse_own(data)


def test_a_cluster_of_outliers_is_flagged_in_log_summary_and_page(make, caplog, monkeypatch):
    def with_few(*found):
        labels = np.where(np.arange(512) < 2, 1, 0).astype(np.int32)
        return clustering_of(*found)._replace(labels=labels, shares=np.bincount(labels) / 512)

    monkeypatch.setattr(stage, "clustering_of", with_few)
    pipeline = make("flagged")
    with caplog.at_level(logging.WARNING, logger="absl"):
        pipeline.cluster()
    assert "cluster 1 has 0.4% of the latents, less than a tenth of an equal share" in caplog.text
    assert summary_of(pipeline.run)["small_clusters"] == [1]
    page = build_report(pipeline.run, summary_of(pipeline.run)).read_text()
    assert page.count(">small</span>") == 1
    assert "more likely outliers than a group" in page
