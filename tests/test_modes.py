"""The table of the modes and the flags of the command line agree."""

import pytest
from absl import flags

from cgjax.config.schema import CLUSTERS, TRAINING
from cgjax.errors import UserError
from cgjax.main import define_flags
from cgjax.modes import MODES, action_for, check_flags_of


@pytest.fixture
def options():
    values = flags.FlagValues()
    define_flags(values)
    return values


def test_the_help_of_a_flag_begins_with_the_modes_that_read_it(options):
    for name in options:
        readers = [mode for mode, record in MODES.items() if name in record.flags]
        prefix = f"{', '.join(readers)}: " if readers else ""
        assert options[name].help.startswith(prefix), name
        assert readers or options[name].help[0].isupper(), name


def test_every_flag_in_the_table_is_defined_and_the_first_mode_is_the_default(options):
    assert {flag for mode in MODES.values() for flag in mode.flags} <= set(options)
    options(["command"])
    assert options.mode == next(iter(MODES))


@pytest.mark.parametrize("mode", MODES)
def test_a_mode_accepts_its_own_flags_and_refuses_those_of_other_modes(mode, options):
    for name in options:
        values = {"seed": "1", "mode": mode}
        option = f"--{name}" if options[name].boolean else f"--{name}={values.get(name, '5')}"
        given = flags.FlagValues()
        define_flags(given)
        if name == "config":
            continue
        given(["command", option])
        readers = [other for other, record in MODES.items() if name in record.flags]
        if readers and mode not in readers:
            with pytest.raises(UserError, match=f"--{name} is for --mode={readers[0]}"):
                check_flags_of(mode, given)
        else:
            check_flags_of(mode, given)


def test_a_run_that_trains_a_generator_has_two_modes():
    assert [mode for mode, record in MODES.items() if TRAINING in record.actions] == [
        "run",
        "assign",
    ]
    for mode, record in MODES.items():
        assert CLUSTERS in record.actions
        if TRAINING not in record.actions:
            with pytest.raises(UserError, match=f"^--mode={mode} is for runs that cluster"):
                action_for(mode, TRAINING)
