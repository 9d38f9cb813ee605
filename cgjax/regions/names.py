"""Names of clusters: what a name may be, `clusters.json`, and where a name becomes an id.

cgjax writes the file and people edit it, so it is checked like any untrusted input. Names belong to
a clustering, not to a folder: when another clustering replaces it they are archived under its
digest, and restored when the same clustering comes back.
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
from cgjax.numerics.arguments import shown
from cgjax.numerics.intervals import wilson_interval
from cgjax.regions.clustering import Clustering
from cgjax.runtime.files import make_folder, write_json

Entry = dict[str, Any]
"""{"id", "name" (None if none was given), "share", "note"}, and "judged" if a person has marked
members that contradict the name; see `judged_of`."""

MAX_NAME = 10_000
"""Most characters in a name; the page's input field takes no more."""


def unnamed(clustering: Clustering) -> list[Entry]:
    """Return the content of a new `clusters.json`, without names."""
    return [
        {"id": c, "name": None, "share": round(float(share), 6), "note": ""}
        for c, share in enumerate(clustering.shares)
    ]


def read_entries(path: Path, clustering: Clustering) -> list[Entry]:
    """Read `clusters.json`: one entry for each cluster, in the order of the ids.

    Names and notes come from the file; shares always come from the clustering. A cluster without an
    entry, or all of them if there is no file, has no name.

    Raises:
        UserError: the file cannot be read, is not a list of clusters, or lists an unknown cluster.
    """
    entries = unnamed(clustering)
    try:
        # Windows editors start a file with a byte-order mark.
        content = json.loads(path.read_text(encoding="utf-8-sig"))
    except FileNotFoundError:
        return entries
    except (OSError, ValueError) as error:
        raise UserError(
            f"{path} cannot be read ({error}); fix it, or remove it to start without names"
        ) from error
    seen: set[int] = set()
    for item in content if isinstance(content, list) else [content]:
        c = item.get("id") if isinstance(item, dict) else None
        if type(c) is not int or not 0 <= c < clustering.num or c in seen:
            raise UserError(
                f'{path}: expected a list with one {{"id": ..., "name": ...}} for each id from 0 '
                f"to {clustering.num - 1}; found {json.dumps(item)[:80]}"
            )
        seen.add(c)
        name, note = item.get("name"), item.get("note") or ""
        if isinstance(name, int | float) and not isinstance(name, bool):
            name = str(name)
        if not isinstance(name, str | None) or not isinstance(note, str):
            raise UserError(
                f"{path}: cluster {c} has the name {json.dumps(name)[:40]} and the note "
                f"{json.dumps(note)[:40]}; expected strings"
            )
        entries[c] |= {"name": (name or "").strip() or None, "note": note}
        try:
            judged = judged_of(item.get("judged"))
        except ValueError as error:
            raise UserError(f"{path}: cluster {c}: {error}") from error
        if judged is not None:
            entries[c]["judged"] = judged
    return entries


def judged_of(judged: Any) -> dict[str, Any] | None:
    """Check a judgement of a name, and add the share of members that agree with it.

    Args:
        judged: None, or a dict of `shown`, the number of random members a person looked at, and
            `contradict`, the latents of those that the name is wrong for.

    Returns:
        None, or both with the share that agrees and its 95% Wilson interval.

    Raises:
        ValueError: `judged` is something else.

    Example:
        >>> judged_of({"shown": 24, "contradict": [3]})["share"]
        0.9583
    """
    if judged is None:
        return None
    num = judged.get("shown") if isinstance(judged, dict) else None
    wrong = judged.get("contradict") if isinstance(judged, dict) else None
    if (
        type(num) is not int
        or not isinstance(wrong, list)
        or not all(type(latent) is int for latent in wrong)
        or not len(set(wrong)) <= num
        or not 1 <= num <= INT_MAX
    ):
        raise ValueError(
            'expected "judged" as {"shown": number, "contradict": [latents]}, found '
            f"{json.dumps(judged)[:60]}"
        )
    wrong = sorted(set(wrong))
    low, high = wilson_interval(num - len(wrong), num)
    numbers = {"share": 1 - len(wrong) / num, "low": low, "high": high}
    rounded = {name: round(value, 4) for name, value in numbers.items()}
    return {"shown": num, "contradict": wrong, **rounded}


def is_id(cluster: str | int) -> bool:
    """Return whether a text is a cluster's id: a number always is, and is never a name."""
    return re.fullmatch(r"-?\d+", str(cluster).strip()) is not None


def is_path(cluster: str) -> bool:
    """Return whether a text is a path of ids, such as "0/1": like an id, it is never a name.

    >>> is_path("0 / 1"), is_path("left/1")
    (True, False)
    """
    return "/" in cluster and all(map(is_id, cluster.split("/")))


def why_no_name(name: str) -> str | None:
    """Return why a text cannot be a cluster's name; None if it can.

    >>> why_no_name("left"), why_no_name("0/1")
    (None, 'a path of numbers is always an id; choose a word')
    """
    if is_id(name):
        return "a number is always an id; choose a word"
    return "a path of numbers is always an id; choose a word" if is_path(name) else None


def tidy(name: str | None) -> str | None:
    r"""Return a name with runs of white space collapsed and none at its ends; None if empty.

    Raises:
        UserError: a name that cannot be encoded, such as half of a surrogate pair.

    >>> tidy("  facing  left\n"), tidy(" ")
    ('facing left', None)
    """
    name = name or ""
    try:
        name.encode()
    except UnicodeEncodeError:
        raise UserError(f"the name {name!a} is not valid UTF-8; type another one") from None
    return " ".join(name.split()) or None


def check_length(name: str | None) -> None:
    """Refuse a name of more than `MAX_NAME` characters with a UserError."""
    if name is not None and len(name) > MAX_NAME:
        raise UserError(
            f"the name {shown_name(name)} has {len(name):,} characters; expected {MAX_NAME:,} at "
            "most"
        )


def shown_name(name: str | None) -> str:
    """Return a name as messages show it: quoted, and shortened if long.

    >>> shown_name("left"), shown_name(None)
    ("'left'", 'no name')
    """
    if name is None:
        return "no name"
    return repr(name if len(name) <= 60 else name[:57] + "...")


def rename(entry: Entry, name: str | None) -> None:
    """Give a cluster another name; a judgement of the previous one goes."""
    entry["name"] = name
    entry.pop("judged", None)


def matching(cluster: str | int, entries: list[Entry]) -> list[int]:
    """Return the ids of the clusters that an id or a name refers to; clusters may share a name."""
    text = str(cluster).strip()
    if is_path(text):
        return []
    if is_id(text):
        # Python refuses to parse thousands of digits; no id has 20.
        return [e["id"] for e in entries if len(text) < 20 and e["id"] == int(text)]
    return [e["id"] for e in entries if e["name"] == text]


def find_clusters(
    cluster: str | int,
    entries: list[Entry],
    clustering: str | None = None,
    example: str = "0",
) -> list[int]:
    """Return the ids of the clusters that an id or a name refers to: one, or all of that name.

    Args:
        cluster: an id, as a number or text, or a name.
        entries: the content of `clusters.json`.
        clustering: its id, for the message; None in a run with only one.
        example: one of its clusters as typed after --cluster, for the message.

    Raises:
        UserError: there is none; lists the clusters.

    Example:
        >>> find_clusters("left", [{"id": 0, "name": None}, {"id": 1, "name": "left"}])
        [1]
    """
    ids = matching(cluster, entries)
    if not ids:
        known = ", ".join(
            f"{e['id']} ({e['name']})" if e["name"] else str(e["id"]) for e in entries
        )
        raise UserError(
            f"no cluster {shown(str(cluster).strip())} in {clustering or 'this run'}; it has: "
            f"{known}; try {shlex.quote(f'--cluster={example}')}"
        )
    return ids


def archived(archive: Path, digest: str) -> Path:
    """Return where the names of a clustering are kept that is not the run's own."""
    return archive / f"{digest[:16]}.json"


def put_aside(path: Path, archive: Path, digest: str) -> None:
    """Archive the names of a clustering that is about to be replaced, if it has any.

    The file is moved, not copied: it cannot be cut short, and is never in both places.

    Args:
        path: `clusters.json`; it is removed.
        archive: the folder for such files.
        digest: of the clustering that the names belong to.
    """
    try:
        entries = json.loads(path.read_text(encoding="utf-8-sig"))
        is_named = any(entry.get("name") or entry.get("note") for entry in entries)
    except FileNotFoundError:
        return
    except (ValueError, AttributeError, TypeError):
        is_named = True  # unreadable, but it may be a person's work
    if not is_named:
        path.unlink()
        return
    kept = archived(archive, digest)
    make_folder(archive)
    path.replace(kept)
    logging.info("the names of the replaced clusters are kept in %s", kept)


def restore(path: Path, archive: Path, digest: str) -> None:
    """Move the archived names of a clustering back to `clusters.json`, unless that is there."""
    kept = archived(archive, digest)
    if kept.is_file() and not path.is_file():
        kept.replace(path)


def restore_or_begin(path: Path, archive: Path, clustering: Clustering) -> None:
    """Write `clusters.json` with the archived names of this very clustering, or without any."""
    restore(path, archive, clustering.digest)
    if not path.is_file():
        write_json(path, unnamed(clustering))
