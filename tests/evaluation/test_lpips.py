"""LPIPS equals PyTorch's arithmetic on the same weights, and is a distance of images."""

import itertools

import jax.numpy as jnp
import numpy as np
import pytest
from safetensors.numpy import save_file

from cgjax.errors import UserError
from cgjax.evaluation.lpips import TRUNKS, Lpips, check_file, load_params, lpips, params_of

# Indices of the convolutions among torchvision's `features`, and of the ReLUs that are compared.
ALEX = ((0, 3, 6, 8, 10), (1, 4, 7, 9, 11))
VGG = ((0, 2, 5, 7, 10, 12, 14, 17, 19, 21, 24, 26, 28), (3, 8, 15, 22, 29))

SHAPE = (35, 46)  # unequal, and not what poolings divide; most tests share its programs


def random_tensors(name, seed=0):
    rng = np.random.default_rng(seed)
    tensors = {}
    for tensor, shape in TRUNKS[name].expected_shapes().items():
        spread = 0.1 if tensor.endswith("bias") else np.sqrt(2 / np.prod(shape[1:]))
        tensors[tensor] = (spread * rng.standard_normal(shape, np.float32)).astype(np.float32)
    for tensor, shape in TRUNKS[name].expected_head_shapes().items():
        tensors[tensor] = rng.uniform(0, 0.1, shape).astype(np.float32)
    return tensors


@pytest.fixture(scope="module", params=TRUNKS)
def name(request):
    return request.param


@pytest.fixture(scope="module")
def tensors(name):
    return random_tensors(name)


@pytest.fixture(scope="module")
def weights_file(name, tensors, tmp_path_factory):
    path = tmp_path_factory.mktemp("lpips") / f"{name}.safetensors"
    save_file(tensors, path)
    return path


def images(seed, num, height, width):
    return np.random.default_rng(seed).uniform(-1, 1, (num, height, width, 3)).astype(np.float32)


def distances(tensors, a, b):
    return np.asarray(lpips(params_of(tensors), jnp.asarray(a), jnp.asarray(b)))


def features_in_torch(name):
    """The layers of torchvision's AlexNet or VGG-16, as its documentation lists them."""
    from torch import nn

    if name == "alex":
        return nn.Sequential(
            *(nn.Conv2d(3, 64, 11, stride=4, padding=2), nn.ReLU(), nn.MaxPool2d(3, 2)),
            *(nn.Conv2d(64, 192, 5, padding=2), nn.ReLU(), nn.MaxPool2d(3, 2)),
            *(nn.Conv2d(192, 384, 3, padding=1), nn.ReLU()),
            *(nn.Conv2d(384, 256, 3, padding=1), nn.ReLU()),
            *(nn.Conv2d(256, 256, 3, padding=1), nn.ReLU(), nn.MaxPool2d(3, 2)),
        )
    layers, inputs = [], 3
    for width in (64, 64, 0, 128, 128, 0, 256, 256, 256, 0, 512, 512, 512, 0, 512, 512, 512, 0):
        if width:
            layers += [nn.Conv2d(inputs, width, 3, padding=1), nn.ReLU()]
            inputs = width
        else:
            layers.append(nn.MaxPool2d(2, 2))
    return nn.Sequential(*layers)


def in_torch(name, tensors, a, b):
    """LPIPS as its authors' code computes it, in double precision."""
    import torch

    network = features_in_torch(name).double()
    state = {k: torch.tensor(v).double() for k, v in tensors.items()}
    heads = [state.pop(f"lin{i}.model.1.weight") for i in range(5)]
    network.load_state_dict({k.removeprefix("features."): v for k, v in state.items()})
    shift, scale = (
        torch.tensor(values, dtype=torch.float64)[None, :, None, None]
        for values in ((-0.030, -0.088, -0.188), (0.458, 0.448, 0.450))
    )
    compared = (ALEX if name == "alex" else VGG)[1]

    def activations(x):
        x = (torch.tensor(x).double().permute(0, 3, 1, 2) - shift) / scale
        found = []
        for i, layer in enumerate(network):
            x = layer(x)
            if i in compared:
                found.append(x / (x.square().sum(1, keepdim=True).sqrt() + 1e-10))
            if len(found) == 5:
                return found
        raise AssertionError

    with torch.no_grad():
        total = 0
        for head, x, y in zip(heads, activations(a), activations(b), strict=True):
            weighted = torch.nn.functional.conv2d((x - y).square(), head)
            total = total + weighted.mean((1, 2, 3))
    return total.numpy()


def test_the_tensors_are_those_of_the_published_files(name, tensors):
    convolutions = {int(n.split(".")[1]) for n in tensors if n.startswith("features.")}
    assert convolutions == set((ALEX if name == "alex" else VGG)[0])
    assert len(tensors) == 2 * len(convolutions) + 5


@pytest.mark.torch
@pytest.mark.parametrize(("height", "width"), [(31, 31), (64, 64), SHAPE])
def test_it_equals_the_arithmetic_of_its_authors(name, tensors, height, width):
    a, b = images(1, 3, height, width), images(2, 3, height, width)
    b[2] = a[2] + 0.1 * b[2]  # a pair that differs little
    got = distances(tensors, a, b)
    np.testing.assert_allclose(got, in_torch(name, tensors, a, b), rtol=1e-5)


@pytest.mark.torch
def test_it_equals_it_at_the_smallest_size_and_one_pixel_less_is_refused(
    name, tensors, weights_file
):
    size = TRUNKS[name].smallest
    a, b = images(1, 2, size, size), images(2, 2, size, size)
    got = distances(tensors, a, b)
    np.testing.assert_allclose(got, in_torch(name, tensors, a, b), rtol=1e-5)
    with pytest.raises(
        UserError, match=f"at least {size}x{size} pixels, and these have {size - 1}x"
    ):
        check_file(str(weights_file), size - 1)
    with pytest.raises(UserError, match=f"LPIPS with {name} needs images of at least"):
        Lpips(weights_file)(a[:, 1:], b[:, 1:])
    check_file(str(weights_file), size)


def test_equal_images_have_distance_zero_and_it_is_symmetric(name, tensors):
    a, b = images(1, 3, *SHAPE), images(2, 3, *SHAPE)
    assert (distances(tensors, a, a) == 0).all()
    np.testing.assert_array_equal(distances(tensors, a, b), distances(tensors, b, a))


def test_positions_without_any_activation_are_finite(name, tensors):
    silent = {k: np.full_like(v, -9) if k.endswith("bias") else v for k, v in tensors.items()}
    assert (distances(silent, images(1, 3, *SHAPE), images(2, 3, *SHAPE)) == 0).all()


def test_more_noise_is_farther(name, tensors):
    smooth = np.sin(np.linspace(0, 6, SHAPE[0]))[None, :, None, None] * np.ones((3, *SHAPE, 3))
    noise = np.random.default_rng(0).standard_normal((1, *SHAPE, 3))
    noisy = smooth + np.array([0, 0.02, 0.3])[:, None, None, None] * noise
    found = distances(tensors, smooth.astype(np.float32), noisy.astype(np.float32))
    assert found[0] == 0
    assert all(low < high for low, high in itertools.pairwise(found))


def test_batches_of_any_number_and_grey_images_give_the_same(name, tensors, weights_file):
    a, b = images(1, 3, *SHAPE), images(2, 3, *SHAPE)
    measure = Lpips(weights_file, batch=2)
    assert measure.trunk == name
    want = distances(tensors, a, b)
    np.testing.assert_allclose(measure(a, b), want, rtol=1e-5)
    assert measure(a[:0], b[:0]).shape == (0,)
    grey = [np.repeat(x[..., :1], 3, axis=3) for x in (a, b)]
    np.testing.assert_array_equal(measure(a[..., :1], b[..., :1]), measure(*grey))


@pytest.mark.parametrize(
    ("tensor", "change", "words"),
    [
        ("features.0.weight", lambda x: x[:, :, 1:], r"has shape \(64, 3, "),
        ("features.3.bias", lambda x: np.full_like(x, np.nan), "holds NaN or an infinity"),
        ("features.8.weight", lambda x: np.full_like(x, np.inf), "holds NaN or an infinity"),
        ("features.6.bias", lambda x: x.astype(np.int32), "holds int32, not floats"),
        ("lin2.model.1.weight", lambda x: -x, "holds a weight below 0"),
        ("lin4.model.1.weight", lambda x: x[..., 0], r"has shape \(1, 256, 1\), not"),
    ],
)
def test_wrong_tensors_are_named(tensor, change, words):
    tensors = random_tensors("alex")
    tensors[tensor] = change(tensors[tensor])
    with pytest.raises(UserError, match=rf"alex \(1 wrong: {tensor} {words}"):
        params_of(tensors)
    del tensors[tensor]
    with pytest.raises(UserError, match=f"1 wrong: {tensor} is missing"):
        params_of(tensors)


def test_a_file_that_is_missing_or_something_else_is_one_line_with_the_flag(tmp_path):
    def problem():
        with pytest.raises(UserError) as raised:
            check_file(str(tmp_path / "x"), 64)
        assert "\n" not in str(raised.value)
        assert str(raised.value).startswith(f"--config.assign.lpips={tmp_path}/x: ")
        return str(raised.value)

    assert f"no file {tmp_path}/x; python -m converters lpips" in problem()
    (tmp_path / "x").write_bytes(b"PK\x03\x04 a torch file")
    assert "not a safetensors file" in problem()
    save_file({"layer.weight": np.zeros(3, np.float32)}, tmp_path / "x")
    assert "the tensors of neither AlexNet nor VGG-16" in problem()
    save_file(random_tensors("vgg") | random_tensors("alex"), tmp_path / "x")
    assert "not the tensors of LPIPS, vgg" in problem()
    with pytest.raises(UserError, match="no file"):
        load_params(tmp_path)
