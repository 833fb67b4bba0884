"""Where tasks run: processes of this machine or workers of a Dask cluster, both behind `concurrent.futures.Executor`."""

import logging
import multiprocessing
import os
import pickle
import shutil
import signal
import socket
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import CancelledError, Executor, Future, InvalidStateError, ProcessPoolExecutor, ThreadPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from functools import partial
from multiprocessing import resource_tracker
from multiprocessing.context import SpawnContext, SpawnProcess
from typing import Annotated, Any, Literal

from captcha_registry.errors import UserError
from captcha_registry.extras import needs
from captcha_registry.machine import count_workers
from captcha_registry.params import Section, text_like

# So long a cluster may be without any worker, at the start and later.
WORKERS_TIMEOUT_SECONDS = 30
MOST_WORKERS = 1_000
# Drawn sooner than worker processes start.
FEW_SAMPLES = 1_000
_PAUSE_SECONDS = 1
_SIGNAL_SECONDS = 0.2


class DrawingParams(Section):
    """Where shards are drawn, which changes none of their bytes: the params model behind `drawing`."""

    executor: Literal["local", "dask"]
    scheduler: Annotated[str, text_like(r"(tcp|tls)://[^/?#\s]+:[0-9]{1,5}", "an address such as tcp://127.0.0.1:8786")]


@contextmanager
def open_executor(
    params: DrawingParams, num_samples: int, num_workers: int | None, describe_tools: Callable[[], dict[str, str]]
) -> Iterator[Executor]:
    """Open the executor that the params ask for.

    Args:
        params: this machine, or a Dask cluster and its address.
        num_samples: as `open_local`.
        num_workers: as `open_local`; a cluster has as many as it has.
        describe_tools: tells the versions of all that decides the bytes of a result.
    """
    is_local = params.executor == "local"
    with open_local(num_samples, num_workers) if is_local else dask_cluster(params.scheduler, describe_tools) as executor:
        yield executor


@contextmanager
def open_local(num_samples: int, num_workers: int | None = None) -> Iterator[Executor]:
    """Open what draws or verifies on this machine: worker processes, or for few samples a thread of this process.

    Args:
        num_samples: of the dataset.
        num_workers: how many processes; None: as many as are good for it.

    Raises:
        UserError: as `local_processes`.
    """
    if num_workers is not None or num_samples > FEW_SAMPLES:
        with local_processes(count_workers() if num_workers is None else num_workers) as executor:
            yield executor
        return
    executor = ThreadPoolExecutor(1)
    try:
        yield executor
    finally:
        executor.shutdown(cancel_futures=True)


@contextmanager
def local_processes(num_workers: int, *, niceness: int = 0) -> Iterator[Executor]:
    """Run tasks in worker processes that stop at once when the caller fails, is interrupted or dies.

    Args:
        num_workers: how many.
        niceness: 1 to 19 for workers that leave the cores to others, 19 the most.

    Raises:
        UserError: there is no worker, or one was killed, most often for lack of memory.
    """
    if not 1 <= num_workers <= MOST_WORKERS:
        raise UserError(f"--workers is {num_workers}; expected 1 to {MOST_WORKERS:,}, or leave it out for one per core")
    with (
        tempfile.TemporaryDirectory(prefix="captcha-registry-", ignore_cleanup_errors=True) as scratch,
        _open_pool(num_workers, scratch, niceness) as executor,
    ):
        yield executor


@contextmanager
def _open_pool(num_workers: int, scratch: str, niceness: int) -> Iterator[Executor]:
    """Open worker processes whose temporary files are in a folder."""
    _start_tracker()
    executor = ProcessPoolExecutor(num_workers, _WorkerContext(), initializer=_prepare_worker, initargs=(scratch, niceness))
    workers_before = set(multiprocessing.active_children())
    try:
        yield executor
    except BaseException as error:
        for worker in set(multiprocessing.active_children()) - workers_before:
            worker.kill()
        if isinstance(error, BrokenProcessPool):
            # A signal that ends all processes of a group, this one too, may reach the workers first.
            time.sleep(_SIGNAL_SECONDS)
            raise UserError(
                "a worker process was killed, most often for lack of memory: run the same command again, it goes on from here"
            ) from error
        raise
    finally:
        executor.shutdown(cancel_futures=True)


def _start_tracker() -> None:
    """Start what keeps the locks of worker processes such that a terminal that is closed does not end it.

    Python would start another one, which knows none of the locks and says so at length.
    """
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGHUP})
    try:
        resource_tracker.ensure_running()
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


class _Worker(SpawnProcess):
    """A worker process that Ctrl-C never reaches, not even while it starts: that is the parent's to deal with."""

    def start(self) -> None:
        before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
        try:
            super().start()
        finally:
            signal.pthread_sigmask(signal.SIG_SETMASK, before)


class _WorkerContext(SpawnContext):
    """Spawns, not forks: a fresh interpreter per worker, whatever threads this process runs."""

    Process = _Worker


def _prepare_worker(scratch: str, niceness: int) -> None:
    """Put what is temporary where the parent clears it away, and never outlive it."""
    tempfile.tempdir = scratch
    with suppress(OSError):
        os.nice(niceness)
    threading.Thread(target=_exit_with_parent, args=(scratch,), daemon=True).start()


def _exit_with_parent(scratch: str) -> None:
    parent = multiprocessing.parent_process()
    if parent is not None:
        parent.join()
        shutil.rmtree(scratch, ignore_errors=True)
        os._exit(1)


@contextmanager
def dask_cluster(scheduler: str, describe_tools: Callable[[], dict[str, str]]) -> Iterator[Executor]:
    """Run tasks on the workers of a Dask cluster; what a worker has begun when it dies is begun again by another.

    Raises:
        UserError: the package is missing, no scheduler answers, it has ended, it has no worker or none is left, or a worker has
            other tools than this process.
    """
    with needs("params.yaml: drawing.executor: dask"):
        from distributed import Client, KilledWorker  # noqa: PLC0415
    # They would log in 50 lines that the scheduler has ended, which is one line of ours; the last one calls it critical.
    for name in ("distributed.client", "tornado.application", "concurrent.futures"):
        logging.getLogger(name).setLevel(logging.CRITICAL + 1)
    try:
        client = Client(scheduler, timeout=10)
    except OSError:
        raise UserError(
            f"no Dask scheduler answers at {scheduler}: start one with `dask scheduler`, see docs/howto/cluster.md"
        ) from None
    except (TypeError, ValueError) as error:
        # Of settings that Dask lacks, such as certificates for tls.
        raise UserError(f"Dask cannot connect to {scheduler} ({error}): see its pages on addresses and security") from None
    try:
        try:
            client.wait_for_workers(1, timeout=WORKERS_TIMEOUT_SECONDS)
        except TimeoutError:
            raise UserError(f"the Dask scheduler at {scheduler} has no worker: start some, `dask worker {scheduler}`") from None
        executor = _ClusterExecutor(client, describe_tools)
        with _cancel_without_workers(client, executor) as is_without_workers:
            yield executor
    except CancelledError as error:
        if is_without_workers.is_set():
            lost = f"has had no worker for {WORKERS_TIMEOUT_SECONDS} seconds: start some, `dask worker {scheduler}`, and"
        else:
            lost = "no longer answers: start it again, with workers, and"
        raise UserError(f"the Dask scheduler at {scheduler} {lost} run the same command again, it goes on from here") from error
    except KilledWorker as error:
        raise UserError(f"{error} Run the same command again, it goes on from here") from error
    finally:
        client.close()


@contextmanager
def _cancel_without_workers(client: Any, executor: "_ClusterExecutor") -> Iterator[threading.Event]:
    """Cancel all tasks when the scheduler has ended, or has had no worker for too long; yield what tells that this was it."""
    is_over, is_without_workers = threading.Event(), threading.Event()

    def watch() -> None:
        last_seen = time.monotonic()
        while not is_over.wait(_PAUSE_SECONDS):
            try:
                last_seen = time.monotonic() if client.nthreads() else last_seen
            except (OSError, RuntimeError):
                executor.give_up()
                return
            if time.monotonic() - last_seen > WORKERS_TIMEOUT_SECONDS:
                is_without_workers.set()
                executor.shutdown(wait=False)
                return

    watcher = threading.Thread(target=watch, daemon=True)
    watcher.start()
    try:
        yield is_without_workers
    finally:
        is_over.set()
        watcher.join()


@dataclass(frozen=True)
class _Shared:
    """What the workers keep, pickled, for many tasks."""

    future: Any


class _ClusterExecutor(Executor):
    """Passes tasks on to workers of a Dask cluster that have the same tools as this process."""

    def __init__(self, client: Any, describe_tools: Callable[[], dict[str, str]]) -> None:
        """Pass tasks on through `client`."""
        # Not pure: Dask would take two tasks with equal arguments for one.
        self._client, self._executor = client, client.get_executor(pure=False)
        self._describe, self._expected = describe_tools, describe_tools()
        self._running: set[Future[Any]] = set()

    def share(self, value: object) -> _Shared:
        """Hand something to the cluster that many tasks take: it goes to the scheduler once, and once to each worker."""
        # A task, not scattered: what was on a worker that died is made again.
        return _Shared(self._client.submit(bytes, pickle.dumps(value), pure=False))

    def submit(self, function: Callable[..., Any], /, *arguments: Any, **keywords: Any) -> Future[Any]:
        """Run a task on some worker."""
        task = partial(function, **keywords)
        packed = [argument.future if isinstance(argument, _Shared) else pickle.dumps(argument) for argument in arguments]
        future: Future[Any] = self._executor.submit(_run_checked, self._describe, self._expected, task, *packed)
        self._running.add(future)
        future.add_done_callback(self._running.discard)
        return future

    def shutdown(self, wait: bool = True, *, cancel_futures: bool = False) -> None:
        """Wait for the tasks, or cancel them all."""
        self._executor.shutdown(wait and not cancel_futures)

    def give_up(self) -> None:
        """End the wait for tasks that Dask has not cancelled though its scheduler ended: their results were just on the way."""
        for future in list(self._running):
            with suppress(InvalidStateError):
                future.set_exception(CancelledError())


def share(executor: Executor, value: Any) -> Any:
    """Return what tasks of an executor shall be given in place of a value, so that it crosses the network once."""
    return executor.share(value) if isinstance(executor, _ClusterExecutor) else value


def _run_checked(
    describe_tools: Callable[[], dict[str, str]], expected: dict[str, str], task: Callable[..., Any], *packed: bytes
) -> Any:
    """Run a task on pickled arguments, if the tools here are the expected ones."""
    here = describe_tools()
    if other := [
        f"{tool} {here.get(tool)} instead of {version}" for tool, version in expected.items() if here.get(tool) != version
    ]:
        raise UserError(f"the worker on {socket.gethostname()} has {', '.join(other)}: install the same environment everywhere")
    try:
        # Each task has its own: a drawer that two threads of a worker shared would mix up their glyphs.
        return task(*map(pickle.loads, packed))
    except FileNotFoundError as error:
        raise UserError(
            f"the worker on {socket.gethostname()} does not see {error.filename}: "
            "let every worker see the same folder, or draw with --to to a URL"
        ) from error
