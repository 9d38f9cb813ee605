"""Several numbers of clusters at once: each as good as alone, from shared passes and seeds."""

import jax
import numpy as np
import pytest

from cgjax.clustering import assign, kmeans
from cgjax.clustering.kmeans import lloyd, rows
from cgjax.clustering.kmeans.options import Options
from cgjax.clustering.kmeans.sources import ArrayRows
from cgjax.errors import UserError
from tests.clustering.kmeans.test_streamed import assert_same

NUMBERS = (2, 5, 3)  # tests of the same numbers share their programs


def blobs(num=300, dim=6, groups=5, seed=0):
    rng = np.random.default_rng(seed)
    centres = 4.0 * rng.normal(size=(groups, dim))
    return (centres[rng.integers(0, groups, num)] + rng.normal(size=(num, dim))).astype(np.float32)


def test_each_number_is_as_good_as_with_scikit_learn(key):
    from sklearn.cluster import KMeans

    data = blobs()
    found = kmeans(data, (2, 5, 1, 3), key=key, num_init=20, tol=0.0)
    for k, result in zip((2, 5, 1, 3), found, strict=True):
        assert result.centroids.shape == (k, 6)
        assert result.inertias.shape == (20,)
        best = KMeans(k, n_init=20, tol=0.0, random_state=0).fit(data).inertia_
        assert abs(float(result.inertia) / best - 1) <= 1e-4
        labels, margins = assign(data, result.centroids)
        np.testing.assert_array_equal(result.labels, labels)
        np.testing.assert_array_equal(result.margins, margins)


@pytest.mark.parametrize("init", ["k-means++", "random"])
@pytest.mark.parametrize("dim", [6, 640])
def test_the_largest_number_gives_the_result_it_gives_alone(init, dim, key):
    data = blobs(dim=dim)
    options = {"key": key, "num_init": 4, "init": init}
    together, alone = kmeans(data, NUMBERS, **options)[1], kmeans(data, 5, **options)
    np.testing.assert_array_equal(together.labels, alone.labels)
    np.testing.assert_allclose(together.inertias, alone.inertias, rtol=1e-5)
    assert int(together.num_iter) == int(alone.num_iter)


def test_one_number_in_a_tuple_gives_the_result_it_gives_alone(key):
    (found,), alone = kmeans(blobs(), (3,), key=key), kmeans(blobs(), 3, key=key)
    for one, other in zip(found, alone, strict=True):
        np.testing.assert_array_equal(one, other)


def whole_reads(jaxpr, shape):
    """Return how many products take all of the data, in a traced function and what it calls."""
    num = 0
    for equation in jaxpr.eqns:
        if equation.primitive.name == "dot_general":
            num += any(operand.aval.shape == shape for operand in equation.invars)
        for value in equation.params.values():
            for part in value if isinstance(value, tuple) else (value,):
                inner = getattr(part, "jaxpr", part)
                num += whole_reads(inner, shape) if hasattr(inner, "eqns") else 0
    return num


@pytest.mark.parametrize("numbers", [(4,), (2, 3, 4)])
def test_all_numbers_share_one_product_for_distances_and_one_for_sums(numbers):
    points = jax.numpy.asarray(blobs(dim=640))
    data = rows.prepare(points)
    states = lloyd.init(data, jax.random.key(0), Options(numbers, num_init=2))
    traced = jax.make_jaxpr(lambda states: lloyd.step(data, states))(states)
    assert whole_reads(traced.jaxpr, points.shape) == 2


class CountedRows(ArrayRows):
    """Rows that remember how many were read, as rows and as columns."""

    num_read = 0

    def read(self, index):
        self.num_read += len(index)
        return super().read(index)

    def read_columns(self, begin, out):
        self.num_read += self.num_rows * out.shape[1] / self.dim
        super().read_columns(begin, out)


@pytest.mark.parametrize("init", ["k-means++", "random"])
@pytest.mark.parametrize("dim", [6, 640], ids=["by blocks", "by inner products"])
def test_all_numbers_share_each_pass_over_features_that_are_streamed(init, dim, key):
    data = blobs(dim=dim)
    options = {"key": key, "num_init": 4, "init": init}
    passes = []
    for k in (NUMBERS, 5):
        source = CountedRows(data, 64)
        found = kmeans(source, k, **options)
        passes.append(source.num_read / len(data))
        if k == NUMBERS:
            for one, held in zip(found, kmeans(data, NUMBERS, **options), strict=True):
                assert_same(one, held)
    assert passes[0] <= 1.1 * passes[1], "hardly more than the largest number alone"


@pytest.mark.parametrize(
    ("numbers", "init", "message"),
    [
        ((), "k-means++", "expected one or more"),
        ((2, 3), np.zeros((3, 6), np.float32), "a single number where init gives centroids"),
        ((2, 0), "k-means++", "num_clusters=0"),
        ((2, 301), "k-means++", "only 300 features"),
    ],
)
def test_impossible_numbers_are_named(numbers, init, message, key):
    with pytest.raises(UserError, match=message):
        kmeans(blobs(), numbers, key=key, init=init)
