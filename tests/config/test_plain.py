"""A config's mistakes are all found at once, before any work."""

import importlib

import pytest

from cgjax.config import plain as configuration
from cgjax.errors import UserError


def plain(name="dcgan_pose", arg=""):
    return configuration.to_plain(importlib.import_module(f"configs.{name}").get_config(arg))


@pytest.mark.parametrize("name", ["dcgan_pose", "pgan_gender", "tiny"])
@pytest.mark.parametrize("arg", ["", "quick"])
def test_shipped_configs_are_valid(name, arg):
    configuration.validate(plain(name, arg))


def test_every_problem_is_named_with_the_flag_to_type():
    config = plain()
    config["cluster"]["num_clusters"] = 0
    config["samplers"]["imle"]["batch"] = 1
    config["cluster"]["backend"] = "gpu"
    config["sample"]["sampler"] = "magic"
    config["compare"]["margins"] = [0.0, [0.8, 0.6]]
    with pytest.raises(UserError) as error:
        configuration.validate(config)
    for part in (
        "--config.cluster.num_clusters=0: expected at least 1",
        "--config.samplers.imle.batch=1: expected at least 2",
        "--config.cluster.backend=gpu: expected jax or faiss",
        "--config.sample.sampler=magic",
        "--config.compare.margins=0.8:0.6: expected a quantile",
    ):
        assert part in str(error.value)
    assert "\n" not in str(error.value)


def test_differences_name_the_leaves():
    a, b = plain(), plain()
    b["cluster"]["num_clusters"] = 4
    assert configuration.differences(a, b) == ["cluster.num_clusters: 2 -> 4"]


def test_a_fingerprint_changes_with_its_parts_and_with_nothing_else():
    a, b = plain(), plain()
    b["sample"]["num"] = 5
    assert configuration.fingerprint(a, ("cluster",)) == configuration.fingerprint(b, ("cluster",))
    assert configuration.fingerprint(a, ("sample",)) != configuration.fingerprint(b, ("sample",))


def test_an_unknown_variant_is_refused():
    with pytest.raises(ValueError, match="quick"):
        plain("dcgan_pose", "fast")
