"""The stage that saves samples of every cluster, and one picture of all clusters."""

from __future__ import annotations

import itertools
from collections.abc import Callable

import numpy as np

from cgjax.figures.clusters import titles
from cgjax.figures.sheets import contact_sheet
from cgjax.regions.region import ClusterRegion
from cgjax.run.places import samples_name
from cgjax.run.run import Run
from cgjax.run.sample_files import LATENTS, save_images
from cgjax.runtime.files import make_folder, write_atomically
from cgjax.runtime.keys import named_key
from cgjax.runtime.png import to_png
from cgjax.stages.graph import Maker
from cgjax.stages.rare import LeftOut, lower_num

SHEET_COLUMNS = 10


def save_samples(run: Run, maker: Maker, name: str, check: Callable[[], None]) -> None:
    """Draw verified samples of every cluster with one sampler, and save them.

    Args:
        run: with the sampler fitted.
        maker: of its artifacts.
        name: of the sampler.
        check: called after every batch of draws and every image; may raise to stop.
    """
    if maker.result(samples_name(name)) is not None:
        return

    def save(region: ClusterRegion) -> float:
        key = named_key(run.root_key, "sample", name, region.cluster)
        num, instead = run.config["sample"]["num"], lower_num("sample")
        latents, draw = run.draw(key, region, num, sampler=name, instead=instead, check=check)
        assert draw is not None
        folder = run.folder.samples / name / str(region.cluster)
        save_images(run.generator.image_blocks(latents), latents, folder, check)
        return draw.acceptance

    with maker.making(samples_name(name)) as result:
        left_out = LeftOut(run)
        saved = left_out.drawn(save)
        acceptances = map(saved.get, range(run.clustering.num))
        result["acceptance"] = [{"acceptance": acceptance} for acceptance in acceptances]
        result |= left_out.result


def draw_sheet(run: Run, maker: Maker) -> None:
    """Draw `clusters.png`: samples of the default sampler, a row for each cluster."""
    if maker.result("sheet") is not None:
        return
    with maker.making("sheet"):
        folder = run.folder.samples / run.config["sample"]["sampler"]
        rows, labels = [], titles(run.clustering)
        for c in range(run.clustering.num):
            path = folder / str(c) / LATENTS
            if path.is_file():
                blocks = run.generator.image_blocks(np.load(path, allow_pickle=False))
                images = itertools.chain.from_iterable(blocks)
                rows.append(np.stack([*itertools.islice(images, SHEET_COLUMNS)]))
            else:
                labels[c] += "\nleft out"
                rows.append(np.zeros((0, *run.generator.image_shape), np.float32))
        make_folder(run.folder.figures)
        title = f"{run.clustering.id}: verified samples, {folder.name}"
        picture = contact_sheet(rows, labels, title=title)
        write_atomically(run.folder.figures / "clusters.png", to_png(picture))
