"""Features that do not fit in memory, recomputed or on disk, give the same clusters."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from cgjax.clustering import kmeans
from cgjax.errors import Interrupted
from cgjax.features import stream as stream_module
from cgjax.features.in_memory import features_in
from cgjax.features.stream import FeatureStream
from cgjax.generators.conditioned import ConditionedGenerator
from cgjax.testing.planted import make_planted
from tests.golden_cases import load_golden

FIXTURES = {
    "dcgan_zoo_a": ("dcgan", {}),
    "pgan_zoo_a": ("pgan", {}),
    "stylegan_genforce_a": ("stylegan", {}),
    "stylegan2_genforce_a": ("stylegan2", {}),
    "biggan_deep_a": ("biggan", {"condition": "1", "truncation": 0.4}),
}


@pytest.fixture
def generator():
    return ConditionedGenerator(make_planted(), "layer2", {}, batch=16)


@pytest.fixture
def latents(generator):
    return np.asarray(generator.sample_latents(jax.random.key(1), 100))


def held(generator, latents):
    return features_in(generator, latents)


@pytest.mark.torch
@pytest.mark.parametrize("name", FIXTURES)
def test_features_of_every_family_cluster_as_in_memory(name, tmp_path, key):
    pytest.importorskip("torch")
    from converters.__main__ import convert

    family, keywords = FIXTURES[name]
    gen = convert(family, load_golden(name).checkpoint, tmp_path / "weights")
    generator = ConditionedGenerator(gen, "3", keywords, batch=16)
    latents = np.asarray(generator.sample_latents(jax.random.key(1), 70))
    expected = kmeans(held(generator, latents), 2, key=key, num_init=3)
    for keep in (False, True):
        with FeatureStream(generator, latents, block=32) as stream:
            if keep:
                stream.keep_on_disk(tmp_path)
            result = kmeans(stream, 2, key=key, num_init=3)
            assert stream.storage == ("disk" if keep else "recompute")
            np.testing.assert_array_equal(result.labels, expected.labels)
            # Sums of 70 float32 rows in a different order.
            np.testing.assert_allclose(result.centroids, expected.centroids, rtol=1e-4, atol=1e-5)
            np.testing.assert_allclose(result.inertia, expected.inertia, rtol=1e-5)
            # A single row is recomputed only when it is drawn as a candidate centroid.
            assert not keep or stream.num_computed < 70 + 2 * 3 * 2 + 1


def test_requested_rows_are_returned_from_latents_or_disk(generator, latents, tmp_path):
    expected = held(generator, latents)
    index = np.array([3, 4, 5, 9, 50, 98, 99])
    with FeatureStream(generator, latents, block=24) as stream:
        np.testing.assert_array_equal(stream.read(index)[:7], expected[index])
        stream.keep_on_disk(tmp_path)
        for _ in range(2):
            for begin in range(0, 100, 24):
                part = np.arange(begin, min(begin + 24, 100))
                rows = stream.read(part)
                assert rows.shape == (24, stream.dim)
                np.testing.assert_array_equal(rows[: len(part)], expected[part])
        # Each row was computed once, then read; seven were also computed before there was a file.
        assert stream.num_computed == 107
        np.testing.assert_array_equal(stream.read(index)[:7], expected[index])
        np.testing.assert_array_equal(stream.first(30), expected[:30])
        assert stream.num_computed == 107


@pytest.mark.parametrize(
    ("stage", "options"),
    [
        ("keeping rows", {}),
        ("inner products", {}),
        ("assignment", {}),
        ("iteration 1", {"init": np.eye(2, 256)}),
    ],
)
def test_an_interrupted_clustering_leaves_no_file(
    stage, options, generator, latents, tmp_path, key
):
    def stop(what, done, total):
        assert list(tmp_path.iterdir()) == [], "unnamed, so not even kill -9 leaves it behind"
        if what == stage:
            raise Interrupted("asked to")

    with FeatureStream(generator, latents, block=24) as stream:
        stream.keep_on_disk(tmp_path)
        with pytest.raises(Interrupted):
            kmeans(stream, 2, key=key, on_block=stop, **options)
    assert list(tmp_path.iterdir()) == []
    assert stream.storage == "recompute"


@pytest.mark.parametrize(
    ("compute", "write", "read", "storage"),
    [
        (9.0, 1.0, 1.0, "disk"),
        (2.0, 3.0, 1.5, "recompute"),  # 3 + 3 * 1.5 against 3 * 2
        (3.0, 3.0, 1.5, "disk"),
        (1.0, 0.5, 1.0, "recompute"),
    ],
)
def test_the_faster_storage_is_chosen(
    compute, write, read, storage, generator, latents, tmp_path, monkeypatch
):
    now = 0.0

    def taking(call, seconds):
        def run(*arguments):
            nonlocal now
            now += seconds
            return call(*arguments)

        return run

    monkeypatch.setattr(stream_module.time, "perf_counter", lambda: now)
    for name, seconds in (("_compute", compute), ("_write", write), ("_read", read)):
        monkeypatch.setattr(FeatureStream, name, taking(getattr(FeatureStream, name), seconds))
    with FeatureStream(generator, latents, block=24) as stream:
        assert stream.choose_storage(tmp_path, num_reads=4) == (compute, write, read)
        assert stream.storage == storage


def test_columns_can_be_read_once_all_rows_are_kept(generator, latents, tmp_path):
    seen = []
    with FeatureStream(generator, latents, block=24) as stream:
        assert not stream.has_columns
        stream.keep_on_disk(tmp_path)
        stream.read(np.arange(7))
        assert stream.has_columns
        stream.keep_rows(lambda done, total: seen.append((done, total)))
        assert stream.num_computed == 100, "each row once"
        stream.keep_rows(lambda done, total: seen.append("no row is missing any more"))
        columns = np.empty((100, 30), np.float32)
        stream.read_columns(50, columns[:, 3:])
    np.testing.assert_array_equal(columns[:, 3:], held(generator, latents)[:, 50:77])
    assert seen == [(done, 93) for done in (16, 32, 48, 64, 80, 93)]


class OwnGenerator:
    """A generator that JAX cannot trace."""

    layers = ("layer1",)
    latent_dim, image_size = 6, 4

    def sample_latents(self, key, n):
        return jax.random.normal(key, (n, 6))

    def images(self, z):
        raise NotImplementedError("no image is needed")

    def features(self, z, layer):
        return jnp.asarray(np.asarray(z)[:, :, None] * np.ones(4, np.float32))


def test_the_feature_shape_of_any_generator_is_known(generator):
    assert generator.feature_shape == (16, 16, 1)
    own = ConditionedGenerator(OwnGenerator(), "layer1", {}, batch=16)
    assert own.feature_shape == (6, 4)


def test_without_room_on_the_disk_nothing_is_written(generator, latents, tmp_path, monkeypatch):
    usage = stream_module.shutil.disk_usage(tmp_path)._replace(free=2**20)
    monkeypatch.setattr(stream_module.shutil, "disk_usage", lambda folder: usage)
    stream = FeatureStream(generator, latents)
    assert stream.choose_storage(tmp_path, num_reads=4) is None
    assert stream.storage == "recompute"


@pytest.mark.parametrize("fails_at", ["keep_on_disk", "_write"])
def test_a_disk_with_less_room_than_it_says_is_not_used(
    fails_at, generator, latents, tmp_path, monkeypatch
):
    def fail(*_):
        raise OSError(122, "Disk quota exceeded")

    monkeypatch.setattr(FeatureStream, fails_at, fail)
    with FeatureStream(generator, latents, block=24) as stream:
        assert stream.choose_storage(tmp_path, num_reads=4) is None
        assert stream.storage == "recompute"
        np.testing.assert_array_equal(stream.first(30), held(generator, latents)[:30])


@pytest.mark.parametrize("num_kept", [0, 40])
def test_features_are_recomputed_once_the_disk_fills_up(
    num_kept, generator, latents, tmp_path, monkeypatch, key
):
    expected = kmeans(held(generator, latents), 2, key=key)
    write = FeatureStream._write

    def fail(stream, index, rows):
        if index[0] >= num_kept:
            raise OSError(28, "No space left on device")
        write(stream, index, rows)

    with FeatureStream(generator, latents, block=24) as stream:
        stream.keep_on_disk(tmp_path)
        monkeypatch.setattr(FeatureStream, "_write", fail)
        result = kmeans(stream, 2, key=key)
        assert stream.storage == "recompute"
    np.testing.assert_array_equal(result.labels, expected.labels)


def test_blocks_and_forward_passes_are_bounded_in_bytes(generator, latents, monkeypatch):
    monkeypatch.setattr(stream_module, "BATCH_MB", 5 * 1024 / 2**20)
    monkeypatch.setattr(stream_module, "BLOCK_MB", 13 * 1024 / 2**20)
    stream = FeatureStream(generator, latents)
    assert stream.dim == 256, "a row is 1 kB"
    assert stream.block == 10, "two passes of five rows"
    np.testing.assert_array_equal(stream.read(np.arange(10)), held(generator, latents)[:10])


def test_features_are_aligned_so_that_jax_does_not_copy_them(generator, latents):
    features = held(generator, latents)
    assert features.ctypes.data % 64 == 0
    np.testing.assert_array_equal(features, generator.features(jnp.asarray(latents)))
