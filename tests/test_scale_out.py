"""A Dask cluster and object storage give the bytes of one local process, whatever dies on the way."""

import errno
import hashlib
import json
import multiprocessing
import os
import pickle
import re
import shutil
import signal
import socket
import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor, as_completed
from functools import partial
from pathlib import Path
from typing import Any

import psutil
import pytest
from captcha.image import DEFAULT_FONTS
from conftest import HANG_SECONDS, ROOT, Project, hash_files, wait_until
from processes import Process
from ruamel.yaml import YAML
from servers import BUCKET, Bucket, Servers, answers, free_port

from captcha_registry.dataset.dataset import CaptchaDataset
from captcha_registry.dataset.spec import DatasetSpec, SplitRule
from captcha_registry.ends import report_errors
from captcha_registry.errors import CommandLine, UserError
from captcha_registry.generation import executors, remote
from captcha_registry.generation.drawing import Drawer
from captcha_registry.generation.executors import DrawingParams, _run_checked, open_executor
from captcha_registry.generation.generating import draw_shards
from captcha_registry.generation.remote import CLAIM_SECONDS, Place, Target, draw_remote_dataset, draw_remote_shard
from captcha_registry.generation.shards import draw_shard
from captcha_registry.workspace import name_full_disk
from stages import generate as generate_stage

# A shard takes about a sixth of a second: long enough to be hit in the middle.
SPEC = DatasetSpec(alphabet="0123456789", length=4, width=48, height=32, count=3_000, shard_size=500, seed=3)

pytestmark = pytest.mark.slow


def add_descriptions(dataset: CaptchaDataset) -> dict[str, str]:
    """Return the files of a dataset as they lie at a URL, with its descriptions beside it."""
    texts = generate_stage.describe(dataset.manifest)
    assert f"{dataset.manifest.spec.count:,} synthetic captchas of" in texts["README.md"]
    assert json.loads(texts["croissant.json"])["name"] == "tiny"
    return hash_files(dataset.root) | {name: hashlib.sha256(text.encode()).hexdigest() for name, text in texts.items()}


@pytest.fixture(scope="module")
def drawn(generate: Callable[..., CaptchaDataset]) -> CaptchaDataset:
    """The dataset as one process draws it."""
    return generate(SPEC)


@pytest.fixture(scope="module")
def expected(drawn: CaptchaDataset) -> dict[str, str]:
    return hash_files(drawn.root)


@pytest.fixture(scope="module")
def expected_there(drawn: CaptchaDataset) -> dict[str, str]:
    return add_descriptions(drawn)


@pytest.fixture
def distributed_project(make_project: Callable[[str], Project], shard_rule: SplitRule) -> Callable[[str], Project]:
    def make(scheduler: str) -> Project:
        project = make_project("distributed")
        drawing: dict[str, object] = {"executor": "dask" if scheduler else "local", "scheduler": scheduler or "tcp://localhost:1"}
        project.write_params(datasets={"tiny": SPEC.model_dump()}, split=shard_rule.model_dump(), drawing=drawing)
        return project

    return make


def kill_one_in_the_middle_of_a_shard(workers: list[Process]) -> None:
    victims: list[Process] = []

    def find_victim() -> bool:
        victims.extend(worker for worker in workers if is_writing_a_shard(worker))
        return bool(victims)

    wait_until(find_victim, "the start of a shard")
    victims[0].send_signal(signal.SIGKILL)
    victims[0].wait(HANG_SECONDS)


def is_writing_a_shard(worker: Process) -> bool:
    paths = [Path(file.path) for file in psutil.Process(worker.pid).open_files()]
    return any(path.suffix == ".tmp" and ".tfrecord." in path.name for path in paths)


def test_a_cluster_that_shares_a_folder_gives_the_same_bytes_though_a_worker_is_killed(
    servers: Servers, distributed_project: Callable[[str], Project], expected: dict[str, str]
) -> None:
    scheduler = servers.start_scheduler()
    workers = [servers.start_worker(scheduler) for _ in range(2)]
    project = distributed_project(scheduler)
    process = project.start("generate", "tiny")
    kill_one_in_the_middle_of_a_shard(workers)
    output, errors = process.communicate(timeout=HANG_SECONDS)
    assert process.returncode == 0, errors
    assert output.splitlines()[1].startswith("tiny: 3,000 samples in 6 shards, ")
    assert hash_files(project.root / "data/generated/tiny") == expected
    assert set(hash_files(project.root)) - {f"data/generated/tiny/{name}" for name in expected} == {
        "params.yaml",
        ".work/generate/tiny.lock",
    }


def test_a_cluster_that_draws_to_s3_gives_the_same_bytes_though_a_worker_is_killed(
    servers: Servers,
    bucket: Bucket,
    distributed_project: Callable[[str], Project],
    expected_there: dict[str, str],
    tmp_path: Path,
) -> None:
    scheduler = servers.start_scheduler()
    (tmp_path / "worker-files").mkdir()
    workers = [servers.start_worker(scheduler, TMPDIR=str(tmp_path / "worker-files")) for _ in range(2)]
    project = distributed_project(scheduler)
    process = project.start("generate", "tiny", "--to", f"s3://{BUCKET}/sets/tiny")
    kill_one_in_the_middle_of_a_shard(workers)
    _, errors = process.communicate(timeout=HANG_SECONDS)
    assert process.returncode == 0, errors
    assert set(bucket.list_keys()) == {f"sets/tiny/{name}" for name in expected_there}
    assert hash_files(bucket.download("sets/tiny", tmp_path / "downloaded")) == expected_there
    assert project.list_files() == {"params.yaml"}


def flip_a_byte(content: bytes) -> bytes:
    place = len(content) // 2
    return content[:place] + bytes([content[place] ^ 1]) + content[place + 1 :]


@pytest.mark.thorough
def test_a_killed_run_to_s3_is_taken_up_where_it_stopped(
    bucket: Bucket, distributed_project: Callable[[str], Project], expected_there: dict[str, str], tmp_path: Path
) -> None:
    project = distributed_project("")
    url = f"s3://{BUCKET}/tiny"
    process = project.start("generate", "tiny", "--workers", "1", "--to", url)
    # Each look costs the server time that drawing could use.
    wait_until(lambda: any(key.endswith("1.sha256") for key in bucket.list_keys()), "the end of two shards", pause_seconds=0.1)
    process.kill()
    process.communicate(timeout=HANG_SECONDS)
    wait_until(lambda: not project.list_processes(), "the end of every worker")
    done = {Path(key).stem for key in bucket.list_keys() if key.endswith(".sha256")}
    assert 1 < len(done) < SPEC.num_shards
    assert not [key for key in bucket.list_keys() if key.endswith(("index.parquet", "manifest.json"))]
    # Index rows with a wrong byte are as good as none.
    (rows,) = [key for key in bucket.list_keys() if key.endswith(f"{max(done)}.parquet")]
    bucket.write(rows, flip_a_byte(bucket.read(rows)))

    # A finished shard of other bytes but the same size shows whether it is drawn again; then the true bytes go back.
    key = f"tiny/{min(done)}.tfrecord"
    original = bucket.read(key)
    bucket.write(key, bytes(len(original)))
    rerun = project.run("generate", "tiny", "--to", url)
    assert rerun.returncode == 0, rerun.stderr
    assert bucket.read(key) == bytes(len(original))
    bucket.write(key, original)
    assert set(bucket.list_keys()) == {f"tiny/{name}" for name in expected_there}
    assert hash_files(bucket.download("tiny", tmp_path / "downloaded")) == expected_there

    again = project.run("generate", "tiny", "--to", url)
    assert again.returncode == 0, again.stderr
    assert f"in {SPEC.num_shards} shards ({SPEC.num_shards} were there already), " in again.stdout
    assert set(bucket.list_keys()) == {f"tiny/{name}" for name in expected_there}


@pytest.fixture(params=["s3", "folder"])
def url(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    if request.param == "folder":
        return str(tmp_path / "place/tiny")
    request.getfixturevalue("bucket")
    return f"s3://{BUCKET}/tiny"


def list_names(url: str) -> set[str]:
    return set(Place(url).list_sizes())


def test_two_runs_at_once_to_one_place_do_not_disturb_each_other(
    distributed_project: Callable[[str], Project], expected_there: dict[str, str], url: str
) -> None:
    project = distributed_project("")
    first = project.start("generate", "tiny", "--workers", "1", "--to", url)
    wait_until(lambda: any(name.startswith(".claim-") for name in list_names(url)), "the claim", pause_seconds=0.1)
    with first.paused():
        second = project.run("generate", "tiny", "--to", url)
    assert (second.returncode, second.stdout) == (2, "")
    assert second.stderr.startswith(
        f"error: another run, process {first.pid} on {socket.gethostname()}, is at work in {url}: "
        "wait for it to end, or stop it; if it was killed, run again in "
    )
    _, errors = first.communicate(timeout=HANG_SECONDS)
    assert first.returncode == 0, errors
    assert list_names(url) == set(expected_there)
    place = Place(url)
    assert {name: hashlib.sha256(place.read(name) or b"").hexdigest() for name in expected_there} == expected_there


@pytest.mark.parametrize(
    ("age_seconds", "host", "is_refused"),
    [
        pytest.param(0, "elsewhere", True, id="fresh"),
        pytest.param(CLAIM_SECONDS + 1, "elsewhere", False, id="old"),
        pytest.param(0, socket.gethostname(), False, id="of a process of this host that is gone"),
    ],
)
def test_a_place_belongs_to_a_run_as_long_as_it_may_live(
    tmp_path: Path, tiny_spec: DatasetSpec, age_seconds: int, host: str, *, is_refused: bool
) -> None:
    claim = f".claim-{int(time.time()) - age_seconds}-{2**22 + 1}-{host}"
    (tmp_path / claim).touch()
    with ThreadPoolExecutor(max_workers=1) as executor:
        draw = partial(draw_remote_dataset, "tiny", Drawer(tiny_spec), str(tmp_path), "aaaa", executor, lambda _manifest: {})
        if is_refused:
            with pytest.raises(UserError, match=rf"on elsewhere, is at work .* in \d+ seconds, or delete {tmp_path}/{claim}"):
                draw()
            assert [path.name for path in tmp_path.iterdir()] == [claim]
        else:
            draw()
            assert len(list(tmp_path.iterdir())) == tiny_spec.num_shards + 2


NUM_ROUNDS = 15


def claim_again_and_again(url: str, barrier: threading.Barrier, winners: Any) -> None:
    """Claim a place at the same moment as others do, and hold it until all have tried."""
    for number in range(NUM_ROUNDS):
        barrier.wait(HANG_SECONDS)
        try:
            with remote.claim_place(Place(url)):
                winners.put(number)
                barrier.wait(HANG_SECONDS)
        except UserError as error:
            assert "is at work in" in str(error)  # noqa: PT017 - what the others are told
            barrier.wait(HANG_SECONDS)
        barrier.wait(HANG_SECONDS)


def test_of_runs_that_start_at_the_same_moment_one_works(tmp_path: Path) -> None:
    context = multiprocessing.get_context("spawn")
    barrier, winners = context.Barrier(3), context.SimpleQueue()
    processes = [context.Process(target=claim_again_and_again, args=(str(tmp_path), barrier, winners)) for _ in range(3)]
    for process in processes:
        process.start()
    for process in processes:
        process.join(HANG_SECONDS)
    assert [process.exitcode for process in processes] == [0, 0, 0]
    won = []
    while not winners.empty():
        won.append(winners.get())
    assert won == list(range(NUM_ROUNDS))
    assert list(tmp_path.iterdir()) == []


def test_a_claim_is_renewed_as_long_as_its_run_lives(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(remote, "_RENEWAL_SECONDS", 0.2)
    place = Place(str(tmp_path))
    with remote.claim_place(place):
        first = set(place.list_sizes())
        wait_until(lambda: place.list_sizes() and not first & set(place.list_sizes()), "a new claim")
    assert place.list_sizes() == {}


@pytest.mark.parametrize(
    "error", [OSError(errno.ENOSPC, "No space left on device", "00000.tfrecord"), KeyError("ours")], ids=repr
)
def test_what_goes_wrong_before_the_upload_is_not_blamed_on_the_place(
    tmp_path: Path, tiny_spec: DatasetSpec, monkeypatch: pytest.MonkeyPatch, error: Exception
) -> None:
    def fail(*_arguments: object) -> None:
        raise error

    monkeypatch.setattr(remote, "draw_shard", fail)
    with pytest.raises(type(error)) as raised:
        draw_remote_shard(Drawer(tiny_spec), 0, Target(str(tmp_path), ".unfinished-aaaa"))
    assert raised.value is error


def test_a_place_that_holds_something_else_is_left_alone(bucket: Bucket, distributed_project: Callable[[str], Project]) -> None:
    project = distributed_project("")
    bucket.write("mine/notes.txt", b"mine")
    done = project.run("generate", "tiny", "--to", f"s3://{BUCKET}/mine")
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr == (f"error: s3://{BUCKET}/mine already holds notes.txt: choose an empty place, or delete what is there\n")
    assert bucket.list_keys() == {"mine/notes.txt": 4}


@pytest.mark.parametrize(
    ("url", "message"),
    [
        ("s3://no-such-bucket/tiny", "no-such-bucket"),
        ("foo://bucket/tiny", "Protocol not known: foo: check the address"),
    ],
)
def test_a_place_that_cannot_be_reached_is_named(
    bucket: Bucket, distributed_project: Callable[[str], Project], url: str, message: str
) -> None:
    done = distributed_project("").run("generate", "tiny", "--to", url)
    (line,) = done.stderr.splitlines()
    assert line.startswith(f"error: {url}: ")
    assert message in line
    assert done.returncode == 2
    assert bucket.list_keys() == {}


@pytest.mark.parametrize("name", ["notes.txt", "README.md"])
def test_a_folder_that_holds_something_else_is_left_alone(
    distributed_project: Callable[[str], Project], tmp_path: Path, name: str
) -> None:
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / name).write_text("mine")
    done = distributed_project("").run("generate", "tiny", "--to", str(tmp_path / "mine"))
    assert (done.returncode, done.stdout) == (2, "")
    assert f"already holds {name}: choose an empty place" in done.stderr
    assert [path.read_text() for path in (tmp_path / "mine").iterdir()] == ["mine"]


def test_a_folder_that_nobody_shares_gets_the_same_bytes(
    project: Project,
    generated_dataset: CaptchaDataset,
    tiny_dataset: CaptchaDataset,
    tiny_spec: DatasetSpec,
    shard_rule: SplitRule,
    tmp_path: Path,
) -> None:
    expected_there = add_descriptions(generated_dataset)
    root = tmp_path / "new/tiny"
    cuts = [partial(os.truncate, root / name, 300) for name in ("README.md", "index.parquet", "manifest.json")]
    for damage in (lambda: None, lambda: None, (root / "00001.tfrecord").unlink, *cuts):
        damage()
        done = project.run("generate", "tiny", "--to", str(root))
        assert done.returncode == 0, done.stderr
        assert hash_files(root) == expected_there

    shutil.copytree(tiny_dataset.root, tmp_path / "split")
    done = project.run("generate", "tiny", "--to", str(tmp_path / "split"))
    assert f"error: {tmp_path / 'split'} holds tiny after its split into train and test, which comes later: choose" in done.stderr
    assert hash_files(tmp_path / "split") == hash_files(tiny_dataset.root)

    other = tiny_spec.model_copy(update={"seed": tiny_spec.seed + 1})
    project.write_params(datasets={"tiny": other.model_dump()}, split=shard_rule.model_dump())
    done = project.run("generate", "tiny", "--to", str(root))
    assert f"error: {root} holds another dataset: tiny, {tiny_spec.count:,} samples, seed {tiny_spec.seed}, id " in done.stderr
    assert done.returncode == 2
    assert hash_files(root) == expected_there


@pytest.mark.parametrize(
    ("url", "problem"),
    [
        pytest.param("", "names no folder", id="empty"),
        pytest.param("/", "names no folder", id="root"),
        pytest.param("s3://", "is s3://, neither a URL nor a plain folder", id="no bucket"),
        pytest.param("s3:/bucket/tiny", "is s3:/bucket/tiny, neither a URL nor a plain folder", id="one slash"),
        pytest.param("me:s3cret@host/x", "is me:***@host/x, neither a URL nor a plain folder", id="login without a scheme"),
        pytest.param("memory://tiny", "is memory://tiny, memory that ends with the process that fills it", id="memory"),
    ],
)
def test_a_place_that_is_none_is_refused_before_anything_is_drawn(
    project: Project, monkeypatch: pytest.MonkeyPatch, url: str, problem: str
) -> None:
    monkeypatch.chdir(project.root)
    expected = f"--to {problem}; expected a place that fsspec knows, such as s3://bucket/digits or /mnt/share/digits"
    with pytest.raises(UserError, match=re.escape(expected)):
        generate_stage.main("tiny", 1, url)
    assert project.list_files() == {"params.yaml"}


def test_a_secret_in_an_address_is_in_no_message(capsys: pytest.CaptureFixture[str]) -> None:
    # The library's own words hold the address in pieces.
    url = "s3://me:s3cret@host/x"
    with pytest.raises(UserError, match="Invalid bucket name") as refusal:
        Place(url).list_sizes()
    with pytest.raises(SystemExit), report_errors(), name_full_disk(url):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
    with pytest.raises(SystemExit):
        CommandLine().parse_args([url])
    # What Dask prints of a task that fails.
    task = partial(draw_remote_shard, target=Target(url, ".unfinished"))
    assert "s3cret" not in f"{refusal.value}{capsys.readouterr()}{task}"


@pytest.mark.peers
def test_a_place_may_be_reached_by_ssh(servers: Servers, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    port = servers.start_sshd()
    wait_until(lambda: answers(port), "the start of sshd")
    (tmp_path / ".ssh").mkdir()
    (servers.folder / "user_key").rename(tmp_path / ".ssh/id_ed25519")
    monkeypatch.setenv("HOME", str(tmp_path))
    place = Place(f"ssh://root@127.0.0.1:{port}{tmp_path}/new")
    for name in ("a", "b/c"):
        place.write(name, b"1")
        # What another worker writes meanwhile is seen, too.
        (tmp_path / "new" / f"{name}.more").touch()
        assert {name: 1, f"{name}.more": 0}.items() <= place.list_sizes().items()


def test_a_connection_that_dask_lacks_settings_for_is_named() -> None:
    params = DrawingParams(executor="dask", scheduler=f"tls://127.0.0.1:{free_port()}")
    with pytest.raises(UserError, match=r"^Dask cannot connect to tls://127\.0\.0\.1:\d+ \(.*\): see its pages on addresses"):
        open_executor(params, 1, None, dict).__enter__()


def test_a_scheduler_that_does_not_answer_is_named(distributed_project: Callable[[str], Project]) -> None:
    scheduler = f"tcp://127.0.0.1:{free_port()}"
    done = distributed_project(scheduler).run("generate", "tiny")
    assert (
        done.stderr
        == f"error: no Dask scheduler answers at {scheduler}: start one with `dask scheduler`, see docs/howto/cluster.md\n"
    )
    assert done.returncode == 2


def test_a_scheduler_that_dies_ends_the_run_with_a_remedy(
    servers: Servers, distributed_project: Callable[[str], Project], expected: dict[str, str]
) -> None:
    scheduler = servers.start_scheduler()
    servers.start_worker(scheduler)
    project = distributed_project(scheduler)
    process = project.start("generate", "tiny")
    wait_until(lambda: [*project.root.glob(".work/generate/tiny/*/*.sha256")], "the end of a shard")
    servers.processes[0].kill()
    _, errors = process.communicate(timeout=HANG_SECONDS)
    assert process.returncode == 2
    assert errors == (
        f"error: the Dask scheduler at {scheduler} no longer answers: start it again, with workers, and run the same "
        "command again, it goes on from here\n"
    )

    scheduler = servers.start_scheduler()
    servers.start_worker(scheduler)
    drawing = {"executor": "dask", "scheduler": scheduler}
    rule = YAML().load(project.root / "params.yaml")["split"]
    project.write_params(datasets={"tiny": SPEC.model_dump()}, split=rule, drawing=drawing)
    done = project.run("generate", "tiny")
    assert done.returncode == 0, done.stderr
    assert " were there already), " in done.stdout
    assert hash_files(project.root / "data/generated/tiny") == expected


def test_a_scheduler_that_dies_while_the_last_result_is_on_its_way_ends_the_run(servers: Servers) -> None:
    scheduler = servers.start_scheduler()
    servers.start_worker(scheduler)

    def draw_until_the_scheduler_dies() -> None:
        with open_executor(DrawingParams(executor="dask", scheduler=scheduler), 1, None, dict) as executor:
            # Large, so that it is on its way for some time.
            future = executor.submit(bytes, 200_000_000)
            (task,) = executor._executor._futures  # type: ignore[attr-defined]  # noqa: SLF001 - its state is told nowhere else
            wait_until(lambda: task.status == "finished", "the end of the task", pause_seconds=0.001)
            servers.processes[0].kill()
            next(as_completed([future], timeout=HANG_SECONDS)).result()

    with pytest.raises(UserError, match=r"no longer answers: start it again, with workers, and run the same command again"):
        draw_until_the_scheduler_dies()


def test_what_tasks_share_goes_to_the_cluster_once(servers: Servers, tmp_path: Path) -> None:
    scheduler = servers.start_scheduler()
    workers = [servers.start_worker(scheduler) for _ in range(2)]
    spec = SPEC.model_copy(update={"fonts": ("large.ttf",), "count": 12, "shard_size": 2})
    # What follows the font in its file is not looked at.
    font = Path(DEFAULT_FONTS[0]).read_bytes() + os.urandom(5_000_000)
    with open_executor(DrawingParams(executor="dask", scheduler=scheduler), 1, None, dict) as executor:
        client = executor._client  # type: ignore[attr-defined]  # noqa: SLF001 - a client of its own would not hold its tasks
        client.wait_for_workers(len(workers), timeout=HANG_SECONDS)
        kept: list[Any] = []
        submit = executor.submit
        executor.submit = lambda *arguments: kept.append(submit(*arguments)) or kept[-1]  # type: ignore[method-assign]
        entries = draw_shards(Drawer(spec, (font,)), {}, partial(draw_shard, folder=tmp_path), executor)
        tasks = client.run_on_scheduler(
            lambda dask_scheduler: [len(pickle.dumps(t.run_spec)) for t in dask_scheduler.tasks.values()]
        )
    assert [entry.num_samples for entry in entries] == [2] * 6
    assert sum(tasks) < 1.1 * len(font)


def test_a_cluster_that_loses_its_last_worker_is_not_waited_for(servers: Servers, monkeypatch: pytest.MonkeyPatch) -> None:
    scheduler = servers.start_scheduler()
    worker = servers.start_worker(scheduler)
    params = DrawingParams(executor="dask", scheduler=scheduler)
    remedy = f"no worker for 2 seconds: start some, `dask worker {scheduler}`, and run the same command again"

    def draw_until_the_worker_dies() -> None:
        with open_executor(params, 1, None, dict) as executor:
            monkeypatch.setattr(executors, "WORKERS_TIMEOUT_SECONDS", 2)
            futures = [executor.submit(time.sleep, seconds) for seconds in (0, HANG_SECONDS, HANG_SECONDS)]
            for future in as_completed(futures):
                future.result()
                worker.kill()

    with pytest.raises(UserError, match=re.escape(remedy)):
        draw_until_the_worker_dies()


def test_a_worker_with_other_code_is_refused(
    servers: Servers, distributed_project: Callable[[str], Project], tmp_path: Path
) -> None:
    other = tmp_path / "other"
    shutil.copytree(ROOT / "captcha_registry", other / "captcha_registry", ignore=shutil.ignore_patterns("__pycache__"))
    with (other / "captcha_registry/generation/png.py").open("a", encoding="utf-8") as source:
        source.write("\nNOT_THE_SAME = 1\n")
    scheduler = servers.start_scheduler()
    servers.start_fresh_worker(scheduler, other)
    project = distributed_project(scheduler)
    done = project.run("generate", "tiny")
    (line,) = done.stderr.splitlines()[-1:]
    assert line.startswith(f"error: the worker on {socket.gethostname()} has captcha_registry.generation.png ")
    assert line.endswith(": install the same environment everywhere")
    assert done.returncode == 2
    assert not (project.root / "data").exists()


def test_a_worker_that_does_not_see_the_folder_is_named(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"the worker on .* does not see .*00000\.\S+: let every worker see the same folder"):
        _run_checked(dict, {}, partial(draw_shard, Drawer(SPEC), 0, tmp_path / "elsewhere"))
