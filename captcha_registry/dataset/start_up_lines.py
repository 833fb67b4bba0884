"""Keep TensorFlow's start-up lines off standard error, and nothing else.

TensorFlow writes notes while its libraries are loaded, before it reads its own TF_CPP_MIN_LOG_LEVEL: on oneDNN, and on drivers
for GPUs that are not there. Meanwhile standard error is a pipe to another process, which runs this file and passes on all other
lines. So what TensorFlow says when it brings this process down is shown, too. TF_CPP_MIN_LOG_LEVEL=0 shows every line.
"""

import os
import re
import sys
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from subprocess import DEVNULL, PIPE, Popen, TimeoutExpired
from typing import Any

_LEVEL = "TF_CPP_MIN_LOG_LEVEL"
# Notes of the level INFO, which are left out later as well; and what is no error: that there is no driver or no GPU, and that
# oneDNN has no kernel for something, which it says of processors with AVX-512 too.
_START_UP_LINE = re.compile(
    rb"WARNING: All log messages before absl::InitializeLog\(\) is called are written to STDERR"
    rb"|I0000 00:00:[\d.]+ +\d+ \S+:\d+\] "
    rb"|[\d-]+ [\d:.]+: I (tensorflow|external)/"
    rb"|E0000 .*failed call to cuInit: .*(UNKNOWN ERROR \(303\)|CUDA_ERROR_NO_DEVICE)"
    rb"|E0000 .*oneDNN supports DT_BOOL only on platforms with AVX-512"
)
# What another thread starts meanwhile keeps the pipe open, perhaps for long.
_WAIT_SECONDS = 5.0


@contextmanager
def leave_out_start_up_lines() -> Iterator[None]:
    """Keep TensorFlow's start-up lines off standard error, in the block that brings them up."""
    if os.environ.setdefault(_LEVEL, "1") == "0":
        yield
        return
    with ExitStack() as put_back:
        # Where standard error is closed, or no process can be started, all stays as it is.
        with suppress(OSError):
            stderr = os.dup(2)
            put_back.callback(os.close, stderr)
            # In a session of its own: neither Ctrl-C nor a terminal that closes ends it before this process.
            command = [sys.executable or "python3", "-IS", __file__]
            reader: Any = Popen(command, stdin=PIPE, stdout=DEVNULL, stderr=stderr, start_new_session=True)
            put_back.callback(_wait_for, reader)
            put_back.callback(os.dup2, stderr, 2)
            os.dup2(reader.stdin.fileno(), 2)
            reader.stdin.close()
        yield


def _wait_for(reader: Popen[bytes]) -> None:
    with suppress(TimeoutExpired):
        reader.wait(_WAIT_SECONDS)


def _pass_on() -> None:
    """Copy standard input to standard error without the start-up lines; what nobody listens to is read nevertheless."""
    for line in sys.stdin.buffer:
        if not _START_UP_LINE.match(line):
            with suppress(OSError):
                os.write(2, line)


if __name__ == "__main__":
    _pass_on()
