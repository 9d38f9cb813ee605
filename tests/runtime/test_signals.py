"""What Ctrl-C and SIGTERM do in a mode that keeps nothing when it is stopped."""

import os
import signal

import pytest

from cgjax.runtime import signals


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
