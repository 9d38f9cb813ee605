"""Running the command line as a user does."""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]


def environment() -> dict[str, str]:
    """One CPU device, strict about nothing but what a user would see."""
    # A proxy that is not there stands for no network, and an empty cache for a new machine.
    proxy = dict.fromkeys(("http_proxy", "https_proxy"), "http://127.0.0.1:9")
    cache = {"CGJAX_CACHE": tempfile.mkdtemp()}
    env = {**os.environ, **proxy, **cache, "JAX_PLATFORMS": "cpu", "PYTHONPATH": str(ROOT)}
    env.pop("XLA_FLAGS", None)
    return env


def cgjax(*args: object, module: str = "cgjax.main", **kwargs) -> subprocess.CompletedProcess[str]:
    """Run a command to its end."""
    return subprocess.run(
        [sys.executable, "-m", module, *map(str, args)],
        cwd=ROOT,
        env=environment(),
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
