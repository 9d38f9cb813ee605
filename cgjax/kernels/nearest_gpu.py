"""The nearest-row search as one GPU kernel that never writes the distances.

Each program holds a block of queries, walks over the blocks of base rows and keeps the smallest
||b||^2 - 2 <q, b> and its lowest index; only those leave the chip. Against the product followed by
a pass over it, that saves writing and reading q * b floats.

Precision: inputs are float32. TF32 alone keeps 11 bits and picks wrong neighbours, so each product
is three TF32 products on the tensor cores (high * high + high * low + low * high), which leaves
2^-22 of the centred norms, accumulated in float32: as good as a float32 product within the search's
contract. `product="ieee"` multiplies in float32 itself, on the ordinary cores.

Pallas has two GPU backends. The Triton one is taken, by name: it is in JAX 0.10 to 0.12 (deprecated
from 0.11), and Mosaic GPU has no float32 product. Where it is missing, `is_available` is False.

Symbols: q queries, b base rows, f features; tiles of 64 queries, 128 rows and 32 features.
"""

from __future__ import annotations

import functools
import importlib.util
from typing import Any, Literal

import jax
import jax.numpy as jnp
from jax.experimental import pallas as pl
from jaxtyping import Array, Float, Int

Product = Literal["tf32x3", "ieee"]

_ROWS, _COLUMNS, _DEPTH = 64, 128, 32  # tile; each a power of two, as Triton asks
_WARPS, _STAGES = 4, 3

_PRECISION = {
    "tf32x3": jax.lax.DotAlgorithmPreset.TF32_TF32_F32_X3,
    "ieee": jax.lax.Precision.HIGHEST,
}


def is_available() -> bool:
    """Return whether this process computes on a CUDA GPU with a backend for the kernel."""
    if jax.default_backend() != "gpu":
        return False
    if importlib.util.find_spec("jax.experimental.pallas.triton") is None:
        return False
    return "cuda" in jax.devices()[0].client.platform_version.lower()


def smallest(
    queries: Float[Array, "q f"],
    base: Float[Array, "b f"],
    norms: Float[Array, " b"],
    active: Int[Array, ""] | None = None,
    *,
    product: Product = "tf32x3",
    interpret: bool = False,
) -> Int[Array, " q"]:
    """Return argmin_j norms_j - 2 <q_i, b_j> for every query, the lowest index on ties.

    Args:
        queries: (q, f) float32, centred as the base is.
        base: (b, f) float32, finite.
        norms: (b,) float32 squared norms; infinite for rows that must not be chosen. Index 0 where
            all are.
        active: queries past it may get any index; their blocks cost nothing.
        product: how two float32 numbers are multiplied.
        interpret: run as plain JAX operations, on any device.

    Returns:
        (q,) int32.
    """
    num, (count, _) = queries.shape[0], base.shape
    queries = _padded(queries, _ROWS)
    base = _padded(base, _COLUMNS)
    norms = jnp.pad(norms, (0, base.shape[0] - count), constant_values=jnp.inf)
    limit = jnp.full(1, num, jnp.int32) if active is None else active.astype(jnp.int32)[None]
    depth = queries.shape[1]
    more: dict[str, Any] = {} if interpret else {"compiler_params": _compiler_params()}
    found = pl.pallas_call(
        functools.partial(_kernel, precision=_PRECISION["ieee" if interpret else product]),
        grid=(queries.shape[0] // _ROWS,),
        in_specs=[
            pl.BlockSpec((_ROWS, depth), lambda i: (i, 0)),
            pl.BlockSpec(base.shape, lambda i: (0, 0)),
            pl.BlockSpec(norms.shape, lambda i: (0,)),
            pl.BlockSpec((1,), lambda i: (0,)),
        ],
        out_specs=pl.BlockSpec((_ROWS,), lambda i: (i,)),
        out_shape=jax.ShapeDtypeStruct((queries.shape[0],), jnp.int32),
        interpret=interpret,
        name="nearest",
        **more,
    )(queries, base, norms, limit)
    return found[:num]


def _compiler_params() -> Any:
    from jax.experimental.pallas import triton

    return triton.CompilerParams(num_warps=_WARPS, num_stages=_STAGES)


def _padded(x: Float[Array, "n f"], rows: int) -> Float[Array, "m g"]:
    """Pad with zeros to whole tiles; zeros add nothing to a product."""
    return jnp.pad(x, ((0, -x.shape[0] % rows), (0, -x.shape[1] % _DEPTH)))


def _kernel(queries: Any, base: Any, norms: Any, limit: Any, out: Any, *, precision: Any) -> None:
    """Search all base rows for one block of queries; the arguments are references."""
    (num_base, depth), rows = base.shape, queries.shape[0]
    columns = jax.lax.broadcasted_iota(jnp.int32, (rows, _COLUMNS), 1)

    def search(j: Array, best: tuple[Array, Array]) -> tuple[Array, Array]:
        start = j * _COLUMNS

        def add(d: Array, total: Array) -> Array:
            part = pl.ds(d * _DEPTH, _DEPTH)
            # The base tile enters transposed, so that both are read along their rows.
            return total + jax.lax.dot_general(
                queries[:, part],
                base[pl.ds(start, _COLUMNS), part],
                (((1,), (1,)), ((), ())),
                precision=precision,
                preferred_element_type=jnp.float32,
            )

        zero = jnp.zeros((rows, _COLUMNS), jnp.float32)
        total = jax.lax.fori_loop(0, depth // _DEPTH, add, zero)
        values = norms[pl.ds(start, _COLUMNS)][None, :] - 2.0 * total
        value = jnp.min(values, axis=1)
        index = jnp.min(jnp.where(values == value[:, None], columns, _COLUMNS), axis=1)
        # Strictly smaller: on ties the block before, hence the lowest index, stays.
        better = value < best[0]
        return jnp.where(better, value, best[0]), jnp.where(better, start + index, best[1])

    start = jnp.full((rows,), jnp.inf, jnp.float32), jnp.zeros((rows,), jnp.int32)
    # By arithmetic: Triton's loops take no bound that is chosen between two numbers.
    is_active = (pl.program_id(0) * rows < limit[0]).astype(jnp.int32)
    num_blocks = is_active * (num_base // _COLUMNS)
    out[...] = jax.lax.fori_loop(0, num_blocks, search, start)[1]
