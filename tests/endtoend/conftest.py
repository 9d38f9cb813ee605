"""A finished training that several modules start from."""

import pytest

from tests.endtoend.tiny_runs import settings, train


@pytest.fixture(scope="package")
def whole(tmp_path_factory):
    """The folder of an uninterrupted run, and its summary; copy it to change it."""
    root = tmp_path_factory.mktemp("whole") / "run"
    return root, train(root, settings())
