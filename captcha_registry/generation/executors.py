"""Where tasks run: executors behind the interface of `concurrent.futures`."""

import multiprocessing
import os
import signal
import threading
from collections.abc import Iterator
from concurrent.futures import Executor, ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager

from captcha_registry.errors import UserError


def count_usable_cores() -> int:
    """Count the cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


@contextmanager
def local_processes(num_workers: int) -> Iterator[Executor]:
    """Run tasks in worker processes that stop at once when the caller fails, is interrupted or dies.

    Raises:
        UserError: there is no worker, or one was killed, most often for want of memory.
    """
    if num_workers < 1:
        raise UserError(f"{num_workers} worker processes are asked for; expected at least 1")
    # Spawned, not forked: a fresh interpreter per worker, whatever threads this process runs.
    executor = ProcessPoolExecutor(num_workers, multiprocessing.get_context("spawn"), initializer=_prepare_worker)
    workers_before = set(multiprocessing.active_children())
    try:
        yield executor
    except BaseException as error:
        for worker in set(multiprocessing.active_children()) - workers_before:
            worker.kill()
        if isinstance(error, BrokenProcessPool):
            raise UserError(
                "a worker process was killed, most often for want of memory: run the same command again, it goes on from here"
            ) from error
        raise
    finally:
        executor.shutdown(cancel_futures=True)


def _prepare_worker() -> None:
    """Leave Ctrl-C to the parent, and never outlive it."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    threading.Thread(target=_exit_with_parent, daemon=True).start()


def _exit_with_parent() -> None:
    parent = multiprocessing.parent_process()
    if parent is not None:
        parent.join()
        os._exit(1)
