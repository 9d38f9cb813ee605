"""Names that come back from the page: `names.json`, merged with those that a run has.

The file says what every cluster was called when its page was made. Where the run calls it something
else by now, somebody named it in the meantime: that name stays, and the conflict is reported.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from cgjax.errors import UserError
from cgjax.regions.names import Entry, is_id, judged_of

MAX_NAME = 10_000
"""Characters of a name; the page's field takes no more."""


class Line(NamedTuple):
    """What is said of a name.

    Attributes:
        text: one line.
        is_problem: whether the name was not given.
    """

    text: str
    is_problem: bool = False


class Given(NamedTuple):
    """What a file says of one cluster.

    Attributes:
        id: the cluster's.
        name: that it is given; None to take a name away.
        was: its name when the page was made.
        judged: as in `clusters.json`, see `judged_of`; None if nobody looked.
    """

    id: int
    name: str | None
    was: str | None
    judged: dict[str, Any] | None


class GivenNames(NamedTuple):
    """What a file says of one clustering.

    Attributes:
        id: as the page calls it.
        digest: of the clustering.
        clusters: those it speaks of.
    """

    id: str
    digest: str
    clusters: list[Given]


def read_names(path: Path) -> list[GivenNames]:
    """Read a file that the page's *Download names* made; it is checked as a stranger's.

    Raises:
        UserError: in one line, if it is missing or not such a file.
    """
    try:
        content = json.loads(path.read_text(encoding="utf-8-sig"))
    except FileNotFoundError:
        raise UserError(
            f"--from={path}: there is no such file; give the names.json that the page's Download "
            "names saved"
        ) from None
    except (OSError, ValueError, RecursionError) as error:
        raise UserError(f"--from={path} cannot be read ({error}); download it again") from error
    return names_of(content, f"--from={path}")


def names_of(content: Any, source: str) -> list[GivenNames]:
    """Check what a page says of names, as a stranger's.

    Args:
        content: of a names.json, parsed.
        source: where it comes from, for errors.

    Raises:
        UserError: in one line, if it is something else.
    """
    is_ours = isinstance(content, dict) and content.get("format") == "cgjax names"
    if not is_ours or content.get("version") != 1:
        raise UserError(
            f"{source} is no names.json of this version; download it from the page again"
        )
    try:
        return [_clustering(each) for each in content["clusterings"]]
    except UserError as error:
        raise UserError(f"{source}: {error}") from error
    except (KeyError, TypeError, ValueError, OverflowError) as error:
        reason = " ".join(str(error).split())[:80]
        raise UserError(f"{source} is damaged ({reason}); download it again") from error


def _clustering(given: dict[str, Any]) -> GivenNames:
    if not isinstance(given["id"], str) or not isinstance(given["digest"], str):
        raise TypeError("a clustering's id and digest are texts")
    return GivenNames(given["id"], given["digest"], [_cluster(one) for one in given["clusters"]])


def _cluster(given: dict[str, Any]) -> Given:
    c, name, was = given["id"], given["name"], given.get("was")
    if type(c) is not int or not isinstance(name, str | None) or not isinstance(was, str | None):
        raise TypeError("a cluster's id is a whole number, its name a text or null")
    name, was = tidy(name), tidy(was)
    if name != was:
        check_length(name)
    return Given(c, name, was, judged_of(given.get("judged")))


def tidy(name: str | None) -> str | None:
    r"""Return a name without blanks at its ends and line ends within; None if nothing is left.

    Raises:
        UserError: a name that is no text: half a character, bytes in no encoding.

    >>> tidy("  facing  left\n"), tidy(" ")
    ('facing left', None)
    """
    try:
        (name or "").encode()
    except UnicodeEncodeError:
        shown = ascii(name)
        raise UserError(f"the name {shown} is no text in UTF-8; type another one") from None
    return " ".join(name.split()) or None if name else None


def check_length(name: str | None) -> None:
    """Refuse a name of more than `MAX_NAME` characters with a UserError."""
    if name is not None and len(name) > MAX_NAME:
        raise UserError(
            f"the name {shown(name)} has {len(name):,} characters; expected {MAX_NAME:,} at most"
        )


def merge(
    given: GivenNames, entries: Sequence[Entry], command: Callable[[int, str], str]
) -> tuple[list[Entry], list[Line]]:
    """Return entries with the given names, and a line for everything that was done or not.

    Args:
        given: what the file says of the clustering.
        entries: its present ones, in the order of the ids.
        command: a cluster's id and a name -> what to type to give it.

    Raises:
        UserError: if the file speaks of a cluster that is not there.
    """
    merged = [dict(entry) for entry in entries]
    lines: list[Line] = []
    for one in given.clusters:
        if not 0 <= one.id < len(merged):
            raise UserError(
                f"names.json: {given.id} has no cluster {one.id}; expected 0 to {len(merged) - 1}"
            )
        entry, where = merged[one.id], f"{given.id}, cluster {one.id}"
        now = tidy(entry["name"])
        if one.name != now:
            if one.name is not None and is_id(one.name):
                reason = "a number is an id, not a name"
                lines.append(Line(f"{where}: {one.name!r} was not taken: {reason}", True))
                continue
            if one.name == one.was:
                continue  # named in the run since, and left alone on the page
            if now != one.was:
                text = (
                    f"conflict: {where} is called {shown(now)} since the page was made, names.json "
                    f"says {shown(one.name)}; kept {shown(now)}; the other one is given by "
                    f"{command(one.id, one.name or '')}"
                )
                lines.append(Line(text, True))
                continue
            before = f", was {shown(now)}" if now else ""
            lines.append(Line(f"{where}: {shown(one.name)}{before}"))
            entry["name"] = one.name
            entry.pop("judged", None)  # what was judged was the name before
        if one.judged not in (None, entry.get("judged")) and entry["name"] is not None:
            entry["judged"] = one.judged
            share, low, high = (100 * one.judged[field] for field in ("share", "low", "high"))
            agree = f"{share:.0f}% ({low:.0f}% to {high:.0f}%) of {one.judged['shown']} random"
            lines.append(Line(f"{where}: {agree} members agree with {shown(entry['name'])}"))
    return merged, lines


def shown(name: str | None) -> str:
    """Return a name as a line shows it: quoted, and cut where it is long.

    >>> shown("left"), shown(None)
    ("'left'", 'nothing')
    """
    if name is None:
        return "nothing"
    return repr(name if len(name) <= 60 else name[:57] + "...")
