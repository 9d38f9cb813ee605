"""Products of float32 matrices are correct to float32's rounding, on a GPU too."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import cgjax
import cgjax.kernels.distance
from cgjax.kernels import products
from cgjax.kernels.products import float32_product


def _normal(seed, *shape):
    return 10.0 + jax.random.normal(jax.random.key(seed), shape)


@pytest.mark.parametrize("contracted", [((1,), (0,)), ((1,), (1,)), ((0,), (0,))])
def test_a_product_is_numpys_to_the_rounding_of_float32(contracted):
    a, b = _normal(0, 40, 40), _normal(1, 40, 40)
    expected = np.tensordot(np.asarray(a, np.float64), np.asarray(b, np.float64), contracted)
    # A sum of 40 positive numbers, each step of which rounds by at most 6e-8.
    np.testing.assert_allclose(float32_product(a, b, contracted), expected, rtol=2e-6)


def test_where_a_gpu_has_tf32_three_of_its_products_are_taken_and_a_cpu_keeps_its_own(monkeypatch):
    a, b = _normal(0, 3, 4), _normal(1, 4, 5)
    expected = float32_product(a, b)
    monkeypatch.setattr(products, "has_tf32", lambda: True)
    traced = jax.jit(lambda a, b: float32_product(a, b)).trace(a, b)
    assert "TF32_TF32_F32_X3" in str(traced.jaxpr)
    np.testing.assert_array_equal(jax.jit(float32_product)(a, b), expected)


def test_bfloat16_is_fast_where_linux_names_its_instructions(monkeypatch, tmp_path):
    def says(text):
        (tmp_path / "cpuinfo").write_text(text)
        monkeypatch.setattr(products, "_CPU_INFO", tmp_path / "cpuinfo")
        products._cpu_features.cache_clear()
        return products.has_fast_bfloat16()

    assert says("model name : x\nflags\t\t: fpu avx512f avx512_bf16\n\nflags : fpu\n")
    assert says("flags : amx_bf16 amx_tile\n")
    assert not says("flags\t\t: fpu avx2 avx512f\n")
    assert not says("Features : asimd bf16\n")
    monkeypatch.setattr(products, "_CPU_INFO", tmp_path / "none")
    products._cpu_features.cache_clear()
    assert not products.has_fast_bfloat16()
    products._cpu_features.cache_clear()


@pytest.mark.gpu
def test_on_a_gpu_neighbours_and_clusters_are_those_of_a_cpu():
    if jax.default_backend() != "gpu":
        pytest.skip("no GPU")
    queries, base = _normal(0, 1000, 512), _normal(1, 2000, 512)
    rows = jnp.concatenate([5.0 * group + _normal(2 + group, 1000, 64) for group in range(4)])
    found = {}
    for name in ("gpu", "cpu"):
        with jax.default_device(jax.devices(name)[0]):
            arrays = [jax.device_put(x, jax.devices(name)[0]) for x in (queries, base, rows)]
            index, distance = cgjax.kernels.distance.nearest(*arrays[:2])
            clusters = cgjax.kmeans(arrays[2], 4, key=jax.random.key(0), num_init=3)
            found[name] = [np.asarray(x) for x in (index, distance, clusters.labels)]
    # Near-ties may swap: the distances tell.
    np.testing.assert_allclose(found["gpu"][1], found["cpu"][1], rtol=1e-5)
    np.testing.assert_array_equal(found["gpu"][2], found["cpu"][2])
