"""What Ctrl-C and SIGTERM do while there is nothing to save, and then."""

import os
import signal

import pytest

from cgjax.runtime import signals
from cgjax.runtime.lock import FolderLock
from cgjax.runtime.processes import Processes


@pytest.mark.parametrize("number", signals.SIGNALS)
def test_a_mode_that_stops_at_once_can_clean_up(number):
    before = {each: signal.getsignal(each) for each in signals.SIGNALS}
    signals.raise_on_signals()
    try:
        with pytest.raises(KeyboardInterrupt):
            os.kill(os.getpid(), number)
    finally:
        for each, handler in before.items():
            signal.signal(each, handler)


@pytest.mark.parametrize("number", signals.SIGNALS)
def test_until_its_folder_is_locked_a_command_stops_at_once_and_then_after_its_unit_of_work(
    number, tmp_path
):
    with FolderLock(tmp_path) as lock, signals.handle_interrupts(Processes(), lock) as interrupts:
        with pytest.raises(KeyboardInterrupt):
            os.kill(os.getpid(), number)
        lock.acquire()
        assert not interrupts.requested
        os.kill(os.getpid(), number)
        assert interrupts.requested


def test_one_of_several_processes_never_stops_without_the_others(tmp_path):
    both = signals.handle_interrupts(Processes(1, 2), FolderLock(tmp_path))
    with both as interrupts:
        os.kill(os.getpid(), signal.SIGTERM)
        assert interrupts.requested
