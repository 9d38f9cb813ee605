"""The fixtures' checkpoints as torch objects, to be changed by the tests."""

import re
import sys
import warnings
from unittest import mock

import torch
from absl.testing import flagsaver

from cgjax.runtime.command import run_command
from converters import safe_pickle
from converters.__main__ import main
from converters.stubs import ZooConfig
from tests.golden_cases import GOLDEN, load_golden

# One fixture for every container that a converter knows: family, --set values.
CASES = {
    "dcgan_examples_a": ("dcgan", {}),
    "dcgan_zoo_a": ("dcgan", {}),
    "pgan_zoo_a": ("pgan", {}),
    "pgan_zoo_b": ("pgan", {}),
    "pggan_genforce_a": ("pgan", {}),
    "pggan_netdissect_a": ("pgan", {}),
    "stylegan_zoo_a": ("stylegan", {}),
    "stylegan_genforce_a": ("stylegan", {}),
    "stylegan2_genforce_a": ("stylegan2", {}),
    "stylegan2_nvidia_a": ("stylegan2", {}),
    "stylegan2_rosinality_a": ("stylegan2", {}),
    "stylegan3_t_a": ("stylegan3", {}),
    "biggan_pytorch_a": ("biggan", {}),
    "biggan_deep_a": ("biggan", {"config": str(GOLDEN / "biggan_deep_a" / "config.json")}),
}


def load(name):
    """Read a fixture's checkpoint as torch objects; the zoo's config becomes a plain dict.

    For a pickle, only the averaged generator's state dict is returned.
    """
    if load_golden(name).checkpoint.suffix == ".pkl":
        with open(load_golden(name).checkpoint, "rb") as file, warnings.catch_warnings():
            warnings.simplefilter("ignore")  # torch says its own storages are deprecated
            return {"G_ema": safe_pickle.load(file)["G_ema"].tensors()}
    with torch.serialization.safe_globals([(ZooConfig, "models.utils.config.BaseConfig")]):
        content = torch.load(load_golden(name).checkpoint, map_location="cpu", weights_only=True)
    if isinstance(content, dict) and isinstance(content.get("config"), ZooConfig):
        # The zoo's own code accepts that too.
        content = {**content, "config": vars(content["config"])}
    return content


def generator(content):
    """Return the state dict that is converted, to be changed in place."""
    for key in ("avgG", "generator_smooth", "g_ema", "G_ema", "state_dict"):
        if key in content:
            return content[key]
    return content


def write(path, content):
    """Write a checkpoint file."""
    torch.save(content, path)
    return path


def changed(state, by=0.25):
    """Return a state dict with other values: raw weights beside averaged ones."""
    constants = re.compile(r"(blur|filter|upsample)\.kernel|(resample|up|down)_filter")
    return {
        n: v + by if v.is_floating_point() and v.ndim and not constants.search(n) else v
        for n, v in state.items()
    }


def command(*arguments):
    """Run `python -m converters ARGUMENTS` in this process; returns its exit code."""
    with mock.patch.object(sys, "argv", ["converters", *arguments]), flagsaver.flagsaver():
        return run_command(main)
