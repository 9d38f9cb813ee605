"""`--mode=name`: names that a person gives, from the page or one by one."""

from __future__ import annotations

import functools

from cgjax.errors import UserError
from cgjax.regions.clustering import Clustering
from cgjax.regions.names import Entry, is_id
from cgjax.regions.naming import GivenNames, Line, check_length, merge, shown_name, tidy
from cgjax.run.run import Run
from cgjax.runtime.files import make_folder, write_json


def merge_names(run: Run, given: list[GivenNames]) -> list[Line]:
    """Merge what a page's file says into the run's names; nothing is written if it cannot be.

    Args:
        run: with its clusterings.
        given: see `read_names`.

    Returns:
        A line for each name that was given, and for each that was not, with the reason.

    Raises:
        UserError: if the file is of no clustering of this run.
    """
    known = {one.digest: one for one in run.held.named()}
    changed: list[tuple[Clustering, list[Entry]]] = []
    lines: list[Line] = []
    for each in given:
        one = known.get(each.digest)
        if one is None:
            num = sum(cluster.name is not None for cluster in each.clusters)
            out = f"{each.id} of names.json is not in this run: its {num} names stay out"
            lines.append(Line(out, True))
            continue
        entries = run.held.entries_of(one)
        merged, said = merge(each, entries, functools.partial(_command, run, one))
        lines += said
        if merged != entries:
            changed.append((one, merged))
    if not known.keys() & {each.digest for each in given}:
        raise UserError(
            f"names.json is of other clusterings than {run.folder.root} holds; make its page again "
            "with --mode=report, and name the clusters there"
        )
    for one, entries in changed:
        _save(run, one, entries)
    return lines or [Line("nothing new in names.json")]


def _command(run: Run, one: Clustering, c: int, name: str) -> str:
    cluster = run.held.asked(one, c)
    return run.folder.command_of("name", f"--cluster={cluster}", f"--name={name}")


def name_cluster(run: Run, cluster: str, name: str) -> list[Line]:
    """Give one cluster a name; an empty one takes it away.

    Args:
        run: with its clusterings.
        cluster: see `HeldClusterings.cluster`.
        name: any text that is no number.

    Raises:
        UserError: if the cluster is not there, or the name is a number or too long.
    """
    wanted = tidy(name)
    check_length(wanted)
    if wanted is not None and is_id(wanted):
        raise UserError(f"--name={wanted}: a number is always an id; choose a word")
    one, c = run.held.cluster(cluster)
    entries = run.held.entries_of(one)
    if entries[c]["name"] != wanted:
        entries[c]["name"] = wanted
        entries[c].pop("judged", None)  # what was judged was the name before
        _save(run, one, entries)
    return [Line(f"cluster {cluster}: {shown_name(wanted)}")]


def _save(run: Run, one: Clustering, entries: list[Entry]) -> None:
    path = run.held.names_path(one)
    make_folder(path.parent)
    write_json(path, entries)
