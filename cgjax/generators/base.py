"""What a generator is: the protocol users meet, and the staged network the families share.

A family is one `StagedNetwork`: an ordered list of named layers, each computed from the state the
layer before it left. Features, resuming and images are the same walk along that list, started or
stopped at different places, so a layer is never run further than asked. `PretrainedGenerator` puts
a network behind the public protocol: it resolves the keywords on the host, splits the module once
and jits the walk.
"""

from __future__ import annotations

import copy
import difflib
import functools
from collections.abc import Callable, Mapping
from typing import Any, Protocol, runtime_checkable

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx
from jax.sharding import Mesh
from jaxtyping import Array, Float, PRNGKeyArray

from cgjax.errors import UserError
from cgjax.runtime.mesh import replicate

State = dict[str, Any]
"""What travels between layers: "h", the current activation, and whatever else a family carries."""

Inputs = dict[str, Any]
"""Resolved keywords (arrays): class vectors, truncation, noise, ..., as a family defines them."""


@runtime_checkable
class Generator(Protocol):
    """Anything with these members can be clustered and sampled; it need not be ours.

    Attributes:
        layers: ordered names of the representation points.
        latent_dim: length of a latent.
        image_size: height and width of an image.
    """

    layers: tuple[str, ...]
    latent_dim: int
    image_size: int

    def sample_latents(self, key: PRNGKeyArray, n: int) -> Float[Array, "n d"]:
        """Draw n latents of the prior, float32."""
        ...

    def features(self, z: Float[Array, "n d"], layer: str) -> Float[Array, "n ..."]:
        """Run the network up to a layer, and no further: (n, h, w, c) or (n, dim) float32."""
        ...

    def resume(self, h: Float[Array, "n ..."], layer: str) -> Float[Array, "n s s c"]:
        """Run the rest of the network from the activation of a layer."""
        ...

    def images(self, z: Float[Array, "n d"]) -> Float[Array, "n s s c"]:
        """Generate: (n, size, size, channels) float32, nominally in [-1, 1]."""
        ...


class Buffer(nnx.Variable[Any]):
    """An array that belongs to a network and was not trained: statistics, stored noise."""


def parameter(*shape: int, std: float = 0.0, mean: float = 0.0) -> nnx.Param[Array]:
    """Declare a trained array; `std` and `mean` say how `build_network` draws a random one."""
    return nnx.Param(jnp.zeros(shape, jnp.float32), std=std, mean=mean)


def buffer(*shape: int, std: float = 0.0, mean: float = 0.0) -> Buffer:
    """Declare an array that was not trained, as `parameter`."""
    return Buffer(jnp.zeros(shape, jnp.float32), std=std, mean=mean)


class StagedNetwork(nnx.Module):
    """A generator as an ordered list of layers; a family implements the four methods below.

    The constructor takes JSON-able keywords only (the `architecture` of `generator.json`) and makes
    its arrays with `parameter` and `buffer`. Attributes that are no arrays must be hashable: they
    are part of jit's key.

    Attributes:
        family: the family's name, as in `generator.json`.
        normalizes_latent: True where the network rescales its latent, so that only a latent's
            direction matters.
        resume_needs_latents: True where `resume` needs `latents` (or `w`) besides the
            activation.
    """

    family: str
    layers: tuple[str, ...]
    latent_dim: int
    image_size: int
    image_channels: int
    normalizes_latent: bool = False
    resume_needs_latents: bool = False

    def begin(self, z: Float[Array, "n d"], inputs: Inputs) -> State:
        """Return the state before the first layer."""
        raise NotImplementedError

    def stage(self, index: int, state: State) -> State:
        """Compute layer `index`; its activation is the new state's "h"."""
        raise NotImplementedError

    def end(self, state: State) -> Float[Array, "n s s c"]:
        """Turn the state after the last layer into an image."""
        raise NotImplementedError

    def enter(self, h: Float[Array, "n ..."], index: int, inputs: Inputs) -> State:
        """Return the state after layer `index`, whose activation is h.

        Raises:
            UserError: if the rest of the network needs more than h and the inputs.
        """
        return {"h": h}

    def resolve(self, num: int, **keywords: Any) -> Inputs:
        """Turn a call's keywords into arrays, on the host. A plain latent model takes none."""
        self.refuse(**keywords)
        return {}

    def resolve_resume(self, num: int, index: int, latents: Array | None, w: Any) -> Inputs:
        """Return what resuming needs besides `resolve`'s inputs: nothing in a plain network."""
        self.refuse(w=w)
        return {}

    def refuse(self, **keywords: Any) -> None:
        """Refuse every keyword that is given.

        Raises:
            UserError: naming the first.
        """
        given = [name for name, value in keywords.items() if value is not None]
        if given:
            raise UserError(f"{self.family} takes no {given[0]!r}; remove {given[0]}=...")

    def takes(self, h: Array, index: int) -> bool:
        """Whether `enter` takes this activation although `features` returns another shape."""
        return False

    def sample_latents(self, key: PRNGKeyArray, n: int, **keywords: Any) -> Float[Array, "n d"]:
        """Draw n latents, N(0, I) unless a family says otherwise."""
        self.resolve(n, **keywords)
        return jax.random.normal(key, (n, self.latent_dim), jnp.float32)


def features_(network: StagedNetwork, z: Array, inputs: Inputs, *, index: int) -> Array:
    """Walk from the latent to layer `index`; later layers are not traced at all."""
    state = network.begin(z, inputs)
    for i in range(index + 1):
        state = network.stage(i, state)
    return state["h"]


def resume_(network: StagedNetwork, h: Array, inputs: Inputs, *, index: int) -> Array:
    """Walk from the activation of layer `index` to the image."""
    state = network.enter(h, index, inputs)
    for i in range(index + 1, len(network.layers)):
        state = network.stage(i, state)
    return network.end(state)


def images_(network: StagedNetwork, z: Array, inputs: Inputs) -> Array:
    """Walk from the latent to the image."""
    state = network.begin(z, inputs)
    for i in range(len(network.layers)):
        state = network.stage(i, state)
    return network.end(state)


class _Graph:
    """A network without its arrays, as a part of jit's key.

    Hashed once: hashing a graph of hundreds of variables, and flattening its state, take longer
    than the first layers of a small batch.
    """

    def __init__(self, graph: Any, tree: Any):
        self._parts = (graph, tree)
        self._hash = hash(self._parts)

    def __hash__(self) -> int:
        return self._hash

    def __eq__(self, other: object) -> bool:
        return self is other or (isinstance(other, _Graph) and self._parts == other._parts)

    def merge(self, weights: list[Array]) -> StagedNetwork:
        """Return the network with these arrays."""
        graph, tree = self._parts
        network: StagedNetwork = nnx.merge(graph, jax.tree.unflatten(tree, weights))
        return network


@functools.partial(jax.jit, static_argnames=("walk", "graph", "index"))
def _walk(
    weights: list[Array],
    x: Array,
    inputs: Inputs,
    *,
    walk: Callable[..., Array],
    graph: _Graph,
    **static: int,
) -> Array:
    # Accelerators default to TF32 or bfloat16 products, which miss the reference by 1e-2.
    with jax.default_matmul_precision("highest"):
        return walk(graph.merge(weights), x, inputs, **static)


class PretrainedGenerator:
    """A staged network with its weights, behind the public protocol.

    What the forward pass depends on besides the latent is an explicit keyword (`condition`,
    `truncation`, `truncation_layers`, `noise`, and for `resume` also `latents`); a family refuses
    those it does not have.

    Attributes:
        layers: ordered names of the representation points.
        latent_dim: length of a latent.
        image_size: height and width of an image.
        image_channels: 3, or 1.
        normalizes_latent: whether only a latent's direction matters.
        resume_needs_latents: whether `resume` needs `latents=`.
        family: the family's name.
        manifest: what `generator.json` says: source, hashes, licence; empty for a network built
            in memory.

    Example:
        >>> import cgjax, jax
        >>> gen = cgjax.load_generator("dcgan_faces")
        >>> z = gen.sample_latents(jax.random.key(0), 2)
        >>> gen.features(z, "layer1").shape
        (2, 4, 4, 512)
    """

    def __init__(self, network: StagedNetwork, manifest: Mapping[str, Any] | None = None):
        self.layers = tuple(network.layers)
        self.latent_dim = network.latent_dim
        self.image_size = network.image_size
        self.image_channels = network.image_channels
        self.normalizes_latent = network.normalizes_latent
        self.resume_needs_latents = network.resume_needs_latents
        self.family = network.family
        self.manifest = dict(manifest or {})
        self.network = network
        graph, state = nnx.split(network)
        self._weights, tree = jax.tree.flatten(state)
        self._graph = _Graph(graph, tree)
        self._shapes: dict[int, tuple[int, ...]] = {}

    def over(self, mesh: Mesh) -> PretrainedGenerator:
        """Return the same generator with a copy of its weights on every device of a mesh."""
        other = copy.copy(self)
        other._weights = [replicate(weight, mesh) for weight in self._weights]
        return other

    def sample_latents(self, key: PRNGKeyArray, n: int, **keywords: Any) -> Float[Array, "n d"]:
        """Draw n latents of the prior.

        Args:
            key: a typed random key.
            n: how many.
            **keywords: `truncation` where the family's prior is truncated (BigGAN).

        Returns:
            (n, latent_dim) float32.
        """
        return self.network.sample_latents(key, n, **keywords)

    def features(
        self, z: Float[Array, "n d"], layer: str | int, **keywords: Any
    ) -> Float[Array, "n ..."]:
        """Run the network up to a layer, and no further.

        Args:
            z: (n, latent_dim) float32 latents.
            layer: one of `layers`, or its number counted from 1.
            **keywords: `condition`, `truncation`, `truncation_layers`, `noise`, as the family has.

        Returns:
            (n, height, width, channels) float32, or (n, dim) where the layer is a vector.

        Raises:
            UserError: an unknown layer, latents of another shape, a keyword the family lacks.
        """
        z = self._check_latents(z)
        index = layer_index(self.layers, layer)
        inputs = self.network.resolve(z.shape[0], **keywords)
        return _walk(self._weights, z, inputs, walk=features_, graph=self._graph, index=index)

    def resume(
        self,
        h: Float[Array, "n ..."],
        layer: str | int,
        *,
        latents: Float[Array, "n d"] | None = None,
        w: Any = None,
        **keywords: Any,
    ) -> Float[Array, "n s s c"]:
        """Run the rest of the network from the activation of a layer.

        Args:
            h: the activation, as `features(z, layer)` returns it.
            layer: the layer it belongs to.
            latents: (n, latent_dim) float32, the latents that h belongs to; needed where later
                layers read the latent too (StyleGAN, BigGAN), else not used.
            w: instead of `latents` in the style-based families: `features(z, "w")`.
            **keywords: as for `features`.

        Returns:
            (n, size, size, channels) float32.

        Raises:
            UserError: as `features`; also where the family cannot resume from this layer.
        """
        index = layer_index(self.layers, layer)
        h = jnp.asarray(h, jnp.float32)
        n = h.shape[0] if h.ndim else 0
        inputs = self.network.resolve(n, **keywords)
        expected = self._activation_shape(index, n, inputs)
        if h.shape[1:] != expected and not self.network.takes(h, index):
            raise UserError(
                f"the activation has shape {h.shape}; {self.layers[index]} has (n, "
                f"{', '.join(map(str, expected))})"
            )
        if latents is not None:
            latents = self._check_latents(latents)
            if latents.shape[0] != n:
                raise UserError(f"{n} activations but {latents.shape[0]} latents; give one each")
        inputs |= self.network.resolve_resume(n, index, latents, w)
        return _walk(self._weights, h, inputs, walk=resume_, graph=self._graph, index=index)

    def images(self, z: Float[Array, "n d"], **keywords: Any) -> Float[Array, "n s s c"]:
        """Generate images.

        Args:
            z: (n, latent_dim) float32 latents.
            **keywords: as for `features`.

        Returns:
            (n, size, size, channels) float32, nominally in [-1, 1]; not clipped.

        Raises:
            UserError: as `features`.
        """
        z = self._check_latents(z)
        inputs = self.network.resolve(z.shape[0], **keywords)
        return _walk(self._weights, z, inputs, walk=images_, graph=self._graph)

    def _activation_shape(self, index: int, n: int, inputs: Inputs) -> tuple[int, ...]:
        """Return the shape of a layer's activation without the rows; nothing is computed."""
        if index not in self._shapes:
            z = jax.ShapeDtypeStruct((n, self.latent_dim), jnp.float32)
            walk = functools.partial(features_, self.network, index=index)
            self._shapes[index] = tuple(jax.eval_shape(walk, z, inputs).shape[1:])
        return self._shapes[index]

    def _check_latents(self, z: Any) -> Array:
        if not (isinstance(z, jax.Array) and z.dtype == jnp.float32):
            z = jnp.asarray(z, jnp.float32)
        if z.ndim != 2 or z.shape[1] != self.latent_dim:
            raise UserError(
                f"latents have shape {z.shape}; {self.family} expects (n, {self.latent_dim})"
            )
        return z


def layer_index(layers: tuple[str, ...], layer: str | int) -> int:
    """Find a layer by name, or by number counted from 1.

    Example:
        >>> layer_index(("layer1", "layer2"), "layer2"), layer_index(("layer1", "layer2"), 2)
        (1, 1)

    Raises:
        UserError: naming the layers there are and the nearest one.
    """
    if isinstance(layer, int) or (layer.isdigit() and layer not in layers):
        if 1 <= int(layer) <= len(layers):
            return int(layer) - 1
    elif layer in layers:
        return layers.index(layer)
    near = difflib.get_close_matches(str(layer), layers, n=1, cutoff=0)
    raise UserError(
        f"layer={layer!r} is not one of this generator's ({', '.join(layers)}) "
        f"nor a number from 1 to {len(layers)}; try --config.layer={near[0]}"
    )


def in_batches(
    function: Callable[[Array], Array],
    x: Float[Array, "n ..."] | Float[np.ndarray, "n ..."],
    batch: int,
    *,
    out: Float[np.ndarray, "n ..."] | None = None,
    on_rows: Callable[[int], None] | None = None,
) -> Float[np.ndarray, "n ..."]:
    """Apply a function to blocks of rows and collect the results in one host array.

    The last block is padded to the full size, so that one compiled program serves every block. One
    block is computed while the one before is copied.

    Args:
        function: (batch, ...) -> (batch, ...), row by row.
        x: (n, ...) input, on the host or a device; n is at least 1.
        batch: rows at a time.
        out: where the results go; default: a new array.
        on_rows: called after every block with the number of rows done; may raise to stop.

    Returns:
        (n, ...) NumPy array of the results.
    """
    n = x.shape[0]

    def begin(start: int) -> Array:
        block = jnp.asarray(x[start : start + batch])
        if block.shape[0] < batch < n:
            block = jnp.pad(block, [(0, batch - block.shape[0])] + [(0, 0)] * (block.ndim - 1))
        return function(block)

    ahead = begin(0)
    for start in range(0, n, batch):
        block = ahead
        if start + batch < n:
            ahead = begin(start + batch)
        rows = np.asarray(block)[: n - start]
        if out is None:
            out = np.empty((n, *rows.shape[1:]), rows.dtype)
        out[start : start + len(rows)] = rows
        if on_rows is not None:
            on_rows(start + len(rows))
    assert out is not None
    return out
