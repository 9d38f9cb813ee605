"""How a command of ours ends: 0 done, 2 user error in one line, 130 interrupted, 1 a bug."""

from __future__ import annotations

import sys
import traceback
from collections.abc import Callable, Sequence

from absl import app, flags, logging

from cgjax.errors import ForeignError, Interrupted, UserError


def run_command(main: Callable[[Sequence[str]], None]) -> int:
    """Parse the command line as absl flags, run a command, and turn its end into an exit code.

    Args:
        main: takes the arguments that are no flags, the program's name first.

    Returns:
        0 done, 2 a user error (one line on stderr), 130 interrupted after saving, 1 an exception in
        the user's own code (a line that says whose, then its traceback). Bugs propagate with their
        traceback.
    """
    logging.set_verbosity(logging.INFO)
    logging.set_stderrthreshold("info")
    try:
        app.run(main, flags_parser=_parse)
    except UserError as error:
        print(f"error: {_one_line(error)}", file=sys.stderr)
        return 2
    except ForeignError as error:
        print(f"error: {_one_line(error)}", file=sys.stderr)
        traceback.print_exception(error.__cause__)
        return 1
    except (Interrupted, KeyboardInterrupt) as error:
        print(f"interrupted: {_one_line(error) or 'before anything was run'}", file=sys.stderr)
        return 130
    except SystemExit as end:
        # absl ends --help with 1.
        asked_for_help = any(arg.lstrip("-").startswith("help") for arg in sys.argv[1:])
        return 0 if asked_for_help or end.code is None else int(end.code)
    return 0


def _parse(argv: list[str]) -> list[str]:
    # ml_collections raises KeyError, AttributeError, TypeError or ValueError for a wrong override,
    # OSError for a config file that is not there, absl its own Error: all are the command line's.
    try:
        return list(flags.FLAGS(argv))
    except (flags.Error, KeyError, AttributeError, TypeError, ValueError, OSError) as error:
        raise UserError(_one_line(error)) from error


def _one_line(error: BaseException) -> str:
    text = str(error.args[0] if isinstance(error, KeyError) and error.args else error)
    if "Traceback (most recent call last)" in text:
        # ml_collections hands on the whole traceback of a config's own error: its end says it.
        text = text.strip().splitlines()[-1]
    return " ".join(text.split())
