"""A PyTorch module works as a generator without porting: same numbers, and no extra layers run."""

import json
import logging
import subprocess
import sys

import jax
import numpy as np
import pytest
import torch

from cgjax.config import plain as configuration
from cgjax.errors import ForeignError, UserError
from cgjax.generators.base import Generator
from cgjax.generators.conditioned import ConditionedGenerator
from cgjax.generators.contract import check_generator
from cgjax.generators.torch_module import from_torch
from cgjax.run.opening import open_run
from cgjax.runtime.signals import Interrupts
from cgjax.stages.pipeline import Pipeline
from configs import tiny
from tests.generators.torch_models import (
    STYLEGAN_LAYERS,
    Decoder,
    StyleGAN2,
    from_decoder,
    from_stylegan,
)

pytestmark = pytest.mark.torch

# The same float32 program runs on both sides, so only rounding may differ.
TOLERANCE = 1e-6


def latents(dim: int, n: int = 5) -> np.ndarray:
    return np.random.default_rng(5).normal(size=(n, dim)).astype(np.float32)


def own_pass(module, call, z):
    """Run a module in evaluation mode; return its image and the outputs of all submodules."""
    outputs = {}
    handles = [
        child.register_forward_hook(lambda _m, _i, out, path=path: outputs.setdefault(path, out))
        for path, child in module.named_modules()
    ]
    with torch.no_grad():
        image = call(module.eval(), torch.tensor(z))
    for handle in handles:
        handle.remove()
    return image, outputs


def channels_last(x):
    return x.numpy() if x.ndim < 4 else x.numpy().transpose(0, 2, 3, 1)


def test_stylegan_features_and_images_equal_the_module_s_own():
    module = StyleGAN2()
    gen, z = from_stylegan(module), latents(16)
    image, outputs = own_pass(module, lambda m, z: m(z, None), z)
    assert isinstance(gen, Generator)
    assert (gen.latent_dim, gen.image_size) == (16, 16)
    assert gen.layers == ("w", "b4", "b8", "conv")
    np.testing.assert_allclose(gen.images(z), channels_last(image), atol=TOLERANCE)
    for layer, path in STYLEGAN_LAYERS.items():
        own = outputs[path]
        own = own[0] if isinstance(own, tuple) else own  # a block gives (x, image)
        h = gen.features(z, layer)
        assert h.dtype == np.float32
        np.testing.assert_allclose(h, channels_last(own), atol=TOLERANCE)


def test_a_decoder_is_run_in_evaluation_mode_and_its_images_are_rescaled():
    module = Decoder()
    assert module.training
    gen, z = from_decoder(module), latents(8)
    (image, _), outputs = own_pass(module, lambda m, z: m.decode(z), z)
    np.testing.assert_allclose(gen.images(z), 2 * channels_last(image) - 1, atol=TOLERANCE)
    np.testing.assert_allclose(gen.features(z, "hidden"), outputs["fc"].numpy(), atol=TOLERANCE)
    module.train()  # as if training went on in between
    np.testing.assert_array_equal(gen.images(z), gen.images(z))
    np.testing.assert_allclose(gen.images(z[:1]), gen.images(z)[:1], atol=TOLERANCE)
    assert not module.training


def test_later_submodules_do_not_run():
    module, ran = StyleGAN2(), []
    gen = from_stylegan(module)
    for path, child in module.named_modules():
        child.register_forward_hook(lambda _m, _i, _o, path=path: ran.append(path))
    gen.features(latents(16), "w")
    assert [path for path in ran if path.startswith("synthesis")] == []
    ran.clear()
    gen.features(latents(16), "b8")
    assert "synthesis.b8" in ran
    assert not {"synthesis.b16.conv0", "synthesis", ""} & set(ran)
    gen.images(latents(16))
    assert "" in ran
    assert all(not m._forward_hooks or len(m._forward_hooks) == 1 for m in module.modules())


def test_resume_exists_where_the_rest_of_the_network_needs_only_the_activation():
    gen, z = from_decoder(Decoder()), latents(8)
    assert gen.resumable == gen.layers
    for layer in gen.layers:
        resumed = gen.resume(gen.features(z, layer), layer)
        np.testing.assert_allclose(resumed, gen.images(z), atol=1e-5)
    style = from_stylegan(StyleGAN2())
    assert style.resumable == ("w",)  # later blocks read w, and the image so far
    resumed = style.resume(style.features(latents(16), "w"), "w")
    np.testing.assert_allclose(resumed, style.images(latents(16)), atol=1e-5)
    with pytest.raises(NotImplementedError, match="reads the latent"):
        style.resume(style.features(latents(16), "b8"), "b8")
    assert not hasattr(from_stylegan(StyleGAN2(), layers=["synthesis.b4"]), "resume")


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float64])
def test_resume_exists_for_the_same_layers_in_every_precision(dtype):
    gen = from_decoder(Decoder().to(dtype))
    assert gen.resumable == gen.layers
    assert from_stylegan(StyleGAN2().to(dtype)).resumable == ("w",)


@pytest.mark.parametrize(
    ("gen", "at"), [(from_stylegan, StyleGAN2), (from_decoder, Decoder)], ids=["style", "vae"]
)
def test_a_torch_generator_keeps_the_contract_and_takes_jax_and_torch_arrays(gen, at):
    gen = gen(at())
    findings = check_generator(ConditionedGenerator(gen, gen.layers[0], {}, 4))
    assert [layer.can_resume for layer in findings.layers[:-1]] == [
        layer in gen.resumable for layer in gen.layers
    ]
    z = gen.sample_latents(jax.random.key(0), 3)
    expected = gen.images(np.asarray(z))
    np.testing.assert_array_equal(gen.images(z), expected)
    np.testing.assert_array_equal(gen.images(torch.tensor(np.asarray(z))), expected)


def test_a_tuple_element_can_be_chosen():
    gen = from_stylegan(StyleGAN2(), layers={"rgb": ("synthesis.b8", 1), "x": "synthesis.b8"})
    assert gen.features(latents(16), "x").shape == (5, 8, 8, 12)
    assert gen.features(latents(16), "rgb").shape == (5, 8, 8, 3)
    with pytest.raises(UserError, match=r"synthesis\.b8' returned a tuple without a tensor at 2"):
        from_stylegan(StyleGAN2(), layers={"rgb": ("synthesis.b8", 2)})


def test_a_module_of_another_dtype_gets_it_as_input_and_returns_float32():
    gen = from_stylegan(StyleGAN2().double())
    assert gen.features(latents(16), "b4").dtype == np.float32
    half = from_stylegan(StyleGAN2().bfloat16())
    assert half.images(latents(16)).dtype == np.float32


def test_latents_are_drawn_with_the_users_function():
    gen = from_stylegan(StyleGAN2(), sample_latents=lambda key, n: jax.random.uniform(key, (n, 16)))
    assert gen.sample_latents(jax.random.key(0), 50).min() >= 0


def test_the_hash_depends_on_weights_and_layers():
    def digest(**options):
        return from_stylegan(module, **options).manifest["weights_sha256"]

    module = StyleGAN2()
    first = digest()
    assert digest() == first
    assert digest(layers={"w": "synthesis.b4"}) != first
    with torch.no_grad():
        module.synthesis.b16.bias[0] += 1
    assert digest() != first


class Twice(torch.nn.Module):
    """Runs one submodule twice and another never."""

    def __init__(self):
        super().__init__()
        torch.manual_seed(0)
        self.fc = torch.nn.Linear(48, 48)
        self.unused = torch.nn.Linear(2, 2)

    def forward(self, z):
        x = torch.tanh(self.fc(torch.tanh(self.fc(z))))
        return {"image": x.reshape(-1, 3, 4, 4)}


def test_the_first_output_of_a_submodule_that_runs_twice_is_used():
    gen = from_torch(Twice(), latent_dim=48, layers=["fc"], call=lambda m, z: m(z)["image"])
    z = latents(48)
    with torch.no_grad():
        own = Twice().fc(torch.tensor(z))
    np.testing.assert_allclose(gen.features(z, "fc"), own, atol=TOLERANCE)
    np.testing.assert_allclose(gen.resume(own, "fc"), gen.images(z), atol=1e-5)


@pytest.mark.usefixtures("untyped")
@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"layers": {"x": "fd"}}, "no submodule 'fd'; the nearest: fc"),
        ({"layers": {}}, "layers is empty"),
        ({"layers": {"x": "unused"}}, "never runs the submodule 'unused'"),
        ({"call": lambda m, z: m(z)}, "returned a dict without a tensor"),
        ({"call": lambda m, z: m(z)["image"].flatten(1)}, r"images of shape \(2, 48\)"),
        ({"call": lambda m, z: m(z)["image"][:, :, :2]}, r"images of shape \(2, 2, 4, 3\)"),
        ({"image_size": 8}, "image_size=8, but .* returned images of 4 pixels"),
        ({"image_range": (1, 1)}, r"image_range=\(1, 1\); expected \(black, white\)"),
        ({"image_range": 5}, r"image_range=5; expected \(black, white\)"),
        ({"image_range": ()}, r"image_range=\(\); expected \(black, white\)"),
        ({"image_range": (0, 1, 2)}, r"image_range=\(0, 1, 2\); expected"),
        ({"image_range": (0, np.inf)}, r"image_range=\(0, inf\); expected"),
        ({"image_range": "01"}, r"image_range are '01': expected \(black, white\)"),
        ({"latent_dim": "48"}, "latent_dim='48': expected a whole number of at least 1"),
        ({"latent_dim": True}, "latent_dim=True: expected a whole number"),
        ({"call": 3}, "call=3; expected a function"),
        ({"sample_latents": 3}, "sample_latents=3; expected a function"),
        ({"layers": {"a": 1}}, r"layers holds 'a': 1; expected paths .*\{'early': 'fc'\}"),
        ({"layers": {"a": ("fc",)}}, r"layers holds 'a': \('fc',\); expected paths"),
        ({"layers": {"a": ("fc", "0")}}, "layers holds .*; expected paths"),
        ({"layers": {1: "fc"}}, "layers holds 1: 'fc'; expected paths"),
        ({"layers": [1]}, "layers holds 1: 1; expected paths"),
        ({"layers": [["fc", 0]]}, "layers holds .*; expected paths"),
        ({"layers": None}, "layers=None; expected paths"),
        ({"layers": "fc"}, "layers='fc'; expected paths"),
        ({"layers": {"fc"}}, r"layers=\{'fc'\}; expected paths"),
        ({"sample_latents": lambda key, n: None}, "its sample_latents returned None; expected a"),
        (
            {"sample_latents": lambda key, n: np.ones((n, 47), np.float32)},
            r"its sample_latents returned an array \(2, 47\); expected \(2, 48\)",
        ),
        ({"call": lambda m, z: m(z)["image"] * 1j}, "forward returned complex numbers"),
    ],
)
def test_an_invalid_argument_is_refused_in_one_line(options, message):
    own = {"latent_dim": 48, "layers": ["fc"], "call": lambda m, z: m(z)["image"]}
    with pytest.raises(UserError, match=message) as caught:
        from_torch(Twice(), **{**own, **options})
    assert "\n" not in str(caught.value)


@pytest.mark.usefixtures("untyped")
def test_a_layer_given_as_a_module_is_refused_with_its_path():
    module = torch.nn.Sequential(torch.nn.Linear(4, 4), torch.nn.Linear(4, 4))
    with pytest.raises(UserError, match="give the path '1' instead of the module"):
        from_torch(module, latent_dim=4, layers={"a": module[1]})


@pytest.mark.usefixtures("untyped")
def test_numpy_sizes_are_accepted():
    own = {"layers": ["fc"], "call": lambda m, z: m(z)["image"]}
    assert from_torch(Twice(), latent_dim=np.int64(48), **own).latent_dim == 48


@pytest.mark.usefixtures("untyped")
@pytest.mark.parametrize(
    ("z", "message"),
    [
        (None, "latents are None"),
        ([[1.0], [1.0, 2.0]], "latents are not an array"),
        (np.ones((2, 47), np.float32), r"latents have shape \(2, 47\).* expects \(n, 48\)"),
        (torch.ones(48), r"latents have shape \(48,\)"),
        (torch.ones(2, 48) * 1j, r"latents have shape \(2, 48\) \(torch.complex64\)"),
    ],
)
def test_latents_and_layers_that_do_not_fit_are_refused(z, message):
    own = {"layers": ["fc"], "call": lambda m, z: m(z)["image"]}
    gen = from_torch(Twice(), latent_dim=48, **own)
    for call in (gen.images, lambda z: gen.features(z, "fc")):
        with pytest.raises(UserError, match=message):
            call(z)
    for call in (gen.features, gen.resume):
        with pytest.raises(UserError, match="layer='zz' is not one of this generator's"):
            call(latents(48), "zz")


def test_anything_but_a_module_is_refused():
    with pytest.raises(UserError, match=r"given a collections\.OrderedDict; .*load_state_dict"):
        from_torch(Twice().state_dict(), latent_dim=2, layers=["fc"])


def test_an_exception_in_the_module_names_it():
    with pytest.raises(ForeignError, match=r"test_torch_module:Twice\.forward raised RuntimeError"):
        from_torch(Twice(), latent_dim=3, layers=["fc"])


def test_randomness_in_the_module_is_caught_by_the_contract():
    class Noisy(StyleGAN2):
        def forward(self, z, c):
            return super().forward(z + 0.01 * torch.randn_like(z), c)

    gen = from_stylegan(Noisy())
    with pytest.raises(UserError, match="features gives different values for the same latents"):
        check_generator(ConditionedGenerator(gen, "w", {}, 4))


def test_images_from_0_to_1_without_a_stated_range_are_refused():
    gen = from_decoder(Decoder(), image_range=None)
    with pytest.raises(UserError, match=r"return 2 \* x - 1 \(with from_torch: image_range="):
        check_generator(ConditionedGenerator(gen, "early", {}, 4))


@pytest.mark.slow
@pytest.mark.parametrize(("make", "layer"), [("make_stylegan", "b8"), ("make_decoder", "early")])
def test_every_stage_of_a_run_works_with_a_torch_generator(make, layer, tmp_path, caplog):
    config = tiny.get_config("quick")
    config.generator.name = f"tests.generators.torch_models:{make}"
    config.layer = layer
    config.latents.num = 200
    config.samplers.flow.fit = False
    config.evaluate.num = 16
    config.evaluate.prior_images = 32
    run = open_run(tmp_path, configuration.to_plain(config))
    pipeline = Pipeline(run, Interrupts())
    with caplog.at_level(logging.WARNING, logger="absl"):
        pipeline.run_all()
    pipeline.metrics.close()
    summary = json.loads(pipeline.run.folder.summary.read_text())
    assert summary["layer"] == layer
    assert summary["samplers"]["rejection"]["membership"]
    assert (tmp_path / "report" / "index.html").is_file()
    samples = pipeline.run.sample(jax.random.key(0), 0, 3)
    assert samples.images.shape == (3, 16, 16, {"make_stylegan": 3, "make_decoder": 1}[make])


def test_importing_the_module_does_not_import_torch():
    source = "import cgjax.generators.torch_module, sys; print('torch' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", source], capture_output=True, text=True)
    assert done.stdout == "False\n", done.stderr


@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_a_scripted_module_is_refused_in_one_line():
    scripted = torch.jit.trace(torch.nn.Sequential(torch.nn.Linear(8, 12)), torch.zeros(1, 8))
    with pytest.raises(UserError, match=r"a scripted module.* give the plain module"):
        from_torch(scripted, layers={"first": "0"}, latent_dim=8)
