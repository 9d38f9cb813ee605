"""The table of the modes and the flags of the command line agree."""

import sys
from pathlib import Path

import pytest
from absl import flags

from cgjax.config.plain import to_plain
from cgjax.config.schema import CLUSTERS, TRAINING
from cgjax.errors import UserError
from cgjax.main import define_flags, typed_config
from cgjax.modes import MODES, RUN_FOLDERS, Command, action_for, check_flags_of
from cgjax.run.folder import RunFolder
from cgjax.run.places import NAMED_PLACE_GLOBS, PLACES, RESULT_PLACES
from cgjax.runtime import events
from cgjax.runtime.lock import FolderLock
from cgjax.runtime.processes import Processes
from cgjax.runtime.signals import Interrupts
from configs import tiny


def parsed(*arguments):
    """Return the flags of a command line."""
    values = flags.FlagValues()
    define_flags(values)
    values(["command", *arguments])
    return values


OPTIONS = parsed()
READERS = {flag: [m for m, mode in MODES.items() if flag in mode.flags] for flag in OPTIONS}


def test_a_draw_is_never_written_to_a_folder_of_the_run():
    root = Path("run")
    of_run = [path for path in vars(RunFolder(root)).values() if path != root and not path.suffix]
    places = [*PLACES, *RESULT_PLACES, *NAMED_PLACE_GLOBS]
    written = {path.relative_to(root).parts[0] for path in of_run}
    written |= {place.split("/")[0] for place in places if "/" in place}
    assert written | {"", events.FOLDER} == RUN_FOLDERS


@pytest.mark.usefixtures("untyped")
@pytest.mark.filterwarnings("ignore:the load_module:DeprecationWarning")
def test_the_settings_that_were_typed_are_kept_in_whatever_form(monkeypatch):
    words = ["--config", "configs/tiny.py:quick", "--noconfig.samplers.gan.fit", "--workdir"]
    words += ["config.d", "--config.compare.centre", "-5", "--config.samplers.vae.fit"]
    words += ["--config.layer", "2", "--config.seed=1", "--config.layer=3"]
    monkeypatch.setattr(sys, "argv", ["command", *words])
    assert typed_config(parsed(*words)) == [
        *("--config=configs/tiny.py:quick", "--noconfig.samplers.gan.fit"),
        *("--config.compare.centre=-5", "--config.samplers.vae.fit", "--config.layer=3"),
        "--config.seed=1",
    ]


def test_every_flag_in_the_table_is_defined():
    assert {flag for mode in MODES.values() for flag in mode.flags} <= set(OPTIONS)


@pytest.mark.parametrize("flag", [flag for flag in OPTIONS if READERS[flag]])
def test_the_help_of_a_flag_begins_with_the_modes_that_read_it(flag):
    assert OPTIONS[flag].help.startswith(f"{', '.join(READERS[flag])}: ")


@pytest.mark.parametrize("mode", MODES)
def test_a_mode_accepts_its_own_flags_and_refuses_those_of_other_modes(mode):
    for flag in filter(READERS.get, OPTIONS):
        options = parsed(f"--{flag}" if OPTIONS[flag].boolean else f"--{flag}=1")
        if mode in READERS[flag]:
            check_flags_of(mode, options)
        else:
            with pytest.raises(UserError, match=f"^--{flag} is for --mode={READERS[flag][0]}"):
                check_flags_of(mode, options)


def test_an_empty_flag_is_refused_except_a_name():
    check_flags_of("name", parsed("--cluster=0", "--name="))
    with pytest.raises(UserError, match=r"^--out= is empty: give a value"):
        check_flags_of("sample", parsed("--out="))


def test_a_flag_does_not_take_the_next_flag_for_its_value():
    for flag in ("--workdir", "--cluster"):
        with pytest.raises(UserError, match=f"^{flag} is followed by --num=3; expected {flag}=V"):
            check_flags_of("sample", parsed(flag, "--num=3"))


def test_devices_that_there_are_not_are_refused_before_anything_is_written(tmp_path):
    root = tmp_path / "run"
    arguments = (Processes(), FolderLock(root), Interrupts())
    config = to_plain(tiny.get_config("quick"))
    command = Command("run", parsed("--devices=99"), root, config, [], *arguments)
    with pytest.raises(UserError, match=r"^--devices=99: there are \d+ devices"):
        action_for("run", CLUSTERS)(command)
    assert not root.exists()


@pytest.mark.parametrize("mode", MODES)
def test_a_mode_that_a_training_run_lacks_is_refused(mode):
    assert CLUSTERS in MODES[mode].actions
    if mode in ("run", "assign", "report"):
        assert action_for(mode, TRAINING) != action_for(mode, CLUSTERS)
    else:
        with pytest.raises(UserError, match=f"^--mode={mode} is for runs that cluster"):
            action_for(mode, TRAINING)
