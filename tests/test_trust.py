"""A hostile repository is refused with a clear error: nothing of it is run, nothing is written outside the target."""

import hashlib
import json
import os
import shutil
import subprocess
import sys
import tempfile
import traceback
import zipfile
from base64 import b64encode
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread

import numpy as np
import psutil
import pyarrow as pa
import pytest
from checkouts import Checkout
from conftest import ROOT, hash_files, replace_index
from ruamel.yaml import YAML
from servers import free_port

import captcha_registry
from captcha_registry.dataset.dataset import CaptchaDataset
from captcha_registry.dataset.index import SCHEMA, read_index
from captcha_registry.dataset.spec import DatasetSpec
from captcha_registry.errors import UserError
from captcha_registry.recognition.card import ModelCard
from captcha_registry.recognition.frameworks import keras
from captcha_registry.recognition.trained import load_model
from captcha_registry.registry.versions import read_folder


@pytest.fixture
def hostile(unpublished: Checkout, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Checkout:
    """A repository that a test makes hostile, and then publishes with plain DVC and Git; the cache is empty."""
    monkeypatch.setenv("CAPTCHA_REGISTRY_CACHE", str(tmp_path / "cache"))
    return unpublished.copy_to(tmp_path / "hostile")


def publish(checkout: Checkout) -> None:
    checkout.dvc("push", "--quiet")
    checkout.commit("hostile")
    checkout.git("tag", "--annotate", "--message", "hostile", "tiny@v1.0.0")
    checkout.git("push", "--quiet", "origin", "tiny@v1.0.0")


def refuse(checkout: Checkout, message: str) -> None:
    """Make sure that `get` and `load` refuse it with this message, and that nothing appears beside the cache."""
    parent = checkout.root.parent.parent
    before = {path: sha256 for path, sha256 in hash_files(parent).items() if not path.startswith("cache/")}
    for repo in (checkout.origin, str(checkout.root)):
        done = checkout.run("get", "tiny", "--repo", repo, "--to", str(parent / "target"))
        assert done.returncode == 2
        assert message in done.stderr
        with pytest.raises(UserError, match=r"tiny|config"):
            captcha_registry.load("tiny", repo=repo)
    after = {
        path: sha256 for path, sha256 in hash_files(parent).items() if not path.startswith(("cache/", "hostile/checkout/.dvc/"))
    }
    assert after == {path: sha256 for path, sha256 in before.items() if not path.startswith("hostile/checkout/.dvc/")}


def change_manifest(checkout: Checkout, change: Callable[[dict[str, object]], None]) -> None:
    path = checkout.root / "data/tiny/manifest.json"
    manifest = json.loads(path.read_text())
    change(manifest)
    path.unlink()
    path.write_text(json.dumps(manifest))
    checkout.dvc("commit", "--quiet", "--force", "make")


@pytest.mark.parametrize("path", ["../../outside", "/etc/passwd", "train/../../outside", "..\\outside", "./train"])
def test_a_manifest_that_names_a_path_outside_is_refused(hostile: Checkout, path: str) -> None:
    change_manifest(hostile, lambda manifest: manifest["shards"][0].update(path=path))  # type: ignore[index]
    publish(hostile)
    refuse(hostile, "does not stay inside the dataset")


def test_a_manifest_with_an_unknown_field_is_refused(hostile: Checkout) -> None:
    change_manifest(hostile, lambda manifest: manifest.update(on_load="run me"))
    publish(hostile)
    refuse(hostile, "on_load")


def test_a_manifest_that_names_a_file_that_was_not_published_is_refused(hostile: Checkout) -> None:
    change_manifest(hostile, lambda manifest: manifest["shards"][0].update(path="train/99999.tfrecord"))  # type: ignore[index]
    publish(hostile)
    refuse(hostile, "names train/99999.tfrecord, which was not published")


@pytest.mark.parametrize(
    ("column", "value"), [("offset", 2**62), ("offset", -1), ("length", 2**40), ("shard", "../../etc/passwd")]
)
def test_an_index_that_points_outside_its_shards_is_refused_before_anything_is_read(
    hostile: Checkout, column: str, value: object
) -> None:
    root = hostile.root / "data/tiny"
    rows = read_index(root / "index.parquet").to_pylist()
    rows[7][column] = value
    replace_index(root, pa.Table.from_pylist(rows, schema=SCHEMA))
    hostile.dvc("commit", "--quiet", "--force", "make")
    publish(hostile)
    with pytest.raises(UserError, match="points outside its shards: sample 7"):
        captcha_registry.load("tiny", repo=hostile.origin)


@pytest.mark.parametrize("path", ["../../../etc", "/etc", "data/../../tiny"])
def test_an_artifact_outside_the_repository_is_refused(hostile: Checkout, path: str) -> None:
    pipeline = YAML(typ="safe").load(hostile.root / "dvc.yaml")
    pipeline["artifacts"]["tiny"]["path"] = path
    YAML().dump(pipeline, hostile.root / "dvc.yaml")
    publish(hostile)
    refuse(hostile, "does not stay inside the repository")


def test_a_listing_of_a_folder_that_climbs_out_of_it_is_refused(hostile: Checkout) -> None:
    publish(hostile)
    listing = json.dumps([{"md5": hashlib.md5(b"owned").hexdigest(), "relpath": "../../../../owned"}]).encode()  # noqa: S324
    for content, suffix in ((listing, ".dir"), (b"owned", "")):
        md5 = hashlib.md5(content).hexdigest()  # noqa: S324 - DVC's
        place = hostile.remote / "files/md5" / md5[:2] / f"{md5[2:]}{suffix}"
        place.parent.mkdir(exist_ok=True)
        place.write_bytes(content)
    lock = YAML(typ="safe").load(hostile.root / "dvc.lock")
    (train,) = [out for out in lock["stages"]["make"]["outs"] if out["path"] == "data/tiny/train"]
    train["md5"] = f"{hashlib.md5(listing).hexdigest()}.dir"  # noqa: S324
    YAML().dump(lock, hostile.root / "dvc.lock")
    hostile.commit("climb")
    hostile.git("tag", "--annotate", "--message", "climb", "tiny@v1.1.0")
    hostile.git("push", "--quiet", "origin", "tiny@v1.1.0")
    refuse(hostile, "leaves the artifact")


REMOTE = "[core]\n    remote = store\n['remote \"store\"']\n"
# A remote that makes the S3 client run a command of the repository. Nothing has to answer: it runs before the first request.
TRAP = "    url = s3://bucket/store\n    endpointurl = http://127.0.0.1:1\n    configpath = aws\n    profile = evil\n"
CONFIGS = {
    "remote.bearer_token_command": f"{REMOTE}    url = webdavs://127.0.0.1:1/\n    bearer_token_command = touch OWNED\n",
    "remote.configpath": f"{REMOTE}{TRAP}",
    "remote.profile": f"{REMOTE}    url = s3://bucket\n    profile = payroll\n",
    "remote.auth": f"{REMOTE}    url = http://127.0.0.1:1\n    auth = basic\n",
    "remote.use_ssl": f"{REMOTE}    url = s3://bucket\n    use_ssl = false\n",
    "remote.keyfile": f"{REMOTE}    url = ssh://127.0.0.1:1/\n    keyfile = key\n",
    "core.site_cache_dir": "[core]\n    site_cache_dir = OWNED\n",
}


@pytest.fixture
def owned(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A file that exists if a command of a stranger was run; the S3 client has no settings of the machine."""
    for name in [name for name in os.environ if name.startswith("AWS_")]:
        monkeypatch.delenv(name)
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")
    monkeypatch.setenv("AWS_SHARED_CREDENTIALS_FILE", os.devnull)
    # DVC sets it for the whole process.
    monkeypatch.setenv("AWS_CONFIG_FILE", "")
    monkeypatch.delenv("AWS_CONFIG_FILE")
    return tmp_path / "owned"


def set_trap(checkout: Checkout, owned: Path) -> None:
    """Put settings of AWS into a repository that name a command."""
    (checkout.root / ".dvc/aws").write_text(f"[profile evil]\ncredential_process = sh -c 'touch {owned}'\n")


def set_hidden_trap(checkout: Checkout, owned: Path) -> None:
    """Let a repository have in Git what DVC takes for the settings of its user."""
    set_trap(checkout, owned)
    (checkout.root / ".dvc/.gitignore").unlink()
    (checkout.root / ".gitignore").write_text("/source\n.dvc/cache\n.dvc/tmp\n")
    (checkout.root / ".dvc/config.local").write_text(f"['remote \"store\"']\n{TRAP}")


def test_local_settings_that_come_with_a_repository_are_refused(hostile: Checkout, owned: Path) -> None:
    hostile.dvc("push", "--quiet")
    set_hidden_trap(hostile, owned)
    hostile.commit("hostile")
    hostile.git("tag", "--annotate", "--message", "hostile", "tiny@v1.0.0")
    hostile.git("push", "--quiet", "origin", "tiny@v1.0.0")
    shutil.rmtree(hostile.root / ".dvc/cache")
    refuse(hostile, "has .dvc/config.local in Git")
    (hostile.root / "deep").mkdir()
    for repo in (hostile.origin, str(hostile.root), str(hostile.root / "deep")):
        assert hostile.run("list", "--repo", repo).returncode == 2
    assert not owned.exists()


def test_local_settings_of_its_user_are_followed(hostile: Checkout, tmp_path: Path) -> None:
    publish(hostile)
    shutil.rmtree(hostile.root / ".dvc/cache")
    moved = hostile.remote.rename(tmp_path / "moved")
    (hostile.root / ".dvc/config.local").write_text(f"['remote \"store\"']\n    url = {moved}\n")
    done = hostile.run("get", "tiny", "--repo", str(hostile.root), "--to", str(tmp_path / "got"))
    assert done.returncode == 0, done.stderr


@pytest.fixture
def elsewhere(tmp_path: Path, owned: Path) -> Checkout:
    """Another repository with a folder `thing`, which runs a command on who fetches it with DVC."""
    checkout = Checkout.create(tmp_path / "elsewhere")
    (checkout.root / "thing").mkdir()
    (checkout.root / "thing/model.json").write_text("{}")
    checkout.dvc("add", "--quiet", "thing")
    set_hidden_trap(checkout, owned)
    checkout.commit("trap")
    return checkout


def describe_import(elsewhere: Checkout, **others: object) -> dict[str, object]:
    """Return what a .dvc file says of a folder `tiny` that is imported from another repository."""
    (thing,) = YAML(typ="safe").load(elsewhere.root / "thing.dvc")["outs"]
    repo = {"url": elsewhere.origin, "rev_lock": elsewhere.git("rev-parse", "HEAD"), **others}
    return {"frozen": True, "deps": [{"path": "thing", "repo": repo}], "outs": [thing | {"path": "tiny"}]}


SETTINGS = {"endpointurl": "http://127.0.0.1:1", "configpath": ".dvc/aws", "profile": "evil"}
FOUND = {"md5": "0" * 32, "size": 1}
IMPORTS: dict[str, Callable[[Checkout], dict[str, object]]] = {
    "a repository": describe_import,
    "a repository and its settings": lambda there: describe_import(there, config={"core": {"remote": "x"}}),
    "a bucket": lambda _: {
        "deps": [{"path": "s3://bucket/x", "fs_config": SETTINGS, **FOUND}],
        "outs": [{"path": "tiny"}],
    },
    "a file of this machine": lambda _: {"deps": [{"path": __file__, **FOUND}], "outs": [{"path": "tiny"}]},
    "settings of its own": lambda _: {"outs": [{"path": "tiny", "fs_config": {"jobs": 1}, **FOUND}]},
}


@pytest.mark.parametrize("source", IMPORTS)
def test_what_is_imported_from_elsewhere_is_refused_before_dvc_goes_there(
    hostile: Checkout, elsewhere: Checkout, owned: Path, source: str
) -> None:
    shutil.rmtree(hostile.root / "data")
    (hostile.root / "dvc.lock").unlink()
    (hostile.root / "data").mkdir()
    set_trap(hostile, owned)
    YAML().dump(IMPORTS[source](elsewhere), hostile.root / "data/tiny.dvc")
    YAML().dump({"artifacts": {"tiny": {"path": "data/tiny", "type": "dataset"}}}, hostile.root / "dvc.yaml")
    hostile.commit("hostile")
    hostile.git("tag", "--annotate", "--message", "hostile", "tiny@v1.0.0")
    hostile.git("push", "--quiet", "origin", "tiny@v1.0.0")
    refuse(hostile, "tiny@1.0.0: data/tiny.dvc is imported from elsewhere; fetch it from where it is published")
    assert "is imported from elsewhere" in hostile.run("list", "--repo", hostile.origin).stderr
    assert not owned.exists()


def test_what_else_is_imported_neither_harms_nor_keeps_from_fetching(
    hostile: Checkout, elsewhere: Checkout, owned: Path, tmp_path: Path
) -> None:
    hostile.dvc("push", "--quiet")
    (hostile.root / "other").mkdir()
    YAML().dump(describe_import(elsewhere), hostile.root / "other/tiny.dvc")
    hostile.commit("import")
    hostile.git("tag", "--annotate", "--message", "import", "tiny@v1.0.0")
    hostile.git("push", "--quiet", "origin", "tiny@v1.0.0")
    shutil.rmtree(elsewhere.root.parent)
    done = hostile.run("get", "tiny", "--repo", hostile.origin, "--to", str(tmp_path / "got"))
    assert done.returncode == 0, done.stderr
    assert captcha_registry.load("tiny", repo=hostile.origin)[0].label
    assert not owned.exists()


class Guarded(SimpleHTTPRequestHandler):
    """A web server that gives files to who has a password, and notes what it is shown, and what programs ask it."""

    shown: list[str]
    arguments: set[str]
    hosts: set[str]

    def do_GET(self) -> None:
        if self.is_allowed():
            super().do_GET()

    def do_HEAD(self) -> None:
        if self.is_allowed():
            super().do_HEAD()

    def is_allowed(self) -> bool:
        self.shown.append(self.headers.get("Authorization", ""))
        self.hosts.add(self.headers["Host"])
        for program in psutil.Process().children(recursive=True):
            with suppress(psutil.Error):
                self.arguments.update(program.cmdline())
        if allowed := self.shown[-1] in {f"Basic {b64encode(login).decode()}" for login in (b"me:s3cret", b"s3cret:")}:
            return allowed
        self.send_response(401)
        self.send_header("WWW-Authenticate", "Basic")
        self.end_headers()
        return False

    def log_message(self, *_: object) -> None:
        pass


@contextmanager
def serve_guarded(folder: Path) -> Iterator[str]:
    """Serve a folder to who has the password; yield the address."""
    Guarded.shown, Guarded.arguments, Guarded.hosts = [], set(), set()
    with ThreadingHTTPServer(("127.0.0.1", 0), partial(Guarded, directory=str(folder))) as server:
        Thread(target=server.serve_forever).start()
        yield f"127.0.0.1:{server.server_port}"
        server.shutdown()


@pytest.fixture
def guarded(hostile: Checkout) -> Iterator[str]:
    """The address at which what `hostile` pushes is served."""
    with serve_guarded(hostile.remote) as address:
        yield f"http://{address}"


@pytest.fixture
def own_settings() -> Iterator[Path]:
    """The user's own configuration, for all repositories."""
    settings = Path(os.environ["DVC_GLOBAL_CONFIG_DIR"], "config")
    yield settings
    settings.unlink()


@pytest.mark.filterwarnings("ignore:(BasicAuth|The 'auth' parameter) is deprecated:DeprecationWarning")
def test_a_password_goes_only_where_its_owner_says(hostile: Checkout, guarded: str, own_settings: Path, tmp_path: Path) -> None:
    hostile.dvc("push", "--quiet")
    (hostile.root / ".dvc/config").write_text(f"{REMOTE}    url = {guarded}\n")
    hostile.commit("a server")
    hostile.git("tag", "--annotate", "--message", "a server", "tiny@v1.0.0")
    hostile.git("push", "--quiet", "origin", "tiny@v1.0.0")
    shutil.rmtree(hostile.root / ".dvc/cache")
    for url in ("", "    url = http://127.0.0.1:1\n"):
        own_settings.write_text(f"['remote \"store\"']\n    auth = basic\n    user = me\n    password = s3cret\n{url}")
        refuse(hostile, f"`dvc config --global remote.store.url {guarded}`")
    assert Guarded.shown == []
    hostile.dvc("config", "--global", "remote.store.url", guarded)
    done = hostile.run("get", "tiny", "--repo", hostile.origin, "--to", str(tmp_path / "got"))
    assert done.returncode == 0, done.stderr
    assert Guarded.shown


@pytest.mark.filterwarnings("ignore:(BasicAuth|The 'auth' parameter) is deprecated:DeprecationWarning")
@pytest.mark.parametrize(
    "places",
    [
        ("store", "", "store"),
        ("other", "", "other"),
        ("store", "server", "store"),
        ("store", "server", "server"),
        ("other", "server", "other"),
    ],
)
def test_a_password_of_a_checkout_goes_to_no_address_that_an_older_commit_names(
    hostile: Checkout, guarded: str, grown_dataset: CaptchaDataset, tmp_path: Path, places: tuple[str, str, str]
) -> None:
    # Of the data, of the remote on which that stands, and of which the password is.
    remote, base, login = places
    hostile.dvc("push", "--quiet")
    pipeline = YAML(typ="safe").load(hostile.root / "dvc.yaml")
    if remote != "store":
        pipeline["stages"]["make"]["outs"] = [{path: {"remote": remote}} for path in pipeline["stages"]["make"]["outs"]]
        YAML().dump(pipeline, hostile.root / "dvc.yaml")
    addresses = {remote: f"remote://{base}", base: guarded} if base else {remote: guarded}
    sections = ({"store": "/nowhere"} | addresses).items()
    config = hostile.root / ".dvc/config"
    config.write_text("[core]\nremote = store\n" + "".join(f"['remote \"{name}\"']\nurl = {url}\n" for name, url in sections))
    (hostile.root / "params.yaml").write_text("models: {}\n")
    hostile.commit("a server")
    hostile.git("tag", "--annotate", "--message", "a server", "tiny@v1.0.0")
    hostile.git("push", "--quiet", "origin", "tiny@v1.0.0")
    shutil.rmtree(hostile.root / ".dvc/cache")
    section = f"['remote \"{login}\"']\nauth = basic\nuser = me\npassword = s3cret\n"
    (hostile.root / ".dvc/config.local").write_text(section)
    with serve_guarded(hostile.remote) as address:
        config.write_text(config.read_text().replace(guarded, f"http://{address}"))
        hostile.make(grown_dataset.root)
        fetch = ("get", "tiny@1.0.0", "--to", str(tmp_path / "got"))
        for command in (fetch, ("publish", "tiny@1.1.0", "--dry-run"), ("report", "--compare", "tiny@v1.0.0")):
            done = hostile.run(*command)
            assert done.returncode == 0, done.stderr
        assert (Guarded.hosts, "" in Guarded.shown) == ({address}, False)


def test_a_key_of_a_checkout_goes_to_no_server_that_only_an_older_commit_names(hostile: Checkout, tmp_path: Path) -> None:
    before = (hostile.root / ".dvc/config").read_text()
    other = "['remote \"other\"']\n    url = s3://bucket\n"
    (hostile.root / ".dvc/config").write_text(f"{before}{other}    endpointurl = http://127.0.0.1:1\n")
    publish(hostile)
    # Of the same name today's settings hold, and of another one that stands on it none.
    (hostile.root / ".dvc/config").write_text(f"{before}{other}")
    keys = "['remote \"other\"']\n    access_key_id = me\n    secret_access_key = s3cret\n"
    (hostile.root / ".dvc/config.local").write_text(keys)
    hostile.commit("of Amazon")
    assert hostile.run("list").returncode == 0
    mirror = "['remote \"mirror\"']\n    url = remote://other/x\n    endpointurl = http://127.0.0.1:1\n"
    (hostile.root / ".dvc/config").write_text(f"{before}{other}{mirror}")
    hostile.commit("a mirror")
    hostile.git("tag", "--annotate", "--message", "a mirror", "tiny@v1.1.0")
    (hostile.root / ".dvc/config").write_text(f"{before}{other}")
    hostile.commit("no mirror")
    done = hostile.run("get", "tiny@1.1.0", "--to", str(tmp_path / "got"))
    assert (done.returncode, "puts remote 'mirror' on your own 'other', whose credentials in" in done.stderr) == (2, True), (
        done.stderr
    )
    hostile.git("push", "--quiet", "origin", "tiny@v1.1.0")
    done = hostile.run("get", "tiny@1.1.0", "--repo", hostile.origin, "--to", str(tmp_path / "got"))
    assert done.returncode == 0, done.stderr


def test_a_report_compares_with_no_commit_whose_settings_could_run_commands(hostile: Checkout, owned: Path) -> None:
    (hostile.root / "params.yaml").write_text("models: {}\n")
    config = (hostile.root / ".dvc/config").read_text()
    set_trap(hostile, owned)
    (hostile.root / ".dvc/config").write_text(f"[core]\n    remote = store\n['remote \"store\"']\n{TRAP}")
    hostile.commit("hostile")
    (hostile.root / ".dvc/config").write_text(config)
    hostile.commit("as before")
    done = hostile.run("report", "--compare", "HEAD~1")
    assert (done.returncode, "its .dvc/config sets remote." in done.stderr) == (2, True), done.stderr
    assert not owned.exists()


def test_a_password_in_the_address_of_a_repository_is_an_argument_of_no_program(hostile: Checkout, tmp_path: Path) -> None:
    publish(hostile)
    origin = hostile.root.parent / "origin.git"
    subprocess.run(["git", "-C", origin, "update-server-info"], check=True)
    with serve_guarded(origin) as address:
        for login, code in (("me:s3cret", 0), ("me:s3c%72et", 0), ("s3cret:", 0), ("me:wr0ng", 2)):
            Guarded.arguments.clear()
            done = Checkout(tmp_path).run("list", "--repo", f"http://{login}@{address}")
            assert (done.returncode, login in done.stderr) == (code, False), done.stderr
            assert f"http://{address}" in Guarded.arguments
            assert not [argument for argument in Guarded.arguments if login in argument or "s3cret" in argument]


@pytest.mark.parametrize("end", ["%0Ahost=elsewhere", "%0d", "%00"])
def test_a_password_that_breaks_a_line_is_refused_and_not_shown(tmp_path: Path, end: str) -> None:
    done = Checkout(tmp_path).run("list", "--repo", f"http://me:s3cret{end}@127.0.0.1:1/x")
    assert (done.returncode, "s3cret" in done.stderr) == (2, False)
    assert "have a line break or a zero byte: write there what you log in with" in done.stderr


@pytest.mark.parametrize("content", ["[core\n", "[core]\n    analytics = maybe\n"])
def test_own_settings_that_cannot_be_read_are_named_and_no_repository_blamed(
    hostile: Checkout, own_settings: Path, content: str
) -> None:
    own_settings.write_text(content)
    done = hostile.run("list", "--repo", hostile.origin)
    assert (done.returncode, done.stderr.startswith(f"error: {own_settings}: ")) == (2, True), done.stderr


@pytest.mark.parametrize(
    ("remote", "message"),
    [
        (
            "['remote \"mine\"']\n    url = s3://bucket\n    endpointurl = http://127.0.0.1:1\n",
            "sets endpointurl of remote 'mine' to http://127.0.0.1:1",
        ),
        ("['remote \"Mine\"']\n    url = s3://bucket/other\n", "sets url of remote 'mine' to s3://bucket/other"),
        (
            "['remote \"x\"']\n    url = Remote://Mine/x\n    endpointurl = http://127.0.0.1:1\n",
            "puts remote 'x' on your own 'Mine'",
        ),
    ],
)
def test_a_remote_of_the_users_own_is_not_led_elsewhere(hostile: Checkout, own_settings: Path, remote: str, message: str) -> None:
    publish(hostile)
    own_settings.write_text(
        "['remote \"mine\"']\n    url = s3://bucket\n    access_key_id = me\n    secret_access_key = s3cret\n"
    )
    with (hostile.root / ".dvc/config").open("a") as config:
        config.write(remote)
    hostile.commit("hostile settings")
    refuse(hostile, message)


@pytest.mark.parametrize("option", CONFIGS)
def test_a_configuration_that_runs_commands_or_names_files_of_this_machine_is_refused(
    hostile: Checkout, owned: Path, option: str
) -> None:
    publish(hostile)
    set_trap(hostile, owned)
    (hostile.root / ".dvc/config").write_text(CONFIGS[option].replace("OWNED", str(owned)))
    hostile.commit("hostile settings")
    hostile.git("tag", "--annotate", "--message", "settings", "tiny@v1.1.0")
    hostile.git("push", "--quiet", "origin", "tiny@v1.1.0")
    # So that a folder, too, has to be asked what its remote has.
    shutil.rmtree(hostile.root / ".dvc/cache")
    refuse(hostile, f"its .dvc/config sets {option}")
    assert not owned.exists()


def test_the_settings_of_this_project_keep_nobody_from_a_version_that_a_clone_publishes(
    hostile: Checkout, tmp_path: Path
) -> None:
    shutil.copy(ROOT / ".dvc/config", hostile.root / ".dvc/config")
    hostile.dvc("remote", "add", "--quiet", "--default", "store", str(hostile.remote))
    hostile.commit("the settings of this project")
    assert hostile.run("publish", "tiny", "1.0.0").returncode == 0
    assert hostile.run("get", "tiny", "--repo", hostile.origin, "--to", str(tmp_path / "target")).returncode == 0


@pytest.mark.parametrize("content", ["remote = x\n", "remote =\n", "'remote \"store\"' =\n", "core = x\n"])
def test_a_configuration_without_sections_is_refused(hostile: Checkout, content: str) -> None:
    publish(hostile)
    (hostile.root / ".dvc/config").write_text(content)
    hostile.commit("hostile settings")
    refuse(hostile, "its .dvc/config has a text in the place of the section")


def test_no_command_of_a_pipeline_is_run(hostile: Checkout, tmp_path: Path) -> None:
    pipeline = YAML(typ="safe").load(hostile.root / "dvc.yaml")
    pipeline["stages"]["make"]["cmd"] = f"touch {tmp_path}/owned"
    pipeline["stages"]["other"] = {"cmd": f"touch {tmp_path}/owned", "always_changed": True}
    YAML().dump(pipeline, hostile.root / "dvc.yaml")
    publish(hostile)
    for command in (["list"], ["show", "tiny"], ["get", "tiny", "--to", str(tmp_path / "got")], ["diff", "tiny", "tiny"]):
        assert hostile.run(*command, "--repo", hostile.origin).returncode == 0
    captcha_registry.load("tiny", repo=hostile.origin).to_numpy()
    assert not (tmp_path / "owned").exists()


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("https://me:s3cret@host/x.git", "https://***@host/x.git"),
        ("unable to access 'https://s3cret@host:8443/x/'", "unable to access 'https://***@host:8443/x/'"),
        ("https:/me:s3cret@host/x", "https:/***@host/x"),
        ("HTTPS://me:s3#c/re@t@host/x", "HTTPS://***@host/x"),
        ("ssh://me:s3cret@host/x", "ssh://***@host/x"),
        ("(http://me:s3cr@et:77/re@t@host:9/x?sig=s3cret)", "(http://***@host:9/x?***)"),
        ("ssh://git@host/x and git@host:x", "ssh://git@host/x and git@host:x"),
        ("https:///me:s3cret@host/x", "https:///***@host/x"),
        ("file:///me:x@y/z and memory:///a@b", "file:///me:x@y/z and memory:///a@b"),
        ("me:s3cret@host/x.git: no", "me:***@host/x.git: no"),
        ("me:s3@cret@host/x and me:s3cret@[::1]/x", "me:***@host/x and me:***@[::1]/x"),
        *((text, text) for text in ("digits:tiny@v1.0.0", "C:me@corp", "dvc.yaml:train@cnn", "mailto:me@host", "a:b@sha256:c")),
        ("s3:/bucket/x?sig=s3cret: no such file, C:/x#1", "s3:/bucket/x?*** no such file, C:/x#1"),
        ("https://host/x%3Fsig=s3cret", "https://host/x%3F***"),
        ("https://host/x%3Fy/z: no", "https://host/x%3Fy/z: no"),
        ("error: tiny@1.0.0 at 12:30 is not tiny@1.0.0:", "error: tiny@1.0.0 at 12:30 is not tiny@1.0.0:"),
        ("(https://host/x?X-Amz-Signature=s3cret&y=1)", "(https://host/x?***)"),
        ("url='https://host/x?sig=s3cret#s3cret': no", "url='https://host/x?***': no"),
        ("https://host:80/tiny@v1.0.0, file:///a?b/c#d@e", "https://host:80/tiny@v1.0.0, file:///a?b/c#d@e"),
    ],
)
def test_an_error_never_holds_a_secret(text: str, expected: str) -> None:
    assert str(UserError(text)) == repr(UserError(text))[len("UserError(") + 1 : -2].replace("\\'", "'") == expected


@pytest.mark.parametrize(
    "arguments",
    [
        ["verify", "URL"],
        ["repair", "URL"],
        ["diff", "URL", "URL"],
        ["show", "URL"],
        ["export", "URL", "--format", "numpy", "--to", "out"],
        ["export", "tiny", "--format", "numpy", "--to", "URL"],
        ["export", "URL", "--format", "onnx", "--to", "out.onnx"],
        ["get", "tiny", "--to", "URL"],
        ["predict", "one.png", "--model", "URL"],
        ["report", "--output", "URL"],
    ],
    ids=" ".join,
)
def test_a_url_in_the_place_of_a_path_is_refused_and_its_secrets_are_not_shown(tmp_path: Path, arguments: list[str]) -> None:
    url = "https://me:s3cret@127.0.0.1:1/x?signature=s3cret"
    done = Checkout(tmp_path).run(*(url if argument == "URL" else argument for argument in arguments))
    assert (done.returncode, "s3cret" in done.stdout + done.stderr) == (2, False), done.stderr
    assert list(tmp_path.iterdir()) == []


def test_a_token_in_the_address_of_a_repository_is_shown_and_kept_nowhere(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path / "temporary"))
    monkeypatch.setenv("CAPTCHA_REGISTRY_CACHE", str(tmp_path / "cache"))
    (tmp_path / "temporary").mkdir()
    port = free_port()
    for address in (f"http://me:s3cret@127.0.0.1:{port}/x.git", f"http://s3cret@127.0.0.1:{port}/x.git?token=s3cret"):
        for command in (["list"], ["list", "--json"], ["show", "tiny"], ["get", "tiny"], ["diff", "tiny@1.0.0", "tiny@1.1.0"]):
            done = Checkout(tmp_path).run(*command, "--repo", address)
            assert (done.returncode, "s3cret" in done.stdout + done.stderr) == (2, False), done
            assert f"http://***@127.0.0.1:{port}/x.git" in done.stderr
        with pytest.raises(UserError) as raised:
            captcha_registry.load("tiny", repo=address)
        assert "s3cret" not in "".join(traceback.format_exception(raised.value))
    assert [path for path in (tmp_path / "temporary").rglob("*") if path.is_file()] == []


def test_a_token_in_the_address_of_a_remote_or_the_origin_is_not_shown(hostile: Checkout, tmp_path: Path) -> None:
    publish(hostile)
    shutil.rmtree(hostile.root / ".dvc/cache")
    port = free_port()
    (hostile.root / ".dvc/config").write_text(f"{REMOTE}    url = http://me:s3cret@127.0.0.1:{port}/store?sig=s3cret\n")
    hostile.commit("a token")
    hostile.git("tag", "--annotate", "--message", "a token", "tiny@v1.1.0")
    hostile.git("push", "--quiet", "origin", "tiny@v1.1.0")
    hostile.git("remote", "set-url", "--push", "origin", f"http://me:s3cret@127.0.0.1:{port}/x.git")
    for command in (["list"], ["show", "tiny"], ["get", "tiny", "--to", str(tmp_path / "got")], ["publish", "tiny", "1.2.0"]):
        done = hostile.run(*command)
        assert "127.0.0.1" in done.stderr
        assert "s3cret" not in done.stdout + done.stderr
    with pytest.raises(UserError) as raised:
        captcha_registry.load("tiny", repo=hostile.origin)
    assert "s3cret" not in "".join(traceback.format_exception(raised.value))


def test_a_link_in_git_is_not_followed(hostile: Checkout) -> None:
    shutil.rmtree(hostile.root / "data")
    (hostile.root / "dvc.lock").unlink()
    (hostile.root / "data").symlink_to("/etc")
    YAML().dump({"artifacts": {"tiny": {"path": "data/tiny", "type": "dataset"}}}, hostile.root / "dvc.yaml")
    publish(hostile)
    refuse(hostile, "DVC tracks nothing under data/tiny")


def test_a_card_cannot_steer_the_terminal(tiny_dataset: CaptchaDataset, tmp_path: Path) -> None:
    checkout = Checkout.create(tmp_path)
    checkout.make(tiny_dataset.root, card="# tiny\n\x1b]0;owned\x07\x1b[2Jhidden\n")
    publish(checkout)
    assert checkout.run("show", "tiny").stdout == "# tiny\n]0;owned[2Jhidden\n\n"


ESCAPES = {
    "type": {"path": "data/tiny", "type": "\x1b]0;owned\x07\x1b[2Jx"},
    "path": {"path": "data/\x1b]0;owned\x07\x1b[2J"},
}


@pytest.mark.parametrize("field", ESCAPES)
def test_nothing_that_a_repository_says_can_steer_the_terminal(hostile: Checkout, field: str) -> None:
    pipeline = YAML(typ="safe").load(hostile.root / "dvc.yaml")
    pipeline["artifacts"] = {"tiny": ESCAPES[field], "\x1b[2J": {"path": "x"}}
    YAML().dump(pipeline, hostile.root / "dvc.yaml")
    publish(hostile)
    process = hostile.start("list", "--repo", hostile.origin)
    output, errors = process.communicate()
    assert "]0;owned[2J" in output + errors
    assert "Can't use '[2J' as artifact name" in errors
    assert "\x1b" not in output + errors
    assert "Traceback" not in errors


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("dvc.yaml", "a: " + "[" * 3_000 + "]" * 3_000, "a file of it is nested deeper than can be read"),
        ("dvc.yaml", "artifacts: []\n", "expected a dictionary"),
        ("dvc.yaml", "artifacts:\n  tiny: 3\n", "expected a dictionary"),
        ("dvc.lock", "schema: '2.0'\nstages:\n  make: 3\n", "expected a dictionary"),
    ],
    ids=["deep", "list", "number", "lock"],
)
def test_files_that_are_no_pipeline_are_refused(hostile: Checkout, name: str, content: str, message: str) -> None:
    (hostile.root / name).write_text(content)
    hostile.commit("hostile")
    hostile.git("tag", "--annotate", "--message", "hostile", "tiny@v1.0.0")
    hostile.git("push", "--quiet", "origin", "tiny@v1.0.0")
    for command in (["list"], ["get", "tiny"]):
        done = hostile.run(*command, "--repo", hostile.origin)
        assert done.returncode == 2
        assert message in done.stderr


def test_a_remote_whose_package_is_not_installed_names_it(hostile: Checkout, monkeypatch: pytest.MonkeyPatch) -> None:
    (hostile.root / ".dvc/config").write_text(f"{REMOTE}    url = s3://bucket/store\n")
    hostile.commit("a bucket")
    hostile.git("tag", "--annotate", "--message", "a bucket", "tiny@v1.0.0")
    monkeypatch.setitem(sys.modules, "dvc_s3", None)
    done = hostile.run("get", "tiny")
    assert done.returncode == 2
    assert "-m pip install 'dvc-s3>=3.2'`" in done.stderr


def test_a_model_card_that_nests_too_deep_is_refused(tmp_path: Path) -> None:
    (tmp_path / "model.json").write_text("[" * 100_000)
    with pytest.raises(UserError, match=r"model\.json is nested deeper"):
        read_folder(tmp_path)


def save(folder: Path, spec: DatasetSpec, network: keras.Model, *, model_sha256: str | None = None) -> None:
    """Write a model file with a card that fits, unless told otherwise."""
    folder.mkdir()
    network.save(folder / "model.keras")
    describe(folder, spec, model_sha256=model_sha256)


def describe(folder: Path, spec: DatasetSpec, *, model_sha256: str | None = None) -> None:
    """Write the card of a model file."""
    found = hashlib.sha256((folder / "model.keras").read_bytes()).hexdigest()
    card = ModelCard(
        family="cnn",
        preset="fast",
        dataset="tiny",
        spec=spec,
        dataset_id="d" * 64,
        num_parameters=0,
        model_sha256=model_sha256 or found,
    )
    (folder / "model.json").write_text(card.model_dump_json())


def test_a_model_that_carries_code_is_refused_and_its_code_not_run(
    tiny_spec: DatasetSpec, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    pixels = keras.Input((32, 48, 3))
    touch = keras.layers.Lambda(lambda x: (__import__("pathlib").Path("owned").touch(), x)[1], output_shape=(32, 48, 3))
    network = keras.Model(pixels, touch(pixels))
    save(tmp_path / "model", tiny_spec, network)
    network(np.zeros((1, 32, 48, 3)))
    (tmp_path / "owned").unlink()
    with pytest.raises(UserError, match=r"model\.keras"):
        load_model(tmp_path / "model")
    assert not (tmp_path / "owned").exists()


def test_a_model_with_another_hash_than_its_card_says_is_refused(tiny_spec: DatasetSpec, tmp_path: Path) -> None:
    pixels = keras.Input((32, 48, 3))
    save(tmp_path / "model", tiny_spec, keras.Model(pixels, keras.layers.Flatten()(pixels)), model_sha256="0" * 64)
    with pytest.raises(UserError, match=r"model\.keras"):
        load_model(tmp_path / "model")


EMPTY = json.dumps({"module": "keras", "class_name": "Sequential", "config": {"layers": []}, "registered_name": None})


@pytest.mark.parametrize(
    "files",
    [
        {},
        {"metadata.json": "{}", "config.json": "no JSON"},
        {"metadata.json": "{}", "config.json": "[]"},
        {"metadata.json": "{}", "config.json": "[" * 100_000},
        {"metadata.json": "{}", "config.json": EMPTY},
        {"metadata.json": "{}", "config.json": EMPTY, "model.weights.h5": "no weights"},
    ],
    ids=["empty", "no JSON", "list", "deep", "no weights", "damaged weights"],
)
def test_what_is_no_model_is_refused(tiny_spec: DatasetSpec, tmp_path: Path, files: dict[str, str]) -> None:
    with zipfile.ZipFile(tmp_path / "model.keras", "w") as archive:
        for name, content in files.items():
            archive.writestr(name, content)
    describe(tmp_path, tiny_spec)
    with pytest.raises(UserError, match=r"model\.keras is refused"):
        load_model(tmp_path)


def test_the_model_that_is_loaded_is_the_one_that_was_checked(
    tiny_spec: DatasetSpec, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pixels = keras.Input((32, 48, 3))
    logits = keras.layers.Dense(36)(keras.layers.Flatten()(pixels))
    save(tmp_path / "model", tiny_spec, keras.Model(pixels, keras.layers.Reshape((3, 12), name="checked")(logits)))
    save(tmp_path / "other", tiny_spec, keras.Model(pixels, keras.layers.Reshape((3, 12), name="other")(logits)))
    load = keras.saving.load_model

    def swap(*arguments: object, **options: object) -> keras.Model:
        (tmp_path / "other/model.keras").replace(tmp_path / "model/model.keras")
        return load(*arguments, **options)

    monkeypatch.setattr(keras.saving, "load_model", swap)
    network, _ = load_model(tmp_path / "model")
    assert network.layers[-1].name == "checked"
