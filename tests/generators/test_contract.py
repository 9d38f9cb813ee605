"""A user's object works with the right numbers, or one line says what to change."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from cgjax.config.plain import to_plain
from cgjax.errors import ForeignError, UserError
from cgjax.evaluation.image_batches import as_colour_images
from cgjax.generators import contract
from cgjax.generators.base import PretrainedGenerator
from cgjax.generators.conditioned import ConditionedGenerator
from cgjax.generators.contract import check_generator, ensure_generator, is_builtin
from cgjax.generators.families import build_network
from cgjax.generators.registry import load_generator
from cgjax.run.opening import open_run
from cgjax.runtime.png import in_colour, to_png
from cgjax.testing.planted import PlantedDiscs, make_planted
from configs import tiny
from tests.generators.objects import GOOD

# Object -> relative error: 0, or half a unit in the last place of its shorter type.
WORK = {
    "Good": 0,
    "make_good": 0,
    "make_partial": 0,
    "GOOD": 0,
    "NAMESPACE": 0,
    "Jax": 0,
    "Float64": 0,
    "Float16": 2**-10,
    "Bfloat16": 2**-7,
    "JaxBfloat16": 2**-7,
    "BigEndian": 0,
    "Strided": 0,
    "LayersList": 0,
    "NumpySizes": 0,
    "NoResume": 0,
    "OneBuffer": 0,
}
WORK_IN_TORCH = {
    "Torch": 0,
    "TorchGradient": 0,
    "TorchParameter": 0,
    "TorchBfloat16": 2**-7,
    "TorchFloat64": 0,
    "TorchChannelsLast": 0,
}
REFUSED = {
    # Not a generator at all.
    "NUMBER": "is an int; expected a class or function without arguments",
    "TEXT": "is a str; expected a class or function",
    "NOTHING": "is None; expected a class or function",
    "make_nothing": "returned None; is its return statement missing",
    "make_number": "lacks layers, latent_dim",
    "make_class": "cannot be called as the protocol does",
    "NeedsArguments": "needs arguments .*'width'.*def make",
    "missing": "has no 'missing'",
    # Invalid members.
    "LayersMissing": "lacks layers",
    "LayersEmpty": "layers is empty; expected a tuple of distinct names",
    "LayersString": "layers is a str; expected a tuple",
    "LayersNumber": "layers is an int; expected a tuple",
    "LayersOfNumbers": "layers holds 1; expected",
    "LayersTwice": "layers holds 'early' twice; expected",
    "LayersDict": "layers is a dict; expected a tuple",
    "LatentDimText": "latent_dim is '6'; expected a positive int",
    "LatentDimFloat": r"latent_dim is 6\.0; expected a positive int",
    "LatentDimZero": "latent_dim is 0; expected a positive int",
    "LatentDimTrue": "latent_dim is True; expected a positive int",
    "ImageSizeTuple": r"image_size is \(8, 8\); expected a positive int",
    "FeaturesNoMethod": "features is an int; expected a method",
    "NoFeatures": "lacks features",
    "NeedsCondition": r"features needs condition=; give --config\.generator\.condition=\.\.\., or",
    "FewerArguments": r"features cannot be called .*features\(z, layer\)",
    # Invalid results of the methods.
    "FeaturesList": r"features returned a list; expected a float32 array \(4, \.\.\.\): it holds",
    "FeaturesListOfArrays": "features returned a list; .*it holds a numpy.ndarray; return one arr",
    "FeaturesTuple": "features returned a tuple; expected .*return one array",
    "FeaturesDict": "features returned a dict; expected .*return an array",
    "FeaturesString": "features returned a str; expected",
    "FeaturesNone": "features returned None; expected .*return statement",
    "FeaturesNumber": "features returned a float; expected",
    "FeaturesScalar": "features returned a single number; expected",
    "FeaturesOneDimensional": r"returned an array \(4,\); expected \(4, \.\.\.\): one row for each",
    "FeaturesEmpty": r"features returned an array \(4, 2, 2, 0\); expected",
    "FeaturesHalf": r"features returned an array \(2, .*expected \(4, \.\.\.\): one row for each",
    "FeaturesOneRowOnly": r"features returned an array \(1, .*expected \(4",
    "FeaturesTwice": r"features returned an array \(8, .*expected \(4",
    "FeaturesFlat": r"features returned an array \(1, 64\); expected \(4",
    "FeaturesIntegers": r"features returned an array .* of int32; expected .*astype\('float32'\)",
    "FeaturesBooleans": "features returned an array .* of bool; expected",
    "FeaturesComplex": "features returned an array .* of complex64; expected .*real numbers",
    "FeaturesObjects": "features returned an array .* of object; expected",
    "FeaturesNan": "features at layer 'early' returned NaN",
    "FeaturesTooLarge": "features at layer 'early' returned infinite values",
    "FeaturesConstant": "features returns the same values for every latent at layer 'early'",
    "LatentsList": "sample_latents returned a list; expected",
    "LatentsNan": "sample_latents returned NaN",
    "LatentsConstant": "sample_latents gives the same latent 4 times",
    "LatentsOneRow": r"sample_latents returned an array \(6,\); expected \(4, 6\)",
    "LatentsShort": r"sample_latents returned an array \(4, 5\); expected \(4, 6\)",
    "LatentsOneTooMany": r"sample_latents returned an array \(5, 6\); expected \(4, 6\)",
    "Unkeyed": "sample_latents gives different latents for the same key",
    "OneKey": "sample_latents gives the same latents for a different key",
    "ImagesNone": "images returned None; expected",
    "ImagesHalf": r"images returned an array \(2, .*expected \(4, 8, 8, channels\)",
    "ImagesChannelsFirst": r"images returned an array \(4, 3, 8, 8\); .*x\.transpose\(0, 2, 3, 1\)",
    "ImagesWithoutChannels": r"images returned an array \(4, 8, 8\); .*x\[\.\.\., None\]",
    "ImagesFiveChannels": r"images returned an array \(4, 8, 8, 5\); .*x\[\.\.\., :3\]",
    "ImagesFlat": r"images returned an array \(4, 192\); expected \(4, 8, 8, channels\)",
    "ImagesOblong": r"images returned an array \(4, 4, 8, 3\); .*square",
    "ImagesOtherSize": r"images returned an array \(4, 8, 8, 3\); .*image_size = 8",
    "ImagesUint8": "images returned an array .* of uint8; .*x / 127.5 - 1",
    "Images255": "images returns values from .* return x / 127.5 - 1",
    "Images01": r"images returns values from .* return 2 \* x - 1",
    "Images01Beyond": r"images returns values from -0\.\d+ to 1\.\d+; .* return 2 \* x - 1",
    "ImagesOddRange": r"images returns values from .* return 2 \* x - 1",
    "ImagesNan": "images returned NaN",
    "ImagesInfinite": "images returned infinite values",
    "ImagesConstant": "images returns the same image for every latent",
    "ResumeWrong": r"resume\(features\(z, 'early'\), 'early'\) is not images\(z\)",
    "ResumeNan": r"resume\(features\(z, 'early'\), 'early'\) returned NaN",
    "FeaturesNanAlone": "features at layer 'early' returned infinite values",
    "LatentsNanAlone": "sample_latents returned infinite values",
    "ResumeOneRow": r"resume returned an array \(1, 8, 8, 3\); expected \(4",
    "ResumeNone": "resume returned None; expected",
    "ResumeOtherChannels": r"resume\(.*\) returned images \(8, 8, 2\), images\(z\) \(8, 8, 3\)",
    "Donates": "features deleted an array that it was given, .*donate_argnums .*donate nothing",
    # Not a function of the latent.
    "Random": "features gives different values for the same latents at layer 'early'.*eval",
    "RandomImages": "images gives different values for the same latents.*eval",
    "Dropout": "features gives different values for the same latents at layer 'early'.*dropout",
    "BatchNorm": "features gives different values for a latent alone and in a batch .*batch norm",
    "BatchNormImages": "images gives different values for a latent alone and in a.*batch norm",
}
# Object -> type of the exception that the user's code raises.
RAISED = {
    "Raises": OSError,
    "RaisesAttributeError": AttributeError,
    "RaisesImportError": ModuleNotFoundError,
    "PropertyRaises": AttributeError,
    "FeaturesRaise": KeyError,
    "ImagesRaise": ValueError,
    "RaisesAtOneRow": ValueError,
}


def bind(name: str, **keywords: object) -> ConditionedGenerator:
    gen = load_generator(f"tests.generators.objects:{name}")
    return ConditionedGenerator(gen, gen.layers[0], keywords, batch=4)


def begin_run(name: str) -> ConditionedGenerator:
    """Do what a run does with a generator before it draws latents."""
    conditioned = bind(name)
    ensure_generator(conditioned, name)
    return conditioned


def compare_with_good(name: str, tolerance: float) -> None:
    conditioned = begin_run(name)
    key = jax.random.key(3)
    z = conditioned.sample_latents(key, 11)  # three batches, the last one filled up
    np.testing.assert_allclose(z, GOOD.sample_latents(key, 11), rtol=tolerance, atol=0)
    h = conditioned.all_features(np.asarray(z))
    x = conditioned.images(np.asarray(z))
    for array in (z, h, x):
        assert array.dtype == np.float32
    # BLAS may sum in a different order for 4 rows than for 11.
    tolerances = {"rtol": tolerance, "atol": max(tolerance, 1e-6)}
    np.testing.assert_allclose(h, GOOD.features(z, "early").reshape(11, -1), **tolerances)
    np.testing.assert_allclose(x, GOOD.images(z), rtol=4 * tolerance, atol=max(4 * tolerance, 1e-6))
    if hasattr(conditioned.gen, "resume"):
        resumed = conditioned.resume(jnp.asarray(h.reshape(11, 2, 2, 4)), z)
        np.testing.assert_allclose(resumed, x, atol=max(4 * tolerance, 1e-6))


@pytest.mark.parametrize("name", WORK)
def test_a_proper_generator_works_with_the_right_numbers(name):
    compare_with_good(name, WORK[name])


@pytest.mark.torch
@pytest.mark.parametrize("name", WORK_IN_TORCH)
def test_torch_tensors_work_with_the_right_numbers(name):
    compare_with_good(name, WORK_IN_TORCH[name])


@pytest.mark.parametrize("name", REFUSED)
def test_an_invalid_generator_is_refused_in_one_line(name):
    with np.errstate(all="ignore"), pytest.raises(UserError, match=REFUSED[name]) as caught:
        begin_run(name)
    message = str(caught.value)
    assert "\n" not in message
    assert "objects:" in message  # whose code it is


@pytest.mark.parametrize("name", RAISED)
def test_an_exception_in_user_code_names_its_source_and_keeps_its_cause(name):
    with pytest.raises(ForeignError, match=rf"objects:{name}.* raised ") as caught:
        begin_run(name)
    assert "\n" not in str(caught.value)
    assert type(caught.value.__cause__) is RAISED[name]


@pytest.mark.parametrize(
    "name",
    ["BatchNorm", "Random", "Images255", "FeaturesHalf", "FeaturesRaise", "ManifestRaises"],
)
def test_a_run_of_an_invalid_generator_stops_before_anything_is_written(name, tmp_path):
    config = tiny.get_config("quick")
    config.generator.name = f"tests.generators.objects:{name}"
    config.layer = "early"
    with pytest.raises((UserError, ForeignError), match=f"objects:{name}"):
        open_run(tmp_path / "run", to_plain(config))
    assert not list(tmp_path.iterdir())


@pytest.mark.torch
def test_a_sparse_tensor_is_reported_with_its_source():
    with pytest.raises(ForeignError, match=r"FeaturesSparse\.features raised TypeError.*read"):
        begin_run("FeaturesSparse")


def test_images_of_one_channel_work():
    assert begin_run("Grey").images(np.ones((3, 6), np.float32)).shape == (3, 8, 8, 1)


def test_images_that_are_all_grey_work():
    begin_run("ImagesGrey")


def test_bright_images_are_accepted_if_the_generator_declares_its_range():
    ensure_generator(bind("Bright"), "mine")


@pytest.mark.parametrize("keyword", ["condition", "truncation", "noise"])
def test_a_keyword_that_the_generator_does_not_take_is_refused_at_construction(keyword):
    with pytest.raises(UserError, match=rf"features takes no {keyword}=; leave --config\.gen"):
        bind("Good", **{keyword: "1"})
    with pytest.raises(UserError, match="features takes no condition="):
        bind("Good").with_condition(3)
    assert bind("Good", **{keyword: None}).keywords == {}


def test_a_generator_that_needs_a_class_gets_it():
    check_generator(bind("NeedsCondition", condition="2"))


def test_rows_are_checked_at_every_call():
    conditioned = bind("Good")
    conditioned.gen.own.features = lambda z, layer: np.asarray(z)[:-1]
    with pytest.raises(UserError, match=r"features returned an array \(3, 6\); expected \(4"):
        conditioned.all_features(np.ones((8, 6), np.float32))


def test_findings_state_shapes_range_cost_and_resumable_layers():
    findings = check_generator(bind("Good"), time_batch=8)
    early, late, images = findings.layers
    assert (early.name, early.shape, early.can_resume) == ("early", (2, 2, 4), True)
    assert (late.name, late.shape, late.can_resume) == ("late", (4,), False)
    assert (images.name, images.shape) == ("images", (8, 8, 3))
    assert early.megabytes == pytest.approx(1000 * 16 * 4 / 2**20)
    assert all(layer.milliseconds > 0 for layer in findings.layers)
    assert -1 <= findings.image_range[0] < 0 < findings.image_range[1] <= 1
    assert findings.name == "tests.generators.objects:Good"


def test_only_builtin_families_skip_the_check_before_a_run(monkeypatch):
    tried = []
    monkeypatch.setattr(contract, "check_generator", lambda *args, **_: tried.append(args))

    class Own(PlantedDiscs):
        pass

    builtin = [
        make_planted(),
        PretrainedGenerator(build_network("dcgan", {"latent_dim": 6, "widths": [4, 4]})),
    ]
    for gen in builtin:
        ensure_generator(ConditionedGenerator(gen, gen.layers[0], {}, 4), "builtin")
    assert not tried
    assert not is_builtin(PretrainedGenerator(Own()))


@pytest.mark.parametrize(
    ("family", "architecture"),
    [
        ("dcgan", {"latent_dim": 6, "widths": [8, 6]}),
        ("pgan", {"form": "zoo", "latent_dim": 6, "depths": [8, 6]}),
        (
            "stylegan",
            {
                "form": "genforce",
                "latent_dim": 8,
                "style_dim": 8,
                "mapping_widths": [8, 8],
                "depths": [8, 4],
            },
        ),
    ],
)
def test_builtin_families_keep_the_contract(family, architecture):
    gen = PretrainedGenerator(build_network(family, architecture))
    findings = check_generator(ConditionedGenerator(gen, gen.layers[-1], {}, 4))
    assert [layer.name for layer in findings.layers] == [*gen.layers, "images"]


@pytest.mark.parametrize(("number", "channels"), [("Two", 2), ("Four", 4)])
def test_images_of_two_and_four_channels_are_shown_without_alpha(number, channels):
    conditioned = begin_run(f"Images{number}Channels")
    images = conditioned.images(np.asarray(conditioned.sample_latents(jax.random.key(3), 5)))
    assert images.shape == (5, 8, 8, channels)
    shown = images[..., :1] if channels == 2 else images[..., :3]
    np.testing.assert_array_equal(in_colour(images), np.broadcast_to(shown, (5, 8, 8, 3)))
    np.testing.assert_array_equal(as_colour_images(images), in_colour(images))
    assert to_png(images[0])
