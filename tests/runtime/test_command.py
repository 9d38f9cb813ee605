"""How commands end: every mistake in one line that says what to type, bugs with their traceback."""

import errno
import os
import sys

import jax
import numpy as np
import pytest
from absl import flags
from ml_collections import config_flags

from cgjax.config import plain as configuration
from cgjax.errors import Interrupted, UserError
from cgjax.runtime.command import leave, run_command, users_error
from cgjax.runtime.flag_errors import FLAG_ERRORS, explain
from cgjax.runtime.system import StdoutError

# ml_collections' own, once for each config file.
pytestmark = pytest.mark.filterwarnings("ignore:the load_module:DeprecationWarning")


def end(monkeypatch, capsys, error):
    """Return the exit code and the stderr of a command that raises an error."""

    def main(argv):
        raise error

    monkeypatch.setattr(sys, "argv", ["command"])
    code = run_command(main)
    return code, capsys.readouterr().err


@pytest.mark.parametrize(
    ("error", "code", "expected"),
    [
        (UserError("do\n this"), 2, "error: do this\n"),
        (Interrupted("saved at epoch 3"), 130, "interrupted: saved at epoch 3\n"),
        (KeyboardInterrupt(), 130, "interrupted: stopped at once\n"),
        (PermissionError(errno.EACCES, "Permission denied", "/x"), 2, "error: /x: Permission d"),
        (OSError(errno.EROFS, "Read-only file system", "/x"), 2, "error: /x: Read-only"),
        (NotADirectoryError(errno.ENOTDIR, "Not a directory", "/x"), 2, "error: /x: Not a dir"),
        (FileExistsError(errno.EEXIST, "File exists", "/x"), 2, "error: /x: File exists"),
        (OSError(errno.ENOSPC, "No space left on device"), 2, "error: No space left on device; fr"),
        (StdoutError(errno.ENOSPC, "No space left on device"), 2, "error: cannot write to stand"),
        (StdoutError(errno.EPIPE, "Broken pipe"), 141, ""),
        (MemoryError("Unable to allocate 3.7 TiB for an array"), 2, "error: not enough memory (fo"),
    ],
)
def test_what_a_user_can_change_is_one_line(error, code, expected, monkeypatch, capsys):
    found, err = end(monkeypatch, capsys, error)
    assert found == code
    assert err.startswith(expected)
    assert err.count("\n") == bool(expected)


@pytest.mark.parametrize(
    ("argument", "expected"),
    [
        ("--flagfile=none", "No such file or directory; expected a file with one flag a line"),
        (
            "--config=runs/a/config.json",
            "expected a config file in Python; for the config that a run saved, leave --config out "
            "and give --workdir=runs/a",
        ),
    ],
)
def test_a_file_that_holds_no_flags_or_config_is_refused(argument, expected, monkeypatch, capsys):
    monkeypatch.setattr(sys, "argv", ["command", argument])
    assert run_command(lambda _: None, lambda _: None) == 2
    assert capsys.readouterr().err == f"error: {argument}: {expected}\n"


def test_flags_in_a_file_are_as_if_they_were_typed(tmp_path, monkeypatch):
    file = tmp_path / "flags.txt"
    file.write_text("--verbosity=0\n")
    monkeypatch.setattr(sys, "argv", ["command", f"--flagfile={file}"])
    assert run_command(lambda _: None) == 0
    assert sys.argv == ["command", "--verbosity=0"]


@pytest.mark.parametrize(("code", "at_once"), [(0, []), (2, [2]), (130, [130])])
def test_only_a_command_that_came_to_its_end_lets_python_end_in_order(code, at_once, monkeypatch):
    # XLA may still compute after Ctrl-C: its threads crashed in Python's end, with exit code 139.
    ended: list[int] = []
    monkeypatch.setattr(os, "_exit", ended.append)
    with pytest.raises(SystemExit):
        leave(lambda: code)
    assert ended == at_once


@pytest.mark.parametrize(
    "error",
    [
        ValueError("a bug"),
        RuntimeError("RESOURCE_EXHAUSTED is only a word here"[:5]),
        FileNotFoundError(errno.ENOENT, "No such file or directory", "/x"),
        PermissionError(errno.EACCES, "of no file"),
    ],
)
def test_bugs_keep_their_traceback(error, monkeypatch, capsys):
    with pytest.raises(type(error)):
        end(monkeypatch, capsys, error)


def test_too_little_memory_names_the_settings_to_lower():
    arguments = ["--config.samplers.imle.code_dim=100000000", "--workdir=x", "--config.seed=1"]
    with pytest.raises(MemoryError) as numpys:
        np.empty(2**55, np.float32)
    xlas = jax.errors.JaxRuntimeError("RESOURCE_EXHAUSTED: Out of memory allocating 51200000000 b")
    too_big = ValueError("array is too big; `arr.size * arr.dtype.itemsize` is larger than ...")
    for error in (numpys.value, xlas, too_big):
        line = users_error(error, arguments)
        assert line.startswith("not enough memory")
        assert line.endswith("lower --config.samplers.imle.code_dim=100000000")
    assert "GiB" in users_error(xlas.__class__("RESOURCE_EXHAUSTED: allocating 51200000000 bytes"))
    assert "--config.generator.batch" in users_error(MemoryError())


def message(*arguments):
    """Return the message for a wrong command line with a config."""
    values, argv = flags.FlagValues(), ["command", *arguments]
    config = config_flags.DEFINE_config_file("config", flag_values=values, sys_argv=argv)
    flags.DEFINE_integer("devices", None, "", lower_bound=1, flag_values=values)
    flags.DEFINE_integer("port", None, "", lower_bound=0, upper_bound=65535, flag_values=values)
    flags.DEFINE_bool("verify", True, "", flag_values=values)
    flags.DEFINE_enum("mode", "run", ["run", "sample"], "", flag_values=values)
    try:
        values(argv)
        configuration.to_plain(config.value)
    except (flags.Error, *FLAG_ERRORS) as error:
        return str(explain(error, argv))
    raise AssertionError("no error")


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        (
            ["--config.cluster.numclusters=3"],
            "--config.cluster.numclusters: no such setting in this config; did you mean "
            "--config.cluster.num_clusters?",
        ),
        (
            ["--config.clusters.num_init=3"],
            "--config.clusters.num_init: no such setting in this config; did you mean "
            "--config.cluster.num_init?",
        ),
        (
            ["--config.latents.num.x=3"],
            "--config.latents.num.x: no such setting in this config; the settings are in "
            "configs/tiny.py and what it imports",
        ),
        # No setting has a similar name.
        (
            ["--config.cluster.palette=3"],
            "--config.cluster.palette: no such setting in this config; the settings are in "
            "configs/tiny.py and what it imports",
        ),
        (
            ["--config.palette=3"],
            "--config.palette: no such setting in this config; the settings are in "
            "configs/tiny.py and what it imports",
        ),
        (["--config.latents.num=many"], "--config.latents.num=many: expected a whole number"),
        (["--config.cluster.tol=x"], "--config.cluster.tol=x: expected a number"),
        (["--config.samplers.flow.fit=x"], "--config.samplers.flow.fit=x: expected true or false"),
        (
            ["--config.cluster=3"],
            "--config.cluster=3: expected one of its settings, as --config.cluster.NAME=VALUE",
        ),
        (["--devices"], "--devices has no value; expected --devices=VALUE"),
        (["--devices=0"], "--devices=0: expected a positive integer"),
        (["--devices=two"], "--devices=two: expected a whole number"),
        (["--port=-1"], "--port=-1: expected an integer in the range [0, 65535]"),
        (["--verify=maybe"], "--verify=maybe: expected true or false"),
        (["--mode=draw"], "--mode=draw: expected one of <run|sample>"),
        (
            ["--config.sweep.numbers=2 3"],
            "--config.sweep.numbers=2 3: expected a list, as in --config.sweep.numbers=2,3",
        ),
        (
            ["--config.compare.margins=0.5:0.8,0.9"],
            "--config.compare.margins=0.5:0.8,0.9: expected a list, as in "
            """'--config.compare.margins='"'"'0.5:0.8'"'"',0.9'""",
        ),
        (
            ["--config.seed=1", "--config=configs/tiny.py"],
            "--config=configs/tiny.py: expected one --config only",
        ),
        (["--divices=3"], "Unknown command line flag 'divices'. Did you mean: devices ?"),
    ],
)
def test_a_wrong_flag_is_named_with_what_is_expected(arguments, expected):
    assert message("--config=configs/tiny.py:quick", *arguments) == expected


@pytest.mark.usefixtures("untyped")  # what stands for a config that could not be loaded
@pytest.mark.parametrize(
    ("content", "expected"),
    [
        (None, "No such file or directory; expected a file, for example"),
        ("x = = 1", "invalid syntax ({}, line 1); expected a config file in Python"),
        ("import no_such_module", "No module named 'no_such_module'"),
    ],
)
@pytest.mark.parametrize("override", [[], ["--config.seed=1"]])
def test_an_unusable_config_file_is_named(content, expected, override, tmp_path):
    path = tmp_path / "mine.py"
    if content is not None:
        path.write_text(content)
    found = message(f"--config={path}", *override)
    assert found.startswith(f"--config={path}: {expected.format(path)}")


@pytest.mark.usefixtures("untyped")  # what stands for a config that could not be loaded
def test_a_setting_without_a_config_file_asks_for_one():
    asked = "--config.seed=3: give the config file before it, --config=FILE"
    assert message("--config.seed=3") == asked
    assert message("--config.seed=3", "--config=configs/tiny.py") == asked
    assert message("--config=").startswith("--config is empty")


@pytest.mark.usefixtures("untyped")
def test_a_missing_config_names_the_last_one_and_the_file_that_was_meant(tmp_path, monkeypatch):
    missing = ": No such file or directory; "
    found = message("--config=configs/tiny.py", "--config=configs/scgan_ring:quick")
    assert found == (
        f"--config=configs/scgan_ring{missing}did you mean --config=configs/scgan_ring.py?"
    )
    monkeypatch.chdir(tmp_path)
    assert message("--config=scgan_ring").endswith("/configs/scgan_ring.py")


def test_an_error_raised_by_a_config_is_shown_without_its_type(tmp_path):
    found = message("--config=configs/tiny.py:fast")
    assert found == "config variant 'fast' is not known; expected none or :quick"
