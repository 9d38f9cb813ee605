"""Running the command line as a user does."""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
from pathlib import Path

from tests.xla_flags import FOUR_DEVICES

ROOT = Path(__file__).resolve().parents[2]


def environment() -> dict[str, str]:
    """Return an environment with one CPU device and no network, as a user would have it.

    Only XLA compiles quickly, so that commands take less time and share programs with the tests.
    One test drops these flags (`test_ends`), and the CI's run of the README's first command has
    none.
    """
    # A missing proxy simulates no network, and an empty cache a new machine.
    proxy = dict.fromkeys(("http_proxy", "https_proxy"), "http://127.0.0.1:9")
    own = {"CGJAX_CACHE": tempfile.mkdtemp(), "JAX_PLATFORMS": "cpu", "PYTHONPATH": str(ROOT)}
    env = {**os.environ, **proxy, **own}
    env["XLA_FLAGS"] = env["XLA_FLAGS"].replace(FOUR_DEVICES, "")
    return env


def cgjax(
    *args: object, module: str = "cgjax.main", env: dict[str, str] | None = None, **kwargs
) -> subprocess.CompletedProcess[str]:
    """Run a command to completion."""
    return subprocess.run(
        [sys.executable, "-m", module, *map(str, args)],
        cwd=ROOT,
        env=environment() if env is None else env,
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        check=False,
        timeout=600,
        **kwargs,
    )


def start(*args: object) -> subprocess.Popen[str]:
    """Start the main command; its stderr can be read line by line."""
    return subprocess.Popen(
        [sys.executable, "-m", "cgjax.main", *map(str, args)],
        cwd=ROOT,
        env=environment(),
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
    )


def errors(stderr: str) -> list[str]:
    """Return the messages to the user; there must be no traceback."""
    assert "Traceback" not in stderr, stderr
    return [line for line in stderr.splitlines() if line.startswith(("error: ", "interrupted: "))]
