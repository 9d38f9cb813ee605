"""What a foreign pickle may hold: tensors within their storages, and arrays of numbers."""

import pickle

import numpy as np
import pytest
import torch

from converters import safe_pickle

# Old files hold typed storages.
pytestmark = pytest.mark.filterwarnings("ignore:TypedStorage is deprecated")

STORAGE = torch.arange(6.0)._typed_storage()


def test_a_tensor_is_the_part_of_its_storage_that_it_names():
    found = safe_pickle._rebuild_tensor(STORAGE, 1, (2, 2), (2, 1))
    assert found.tolist() == [[1, 2], [3, 4]]
    assert safe_pickle._rebuild_tensor(STORAGE, 6, (0,), (1,)).tolist() == []


@pytest.mark.parametrize(
    ("offset", "size", "stride"),
    [(-1, (2,), (1,)), (0, (-2,), (1,)), (3, (2,), (-1,)), (0, (0, -1), (1, 1)), (2, (5,), (1,))],
)
def test_a_tensor_that_leaves_its_storage_on_either_side_is_refused(offset, size, stride):
    with pytest.raises(pickle.UnpicklingError, match="beyond its storage"):
        safe_pickle._rebuild_tensor(STORAGE, offset, size, stride)


@pytest.mark.parametrize("code", ["O8", "S4", "U4", "V8", "M8[s]", "m8[s]"])
def test_an_array_of_anything_but_numbers_is_refused(code):
    with pytest.raises(pickle.UnpicklingError, match="an array of dtype"):
        safe_pickle._Dtype(code)


@pytest.mark.parametrize("code", ["b1", "i2", "u8", "f4", "c8"])
def test_arrays_of_every_kind_of_number_are_read(code):
    assert safe_pickle._Dtype(code).dtype == np.dtype(code)
