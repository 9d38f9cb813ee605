"""Converting checkpoint files, whatever their family.

What takes seconds to import is imported where it is used.
"""

from __future__ import annotations

import signal
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from cgjax.errors import Interrupted, UserError
from converters.layouts import FAMILIES, containers_of

if TYPE_CHECKING:
    from cgjax.generators.base import PretrainedGenerator
    from converters.conversion import Conversion
    from converters.finding import Found
    from converters.reading import Checkpoint

UNKNOWN_LICENCE = "not stated; ask whoever published the file"


def convert(
    family: str,
    src: str | Path,
    dst: str | Path,
    settings: Mapping[str, str] | None = None,
    *,
    dtype: str = "float32",
    licence: str = UNKNOWN_LICENCE,
    member: str = "",
    check: Callable[[PretrainedGenerator, Found, Conversion], Any] = lambda generator, *_: None,
    tell: Callable[[Found, Conversion, list[Found]], Any] = lambda found, conversion, others: None,
) -> PretrainedGenerator:
    """Convert a checkpoint file and check the result.

    Args:
        family: one of `FAMILIES`.
        src: the checkpoint.
        dst: the folder to write; if it exists it must hold converted weights or nothing.
        settings: what the tensors do not tell, by the names of the file's own code; `network` says
            which of the file's generators to take, if not the averaged one.
        dtype: how the weights are stored, "float32" or "float16".
        licence: the licence of the weights.
        member: of a wheel, zip or tar, the file inside; "" for the only one.
        tell: is called, before anything is written, with what was chosen, its conversion, and all
            that there was to choose from.
        check: looks at the generator, and what it was converted from and how, before the folder is
            put in place, and raises what is wrong.

    Returns:
        The generator, loaded back from the folder.

    Raises:
        UserError: whatever is wrong with the file or the folder, in one line.
        Interrupted: by Ctrl-C while writing; the folder is as it was.
    """
    from cgjax.generators.weights import load_folder, save_generator, storage_dtype
    from cgjax.runtime.signals import on_interrupt
    from converters.finding import choose_generator
    from converters.reading import read_checkpoint
    from converters.settings import NETWORK
    from converters.writing import check_destination

    containers_of(family)  # there is such a family
    dst, settings, dtype = Path(dst), settings or {}, storage_dtype(dtype).name
    check_destination(dst, [Path(src)])
    checkpoint = read_checkpoint(src, member)
    candidates = generators_of(checkpoint, family)
    found = choose_generator(candidates, settings.get(NETWORK, ""))
    conversion = found.convert(settings)
    tell(found, conversion, candidates)
    companions = [file.source for file in conversion.companions]
    source = {
        **checkpoint.source,
        **({"companions": companions} if companions else {}),
        "container": f"{family}/{found.container.name}",
        "network": found.network.name,
        **({"assumed": list(conversion.assumed)} if conversion.assumed else {}),
    }
    check_destination(dst, [checkpoint.path, *(file.path for file in conversion.companions)])
    written: list[PretrainedGenerator] = []

    def check_written(folder: Path) -> None:
        written.append(load_folder(folder))
        check(written[0], found, conversion)

    try:
        with on_interrupt(signal.default_int_handler):
            save_generator(
                dst,
                conversion.family,
                conversion.architecture,
                conversion.arrays,
                source=source,
                licence=licence,
                dtype=dtype,
                check=check_written,
            )
    except KeyboardInterrupt as error:
        raise Interrupted(f"{dst} is as it was") from error
    return written[0]


def generators_of(checkpoint: Checkpoint, family: str) -> list[Found]:
    """Return the generators of one family in a file, at least one.

    Raises:
        UserError: if there is none, with the family that the file looks like.
    """
    from converters.finding import find_generators

    every = find_generators(checkpoint)
    found = [each for each in every if each.family == family]
    if not found:
        others = [each.family for each in every]
        hint = f"; it looks like {others[0]}: python -m converters {others[0]}" if others else ""
        known = "; ".join(c.description for c in containers_of(family))
        raise UserError(
            f"{checkpoint.path} is not a {family} file this version knows ({known}){hint}"
        )
    return found


def listing() -> str:
    """Return families, accepted files and published names, as `--list` prints them."""
    from cgjax.generators.published import PUBLISHED

    lines = ["Families and the files they accept:"]
    for family in FAMILIES:
        lines += [f"  {family:10} {c.name:12} {c.description}" for c in containers_of(family)]
    lines.append("Published generators (name, pixels, file, where it comes from):")
    for name, entry in PUBLISHED.items():
        by_hand = "" if entry.requirement else " (get it by hand)"
        where = entry.address or entry.source + by_hand
        lines.append(f"  {name:28} {entry.image_size:4}  {entry.file}  {where}")
    return "\n".join(lines)
