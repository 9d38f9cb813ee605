"""Assigning the user's images: they get the planted cluster, and foreign images are reported."""

import csv
import json
import os
import shutil

import numpy as np
import pytest
from PIL import Image
from safetensors.numpy import save_file

from cgjax.errors import Interrupted, UserError
from cgjax.evaluation.lpips import Lpips
from cgjax.inversion.inverter import Inverter
from cgjax.run.artifacts import declare_assigned
from cgjax.run.opening import load_run, open_run
from cgjax.run.places import ENCODER, HELD_OUT
from cgjax.runtime.log import Progress
from cgjax.runtime.png import to_png
from cgjax.runtime.signals import Interrupts
from cgjax.stages import assign as stage
from cgjax.stages import inversion
from cgjax.testing.planted import true_side
from tests.evaluation.test_lpips import random_tensors
from tests.killing import Killed, killing
from tests.stages.tiny_runs import bytes_of, config, pipeline_of

NUM = 15
LEAVES = {
    "assign.samples": 240,
    "assign.batch": 8,
    "assign.width": 4,
    "assign.steps": 25,
    "assign.held_out": 16,
    "assign.restarts": 1,
    "generator.batch": 8,
}


def assign(root, images, interrupts=None, **options):
    run = open_run(root, options.pop("given", None), mode="assign", **options)
    with pipeline_of(run, interrupts) as pipeline:
        return pipeline.assign(images)


def said(text, root):
    """The printed text, without the folder."""
    return text.replace(str(root), "")


def table_of(root, name="own"):
    with open(root / "assign" / name / "assign.csv", newline="") as file:
        return {row["file"]: row for row in csv.DictReader(file)}


@pytest.fixture(scope="module")
def clustered(tmp_path_factory):
    folder = tmp_path_factory.mktemp("assign") / "run"
    with pipeline_of(open_run(folder, config(**LEAVES))) as pipeline:
        pipeline.cluster()
    return folder


@pytest.fixture(scope="module")
def own(clustered, tmp_path_factory):
    """Images by the generator, and one that it cannot make."""
    folder = tmp_path_factory.mktemp("images") / "own"
    folder.mkdir()
    run = load_run(clustered)
    for i, image in enumerate(run.generator.images(run.latents[:NUM])):
        (folder / f"{i}.png").write_bytes(to_png(image))
    noise = np.random.default_rng(0).integers(0, 256, (40, 30), np.uint8)
    Image.fromarray(noise).save(folder / "noise.png")
    return folder


@pytest.fixture(scope="module")
def told(clustered, own):
    return assign(clustered, own)


def test_images_of_the_generator_get_the_cluster_of_their_latent(told, clustered):
    run, table = load_run(clustered), table_of(clustered)
    labels = run.clustering.labels[:NUM]
    found = np.array([int(table[f"{i}.png"]["cluster"]) for i in range(NUM)])
    clear = run.clustering.margins[:NUM] > 0.2
    assert clear.sum() >= NUM - 1
    assert (found == labels)[clear].all()
    side = np.asarray(true_side(run.latents[:NUM]))
    assert len(np.unique((found == side)[clear])) == 1
    assert "of 16 held-out images of the generator's own, " in told


def test_folders_and_files_may_have_any_name_that_the_file_system_allows(
    told, clustered, own, tmp_path, monkeypatch
):
    shown: list[str] = []
    monkeypatch.setattr(
        inversion, "Progress", lambda what, total: shown.append(what) or Progress(what, total)
    )
    root = shutil.copytree(clustered, tmp_path / "run")  # the inversions are kept
    images = tmp_path / os.fsdecode(b"\xff" + b"a" * 254)
    images.mkdir()
    names = ["noise.png", "a" * 251 + ".png", "\u4e00" * 83 + ".png", os.fsdecode(b"x\xff.png")]
    for i, name in enumerate(names):
        shutil.copy(own / ("noise.png" if i == 0 else f"{i}.png"), images / name)
    assert "x\\xff.png" in assign(root, images)
    assert shown[-1].startswith(f"invert {tmp_path}/\\xffaaa")  # which can be printed
    (place,) = set((root / "assign").iterdir()) - {root / "assign" / "own"}
    assert set(table_of(root, place.name)) == {*names[:3], "x\\xff.png"}
    assert open_run(root, None, mode="assign").manifests.result(f"assign {place.name}")


def test_an_image_that_the_generator_cannot_make_is_reported(told, clustered):
    table = table_of(clustered)
    assert table["noise.png"]["is_made"] == "False"
    assert float(table["noise.png"]["error_above"]) == 1
    made = [row["is_made"] for name, row in table.items() if name != "noise.png"]
    assert made.count("True") >= NUM - 1
    (line,) = [line for line in told.splitlines() if line.startswith("noise.png")]
    assert line.endswith("not something this generator makes")


def test_the_folder_has_a_table_latents_and_a_picture_of_every_cluster(told, clustered):
    place = clustered / "assign" / "own"
    names = {path.name for path in place.iterdir()}
    pictures = {"cluster-0.png", "cluster-1.png", "foreign.png", "errors.png", "errors.pdf"}
    assert names == {"assign.csv", "latents.npy"} | pictures
    assert np.load(place / "latents.npy").shape == (NUM + 1, 6)
    for name in pictures - {"errors.pdf"}:
        with Image.open(place / name) as picture:
            picture.verify()


def test_repeating_the_command_computes_and_changes_nothing(told, clustered, own, monkeypatch):
    before = bytes_of(clustered / "assign") | bytes_of(clustered / "checkpoints")
    monkeypatch.setattr(Inverter, "invert", None)
    assert assign(clustered, own) == told
    assert bytes_of(clustered / "assign") | bytes_of(clustered / "checkpoints") == before


def test_a_generator_that_cannot_be_differentiated_is_reported(told, clustered, own, monkeypatch):
    monkeypatch.setattr("cgjax.inversion.inverter.traced", lambda generator: None)
    lines = assign(clustered, own).splitlines()
    assert "this generator cannot be differentiated: by the encoder alone" in lines
    assert "this generator" not in said(told, "").replace("this generator makes", "")


def test_the_table_has_names_and_another_folder_gets_another_table(
    told, clustered, own, tmp_path, monkeypatch
):
    root, some = tmp_path / "run", tmp_path / "some more"
    shutil.copytree(clustered, root)
    some.mkdir()
    shutil.copy(own / "3.png", some / "x.png")
    (root / "clusters.json").write_text(
        json.dumps([{"id": c, "name": f"side {c}"} for c in (0, 1)])
    )
    monkeypatch.setattr(Inverter, "invert", None)  # images are recognised by their content
    text = assign(root, some)
    row, old = table_of(root, "some-more")["x.png"], table_of(root)["3.png"]
    assert row["name"] == f"side {row['cluster']}"
    assert f"{row['cluster']} (side {row['cluster']})" in text
    assert {**old, "file": "", "name": ""} == {**row, "file": "", "name": ""}


def test_two_folders_of_one_name_get_a_table_each(told, clustered, own, tmp_path):
    root = tmp_path / "run"
    shutil.copytree(clustered, root)
    for parent, image in (("a", "3.png"), ("b", "4.png")):
        (tmp_path / parent / "own").mkdir(parents=True)
        shutil.copy(own / image, tmp_path / parent / "own" / image)
        for _ in range(2):
            assign(root, tmp_path / parent / "own")
    assert list(table_of(root, "own-2")) == ["3.png"]
    assert list(table_of(root, "own-3")) == ["4.png"]
    assert len(table_of(root)) == NUM + 1
    assert not (root / "assign" / "own-4").exists()


def test_names_may_contain_dollar_signs_and_undecodable_bytes(told, clustered, own, tmp_path):
    root, some = tmp_path / "run", tmp_path / "odd"
    shutil.copytree(clustered, root)
    some.mkdir()
    for name in (b"x\xff.png", b"=1+1\x1b[2J\n.png"):
        shutil.copy(own / "3.png", os.fsencode(some) + b"/" + name)
    (root / "clusters.json").write_text(
        json.dumps([{"id": c, "name": f"^_^ $_$ {c}"} for c in (0, 1)])
    )
    text = assign(root, some)
    assert list(table_of(root, "odd")) == ["'=1+1\\x1b[2J\\n.png", "x\\xff.png"]
    assert {line.split()[0] for line in text.splitlines() if ".png" in line} == {
        *("=1+1\\x1b[2J\\n.png", "x\\xff.png")
    }
    assert all(c.isprintable() or c == "\n" for c in text)


@pytest.mark.parametrize(
    ("place", "name", "at"), [(inversion, "learn", 17), (Inverter, "invert", 2)]
)
def test_killed_anywhere_the_same_command_resumes_to_the_same_bytes(
    place, name, at, told, clustered, own, tmp_path, monkeypatch
):
    root = tmp_path / "run"
    shutil.copytree(clustered, root, ignore=shutil.ignore_patterns("assign", "encoder*", "held-*"))

    with monkeypatch.context() as patched:
        patched.setattr(place, name, killing(getattr(place, name), at))
        with pytest.raises(Killed):
            assign(root, own)
    assert said(assign(root, own), root) == said(told, clustered)
    for part in ("assign", "checkpoints/encoder"):
        new, old = bytes_of(root / part), bytes_of(clustered / part)
        for name, data in old.items():
            if name.endswith((".csv", ".npy", ".npz", ".png")):
                assert new[name] == data, name


def interrupted_after_reading(monkeypatch):
    """Return what is asked to stop once the user's images have been read."""
    interrupts = Interrupts()

    def check(channels):
        interrupts.requested = True

    monkeypatch.setattr(stage, "check_channels", check)
    return interrupts


def test_an_interruption_says_what_is_kept(clustered, own, tmp_path, monkeypatch):
    root = tmp_path / "run"
    shutil.copytree(clustered, root, ignore=shutil.ignore_patterns("assign", "encoder*", "held-*"))
    interrupts = interrupted_after_reading(monkeypatch)
    with pytest.raises(Interrupted, match="the encoder is saved at step 1; run the same command"):
        assign(root, own, interrupts)
    assert [path.name for path in (root / "checkpoints" / "encoder").glob("*.json")] == ["1.json"]


def test_damaged_inversions_are_recomputed(told, clustered, own, tmp_path):
    root = tmp_path / "run"
    shutil.copytree(clustered, root)
    path = root / "checkpoints" / "encoder" / "inversions.npz"
    with np.load(path) as arrays:
        edited = {**arrays, "latents": arrays["latents"] + 1}
    for data in (None, b"nothing"):
        if data is None:
            np.savez(path, **edited)
        else:
            path.write_bytes(data)
        assert said(assign(root, own), root) == said(told, clustered)


def test_a_damaged_encoder_is_retrained(told, clustered, own, tmp_path):
    root = tmp_path / "run"
    shutil.copytree(clustered, root)
    steps = root / "checkpoints" / "encoder"
    last = max((path for path in steps.glob("*.json")), key=lambda path: int(path.stem))
    files = [path for path in (last.with_suffix("") / "state").rglob("*") if path.is_file()]
    victim = max(files, key=lambda path: path.stat().st_size)
    victim.write_bytes(victim.read_bytes()[::-1])
    assert said(assign(root, own), root) == said(told, clustered)


@pytest.mark.parametrize(
    ("change", "kept"),
    [
        ({"cluster.num_clusters": 3}, {ENCODER, HELD_OUT}),
        ({"assign.steps": 20}, {ENCODER}),
        ({"assign.samples": 160}, set()),
        ({"assign.quantile": 0.9}, {ENCODER, HELD_OUT}),
    ],
    ids=["clusters", "steps", "samples", "quantile"],
)
def test_another_config_is_refused_and_if_accepted_removes_what_is_stale(
    change, kept, told, clustered, own, tmp_path
):
    root = tmp_path / "run"
    shutil.copytree(clustered, root)
    given = config(**LEAVES | change)
    with pytest.raises(UserError, match="was made with another config"):
        assign(root, own, given=given)
    assert (root / "assign" / "own").is_dir()
    run = open_run(root, given, allow_change=True)
    assert not (root / "assign" / "own").exists()
    assert {name for name in (ENCODER, HELD_OUT) if run.manifests.result(name) is not None} == kept


def test_a_run_without_clusters_is_refused(own, tmp_path):
    root = tmp_path / "run"
    open_run(root, config(**LEAVES))
    with pytest.raises(UserError, match="'latents' is not there yet"):
        assign(root, own)


def test_a_loss_that_is_nan_stops_and_names_the_step(clustered, own, tmp_path):
    root = tmp_path / "run"
    shutil.copytree(clustered, root, ignore=shutil.ignore_patterns("encoder*", "held-*"))
    given = config(**LEAVES | {"assign.learning_rate": 1e38})
    with pytest.raises(UserError, match=r"the encoder's loss became nan in step [0-9]+; lower"):
        assign(root, own, given=given, allow_change=True)


@pytest.fixture(scope="module")
def vgg(tmp_path_factory):
    path = tmp_path_factory.mktemp("weights") / "vgg.safetensors"
    save_file(random_tensors("vgg"), path)
    return path


def with_lpips(path):
    given = config(**LEAVES)
    given["assign"]["lpips"] = str(path)
    return given


def test_lpips_is_one_more_column_and_changes_nothing_else(
    told, clustered, own, vgg, tmp_path, monkeypatch
):
    root = tmp_path / "run"
    shutil.copytree(clustered, root)
    monkeypatch.setattr(Inverter, "invert", None)  # the inversions are those of before
    text = assign(root, own, given=with_lpips(vgg), allow_change=True)
    table, old = table_of(root), table_of(clustered)
    distances = {name: float(row.pop("lpips")) for name, row in table.items()}
    assert table == old
    assert max(distances, key=distances.get) == "noise.png"
    assert all(distance >= 0 for distance in distances.values())
    (line,) = set(said(text, root).splitlines()) - set(said(told, clustered).splitlines())
    mean = np.mean(list(distances.values()))
    assert line == f"LPIPS (vgg): mean {mean:.4f} of {NUM + 1} images"
    before = bytes_of(root / "assign")
    with monkeypatch.context() as patched:
        patched.setattr(Lpips, "__call__", None)  # nor is LPIPS measured twice
        assert assign(root, own) == text
    assert bytes_of(root / "assign") == before
    assert assign(root, own, given=config(**LEAVES), allow_change=True).count("LPIPS") == 0
    assert table_of(root) == old


def test_the_key_is_that_of_the_weights_and_without_them_that_of_before(
    told, clustered, own, vgg, tmp_path
):
    root, copy = tmp_path / "run", tmp_path / "copy"
    shutil.copytree(clustered, root)
    shutil.copy(vgg, copy)

    def key(path):
        run = open_run(root, with_lpips(path), mode="assign", allow_change=True)
        declare_assigned(run.manifests.graph, run.config, "own")
        return run.manifests.graph["assign own"].key

    keys = [key(path) for path in ("", vgg, copy)]
    assert keys[0] == load_run(clustered).manifests.graph["assign own"].key
    assert keys[0] != keys[1] == keys[2]
    save_file(random_tensors("vgg", seed=1), copy)
    assert key(copy) not in keys


def test_weights_that_cannot_be_used_are_refused_before_anything_is_changed(
    told, clustered, own, tmp_path
):
    root, path = tmp_path / "run", tmp_path / "weights"
    shutil.copytree(clustered, root)
    before = bytes_of(root)
    for tensors, message in (
        (None, "no file .*/weights; python -m converters lpips"),
        (random_tensors("alex"), "at least 31x31 pixels, and these have 16x16; vgg takes 16x16"),
        (random_tensors("vgg") | {"features.0.bias": np.full(64, np.nan, np.float32)}, "holds NaN"),
    ):
        if tensors:
            save_file(tensors, path)
        with pytest.raises(UserError, match=message) as raised:
            assign(root, own, given=with_lpips(path), allow_change=True)
        assert str(raised.value).startswith(f"--config.assign.lpips={path}: ")
    assert bytes_of(root) == before
