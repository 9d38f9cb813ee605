"""The common part of the style-based families: mapping network, truncation, noise, resuming.

A latent z is normalised and mapped to a style w; truncation pulls w towards its mean, layer by
layer; every convolution reads its own copy of w and adds its own noise.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx
from jaxtyping import Array, Float

from cgjax.errors import UserError
from cgjax.generators.layers import leaky_relu, pixel_norm
from cgjax.generators.staged import Inputs, StagedNetwork, State, buffer, parameter
from cgjax.numerics.arguments import as_float32, shown
from cgjax.runtime.keys import as_keys

MAPPING_LEAK = 0.2

# Stands for the network's stored noise. It is already among the weights, and fetching and passing
# it again would take longer than the first layers of a call.
STORED: tuple[Array, ...] = ()


class StyleNetwork(StagedNetwork):
    """The mapping network and the keywords; a family adds the synthesis network.

    A family sets `noise_shapes`, one (h, w, c) for each noise it reads, in order, and names its
    first layer "w": the output of the mapping network before truncation, which SeFa edits.

    Attributes:
        num_styles: number of copies of w that the synthesis network reads.
        default_truncation: psi where the caller gives none; None for no truncation.
        has_noise: whether the file has stored noise, so that `noise="stored"` works.
        is_nvidia: whether NVIDIA's own code is followed: the embedding of a label has a bias and is
            normalised apart from the latent, and a psi above 1 acts too.
        mapping_gain: factor on the activations of the mapping network.
    """

    normalizes_latent = True
    resume_needs_latents = True
    edit_space = "w"
    noise_shapes: tuple[tuple[int, int, int], ...]
    is_nvidia: bool = False
    mapping_gain: float = 1.0

    def _make_mapping(
        self,
        latent_dim: int,
        style_dim: int,
        mapping_widths: Sequence[int],
        num_styles: int,
        default_truncation: float | None,
        has_noise: bool,
        num_classes: int,
        embedding_dim: int | None = None,
    ) -> None:
        """Declare the mapping network.

        Args:
            latent_dim: length of a latent.
            style_dim: length of the style that one layer reads.
            mapping_widths: output widths of the mapping network's layers; the last is `style_dim`,
                or `style_dim` times the number of styles where every layer has its own style.
            num_styles: number of styles that the synthesis network reads.
            default_truncation: psi where the caller gives none.
            has_noise: whether the file has stored noise.
            num_classes: length of a label; 0 for none.
            embedding_dim: length of a label's embedding; None for `latent_dim`.
        """
        self.latent_dim, self.style_dim, self.num_styles = latent_dim, style_dim, num_styles
        self.default_truncation = default_truncation
        self.has_noise, self.num_classes = has_noise, num_classes
        embedding_dim = embedding_dim or latent_dim
        inputs = (latent_dim + (embedding_dim if num_classes else 0), *mapping_widths[:-1])
        self.mapping = nnx.List(
            parameter(i, o, std=(2 / i) ** 0.5) for i, o in zip(inputs, mapping_widths, strict=True)
        )
        self.mapping_biases = nnx.List(parameter(o) for o in mapping_widths)
        if num_classes:
            self.embedding = parameter(num_classes, embedding_dim, std=1.0)
            self.embedding_bias = parameter(embedding_dim) if self.is_nvidia else None
        self.mean_style = buffer(mapping_widths[-1])
        self.noise = nnx.List(
            [buffer(1, *shape, std=1.0) for shape in self.noise_shapes] if has_noise else []
        )

    # The mapping network.

    def condition_latent(self, z: Float[Array, "n d"], inputs: Inputs) -> Float[Array, "n e"]:
        """Return the input of the mapping network: latent and label embedding, normalised."""
        if not self.num_classes:
            return pixel_norm(z)
        embedded = inputs["classes"] @ self.embedding[...]
        if self.embedding_bias is None:
            return pixel_norm(jnp.concatenate([z, embedded], axis=1))
        embedded = embedded + self.embedding_bias[...][None]
        return jnp.concatenate([pixel_norm(z), pixel_norm(embedded)], axis=1)

    def map_latent(self, z: Float[Array, "n d"], inputs: Inputs) -> Float[Array, "n w"]:
        """Turn latents into styles, before truncation."""
        x = self.condition_latent(z, inputs)
        for kernel, bias in zip(self.mapping, self.mapping_biases, strict=True):
            x = leaky_relu(x @ kernel[...] + bias[...][None], MAPPING_LEAK) * self.mapping_gain
        return x

    def spread(self, w: Float[Array, "n ..."], inputs: Inputs) -> Float[Array, "n l w"]:
        """Copy w to every layer and truncate it: mean + psi (w - mean), with psi per layer."""
        mean = self.mean_style[...].reshape(1, -1, self.style_dim)[:, : self.num_styles]
        w = w.reshape(w.shape[0], -1, self.style_dim)[:, : self.num_styles]
        shape = (w.shape[0], self.num_styles, self.style_dim)
        w = jnp.broadcast_to(w, shape)
        psi = inputs["psi"]
        if psi is None:
            return w
        mean = jnp.broadcast_to(mean, shape)
        psi = jnp.broadcast_to(psi[None, :, None], shape)
        # Exactly w where psi is 1: mean + (w - mean) would have a rounding error.
        return jnp.where(psi == 1, w, mean + psi * (w - mean))

    # Stages.

    def begin(self, z: Float[Array, "n d"], inputs: Inputs) -> State:
        """Start from the latent; the state also holds the inputs."""
        return {"h": z, "inputs": inputs}

    def stage(self, index: int, state: State) -> State:
        """Map the latent (layer 0), or run a layer of the synthesis network."""
        inputs = state["inputs"]
        if index == 0:
            return state | {"h": self.map_latent(state["h"], inputs)}
        if index == 1:
            state = state | {"styles": self.spread(state["h"], inputs)}
        return self.synthesize(index - 1, state)

    def synthesize(self, index: int, state: State) -> State:
        """Compute layer `index` (from 0) of the synthesis network; the state has "styles"."""
        raise NotImplementedError

    def style_weights(self) -> dict[str, Float[Array, "w m"]]:
        """Return the weights that read the style, for each layer that has any."""
        raise NotImplementedError

    def latent_weights(self, layers: Sequence[str] | None = None) -> Float[Array, "w m"]:
        """Return the weights that read the style, one row per coordinate of w (SeFa).

        Args:
            layers: the layers whose weights are returned; None for all.

        Raises:
            UserError: no layers, or one that reads no style through a weight.
        """
        weights = self.style_weights()
        chosen = tuple(weights) if layers is None else tuple(layers)
        wrong = [name for name in chosen if name not in weights]
        if wrong or not chosen:
            given = f"{wrong[0]!r} reads no style" if wrong else "no layer is given"
            raise UserError(f"layers: {given}; expected some of {', '.join(weights)}")
        return jnp.concatenate([weights[name] for name in chosen], axis=1)

    def noise_at(self, index: int, n: int, inputs: Inputs) -> Float[Array, ...] | None:
        """Return noise number `index`, with n rows or one; None for zeros."""
        noise = inputs["noise"]
        if noise is None:
            return None
        if not isinstance(noise, tuple):
            keys = jax.vmap(lambda k: jax.random.fold_in(k, index))(noise)
            shape = self.noise_shapes[index]
            return jax.vmap(lambda k: jax.random.normal(k, shape, jnp.float32))(keys)
        array: Array = self.noise[index][...] if noise == STORED else noise[index]
        return array

    # Keywords.

    def resolve(
        self,
        num: int,
        *,
        condition: Any = None,
        truncation: Any = None,
        truncation_layers: Any = None,
        noise: Any = None,
        **others: Any,
    ) -> Inputs:
        """Turn the keywords into arrays; see `PretrainedGenerator`.

        Args:
            num: number of rows.
            condition: for label-conditional files.
            truncation: psi; None for the file's own, 1 for no truncation.
            truncation_layers: number of styles, from the first, that it acts on; None for all.
            noise: "stored", "zeros", a random key (the same noise for every row, so that a row's
                features do not depend on its neighbours), n keys (one per row), or a list of arrays
                (n or 1, h, w, c); None for "stored" where the file has noise, else "zeros".
            **others: refused.
        """
        return super().resolve(num, condition=condition, **others) | {
            "psi": self._resolve_truncation(truncation, truncation_layers),
            "noise": self._resolve_noise(noise, num),
        }

    def _resolve_truncation(self, truncation: Any, layers: Any) -> Array | None:
        psi = self.default_truncation if truncation is None else truncation
        try:
            number = None if psi is None else float(psi)
            count = self.num_styles if layers is None else int(layers)
        except (TypeError, ValueError, OverflowError) as error:
            raise UserError(
                f"truncation={shown(truncation)}, truncation_layers={shown(layers)}: expected a "
                f"number such as 0.7, and the number of styles, up to {self.num_styles}, that it "
                "acts on"
            ) from error
        if number is not None and not np.isfinite(number):
            raise UserError(f"truncation={truncation!r} is not a finite number; for example 0.7")
        if count < 0:
            raise UserError(f"truncation_layers={layers} is negative; give 0 to {self.num_styles}")
        # Most reference networks ignore a psi above 1.
        if number is None or count == 0 or number == 1 or (number > 1 and not self.is_nvidia):
            return None
        vector = np.ones(self.num_styles, np.float32)
        vector[:count] = number
        return jnp.asarray(vector)

    def _resolve_noise(self, noise: Any, num: int) -> Any:
        if noise is None:
            noise = "stored" if self.has_noise else "zeros"
        if isinstance(noise, str):
            if noise == "zeros":
                return None
            if noise == "stored" and self.has_noise:
                return STORED
            problem = "has no noise of its own" if noise == "stored" else "takes no such noise"
            raise UserError(
                f"noise={noise!r}: this {self.family} {problem}; expected "
                f"{'stored, ' if self.has_noise else ''}zeros, a random key or a list of arrays"
            )
        keys = as_keys(noise)
        if keys is not None:
            keys = keys.reshape(-1)
            if keys.shape[0] not in (1, num):
                raise UserError(f"noise has {keys.shape[0]} keys for {num} rows; give 1 or {num}")
            return keys
        return self._check_noise(noise, num)

    def _check_noise(self, noise: Any, num: int) -> tuple[Array, ...]:
        shapes = self.noise_shapes
        if not isinstance(noise, list | tuple) or len(noise) != len(shapes):
            got = f"{len(noise)}" if isinstance(noise, list | tuple) else type(noise).__name__
            raise UserError(
                f"noise: expected {len(shapes)} arrays ({num} or 1, h, w, 1), one for each noise "
                f"in the network's order, got {got}; or give zeros, or jax.random.key(0)"
            )
        arrays = tuple(
            jnp.asarray(as_float32(f"the numbers of noise[{i}]", a)) for i, a in enumerate(noise)
        )
        for i, (array, shape) in enumerate(zip(arrays, shapes, strict=True)):
            if array.ndim != 4 or array.shape[0] not in (1, num) or array.shape[1:] != shape:
                raise UserError(
                    f"noise[{i}] has shape {array.shape}; expected ({num} or 1, "
                    f"{', '.join(map(str, shape))})"
                )
        return arrays

    # Resuming.

    def takes(self, h: Array, index: int) -> bool:
        """Layer "w" can also be resumed from one style per layer: (n, num_styles, style_dim)."""
        return index == 0 and h.shape[1:] == (self.num_styles, self.style_dim)

    def resolve_resume(self, num: int, index: int, latents: Array | None, w: Any) -> Inputs:
        """Return the styles, which later layers read, or the latents to compute them from."""
        if index == 0:
            return {}
        if w is not None:
            w = jnp.asarray(as_float32("the numbers of w", w, "what features(z, 'w') returns"))
            if w.shape[:1] != (num,) or not (
                w.shape[1:] == self.mean_style.shape or self.takes(w, 0)
            ):
                raise UserError(
                    f"w has shape {w.shape}; expected ({num}, {self.mean_style.shape[0]}), as "
                    f"features(z, 'w') returns it, or ({num}, {self.num_styles}, {self.style_dim})"
                )
            return {"w": w}
        if latents is None:
            raise UserError(
                f"resuming {self.family} from {self.layers[index]!r} needs the style: give "
                "latents=z, the latents of the activation, or w=features(z, 'w')"
            )
        return {"latents": latents}

    def enter(self, h: Float[Array, "n ..."], index: int, inputs: Inputs) -> State:
        """Rebuild the state after a layer: the styles, and whatever else earlier layers leave.

        The earlier layers are traced again, but XLA computes only what the state holds besides h:
        nothing in StyleGAN, the running image in StyleGAN2.
        """
        if index == 0:
            return {"h": h, "inputs": inputs}
        w = inputs["w"] if "w" in inputs else self.map_latent(inputs["latents"], inputs)
        state: State = {"h": w, "inputs": inputs}
        for i in range(1, index + 1):
            state = self.stage(i, state)
        return self.replace_activation(state, h, index)

    def replace_activation(self, state: State, h: Float[Array, "n ..."], index: int) -> State:
        """Return the state with its activation replaced by h."""
        return state | {"h": h}
