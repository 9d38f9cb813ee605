"""Names that come back from the page: `names.json`, merged into those of a run.

The file records every cluster's name at the time the page was made. If the run has another name by
now, somebody gave it in the meantime: that name stays, and the conflict is reported.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from cgjax.errors import UserError
from cgjax.regions.names import (
    Entry,
    check_length,
    judged_of,
    rename,
    shown_name,
    tidy,
    why_no_name,
)


class NameOutcome(NamedTuple):
    """A line for the user about one name.

    Attributes:
        text: the line.
        is_problem: whether the name was not set.
    """

    text: str
    is_problem: bool = False


class GivenName(NamedTuple):
    """What a file says about one cluster.

    Attributes:
        id: the cluster's id.
        name: its new name; None to remove it.
        was: its name when the page was made.
        judged: as in `clusters.json`, see `judged_of`; None if nobody judged the name.
    """

    id: int
    name: str | None
    was: str | None
    judged: dict[str, Any] | None


class GivenNames(NamedTuple):
    """What a file says about one clustering.

    Attributes:
        id: the clustering's id on the page.
        digest: the clustering's digest.
        clusters: the clusters that the file lists.
    """

    id: str
    digest: str
    clusters: list[GivenName]


def read_names(path: Path) -> list[GivenNames]:
    """Read a file saved by *Download names* on the page; it is untrusted and fully checked.

    Raises:
        UserError: in one line, if the file does not exist or is not such a file.
    """
    try:
        content = json.loads(path.read_text(encoding="utf-8-sig"))
    except FileNotFoundError:
        raise UserError(
            f"--from={path}: the file does not exist; give the names.json saved by Download names "
            "on the page"
        ) from None
    except (OSError, ValueError, RecursionError) as error:
        raise UserError(f"--from={path} cannot be read ({error}); download it again") from error
    return names_of(content, f"--from={path}")


def names_of(content: Any, source: str) -> list[GivenNames]:
    """Check the names that a page sends; they are untrusted.

    Args:
        content: of a names.json, parsed.
        source: where it comes from, for errors.

    Raises:
        UserError: in one line, if it is not such content.
    """
    is_ours = isinstance(content, dict) and content.get("format") == "cgjax names"
    if not is_ours or content.get("version") != 1:
        raise UserError(
            f"{source} is not a names.json of this version; download it from the page again"
        )
    try:
        return [_given_names(item) for item in content["clusterings"]]
    except UserError as error:
        raise UserError(f"{source}: {error}") from error
    except (KeyError, TypeError, ValueError, OverflowError) as error:
        reason = " ".join(str(error).split())[:80]
        raise UserError(f"{source} is damaged ({reason}); download it again") from error


def _given_names(item: dict[str, Any]) -> GivenNames:
    if not isinstance(item["id"], str) or not isinstance(item["digest"], str):
        raise TypeError("a clustering's id and digest are strings")
    return GivenNames(item["id"], item["digest"], [_given_name(one) for one in item["clusters"]])


def _given_name(item: dict[str, Any]) -> GivenName:
    c, name, was = item["id"], item["name"], item.get("was")
    if type(c) is not int or not isinstance(name, str | None) or not isinstance(was, str | None):
        raise TypeError("a cluster's id is a whole number, its name a string or null")
    name, was = tidy(name), tidy(was)
    if name != was:
        check_length(name)
    return GivenName(c, name, was, judged_of(item.get("judged")))


def merge(
    given: GivenNames, entries: Sequence[Entry], command: Callable[[int, str], str]
) -> tuple[list[Entry], list[NameOutcome]]:
    """Return the entries with the given names, and a line for each change or refusal.

    Args:
        given: what the file says about the clustering.
        entries: its current ones, in the order of the ids.
        command: a cluster's id and a name -> the command that sets it.

    Raises:
        UserError: the file lists a cluster that does not exist.
    """
    merged = [dict(entry) for entry in entries]
    lines: list[NameOutcome] = []
    for one in given.clusters:
        if not 0 <= one.id < len(merged):
            raise UserError(
                f"names.json: {given.id} has no cluster {one.id}; expected 0 to {len(merged) - 1}"
            )
        entry, where = merged[one.id], f"{given.id}, cluster {one.id}"
        if line := _rename(entry, one, where, command):
            lines.append(line)
        has_this_name = one.name is not None and tidy(entry["name"]) == one.name
        if has_this_name and one.judged not in (None, entry.get("judged")):
            entry["judged"] = one.judged
            share, low, high = (100 * one.judged[field] for field in ("share", "low", "high"))
            agree = f"{share:.0f}% ({low:.0f}% to {high:.0f}%) of {one.judged['shown']} random"
            lines.append(NameOutcome(f"{where}: {agree} members agree with {shown_name(one.name)}"))
    return merged, lines


def _rename(
    entry: Entry, given: GivenName, where: str, command: Callable[[int, str], str]
) -> NameOutcome | None:
    """Give an entry its new name, unless it conflicts; return the line about it, if any."""
    name, now = given.name, tidy(entry["name"])
    if name == now:
        return None
    if name is not None and (why := why_no_name(name)):
        return NameOutcome(f"{where}: {name!r} was not set: {why}", True)
    if name == given.was:
        return None  # renamed in the run since then, and unchanged on the page
    if now != given.was:
        text = (
            f"conflict: {where} has been called {shown_name(now)} since the page was made, "
            f"names.json says {shown_name(name)}; kept {shown_name(now)}; to set the other name, "
            f"type {command(given.id, name or '')}"
        )
        return NameOutcome(text, True)
    rename(entry, name)
    return NameOutcome(f"{where}: {shown_name(name)}{f', was {shown_name(now)}' if now else ''}")
