"""Objects used as generators: a valid one, and mistakes that people really make.

Each is loaded as a user's is, by `tests.generators.objects:NAME`.
"""

from __future__ import annotations

import functools
import types

import jax
import ml_dtypes
import numpy as np

WEIGHTS = np.random.default_rng(0).normal(size=(6, 16)).astype(np.float32)
RANDOM = np.random.default_rng(2)
COLOURS = np.random.default_rng(1).normal(size=(4, 3)).astype(np.float32)


class Good:
    """The valid generator, in NumPy."""

    layers = ("early", "late")
    latent_dim, image_size = 6, 8

    def sample_latents(self, key, n):
        return np.asarray(jax.random.normal(key, (n, 6)))

    def features(self, z, layer):
        h = np.tanh(np.asarray(z) @ WEIGHTS).reshape(-1, 2, 2, 4)
        return h if layer == "early" else h.mean(axis=(1, 2))

    def resume(self, h, layer):
        if layer != "early":
            raise NotImplementedError
        return np.tanh(np.repeat(np.repeat(np.asarray(h), 4, 1), 4, 2) @ COLOURS)

    def images(self, z):
        return Good.resume(self, Good.features(self, z, "early"), "early")


def make_good():
    return Good()


GOOD = Good()
NAMESPACE = types.SimpleNamespace(
    layers=["early"],
    latent_dim=6,
    image_size=8,
    sample_latents=GOOD.sample_latents,
    features=GOOD.features,
    images=GOOD.images,
)
NUMBER, TEXT, NOTHING = 3, "Good", None


def returning(change, *methods):
    """Return a class whose methods return the valid generator's results, changed."""

    def changed(method):
        own = getattr(Good, method)
        return lambda self, *args: change(own(self, *args))

    names = methods or ("sample_latents", "features", "images", "resume")
    return type("Changed", (Good,), {name: changed(name) for name in names})


def with_members(**members):
    return type("Changed", (Good,), members)


def torch_tensors(change):
    def change_(x):
        import torch

        return change(torch, torch.tensor(np.asarray(x)))

    return returning(change_)


# Generators that work, with the numbers of the valid one.
Jax = returning(jax.numpy.asarray)
Float64 = returning(lambda x: x.astype(np.float64))
Float16 = returning(lambda x: x.astype(np.float16))
Bfloat16 = returning(lambda x: x.astype(ml_dtypes.bfloat16))
JaxBfloat16 = returning(lambda x: jax.numpy.asarray(x, jax.numpy.bfloat16))
BigEndian = returning(lambda x: x.astype(">f4"))
Strided = returning(np.asfortranarray)
Torch = torch_tensors(lambda torch, x: x)
TorchGradient = torch_tensors(lambda torch, x: x.requires_grad_() * 1)
TorchParameter = torch_tensors(lambda torch, x: torch.nn.Parameter(x))
TorchBfloat16 = torch_tensors(lambda torch, x: x.bfloat16())
TorchFloat64 = torch_tensors(lambda torch, x: x.double())
TorchChannelsLast = torch_tensors(
    lambda torch, x: x.permute(0, 3, 1, 2).contiguous().permute(0, 2, 3, 1) if x.ndim == 4 else x
)
LayersList = with_members(layers=["early", "late"])
NumpySizes = with_members(latent_dim=np.int64(6), image_size=np.int32(8))
NoResume = with_members(resume=None)


class OneBuffer(Good):
    """Writes every batch into the same buffer."""

    def __init__(self):
        self._memory = {}

    def features(self, z, layer):
        h = super().features(z, layer)
        memory = self._memory.setdefault((layer, h.shape), np.empty_like(h))
        memory[:] = h
        return memory


class NoZeros(Good):
    """Divides by the length of a latent, which therefore must not be zero."""

    image_channels = "rgb"  # a name of its own, which says nothing to us

    def _unit(self, z):
        length = np.linalg.norm(np.asarray(z), axis=1, keepdims=True)
        assert length.all()
        return np.asarray(z) / length

    def features(self, z, layer):
        return super().features(self._unit(z), layer)

    def images(self, z):
        return super().images(self._unit(z))


Grey = returning(lambda x: x[..., :1], "images", "resume")


# All pixels are above zero, and the generator declares its range.
Bright = returning(np.abs, "images", "resume")
Bright.image_range = (-1, 1)


# Refused because of what the methods return.
FeaturesList = returning(lambda x: x.tolist(), "features")
FeaturesListOfArrays = returning(list, "features")
FeaturesTuple = returning(lambda x: (x, x), "features")
FeaturesDict = returning(lambda x: {"x": x}, "features")
FeaturesString = returning(lambda x: "h", "features")
FeaturesNone = returning(lambda x: None, "features")
FeaturesNumber = returning(lambda x: 3.0, "features")
FeaturesScalar = returning(lambda x: np.float32(3), "features")
FeaturesOneDimensional = returning(lambda x: x.reshape(len(x), -1)[:, 0], "features")
FeaturesEmpty = returning(lambda x: x[..., :0], "features")
FeaturesHalf = returning(lambda x: x[: len(x) // 2], "features")
FeaturesOneRowOnly = returning(lambda x: x[:1], "features")
FeaturesTwice = returning(lambda x: np.concatenate([x, x]), "features")
FeaturesFlat = returning(lambda x: x.reshape(1, -1), "features")
FeaturesIntegers = returning(lambda x: np.rint(100 * x).astype(np.int32), "features")
FeaturesBooleans = returning(lambda x: x > 0, "features")
FeaturesComplex = returning(lambda x: x.astype(np.complex64), "features")
FeaturesObjects = returning(lambda x: x.astype(object), "features")
FeaturesNan = returning(lambda x: np.where(x > 0, x, np.nan), "features")
FeaturesTooLarge = returning(lambda x: x.astype(np.float64) * 1e300, "features")
FeaturesConstant = returning(np.ones_like, "features")
FeaturesSparse = returning(
    lambda x: __import__("torch").tensor(np.asarray(x)).to_sparse(), "features"
)
LatentsList = returning(lambda x: x.tolist(), "sample_latents")
LatentsNan = returning(lambda x: x * np.nan, "sample_latents")
LatentsConstant = returning(np.zeros_like, "sample_latents")
LatentsOneRow = returning(lambda x: x[0], "sample_latents")
LatentsShort = returning(lambda x: x[:, :5], "sample_latents")
LatentsOneTooMany = returning(lambda x: np.concatenate([x, x[:1]]), "sample_latents")
ImagesNone = returning(lambda x: None, "images")
ImagesHalf = returning(lambda x: x[: len(x) // 2], "images")
ImagesChannelsFirst = returning(lambda x: x.transpose(0, 3, 1, 2), "images")
ImagesWithoutChannels = returning(lambda x: x[..., 0], "images")
ImagesTwoChannels = returning(lambda x: x[..., :2], "images", "resume")
ImagesFourChannels = returning(
    lambda x: np.concatenate([x, x[..., :1]], axis=-1), "images", "resume"
)
ResumeOtherChannels = returning(lambda x: x[..., :2], "resume")
ImagesFiveChannels = returning(lambda x: np.concatenate([x, x[..., :2]], axis=-1), "images")
ImagesFlat = returning(lambda x: x.reshape(len(x), -1), "images")
ImagesOblong = returning(lambda x: x[:, :4], "images")
ImagesOtherSize = with_members(image_size=16)
ImagesUint8 = returning(lambda x: ((x + 1) * 127.5).astype(np.uint8), "images")
Images255 = returning(lambda x: (x + 1) * 127.5, "images")
Images01 = returning(lambda x: (x + 1) / 2, "images")
Images01Beyond = returning(lambda x: (1.1 * x + 1) / 2, "images")
ImagesOddRange = returning(lambda x: (x + 1) / 2, "images")
ImagesOddRange.image_range = ("black", "white")
ImagesGrey = returning(lambda x: 0.08 * x, "images", "resume")
ImagesNan = returning(lambda x: x / 0 * 0, "images")
ImagesInfinite = returning(lambda x: x / np.zeros_like(x), "images")
ImagesConstant = returning(np.zeros_like, "images")
ResumeWrong = returning(lambda x: -x, "resume")
ResumeNan = returning(lambda x: x * np.nan, "resume")
FeaturesNanAlone = returning(lambda x: x / (len(x) > 1), "features")
LatentsNanAlone = returning(lambda x: x / (len(x) > 1), "sample_latents")
ResumeOneRow = returning(lambda x: x[:1], "resume")
ResumeNone = returning(lambda x: None, "resume")


class Random(Good):
    def features(self, z, layer):
        h = super().features(z, layer)
        return h + RANDOM.normal(size=h.shape) * 0.01


class RandomImages(Good):
    def images(self, z):
        x = super().images(z)
        return x + RANDOM.normal(size=x.shape) * 0.01


class Dropout(Good):
    def features(self, z, layer):
        h = super().features(z, layer)
        return h * (RANDOM.uniform(size=h.shape) > 0.5)


class BatchNorm(Good):
    def features(self, z, layer):
        h = super().features(z, layer)
        return (h - h.mean(axis=0)) / (h.std(axis=0) + 1e-3)


class BatchNormImages(Good):
    def images(self, z):
        x = super().images(z)
        return np.tanh((x - x.mean(axis=0)) / (x.std(axis=0) + 1e-3))


class Unkeyed(Good):
    def sample_latents(self, key, n):
        return RANDOM.normal(size=(n, 6))


class OneKey(Good):
    def sample_latents(self, key, n):
        return np.random.default_rng(0).normal(size=(n, 6))


# Refused because of their members.
LayersMissing = with_members(layers=None)
LayersEmpty = with_members(layers=())
LayersString = with_members(layers="early")
LayersNumber = with_members(layers=3)
LayersOfNumbers = with_members(layers=(1, 2))
LayersTwice = with_members(layers=("early", "early"))
LayersDict = with_members(layers={"early": 0})
LatentDimText = with_members(latent_dim="6")
LatentDimFloat = with_members(latent_dim=6.0)
LatentDimZero = with_members(latent_dim=0)
LatentDimTrue = with_members(latent_dim=True)
ImageSizeTuple = with_members(image_size=(8, 8))
FeaturesNoMethod = with_members(features=3)
NoFeatures = with_members(features=None)
FewerArguments = with_members(features=lambda self, z: Good().features(z, "early"))


class NeedsCondition(Good):
    def images(self, z, *, condition):
        return super().images(z) * (1 if condition == "2" else -1)

    def features(self, z, layer, condition):
        return super().features(z, layer)

    def resume(self, h, layer, condition):
        return super().resume(h, layer)


class ManifestRaises(Good):
    @property
    def manifest(self):
        raise OSError("no such file")


class Donates(Good):
    """Its first layer is as large as its latent, whose memory XLA can take."""

    @functools.partial(jax.jit, static_argnums=(0, 2), donate_argnums=1)
    def features(self, z, layer):
        return jax.numpy.tanh(z)


class PropertyRaises(Good):
    @property
    def layers(self):
        return self.network.blocks


# Constructors that fail, and objects that are not generators.
class Raises(Good):
    def __init__(self):
        raise OSError("no weights")


class RaisesAttributeError(Good):
    def __init__(self):
        self.missing.attribute  # noqa: B018


class RaisesImportError(Good):
    def __init__(self):
        import module_that_is_not_there  # type: ignore[import-not-found]  # noqa: F401


class FeaturesRaise(Good):
    def features(self, z, layer):
        return {}[layer]


class ImagesRaise(Good):
    def images(self, z):
        raise ValueError("shapes do not match")


class RaisesAtOneRow(Good):
    def features(self, z, layer):
        if len(z) == 1:
            raise ValueError("expected more than 1 value per channel")
        return super().features(z, layer)


class NeedsArguments(Good):
    def __init__(self, width):
        self.width = width


def make_nothing():
    Good()


def make_number():
    return 3


def make_class():
    return Good


make_partial = functools.partial(Good)
