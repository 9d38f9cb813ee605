"""Progressive GAN [Karras et al. 2018], in the three forms in which its weights are published.

The equalised learning-rate factors are folded into the weights when a checkpoint is converted (the
GAN zoo also scales the bias, the others do not), so all three forms are the same arithmetic:

* `zoo` (pytorch_GAN_zoo): every layer ends in its pixel norm; layers `format`, `s0_c0`, `s1_c0`,
  `s1_c1`, ...
* `genforce` (also SeFa's): every layer *starts* with a pixel norm; layers `layer0`, `layer0_pn`,
  `layer1`, ...: the activation before its pixel norm, and (`_pn`) after it, which is what the zoo
  calls the layer.
* `netdissect` (GANDissect): as genforce, counted from `layer1`.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

import jax.numpy as jnp
from flax import nnx
from jaxtyping import Array, Float

from cgjax.errors import UserError
from cgjax.generators.architecture import Count, Doublings, Share, Size, Sizes
from cgjax.generators.conditions import check_categories
from cgjax.generators.layers import convolve, leaky_relu, pixel_norm, upsample_convolve
from cgjax.generators.progressive import ProgressiveNetwork
from cgjax.generators.staged import Inputs, State, parameter

PganForm = Literal["zoo", "genforce", "netdissect"]


class PGAN(ProgressiveNetwork):
    """The generator of the progressive GAN."""

    family = "pgan"
    normalizes_latent = True

    def __init__(
        self,
        form: PganForm,
        latent_dim: Size,
        depths: Sizes,
        image_channels: Size = 3,
        leak: Share = 0.2,
        tanh: bool = False,
        blend: Share = 0.0,
        extra_doublings: Doublings = 0,
        num_classes: Count = 0,
        categories: Sequence[Size] = (),
    ):
        """Build the network.

        Args:
            form: where the pixel norms are and how layers are named (see the module).
            latent_dim: length of a latent.
            depths: channels at 4x4, 8x8, ....
            image_channels: 3, or 1.
            leak: slope of the leaky ReLU.
            tanh: whether the image is passed through a tanh.
            blend: weight of the upsampled image of the second-to-last resolution, in [0, 1];
                nonzero only in checkpoints saved while a resolution was being faded in.
            extra_doublings: number of times that the finished image is doubled by nearest
                upsampling (a whole level of detail of the genforce form).
            num_classes: length of a label that is appended to the normalised latent (genforce).
            categories: sizes of the one-hot vectors at the end of the latent (the zoo's AC-GANs).
        """
        self.latent_dim = latent_dim
        self.image_channels = image_channels
        self.form, self.leak, self.tanh = form, leak, tanh
        self.blend, self.extra_doublings = blend, extra_doublings
        self.num_classes = num_classes
        self.categories = check_categories(categories, latent_dim)
        self.image_size = 4 * 2 ** (len(depths) - 1 + extra_doublings)

        def weight(*shape: int, fan_in: int) -> nnx.Param[Array]:
            return parameter(*shape, std=(2 / fan_in) ** 0.5)

        # (resolution, is its first convolution) for each convolution after the dense layer.
        self.plan = ((0, False), *((r, c == 0) for r in range(1, len(depths)) for c in (0, 1)))
        d0 = depths[0]
        self.dense = weight(latent_dim + num_classes, 4, 4, d0, fan_in=latent_dim)
        self.dense_bias = parameter(4, 4, d0) if form == "zoo" else parameter(d0)
        self.kernels = nnx.List(
            weight(3, 3, depths[r - up], depths[r], fan_in=9 * depths[r - up])
            for r, up in self.plan
        )
        self.biases = nnx.List(parameter(depths[r]) for r, _ in self.plan)
        # GANDissect's files keep only the last image layer.
        rgb = depths[-1:] if form == "netdissect" else depths
        self.to_rgb = nnx.List(weight(d, image_channels, fan_in=d) for d in rgb)
        self.to_rgb_biases = nnx.List(parameter(image_channels) for _ in rgb)
        self.layers, self._steps = self._name_layers()
        self.check_blend()

    def _name_layers(self) -> tuple[tuple[str, ...], tuple[tuple[int, bool], ...]]:
        """Return the layer names and, for each, (convolution, is the layer its pixel norm).

        Convolution 0 is the dense layer; number i + 1 is `plan[i]`.
        """
        count = len(self.plan) + 1
        if self.form == "zoo":
            scales = [f"s{r}_c{0 if up or r == 0 else 1}" for r, up in self.plan]
            return ("format", *scales), tuple((i, False) for i in range(count))
        start = 0 if self.form == "genforce" else 1
        names = [f"layer{i + start}{suffix}" for i in range(count) for suffix in ("", "_pn")]
        return tuple(names), tuple((i, norm) for i in range(count) for norm in (False, True))

    def begin(self, z: Float[Array, "n d"], inputs: Inputs) -> State:
        """Pixel-norm the latent: only its direction matters."""
        x = pixel_norm(z)
        if self.num_classes:
            x = pixel_norm(jnp.concatenate([x, inputs["classes"]], axis=1))
        return {"h": x}

    def stage(self, index: int, state: State) -> State:
        """Apply one convolution with its leaky ReLU, or one pixel norm."""
        step, is_norm = self._steps[index]
        if is_norm:
            return state | {"h": pixel_norm(state["h"])}
        if self.blend and step == self._last_resolution:
            state = self.with_image_before(state)
        if step == 0:
            h = jnp.einsum("nd,dyxc->nyxc", state["h"], self.dense[...])
            bias = self.dense_bias[...]
            h = h + (bias[None] if bias.ndim == 3 else bias[None, None, None])
        else:
            convolution = upsample_convolve if self.plan[step - 1][1] else convolve
            h = convolution(state["h"], self.kernels[step - 1][...])
            h = h + self.biases[step - 1][...][None, None, None]
        h = leaky_relu(h, self.leak)
        return state | {"h": pixel_norm(h) if self.form == "zoo" else h}

    @property
    def _last_resolution(self) -> int:
        """The step with the first convolution of the last resolution."""
        return len(self.plan) - 1

    def enter(self, h: Float[Array, "n ..."], index: int, inputs: Inputs) -> State:
        """Resume from any layer, unless the image blends in features from before it."""
        if not self.blend or self._steps[index][0] < self._last_resolution:
            return {"h": h}
        raise UserError(
            f"cannot resume from {self.layers[index]!r}: this checkpoint blends in the image of "
            f"the previous resolution (blend={self.blend:g}); resume from an earlier layer"
        )

    def latent_weights(self) -> Float[Array, "d m"]:
        """Return the weights that first read the latent, one row per coordinate (SeFa)."""
        return self.dense[...][: self.latent_dim].reshape(self.latent_dim, -1)
