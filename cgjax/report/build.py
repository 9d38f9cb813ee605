"""The static page of a run: one self-contained file that loads nothing."""

from __future__ import annotations

import base64
import functools
import hashlib
import json
import shlex
from collections.abc import Mapping
from importlib import resources
from pathlib import Path
from typing import Any

import jinja2
from markupsafe import Markup

from cgjax.clustering.selection.results import Verdict
from cgjax.evaluation.compare_table import three_digits
from cgjax.regions.names import MAX_NAME
from cgjax.regions.query import quoted
from cgjax.report import tables
from cgjax.report.sprites import figure_url
from cgjax.report.tree import tree_of
from cgjax.report.view import ImageSheet, View, views_of
from cgjax.run.folder import find_config
from cgjax.run.places import sweep_name
from cgjax.run.run import Run
from cgjax.runtime.files import make_folder, write_atomically

FIGURES = (
    ("clusters.png", "Verified samples of the default sampler, one row for each cluster."),
    (
        "means.png",
        "Each cluster's mean image, and the image made from its mean feature.",
    ),
    (
        "transfer.png",
        "The same latents in other classes; the framed row is the clustered class.",
    ),
)

SCRIPTS = ("core.js", "tiles.js", "names.js", "scatter.js", "print.js")
"""The page's scripts, joined in this order; `start.js` comes last."""

SERVED_SCRIPTS = ("ask.js", "draw.js", "saved.js")
"""Additional scripts of a served page."""

SEPARATION: dict[Verdict, str] = {
    "one cluster": (
        "No: the layer holds one cloud without a valley, and the clusters are parts of it. Such a "
        "split can still mean something, but images near it belong to neither part clearly."
    ),
    "several clusters": "Yes, some: the layer holds several clouds with valleys between them.",
    "more clusters than asked for": (
        "Yes, some: the layer holds several clouds with valleys between them, and more clouds than "
        "clusters were asked for."
    ),
}
"""What a verdict on a layer says about the clusters on the page."""


def build_report(run: Run, summary: dict[str, Any]) -> Path:
    """Write `report/index.html`, one self-contained file.

    Args:
        run: one with clusters or a sweep.
        summary: the content of `summary.json`.

    Returns:
        The page's path.
    """
    make_folder(run.folder.report)
    write_atomically(run.folder.page, page_of(run, summary).encode())
    return run.folder.page


def page_of(run: Run, summary: dict[str, Any], *, is_served: bool = False) -> str:
    """Return the page's text.

    Args:
        run: one with clusters or a sweep.
        summary: the content of `summary.json`.
        is_served: whether a process serves the page, see `cgjax.serve`.
    """
    own, sweep_views, groups = views_of(run)
    pictures = [
        {"data": url, "name": name, "caption": caption}
        for name, caption in FIGURES
        if (url := figure_url(run.folder.figures / name))
    ]
    compare = run.manifests.result("compare")
    is_compared = compare is not None
    return render(
        title=run.folder.root.name,
        workdir=shlex.quote(f"--workdir={run.folder.root}"),
        typed=_typed(run),
        summary={"samplers": {}, **summary},
        views=own,
        swept=sweep_views,
        groups=groups,
        pictures=pictures,
        trees=_trees(run, summary),
        sweep=_sweep(run),
        compared=tables.read_comparison(run.folder.root / "compare.csv") if is_compared else None,
        left_out=(compare or {}).get("left_out", {}).get("lines", {}),
        compare_figure=figure_url(run.folder.figures / "compare.png") if is_compared else None,
        example=_example(own, sweep_views),
        config=json.dumps(run.config, indent=1),
        num=run.config["evaluate"]["num"],
        default=run.config["sample"]["sampler"],
        samplers=run.sampler_names,
        is_served=is_served,
    )


def render(
    *,
    groups: list[ImageSheet],
    views: list[View],
    swept: list[View],
    is_served: bool,
    **values: Any,
) -> str:
    """Return the text of a run's page, from the values of its template."""
    style = static("page.css") + _tile_rules(groups)
    scripts = (*SCRIPTS, *SERVED_SCRIPTS, "start.js") if is_served else (*SCRIPTS, "start.js")
    script = '"use strict";\n(() => {\n' + "\n".join(map(static, scripts)) + "\n})();\n"
    data = {
        "title": values["title"],
        "groups": {group.key: group.data() for group in groups},
        "views": {view["key"]: view["data"] for view in (*views, *swept)},
    }
    values |= {"views": views, "swept": swept, "data": data}
    return filled("index.html", style, script, is_served=is_served, **values)


def filled(
    template: str, style: str, script: str = "", *, is_served: bool = False, **values: Any
) -> str:
    """Return a page's text, with style and script inline and allowed by their hashes only."""
    allowed = _policy(style, script, is_served)
    inline = {"style": Markup(style), "script": Markup(script), "policy": allowed}
    return _environment().get_template(template).render(is_served=is_served, **inline, **values)


@functools.cache
def _environment() -> jinja2.Environment:
    """Return the templates of the pages; what they print is escaped."""
    environment = jinja2.Environment(
        loader=jinja2.PackageLoader("cgjax.report"),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.globals |= {"max_name": MAX_NAME, "SEPARATION": SEPARATION}
    environment.filters["percent"] = lambda share: f"{100 * share:.1f}%"
    environment.filters["three_digits"] = three_digits
    return environment


def _policy(style: str, script: str, is_served: bool) -> str:
    """Return the content security policy of a page with this style sheet and this script, if any.

    The page loads, sends and frames nothing, and its images are inside it. A served page may also
    connect to the process that serves it.
    """
    connect = "connect-src 'self'; " if is_served else ""
    run = f"script-src '{_hash(script)}'; " if script else ""
    return (
        f"default-src 'none'; {connect}img-src data: blob:; style-src '{_hash(style)}'; "
        f"{run}base-uri 'none'; form-action 'none'"
    )


def _hash(text: str) -> str:
    return "sha256-" + base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()


def static(name: str) -> str:
    """Return the text of a style sheet or script of the page."""
    return (resources.files("cgjax.report") / "static" / name).read_text(encoding="utf-8")


def _tile_rules(groups: list[ImageSheet]) -> str:
    """Return the style rules that cut sheets into tiles: one per sheet, per column and per row."""
    styles = [style for style in (group.style() for group in groups) if style]
    rules = [
        f".{s['key']} {{ background-image: url({s['url']}); "
        f"background-size: calc({s['columns']} * var(--tile)) calc({s['rows']} * var(--tile)); }}"
        for s in styles
    ]
    for axis, field in (("x", "columns"), ("y", "rows")):
        rules += [
            f".{axis}{i} {{ background-position-{axis}: calc(-{i} * var(--tile)); }}"
            for i in range(max((s[field] for s in styles), default=0))
        ]
    return "\n".join(rules) + "\n"


def _typed(run: Run) -> str:
    """Return the flags that the config was given by; empty if they are not known."""
    saved = find_config(run.folder)
    return shlex.join(saved.typed) if saved else ""


def _trees(run: Run, summary: Mapping[str, Any]) -> list[dict[str, Any]]:
    """Return the trees of splits: that of the run's own choice, and one per layer of a sweep."""
    trees = []
    if summary.get("choice"):
        trees.append({"layer": summary["layer"], "tree": tree_of(summary["choice"])})
    for layer in run.held.sweep_layers:
        result = run.manifests.result(sweep_name(layer))
        if result is not None and run.manifests.result("sweep") is not None:
            trees.append({"layer": layer, "tree": tree_of(result["choice"])})
    return trees


def _sweep(run: Run) -> dict[str, Any] | None:
    if run.manifests.result("sweep") is None:
        return None
    root = run.folder.root
    return tables.read_sweep(root / "sweep.csv", root / "sweep.txt")


def _example(own: list[View], sweep_views: list[View]) -> str | None:
    """Return a flag with a query over two clusterings of this run; None if it has only one."""
    views = [view for view in (*own, *sweep_views) if view["inside"] is None]
    others = [view for view in views[1:] if view["layer"] != views[0]["layer"]] or views[1:]
    if not others:
        return None
    return shlex.quote(f"--cluster={quoted(views[0]['id'])}=0 & !{quoted(others[-1]['id'])}=1")
