"""Images of any size and mode take the generator's form; other files are one line."""

import struct

import numpy as np
import pytest
from PIL import Image

from cgjax.errors import Interrupted, UserError
from cgjax.runtime import photos
from cgjax.runtime.photos import check_channels, find_photos, list_images, read_photos
from cgjax.runtime.png import to_png

NOISE = np.random.default_rng(0).uniform(-1, 1, (16, 16, 3)).astype(np.float32)


def read(folder, size=8, channels=3):
    return read_photos(find_photos(folder), size, channels)


def grey(value, size=(20, 12)):
    return Image.new("L", size, value)


def deep(value):
    return Image.fromarray(np.full((12, 20), value * 257, np.uint16))


def palette(value):
    image = Image.new("P", (20, 12), 1)
    image.putpalette([0, 0, 0, value, value, value])
    return image


def transparent(mode):
    image = Image.new("RGBA", (20, 12), (0, 0, 0, 0))
    return image.convert(mode)


@pytest.mark.parametrize(
    ("image", "level"),
    [
        (grey(128), 128),
        (grey(128).convert("RGB"), 128),
        (grey(128).convert("LA"), 128),
        (grey(128).convert("RGBA"), 128),
        (palette(128), 128),
        (deep(128), 128),
        (Image.new("1", (20, 12), 1), 255),
        (transparent("RGBA"), 255),
        (transparent("LA"), 255),
        (grey(128, (1, 1)), 128),
        (grey(128, (3, 400)), 128),
    ],
    ids=lambda value: value.mode if isinstance(value, Image.Image) else str(value),
)
@pytest.mark.parametrize("channels", [1, 3])
def test_a_plain_image_of_any_mode_and_size_keeps_its_grey(image, level, channels, tmp_path):
    image.save(tmp_path / "x.png")
    found = read(tmp_path, channels=channels)
    assert found.shape == (1, 8, 8, channels)
    assert found.dtype == np.float32
    np.testing.assert_allclose(found, level / 127.5 - 1, atol=1e-6)


def test_an_image_of_the_right_size_comes_back_as_it_was_written(tmp_path):
    image = np.random.default_rng(0).integers(0, 256, (8, 8, 3)) / np.float32(127.5) - 1
    (tmp_path / "x.png").write_bytes(to_png(image.astype(np.float32)))
    np.testing.assert_allclose(read(tmp_path)[0], image, atol=1e-6)


def test_both_ends_of_the_longer_side_are_cropped(tmp_path):
    pixels = np.zeros((8, 24), np.uint8)
    pixels[:, 8:16] = 255
    Image.fromarray(pixels).save(tmp_path / "x.png")
    assert read(tmp_path).min() == 1
    Image.fromarray(pixels.T).save(tmp_path / "x.png")
    assert read(tmp_path).min() == 1


def test_a_photograph_is_turned_upright(tmp_path):
    pixels = np.zeros((8, 8), np.uint8)
    pixels[:4] = 255
    exif = Image.Exif()
    exif[0x0112] = 3  # upside down
    Image.fromarray(pixels).save(tmp_path / "x.png", exif=exif)
    found = read(tmp_path)[0, :, 0, 0]
    assert found[0] == -1
    assert found[-1] == 1


def test_a_damaged_tag_beside_the_orientation_does_not_matter(tmp_path):
    # One entry says 6 (turn to the right), the other has a resolution given as text.
    entries = struct.pack("<HHIHH", 0x0112, 3, 1, 6, 0) + struct.pack("<HHI4s", 0x011A, 2, 4, b"ab")
    exif = b"Exif\0\0II*\0" + struct.pack("<IH", 8, 2) + entries + bytes(4)
    pixels = np.zeros((8, 8), np.uint8)
    pixels[:4] = 255
    Image.fromarray(pixels).save(tmp_path / "x.jpg", exif=exif, quality=100)
    found = read(tmp_path)[0, 0, :, 0]
    assert found[0] < -0.9
    assert found[-1] > 0.9


def test_files_are_sorted_by_name_and_others_are_skipped(tmp_path):
    for name in ("b.png", "a.JPG", ".hidden.png", "c.webp"):
        grey(3).save(tmp_path / name, format="PNG")
    (tmp_path / "notes.txt").write_text("no image")
    (tmp_path / "folder.png").mkdir()
    photos = find_photos(tmp_path)
    assert [photo.path.name for photo in photos] == ["a.JPG", "b.png", "c.webp"]
    assert len({photo.digest for photo in photos}) == 1


@pytest.mark.parametrize(
    ("deep", "told"),
    [
        (
            False,
            "1 image; skipped: 2 of another type (.heic), 1 hidden, 1 missing (a broken link), "
            "1 not searched (a folder), 1 not searched (a link to a folder), 1 of another type "
            "(no extension)",
        ),
        (
            True,
            "2 images; skipped: 3 of a cgjax run, 2 of another type (.heic), 1 hidden, 1 missing "
            "(a broken link), 1 not searched (a link to a folder), 1 of another type (.avif), "
            "1 of another type (no extension)",
        ),
    ],
)
def test_the_log_counts_the_images_and_the_skipped_files(deep, told, tmp_path, caplog):
    for name in ("a.png", "b.heic", "c.HEIC", "notes", ".hidden.png", "in/d.png", "in/e.avif"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        grey(3).save(tmp_path / name, format="PNG")
    (tmp_path / "gone.png").symlink_to("nowhere.png")
    (tmp_path / "linked").symlink_to(tmp_path / "in")
    for name in ("config.json", "metrics.jsonl", "x.png"):
        (tmp_path / "in/run").mkdir(exist_ok=True)
        (tmp_path / "in/run" / name).write_text("")
    with caplog.at_level("INFO", logger="absl"):
        found = list_images(tmp_path, "--images", deep=deep)
    assert [path.name for path in found] == ["a.png", "d.png"][: 1 + deep]
    assert caplog.messages == [f"--images={tmp_path}: {told}"]


def test_the_most_frequent_types_of_skipped_files_are_listed(tmp_path):
    for i in range(20):
        (tmp_path / f"x.kind{i:02d}").write_text("")
    (tmp_path / "y.kind11").write_text("")
    with pytest.raises(UserError, match=r"\(2 of another type \(.kind11\), .*, 12 others\)"):
        find_photos(tmp_path)


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        (None, b"", "no images in this folder .it is empty."),
        ("notes.txt", b"", r"no images in this folder \(1 of another type \(.txt\)\); expected"),
        ("no\nimage.png", b"", r"no\\nimage.png cannot be read as an image"),
        ("x.png", b"", "x.png cannot be read as an image"),
        (
            "x.png",
            b"not an image",
            r"x.png cannot be .* \(its content is of no known image format\)",
        ),
        ("x.jpg", to_png(NOISE)[:300], "x.jpg cannot be read as an image"),
    ],
    ids=["empty", "other files", "two lines", "empty file", "text", "half a file"],
)
def test_a_bad_folder_is_one_line(name, content, message, tmp_path):
    if name:
        (tmp_path / name).write_bytes(content)
    with pytest.raises(UserError, match=message) as told:
        find_photos(tmp_path)
    assert "\n" not in str(told.value)


def test_a_missing_folder_is_one_line(tmp_path):
    with pytest.raises(UserError, match=r"--images=\S+none: no folder \S+none"):
        find_photos(tmp_path / "none")


def test_a_generator_whose_images_are_neither_grey_nor_rgb_is_refused():
    check_channels(1)
    check_channels(3)
    with pytest.raises(UserError, match="4 channels, which photographs do not"):
        check_channels(4)


def test_16_bit_images_keep_their_grey_in_every_format(tmp_path):
    levels = np.full((12, 20), 128 * 257, np.uint16)
    (tmp_path / "x.pgm").write_bytes(b"P5 20 12 65535\n" + levels.astype(">u2").tobytes())
    Image.fromarray(levels).save(tmp_path / "x.tif")
    np.testing.assert_allclose(read(tmp_path), 128 / 127.5 - 1, atol=1e-6)


@pytest.mark.parametrize("kind", [np.float32, np.int32])
def test_pixels_of_unknown_range_are_refused(kind, tmp_path):
    Image.fromarray(np.ones((12, 20), kind)).save(tmp_path / "x.tif")
    with pytest.raises(UserError, match=r"range of its pixels is unknown, mode [FI]; save it"):
        read(tmp_path)


def test_a_file_that_has_changed_since_it_was_found_is_refused(tmp_path):
    grey(100).save(tmp_path / "x.png")
    found = find_photos(tmp_path)
    grey(200).save(tmp_path / "x.png")
    with pytest.raises(UserError, match=r"x\.png has changed since it was found"):
        read_photos(found, 8, 3)


def test_pictures_drawn_by_a_run_are_skipped(tmp_path):
    for place in ("a/x.png", "runs/faces/figures/samples.png"):
        (tmp_path / place).parent.mkdir(parents=True)
        grey(100).save(tmp_path / place)
    for name in ("config.json", "metrics.jsonl"):
        (tmp_path / "runs/faces" / name).write_text("")
    (tmp_path / "a/metrics.jsonl").write_text("somebody's own")
    assert [path.name for path in list_images(tmp_path, deep=True)] == ["x.png"]


def test_reading_a_folder_can_be_stopped_between_its_images(tmp_path, monkeypatch):
    for name in "abc":
        grey(100).save(tmp_path / f"{name}.png")
    asked, read = iter([False, True]), []
    monkeypatch.setattr(photos, "check_photo", lambda path: read.append(path.name))

    def check():
        if next(asked):
            raise Interrupted("stopped")

    with pytest.raises(Interrupted):
        find_photos(tmp_path, check)
    assert read == ["a.png"]
