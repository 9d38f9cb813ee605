"""The classes to transfer to are read from the config and checked against the generator."""

from types import SimpleNamespace

import jax.numpy as jnp
import pytest

from cgjax.errors import ForeignError, UserError
from cgjax.generators.base import PretrainedGenerator
from cgjax.generators.conditioned import ConditionedGenerator
from cgjax.generators.families import abstract_network
from cgjax.run.artifacts import target_classes
from cgjax.run.run_checks import check_targets

# The check needs only the config and the generator of a run.
pytestmark = pytest.mark.usefixtures("untyped")


class Plain:
    """A user's generator without classes."""

    layers = ("layer1",)
    latent_dim, image_size = 2, 4

    def sample_latents(self, key, n):
        return jnp.ones((n, 2))

    def features(self, z, layer):
        return z

    def images(self, z):
        return jnp.ones((len(z), 4, 4, 3))


class Conditional(Plain):
    """A user's generator with classes."""

    def features(self, z, layer, condition=None):
        return z + jnp.float32(condition)

    def images(self, z, condition=None):
        return super().images(z)


def _run(gen, *conditions):
    config = {"transfer": {"conditions": conditions}}
    return SimpleNamespace(config=config, generator=ConditionedGenerator(gen, gen.layers[0], {}, 4))


def _biggan():
    architecture = {
        "latent_dim": 4, "num_classes": 1000, "width": 4, "blocks": [[1, 64, 4]], "attention": None,
    }  # fmt: skip
    return PretrainedGenerator(abstract_network("biggan", architecture))


@pytest.mark.parametrize(
    ("given", "names"),
    [
        ((), []),
        (("beagle",), ["beagle"]),
        ((207, 331), ["207", "331"]),
        (("beagle,wood_rabbit", "sea lion"), ["beagle", "wood_rabbit", "sea lion"]),
    ],
)
def test_classes_are_a_tuple_or_separated_by_commas(given, names):
    assert target_classes(_run(Plain(), *given).config) == names


def test_the_classes_of_the_paper_s_config_are_all_known():
    from configs.biggan_dog_pose import get_config

    check_targets(_run(_biggan(), *get_config().transfer.conditions))


def test_an_unknown_class_lists_the_candidates():
    with pytest.raises(UserError, match=r"transfer.conditions=retreiver: .*retriever"):
        check_targets(_run(_biggan(), "beagle", "retreiver"))


def test_a_users_generator_needs_a_condition():
    check_targets(_run(Plain()))
    with pytest.raises(UserError, match="takes no condition"):
        check_targets(_run(Plain(), "1"))
    check_targets(_run(Conditional(), 1))


def test_an_error_inside_a_users_generator_is_not_reported_as_a_user_error():
    class Broken(Conditional):
        def features(self, z, layer, condition=None):
            return z + "x"

    with pytest.raises(ForeignError, match=r"Broken\.features raised TypeError") as caught:
        check_targets(_run(Broken(), "1"))
    assert isinstance(caught.value.__cause__, TypeError)
