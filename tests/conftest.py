"""Strict numerics, four fake CPU devices and no network, for every test."""

import atexit
import os
import shutil
import tempfile

from tests.xla_flags import FOUR_DEVICES, QUICK

# Workers and the commands that tests start inherit one folder of compiled programs. It is gone with
# the session, so that no test passes because of a program that an older version compiled.
if "JAX_COMPILATION_CACHE_DIR" not in os.environ:
    PROGRAMS = tempfile.mkdtemp(prefix="cgjax-test-programs-")
    atexit.register(shutil.rmtree, PROGRAMS, ignore_errors=True)
    os.environ["JAX_COMPILATION_CACHE_DIR"] = PROGRAMS
    os.environ["JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS"] = "0"

os.environ.setdefault("JAX_PLATFORMS", "cpu")
os.environ["XLA_FLAGS"] = f"{QUICK} {os.environ.get('XLA_FLAGS', '')} {FOUR_DEVICES}"

import json
import socket
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import jax
import jaxtyping
import pytest

import tests.typechecker  # noqa: F401  # the hook imports its package only
from tests.killing import Killed

# Shapes, dtypes and all other annotations are checked at every call: before anything is imported.
jaxtyping.install_import_hook(["cgjax"], "tests.typechecker.check")

GOLDEN = Path(__file__).parent / "golden"

jax.config.update("jax_numpy_dtype_promotion", "strict")
jax.config.update("jax_numpy_rank_promotion", "raise")


# What `-m fast` runs: half a minute on two cores, for the time between two edits.
FAST = (
    *("config", "regions", "runtime/test_log.py", "runtime/test_files.py", "runtime/test_lock.py"),
    *("runtime/test_mesh.py", "run/test_artifacts.py", "samplers/test_verify.py"),
    *("generators/test_conditions.py", "evaluation/test_agreement.py", "test_layout.py"),
    *(
        "numerics/test_intervals.py",
        "evaluation/test_diversity.py",
        "converters/test_settings.py",
    ),
)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Mark what is fast."""
    here = Path(__file__).parent
    for item in items:
        if any(item.path.is_relative_to(here / name) for name in FAST):
            item.add_marker(pytest.mark.fast)


@pytest.fixture(autouse=True)
def _no_network(monkeypatch: pytest.MonkeyPatch) -> None:
    """Refuse every connection but loopback: a test that needs the network is a wrong test."""
    connect = socket.socket.connect

    def guarded(self: socket.socket, address: object) -> None:
        host = address[0] if isinstance(address, tuple) else "localhost"
        if host not in ("127.0.0.1", "::1", "localhost"):
            raise OSError(f"tests may not use the network (asked for {host})")
        connect(self, address)  # type: ignore[arg-type]

    monkeypatch.setattr(socket.socket, "connect", guarded)


@pytest.fixture(autouse=True, scope="module")
def _forget_programs() -> Iterator[None]:
    """Let compiled programs go: a process that keeps all of them runs out of memory maps."""
    yield
    jax.clear_caches()


@pytest.fixture(scope="session")
def finished_run(tmp_path_factory: pytest.TempPathFactory) -> Callable[[dict[str, Any]], Path]:
    """Return the folder of a finished run of a config, which is run once; copy it to change it."""
    from tests.stages.tiny_runs import run

    made: dict[str, Path] = {}

    def folder_of(config: dict[str, Any]) -> Path:
        key = json.dumps(config, sort_keys=True)
        if key not in made:
            made[key] = tmp_path_factory.mktemp("finished") / "run"
            run(made[key], config)
        return made[key]

    return folder_of


@pytest.fixture(scope="session")
def whole(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, dict[str, Any]]:
    """Return the folder of an uninterrupted training, and its summary; copy it to change it."""
    from tests.endtoend.tiny_runs import settings, train

    root = tmp_path_factory.mktemp("whole") / "run"
    return root, train(root, settings())


@pytest.fixture
def untyped() -> Iterator[None]:
    """Leave annotations unchecked, for a test of what they forbid."""
    jaxtyping.config.update("jaxtyping_disable", True)
    yield
    jaxtyping.config.update("jaxtyping_disable", False)


@pytest.fixture
def key() -> jax.Array:
    """A typed random key."""
    return jax.random.key(0)


@pytest.fixture
def golden() -> Path:
    """The folder of numeric fixtures of the reference networks."""
    return GOLDEN


@pytest.fixture
def kill_at(monkeypatch):
    """Let the process die before its n-th change of the file system."""
    count = {"left": 0}

    def dying(function):
        def call(*args, **kwargs):
            count["left"] -= 1
            if count["left"] == 0:
                raise Killed
            return function(*args, **kwargs)

        return call

    def set_left(number):
        count["left"] = number

    for module, name in ((os, "replace"), (Path, "unlink"), (shutil, "rmtree"), (Path, "mkdir")):
        monkeypatch.setattr(module, name, dying(getattr(module, name)))
    return set_left
