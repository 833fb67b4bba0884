"""Processes of ours that start at once: forked from one that has imported what takes long, they end as fresh ones do."""

import atexit
import multiprocessing
import os
import runpy
import signal
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from multiprocessing import resource_tracker
from pathlib import Path

_FORKS = multiprocessing.get_context("forkserver")
_FORKS.set_forkserver_preload(["tests.preloaded"])


class Process:
    """A running module, with what `subprocess.Popen` has to ask it and to end it."""

    def __init__(self, command: list[str], folder: Path, environment: Mapping[str, str]) -> None:
        """Start `python -m` with these words in a folder, in a session of its own."""
        self.args = command
        self._outputs = []
        for _ in range(2):
            descriptor, path = tempfile.mkstemp()
            os.close(descriptor)
            self._outputs.append(Path(path))
        arguments = (command, str(folder), dict(environment), list(map(str, self._outputs)))
        self._process = _FORKS.Process(target=_become, args=arguments)
        self._process.start()
        # A server of the whole session is no child that a test may find, kill or wait for.
        multiprocessing.process._children.discard(self._process)  # noqa: SLF001
        assert self._process.pid
        self.pid = self._process.pid

    @property
    def returncode(self) -> int | None:
        return self._process.exitcode

    def poll(self) -> int | None:
        return self._process.exitcode

    def wait(self, timeout: float | None = None) -> None:
        self._process.join(timeout)
        if self._process.exitcode is None:
            raise subprocess.TimeoutExpired(self.args, timeout or 0)

    def communicate(self, timeout: float | None = None) -> tuple[str, str]:
        """Wait for the end; return what was printed and what was said on stderr."""
        self.wait(timeout)
        output, errors = (path.read_text() for path in self._outputs)
        for path in self._outputs:
            path.unlink()
        return output, errors

    def send_signal(self, number: int) -> None:
        # It may end after the question, as subprocess has it, too.
        if self.poll() is None:
            with suppress(ProcessLookupError):
                os.kill(self.pid, number)

    @contextmanager
    def paused(self) -> Iterator[None]:
        """Hold the process still, which must be at work, while a block runs."""
        assert self.poll() is None, "it has ended already"
        self.send_signal(signal.SIGSTOP)
        try:
            yield
        finally:
            self.send_signal(signal.SIGCONT)

    def kill(self) -> None:
        self.send_signal(signal.SIGKILL)


def _become(command: list[str], folder: str, environment: dict[str, str], outputs: list[str]) -> None:
    """Be a process that has just been started with a command."""
    assert "tests.preloaded" in sys.modules, "what cannot be imported is passed over there"
    os.setsid()
    for descriptor, path in enumerate(outputs, start=1):
        os.dup2(os.open(path, os.O_WRONLY), descriptor)
    os.chdir(folder)
    os.environ.clear()
    os.environ.update(environment)
    tempfile.tempdir = None
    # What is tracked for the tests would be kept until their end.
    tracker = resource_tracker._resource_tracker  # noqa: SLF001 - as `multiprocessing` itself does in a new process
    tracker._fd = tracker._pid = None  # type: ignore[attr-defined]  # noqa: SLF001
    module, *words = command
    # As Python has it while it looks up a module that it is to run: what the package `stages` prepares itself by.
    sys.argv[:] = ["-m", *words]
    try:
        runpy.run_module(module, run_name="__main__", alter_sys=True)
    finally:
        atexit._run_exitfuncs()  # noqa: SLF001 - a process of `multiprocessing` ends without them
