"""Running the command line as a user does."""

from __future__ import annotations

import atexit
import functools
import os
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]


@functools.cache
def program_folder() -> Path:
    """Compiled programs of this test session: every command would compile the same ones.

    Several workers share it. What it holds is gone with the session, so that no test passes
    because of a program that an older version compiled.
    """
    temporary = Path(tempfile.gettempdir())
    session = os.environ.get("PYTEST_XDIST_TESTRUNUID")
    folder = temporary / f"cgjax-test-programs-{session or os.getpid()}"
    folder.mkdir(mode=0o700, exist_ok=True)
    if session is None:
        atexit.register(shutil.rmtree, folder, ignore_errors=True)
    else:  # another worker may still need it
        for old in temporary.glob("cgjax-test-programs-*"):
            if time.time() - old.stat().st_mtime > 86400:
                shutil.rmtree(old, ignore_errors=True)
    return folder


def environment() -> dict[str, str]:
    """One CPU device, strict about nothing but what a user would see."""
    # A proxy that is not there stands for no network, and an empty cache for a new machine.
    proxy = dict.fromkeys(("http_proxy", "https_proxy"), "http://127.0.0.1:9")
    programs = {
        "JAX_COMPILATION_CACHE_DIR": str(program_folder()),
        "JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS": "0",
    }
    own = {"CGJAX_CACHE": tempfile.mkdtemp(), "JAX_PLATFORMS": "cpu", "PYTHONPATH": str(ROOT)}
    env = {**programs, **os.environ, **proxy, **own}
    env.pop("XLA_FLAGS", None)
    return env


def cgjax(
    *args: object, module: str = "cgjax.main", env: dict[str, str] | None = None, **kwargs
) -> subprocess.CompletedProcess[str]:
    """Run a command to its end."""
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
    """Start the main command, stderr readable line by line."""
    return subprocess.Popen(
        [sys.executable, "-m", "cgjax.main", *map(str, args)],
        cwd=ROOT,
        env=environment(),
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
    )


def errors(stderr: str) -> list[str]:
    """The lines that are for the user, where there is nothing that is not."""
    assert "Traceback" not in stderr, stderr
    return [line for line in stderr.splitlines() if line.startswith(("error: ", "interrupted: "))]
