"""A user's import path resolves, or one line says what is wrong and in which code."""

import sys

import pytest

from cgjax.errors import ForeignError, UserError
from cgjax.runtime.imports import load_attribute


@pytest.fixture
def write(tmp_path, monkeypatch):
    """Write modules into the current folder; they are unloaded afterwards."""
    monkeypatch.chdir(tmp_path)
    before = set(sys.modules)

    def write(name: str, text: str) -> None:
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)

    yield write
    for name in set(sys.modules) - before:
        del sys.modules[name]


def test_a_module_in_the_current_folder_is_found(write):
    write("beside_me.py", "x = 5\n")
    write("parcel/__init__.py", "")
    write("parcel/inner.py", "y = 6\n")
    assert load_attribute("beside_me:x", "judge") == 5
    assert load_attribute("parcel.inner:y", "judge") == 6


@pytest.mark.parametrize(
    "path", [":X", "mine:", "mine", "", ":", "a..b:c", "a:b:c", "a b:c", "3:x"]
)
def test_a_malformed_path_is_refused_with_an_example(path):
    with pytest.raises(UserError, match=r"generator .*expected package\.module:name"):
        load_attribute(path, "generator")


def test_a_missing_module_or_name_is_a_user_error(write):
    write("beside_me.py", "def make(): pass\n")
    write("parcel/__init__.py", "")
    with pytest.raises(UserError, match="no module 'nowhere'; run from the folder"):
        load_attribute("nowhere:x", "judge")
    with pytest.raises(UserError, match=r"no module 'parcel\.nowhere'"):
        load_attribute("parcel.nowhere:x", "judge")
    with pytest.raises(UserError, match="no module 'nowhere'"):
        load_attribute("nowhere.deep:x", "judge")
    with pytest.raises(
        UserError, match=r"no module 'beside_me\.py'; leave \.py out: beside_me:NAME"
    ):
        load_attribute("beside_me.py:make", "judge")
    with pytest.raises(UserError, match="has no 'maker'; did you mean beside_me:make"):
        load_attribute("beside_me:maker", "judge")


def test_a_syntax_error_is_one_line_with_file_and_line(write):
    write("broken.py", "x = 1\ndef f(:\n")
    with pytest.raises(UserError, match=r"broken\.py, line 2: ") as caught:
        load_attribute("broken:f", "generator")
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("body", "kind"),
    [
        ("import module_that_is_not_there", ModuleNotFoundError),
        ("from os import thing_that_is_not_there", ImportError),
        ("import os\nos.not_there", AttributeError),
        ("1 / 0", ZeroDivisionError),
        ("raise SystemExit(3)", SystemExit),
    ],
)
def test_an_error_inside_the_module_is_not_reported_as_a_bad_name(write, body, kind):
    write("raises.py", f"{body}\n")
    with pytest.raises(
        ForeignError, match=f"generator 'raises:x' raised {kind.__name__}"
    ) as caught:
        load_attribute("raises:x", "generator")
    assert isinstance(caught.value.__cause__, kind)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("path", ["os:abort", "subprocess:run", "builtins:exit", "os.path:join"])
def test_a_standard_library_module_is_refused(path, write):
    with pytest.raises(UserError, match="is one of Python's own modules; expected one of yours"):
        load_attribute(path, "generator")


def test_a_module_in_the_current_folder_may_shadow_the_standard_library(write):
    write("this.py", "x = 5\n")
    assert load_attribute("this:x", "judge") == 5


@pytest.mark.parametrize(
    ("folder", "file", "path"),
    [
        ("", "evil.py", "evil:x"),
        ("", "evil/__init__.py", "evil:x"),
        ("", "evil/inner.py", "evil.inner:x"),
        ("runs/faces", "evil.py", "runs.faces.evil:x"),
    ],
)
def test_a_module_in_a_run_s_folder_is_not_executed(folder, file, path, write, tmp_path):
    write(f"{folder}/{file}".lstrip("/"), "open('OWNED', 'w').close()\nx = 5\n")
    (tmp_path / folder / "stages").mkdir()
    (tmp_path / folder / "config.json").write_text("{}")
    with pytest.raises(UserError, match=r"evil.* is inside a run's folder, from which nothing"):
        load_attribute(path, "generator")
    assert not (tmp_path / "OWNED").exists()


def test_an_error_inside_a_package_is_the_users_too(write):
    write("parcel/__init__.py", "1 / 0\n")
    write("parcel/inner.py", "x = 5\n")
    with pytest.raises(ForeignError, match=r"'parcel\.inner:x' raised ZeroDivisionError"):
        load_attribute("parcel.inner:x", "generator")
