"""A process that has imported what commands import: each command is a fork of it.

A line of JSON on the standard input is one command; the answer is a line with its exit code.
"""

from __future__ import annotations

import gc
import json
import os
import signal
import sys
from typing import Any

from absl import flags

import cgjax.stages.compare
import cgjax.stages.endtoend
import cgjax.stages.pipeline  # noqa: F401
from cgjax.main import define_flags, main
from cgjax.runtime.command import leave, run_command
from cgjax.runtime.signals import quit_on_signals

# Only so that a command that hangs ends.
HANGS_S = 600


def next_command() -> dict[str, Any]:
    """Return, in a new process each time, the next command; this process ends with the input."""
    for line in sys.stdin:
        if (child := os.fork()) == 0:
            return json.loads(line)
        print(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]), flush=True)
    sys.exit()


if __name__ == "__main__":
    gc.freeze()  # what is imported is no garbage: forks need not look through it
    command = next_command()
    signal.alarm(HANGS_S)
    quit_on_signals()
    for stream, path in enumerate((os.devnull, command["stdout"], command["stderr"])):
        os.dup2(os.open(path, os.O_RDONLY if stream == 0 else os.O_WRONLY), stream)
    os.environ.update(command["environment"])
    sys.argv = ["cgjax.main", *command["arguments"]]
    define_flags(flags.FLAGS)
    leave(lambda: run_command(main))
