"""What is published to a folder, object storage, SSH or a web server is fetched from there; bytes are counted at the server."""

import gc
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from checkouts import Checkout
from conftest import hash_files, wait_until
from fsspec.asyn import get_loop, sync
from servers import BUCKET, Bucket, Nginx, Servers, answers

import captcha_registry
from captcha_registry.dataset.dataset import CaptchaDataset
from captcha_registry.dataset.spec import DatasetSpec, SplitRule
from captcha_registry.generation.splitting import split_dataset

# Large enough for the index to be small beside the pictures, as it is at full scale.
SPEC = DatasetSpec(alphabet="0123456789", length=4, width=120, height=60, count=1_000, shard_size=50, seed=11)


@pytest.fixture(scope="module")
def sizes(
    generate: Callable[..., CaptchaDataset], shard_rule: SplitRule, tmp_path_factory: pytest.TempPathFactory
) -> tuple[Path, Path]:
    """A dataset, and the same grown by a fifth."""
    made = []
    for count in (1_000, 1_200):
        made.append(tmp_path_factory.mktemp("sized"))
        split_dataset(generate(SPEC.model_copy(update={"count": count})), shard_rule, made[-1])
    return made[0], made[1]


@pytest.fixture(autouse=True)
def _empty_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CAPTCHA_REGISTRY_CACHE", str(tmp_path / "cache"))


def publish(checkout: Checkout, dataset: Path, version: str) -> None:
    checkout.make(dataset)
    done = checkout.run("publish", "tiny", version)
    assert done.returncode == 0, done.stderr


def consume(checkout: Checkout, dataset: Path, target: Path) -> None:
    """Fetch all, fetch a split, read some records; compare with what was published."""
    done = checkout.run("get", "tiny@1.0.0", "--repo", checkout.origin, "--to", str(target / "all"))
    assert done.returncode == 0, done.stderr
    got = hash_files(target / "all")
    assert got.pop("README.md")
    assert got == hash_files(dataset)
    there = captcha_registry.load("tiny", repo=checkout.origin, version="1.0.0", split="test")
    here = captcha_registry.load(dataset, split="test")
    for number in (0, -1):
        np.testing.assert_array_equal(there[number].image, here[number].image)
    np.testing.assert_array_equal(there.to_numpy()[0], here.to_numpy()[0])


def assert_no_secret_is_tracked(checkout: Checkout, *secrets: str) -> None:
    tracked = "\n".join((checkout.root / path).read_text(errors="replace") for path in checkout.git("ls-files").splitlines())
    assert not [secret for secret in secrets if secret in tracked]


def test_a_folder(tiny_dataset: CaptchaDataset, tmp_path: Path) -> None:
    checkout = Checkout.create(tmp_path / "team")
    publish(checkout, tiny_dataset.root, "1.0.0")
    consume(checkout, tiny_dataset.root, tmp_path)


def test_object_storage(tiny_dataset: CaptchaDataset, tmp_path: Path, bucket: Bucket) -> None:
    checkout = Checkout.create(tmp_path / "team", f"s3://{BUCKET}/store")
    publish(checkout, tiny_dataset.root, "1.0.0")
    assert len(bucket.list_keys()) == 15
    consume(checkout, tiny_dataset.root, tmp_path)
    assert_no_secret_is_tracked(checkout, os.environ["AWS_SECRET_ACCESS_KEY"])


@pytest.mark.peers
def test_ssh(tiny_dataset: CaptchaDataset, tmp_path: Path, servers: Servers) -> None:
    port = servers.start_sshd()
    wait_until(lambda: answers(port), "the start of sshd")
    url = f"ssh://root@127.0.0.1:{port}{tmp_path}/store"
    checkout = Checkout.create(tmp_path / "team", url)
    settings = Path(os.environ["DVC_GLOBAL_CONFIG_DIR"], "config")
    settings.write_text(f"['remote \"store\"']\n    url = {url}\n    keyfile = {servers.folder}/user_key\n")
    try:
        publish(checkout, tiny_dataset.root, "1.0.0")
        consume(checkout, tiny_dataset.root, tmp_path)
    finally:
        settings.unlink()
    assert len([path for path in (tmp_path / "store").rglob("*") if path.is_file()]) == 15
    assert_no_secret_is_tracked(checkout, "user_key")


@pytest.fixture
def website(servers: Servers, tmp_path: Path) -> Nginx:
    """A read-only HTTP server over the folder that the publisher writes to."""
    (tmp_path / "store").mkdir()
    nginx = servers.start_nginx(f"root {tmp_path}/store; limit_except GET {{ deny all; }}")
    wait_until(lambda: answers(nginx.port), "the start of nginx")
    return nginx


def publish_behind(website: Nginx, parent: Path) -> Checkout:
    """Make a repository whose users read over HTTP, while its owner writes to the folder behind."""
    checkout = Checkout.create(parent / "team", website.url)
    (checkout.root / ".dvc/config.local").write_text(f"['remote \"store\"']\n    url = {parent}/store\n")
    return checkout


@pytest.mark.peers
def test_read_only_http(tiny_dataset: CaptchaDataset, tmp_path: Path, website: Nginx) -> None:
    checkout = publish_behind(website, tmp_path)
    publish(checkout, tiny_dataset.root, "1.0.0")
    consume(checkout, tiny_dataset.root, tmp_path)

    async def collect() -> None:
        gc.collect()

    # In the thread in which connections that are garbage could not be closed, which would be an error here.
    sync(get_loop(), collect)


@pytest.mark.peers
def test_a_split_or_a_record_transfers_only_its_share(sizes: tuple[Path, Path], tmp_path: Path, website: Nginx) -> None:
    checkout = publish_behind(website, tmp_path)
    publish(checkout, sizes[0], "1.0.0")
    whole = sum(path.stat().st_size for path in sizes[0].rglob("*") if path.is_file())

    samples = captcha_registry.load("tiny", repo=checkout.origin)
    opened, _ = website.count_bytes()
    assert opened < 0.1 * whole
    for number in range(0, 1_000, 100):
        assert samples[number].id == number
    records = sum(samples.index["length"][number].as_py() for number in range(0, 1_000, 100))
    read, _ = website.count_bytes()
    assert read - opened == records

    done = checkout.run("get", "tiny", "--split", "test", "--repo", checkout.origin, "--to", str(tmp_path / "test"))
    assert done.returncode == 0, done.stderr
    fetched, _ = website.count_bytes()
    assert 0.2 * whole < fetched - read < 0.25 * whole


@pytest.mark.peers
def test_a_version_that_grew_pushes_only_what_is_new(
    sizes: tuple[Path, Path], tmp_path: Path, servers: Servers, bucket: Bucket, monkeypatch: pytest.MonkeyPatch
) -> None:
    # All requests pass by a server that counts their bytes.
    nginx = servers.start_nginx(f"proxy_pass {os.environ['AWS_ENDPOINT_URL']}; proxy_set_header Host $http_host;")
    wait_until(lambda: answers(nginx.port), "the start of nginx")
    monkeypatch.setenv("AWS_ENDPOINT_URL", nginx.url)
    checkout = Checkout.create(tmp_path / "team", f"s3://{BUCKET}/store")
    publish(checkout, sizes[0], "1.0.0")
    _, first = nginx.count_bytes()
    publish(checkout, sizes[1], "1.1.0")
    _, both = nginx.count_bytes()
    whole = sum(path.stat().st_size for path in sizes[1].rglob("*") if path.is_file())
    assert first > 0.8 * whole
    assert 0 < both - first < 0.25 * whole
    assert sum(bucket.list_keys().values()) < 1.1 * whole


@pytest.mark.peers
def test_a_server_that_cannot_seek_is_asked_for_a_complete_file_once(
    sizes: tuple[Path, Path], tmp_path: Path, servers: Servers
) -> None:
    (tmp_path / "store").mkdir()
    nginx = servers.start_nginx(f"root {tmp_path}/store; max_ranges 0;")
    wait_until(lambda: answers(nginx.port), "the start of nginx")
    checkout = publish_behind(nginx, tmp_path)
    publish(checkout, sizes[0], "1.0.0")
    samples = captcha_registry.load("tiny", repo=checkout.origin)
    here = captcha_registry.load(sizes[0])
    before, _ = nginx.count_bytes()
    for number in (30, 31, 32):
        np.testing.assert_array_equal(samples[number].image, here[number].image)
    shard_bytes = next(shard.size_bytes for shard in samples.manifest.shards if shard.path == samples.index["shard"][30].as_py())
    after, _ = nginx.count_bytes()
    # Once to find that out, once to keep it.
    assert after - before == 2 * shard_bytes


@pytest.mark.peers
def test_plain_dvc_reads_what_is_published(tiny_dataset: CaptchaDataset, tmp_path: Path, website: Nginx) -> None:
    checkout = publish_behind(website, tmp_path)
    publish(checkout, tiny_dataset.root, "1.0.0")

    def run(*arguments: str) -> str:
        done = subprocess.run(
            [sys.executable, "-m", "dvc", *arguments], cwd=tmp_path, capture_output=True, text=True, check=False
        )
        assert done.returncode == 0, done.stderr
        return done.stdout

    assert "train" in run("list", checkout.origin, "data/tiny", "--rev", "tiny@v1.0.0")
    run("artifacts", "get", checkout.origin, "tiny", "--rev", "v1.0.0", "--out", "artifact")
    run("get", checkout.origin, "data/tiny/test", "--rev", "tiny@v1.0.0", "--out", "only_test")
    got = hash_files(tmp_path / "artifact")
    assert got.pop("README.md")
    assert got.pop(".gitignore")
    assert got == hash_files(tiny_dataset.root)
    assert hash_files(tmp_path / "only_test") == hash_files(tiny_dataset.root / "test")
    read = "import dvc.api, sys; sys.stdout.write(dvc.api.read('data/tiny/manifest.json', sys.argv[1], 'tiny@v1.0.0'))"
    # In a process of its own, as DVC leaves its connections open.
    manifest = subprocess.run([sys.executable, "-c", read, checkout.origin], capture_output=True, text=True, check=True).stdout
    assert manifest == (tiny_dataset.root / "manifest.json").read_text()
