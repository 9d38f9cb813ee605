"""Generators with classes in a comparison: their rows, their classes, and errors about them."""

import shutil

import numpy as np
import pytest

from cgjax.errors import UserError
from cgjax.generators.families import abstract_network
from cgjax.generators.registry import EMBEDDED
from cgjax.generators.weights import named_arrays, save_generator
from cgjax.report.tables import read_rows
from cgjax.run.conditional import conditional_of
from cgjax.run.opening import open_run
from tests.stages.test_compare import disc_side, make_config, make_pipeline, run_compare
from tests.stages.tiny_runs import bytes_of

SMALL = {
    "latent_dim": 6,
    "num_classes": 3,
    "widths": [4, 4, 4],
    "embedding_dim": 3,
    "hierarchical": True,
    "attention": [],
}


def save(folder, seed, **changes):
    architecture = SMALL | changes
    rng = np.random.default_rng(seed)
    arrays = {
        name: rng.uniform(0.2, 1.0, array.shape).astype(np.float32)
        for name, array in named_arrays(abstract_network("biggan_pytorch", architecture)).items()
    }
    source = {"name": "random numbers", "sha256": ""}
    return save_generator(
        folder, "biggan_pytorch", architecture, arrays, source=source, licence="none"
    )


QUICK = {"margins": (0.0,), "directions": 0, "num": 12, "selection": 8}


def test_a_generator_with_classes_has_rows_and_a_table_of_what_its_classes_show(tmp_path):
    folder = save(tmp_path / "trained" / "generator", 0)
    root = tmp_path / "run"
    settings = QUICK | {"conditional": (str(folder),)}
    text = run_compare(make_pipeline(root, learns=False, **settings))
    rows = read_rows(root / "compare.csv")
    own = [row for row in rows if row["method"] == "trained"]  # by the run, not "generator"
    assert [row["cluster"] for row in own] == ["0", "1"]
    for row in own:
        assert row["setting"].startswith("of 3 classes [")
        assert float(row["ratio"]) > 1
        assert 0 <= float(row["strict"]) <= 1
        assert row["membership"] == row["norm_ratio"] == ""  # its latents are of another kind
    labels = read_rows(root / "compare_labels.csv")
    assert [(row["generator"], row["label"]) for row in labels] == [
        *(("trained", str(label)) for label in range(3)),
        *(("layer1-k2", str(c)) for c in range(2)),
    ]
    clusters = [float(row["above"]) for row in labels[3:]]
    assert sorted(clusters) == [0.0, 1.0]  # discs left, discs right
    assert "what each class shows, disc_side by" in text

    def lines():
        return {row["cluster"]: row for row in read_rows(root / "compare.csv")}

    before = lines()
    assert run_compare(make_pipeline(root, learns=False, **settings)) == text
    save(folder, 1)  # other weights in the same folder
    assert run_compare(make_pipeline(root, learns=False, **settings)) != text
    assert lines() != before


def half_seen(images: np.ndarray) -> np.ndarray:
    """A judge that finds nothing in about half of the images, of every generator alike."""
    side = disc_side(images)
    return np.where(np.round(1e3 * side) % 2 == 0, np.nan, side)


def test_images_in_which_the_judge_finds_nothing_count_for_clusters_too(tmp_path):
    folder = save(tmp_path / "trained" / "generator", 0)
    root = tmp_path / "run"
    asked = {"judge": "tests.stages.test_conditional:half_seen", "attribute": "half_seen"}
    run_compare(make_pipeline(root, learns=False, **QUICK, **asked, conditional=(str(folder),)))
    clusters = [row for row in read_rows(root / "compare_labels.csv") if "k2" in row["generator"]]
    assert [row["num"] for row in clusters] == ["12", "12"]  # QUICK's num
    assert all(0.1 < float(row["found"]) < 0.9 for row in clusters)


def test_an_unsuitable_generator_is_refused_in_one_line_before_any_work(tmp_path):
    folder = save(tmp_path / "a" / "generator", 0)
    large = save(tmp_path / "large", 0, widths=[4, 4, 4, 4], latent_dim=8)
    shutil.copytree(folder, tmp_path / "a2" / "a")
    grey = save(tmp_path / "grey", 0, image_channels=1)
    for name in ("flow", "members", "sefa", "layer1-k3"):
        shutil.copytree(folder, tmp_path / name)
    for conditional, judge, said in (
        ([str(tmp_path)], True, "no generator.json"),
        ([str(EMBEDDED["dcgan_faces"])], True, "2 to 100 classes, but it has 0"),
        ([str(large)], True, "images are 32 x 32 x 3, and the run's are 16 x 16 x 3"),
        ([str(grey)], True, "images are 16 x 16 x 1, and the run's are 16 x 16 x 3"),
        ([str(tmp_path / "flow")], True, "'flow' is the name of another line of the comparison"),
        (
            [str(tmp_path / "members")],
            True,
            "'members' is the name of another line",
        ),
        ([str(tmp_path / "sefa")], True, "'sefa' is the name of another line of the comparison"),
        ([str(tmp_path / "layer1-k3")], True, "'layer1-k3' is the name of another line"),
        ([str(folder), str(tmp_path / "a2" / "a")], True, "'a' is named twice"),
        ([str(folder)], False, "needs a judge"),
        ([3], True, "a folder of converted weights"),
    ):
        config = make_config(conditional=tuple(conditional))
        if not judge:
            config["compare"]["judge"] = None
        with pytest.raises(UserError) as refused:
            open_run(tmp_path / "run", config, mode="compare")
        assert said in str(refused.value)
        assert "\n" not in str(refused.value)
        assert not (tmp_path / "run").exists()


@pytest.mark.parametrize(
    ("keywords", "said"),
    [
        ({"condition": "7"}, "condition=.?7 is not a class"),
        ({}, "needs a class"),
        ({"condition": "0", "truncation": 40.0}, "truncation"),
    ],
)
def test_keywords_that_a_generator_refuses_change_nothing(tmp_path, keywords, said):
    config = make_config(judge=None)
    settings = {"name": "trained", "weights": str(save(tmp_path / "a", 0)), "condition": "1"}
    config["generator"] |= settings
    config["layer"] = "1"
    open_run(tmp_path / "run", config)
    before = bytes_of(tmp_path / "run")
    config["generator"] |= {"condition": None} | keywords
    for root in (tmp_path / "run", tmp_path / "new"):
        with pytest.raises(UserError, match=said):
            open_run(root, config, allow_change=True)
    assert bytes_of(tmp_path / "run") == before
    assert not (tmp_path / "new").exists()


def test_layer_features_are_refused_for_images_of_another_generator(tmp_path):
    config = make_config(conditional=(str(save(tmp_path / "a", 0)),))
    config["evaluate"]["features"] = "layer:layer1"
    with pytest.raises(UserError, match=r"features=layer:layer1 .*features=pca_pixels"):
        open_run(tmp_path / "run", config, mode="compare")


def test_the_same_weights_have_the_same_identity_in_any_folder(tmp_path):
    folder = save(tmp_path / "a", 0)
    shutil.copytree(folder, tmp_path / "b")
    other = save(tmp_path / "c", 1)
    found = conditional_of({"conditional": [str(folder), str(tmp_path / "b"), str(other)]})
    first, second, third = (one.identity for one in found)
    assert first == second != third
