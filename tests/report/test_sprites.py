"""Pictures on the page fit into WebP files, however many clusters a run has."""

import base64
import io

import numpy as np
import pytest
from PIL import Image

from cgjax.report.sprites import MOST_SIDE, figure_url, sheet


def opened(content: bytes) -> Image.Image:
    return Image.open(io.BytesIO(content))


@pytest.mark.parametrize("columns", [300, 1])
def test_a_sheet_of_many_tiles_has_smaller_ones(columns):
    tiles = np.zeros((300, 64, 64, 3), np.uint8)
    tiles[150:] = 255
    picture = opened(sheet(tiles, columns))
    tile = MOST_SIDE // 300
    assert sorted(picture.size) == [tile, 300 * tile]
    first, last = np.split(np.asarray(picture.convert("L")), 2, axis=int(columns > 1))
    assert first.mean() < 1
    assert last.mean() > 254


@pytest.mark.filterwarnings("error")
def test_a_figure_of_any_size_is_shown(tmp_path, monkeypatch):
    path = tmp_path / "clusters.png"
    Image.new("L", (20, MOST_SIDE + 100), "white").save(path)
    with monkeypatch.context() as patch:
        patch.setattr(Image, "MAX_IMAGE_PIXELS", 1000)
        url = figure_url(path)
    assert opened(base64.b64decode(url.partition(",")[2])).size == (20, MOST_SIDE)
