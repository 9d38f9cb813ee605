"""The generator protocol, and `PretrainedGenerator`, which implements it for a `StagedNetwork`.

`PretrainedGenerator` resolves the keywords on the host, splits the module once and jits the walk
along its layers.
"""

from __future__ import annotations

import copy
import difflib
import functools
import shlex
from collections.abc import Callable, Hashable, Mapping
from typing import Any, Protocol, runtime_checkable

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx
from jax.sharding import Mesh
from jaxtyping import Array, Float, PRNGKeyArray

from cgjax.errors import UserError
from cgjax.generators.staged import Inputs, StagedNetwork, features_, images_, resume_
from cgjax.numerics.arguments import as_float32, check_whole, is_whole, shown
from cgjax.runtime.keys import check_key
from cgjax.runtime.mesh import replicate

# Accelerators default to TF32 or bfloat16 products, which are off from the reference by 1e-2.
PRECISIONS = {"float32": "highest", "tf32": "tensorfloat32"}
"""Name -> JAX's matmul precision for a generator's products; a CPU always computes in float32."""

CLOSE = 0.6
"""A name at least this similar to another counts as a misspelling of it; difflib's default."""


@runtime_checkable
class Generator(Protocol):
    """Any object with these members can be clustered and sampled; it need not be part of cgjax.

    Its methods may return JAX, NumPy or PyTorch arrays. `generators.contract` checks an object
    against this protocol. A generator that can run the rest of the network from a layer's
    activation also has `resume(h, layer) -> images`; for a layer where it cannot, `resume` raises
    NotImplementedError.

    Attributes:
        layers: ordered names of the representation points.
        latent_dim: length of a latent.
        image_size: height and width of an image.
    """

    layers: tuple[str, ...]
    latent_dim: int
    image_size: int

    def sample_latents(self, key: PRNGKeyArray, n: int) -> Float[Array, "n d"]:
        """Draw n latents from the prior, float32."""
        ...

    def features(self, z: Float[Array, "n d"], layer: str) -> Float[Array, "n ..."]:
        """Run the network up to a layer, and no further: (n, h, w, c) or (n, dim) float32."""
        ...

    def images(self, z: Float[Array, "n d"]) -> Float[Array, "n s s c"]:
        """Generate: (n, size, size, channels) float32, nominally in [-1, 1]; 1 to 4 channels."""
        ...


class _Graph:
    """A network without its arrays, as part of jit's cache key.

    The hash is computed once: hashing a graph of hundreds of variables and flattening its state
    takes longer than the first layers of a small batch.
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


@functools.partial(jax.jit, static_argnames=("walk", "graph", "precision", "index"))
def _walk(
    weights: list[Array],
    x: Array,
    inputs: Inputs,
    *,
    walk: Callable[..., Array],
    graph: _Graph,
    precision: str,
    **static: int,
) -> Array:
    with jax.default_matmul_precision(PRECISIONS[precision]):
        return walk(graph.merge(weights), x, inputs, **static)


class PretrainedGenerator:
    """A staged network with its weights, behind the public protocol.

    Whatever the forward pass depends on besides the latent is an explicit keyword (`condition`,
    `truncation`, `truncation_layers`, `noise`, StyleGAN3's `rotation` and `translation`, and for
    `resume` also `latents`); a family refuses the ones it does not have.

    Attributes:
        layers: ordered names of the representation points.
        latent_dim: length of a latent.
        image_size: height and width of an image.
        image_channels: 3, or 1.
        num_classes: length of a class vector; 0 where there are no classes.
        normalizes_latent: whether only a latent's direction matters.
        resume_needs_latents: whether `resume` needs `latents=`.
        truncates_prior: whether `sample_latents` takes `truncation=`.
        family: the family's name.
        precision: of matrix products, one of `PRECISIONS`.
        manifest: the content of `generator.json` (source, hashes, licence); empty for a network
            built in memory.

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
        self.num_classes = network.num_classes
        self.normalizes_latent = network.normalizes_latent
        self.resume_needs_latents = network.resume_needs_latents
        self.truncates_prior = network.truncates_prior
        self.family = network.family
        self.manifest = dict(manifest or {})
        self.network = network
        graph, state = nnx.split(network)
        self._weights, tree = jax.tree.flatten(state)
        self._graph = _Graph(graph, tree)
        self._shapes: dict[int, tuple[int, ...]] = {}
        self.precision = "float32"

    def with_precision(self, precision: str) -> PretrainedGenerator:
        """Return the same generator with another precision for its matrix products.

        Args:
            precision: one of `PRECISIONS`.

        Raises:
            UserError: an unknown precision.
        """
        if precision not in PRECISIONS:
            raise UserError(f"precision {precision!r}: expected {' or '.join(PRECISIONS)}")
        other = copy.copy(self)
        other.precision = precision
        return other

    def over(self, mesh: Mesh) -> PretrainedGenerator:
        """Return the same generator with a copy of its weights on every device of a mesh."""
        return self.with_weights([replicate(weight, mesh) for weight in self._weights])

    @property
    def weights(self) -> list[Array]:
        """The network's arrays, in the order of its flattened state."""
        return list(self._weights)

    @property
    def structure(self) -> Hashable:
        """The network without its arrays, and its precision; equal for equal networks."""
        return self._graph, self.precision

    def with_weights(self, weights: list[Array]) -> PretrainedGenerator:
        """Return the same generator with its `weights` replaced; the arrays may be traced.

        This lets a function of weights and latents be differentiated and compiled without baking
        the weights into the program as constants.
        """
        other = copy.copy(self)
        other._weights = weights
        return other

    def sample_latents(self, key: PRNGKeyArray, n: int, **keywords: Any) -> Float[Array, "n d"]:
        """Draw n latents from the prior.

        Args:
            key: a random key, typed (`jax.random.key`) or raw (`jax.random.PRNGKey`).
            n: how many.
            **keywords: `truncation` where the family's prior is truncated (BigGAN).

        Returns:
            (n, latent_dim) float32.

        Raises:
            UserError: `key` is not one random key, or `n` is not a whole number of at least 0.
        """
        check_key(key)
        n = check_whole("n", n, least=0)
        return self.network.sample_latents(key, n, **keywords)

    def features(
        self, z: Float[Array | np.ndarray, "n d"], layer: str | int, **keywords: Any
    ) -> Float[Array, "n ..."]:
        """Run the network up to a layer, and no further.

        Args:
            z: (n, latent_dim) float32 latents.
            layer: one of `layers`, or its number counted from 1.
            **keywords: those of `condition`, `truncation`, `truncation_layers`, `noise`,
                `rotation` and `translation` that the family has.

        Returns:
            (n, height, width, channels) float32, or (n, dim) where the layer is a vector.

        Raises:
            UserError: an unknown layer, latents of another shape or not real numbers, a keyword
                that the family does not have.
        """
        z = self._check_latents(z)
        index = layer_index(self.layers, layer)
        inputs = self.network.resolve(z.shape[0], **keywords)
        return self._run(features_, z, inputs, index=index)

    def resume(
        self,
        h: Float[Array | np.ndarray, "n ..."],
        layer: str | int,
        *,
        latents: Float[Array | np.ndarray, "n d"] | None = None,
        w: Any = None,
        **keywords: Any,
    ) -> Float[Array, "n s s c"]:
        """Run the rest of the network from the activation of a layer.

        Args:
            h: the activation, as `features(z, layer)` returns it.
            layer: the layer of that activation.
            latents: (n, latent_dim) float32, the latents of h; needed where later layers also read
                the latent (StyleGAN, BigGAN), otherwise unused.
            w: in the style-based families, `features(z, "w")` in place of `latents`.
            **keywords: as for `features`.

        Returns:
            (n, size, size, channels) float32.

        Raises:
            UserError: as for `features`; also where the family cannot resume from this layer.
        """
        index = layer_index(self.layers, layer)
        h = jnp.asarray(as_float32("activations", h, f"what features(z, {layer!r}) returns"))
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
                raise UserError(
                    f"{n} activations but {latents.shape[0]} latents; give one latent for each "
                    "activation"
                )
        inputs |= self.network.resolve_resume(n, index, latents, w)
        return self._run(resume_, h, inputs, index=index)

    def images(
        self, z: Float[Array | np.ndarray, "n d"], **keywords: Any
    ) -> Float[Array, "n s s c"]:
        """Generate images.

        Args:
            z: (n, latent_dim) float32 latents.
            **keywords: as for `features`.

        Returns:
            (n, size, size, channels) float32, nominally in [-1, 1]; not clipped.

        Raises:
            UserError: as for `features`.
        """
        z = self._check_latents(z)
        inputs = self.network.resolve(z.shape[0], **keywords)
        return self._run(images_, z, inputs)

    def _run(self, walk: Callable[..., Array], x: Array, inputs: Inputs, **static: int) -> Array:
        key = {"graph": self._graph, "precision": self.precision}
        return _walk(self._weights, x, inputs, walk=walk, **key, **static)

    def _activation_shape(self, index: int, n: int, inputs: Inputs) -> tuple[int, ...]:
        """Return the shape of one row of a layer's activation; nothing is computed."""
        if index not in self._shapes:
            z = jax.ShapeDtypeStruct((n, self.latent_dim), jnp.float32)
            walk = functools.partial(features_, self.network, index=index)
            self._shapes[index] = tuple(jax.eval_shape(walk, z, inputs).shape[1:])
        return self._shapes[index]

    def _check_latents(self, z: Any) -> Array:
        if not (isinstance(z, jax.Array) and z.dtype == jnp.float32):
            z = jnp.asarray(as_float32("latents", z, f"(n, {self.latent_dim})"))
        if z.ndim != 2 or z.shape[1] != self.latent_dim:
            raise UserError(
                f"latents have shape {z.shape}; {self.family} expects (n, {self.latent_dim})"
            )
        return z


def layer_index(
    layers: tuple[str, ...],
    layer: str | int | np.integer[Any],
    setting: str = "--config.layer={}",
) -> int:
    """Return the index (from 0) of a layer given by name, or by number counted from 1.

    Args:
        layers: those of the generator.
        layer: a name or a number.
        setting: how the layer is typed, with {} in its place, for the message.

    Example:
        >>> layer_index(("layer1", "layer2"), "layer2"), layer_index(("layer1", "layer2"), 2)
        (1, 1)

    Raises:
        UserError: an unknown layer; the message lists the layers and suggests one.
    """
    numbers = [str(number) for number in range(1, len(layers) + 1)]
    if isinstance(layer, str) and layer in layers:
        return layers.index(layer)
    if isinstance(layer, str) and layer.lstrip("0") in numbers:
        return numbers.index(layer.lstrip("0"))
    if is_whole(layer) and int(layer) <= len(layers):
        return int(layer) - 1
    typed = shlex.quote(setting.format(suggested_layer(layers, layer)))
    raise UserError(
        f"layer={shown(layer)} is not one of this generator's ({', '.join(layers)}) nor a number "
        f"from 1 to {len(layers)}; try {typed}; "
        "--mode=check shows what each layer costs"
    )


def suggested_layer(layers: tuple[str, ...], layer: Any) -> str:
    """Return the layer with the most similar name; if none is similar, an early (cheap) one.

    Example:
        >>> layers = ("w", "b4_conv1", "b8_conv1", "b16_conv1")
        >>> suggested_layer(layers, "b8_conv"), suggested_layer(layers, "layer2")
        ('b8_conv1', 'b4_conv1')
    """
    text = layer[:1000] if isinstance(layer, str) else ""
    ratios = [difflib.SequenceMatcher(None, text, name).ratio() for name in layers]
    best = max(ratios)
    return layers[ratios.index(best) if best >= CLOSE else min(1, len(layers) - 1)]
