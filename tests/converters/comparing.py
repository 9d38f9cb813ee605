"""Compares a converted state dict with the torch forward pass, layer by layer."""

import numpy as np
import torch

from converters.__main__ import convert
from tests.golden_cases import TOLERANCE, error, run_everything


def check(family, content, expected, z, tmp_path, settings=None, name="f.pth", **keywords):
    path = tmp_path / name
    torch.save(content, path)
    gen = convert(family, path, tmp_path / "out", settings or {})
    if (noise := keywords.get("noise")) is not None and not isinstance(noise, str):
        keywords["noise"] = [np.asarray(x).transpose(0, 2, 3, 1) for x in noise]
    found, _ = run_everything(gen, z.numpy(), resume=False, **keywords)
    assert set(found) == set(expected)
    errors = {name: error(found[name], expected[name].numpy()) for name in expected}
    worst = max(errors, key=errors.get)
    assert errors[worst] < TOLERANCE, (worst, errors[worst])
    return gen


def latents(n, d, seed=7):
    return torch.randn(n, d, generator=torch.Generator().manual_seed(seed))


def one_hot(n, classes):
    return torch.eye(classes)[torch.arange(n) % classes]
