"""The configs of the paper's experiments are complete, valid, and name published generators."""

import importlib
import re
from pathlib import Path

import pytest

from cgjax.config.plain import to_plain
from cgjax.config.schema import validate
from cgjax.generators.published import PUBLISHED

CONFIGS = sorted(
    p.stem
    for pattern in ("pgan_*.py", "stylegan_*.py", "biggan_*.py")
    for p in (Path(__file__).parents[2] / "configs").glob(pattern)
)


@pytest.mark.parametrize("name", CONFIGS)
@pytest.mark.parametrize("variant", ["", "quick"])
def test_a_config_is_valid_and_its_generator_published(name, variant):
    module = importlib.import_module(f"configs.{name}")
    config = module.get_config(variant)
    validate(to_plain(config))
    assert config.generator.name in PUBLISHED
    assert config.latents.num == (512 if variant else 10_000)
    assert f"configs/{name}.py" in module.__doc__
    assert re.search(r"the paper's (supplementary )?Figure \d", " ".join(module.__doc__.split()))


@pytest.mark.parametrize("variant", ["", "quick"])
def test_the_eyes_are_tried_on_every_colour_but_their_own(variant):
    config = importlib.import_module("configs.dcgan_eyes").get_config(variant)
    validate(to_plain(config))
    settings = dict(text.split("=") for text in PUBLISHED[config.generator.name].settings)
    colours = settings["class_names"].split(",")
    assert {config.generator.condition, *config.transfer.conditions} == set(colours)
    assert len(config.transfer.conditions) == int(settings["num_classes"]) - 1


def test_the_layers_config_accepts_a_layer_after_the_colon():
    get_config = importlib.import_module("configs.pgan_celebahq_layers").get_config
    assert get_config("s1_c1").layer == "s1_c1"
    assert get_config("quick-s1_c1").layer == "s1_c1"
    assert get_config("quick-s1_c1").latents.num == 512
