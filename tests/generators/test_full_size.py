"""Every published architecture builds at full size with its published number of parameters."""

import math

import pytest
from flax import nnx

from cgjax.generators.families import abstract_network
from cgjax.generators.staged import Buffer
from converters.biggan import PUBLISHED_LAYOUTS

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


def _biggan(layout):
    blocks = [(up, i * 128, o * 128) for up, i, o in layout]
    return "biggan", {
        "latent_dim": 128, "num_classes": 1000, "width": 128, "blocks": blocks, "attention": 8,
    }  # fmt: skip


# What the last convolution of BigGAN makes beyond the image is not kept: 125 of 128 channels. Nor
# are the vectors that spectral norms were computed with.
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
def test_biggan_s_layouts_make_images_of_their_size_with_attention_at_64(layout, size):
    network = abstract_network(*_biggan(layout))
    assert network.image_size == size
    assert network.layers[9] == "layers_08"
    assert 4 * 2 ** sum(up for up, _, _ in layout[:8]) == 64
