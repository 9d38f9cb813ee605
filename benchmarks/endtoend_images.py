"""Seconds an iteration of a Self-Conditioned GAN of images, beside the same loop in PyTorch.

    python benchmarks/endtoend_images.py                      # faces: DCGAN, 64 pixels, width 32
    python benchmarks/endtoend_images.py --networks=dcgan_flat --width=64        # stacked digits
    taskset -c 0 python benchmarks/endtoend_images.py --cpu_time    # one core, on a busy machine

Both sides have the same networks, batch, optimiser and number of threads, and take turns in one
process; the data are random images. PyTorch's loop is written like the published one, see
`endtoend.py`. Before timing, the first iterations from the same weights, images and latents must
give the same losses. The floor is the time of the convolutions' operations at the rate of the best
product of two square matrices in this run.
"""

from __future__ import annotations

import argparse
import itertools
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import timing
import torch
from endtoend import TorchLoop, check, in_torch, ordered, stacked, tensor
from torch.nn.functional import leaky_relu

from cgjax.endtoend.data import Points
from cgjax.endtoend.data.stacked import scaled
from cgjax.endtoend.methods.selfcond import SelfConditioned
from cgjax.endtoend.networks import NETWORKS
from cgjax.endtoend.networks.dcgan import FIRST, Dcgan
from cgjax.endtoend.trainer import Trainer

SIDES = {"dcgan": 64, "dcgan_flat": 32}
ROWS, LABELS = 512, 4


def conv(layer: dict[str, Any], kind: Any, stride: int) -> torch.nn.Module:
    """Return a PyTorch convolution with the given weights, which are (h, w, inputs, outputs)."""
    kernel = np.asarray(layer["kernel"])
    transposed = kind is torch.nn.ConvTranspose2d
    order = (2, 3, 0, 1) if transposed else (3, 2, 0, 1)
    inputs, outputs = kernel.shape[2:]
    bias = layer.get("bias")
    module = kind(inputs, outputs, kernel.shape[0], stride, 1, bias=bias is not None)
    with torch.no_grad():
        module.weight.copy_(tensor(kernel.transpose(order).copy()))
        if bias is not None:
            module.bias.copy_(tensor(bias))
    return module


class TorchGenerator(torch.nn.Module):
    """The generator with the given weights."""

    def __init__(self, params: dict[str, Any], flat: bool):
        super().__init__()
        self.flat, rest = flat, params["rest"]
        self.table = torch.nn.Parameter(tensor(params["embedding"]["table"]))
        kernel = np.asarray(rest["first"]["kernel"])
        self.first = torch.nn.Parameter(tensor(kernel))
        bias = rest["first"].get("bias")
        self.bias = None if bias is None else torch.nn.Parameter(tensor(bias))
        up = torch.nn.ConvTranspose2d
        ups = [conv(layer, up, 2) for layer in ordered(rest["ups"])]
        self.ups = torch.nn.ModuleList(ups)
        widths = [len(norm["scale"]) for norm in ordered(rest["norms"])]
        self.norms = torch.nn.ModuleList(torch.nn.BatchNorm2d(width) for width in widths)
        last = rest["last"]
        self.last = conv(last, torch.nn.Conv2d, 1) if flat else conv(last, up, 2)

    def forward(self, z: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
        """Generate images."""
        rows = self.table[y]
        x = torch.cat([z, rows / rows.norm(dim=1, keepdim=True)], 1) @ self.first
        if self.bias is not None:
            x = x + self.bias
        x = x.view(len(z), 4, 4, -1).permute(0, 3, 1, 2)
        norms = list(self.norms)
        if not self.flat:
            x = torch.relu(norms.pop(0)(x))
        for up, norm in zip(self.ups, norms, strict=True):
            x = torch.relu(norm(up(x)))
        return torch.tanh(self.last(x))


class TorchDiscriminator(torch.nn.Module):
    """The discriminator with the given weights."""

    def __init__(self, params: dict[str, Any]):
        super().__init__()
        downs = [conv(layer, torch.nn.Conv2d, 2) for layer in ordered(params["downs"])]
        self.downs = torch.nn.ModuleList(downs)
        norms = [torch.nn.BatchNorm2d(len(n["scale"])) for n in ordered(params["norms"])]
        self.norms = torch.nn.ModuleList(norms)
        self.head = torch.nn.Parameter(tensor(params["head"]["kernel"]))
        self.bias = torch.nn.Parameter(tensor(params["head"]["bias"]))

    def forward(self, x: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
        """Return each image's logit of its label."""
        norms = [None] * (len(self.downs) - len(self.norms)) + list(self.norms)
        for down, norm in zip(self.downs, norms, strict=True):
            x = down(x)
            x = leaky_relu(x if norm is None else norm(x), 0.2)
        flat = x.permute(0, 2, 3, 1).reshape(len(x), -1)
        return (flat @ self.head + self.bias).gather(1, y[:, None])[:, 0]


def operations(trainer: Trainer, flat: bool) -> float:
    """Return the number of multiplications and additions of an iteration's convolutions."""
    networks = trainer.networks
    assert isinstance(networks, Dcgan)
    (size, _, channels), widths = networks.rows, networks.widths
    down = sum(
        (size >> (i + 1)) ** 2 * 16 * a * b
        for i, (a, b) in enumerate(itertools.pairwise((channels, *widths)))
    )
    # G starts at 4 x 4, however small D's last maps are.
    pairs = itertools.pairwise(widths[::-1])
    up = sum((FIRST << i) ** 2 * 16 * a * b for i, (a, b) in enumerate(pairs))
    up += (size**2 * 9 if flat else (size // 2) ** 2 * 16) * widths[0] * channels
    # G: one forward and two backward passes. D: the same on two batches, then one of each.
    return 2.0 * trainer.batch * (3 * up + 8 * down)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--networks", choices=tuple(SIDES), default="dcgan")
    parser.add_argument("--width", type=int, default=32)
    parser.add_argument("--batch", type=int, default=64)
    parser.add_argument("--steps", type=int, default=5, help="iterations of a call")
    parser.add_argument("--reps", type=int, default=5)
    parser.add_argument(
        "--cpu_time", action="store_true", help="time the process's CPU seconds, on one core"
    )
    args = parser.parse_args()
    torch.set_num_threads(timing.THREADS)
    torch.manual_seed(0)
    shape = (SIDES[args.networks], SIDES[args.networks], 3)
    sizes = {"latent_dim": 128, "embedding_dim": 256, "width": args.width}
    networks = NETWORKS[args.networks](sizes, shape)
    method = SelfConditioned(LABELS, num=ROWS, num_init=1)
    trainer = Trainer(method, networks, args.batch, prepare=lambda rows, key=None: scaled(rows))
    pixels = np.random.default_rng(0).integers(0, 256, (ROWS, *shape), dtype=np.uint8)
    points = Points(jnp.asarray(pixels), jnp.zeros(ROWS, jnp.int32))
    state = trainer.init(jax.random.key(0), points)
    flat = args.networks == "dcgan_flat"

    def loop() -> TorchLoop:
        generator = TorchGenerator(state.generator.arrays.params, flat)
        return TorchLoop(generator, TorchDiscriminator(state.discriminator.arrays.params), trainer)

    keys = jax.random.split(jax.random.key(7), 1)
    check(trainer, state, points, keys[0], 3, loop(), rtol=1e-3)  # Adam's first steps are signs
    theirs, kept = loop(), [stacked([state])]
    rows = np.random.default_rng(0).integers(0, ROWS, (args.steps, args.batch))
    x, labels = in_torch(trainer, points.rows), tensor(state.partition.labels).long()

    def ours() -> None:
        kept[0], losses = trainer.run(kept[0], points, keys, 0, args.steps)
        jax.block_until_ready((kept[0], losses))

    def torch_loop() -> None:
        for chosen in rows:
            theirs.step(x[chosen], labels[chosen], torch.randn(args.batch, networks.latent_dim))

    square = jax.random.normal(jax.random.key(3), (2048, 2048), jnp.float32)
    multiply = jax.jit(lambda a: a @ a)
    calls = {
        "ours": ours,
        "torch": torch_loop,
        "product": lambda: jax.block_until_ready(multiply(square)),
    }
    medians = (timing.cpu_medians if args.cpu_time else timing.medians)(calls, args.reps)
    ours_s, torch_s = (medians[name] / args.steps for name in ("ours", "torch"))
    floor = operations(trainer, flat) * medians["product"] / (2 * 2048**3)
    unit = "CPU-seconds" if args.cpu_time else "seconds"
    print(timing.processor())
    print(
        f"{args.networks}, width {args.width}, batch {args.batch}, {timing.THREADS} threads, "
        f"medians of {args.reps}: {unit} an iteration, ours {ours_s:.3f}, torch {torch_s:.3f}; "
        f"{torch_s / ours_s:.2f}x; floor {floor:.3f}, {floor / ours_s:.0%} of ours"
    )


if __name__ == "__main__":
    main()
