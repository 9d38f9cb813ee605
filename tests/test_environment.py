"""What the environment says changes no result and ends in no traceback."""

import ast
from pathlib import Path

import pytest

from tests.e2e.command import ROOT, cgjax, environment, errors
from tests.runtime.test_startup import run

IN_64_BITS = """
import jax, jax.numpy as jnp, numpy as np
from cgjax.clustering import assign, kmeans
from cgjax.clustering.kmeans.sources import ArrayRows
from cgjax.samplers.base import group_members
from cgjax.samplers.registry import SAMPLERS

assert jnp.zeros(()).dtype == jnp.float64
rng = np.random.default_rng(0)
rows = rng.normal(size=(300, 40)).astype(np.float32)
for given, k in ((rows, 3), (rows, 80), (ArrayRows(rows, 64), 3)):
    found = kmeans(given, k, key=jax.random.key(0), num_init=2)
    assert found.centroids.dtype == found.inertia.dtype == np.float32
assert assign(rows, rows[:3])[1].dtype == np.float32
z = rng.normal(size=(200, 8)).astype(np.float32)
members = group_members(z, (z[:, 0] > 0).astype(np.int32), 2, np.abs(z[:, 0]))
for name in ("flow", "flow_one_step", "imle", "imle_residual", "gaussian", "gan", "vae"):
    sampler = SAMPLERS[name](latent_dim=8, num_epochs=2)
    state = sampler.init(jax.random.key(0), members)
    for epoch in range(2):
        state, _ = sampler.epoch(state, members, jax.random.key(epoch), epoch)
    assert sampler.sample(state, jax.random.key(9), 1, 5).dtype == np.float32, name
"""

# Functions whose arrays are of 64 bits where those are switched on, and at which argument the dtype
# stands; None where it is a keyword only.
MAKES = {
    **{f"jnp.{name}": at for name, at in {"zeros": 1, "ones": 1, "empty": 1, "full": 2}.items()},
    **dict.fromkeys(("jnp.arange", "jnp.eye", "jnp.linspace")),
    **dict.fromkeys(("jax.random.normal", "jax.random.uniform"), 2),
    "jax.random.randint": 4,
}


def test_numbers_of_64_bits_may_be_switched_on():
    done = run("-c", IN_64_BITS, JAX_ENABLE_X64="1")
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize("path", sorted((ROOT / "cgjax").rglob("*.py")), ids=lambda p: p.stem)
def test_every_array_that_is_made_says_its_dtype(path: Path):
    for call in ast.walk(ast.parse(path.read_text())):
        if isinstance(call, ast.Call) and (name := ast.unparse(call.func)) in MAKES:
            at = MAKES[name]
            is_said = any(keyword.arg == "dtype" for keyword in call.keywords)
            assert is_said or (at is not None and len(call.args) > at), f"line {call.lineno}"


def test_devices_that_are_not_there_are_one_line():
    env = environment() | {"JAX_PLATFORMS": "abacus"}
    done = cgjax("--mode=check", "--config=configs/dcgan_pose.py:quick", env=env)
    assert done.returncode == 2
    (line,) = errors(done.stderr)
    assert "JAX_PLATFORMS=abacus: JAX finds no such devices here; unset it" in line


def test_the_same_seed_draws_the_same_whatever_generator_of_keys_is_the_default(tmp_path):
    code = """
import jax
from cgjax.runtime.processes import start_jax
start_jax()
print(jax.random.normal(jax.random.key(0), (3,)).tolist())
"""
    other = {"JAX_DEFAULT_PRNG_IMPL": "rbg", "JAX_THREEFRY_PARTITIONABLE": "0"}
    outputs = {run("-c", code, **more).stdout for more in ({}, other)}
    assert len(outputs) == 1
    assert outputs.pop().startswith("[")
