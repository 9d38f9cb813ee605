"""How a command ends: 0 done, 2 user error in one line, 130 interrupted, 1 a bug."""

from __future__ import annotations

import contextlib
import errno
import os
import re
import sys
import traceback
from collections.abc import Callable, Sequence
from functools import partial
from typing import NoReturn

from absl import app, flags, logging

from cgjax.errors import ForeignError, Interrupted, UserError
from cgjax.runtime.files import say_os_error, user_path
from cgjax.runtime.flag_errors import FLAG_ERRORS, explain, refuse_saved_config
from cgjax.runtime.system import (
    StdoutError,
    check_system,
    open_standard_streams,
    watch_stdout,
)

# The errors for a file, folder or disk that the user named and that cannot be used.
_USERS_ERRNO = {
    errno.EACCES, errno.EPERM, errno.EROFS, errno.ENOTDIR, errno.EISDIR, errno.EEXIST,
    errno.ENAMETOOLONG, errno.ELOOP, errno.ENOTEMPTY, errno.EBUSY, errno.EIO, errno.ESTALE,
    errno.EMFILE, errno.ENFILE,
}  # fmt: skip
_FULL_ERRNO = {errno.ENOSPC, errno.EDQUOT, errno.EFBIG}
# What a shell reports for a program that was ended because nobody reads its output.
_BROKEN_PIPE = 141


def _define_nothing(values: flags.FlagValues) -> None:
    pass


def run_command(
    main: Callable[[Sequence[str]], None],
    define_flags: Callable[[flags.FlagValues], None] = _define_nothing,
) -> int:
    """Parse the command line as absl flags, run a command, and turn its end into an exit code.

    Args:
        main: takes the arguments that are not flags, the program's name first.
        define_flags: defines the flags that are not defined yet.

    Returns:
        0 done; 2 a user error, including a full disk and too little memory (one line on stderr);
        130 interrupted; 1 an exception in the user's own code (a line that names the code, then
        the traceback). Bugs propagate with their traceback; --verbosity=1 shows that of a user
        error too.
    """
    open_standard_streams()
    watch_stdout()
    try:
        code = _run(main, define_flags)
        sys.stdout.flush()
    except StdoutError as error:
        # The work is done; only its report could not be printed.
        if error.errno == errno.EPIPE:
            return _BROKEN_PIPE
        _say(f"error: cannot write to standard output: {error.strerror}")
        return 2
    return code


def _run(
    main: Callable[[Sequence[str]], None], define_flags: Callable[[flags.FlagValues], None]
) -> int:
    try:
        check_system()
        logging.set_verbosity(logging.INFO)
        logging.set_stderrthreshold("info")
        app.run(main, flags_parser=partial(_parse, define_flags))
    except (Interrupted, KeyboardInterrupt) as error:
        _say(f"interrupted: {_one_line(error) or 'stopped at once'}")
        return 130
    except SystemExit as end:
        # absl exits with 1 after --help.
        asked_for_help = any(arg.lstrip("-").startswith("help") for arg in sys.argv[1:])
        if isinstance(end.code, str):  # from a user's config: sys.exit("no GPU here")
            _say(f"error: {' '.join(end.code.split())}")
            return 1
        return 0 if asked_for_help else int(end.code or 0)
    except StdoutError:
        raise
    except ForeignError as error:
        _say(f"error: {_one_line(error)}")
        traceback.print_exception(error.__cause__)
        return 1
    except Exception as error:
        line = users_error(error, sys.argv[1:])
        if line is None:
            raise
        logging.debug("the error below was raised here", exc_info=True)
        _say(f"error: {line}")
        return 2
    return 0


def users_error(error: Exception, arguments: Sequence[str] = ()) -> str | None:
    """Return what to tell the user about an error; None if it is a bug.

    Args:
        error: any exception.
        arguments: the command line; an error about memory names its large settings.
    """
    if isinstance(error, UserError):
        return _one_line(error)
    if isinstance(error, OSError):
        if error.errno in _FULL_ERRNO:
            return f"{say_os_error(error)}; free some space and run the same command again"
        if error.errno in _USERS_ERRNO and error.filename is not None:
            return say_os_error(error)
        return None
    return _memory_error(error, arguments)


def _memory_error(error: Exception, arguments: Sequence[str]) -> str | None:
    """Say what to lower if an array did not fit in memory; XLA's errors are known by their text."""
    text = _one_line(error)
    is_xla = "RESOURCE_EXHAUSTED" in text and type(error).__name__.endswith("RuntimeError")
    is_numpy = isinstance(error, ValueError) and text.startswith(
        ("array is too big", "Maximum allowed dimension exceeded", "Maximum allowed size exceeded")
    )
    if not (is_xla or is_numpy or isinstance(error, MemoryError)):
        return None
    size = re.search(r"[Uu]nable to allocate ([\d.]+ \w+)|allocat\w+ (\d+) bytes", text)
    needed = ""
    if size:
        needed = f" (for an array of {size[1] or f'{int(size[2]) / 2**30:.1f} GiB'})"
    large = [a for a in arguments if re.fullmatch(r"--[\w.]+=\d{3,}", a)]
    lower = " or ".join(large) or "--config.generator.batch or --config.latents.num"
    return f"not enough memory{needed}; lower {lower}"


def leave(command: Callable[[], int]) -> NoReturn:
    """Run a command and end this process with its exit code.

    A command that did not come to its end leaves the process at once: XLA may still be computing,
    and Python's own end would crash under its threads. It would also wait for other processes that
    wait for this one; they notice by themselves that it is gone. Only if all of several processes
    were interrupted, they part in order.
    """
    try:
        code = command()
    except BaseException:
        if not _is_one_of_several():
            raise
        traceback.print_exc()
        code = 1
    if code != 0 and not (code == 130 and _is_one_of_several()):
        with contextlib.suppress(OSError):
            sys.stdout.flush()
            sys.stderr.flush()
        os._exit(code)
    sys.exit(code)


def _is_one_of_several() -> bool:
    jax = sys.modules.get("jax")  # not imported yet: not connected to other processes
    return jax is not None and jax.distributed.is_initialized()


def _parse(define_flags: Callable[[flags.FlagValues], None], argv: list[str]) -> list[str]:
    try:
        # Whoever looks for what was typed finds the flags in files too.
        sys.argv[:] = flags.FLAGS.read_flags_from_files(argv, force_gnu=False)
        refuse_saved_config(sys.argv)
        define_flags(flags.FLAGS)
        return list(flags.FLAGS(at_home(sys.argv)))
    except StdoutError:  # from --help
        raise
    except (flags.Error, *FLAG_ERRORS) as error:
        raise explain(error, sys.argv) from error
    except Exception as error:
        raise ForeignError(f"the config file raised {type(error).__name__}: {error}") from error


def at_home(argv: Sequence[str]) -> list[str]:
    """Replace a leading ~ in `--config=`, whose file is read while the flags are parsed."""
    found = [re.fullmatch(r"(--?config=)(~.*)", word) for word in argv]
    return [f"{m[1]}{user_path(m[2])}" if m else word for m, word in zip(found, argv, strict=True)]


def _say(line: str) -> None:
    with contextlib.suppress(OSError):  # nobody reads stderr
        print(line, file=sys.stderr, flush=True)


def _one_line(error: BaseException) -> str:
    return " ".join(str(error).split())
