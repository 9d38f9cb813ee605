"""The static page of a run: figures, shares, numbers. Loads nothing from other hosts."""

from __future__ import annotations

import base64
import json
from pathlib import Path
from typing import Any

import jinja2

from cgjax.run.run import Run
from cgjax.runtime.files import make_folder, write_atomically

FIGURES = (
    ("clusters.png", "Verified samples of the default sampler, one row a cluster."),
    ("means.png", "The mean of the members' images, and the image of the mean feature."),
    ("pca.png", "The first two principal components of the features and of the latents."),
    (
        "transfer.png",
        "The same latents in other classes: first the class of the clusters, framed.",
    ),
)


def build_report(run: Run, summary: dict[str, Any]) -> Path:
    """Write `report/index.html`, one self-contained file.

    Args:
        run: with its clusters.
        summary: the content of `summary.json`.

    Returns:
        The page's path.
    """
    environment = jinja2.Environment(
        loader=jinja2.PackageLoader("cgjax.report"),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    pictures = [
        {"data": _data_url(run.folder.figures / name), "name": name, "caption": caption}
        for name, caption in FIGURES
        if (run.folder.figures / name).is_file()
    ]
    page = environment.get_template("index.html").render(
        title=run.folder.root.name,
        summary=summary,
        entries=run.entries,
        pictures=pictures,
        config=json.dumps(run.config, indent=1),
        num=run.config["evaluate"]["num"],
        default=run.config["sample"]["sampler"],
    )
    make_folder(run.folder.report)
    path = run.folder.report / "index.html"
    write_atomically(path, page.encode())
    return path


def _data_url(path: Path) -> str:
    return "data:image/png;base64," + base64.b64encode(path.read_bytes()).decode()
