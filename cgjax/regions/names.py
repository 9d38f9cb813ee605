"""What people call clusters: `clusters.json`, and the one place where a name becomes an id.

The file is written by us and edited by people, so it is checked as a stranger's. Names belong to a
clustering, not to a folder: when another one takes its place they are put aside under its digest,
and restored when the same one comes back.
"""

from __future__ import annotations

import json
import re
import shlex
from pathlib import Path
from typing import Any

from absl import logging

from cgjax.config.leaves import INT_MAX
from cgjax.errors import UserError
from cgjax.numerics.given import shown
from cgjax.numerics.intervals import wilson_interval
from cgjax.regions.clustering import Clustering
from cgjax.runtime.files import make_folder, write_json

Entry = dict[str, Any]
"""{"id", "name" (None if none was given), "share", "note"}, and "judged" where somebody looked at
members and said which contradict the name; see `judged_of`."""


def unnamed(clustering: Clustering) -> list[Entry]:
    """Return the content of a fresh `clusters.json`: no names yet."""
    return [
        {"id": c, "name": None, "share": round(float(share), 6), "note": ""}
        for c, share in enumerate(clustering.shares)
    ]


def read_entries(path: Path, clustering: Clustering) -> list[Entry]:
    """Read `clusters.json`: one entry for each cluster, in the order of the ids.

    Names and notes are a person's; shares are the clustering's own, whatever the file says. An
    entry that was left out has no name.

    Raises:
        UserError: if it is missing, no list of clusters, or speaks of a cluster that is not there.
    """
    entries = unnamed(clustering)
    try:
        # Editors on Windows begin a file with a byte-order mark.
        content = json.loads(path.read_text(encoding="utf-8-sig"))
    except FileNotFoundError:
        return entries
    except (OSError, ValueError) as error:
        raise UserError(
            f"{path} cannot be read ({error}); correct it, or remove it to have one without names"
        ) from error
    seen: set[int] = set()
    for given in content if isinstance(content, list) else [content]:
        c = given.get("id") if isinstance(given, dict) else None
        if type(c) is not int or not 0 <= c < clustering.num or c in seen:
            raise UserError(
                f'{path}: expected a list with one {{"id": ..., "name": ...}} for each id from 0 '
                f"to {clustering.num - 1}; found {json.dumps(given)[:80]}"
            )
        seen.add(c)
        name, note = given.get("name"), given.get("note") or ""
        if isinstance(name, int | float) and not isinstance(name, bool):
            name = str(name)
        if not isinstance(name, str | None) or not isinstance(note, str):
            raise UserError(
                f"{path}: cluster {c} has the name {json.dumps(name)[:40]} and the note "
                f"{json.dumps(note)[:40]}; expected texts"
            )
        entries[c] |= {"name": (name or "").strip() or None, "note": note}
        try:
            judged = judged_of(given.get("judged"))
        except ValueError as error:
            raise UserError(f"{path}: cluster {c}: {error}") from error
        if judged is not None:
            entries[c]["judged"] = judged
    return entries


def judged_of(given: Any) -> dict[str, Any] | None:
    """Return how many of some random members agree with a name, with a 95% Wilson interval.

    Args:
        given: None, or `shown`, how many members a person looked at, and `contradict`, the latents
            of those that the name is wrong for; share and interval follow from these.

    Raises:
        ValueError: if it is something else.

    Example:
        >>> judged_of({"shown": 24, "contradict": [3]})["share"]
        0.9583
    """
    if given is None:
        return None
    num = given.get("shown") if isinstance(given, dict) else None
    wrong = given.get("contradict") if isinstance(given, dict) else None
    if (
        type(num) is not int
        or not isinstance(wrong, list)
        or not all(type(latent) is int for latent in wrong)
        or not len(set(wrong)) <= num
        or not 1 <= num <= INT_MAX
    ):
        raise ValueError(
            'expected "judged" as {"shown": how many, "contradict": [latents]}, found '
            f"{json.dumps(given)[:60]}"
        )
    wrong = sorted(set(wrong))
    low, high = wilson_interval(num - len(wrong), num)
    numbers = {"share": 1 - len(wrong) / num, "low": low, "high": high}
    rounded = {name: round(value, 4) for name, value in numbers.items()}
    return {"shown": num, "contradict": wrong, **rounded}


def is_id(wanted: str | int) -> bool:
    """Whether a text is a cluster's id: a number always is, never a name."""
    return re.fullmatch(r"-?\d+", str(wanted).strip()) is not None


def matching(wanted: str | int, entries: list[Entry]) -> list[int]:
    """Return the ids of the clusters that an id or a name means; clusters may share a name."""
    text = str(wanted).strip()
    if is_id(text):
        # Python refuses to read thousands of digits; no id has as many as these.
        return [e["id"] for e in entries if len(text) < 20 and e["id"] == int(text)]
    return [e["id"] for e in entries if e["name"] == text]


def find_clusters(
    wanted: str | int,
    entries: list[Entry],
    clustering: str | None = None,
    example: str = "0",
) -> list[int]:
    """Return the ids of the clusters that an id or a name means: one, or all of one name.

    Args:
        wanted: an id, its text, or a name.
        entries: the content of `clusters.json`.
        clustering: its id, for the message; None in a run that has but one.
        example: a cluster of it as it is typed after --cluster.

    Raises:
        UserError: if there is none, listing the clusters there are.

    Example:
        >>> find_clusters("left", [{"id": 0, "name": None}, {"id": 1, "name": "left"}])
        [1]
    """
    found = matching(wanted, entries)
    if not found:
        known = ", ".join(
            f"{e['id']} ({e['name']})" if e["name"] else str(e["id"]) for e in entries
        )
        raise UserError(
            f"no cluster {shown(str(wanted).strip())} in {clustering or 'this run'}; it has: "
            f"{known}; try {shlex.quote(f'--cluster={example}')}"
        )
    return found


def put_aside(path: Path, archive: Path, digest: str) -> None:
    """Keep the names of a clustering that is about to be replaced, if it has any.

    Args:
        path: `clusters.json`; removed.
        archive: the folder where such files are kept.
        digest: of the clustering that the names belong to.
    """
    try:
        content = path.read_bytes()
        entries = json.loads(content.decode("utf-8-sig"))
        is_named = any(entry.get("name") or entry.get("note") for entry in entries)
    except FileNotFoundError:
        return
    except (ValueError, AttributeError, TypeError):
        is_named = True  # unreadable, but somebody's work
    if is_named:
        make_folder(archive)
        kept = archive / f"{digest[:16]}.json"
        kept.write_bytes(content)
        logging.info("the names of the clusters that are recomputed are kept in %s", kept)
    path.unlink()


def restore_or_begin(path: Path, archive: Path, clustering: Clustering) -> None:
    """Write `clusters.json`: with the names that this very clustering had, or without any."""
    kept = archive / f"{clustering.digest[:16]}.json"
    if kept.is_file():
        kept.replace(path)
    elif not path.is_file():
        write_json(path, unnamed(clustering))
