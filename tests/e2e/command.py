"""Running the command line as a user does."""

from __future__ import annotations

import atexit
import functools
import json
import os
import shutil
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
    *args: object, module: str = "cgjax.main", env: dict[str, str] | None = None
) -> subprocess.CompletedProcess[str]:
    """Run a command to completion; in another environment or module it imports JAX anew."""
    words = [*map(str, args)]
    if env is None and module == "cgjax.main":
        return _forked(words)
    return subprocess.run(
        [sys.executable, "-m", module, *words],
        cwd=ROOT,
        env=environment() if env is None else env,
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        check=False,
        timeout=600,
    )


@functools.cache
def _server() -> subprocess.Popen[str]:
    """Start the process whose forks are commands, see `forked`; it ends with this one."""
    server = subprocess.Popen(
        [sys.executable, "-m", "tests.e2e.forked"],
        cwd=ROOT,
        env=environment(),
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,  # Python's advice against forks of a process with threads
        text=True,
    )
    atexit.register(server.communicate)
    return server


def _forked(words: list[str]) -> subprocess.CompletedProcess[str]:
    server, own = _server(), {"CGJAX_CACHE": tempfile.mkdtemp()}
    with tempfile.NamedTemporaryFile("r") as out, tempfile.NamedTemporaryFile("r") as err:
        command = {"arguments": words, "environment": own, "stdout": out.name, "stderr": err.name}
        print(json.dumps(command), file=server.stdin, flush=True)
        code = int(server.stdout.readline())
        return subprocess.CompletedProcess(words, code, out.read(), err.read())


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


def untrained(finished: Path, workdir: Path) -> Path:
    """Copy a run as it was when it had clusters but no sampler yet; return the copy's folder."""
    shutil.copytree(finished, workdir)
    for name in ("checkpoints", "samples"):
        shutil.rmtree(workdir / name)
    (workdir / "metrics.jsonl").unlink()
    for path in (workdir / "stages").glob("*.json"):
        if path.stem.split("-")[0] in ("fit", "sample", "sheet", "evaluate", "report"):
            path.unlink()
    return workdir
