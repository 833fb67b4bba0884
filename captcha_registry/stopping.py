"""How a signal ends a process that has nothing to clean up; quick to import, as one may come during the first imports."""

import os
import signal
from contextlib import suppress
from types import FrameType

# What ends a process; Windows has no SIGHUP.
ENDING_SIGNALS = [getattr(signal, name) for name in ("SIGINT", "SIGTERM", "SIGHUP") if hasattr(signal, name)]


def heed_signals() -> None:
    """Have this process end with one line at a signal; what is ignored, as `nohup` has it, stays so."""
    for number in ENDING_SIGNALS:
        if signal.getsignal(number) is not signal.SIG_IGN:
            signal.signal(number, end_at_once)


def end_at_once(number: int, _frame: FrameType | None) -> None:
    """End the process where nothing has to be cleaned up, or that takes too long."""
    with suppress(OSError):
        # Not `print`: the signal may have come during one.
        os.write(2, f"{describe_stop(number)}\n".encode())
    os._exit(128 + number)


def describe_stop(number: int) -> str:
    """Say what has stopped the process."""
    by = "" if number == signal.SIGINT else f" by {signal.Signals(number).name}"
    return f"stopped{by}; run the same command again to go on"
