"""A staged network satisfies the public protocol, and a layer costs only the layers up to it."""

import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from cgjax.errors import UserError
from cgjax.generators import base
from cgjax.generators.base import Generator, PretrainedGenerator, layer_index
from cgjax.generators.batching import batch_by_batch, in_batches
from cgjax.generators.families import FAMILIES, build_network

TINY = {
    "dcgan": {"latent_dim": 6, "widths": [8, 6, 4]},
    "pgan": {"form": "zoo", "latent_dim": 6, "depths": [8, 6, 4]},
}


def tiny(family: str, **changes: object) -> PretrainedGenerator:
    return PretrainedGenerator(build_network(family, {**TINY[family], **changes}))


@pytest.fixture(scope="module", params=TINY)
def gen(request):
    return tiny(request.param)


def test_a_converted_network_satisfies_the_protocol(gen):
    assert isinstance(gen, Generator)
    z = gen.sample_latents(jax.random.key(1), 3)
    assert z.shape == (3, gen.latent_dim)
    assert z.dtype == jnp.float32
    x = gen.images(z)
    assert x.shape == (3, gen.image_size, gen.image_size, gen.image_channels)
    assert x.dtype == jnp.float32
    h = gen.features(z, gen.layers[1])
    assert h.ndim == 4
    assert h.dtype == jnp.float32


def test_equal_keys_give_equal_latents_and_different_keys_different_ones(gen):
    first, same, other = (gen.sample_latents(jax.random.key(k), 4) for k in (0, 0, 1))
    np.testing.assert_array_equal(first, same)
    assert np.abs(np.asarray(first - other)).max() > 0.1


@pytest.mark.parametrize("family", TINY)
def test_features_run_only_the_layers_up_to_the_requested_one(family, monkeypatch):
    gen = tiny(family)
    cls = type(gen.network)
    stage, ran = cls.stage, []
    monkeypatch.setattr(cls, "stage", lambda s, i, state: (ran.append(i), stage(s, i, state))[1])
    monkeypatch.setattr(cls, "end", lambda s, state: pytest.fail("features made an image"))
    z = gen.sample_latents(jax.random.key(0), 5)  # a batch that no other test has traced
    for index, layer in enumerate(gen.layers):
        ran.clear()
        gen.features(z, layer)
        assert ran == list(range(index + 1))


def test_operations_grow_with_the_layer_and_an_early_layer_is_cheap(gen):
    z = jnp.zeros((2, gen.latent_dim))

    def flops(walk, **static):
        settings = {"graph": gen._graph, "precision": gen.precision}
        lowered = base._walk.lower(gen._weights, z, {}, walk=walk, **settings, **static)
        return lowered.compile().cost_analysis()["flops"]

    costs = [flops(base.features_, index=i) for i in range(len(gen.layers))]
    costs.append(flops(base.images_))
    assert all(a < b for a, b in itertools.pairwise(costs))
    assert costs[0] < 0.2 * costs[-1]


def test_only_networks_of_the_same_architecture_share_compiled_programs():
    first, same, other = tiny("pgan"), tiny("pgan"), tiny("pgan", tanh=True)
    z = jnp.ones((7, first.latent_dim))  # a batch that no other test has traced
    x = first.images(z)
    programs = base._walk._cache_size()
    np.testing.assert_array_equal(same.images(z), x)
    assert base._walk._cache_size() == programs
    np.testing.assert_allclose(other.images(z), jnp.tanh(x), atol=1e-6)
    assert base._walk._cache_size() == programs + 1


def test_precision_is_validated_and_applies_to_every_product(gen):
    z = gen.sample_latents(jax.random.key(0), 2)

    def program(gen):
        settings = {"graph": gen._graph, "precision": gen.precision}
        return base._walk.lower(gen._weights, z, {}, walk=base.images_, **settings).as_text()

    fast = gen.with_precision("tf32")
    assert (gen.precision, fast.precision) == ("float32", "tf32")
    exact, rough = program(gen), program(fast)
    assert "HIGHEST" in exact
    assert "HIGHEST" not in rough
    assert "HIGH" in rough
    # A program compiled for one precision is not used for the other.
    assert gen.structure == gen.with_precision("float32").structure != fast.structure
    with pytest.raises(UserError, match="'half': expected float32 or tf32"):
        gen.with_precision("half")


def test_a_layer_can_be_given_by_number_counted_from_one(gen):
    z = gen.sample_latents(jax.random.key(0), 2)
    np.testing.assert_array_equal(gen.features(z, 1), gen.features(z, gen.layers[0]))
    assert layer_index(gen.layers, "2") == 1


@pytest.mark.usefixtures("untyped")
@pytest.mark.parametrize("layer", [np.int64(1), "1", "01"])
def test_layer_numbers_can_be_numpy_integers_or_strings(gen, layer):
    assert layer_index(gen.layers, layer) == 0


@pytest.mark.parametrize(
    ("layers", "layer", "suggested"),
    [
        (("w", "b4_conv1", "b8_conv0", "b32_conv1"), "layer2", "b4_conv1"),
        (("w", "b4_conv1", "b8_conv0", "b32_conv1"), "b8_conv", "b8_conv0"),
        (("layer1", "layer2", "layer3"), "layer9", "layer1"),
        (("only",), "x", "only"),
    ],
)
def test_the_suggested_layer_has_a_similar_name_or_is_an_early_one(layers, layer, suggested):
    with pytest.raises(UserError, match=f"try --config.layer={suggested}; --mode=check"):
        layer_index(layers, layer)


def test_the_suggested_layer_can_be_typed_in_a_shell():
    with pytest.raises(UserError, match=r"try '--config\.layer=<b> & b'; --mode=check"):
        layer_index(("a", "<b> & b"), "b>")


@pytest.mark.usefixtures("untyped")
@pytest.mark.parametrize(
    "layer",
    ["lair1", "0", 0, 99, "", 1.0, None, True, "²", -1, b"a", (), "9" * 5000, np.ones(3)],
)
def test_an_unknown_layer_is_refused_with_a_list_of_layers(gen, layer):
    with pytest.raises(UserError, match=f"{gen.layers[0]}.*--config.layer="):
        gen.features(jnp.zeros((1, gen.latent_dim)), layer)


@pytest.mark.usefixtures("untyped")
@pytest.mark.parametrize(
    "z", [None, "abc", [[1.0], [2.0, 3.0]], [[None]], np.ones((2, 6)) * 1j, np.full((2, 6), 1e300)]
)
def test_latents_that_are_not_real_numbers_are_refused(gen, z):
    for call in (gen.images, lambda z: gen.features(z, 1), lambda z: gen.resume(z, 1)):
        with pytest.raises(UserError, match=r"^(latents|activations) (are|hold)") as caught:
            call(z)
        assert "\n" not in str(caught.value)


@pytest.mark.usefixtures("untyped")
@pytest.mark.parametrize(
    ("key", "n", "message"),
    [
        (jax.random.key(0), -1, "n=-1: expected a whole number of at least 0"),
        (jax.random.key(0), 2.0, r"n=2\.0: expected a whole number"),
        (jax.random.key(0), True, "n=True: expected a whole number"),
        (0, 2, "key=0: expected a random key"),
        (jax.random.split(jax.random.key(0)), 2, r"key of shape \(2,\): expected a random key"),
        (jnp.zeros(3, jnp.uint32), 2, r"key of shape \(3,\): expected a random key"),
    ],
)
def test_sample_latents_refuses_an_invalid_key_or_number(gen, key, n, message):
    with pytest.raises(UserError, match=message):
        gen.sample_latents(key, n)


@pytest.mark.usefixtures("untyped")
@pytest.mark.parametrize("n", [np.int64(2), np.array(2), jnp.int32(2)])
def test_latents_are_drawn_with_raw_keys_and_counts_of_any_library(gen, n):
    expected = gen.sample_latents(jax.random.key(0), 2)
    for key in (jax.random.PRNGKey(0), np.asarray(jax.random.PRNGKey(0))):
        np.testing.assert_array_equal(gen.sample_latents(key, n), expected)


def test_zero_latents_can_be_drawn(gen):
    assert gen.sample_latents(jax.random.key(0), 0).shape == (0, gen.latent_dim)


@pytest.mark.usefixtures("untyped")
def test_latents_of_the_wrong_length_are_refused(gen):
    for z in (jnp.zeros((2, gen.latent_dim + 1)), jnp.zeros(gen.latent_dim)):
        with pytest.raises(UserError, match=rf"expects \(n, {gen.latent_dim}\)"):
            gen.images(z)


def test_an_unsupported_keyword_is_refused_unless_it_is_none(gen):
    z = jnp.zeros((1, gen.latent_dim))
    with pytest.raises(UserError, match="takes no 'truncation'"):
        gen.images(z, truncation=0.5)
    gen.images(z, truncation=None)


def test_resuming_from_a_wrong_shape_is_refused(gen):
    h = gen.features(jnp.zeros((2, gen.latent_dim)), gen.layers[0])
    with pytest.raises(UserError, match="shape"):
        gen.resume(h, gen.layers[-1])


@pytest.mark.parametrize("n", [0, 1, 3, 4, 9])
def test_in_batches_equals_one_call_for_any_number_of_rows(n):
    x = np.arange(2.0 * n, dtype=np.float32).reshape(n, 2)
    np.testing.assert_array_equal(in_batches(lambda b: b * 2 + 1, x, 4), x * 2 + 1)
    done: list[int] = []
    out = np.zeros_like(x)
    assert in_batches(lambda b: b * 2 + 1, x, 4, out=out, on_rows=done.append) is out
    np.testing.assert_array_equal(out, x * 2 + 1)
    assert done == ([*range(4, n, 4), n] if n else [])


def test_few_programs_serve_every_number_of_rows():
    sizes = set()
    for n in range(1, 120):
        in_batches(lambda b: sizes.add(len(b)) or b, np.ones((n, 3), np.float32), 24)
    assert sizes == {1, 2, 4, 8, 16, 24}


@pytest.mark.parametrize("n", [2, 8, 11])
@pytest.mark.parametrize(
    "wrong",
    [
        lambda b: b[: len(b) // 2],
        lambda b: b[:1],
        lambda b: jnp.concatenate([b, b]),
        lambda b: b.sum(),
        lambda b: b[:, 0],
    ],
    ids=["half", "one", "twice", "number", "column"],
)
def test_in_batches_refuses_a_function_that_does_not_return_one_row_per_row(wrong, n):
    x = np.ones((n, 3), np.float32)
    out = np.full_like(x, 7)
    with pytest.raises(UserError, match=r"batch of \d rows gave an array of shape .*expected"):
        in_batches(wrong, x, 4, out=out)
    assert (out == 7).all()


def test_in_batches_refuses_rows_whose_shape_changes():
    x = np.ones((6, 3), np.float32)
    widths = iter([3, 2])
    with pytest.raises(UserError, match=r"shape \(4, 2\); expected \(4, 3\)"):
        in_batches(lambda b: b[:, : next(widths)], x, 4)


def test_a_batch_is_computed_only_when_the_one_before_is_used():
    calls: list[int] = []
    rows = batch_by_batch(lambda b: calls.append(1) or b, np.ones((40, 3), np.float32), 4)
    for begun in (2, 3, 4):
        next(rows)
        assert len(calls) == begun


def test_an_unknown_family_is_refused_with_the_nearest_name():
    with pytest.raises(UserError, match="did you mean 'pgan'"):
        build_network("pgam", {})
    assert set(TINY) <= set(FAMILIES)


@pytest.mark.parametrize(
    ("family", "architecture"),
    [
        ("dcgan", {"latent_dim": 6, "widths": [4], "num_classes": 3}),
        ("pgan", {"form": "genforce", "latent_dim": 6, "depths": [4, 4], "num_classes": 3}),
    ],
)
def test_latents_of_a_class_conditional_generator_are_drawn_without_a_class(family, architecture):
    gen = PretrainedGenerator(build_network(family, architecture))
    z = gen.sample_latents(jax.random.key(0), 5)
    assert z.shape == (5, 6)
    assert gen.images(z, condition=2).shape[0] == 5
    with pytest.raises(UserError, match="class"):
        gen.images(z)
    with pytest.raises(UserError, match="noise"):
        gen.sample_latents(jax.random.key(0), 5, noise="zeros")
