"""Data sets of images: generated, the user's folder, CIFAR-10; and what they refuse."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from PIL import Image, ImageOps

from cgjax.config.distance_features import DIMS
from cgjax.endtoend.data import cifar10, generated
from cgjax.endtoend.data.cifar10 import Cifar10
from cgjax.endtoend.data.folder import FolderImages
from cgjax.endtoend.data.generated import GeneratedImages
from cgjax.endtoend.data.images import NOISE, prepared
from cgjax.errors import UserError
from cgjax.evaluation.extractors import RandomCnn
from cgjax.generators.registry import load_generator
from cgjax.runtime.png import as_uint8

KEY = jax.random.key(0)

LANCZOS = Image.Resampling.LANCZOS


def save_images(place, num, size=(20, 16), inside=""):
    (place / inside).mkdir(parents=True, exist_ok=True)
    rng = np.random.default_rng(num)
    for i in range(num):
        pixels = rng.integers(0, 255, (*size, 3), dtype=np.uint8)
        Image.fromarray(pixels).save(place / inside / f"{i}.png")


def test_generated_images_are_the_generators():
    data = GeneratedImages()
    points = data.draw(KEY, 3)
    generator = load_generator("dcgan_faces")
    images = np.asarray(generator.images(generator.sample_latents(KEY, 3)))
    assert points.rows.dtype == jnp.uint8
    assert points.rows.shape == (3, *data.row_shape())
    np.testing.assert_allclose(data.prepare(points.rows), np.clip(images, -1, 1), atol=0.6 / 127.5)
    np.testing.assert_array_equal(points.rows, data.draw(KEY, 3).rows)
    assert points.classes.tolist() == [0, 0, 0]


def test_few_generated_images_are_held_as_floats(monkeypatch):
    held: list[int] = []
    monkeypatch.setattr(generated, "as_uint8", lambda x: held.append(len(x)) or as_uint8(x))
    data = GeneratedImages("cgjax.testing.planted:make_planted")
    assert len(data.draw(KEY, 150).rows) == 150
    assert held == [64, 64, 22]


def test_a_missing_generator_is_refused_naming_the_flag():
    with pytest.raises(UserError, match=r"--config.data.path=nowhere: generator 'nowhere'"):
        GeneratedImages("nowhere").draw(KEY, 2)


def test_different_weights_have_a_different_identity(tmp_path):
    assert GeneratedImages().identity() == GeneratedImages("dcgan_faces").identity() != ""
    save_images(tmp_path / "a", 3)
    save_images(tmp_path / "b", 4)
    names = [FolderImages(str(tmp_path / name), size=8).identity() for name in "ab"]
    assert names[0] != names[1]


def test_training_mirrors_some_images_and_adds_noise_below_a_grey_level():
    rows = jnp.asarray(np.random.default_rng(0).integers(0, 256, (64, 4, 6, 3), dtype=np.uint8))
    plain = prepared(rows, None, flip=True, noise=True)
    assert float(jnp.abs(plain).max()) <= 1
    np.testing.assert_array_equal(as_uint8(np.asarray(plain)), rows)
    seen = prepared(rows, KEY, flip=True, noise=True)
    apart = [np.abs(seen - other).max(axis=(1, 2, 3)) for other in (plain, plain[:, :, ::-1])]
    is_plain, is_mirrored = (np.asarray(far) <= NOISE + 1e-6 for far in apart)
    assert (is_plain | is_mirrored).all()
    assert 16 < is_mirrored.sum() < 48
    still = prepared(rows, KEY, flip=False, noise=True)
    assert 0 < float(jnp.abs(still - plain).max()) <= NOISE + 1e-6


def test_a_folder_is_read_at_any_depth_cropped_resized_and_shuffled(tmp_path):
    save_images(tmp_path, 5)
    save_images(tmp_path, 4, size=(9, 31), inside="deep/er")
    data = FolderImages(str(tmp_path), size=8)
    points = data.draw(KEY, 9)
    assert points.rows.shape == (9, 8, 8, 3)
    assert len({row.tobytes() for row in np.asarray(points.rows)}) == 9
    other = data.draw(jax.random.key(1), 9)
    assert not np.array_equal(points.rows, other.rows)
    assert {r.tobytes() for r in np.asarray(other.rows)} == {
        r.tobytes() for r in np.asarray(points.rows)
    }


def bad_image(place):
    save_images(place, 2)
    (place / "a.png").write_bytes(b"no image")


@pytest.mark.parametrize(
    ("prepare", "words"),
    [
        (lambda place: None, "no images in this folder"),
        (lambda place: save_images(place, 1), "one image; expected at least 2"),
        (bad_image, "cannot be read as an image"),
    ],
)
def test_bad_folders_are_refused_in_one_line(tmp_path, prepare, words):
    prepare(tmp_path)
    with pytest.raises(UserError, match=words) as caught:
        FolderImages(str(tmp_path)).draw(KEY, 1)
    assert str(caught.value).startswith("--config.data.path")
    assert "\n" not in str(caught.value)


def test_a_folder_that_is_missing_or_too_small_is_refused(tmp_path):
    with pytest.raises(UserError, match=r"--config\.data\.path=\S+gone: no folder \S+gone"):
        FolderImages(str(tmp_path / "gone")).draw(KEY, 1)
    with pytest.raises(UserError, match=r"expected the folder of your images"):
        FolderImages("", size=8).draw(KEY, 1)
    save_images(tmp_path, 3)
    data = FolderImages(str(tmp_path), size=8)
    assert (data.available(2), data.available(4), len(data.draw(KEY, 4).rows)) == (2, 3, 3)


def test_hidden_folders_are_skipped(tmp_path):
    save_images(tmp_path, 2)
    save_images(tmp_path, 3, inside=".thumbnails")
    assert FolderImages(str(tmp_path), size=8).available(9) == 2


@pytest.mark.parametrize(("path", "words"), [("", "expected a generator"), (".", "generator.json")])
def test_an_unsuitable_generator_is_refused_naming_the_flag(path, words, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(UserError, match=words) as caught:
        GeneratedImages(path).row_shape()
    assert str(caught.value).startswith(f"--config.data.path={path}: ")


@pytest.fixture
def cifar(tmp_path, monkeypatch):
    """A folder of the five files with two records each, every class once."""
    monkeypatch.setattr(cifar10, "RECORDS", 2)
    records = np.random.default_rng(0).integers(0, 256, (10, cifar10.RECORD), dtype=np.uint8)
    records[:, 0] = np.arange(10)
    for name, part in zip(cifar10.FILES, np.split(records, 5), strict=True):
        (tmp_path / name).write_bytes(part.tobytes())
    return tmp_path, records


def test_cifar_records_are_a_class_and_three_planes(cifar):
    place, records = cifar
    (place / "data_batch_1 (copy).bin").write_bytes((place / cifar10.FILES[0]).read_bytes())
    data = Cifar10(str(place))
    assert data.num_images == 10
    points = data.draw(KEY, 10)
    assert sorted(points.classes.tolist()) == list(range(10))
    for row, label in zip(np.asarray(points.rows), points.classes.tolist(), strict=True):
        planes = records[label, 1:].reshape(3, 32, 32)
        np.testing.assert_array_equal(row, planes.transpose(1, 2, 0))


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (
            lambda part, other: part.unlink(),
            r"no data_batch_3.bin there; expected the folder of .* data_batch_1.bin to data_batch",
        ),
        (lambda part, other: part.write_bytes(b"abc"), "has 3 bytes; expected 2 records of 3073"),
        (
            lambda part, other: part.write_bytes(part.read_bytes()[: cifar10.RECORD]),
            "batch_3.bin has 3073 bytes; expected 2 records",
        ),
        (
            lambda part, other: part.write_bytes(other.read_bytes()),
            "batch_3.bin is a copy of data_batch_2.bin; unpack",
        ),
        (lambda part, other: part.write_bytes(b"\xff" * 2 * cifar10.RECORD), "has the class 255"),
    ],
)
def test_files_that_are_not_cifar_are_refused(cifar, change, words):
    change(cifar[0] / "data_batch_3.bin", cifar[0] / "data_batch_2.bin")
    with pytest.raises(UserError, match=words) as caught:
        Cifar10(str(cifar[0])).draw(KEY, 1)
    assert str(caught.value).startswith("--config.data.path")


def test_distances_are_measured_in_the_named_features():
    num = DIMS["random_cnn"]
    data = GeneratedImages(features="random_cnn")
    scores = data.scores(np.zeros((num, *data.row_shape()), np.float32))
    assert set(scores) == {"frechet_random_cnn", "precision", "recall"}
    assert RandomCnn()(np.zeros((2, 64, 64, 3), np.float32)).shape[1] == num


def test_a_perfect_sampler_scores_better_than_noise(tmp_path):
    save_images(tmp_path, 60)
    data = FolderImages(str(tmp_path), size=8, flip=False)
    expected = data.perfect(jax.random.key(2), 20, 2)
    noise = np.random.default_rng(0).uniform(-1, 1, (20, 8, 8, 3)).astype(np.float32)
    scores = data.scores(np.full_like(noise, -1.0) + 0.01 * noise)
    assert set(scores) == set(expected)
    (distance,) = (name for name in scores if name.startswith("frechet"))
    assert expected[distance].mean < scores[distance]
    notes = data.notes(KEY, 20, 2)
    assert notes["features"] in distance.removeprefix("frechet_")
    assert notes["images"] == 60


@pytest.mark.parametrize("num", [20, 60, 1000])
def test_no_image_is_compared_with_itself_and_both_sides_are_treated_alike(tmp_path, num):
    save_images(tmp_path, 60)
    data = FolderImages(str(tmp_path), size=8, flip=False)
    expected = data.perfect(KEY, num, 4)
    (distance,) = (name for name in expected if name.startswith("frechet"))
    assert expected[distance].mean > 1
    assert expected[distance].interval.low < expected[distance].interval.high
    # A sampler of the folder's own law scores as the perfect one.
    others = np.random.default_rng(9).integers(0, 255, (num, 20, 16, 3), dtype=np.uint8)
    fresh = [np.asarray(ImageOps.fit(Image.fromarray(x), (8, 8), LANCZOS)) for x in others]
    found = data.scores(np.stack(fresh).astype(np.float32) / 127.5 - 1)
    assert 0.9 < found[distance] / expected[distance].mean < 1.1
    assert data.compared(num) == min(num, 30)
    assert f"{min(num, 30)} generated images" in data.notes(KEY, num, 4)["compared"]
