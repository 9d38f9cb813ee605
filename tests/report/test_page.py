"""The page is one file that asks for nothing, is current, small, and shows what there is."""

import base64
import hashlib
import io
import json
import re

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from PIL import Image

from cgjax.evaluation.judges import JudgedValues
from cgjax.generators.base import PretrainedGenerator
from cgjax.generators.conditioned import ConditionedGenerator
from cgjax.generators.registry import load_generator
from cgjax.regions.clustering import Clustering
from cgjax.regions.names import unnamed
from cgjax.report.build import SCRIPTS, SERVED_SCRIPTS, render, static
from cgjax.report.rows import EDGE, TYPICAL
from cgjax.report.view import ImageSheet, ShownClustering
from cgjax.run.opening import load_run
from cgjax.stages import page_images
from cgjax.stages.page_images import gather
from cgjax.stages.pipeline import Pipeline
from cgjax.testing.planted import PlantedDiscs
from tests.report.conftest import work

MB = 2**20


def page_of(root):
    return (root / "report" / "index.html").read_text()


def data_of(page):
    return json.loads(re.search(r'id="data">(.*?)</script>', page, re.DOTALL)[1])


def test_every_clustering_has_its_cards_and_every_part_its_heading(finished):
    page = page_of(finished)
    views = data_of(page)["views"]
    assert [view["id"] for view in views.values()] == [
        *("layer1-k2", "0/layer2-k2", "layer2-k2", "layer2-k3"),
    ]
    assert page.count('<article class="card"') == 2 + 2 + 2 + 3
    for heading in ("How faithful the samplers are", "What the layers hold", "How many clusters"):
        assert heading in page
    for cluster in ("0", "0/1", "layer2-k3=2"):
        assert f"<span>--cluster={cluster}</span> " in page
    query = (
        "<span>&#39;--cluster=layer1-k2=0</span> <span>&amp;</span> <span>!layer2-k3=1&#39;</span>"
    )
    assert query in page


def test_the_page_names_no_other_host_and_allows_only_its_own_script_and_style(finished):
    page = page_of(finished)
    assert not re.search(r'(src|href)="(?!data:|#)', page)
    assert not re.search(r"https?://|@import", page)
    assert ' style="' not in page
    assert not re.search(r"\son\w+=", page)
    policy = re.search(r'Content-Security-Policy" content="(.*?)"', page)[1]
    policy = policy.replace("&#39;", "'")
    assert "default-src 'none'" in policy
    for tag in ("style", "script"):
        text = re.search(rf"<{tag}>(.*?)</{tag}>", page, re.DOTALL)[1]
        digest = base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()
        assert f"{tag}-src 'sha256-{digest}'" in policy


def test_no_two_scripts_of_the_page_declare_the_same_name():
    names = []
    for script in (*SCRIPTS, *SERVED_SCRIPTS, "start.js"):
        declared = r"^(?:async )?(?:function\*?|const|let|class) (\w+)"
        names += re.findall(declared, static(script), re.MULTILINE)
    assert len(names) > 50
    assert [name for name in names if names.count(name) > 1] == []


def test_images_are_computed_once_and_again_if_their_file_changed(copied):
    def made():
        manifests = [json.loads(p.read_text()) for p in (copied / "stages").glob("page-*.json")]
        return {m["name"]: m["finished"] for m in manifests}

    before = made()
    assert before.keys() == {"page own", "page split 0", "page sweep"}
    work(copied, Pipeline.report, "report")
    assert made() == before
    (copied / "page_images" / "own.npz").write_bytes(b"edited")
    work(copied, Pipeline.report, "report")
    assert {name for name, time in made().items() if time != before[name]} == {"page own"}


def test_a_page_with_an_outdated_sweep_is_removed(copied):
    (copied / "sweep.csv").write_text("edited")
    work(copied, lambda pipeline: None, "report")
    assert not (copied / "report").exists()
    work(copied, Pipeline.report, "report")
    assert "What the layers hold" not in page_of(copied)


def test_rows_are_random_deepest_and_border_members_and_strips_follow_the_margin(finished):
    run = load_run(finished)
    with np.load(finished / "page_images" / "own.npz") as arrays:
        found = dict(arrays)
    labels, margins = run.clustering.labels, run.clustering.margins
    for c in range(2):
        own = np.flatnonzero(labels == c)
        order = own[np.argsort(margins[own])]
        np.testing.assert_array_equal(found["0.typical"][c], own[:TYPICAL])
        np.testing.assert_array_equal(found["0.border"][c], order[:EDGE])
        assert set(found["0.deepest"][c]) == set(order[-EDGE:])
        assert set(found["0.neighbour"][c]) == {1 - c}
    shown = found["indices"]
    np.testing.assert_array_equal(found["0.labels"], labels[shown])
    above = found["0.quantiles"] >= 125
    for c in range(2):
        median = np.median(margins[labels == c])
        own = labels[shown] == c
        assert (margins[shown[own & above]] >= median).all()
        assert (margins[shown[own & ~above]] <= median).all()


def test_a_border_member_nearly_fell_into_the_second_nearest_of_several_clusters(finished):
    run = load_run(finished)
    one = run.held.all["layer2-k3"]
    with np.load(finished / "page_images" / "sweep.npz") as arrays:
        border, neighbour = arrays["1.border"], arrays["1.neighbour"]
    latents = jnp.asarray(run.latents[border.ravel()])
    rows = np.asarray(run.generator.at_layer("layer2").features(latents)).reshape(24, -1)
    distances = np.linalg.norm(rows[:, None] - one.centroids[None], axis=2)
    np.testing.assert_array_equal(neighbour.ravel(), np.argsort(distances, axis=1)[:, 1])


def test_the_tile_of_a_latent_is_its_image(finished):
    run = load_run(finished)
    with np.load(finished / "page_images" / "own.npz") as arrays:
        indices, content = arrays["indices"], arrays["sheet"].tobytes()
    sheet = np.asarray(Image.open(io.BytesIO(content)).convert("RGB")).astype(float)
    place = 57
    x, y = place % 40 * 16, place // 40 * 16
    image = (run.generator.images(run.latents[indices[place : place + 1]])[0] + 1) * 127.5
    assert np.abs(sheet[y : y + 16, x : x + 16] - image).mean() < 12  # WebP is lossy


@pytest.mark.parametrize(
    "name",
    [
        "<script>alert(1)</script>",
        "</script><script>alert(1)</script>",
        '"><img src=x onerror=alert(1)>',
        "x" * 10_000,
        "\u202eright to left \u05e9\u05dc\u05d5\u05dd",
        "a/b/../c",
        "{{ 7 * 7 }}",
    ],
)
def test_a_harmful_name_is_shown_as_text(copied, name):
    entries = json.loads((copied / "clusters.json").read_text())
    entries[0]["name"] = name
    (copied / "clusters.json").write_text(json.dumps(entries))
    clean = page_of(copied)
    work(copied, Pipeline.report, "report")
    page = page_of(copied)
    assert page.count("<script") == clean.count("<script") == 2
    assert page.count("<img") == clean.count("<img")
    first = next(iter(data_of(page)["views"].values()))
    assert first["entries"][0]["name"] == name


@pytest.fixture(scope="module")
def faces():
    """Images of twenty clusterings of the embedded generator's latents, as a sweep leaves them."""
    gen = load_generator("dcgan_faces")
    generator = ConditionedGenerator(gen, "layer1", {}, 250)
    rng = np.random.default_rng(0)
    latents = rng.standard_normal((2000, gen.latent_dim)).astype(np.float32)
    features = np.asarray(generator.features(jnp.asarray(latents[:1])))
    clusterings = []
    for num in (2, 3, 4, 6, 8) * 4:
        labels = rng.integers(num, size=2000).astype(np.int32)
        clusterings.append(
            Clustering(
                layer="layer1",
                centroids=rng.standard_normal((num, features.size)).astype(np.float32),
                labels=labels,
                margins=rng.random(2000).astype(np.float32),
                shares=np.bincount(labels) / 2000,
            )
        )
    return clusterings, ImageSheet("g0", gather(generator, latents, clusterings, np.arange(2000)))


def test_the_judges_see_only_images_whose_values_propose_names(monkeypatch):
    monkeypatch.setattr(page_images, "FEWEST", 8)
    monkeypatch.setattr(page_images, "MOST", 8)
    seen = []
    monkeypatch.setattr(JudgedValues, "add", lambda self, images: seen.append(len(images)))
    generator = ConditionedGenerator(PretrainedGenerator(PlantedDiscs()), "layer1", {}, 5)
    latents = np.asarray(generator.sample_latents(jax.random.key(0), 60))
    rng = np.random.default_rng(0)
    one = Clustering(
        layer="layer1",
        centroids=np.asarray(generator.features(jnp.asarray(latents[:2]))),
        labels=rng.integers(2, size=60).astype(np.int32),
        margins=rng.random(60).astype(np.float32),
        shares=np.full(2, 0.5),
    )
    made = gather(generator, latents, [one], np.arange(60))
    assert sum(seen) == 8 < len(made["indices"])


@pytest.mark.parametrize(("num", "most"), [(1, 2 * MB), (20, 5 * MB)])
def test_a_page_of_one_clustering_is_at_most_2_mb_of_twenty_at_most_5(faces, num, most):
    ids = [str(c) for c in range(8)]  # in place of flags and commands
    clusterings, group = faces  # of one there are fewer images than the group has
    views = [
        ShownClustering(one, group, i, f"layer1-k{i}", unnamed(one), ids, ids).view()
        for i, one in enumerate(clusterings[:num])
    ]
    page = render(
        groups=[group],
        views=views[:1],
        swept=views[1:],
        title="faces",
        workdir="--workdir=x",
        summary={"samplers": {}},
        pictures=[],
        trees=[],
        sweep={"rows": [], "reasons": [], "ranked": ""},
        compared=None,
        compare_figure=None,
        example=None,
        config="",
        num=0,
        default="flow",
        samplers=[],
        typed="",
        is_served=False,
    )
    assert page.count('<article class="card"') == sum(one.num for one in clusterings[: len(views)])
    # Of what stands beside it, figures and tables, a default run has a third of a MB.
    assert len(page.encode()) < most - MB / 3
