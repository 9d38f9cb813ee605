"""An exception in the user's code is one line that names the code, then the traceback."""

import pytest

from cgjax.errors import ForeignError, Interrupted, UserError, foreign_code
from cgjax.runtime import command


def raise_inside(error: BaseException) -> None:
    with foreign_code("mine:Mine.features"):
        raise error


def test_the_command_line_prints_the_line_then_the_user_s_traceback_and_exits_with_1(
    monkeypatch, capsys
):
    monkeypatch.setattr(command.app, "run", lambda main, flags_parser: main([]))
    assert command.run_command(lambda _: raise_inside(KeyError("early"))) == 1
    lines = capsys.readouterr().err.splitlines()
    assert lines[0] == "error: mine:Mine.features raised KeyError: 'early'"
    assert lines[1] == "Traceback (most recent call last):"
    assert lines[-1] == "KeyError: 'early'"
    assert "ForeignError" not in "".join(lines)


@pytest.mark.parametrize("kind", [UserError, ForeignError, Interrupted, MemoryError])
def test_errors_meant_for_the_user_pass_unchanged(kind):
    error = kind("one line")
    with pytest.raises(kind) as caught:
        raise_inside(error)
    assert caught.value is error


def test_ctrl_c_inside_the_user_s_code_is_ctrl_c():
    with pytest.raises(KeyboardInterrupt):
        raise_inside(KeyboardInterrupt())


def test_a_multiline_message_becomes_one_line():
    with pytest.raises(ForeignError) as caught:
        raise_inside(ValueError("first\n  second"))
    assert str(caught.value) == "mine:Mine.features raised ValueError: first second"
