"""The fused GPU kernel, interpreted, agrees with the XLA path; and it lowers for CUDA."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from jaxlib.mlir import ir
from jaxlib.mlir.dialects import arith, scf  # noqa: F401  # Triton's modules hold their operations
from jaxlib.triton import dialect as triton

from cgjax.kernels import nearest_gpu
from cgjax.kernels.distance import nearest_, nearest_fused_


def _normal(seed, *shape):
    return jax.random.normal(jax.random.key(seed), shape)


@functools.partial(jax.jit, static_argnames="has_active")
def _fused(queries, base, valid=None, active=None, has_active=False):
    return nearest_fused_(
        queries, base, valid=valid, active=active if has_active else None, interpret=True
    )


@pytest.mark.parametrize(
    "shape", [(1, 1, 1), (3, 7, 2), (64, 128, 32), (65, 129, 33), (200, 300, 70)]
)
def test_the_fused_kernel_agrees_with_the_xla_path(shape):
    q, b, f = shape
    queries, base = 50.0 + _normal(0, q, f), 50.0 + _normal(1, b, f)
    expected, found = nearest_(queries, base), _fused(queries, base)
    np.testing.assert_array_equal(found[0], expected[0])
    np.testing.assert_allclose(found[1], expected[1], rtol=1e-6)  # another order of the sum
    assert found[0].dtype == jnp.int32


@settings(max_examples=15, deadline=None)
@given(st.integers(0, 10_000))
def test_ties_go_to_the_lowest_index_also_across_blocks(seed):
    """Small integers: every distance is exact in float32 and ties are common."""
    rng = np.random.default_rng(seed)
    queries = jnp.asarray(rng.integers(-2, 3, (70, 3)), jnp.float32)
    base = rng.integers(-2, 3, (150, 3)).astype(np.float32)
    base = jnp.concatenate([jnp.asarray(base), -jnp.asarray(base)])  # mean exactly zero
    distance = jnp.sum((queries[:, None] - base[None]) ** 2, -1)
    np.testing.assert_array_equal(_fused(queries, base)[0], jnp.argmin(distance, 1))


def test_invalid_rows_are_never_chosen_even_when_they_hold_nan():
    queries, base = _normal(0, 70, 6), _normal(1, 300, 6)
    valid = jnp.arange(300) % 3 == 1
    base = jnp.where(valid[:, None], base, jnp.nan)
    expected, found = nearest_(queries, base, valid=valid), _fused(queries, base, valid)
    np.testing.assert_array_equal(found[0], expected[0])
    index, distance = _fused(queries, base, jnp.zeros(300, bool))
    np.testing.assert_array_equal(index, np.zeros(70))
    assert np.isinf(distance).all()


def test_queries_that_do_not_count_change_nothing_for_those_that_do():
    queries, base = _normal(0, 200, 6), _normal(1, 150, 6)
    found = _fused(queries, base, None, jnp.int32(90), has_active=True)
    np.testing.assert_array_equal(found[0][:90], nearest_(queries, base)[0][:90])
    # Blocks of 64: the third and fourth are skipped and keep the first index.
    np.testing.assert_array_equal(found[0][128:], np.zeros(72))


def test_the_fused_kernel_under_vmap_equals_a_loop():
    queries, base = _normal(0, 3, 20, 5), _normal(1, 3, 150, 5)
    index, _ = jax.vmap(_fused)(queries, base)
    for c in range(3):
        np.testing.assert_array_equal(index[c], nearest_(queries[c], base[c])[0])


def test_no_queries_give_empty_results():
    index, distance = nearest_fused_(jnp.zeros((0, 3)), _normal(0, 4, 3), interpret=True)
    assert index.shape == distance.shape == (0,)


def _triton_modules(operation):
    """Return the bytes of all of Triton's modules inside an operation."""
    found = []
    for block in (block for region in operation.regions for block in region.blocks):
        for inner in block.operations:
            if "triton" in str(inner.attributes.get("call_target_name")):
                found.append(inner.attributes["mhlo.backend_config"]["ir"].value_bytes)
            found += _triton_modules(inner.operation)
    return found


@pytest.mark.parametrize("product", ["tf32x3", "ieee"])
def test_what_it_lowers_to_for_cuda_is_a_valid_module_of_triton(product):
    """JAX 0.10 hands the Triton code to XLA; later ones compile it while lowering."""
    if jax.version.__version_info__ >= (0, 11):
        pytest.skip("lowering needs the CUDA plugin from JAX 0.11 on")
    queries, base = _normal(0, 100, 70), _normal(1, 200, 70)
    valid, active = jnp.ones(200, bool), jnp.int32(50)

    def search(queries, base, valid, active):
        return nearest_fused_(queries, base, valid=valid, active=active, product=product)

    lowered = (
        jax.jit(search).trace(queries, base, valid, active).lower(lowering_platforms=("cuda",))
    )
    (module,) = _triton_modules(lowered.compiler_ir("stablehlo").operation)
    with ir.Context() as context:
        triton.register_dialect(context)
        assert ir.Module.parse(module).operation.verify()


@pytest.mark.gpu
@pytest.mark.parametrize("product", ["tf32x3", "ieee"])
def test_on_a_gpu_it_agrees_with_the_xla_path(product):
    if not nearest_gpu.is_available():
        pytest.skip("no CUDA GPU")
    queries, base = 50.0 + _normal(0, 1000, 512), 50.0 + _normal(1, 2000, 512)
    found, expected = nearest_fused_(queries, base, product=product), nearest_(queries, base)
    # Near-ties may swap: the distances tell.
    np.testing.assert_allclose(found[1], expected[1], rtol=1e-5)
