"""The three variables in which a launcher tells a process about the others.

    CGJAX_COORDINATOR   host:port on which the first process listens
    CGJAX_PROCESSES     the number of processes
    CGJAX_PROCESS       the number of this one, from 0

Without them a run is one process.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import NamedTuple

from cgjax.errors import UserError

COORDINATOR, PROCESSES, PROCESS = "CGJAX_COORDINATOR", "CGJAX_PROCESSES", "CGJAX_PROCESS"


class Address(NamedTuple):
    """Where a process finds the others, and which one it is."""

    coordinator: str
    num: int
    process: int


def read_address(environment: Mapping[str, str]) -> Address | None:
    """Return the address in the launcher's variables, or None if they are not set.

    Raises:
        UserError: one of them is missing or invalid.

    Example:
        >>> read_address({COORDINATOR: "10.0.0.1:9876", PROCESSES: "2", PROCESS: "1"})
        Address(coordinator='10.0.0.1:9876', num=2, process=1)
    """
    names = (COORDINATOR, PROCESSES, PROCESS)
    missing = [name for name in names if not environment.get(name)]
    if len(missing) == len(names):
        return None
    if missing:
        raise UserError(
            f"{missing[0]} is not set but others of {', '.join(names)} are: expected all three, or "
            "none for a run in one process"
        )
    coordinator = environment[COORDINATOR]
    host, _, port = coordinator.rpartition(":")
    if not host or not port.isdigit():
        raise UserError(f"{COORDINATOR}={coordinator}: expected host:port")
    num, process = environment[PROCESSES], environment[PROCESS]
    # Nine digits at most: int() raises for more than a few thousand.
    are_numbers = all(re.fullmatch(r"\d{1,9}", text) for text in (num, process))
    if not are_numbers or int(process) >= int(num):
        raise UserError(
            f"{PROCESSES}={num[:20]} {PROCESS}={process[:20]}: expected the number of processes, "
            "and this process's number from 0 to below it"
        )
    return Address(coordinator, int(num), int(process))
