"""What a launcher tells a process of the others, in three variables.

    CGJAX_COORDINATOR   host:port on which the first process listens
    CGJAX_PROCESSES     how many processes there are
    CGJAX_PROCESS       which of them this is, from 0

Without them a run is one process.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple

from cgjax.errors import UserError

COORDINATOR, PROCESSES, PROCESS = "CGJAX_COORDINATOR", "CGJAX_PROCESSES", "CGJAX_PROCESS"


class Address(NamedTuple):
    """Where a process finds the others, and which of them it is."""

    coordinator: str
    num: int
    process: int


def read_address(environment: Mapping[str, str]) -> Address | None:
    """Return what the launcher's variables say, or None if there are none.

    Raises:
        UserError: if one is missing or makes no sense.

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
            "none for a run of one process"
        )
    coordinator = environment[COORDINATOR]
    host, _, port = coordinator.rpartition(":")
    if not host or not port.isdigit():
        raise UserError(f"{COORDINATOR}={coordinator}: expected host:port")
    numbers = environment[PROCESSES], environment[PROCESS]
    if not all(number.isdigit() for number in numbers) or int(numbers[1]) >= int(numbers[0]):
        raise UserError(
            f"{PROCESSES}={numbers[0]} {PROCESS}={numbers[1]}: expected a number of processes, and "
            "one from 0 to below it"
        )
    return Address(coordinator, int(numbers[0]), int(numbers[1]))
