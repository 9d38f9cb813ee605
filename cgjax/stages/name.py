"""`--mode=name`: names that a person gives, in the file of a page or one at a time."""

from __future__ import annotations

import functools

from cgjax.errors import UserError
from cgjax.regions.clustering import Clustering
from cgjax.regions.names import Entry, check_length, rename, shown_name, tidy, why_no_name
from cgjax.regions.page_names import GivenNames, NameOutcome, merge
from cgjax.run.run import Run
from cgjax.runtime.files import make_folder, write_json


def merge_names(run: Run, names: list[GivenNames]) -> list[NameOutcome]:
    """Merge the names in a page's file into the run's.

    Args:
        run: with its clusterings.
        names: see `read_names`.

    Returns:
        A line for each name, with the reason if it was not saved.

    Raises:
        UserError: if none of the file's clusterings is in this run; nothing is written then.
    """
    known = {one.digest: one for one in run.held.named()}
    changed: list[tuple[Clustering, list[Entry]]] = []
    lines: list[NameOutcome] = []
    for given in names:
        one = known.get(given.digest)
        if one is None:
            num = sum(cluster.name is not None for cluster in given.clusters)
            left_out = "1 name is" if num == 1 else f"{num} names are"
            out = f"{given.id} of names.json is not in this run: {left_out} left out"
            lines.append(NameOutcome(out, True))
            continue
        entries = run.held.entries_of(one)
        merged, said = merge(given, entries, functools.partial(_command, run, one))
        lines += said
        if merged != entries:
            changed.append((one, merged))
    if not known.keys() & {given.digest for given in names}:
        raise UserError(
            f"names.json is for other clusterings than those of {run.folder.root}; rebuild its "
            "page with --mode=report, and name the clusters there"
        )
    for one, entries in changed:
        _save(run, one, entries)
    return lines or [NameOutcome("nothing new in names.json")]


def _command(run: Run, one: Clustering, c: int, name: str) -> str:
    cluster = run.held.cluster_flag(one, c)
    return run.folder.command_of("name", f"--cluster={cluster}", f"--name={name}")


def name_cluster(run: Run, cluster: str, name: str) -> list[NameOutcome]:
    """Give one cluster a name; an empty name removes it.

    Args:
        run: with its clusterings.
        cluster: see `HeldClusterings.cluster`.
        name: any text except a number or a path of numbers.

    Raises:
        UserError: if the cluster is not there, or the name is a number, such a path, or too long.
    """
    tidied = tidy(name)
    check_length(tidied)
    if tidied is not None and (why := why_no_name(tidied)):
        raise UserError(f"--name={tidied}: {why}")
    one, c = run.held.cluster(cluster)
    entries = run.held.entries_of(one)
    if entries[c]["name"] != tidied:
        rename(entries[c], tidied)
        _save(run, one, entries)
    return [NameOutcome(f"cluster {cluster}: {shown_name(tidied)}")]


def _save(run: Run, one: Clustering, entries: list[Entry]) -> None:
    path = run.held.names_path(one)
    make_folder(path.parent)
    write_json(path, entries)
