"""Folders are created or refused in one line; files are written atomically."""

import errno
import json
import math
import os

import pytest

from cgjax.errors import UserError
from cgjax.runtime import files
from cgjax.runtime.files import (
    check_folder,
    make_folder,
    read_sealed,
    say_os_error,
    write_atomically,
    write_json,
    write_sealed,
)


def test_a_folder_is_created_with_its_parents(tmp_path):
    assert make_folder(tmp_path / "a" / "b", "--out").is_dir()
    assert make_folder(tmp_path / "a" / "b", "--out").is_dir()


@pytest.mark.parametrize("function", [check_folder, make_folder])
@pytest.mark.parametrize("place", ["file", "file/below", "link", "link/below"])
def test_a_path_that_cannot_be_a_folder_is_named_with_its_option(function, place, tmp_path):
    (tmp_path / "file").write_text("")
    (tmp_path / "link").symlink_to(tmp_path / "nowhere")
    with pytest.raises(UserError) as error:
        function(tmp_path / place, "--out")
    kind = "a file" if place.startswith("file") else "a broken link"
    assert str(error.value) == (
        f"--out={tmp_path / place}: cannot write to this folder ({tmp_path / place.split('/')[0]} "
        f"is {kind}); name another one"
    )
    assert sorted(path.name for path in tmp_path.iterdir()) == ["file", "link"]


@pytest.mark.parametrize("function", [check_folder, make_folder])
def test_a_folder_that_cannot_be_written_is_refused(function, tmp_path, monkeypatch):
    monkeypatch.setattr(files.os, "access", lambda path, mode: False)  # root may write anywhere
    with pytest.raises(UserError, match=f"no permission to write in {tmp_path}"):
        function(tmp_path / "a", "--workdir")
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EROFS, errno.EACCES, errno.ENAMETOOLONG])
def test_the_systems_error_about_a_folder_is_one_line(number, tmp_path, monkeypatch):
    def mkdir(path, *args, **kwargs):
        raise OSError(number, os.strerror(number), str(path))

    monkeypatch.setattr(files.Path, "mkdir", mkdir)
    with pytest.raises(UserError) as error:
        make_folder(tmp_path / "a", "--workdir")
    assert os.strerror(number) in str(error.value)
    assert "\n" not in str(error.value)


def test_a_failed_write_keeps_the_old_file_and_leaves_no_other(tmp_path, monkeypatch):
    path = tmp_path / "x"
    write_atomically(path, b"old")

    def full(number):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(files.os, "fsync", full)
    with pytest.raises(UserError, match=f"cannot write {path}: No space left"):
        write_atomically(path, b"new")
    assert [p.name for p in tmp_path.iterdir()] == ["x"]
    assert path.read_bytes() == b"old"


def test_ctrl_c_during_a_write_leaves_no_temporary_file(tmp_path, monkeypatch):
    def interrupt(number):
        raise KeyboardInterrupt

    monkeypatch.setattr(files.os, "fsync", interrupt)
    with pytest.raises(KeyboardInterrupt):
        write_atomically(tmp_path / "x", b"new")
    assert not list(tmp_path.iterdir())


def test_an_error_without_a_file_names_none():
    assert say_os_error(OSError(errno.EIO, "Input/output error")) == "Input/output error"
    assert say_os_error(OSError("of our own")) == "of our own"


def test_nan_and_infinity_become_null_in_json(tmp_path):
    write_json(tmp_path / "a.json", {"a": math.nan, "b": [1.5, (-math.inf,)]})
    text = (tmp_path / "a.json").read_text()
    assert json.loads(text, parse_constant=pytest.fail) == {"a": None, "b": [1.5, [None]]}


def test_a_sealed_file_is_read_as_it_was_written_and_an_edited_one_is_not(tmp_path):
    path, content = tmp_path / "a.json", {"rows": {i: (i, 0.1, math.nan) for i in range(12)}}
    write_sealed(path, content)
    assert read_sealed(path) == {"rows": {str(i): [i, 0.1, None] for i in range(12)}}
    path.write_text(path.read_text().replace("0.1", "0.2", 1))
    assert read_sealed(path) is None
    path.write_text('{"of": "an earlier version"}')
    assert read_sealed(path) == {"of": "an earlier version"}


def test_a_file_can_be_read_by_everybody_and_written_by_its_owner(tmp_path):
    write_atomically(tmp_path / "x", b"")
    assert (tmp_path / "x").stat().st_mode & 0o777 == 0o644
