"""Inception's features equal the reference network's on the same random weights."""

from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import save_file

from cgjax.errors import UserError
from cgjax.evaluation import inception
from cgjax.evaluation.extractors import FeatureExtractor, InceptionPool3

# Pooled features of pytorch-fid 0.3.0's network (its blocks on torchvision 0.28's inception_v3,
# torch 2.13, CPU) with the weights and images below. (2, 2048) float32.
REFERENCE = Path(__file__).parent / "inception_reference.npy"


def random_tensors() -> dict[str, np.ndarray]:
    tensors = {}
    for name, shape in inception.expected_shapes().items():
        stream = np.random.RandomState(sum(map(ord, name)))
        if name.endswith("conv.weight"):
            value = stream.standard_normal(shape) * np.sqrt(2 / np.prod(shape[1:]))
        elif name.endswith("running_var"):
            value = 0.5 + stream.uniform(size=shape)
        elif name.endswith("bn.weight"):
            value = 1 + 0.2 * stream.standard_normal(shape)
        else:
            value = 0.2 * stream.standard_normal(shape)
        tensors[name] = value.astype(np.float32)
    return tensors


@pytest.fixture(scope="module")
def weights_file(tmp_path_factory) -> Path:
    path = tmp_path_factory.mktemp("inception") / "inception.safetensors"
    # The published file also holds the classifier and counters.
    extra = {"fc.weight": np.zeros((1008, 2048), np.float32), "fc.bias": np.zeros(1008, np.float32)}
    save_file(random_tensors() | extra, path)
    return path


@pytest.mark.slow
def test_features_equal_the_reference_networks(weights_file):
    images = np.random.RandomState(0).uniform(-1, 1, size=(2, 40, 40, 3))
    extractor = InceptionPool3(weights_file, batch_size=2)
    assert isinstance(extractor, FeatureExtractor)
    assert extractor.name == "inception_pool3"
    want = np.load(REFERENCE)
    got = extractor(images.astype(np.float32))
    # 48 layers of float32 sums in another order, batch norm folded: 1e-4 of the features' spread.
    np.testing.assert_allclose(got, want, atol=1e-4 * want.std())


def test_the_classifier_is_read_if_there_is_one(tmp_path):
    weights = np.random.default_rng(0).standard_normal((1008, 2048)).astype(np.float32)
    path = tmp_path / "inception.safetensors"
    save_file(random_tensors() | {"fc.weight": weights, "fc.bias": np.ones(1008, np.float32)}, path)
    features = np.random.default_rng(1).uniform(size=(3, 2048)).astype(np.float32)
    # Without biases, as in published scores; 2,048 float32 terms are summed in another order.
    np.testing.assert_allclose(
        InceptionPool3(path).logits(features), features @ weights.T, rtol=1e-4
    )
    save_file(random_tensors(), path)
    assert InceptionPool3(path).logits(features) is None
    save_file(random_tensors() | {"fc.weight": weights[:, :9].copy()}, path)
    with pytest.raises(UserError, match=r"fc.weight has shape \(1008, 9\), not \(1008, 2048\)"):
        InceptionPool3(path)
    weights[7, 3] = np.nan
    save_file(random_tensors() | {"fc.weight": weights}, path)
    with pytest.raises(UserError, match=r"fc.weight holds NaN or an infinity\); FID needs"):
        InceptionPool3(path)


@pytest.mark.parametrize(
    ("name", "value", "words"),
    [
        ("Mixed_5b.branch1x1.bn.running_var", -1e-3, "holds a variance below 0"),
        ("Mixed_5b.branch1x1.bn.running_mean", np.nan, "holds NaN or an infinity"),
        ("Conv2d_1a_3x3.conv.weight", np.inf, "holds NaN or an infinity"),
    ],
)
def test_impossible_weights_are_refused(name, value, words):
    shapes = inception.expected_shapes()
    tensors = {each: np.zeros(shape, np.float32) for each, shape in shapes.items()}
    tensors[name].flat[5] = value
    with pytest.raises(UserError, match=rf"1 wrong: {name} {words}\); FID needs"):
        inception.fold(tensors)


def test_a_missing_file_says_which_file_is_needed_and_how_to_make_it(tmp_path):
    with pytest.raises(UserError, match=r"no file .*pt_inception-2015-12-05-6726825d\.pth"):
        InceptionPool3(tmp_path / "none.safetensors")


EIGHT_BIT = b'{"x": {"dtype": "F8_E4M3", "shape": [1], "data_offsets": [0, 1]}}'


@pytest.mark.parametrize(
    "content",
    [b"PK\x03\x04 a torch file", len(EIGHT_BIT).to_bytes(8, "little") + EIGHT_BIT + b"8"],
    ids=["not safetensors", "a type that NumPy lacks"],
)
def test_a_file_that_cannot_be_read_is_refused(content, tmp_path):
    (tmp_path / "odd").write_bytes(content)
    with pytest.raises(UserError, match="not a safetensors file"):
        InceptionPool3(tmp_path / "odd")


def test_missing_and_misshapen_tensors_are_named():
    shapes = inception.expected_shapes()
    tensors = {name: np.zeros(shape, np.float32) for name, shape in shapes.items()}
    del tensors["Mixed_7c.branch_pool.bn.bias"]
    tensors["Conv2d_1a_3x3.conv.weight"] = np.zeros((32, 3, 5, 5), np.float32)
    with pytest.raises(
        UserError, match=r"2 wrong: Mixed_7c\.branch_pool\.bn\.bias is missing; Conv2d_1a.*5, 5"
    ):
        inception.fold(tensors)
