"""Milliseconds of a PyTorch module behind `from_torch`, beside the module's own pass.

    python benchmarks/torch_module.py [--reps=7] [--batch=64] [--device=cuda]

The module is a StyleGAN2 of four resolutions (that of the tests, wider). Its own pass is a call
under no_grad on latents on the device, with the result turned to channels last and copied to the
host; for features, the submodules up to the layer are called by hand. `conditioned` is what a run
calls: the same behind the checks of a generator's results. Medians, in turns.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

import timing  # before any library that computes

sys.path.append(str(Path(__file__).resolve().parents[1]))

import jax
import numpy as np
import torch

from cgjax.generators.conditioned import ConditionedGenerator
from cgjax.generators.torch_module import from_torch
from tests.generators.torch_models import StyleGAN2

LATENT, WIDTHS, LAYER = 64, (128, 128, 64, 64), "b16"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--reps", type=int, default=7)
    parser.add_argument("--batch", type=int, default=64)
    parser.add_argument("--device", default="cpu")
    options = parser.parse_args()
    module = StyleGAN2(LATENT, LATENT, WIDTHS).eval().to(options.device)
    gen = from_torch(
        module,
        latent_dim=LATENT,
        layers={LAYER: f"synthesis.{LAYER}"},
        call=lambda m, z: m(z, None),
    )
    conditioned = ConditionedGenerator(gen, LAYER, {}, options.batch)
    z = np.random.default_rng(0).normal(size=(options.batch, LATENT)).astype(np.float32)
    on_device, on_jax = torch.tensor(z, device=options.device), jax.numpy.asarray(z)

    def to_host(x: torch.Tensor) -> np.ndarray:
        return x.permute(0, 2, 3, 1).contiguous().cpu().numpy()

    def own_images() -> np.ndarray:
        with torch.no_grad():
            return to_host(module(on_device, None))

    def own_features() -> np.ndarray:
        with torch.no_grad():
            w = on_device * (on_device.square().mean(1, keepdim=True) + 1e-8).rsqrt()
            w, x, image = module.mapping(w), None, None
            for block in (module.synthesis.b4, module.synthesis.b8, module.synthesis.b16):
                x, image = block(x, image, w)
            return to_host(x)

    passes = {
        "features": (
            own_features,
            lambda: gen.features(z, LAYER),
            lambda: jax.block_until_ready(conditioned.features(on_jax)),
        ),
        "images": (own_images, lambda: gen.images(z), lambda: conditioned.images(z)),
    }
    print(
        f"torch {torch.__version__}, {options.device}, batch {options.batch}, {timing.THREADS} CPUs"
    )
    for name, (own, ours, checked) in passes.items():
        np.testing.assert_allclose(own(), ours(), atol=1e-5)
        calls = {"own": own, "from_torch": ours, "conditioned": checked}
        seconds = timing.medians(calls, options.reps)
        line = "  ".join(
            f"{key} {1e3 * s:8.1f} ms ({s / seconds['own']:.2f})" for key, s in seconds.items()
        )
        print(f"{name:<9}{line}")


if __name__ == "__main__":
    main()
