"""One tiny dataset for many tests, and throwaway projects in which stages run as people run them."""

import hashlib
import os
import shutil
import signal
import subprocess
import tempfile
import time
from collections import defaultdict
from collections.abc import Callable, Iterator
from concurrent.futures import Executor, ThreadPoolExecutor
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass
from itertools import islice
from multiprocessing import resource_tracker
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.request import Request, urlopen

import boto3

# Imported first: it makes logging close all handlers that there are, and absl's closes what pytest then has for stderr.
import gto  # noqa: F401
import hypothesis
import psutil
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from checkouts import GIT_ENVIRONMENT, Checkout
from processes import Process
from ruamel.yaml import YAML
from servers import BUCKET, Bucket, Servers, answers, free_port

from captcha_registry.dataset.dataset import CaptchaDataset
from captcha_registry.dataset.folder import open_folder
from captcha_registry.dataset.manifest import FileEntry, Manifest, read_manifest, write_manifest
from captcha_registry.dataset.spec import DatasetSpec, SplitRule
from captcha_registry.generation.drawing import Drawer
from captcha_registry.generation.generating import assemble_dataset, draw_missing_shards
from captcha_registry.generation.splitting import split_dataset

if TYPE_CHECKING:
    from playwright.sync_api import Browser

ROOT = Path(__file__).resolve().parent.parent
HANG_SECONDS = 120
NOBODY = 65534
MEMORY = "/dev/shm"  # noqa: S108 - for folders with names that nobody knows

Section = dict[str, object]

# How long a test takes says nothing on a machine that others use, too.
hypothesis.settings.register_profile("untimed", deadline=None)
hypothesis.settings.load_profile("untimed")


@pytest.hookimpl(trylast=True)
def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Let each process start with long tests, those of a module in one, so that short ones are left at the end.

    Each is given an equal part of the list, and takes from the end of another's when it is done.
    """
    num_processes = int(getattr(config, "workerinput", {"workercount": 1})["workercount"])
    modules: defaultdict[str, list[pytest.Item]] = defaultdict(list)
    for item in sorted(items, key=_estimate_seconds, reverse=True):
        modules[item.location[0] if _estimate_seconds(item) else ""].append(item)
    short = modules.pop("", [])
    parts: list[list[pytest.Item]] = [[] for _ in range(num_processes)]
    for long in sorted(modules.values(), key=lambda tests: sum(map(_estimate_seconds, tests)), reverse=True):
        min(parts, key=lambda tests: sum(map(_estimate_seconds, tests))).extend(long)
    # As many each as xdist hands out.
    num_left, rest = len(items), iter(short)
    items.clear()
    for number, part in enumerate(parts):
        size = num_left // (num_processes - number)
        num_left -= size
        items += [*part, *islice(rest, max(0, size - len(part)))]
    items += rest


def _estimate_seconds(item: pytest.Item) -> int:
    """Tell how long a test takes, as far as its markers say, and 0 for a short one."""
    return next((seconds for name, seconds in (("thorough", 40), ("slow", 10)) if item.get_closest_marker(name)), 0)


@dataclass(frozen=True)
class Project:
    """A folder with a params.yaml of its own, in which stages of this checkout run in fresh processes."""

    root: Path

    def write_params(self, *, datasets: dict[str, Section], split: Section, **others: object) -> None:
        local = {"drawing": {"executor": "local", "scheduler": "tcp://127.0.0.1:8786"}}
        YAML().dump(local | {"datasets": datasets, "split": split, **others}, self.root / "params.yaml")

    def start(self, stage: str, *arguments: str) -> Process:
        """Start a stage without waiting for it."""
        return Process([f"stages.{stage}", *arguments], self.root, os.environ | {"PYTHONPATH": str(ROOT)})

    def run(self, stage: str, *arguments: str) -> subprocess.CompletedProcess[str]:
        """Run a stage to its end, whatever that is."""
        process = self.start(stage, *arguments)
        output, errors = process.communicate(timeout=HANG_SECONDS)
        assert process.returncode is not None
        return subprocess.CompletedProcess(process.args, process.returncode, output, errors)

    def list_files(self) -> set[str]:
        return {str(path.relative_to(self.root)) for path in self.root.rglob("*")}

    def list_processes(self) -> list[psutil.Process]:
        """List the living processes whose working directory is this folder."""
        return [process for process in psutil.process_iter() if _working_dir(process) == str(self.root)]


def hash_files(root: Path) -> dict[str, str]:
    """Return the SHA-256 of every file below a folder, by its path inside it."""
    files = [path for path in root.rglob("*") if path.is_file()]
    return {str(path.relative_to(root)): hashlib.sha256(path.read_bytes()).hexdigest() for path in files}


def replace_index(root: Path, rows: pa.Table) -> None:
    """Give a dataset another index, and a manifest that names it."""
    with pq.ParquetWriter(root / "new.parquet", rows.schema) as writer:
        writer.write_table(rows)
    (root / "new.parquet").replace(root / "index.parquet")
    fields = {name: content for name, content in read_manifest(root) if name != "dataset_id"}
    write_manifest(root, Manifest.create(**fields | {"index": FileEntry.of(root, "index.parquet", rows.num_rows)}))


@contextmanager
def share_workers(opened: AbstractContextManager[Executor], *openers: str) -> Iterator[None]:
    """Have the functions with these names, which start processes to draw or verify in, all give these: a start is long."""
    with pytest.MonkeyPatch.context() as patch, opened as workers:
        for opener in openers:
            patch.setattr(opener, lambda *_, **__: nullcontext(workers))
        yield


def wait_until(is_true: Callable[[], object], what: str, seconds: float = HANG_SECONDS, *, pause_seconds: float = 0.005) -> None:
    deadline = time.monotonic() + seconds
    while not is_true():
        assert time.monotonic() < deadline, f"{what} did not happen"
        time.sleep(pause_seconds)


def _working_dir(process: psutil.Process) -> str | None:
    try:
        return None if process.status() == psutil.STATUS_ZOMBIE else process.cwd()
    except psutil.Error:
        return None


@contextmanager
def as_another_user() -> Iterator[None]:
    """Do something without the rights of root, whom no mode of a file keeps out."""
    user = os.geteuid()
    if user == 0:
        os.seteuid(NOBODY)
    try:
        yield
    finally:
        os.seteuid(user)


@pytest.fixture(scope="session", autouse=True)
def _heed_signals() -> None:
    """Have what tests start heed Ctrl-C and a closed terminal, also where `&` or `nohup` makes these tests ignore them."""
    for number in (signal.SIGINT, signal.SIGHUP):
        if signal.getsignal(number) is signal.SIG_IGN:
            # A program that is started ignores what its starter ignores, but not what its starter handles.
            signal.signal(number, lambda *_: None)


@pytest.fixture(scope="session", autouse=True)
def _start_tracker() -> None:
    """Start what tracks the locks of worker processes in the top folder: in that of a project it would be killed with this."""
    resource_tracker.ensure_running()


@pytest.fixture
def public_folder() -> Iterator[Path]:
    """A folder that every user may enter, unlike those of pytest."""
    folder = Path(tempfile.mkdtemp())
    folder.chmod(0o755)
    yield folder
    subprocess.run(["chmod", "-R", "u+rwX", folder], check=True)
    shutil.rmtree(folder)


@pytest.fixture
def make_project(tmp_path: Path) -> Iterator[Callable[[str], Project]]:
    """A function that makes an empty project; what still runs in one at the end of the test is killed."""
    projects: list[Project] = []

    def make(name: str) -> Project:
        projects.append(Project(tmp_path / name))
        projects[-1].root.mkdir()
        return projects[-1]

    yield make
    for process in [process for project in projects for process in project.list_processes()]:
        process.kill()


@pytest.fixture
def project(make_project: Callable[[str], Project], tiny_spec: DatasetSpec, shard_rule: SplitRule) -> Project:
    """A project whose one dataset is `tiny`, with no model."""
    made = make_project("project")
    made.write_params(datasets={"tiny": tiny_spec.model_dump()}, split=shard_rule.model_dump(), models={})
    return made


@pytest.fixture(scope="session")
def tiny_spec() -> DatasetSpec:
    """60 samples in 10 shards: 80/20 is a whole number of shards and of samples."""
    return DatasetSpec(alphabet="0123456789AB", length=3, width=48, height=32, count=60, shard_size=6, seed=7)


@pytest.fixture(scope="session")
def shard_rule() -> SplitRule:
    return SplitRule(test_size=0.2, by="shard", seed=1)


@pytest.fixture(scope="session")
def generate(tmp_path_factory: pytest.TempPathFactory) -> Callable[..., CaptchaDataset]:
    """A function that draws a dataset in this process, without a stage."""

    def draw(spec: DatasetSpec, name: str = "tiny") -> CaptchaDataset:
        root = tmp_path_factory.mktemp("generated")
        (root / "work").mkdir()
        with ThreadPoolExecutor(max_workers=1) as executor:
            shards = draw_missing_shards(Drawer(spec), {}, root / "work", executor)
        assemble_dataset(name, Drawer(spec), shards, root / "work", root / name)
        return open_folder(root / name)

    return draw


@pytest.fixture(scope="session")
def generated_dataset(generate: Callable[..., CaptchaDataset], tiny_spec: DatasetSpec) -> CaptchaDataset:
    """The tiny dataset as `generate` leaves it. Shared: read it, never write to it."""
    return generate(tiny_spec)


@pytest.fixture(scope="session")
def tiny_dataset(
    generated_dataset: CaptchaDataset, shard_rule: SplitRule, tmp_path_factory: pytest.TempPathFactory
) -> CaptchaDataset:
    """The tiny dataset split by shard. Shared: read it, never write to it."""
    root = tmp_path_factory.mktemp("split")
    split_dataset(generated_dataset, shard_rule, root)
    return open_folder(root)


@pytest.fixture
def dataset_copy(tiny_dataset: CaptchaDataset, tmp_path: Path) -> Path:
    """The folder of a split tiny dataset that a test may damage."""
    return Path(shutil.copytree(tiny_dataset.root, tmp_path / "tiny"))


@pytest.fixture(scope="session")
def grown_dataset(
    generate: Callable[..., CaptchaDataset],
    tiny_spec: DatasetSpec,
    shard_rule: SplitRule,
    tmp_path_factory: pytest.TempPathFactory,
) -> CaptchaDataset:
    """The tiny dataset grown by half. Shared: read it, never write to it."""
    root = tmp_path_factory.mktemp("grown")
    split_dataset(generate(tiny_spec.model_copy(update={"count": 90})), shard_rule, root)
    return open_folder(root)


@pytest.fixture(scope="session", autouse=True)
def _own_settings(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """Git, DVC and the cache for fetched files take no settings from the machine, nor leave any."""
    # DVC opens its databases, which it flushes to the disk, several times a command.
    folder = MEMORY if os.access(MEMORY, os.W_OK) else None
    with pytest.MonkeyPatch.context() as patch, tempfile.TemporaryDirectory(dir=folder) as databases:
        for name, value in GIT_ENVIRONMENT.items():
            patch.setenv(name, value)
        # In the last are files of what a user ignores and converts, which Git reads even without settings.
        for name in ("DVC_GLOBAL_CONFIG_DIR", "DVC_SYSTEM_CONFIG_DIR", "CAPTCHA_REGISTRY_CACHE", "XDG_CONFIG_HOME"):
            patch.setenv(name, str(tmp_path_factory.mktemp(name.lower())))
        patch.setenv("DVC_SITE_CACHE_DIR", databases)
        patch.setenv("PYTHONPATH", str(ROOT))
        yield


@pytest.fixture(scope="session")
def unpublished(tiny_dataset: CaptchaDataset, tmp_path_factory: pytest.TempPathFactory) -> Checkout:
    """A repository with the tiny dataset, which nobody has published. Shared: copy it, never write to it."""
    checkout = Checkout.create(tmp_path_factory.mktemp("unpublished"))
    checkout.make(tiny_dataset.root)
    return checkout


@pytest.fixture(scope="session")
def published(tiny_dataset: CaptchaDataset, grown_dataset: CaptchaDataset, tmp_path_factory: pytest.TempPathFactory) -> Checkout:
    """A repository that has published tiny 1.0.0 and, grown by half, 1.1.0. Shared: read it, never write to it."""
    checkout = Checkout.create(tmp_path_factory.mktemp("published"))
    for version, dataset in (("1.0.0", tiny_dataset), ("1.1.0", grown_dataset)):
        checkout.make(dataset.root, card=f"---\nlicense: apache-2.0\n---\n# tiny\n\nVersion {version}.\n")
        done = checkout.run("publish", "tiny", version)
        assert done.returncode == 0, done.stderr
    return checkout


@pytest.fixture
def servers(tmp_path: Path) -> Iterator[Servers]:
    (tmp_path / "servers").mkdir()
    running = Servers(tmp_path / "servers")
    yield running
    running.stop()


@pytest.fixture(scope="session")
def object_storage(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The address of an S3 server."""
    server, port = Servers(tmp_path_factory.mktemp("storage")), free_port()
    server.start("moto.server", "-H", "127.0.0.1", "-p", str(port))
    wait_until(lambda: answers(port), "the start of the S3 server")
    yield f"http://127.0.0.1:{port}"
    server.stop()


@pytest.fixture
def bucket(object_storage: str, monkeypatch: pytest.MonkeyPatch) -> Bucket:
    """An empty bucket; processes that are started from now on find its server."""
    monkeypatch.setenv("AWS_ENDPOINT_URL", object_storage)
    monkeypatch.setenv("AWS_DEFAULT_REGION", "us-east-1")
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
        monkeypatch.setenv(name, "testing")
    with urlopen(Request(f"{object_storage}/moto-api/reset", method="POST")):  # noqa: S310 - it empties the server
        client = boto3.client("s3")
    client.create_bucket(Bucket=BUCKET)
    return Bucket(client)


@pytest.fixture(scope="session")
def browser() -> Iterator["Browser"]:
    """A Chromium for all tests that look at pages, each in a context of its own."""
    # Few tests need it, and it takes a while to import.
    from browsers import start_chromium  # noqa: PLC0415
    from playwright.sync_api import sync_playwright  # noqa: PLC0415

    with sync_playwright() as playwright:
        started = start_chromium(playwright)
        yield started
        started.close()
