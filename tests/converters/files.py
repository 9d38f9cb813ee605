"""Checkpoint files for the tests: the fixtures' content as torch objects, to be changed."""

import re
import sys
from unittest import mock

import torch
from absl.testing import flagsaver

from cgjax.runtime.command import run_command
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
    "biggan_pytorch_a": ("biggan", {}),
    "biggan_deep_a": ("biggan", {"config": str(GOLDEN / "biggan_deep_a" / "config.json")}),
}


def load(name):
    """Read a fixture's checkpoint as torch objects; the zoo's config becomes a plain dict."""
    with torch.serialization.safe_globals([(ZooConfig, "models.utils.config.BaseConfig")]):
        content = torch.load(load_golden(name).checkpoint, map_location="cpu", weights_only=True)
    if isinstance(content, dict) and isinstance(content.get("config"), ZooConfig):
        # Its own code accepts that too.
        content = {**content, "config": vars(content["config"])}
    return content


def generator(content):
    """Return the state dict that a converter takes, to be changed in place."""
    for key in ("avgG", "generator_smooth", "g_ema", "state_dict"):
        if key in content:
            return content[key]
    return content


def write(path, content):
    """Write a checkpoint file."""
    torch.save(content, path)
    return path


def changed(state, by=0.25):
    """Return a state dict with other values: raw weights beside averaged ones."""
    constants = re.compile(r"(blur|filter|upsample)\.kernel|resample_filter")
    return {
        n: v + by if v.is_floating_point() and v.ndim and not constants.search(n) else v
        for n, v in state.items()
    }


def command(*arguments):
    """Run `python -m converters ARGUMENTS` in this process; returns its exit code."""
    with mock.patch.object(sys, "argv", ["converters", *arguments]), flagsaver.flagsaver():
        return run_command(main)
