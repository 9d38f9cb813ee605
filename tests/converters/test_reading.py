"""Tensors of every kind convert or, if the network needs them, are refused by name."""

import contextlib
import os
import pickle
import re
import warnings
import zipfile

import numpy as np
import pytest
import torch

from cgjax.errors import UserError
from converters.__main__ import FAMILIES, convert, inspect
from converters.convert import layouts_of
from converters.networks import find_networks
from converters.reading import Checkpoint, read_checkpoint
from tests.converters.files import CASES, load, write
from tests.golden_cases import load_golden

pytestmark = pytest.mark.torch


@pytest.fixture(scope="module")
def dcgan():
    return load("dcgan_examples_a")


def _changed(dcgan, how, name="main.3.weight"):
    return {**dcgan, name: how(dcgan[name])}


def _quantised(value):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # torch says that its quantised tensors will move
        return torch.quantize_per_tensor(value, 0.01, 0, torch.qint8)


def _quantised_by_channel(value):
    scales, zeros = torch.full((len(value),), 0.01), torch.zeros(len(value), dtype=torch.int64)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return torch.quantize_per_channel(value, scales, zeros, 0, torch.qint8)


FLOATS = [n for n in dir(torch) if n.startswith(("float8_e4", "float8_e5"))]


@pytest.mark.parametrize("dtype", ["float16", "bfloat16", "float64", *FLOATS])
def test_floats_of_every_width_convert_to_their_values(dtype, dcgan, tmp_path):
    dtype = getattr(torch, dtype)
    narrow = _changed(dcgan, lambda v: v.to(dtype))
    exact = _changed(dcgan, lambda v: v.to(dtype).float())
    hashes = [
        convert("dcgan", write(tmp_path / f"{i}", c), tmp_path / f"o{i}").manifest["weights_sha256"]
        for i, c in enumerate((narrow, exact))
    ]
    assert hashes[0] == hashes[1]


@pytest.mark.filterwarnings("ignore:Sparse:UserWarning")
@pytest.mark.parametrize(
    "how",
    [
        lambda v: v.to_sparse(),
        lambda v: v.to_sparse().coalesce(),
        lambda v: v.reshape(len(v), -1).to_sparse_csr(),
        lambda v: v.reshape(len(v), -1).to_sparse_csc(),
        lambda v: v[:1, :1].expand(v.shape),
        lambda v: v.T.contiguous().T,
    ],
    ids=["coo", "coalesced", "csr", "csc", "expanded", "transposed"],
)
@pytest.mark.filterwarnings("ignore:The use of `x.T`:UserWarning")
def test_sparse_and_strided_tensors_are_expanded(how, dcgan, tmp_path):
    value = dcgan["main.3.weight"]
    content = read_checkpoint(write(tmp_path / "f.pth", {"a": how(value)})).content
    dense = how(value).to_dense().numpy()
    np.testing.assert_array_equal(content["a"], dense)


def _beyond(value):
    """A sparse tensor whose index lies outside of it."""
    indices = torch.tensor([[5], [10**6]])
    return torch.sparse_coo_tensor(indices, torch.ones(1), (6, 7), check_invariants=False)


@pytest.mark.filterwarnings("ignore:Sparse:UserWarning")
@pytest.mark.parametrize(
    ("how", "message"),
    [
        (_quantised, "is quantised"),
        (_quantised_by_channel, "is quantised"),
        (lambda v: v.to("meta"), r"has no values \(a meta tensor\)"),
        (lambda v: v.to(torch.int8), "has dtype int8, expected a float"),
        (lambda v: v.to(torch.bool), "has dtype bool, expected a float"),
        (lambda v: v.to(torch.complex64), "has dtype complex64, expected a float"),
        (lambda v: v.to(torch.complex64).conj(), "NumPy cannot hold|has dtype complex64"),
        (lambda v: v.double() * 1e300, "has values that do not fit float32"),
        (lambda v: torch.sparse_coo_tensor((10**6, 10**6)), "is too large to unfold"),
        (lambda v: torch.zeros(()).expand(10**6, 10**6), "is too large to unfold"),
        (lambda v: v[:0], "is empty|has shape"),
        (lambda v: torch.nested.nested_tensor([v[0], v[1]]), "main.3.weight is|has shape"),
    ],
    ids=["quantised", "by_channel", "meta", "int8", "bool", "complex", "conj", "overflow",
         "sparse_bomb", "expanded_bomb", "empty", "nested"],
)  # fmt: skip
@pytest.mark.filterwarnings("ignore:The PyTorch API of nested tensors:UserWarning")
def test_a_tensor_without_readable_values_is_named_in_one_line(how, message, dcgan, tmp_path):
    for name in ("main.3.weight", "main.0.weight"):  # the layout is recognised by the second
        path = write(tmp_path / "f.pth", _changed(dcgan, how, name))
        with pytest.raises(UserError, match=message.replace("main.3.weight", name)) as caught:
            convert("dcgan", path, tmp_path / "out")
        assert "\n" not in str(caught.value)
        assert name in str(caught.value)
        assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("value", [[0.5], 0.5, None, "text", {}, True], ids=repr)
def test_an_entry_that_is_not_a_tensor_is_named(value, dcgan, tmp_path):
    path = write(tmp_path / "f.pth", {**dcgan, "main.3.weight": value})
    with pytest.raises(UserError, match=r"main.3.weight is not a tensor \((list|float|N|str|d|b)"):
        convert("dcgan", path, tmp_path / "out")


def test_a_sparse_tensor_that_points_outside_itself_is_refused(tmp_path):
    with pytest.raises(UserError, match="damaged"):
        read_checkpoint(write(tmp_path / "f.pth", {"a": _beyond(None)}))


@pytest.mark.parametrize("how", [_quantised, lambda v: v.to("meta")], ids=["quantised", "meta"])
def test_tensors_that_the_network_does_not_need_may_be_of_any_kind(how, dcgan, tmp_path):
    discriminator = {"conv.weight": how(torch.ones(3, 3)), 5: torch.ones(2)}
    content = {
        "netG": {**dcgan, "main.1.num_batches_tracked": how(torch.ones(1))},
        "netD": discriminator,
        "optimizer": {"state": {0: {"step": how(torch.ones(1))}}},
        7: {1: torch.ones(1)},
    }
    convert("dcgan", write(tmp_path / "f.pth", content), tmp_path / "out")


def test_names_that_are_not_text_are_reported(dcgan, tmp_path):
    path = write(tmp_path / "f.pth", {**dcgan, 5: torch.ones(2), (1, 2): torch.ones(1)})
    with pytest.raises(UserError, match=r"extra 5; extra \(1, 2\)"):
        convert("dcgan", path, tmp_path / "out")


@pytest.mark.parametrize(
    "content",
    [
        5, None, "text", 0.5, True, [], {}, (), [1], torch.ones(3), [torch.ones(3)],
        {0: torch.ones(3)}, {None: torch.ones(3)}, {"a": {0: torch.ones(1)}}, {(1, 2): {}},
        [{"main.0.weight": torch.ones(1)}], {"main.0.weight": torch.ones(1)},
        {"layer0.weight": torch.ones(1), "output0.weight": torch.ones(1)},
        {"main.0.weight": torch.ones(()), "main.1.weight": torch.ones(())},
        {"main.99999999999.weight": torch.ones(1), "main.0.weight": torch.ones(1, 1, 4, 4)},
        {"synthesis.b0.conv1.weight": torch.ones(1), "synthesis.b4.const": torch.ones(1)},
        {"synthesis.b99999999.conv1.weight": torch.ones(1), "synthesis.b4.const": torch.ones(1)},
    ],
    ids=str,
)  # fmt: skip
def test_any_other_content_is_refused_in_one_line(content, tmp_path):
    path = write(tmp_path / "f.pth", content)
    for family in FAMILIES:
        with pytest.raises(UserError) as caught:
            convert(family, path, tmp_path / "out")
        assert "\n" not in str(caught.value)
        assert len(str(caught.value)) < 1000
    with pytest.raises(UserError):
        inspect(path)
    assert os.listdir(tmp_path) == ["f.pth"]


def test_a_file_that_holds_itself_is_read(dcgan, tmp_path):
    content = {"netG": dcgan, "list": []}
    content["itself"] = content
    content["list"].append(content["list"])
    gen = convert("dcgan", write(tmp_path / "f.pth", content), tmp_path / "out")
    assert gen.manifest["source"]["network"] == "netG"


def test_shared_objects_are_not_expanded(dcgan, tmp_path):
    shared = [torch.ones(1)]
    for _ in range(60):
        shared = [shared, shared]
    convert("dcgan", write(tmp_path / "f.pth", {"G": dcgan, "x": shared}), tmp_path / "out")


def test_a_file_nested_too_deeply_is_refused_in_one_line(tmp_path):
    path = tmp_path / "f.pkl"
    path.write_bytes(b"\x80\x04" + b"]" * 100_001 + b"a" * 100_000 + b".")
    with pytest.raises(UserError, match="damaged"):
        read_checkpoint(path)


def _damaged(path, name):
    """Change a byte in the middle of a member's content."""
    with zipfile.ZipFile(path) as archive:
        info = next(i for i in archive.infolist() if i.filename.endswith(name))
        content = archive.read(info)
    data = bytearray(path.read_bytes())
    data[data.index(content) + len(content) // 2] ^= 1
    path.write_bytes(data)


def test_a_damaged_member_of_a_torch_file_is_found(dcgan, tmp_path):
    path = write(tmp_path / "f.pth", dcgan)
    _damaged(path, "/data/3")
    with pytest.raises(UserError, match=r"damaged \(.*/data/3 has another .*download it again"):
        convert("dcgan", path, tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_a_torch_file_without_checksums_is_read(dcgan, tmp_path):
    torch.serialization.set_crc32_options(False)
    try:
        path = write(tmp_path / "f.pth", dcgan)
    finally:
        torch.serialization.set_crc32_options(True)
    assert convert("dcgan", path, tmp_path / "out").family == "dcgan"


def test_an_unreadable_file_is_refused_with_the_reason(dcgan, tmp_path):
    path = write(tmp_path / "f.pth", dcgan)
    with pytest.raises(UserError, match=r"cannot read .*File name too long"):
        read_checkpoint("x" * 300)
    with pytest.raises(UserError, match="no such file"):
        read_checkpoint(path / "below")
    path.chmod(0)
    if os.access(path, os.R_OK):  # root
        return
    with pytest.raises(UserError, match=r"cannot read .*Permission denied"):
        read_checkpoint(path)


def _candidates(name):
    checkpoint = read_checkpoint(load_golden(name).checkpoint)
    family, settings = CASES[name]
    for layout in layouts_of(family):
        for network in find_networks(checkpoint):
            if layout.fits(network.state):
                yield layout, network, settings, checkpoint


def _one_of_each_kind(names):
    """Return the last of all names that differ only in their numbers."""
    return {re.sub(r"\d+", "#", name): name for name in names}.values()


def _wrong(value):
    yield "text"
    yield value[None]
    yield np.zeros((*value.shape[:-1], 0), np.float32)
    if value.ndim > 1:
        yield value.ravel()
    if value.dtype != np.int64:
        yield np.full(value.shape, 3)


@pytest.mark.parametrize("name", CASES)
def test_any_single_wrong_tensor_is_refused_in_one_line(name):
    layout, network, settings, checkpoint = next(_candidates(name))
    layout.convert(network, settings)
    for changed in _one_of_each_kind(network.state):
        for wrong in _wrong(network.state[changed]):
            state = {**network.state, changed: wrong}
            other = find_networks(Checkpoint({"G": state}, checkpoint.path, ""))[0]
            is_log = changed.endswith(("num_batches_tracked", ".sv0"))
            if layout.fits(other.state) and not is_log:
                with pytest.raises(UserError) as caught:
                    layout.convert(other, settings)
                assert "\n" not in str(caught.value)


@pytest.mark.parametrize("name", CASES)
def test_any_single_missing_tensor_is_refused_in_one_line_or_not_needed(name):
    layout, network, settings, checkpoint = next(_candidates(name))
    for missing in _one_of_each_kind(network.state):
        state = {n: v for n, v in network.state.items() if n != missing}
        other = find_networks(Checkpoint({"G": state}, checkpoint.path, ""))[0]
        if layout.fits(other.state):
            with contextlib.suppress(UserError):
                layout.convert(other, settings)


def test_a_pickle_of_incomplete_stand_ins_is_refused_in_one_line(tmp_path):
    path = tmp_path / "f.pkl"
    # numpy's _reconstruct without the state that fills the array.
    path.write_bytes(b"\x80\x02}U\x01acnumpy.core.multiarray\n_reconstruct\n)Rs.")
    with pytest.raises(UserError, match="damaged"):
        read_checkpoint(path)
    path.write_bytes(pickle.dumps({"G_ema": {0: [1, {2: 3}]}}))
    with pytest.raises(UserError, match="is not a stylegan2 file"):
        convert("stylegan2", path, tmp_path / "out")
