"""Every published architecture builds at full size with its published number of parameters."""

import itertools
import math

import jax
import jax.numpy as jnp
import pytest
from flax import nnx

from cgjax.generators.families import abstract_network
from cgjax.generators.staged import Buffer, images_
from cgjax.generators.stylegan3_filters import Schedule, cutoffs
from converters.biggan import PUBLISHED_LAYOUTS

WIDTHS_138K = (1536, 1536, 768, 384, 192, 96)
WIDTHS = (512, 512, 512, 512, 256, 128, 64, 32, 16)


def _pgan(form, size):
    depths = WIDTHS[: int(math.log2(size)) - 1]
    return "pgan", {"form": form, "latent_dim": 512, "depths": depths}


def _stylegan(size):
    depths = WIDTHS[: int(math.log2(size)) - 1]
    return "stylegan", {
        "form": "genforce", "latent_dim": 512, "style_dim": 512, "mapping_widths": [512] * 8,
        "depths": depths,
    }  # fmt: skip


def _stylegan2(form, size):
    depths = (512, 512, 512, 512, 512, 256, 128, 64, 32)[: int(math.log2(size)) - 1]
    return "stylegan2", {
        "form": form, "latent_dim": 512, "style_dim": 512, "mapping_widths": [512] * 8,
        "depths": depths,
    }  # fmt: skip


def _ada(size, base, mappings=8, classes=0):
    """Return a configuration of stylegan2-ada-pytorch: `base` is its fmaps times 32,768."""
    count = int(math.log2(size)) - 1
    depths = [min(base // (4 * 2**r), 512) for r in range(count)]
    architecture = {
        "form": "nvidia", "latent_dim": 512, "style_dim": 512, "mapping_widths": [512] * mappings,
        "depths": depths, "num_classes": classes,
    }  # fmt: skip
    return "stylegan2", architecture


def _ada_parameters(size, base, mappings=8, classes=0):
    """Count by the names in the format's section 6.2."""
    count = int(math.log2(size)) - 1
    depths = [min(base // (4 * 2**r), 512) for r in range(count)]
    total = (classes + 1) * 512 if classes else 0
    total += mappings * (512 * 512 + 512) + (512 * 512 if classes else 0)
    total += depths[0] * 16
    for r, o in enumerate(depths):
        for i in (o,) if r == 0 else (depths[r - 1], o):
            total += 9 * i * o + o + 1 + (512 + 1) * i  # kernel, bias, noise's strength, style
        total += 3 * o + 3 + (512 + 1) * o
    return total


def _stylegan3(config, size, base=32768):
    is_round = config == "r"
    schedule = {"image_size": size, "kernel": 1 if is_round else 3, "radial": is_round}
    base, most = (2 * base, 1024) if is_round else (base, 512)
    widths = [round(min(base / 2 / c, most)) for c in cutoffs(Schedule(**schedule))]
    return "stylegan3", {
        "latent_dim": 512, "style_dim": 512, "mapping_widths": [512] * 2,
        "widths": [widths[0], *widths[:-1]], "schedule": schedule,
    }  # fmt: skip


def _stylegan3_parameters(config, size, base=32768):
    """Count by the names in the format's section 9."""
    base, most, k = (2 * base, 1024, 1) if config == "r" else (base, 512, 3)
    rise = [2 * (size / 4) ** min(i / 12, 1) for i in range(15)]
    widths = [round(min(base / 2 / c, most)) for c in rise]
    total = 2 * (512 * 512 + 512) + widths[0] ** 2 + 4 * (512 + 1)
    for i, width in enumerate(widths):
        before = widths[max(i - 1, 0)]
        o, k = (3, 1) if i == 14 else (width, k)
        total += k * k * before * o + o + (512 + 1) * before
    return total


def _biggan_pytorch(widths, attention):
    return "biggan_pytorch", {
        "latent_dim": 20 * len(widths), "num_classes": 1000, "widths": widths,
        "embedding_dim": 128, "hierarchical": True, "attention": [attention],
    }  # fmt: skip


def _biggan_pytorch_parameters(widths, attention):
    """Count by the names in the format's section 11."""
    total = 1000 * 128 + (20 + 1) * 16 * widths[0]
    for b, (i, o) in enumerate(itertools.pairwise(widths)):
        total += 9 * i * o + o + 9 * o * o + o + i * o + o + 2 * 148 * (i + o)
        total += (2 * (o // 8) * o + o // 2 * o * 2 + 1) if b == attention else 0
    return total + 2 * widths[-1] + 9 * 3 * widths[-1] + 3


def _biggan(layout):
    blocks = [(up, i * 128, o * 128) for up, i, o in layout]
    return "biggan", {
        "latent_dim": 128, "num_classes": 1000, "width": 128, "blocks": blocks, "attention": 8,
    }  # fmt: skip


# The channels of BigGAN's last convolution beyond the image are not kept: 125 of 128. Nor are the
# vectors from which spectral norms were computed.
_RGB = 125 * (9 * 128 + 1)


@pytest.mark.parametrize(
    ("case", "parameters"),
    [
        (_pgan("zoo", 128), 22_941_074),
        (_pgan("zoo", 256), 23_051_989),
        (_pgan("zoo", 512), 23_079_800),
        (_pgan("zoo", 1024), 23_086_795),
        (_pgan("genforce", 256), 23_044_309),
        (_pgan("genforce", 512), 23_072_120),
        (_pgan("genforce", 1024), 23_079_115),
        (_stylegan(256), 26_086_229),
        (_stylegan(512), 26_179_768),
        (_stylegan(1024), 26_219_627),
        (_stylegan2("genforce", 256), 30_034_338),
        (_stylegan2("genforce", 512), 30_276_583),
        (_stylegan2("genforce", 1024), 30_370_060),
        (_stylegan2("nvidia", 1024), 30_370_060),
        # NVIDIA's configurations stylegan2, paper512, paper256, cifar (with classes).
        (_ada(1024, 32768), 30_370_060),
        (_ada(512, 32768), 30_276_583),
        (_ada(256, 16384), _ada_parameters(256, 16384)),
        (_ada(32, 32768, 2), _ada_parameters(32, 32768, 2)),
        (_ada(32, 32768, 2, 10), _ada_parameters(32, 32768, 2, 10)),
        *((_stylegan3(c, s), _stylegan3_parameters(c, s)) for c in "tr" for s in (1024, 512)),
        *((_stylegan3(c, 256, 16384), _stylegan3_parameters(c, 256, 16384)) for c in "tr"),
        (_biggan_pytorch(WIDTHS_138K, 3), _biggan_pytorch_parameters(WIDTHS_138K, 3)),
        (_biggan(PUBLISHED_LAYOUTS[0]), 50_388_609 - _RGB),
        (_biggan(PUBLISHED_LAYOUTS[1]), 55_880_833 - _RGB),
        (_biggan(PUBLISHED_LAYOUTS[2]), 56_163_905 - _RGB),
    ],
    ids=lambda value: "" if isinstance(value, int) else "-".join(map(str, value[:1])),
)
def test_the_number_of_parameters_is_the_published_one(case, parameters):
    network = abstract_network(*case)
    counted = [
        math.prod(variable.shape)
        for _, variable in nnx.to_flat_state(nnx.state(network))
        if not isinstance(variable, Buffer)
    ]
    assert sum(counted) == parameters


@pytest.mark.parametrize(
    ("layout", "size"), list(zip(PUBLISHED_LAYOUTS, (128, 256, 512), strict=True))
)
def test_biggan_layouts_give_images_of_their_size_with_attention_at_64(layout, size):
    network = abstract_network(*_biggan(layout))
    assert network.image_size == size
    assert network.layers[9] == "layers_08"
    assert 4 * 2 ** sum(up for up, _, _ in layout[:8]) == 64


@pytest.mark.parametrize(
    ("config", "size", "first", "last"),
    [
        ("t", 1024, "L0_36_512", "L13_1024_32"),
        ("r", 256, "L0_36_1024", "L13_256_256"),
    ],
)
def test_stylegan3_layers_and_images_have_their_published_shapes(config, size, first, last):
    network = abstract_network(*_stylegan3(config, size))
    assert network.layers[:3] == ("w", "input", first)
    assert network.layers[-2] == last
    graph, state = nnx.split(network)
    z = jax.ShapeDtypeStruct((2, 512), jnp.float32)
    inputs = network.resolve(2)
    image = jax.eval_shape(lambda s, z: images_(nnx.merge(graph, s), z, inputs), state, z)
    assert image.shape == (2, size, size, 3)
