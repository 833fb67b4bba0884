"""Published versions are found, shown, fetched and read where they lie; every byte is verified, nothing is written elsewhere."""

import errno
import hashlib
import json
import os
import pickle
import re
import shutil
import signal
import sys
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import redirect_stderr
from functools import partial
from io import StringIO
from pathlib import Path
from subprocess import PIPE, Popen
from threading import Event
from typing import Any, cast

import numpy as np
import pygit2
import pytest
from checkouts import Checkout
from conftest import HANG_SECONDS, as_another_user, hash_files, wait_until
from dvc.exceptions import DvcException
from dvc.fs import LocalFileSystem as DvcFileSystem
from dvc.utils import serialize, strictyaml
from processes import Process

import captcha_registry
from captcha_registry.cli import main
from captcha_registry.dataset.dataset import CaptchaDataset
from captcha_registry.dataset.verify import verify_dataset
from captcha_registry.errors import UserError
from captcha_registry.registry import repository
from captcha_registry.registry.fetching import Checksum, RemoteFile, fetch_all
from captcha_registry.registry.git import open_git, run_git
from captcha_registry.registry.repository import (
    explain_errors,
    find_commits,
    open_repository,
    parse_reference,
    parse_version,
)


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty cache."""
    monkeypatch.setenv("CAPTCHA_REGISTRY_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"


@pytest.fixture
def asked(monkeypatch: pytest.MonkeyPatch) -> list[tuple[str, int]]:
    """What remotes were asked for from now on: names with the number of bytes, -1 for a whole file."""
    asked: list[tuple[str, int]] = []
    read, fetch = RemoteFile.read, RemoteFile.fetch

    def note_read(self: RemoteFile, offset: int = 0, length: int | None = None) -> bytes:
        asked.append((self.name, -1 if length is None else length))
        return read(self, offset, length)

    def note_fetch(self: RemoteFile, *arguments: object) -> None:
        asked.append((self.name, -1))
        fetch(self, *arguments)  # type: ignore[arg-type]

    monkeypatch.setattr(RemoteFile, "read", note_read)
    monkeypatch.setattr(RemoteFile, "fetch", note_fetch)
    return asked


def get(published: Checkout, *arguments: str) -> str:
    """Run `captcha-registry get` against the origin; return what it said, after it succeeded."""
    done = published.run("get", *arguments, "--repo", published.origin)
    assert done.returncode == 0, done.stderr
    return done.stdout


# --- find


def test_list_names_versions_from_the_newest_with_samples_and_bytes(published: Checkout, tiny_dataset: CaptchaDataset) -> None:
    rows = json.loads(published.run("list", "--repo", published.origin, "--json").stdout)
    assert [(row["name"], row["version"], row["type"], row["samples"]) for row in rows] == [
        ("tiny", "1.1.0", "dataset", 90),
        ("tiny", "1.0.0", "dataset", 60),
    ]
    card = len("---\nlicense: apache-2.0\n---\n# tiny\n\nVersion 1.0.0.\n")
    assert rows[1]["dataset_id"] == tiny_dataset.manifest.dataset_id != rows[0]["dataset_id"]
    assert rows[1]["size_bytes"] == card + sum(p.stat().st_size for p in tiny_dataset.root.rglob("*") if p.is_file())


def test_list_without_a_repository_reads_the_one_around(published: Checkout) -> None:
    lines = published.run("list").stdout.splitlines()
    assert [line.split()[:4] for line in lines[1:]] == [["tiny", "1.1.0", "dataset", "90"], ["tiny", "1.0.0", "dataset", "60"]]


@pytest.mark.parametrize("form", ["file:///{}", "/{}", "/{}/"])
def test_a_bare_repository_is_named_by_url_or_path(published: Checkout, form: str) -> None:
    path = str(published.root.parent / "origin.git")
    done = published.run("list", "--repo", form.format(path.lstrip("/")))
    assert (done.returncode, done.stdout.count("tiny")) == (0, 2), done.stderr


ODD = "a b/\u00fcber #1 100% [x] + what?,;&~$.d"


@pytest.fixture
def odd(published: Checkout, tmp_path: Path) -> Path:
    """A bare repository of tiny below a folder with every character that an address may give a meaning to."""
    return Path(shutil.copytree(published.root.parent / "origin.git", tmp_path / ODD / "origin.git"))


def test_a_bare_repository_is_found_where_git_finds_it(
    published: Checkout, odd: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    relative = os.path.relpath(odd, published.root)
    for form in (str(odd), f"{odd}/", str(odd.with_suffix("")), relative, odd.as_uri(), f"~/{ODD}/origin.git"):
        done = published.run("list", "--repo", form)
        assert (done.returncode, done.stdout.count("tiny")) == (0, 2), (form, done.stderr)
    assert captcha_registry.load("tiny", repo=str(odd), version="1.0.0")[3].label


def test_a_bare_repository_in_a_folder_of_another_project_is_not_taken_for_that_project(
    published: Checkout, tmp_path: Path
) -> None:
    run_git(tmp_path, "init")
    (tmp_path / ".dvc").mkdir()
    shutil.copytree(published.root.parent / "origin.git", tmp_path / ".work/registry.git")
    work = Checkout(tmp_path / ".work")
    done = work.run("list", "--repo", "registry.git")
    assert (done.returncode, done.stdout.count("tiny")) == (0, 2), done.stderr
    assert (
        "published there: none; to read from another repository, name it with --repo URL, in Python with repo=URL"
        in work.run("get", "tiny").stderr
    )


def test_a_project_and_its_remotes_may_lie_in_any_folder(tiny_dataset: CaptchaDataset, tmp_path: Path) -> None:
    checkout = Checkout.create(tmp_path / ODD, "/none")
    # DVC reads an umlaut here, but cannot write one.
    (checkout.root / ".dvc/config").write_text(
        f'[core]\n    remote = store\n[\'remote "store"\']\n    url = "{checkout.remote}"\n', encoding="utf-8"
    )
    checkout.make(tiny_dataset.root)
    done = checkout.run("publish", "tiny", "1.0.0")
    assert done.returncode == 0, done.stderr
    assert len(checkout.list_remote()) == 15
    shutil.rmtree(checkout.root / ".dvc/cache")
    for number, repo in enumerate((checkout.origin, str(checkout.root))):
        target = tmp_path / ODD / f"got {number}"
        done = checkout.run("get", "tiny", "--repo", repo, "--to", str(target))
        assert done.returncode == 0, done.stderr
        assert len(hash_files(target)) == 13


@pytest.mark.parametrize(
    ("names", "message"),
    [
        ("sha1", "the default branch of this Git repository has no .dvc folder at its top"),
        ("sha256", "whose objects have SHA-256 names"),
    ],
)
def test_a_repository_that_cannot_hold_versions_says_why(tmp_path: Path, names: str, message: str) -> None:
    run_git(tmp_path, "init", f"--object-format={names}")
    run_git(tmp_path, "commit", "--allow-empty", "--message", "nothing")
    done = Checkout(tmp_path).run("list", "--repo", str(tmp_path))
    assert (done.returncode, message in done.stderr) == (2, True), done.stderr


def test_a_repository_with_tags_and_no_branch_says_so(published: Checkout, tmp_path: Path) -> None:
    copy = published.copy_to(tmp_path / "copy")
    run_git(tmp_path / "copy/origin.git", "update-ref", "-d", "refs/heads/main", bare=True)
    done = copy.run("list", "--repo", copy.origin)
    assert (done.returncode, "it has no branch: nothing or only tags were pushed to it, or" in done.stderr) == (2, True)


@pytest.mark.parametrize(
    ("setting", "message"),
    [
        ("[core]\n\trepositoryFormatVersion = 1\n[extensions]\n\tnoop = true\n", "noop), though Git can: make a new clone, and"),
        ("[core\n", "bad config line"),
    ],
)
def test_a_repository_that_dvc_cannot_read_says_why(tmp_path: Path, setting: str, message: str) -> None:
    run_git(tmp_path, "init")
    with (tmp_path / ".git/config").open("a") as config:
        config.write(setting)
    with pytest.raises(UserError, match=re.escape(message)):
        open_git(tmp_path)


def test_a_repository_with_a_reftable_says_how_to_get_one_without(tmp_path: Path) -> None:
    try:
        run_git(tmp_path, "init", "--ref-format=reftable")
    except UserError:
        pytest.skip("needs Git 2.45")
    with pytest.raises(UserError, match=r"in a reftable: make a new clone with `git clone --ref-format=files`"):
        open_git(tmp_path)


def test_git_is_asked_once_what_it_tracks_however_much_is_ignored(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    run_git(tmp_path, "init", "--quiet")
    (tmp_path / ".gitignore").write_text("ignored*\n")
    folders = [tmp_path / f"ignored-{number}" for number in range(3)]
    for folder in folders:
        folder.mkdir()
        (folder / "file").touch()
    run_git(tmp_path, "add", "--force", "ignored-0/file")
    scm = open_git(tmp_path)
    asked = []
    monkeypatch.setattr("captcha_registry.registry.git.run_git", lambda *of, **how: asked.append(of) or run_git(*of, **how))
    assert [scm.is_ignored(f"{folder}/") for folder in folders] == [False, True, True]
    assert [scm.is_tracked(str(path)) for path in (folders[0] / "file", folders[0], tmp_path / "no", tmp_path.parent)] == [
        *(True, True),
        *(False, False),
    ]
    assert len(asked) == 1


@pytest.mark.parametrize("option", ["--no-tags", "--depth=1"])
def test_a_clone_without_tags_says_what_its_origin_has_and_how_to_get_it(
    published: Checkout, tmp_path: Path, option: str
) -> None:
    published.git("clone", "--quiet", "--no-tags", option, published.origin, str(tmp_path / "clone"))
    clone = Checkout(tmp_path / "clone")
    for command in (["list"], ["list", "--json"], ["show", "tiny"], ["get", "tiny@1.0.0"], ["diff", "tiny@1.0.0", "tiny@1.1.0"]):
        done = clone.run(*command)
        assert (done.returncode, "`captcha-registry publish" in done.stderr) == (2, False), done
        assert "origin has tiny@v1.0.0, tiny@v1.1.0, not known here: run `git fetch --tags` here, or name the" in done.stderr
    clone.git("fetch", "--quiet", "--tags")
    assert clone.run("list").stdout.count("tiny") == 2
    assert "Version 1.0.0." in clone.run("show", "tiny@1.0.0").stdout
    assert "tiny has no version 3.0.0; published: 1.1.0, 1.0.0\n" in clone.run("show", "tiny@3.0.0").stderr
    clone.git("tag", "--delete", "tiny@v1.0.0", "tiny@v1.1.0")
    clone.git("remote", "set-url", "origin", str(tmp_path / "nowhere"))
    assert "origin may have others, but could not be asked" in clone.run("list").stderr
    clone.git("remote", "remove", "origin")
    done = clone.run("list")
    assert done.returncode == 0
    assert done.stderr.startswith(f"nothing is published in {clone.root} yet: `captcha-registry publish NAME@VERSION` does that")


@pytest.mark.parametrize("lacking", ["blob:none", "tree:0"])
def test_what_a_partial_clone_lacks_is_fetched(published: Checkout, tmp_path: Path, lacking: str) -> None:
    origin = shutil.copytree(published.root.parent / "origin.git", tmp_path / "origin.git")
    run_git(origin, "config", "uploadpack.allowFilter", "true")
    run_git(tmp_path, "clone", "--quiet", f"--filter={lacking}", origin.as_uri(), "clone")
    done = Checkout(tmp_path / "clone").run("list")
    assert (done.returncode, done.stdout.count("tiny"), done.stderr) == (0, 2, "")


@pytest.mark.parametrize(
    ("setting", "value"),
    [("safe.bareRepository", "explicit"), ("clone.rejectShallow", "true"), ("init.defaultRefFormat", "reftable")],
)
def test_a_repository_is_read_whatever_the_settings_of_git(
    published: Checkout, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, setting: str, value: str
) -> None:
    run_git(
        tmp_path, "clone", "--quiet", "--bare", "--depth=1", "--no-single-branch", f"file://{published.origin}", "shallow.git"
    )
    monkeypatch.setenv("GIT_CONFIG_COUNT", "1")
    monkeypatch.setenv("GIT_CONFIG_KEY_0", setting)
    monkeypatch.setenv("GIT_CONFIG_VALUE_0", value)
    assert published.run("list", "--repo", str(tmp_path / "shallow.git")).stdout.count("tiny") == 2


def test_files_of_a_commit_are_never_read_through_a_stream_that_could_hang(
    published: Checkout, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(pygit2, "BlobIO", None)
    for command in (
        ["list"],
        ["show", "tiny"],
        ["diff", "tiny@1.0.0", "tiny@1.1.0"],
        ["get", "tiny", "--to", str(tmp_path / "got")],
    ):
        for repo in ([], ["--repo", published.origin]):
            done = published.run(*command, *repo)
            assert done.returncode == 0, done.stderr
    done = published.run("publish", "tiny", "1.1.0", "--dry-run")
    assert done.returncode == 0, done.stderr


def test_dvc_parses_each_of_its_files_once_and_gets_its_own_copy(clone: Checkout, monkeypatch: pytest.MonkeyPatch) -> None:
    parsed: list[str] = []
    monkeypatch.setattr(repository, "parse_yaml", lambda text, path: parsed.append(text) or serialize.parse_yaml(text, path))
    lock = clone.root / "dvc.lock"
    lock.write_text(f"# {clone.root}, so that nobody has read it yet\n{lock.read_text()}")
    clone.git("commit", "--quiet", "--all", "--message", "x")
    clone.git("tag", "--annotate", "--message", "x", "tiny@v1.2.0")
    content = strictyaml.load(str(lock))[0]
    assert content == serialize.parse_yaml(lock.read_text(), "dvc.lock")
    content["stages"].clear()
    done = clone.run("get", "tiny@1.2.0", "--to", str(clone.root.parent / "got"))
    assert done.returncode == 0, done.stderr
    assert parsed.count(lock.read_text()) == 1
    assert len(parsed) == len(set(parsed))


def test_list_still_names_versions_whose_data_cannot_be_reached(published: Checkout, tmp_path: Path) -> None:
    clone = tmp_path / "clone"
    published.git("clone", "--quiet", published.origin, str(clone))
    config = clone / ".dvc/config"
    config.write_text(config.read_text().replace(str(published.remote), str(tmp_path / "nowhere")))
    done = Checkout(clone).run("list", "--json")
    assert [(row["version"], row["samples"]) for row in json.loads(done.stdout)] == [("1.1.0", None), ("1.0.0", None)]
    assert "note: tiny@1.0.0: the remote does not list its files" in done.stderr
    shutil.rmtree(clone / ".dvc")
    assert "is in no DVC repository" in Checkout(clone).run("list").stderr


def test_show_prints_the_card_of_the_version(published: Checkout) -> None:
    assert "Version 1.0.0." in published.run("show", "tiny@1.0.0", "--repo", published.origin).stdout
    assert "Version 1.1.0." in published.run("show", "tiny").stdout


def test_show_tells_a_script_what_it_shows(published: Checkout) -> None:
    said = json.loads(published.run("show", "tiny@1.0.0", "--json", "--repo", published.origin).stdout)
    assert said == {
        "artifact": "tiny",
        "version": "1.0.0",
        "commit": published.git("rev-parse", "tiny@v1.0.0^{commit}"),
        "type": "dataset",
        "description": "A tiny dataset.",
        "card": "---\nlicense: apache-2.0\n---\n# tiny\n\nVersion 1.0.0.\n",
    }


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["get", "tinny"], "has no published artifact 'tinny'; did you mean `tiny`? published there: tiny"),
        (["get", "tiny@2.0.0"], "tiny has no version 2.0.0; published: 1.1.0, 1.0.0"),
        (["get", f"tiny@1.0.0-{'a' * 100}"], "' is not a version; expected MAJOR.MINOR.PATCH"),
        (["get", "tiny@newest"], "'newest' is not a version; expected MAJOR.MINOR.PATCH"),
        (["get", "@1.0.0"], "'@1.0.0' names no version; expected NAME or NAME@VERSION"),
        (["get", "https://me:hunter2@host/x@1.0.0"], "'https://***@host/x@1.0.0' names no version"),
        (["get", "tiny", "--split", "tset"], "has no split 'tset'; expected test or train"),
        (["show", "tiny@2.0.0"], "published: 1.1.0, 1.0.0"),
        (["list", "--repo", "/nowhere"], "/nowhere: No git repository was found"),
        (["list", "--repo", "ext::sh -c touch% /tmp/owned"], "is not an address of a repository"),
        (["list", "--repo=--upload-pack=touch /tmp/owned"], "is not an address of a repository"),
        (["list", "--repo=-oProxyCommand=sh"], "is not an address of a repository"),
        (["list", "--repo=-dash/r.git"], "expected a path or a Git URL (https, ssh, file); write a path as ./-dash/r.git"),
        (["diff", "tiny@1.0.0", "tiny@3.0.0"], "tiny has no version 3.0.0"),
        (["diff", "dvc.yaml", "tiny@1.0.0"], "dvc.yaml is not a folder; expected a dataset, a model, or NAME@VERSION"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else "",
)
def test_what_does_not_exist_is_named_with_what_does(published: Checkout, arguments: list[str], message: str) -> None:
    done = published.run(*arguments)
    assert done.returncode == 2
    assert message in done.stderr
    assert "Traceback" not in done.stderr


@pytest.mark.parametrize(
    ("target", "message"),
    [
        ("file/x", "{0}/file is there, and is no folder: move it away, or name another path"),
        ("link/x", "{0}/link is a symbolic link that leads nowhere: move it away, or name another path"),
        (
            "/proc/x",
            "No such file or directory: it is not in /proc, and cannot be made there: name another path, here or in the setting",
        ),
    ],
)
def test_a_path_that_cannot_be_made_is_told_with_what_is_in_the_way(
    published: Checkout, tmp_path: Path, target: str, message: str
) -> None:
    (tmp_path / "file").touch()
    (tmp_path / "link").symlink_to("nowhere")
    for command in (["get", "tiny"], ["export", "data/tiny", "--format", "numpy"]):
        done = published.run(*command, "--to", str(tmp_path / target))
        assert (done.returncode, message.format(tmp_path) in done.stderr) == (2, True), done.stderr


def test_references_and_versions_are_read_with_and_without_v() -> None:
    assert parse_reference("digits@v1.2.3") == parse_reference("digits@1.2.3") == ("digits", "1.2.3")
    assert parse_reference("digits") == ("digits", None)
    assert parse_version("v1.2.3") == parse_version("1.2.3")
    with pytest.raises(UserError, match="the version is empty, perhaps because a variable is not set"):
        parse_reference("digits", "")


def test_versions_that_have_no_order_are_refused() -> None:
    with pytest.raises(UserError, match=r"'1\.0\.0\+a' is not a version; expected MAJOR\.MINOR\.PATCH"):
        parse_version("1.0.0+a")


def test_a_version_that_is_a_number_is_refused(published: Checkout) -> None:
    with pytest.raises(UserError, match=r"1\.0 is not a version; expected MAJOR\.MINOR\.PATCH, such as 1\.0\.0"):
        captcha_registry.load("tiny", repo=published.origin, version=1.0)  # type: ignore[arg-type]


def test_an_address_with_colons_is_no_transport_helper(tmp_path: Path) -> None:
    done = Checkout(tmp_path).run("list", "--repo", "https://[::1]:1/x")
    assert done.returncode == 2
    assert "is not an address of a repository" not in done.stderr


@pytest.fixture
def clone(published: Checkout, tmp_path: Path) -> Checkout:
    """A clone in which a test may commit and tag."""
    published.git("clone", "--quiet", published.origin, str(tmp_path / "clone"))
    return Checkout(tmp_path / "clone")


def test_list_notes_versions_that_cannot_be_read_and_names_the_others(clone: Checkout) -> None:
    clone.git("tag", "--annotate", "--message", "x", "tinny@v1.0.0")
    clone.git("tag", "--annotate", "--message", "x", "tiny@v1.0.0+a")
    with (clone.root / ".dvc/config").open("a") as config:
        config.write("[hydra]\n    enabled = true\n")
    clone.git("commit", "--quiet", "--all", "--message", "unsafe")
    clone.git("tag", "--annotate", "--message", "x", "tiny@v1.2.0")
    clone.git("reset", "--quiet", "--hard", "HEAD~")
    done = clone.run("list", "--json")
    assert done.returncode == 0
    assert [(row["name"], row["version"]) for row in json.loads(done.stdout)] == [("tiny", "1.1.0"), ("tiny", "1.0.0")]
    notes = done.stderr.splitlines()
    assert [note for note in notes if note.startswith("note: tinny@1.0.0: dvc.yaml there has no artifact")]
    assert [note for note in notes if note.startswith("note: tiny@1.2.0: ") and "its .dvc/config sets hydra.enabled" in note]
    assert len(notes) == 2


@pytest.mark.parametrize(
    ("path", "content", "message"),
    [
        ("dvc.lock", b"<<<<<<< HEAD\na: b\n", r"dvc\.lock: .*line 2.*: correct that file, and commit it"),
        ("dvc.lock", b"", r"dvc\.lock: required key not provided .*: correct that file"),
        ("dvc.lock", b"\xff", r"dvc\.lock: 'utf-8' codec .*: correct that file"),
        ("dvc.yaml", b"stages: {a: {cm: x}}", r"dvc\.yaml: extra keys not allowed .*'cm'\].*: correct that file"),
        ("dvc.yaml", b"stages: {a: {cmd: '${x}'}}", r"failed to parse 'stages\.a\.cmd' in 'dvc\.yaml': Could not find 'x'"),
        (".dvcignore", b"\xff", r"its \.dvcignore is no text in UTF-8 .*: correct that file"),
        (".dvc/config", b"[core", r"its \.dvc/config or \.dvc/config\.local: Invalid line .* at line 1\.: correct that file"),
    ],
)
def test_a_file_of_dvc_that_cannot_be_read_is_named(clone: Checkout, path: str, content: bytes, message: str) -> None:
    (clone.root / path).write_bytes(content)
    clone.git("commit", "--quiet", "--all", "--message", "damaged")
    done = clone.run("publish", "tiny@1.2.0", "--dry-run")
    assert done.returncode == 2
    assert re.search(message, done.stderr), done.stderr


def test_a_version_is_seen_whatever_else_its_tag_says_and_a_tag_on_no_commit_is_passed_over(clone: Checkout) -> None:
    git = pygit2.Repository(str(clone.root))
    commit = str(git.revparse_single("tiny@v1.0.0^{commit}").id)
    contents = {
        "nobody": b"object %s\ntype commit\ntag tiny@v1.0.1\n\nx\n",
        "no text": b"object %s\ntype commit\ntag tiny@v1.0.2\ntagger J\xf6rg <j@x> 1700000000 +0000\n\n\xf6\n",
        "another name": b"object %s\ntype commit\ntag other\ntagger J 99999999999999999999 x\n\nx\n",
    }
    for number, content in enumerate(contents.values(), 1):
        tag = git.write(pygit2.enums.ObjectType.TAG, content % commit.encode())
        git.references.create(f"refs/tags/tiny@v1.0.{number}", tag)
    clone.git("tag", "--annotate", "--message", "x", "tiny@v1.0.4", "tiny@v1.0.1")
    for number, other in enumerate(("HEAD^{tree}", "HEAD:dvc.yaml"), 5):
        clone.git("tag", "--annotate", "--message", "x", f"tiny@v1.0.{number}", other)
    for name in (b"tiny@v1.0.7", b"\xff@v1.0.8"):
        Path(clone.root, ".git/refs/tags", os.fsdecode(name)).write_text("")
    with open_repository(str(clone.root)) as repo:
        versions = {str(version): found for (_, version), found in find_commits(repo).items()}
    assert versions.pop("1.1.0") != commit
    assert versions == dict.fromkeys(["1.0.0", "1.0.1", "1.0.2", "1.0.3", "1.0.4"], commit)
    (clone.root / ".git/refs/tags/tiny@v1.0.7").write_text("1" * 40 + "\n")
    done = clone.run("list")
    assert (done.returncode, "error: the tag tiny@v1.0.7 cannot be read (" in done.stderr) == (2, True), done.stderr


def test_a_folder_in_the_place_of_a_file_that_git_reads_is_told(clone: Checkout) -> None:
    (clone.root / ".gitignore").unlink()
    (clone.root / ".gitignore").mkdir()
    done = clone.run("list")
    assert (done.returncode, "such as .gitignore: Is a directory: correct it" in done.stderr) == (2, True), done.stderr


def test_the_newest_version_is_a_release_if_there_is_one(clone: Checkout) -> None:
    clone.git("tag", "--annotate", "--message", "x", "tiny@v2.0.0-rc.1", "tiny@v1.0.0^{commit}")
    assert "Version 1.1.0." in clone.run("show", "tiny").stdout
    assert "Version 1.0.0." in clone.run("show", "tiny@2.0.0-rc.1").stdout
    clone.git("tag", "--delete", "tiny@v1.0.0", "tiny@v1.1.0")
    assert "Version 1.0.0." in clone.run("show", "tiny").stdout


# --- fetch


def test_get_makes_a_dataset_that_verifies_and_equals_what_was_published(
    published: Checkout, tiny_dataset: CaptchaDataset, tmp_path: Path
) -> None:
    said = get(published, "tiny@1.0.0", "--to", str(tmp_path / "got"))
    assert "tiny@1.0.0: 60 samples, 13 files" in said
    with ThreadPoolExecutor(1) as executor:
        assert verify_dataset(tmp_path / "got", "deep", executor) == []
    got = hash_files(tmp_path / "got")
    assert got.pop("README.md")
    assert got == hash_files(tiny_dataset.root)


class Terminal(StringIO):
    """Takes what is shown to a person."""

    def isatty(self) -> bool:
        return True


def test_get_shows_one_progress_bar(published: Checkout, tmp_path: Path) -> None:
    with redirect_stderr(Terminal()) as shown, pytest.raises(SystemExit) as end:
        main(["get", "tiny@1.0.0", "--repo", published.origin, "--to", str(tmp_path / "tiny")])
    assert end.value.code == 0
    # A bar begins at 0 %; at its end it is removed, and a second one would need a line of its own.
    assert shown.getvalue().count("fetch:   0%|") == 1
    assert "\n" not in shown.getvalue()
    assert shown.getvalue().endswith("\r")


def test_get_of_a_split_fetches_its_shards_only_and_they_can_be_read(
    published: Checkout, tiny_dataset: CaptchaDataset, tmp_path: Path
) -> None:
    get(published, "tiny@1.0.0", "--split", "test", "--to", str(tmp_path / "got"))
    assert {p.parent.name for p in (tmp_path / "got").rglob("*.tfrecord")} == {"test"}
    images, labels = captcha_registry.load(tmp_path / "got", split="test").to_numpy()
    expected_images, expected_labels = captcha_registry.load(tiny_dataset.root, split="test").to_numpy()
    np.testing.assert_array_equal(images, expected_images)
    assert list(labels) == list(expected_labels)


def test_a_fetched_split_is_verified_and_repaired_without_the_other(published: Checkout, tmp_path: Path) -> None:
    target = tmp_path / "got"
    get(published, "tiny@1.0.0", "--split", "test", "--to", str(target))
    before = hash_files(target)
    for depth in ("quick", "full"):
        done = published.run("verify", str(target), "--depth", depth)
        assert (done.returncode, f"nothing wrong at depth {depth}; only test was fetched, " in done.stdout) == (0, True)
    assert json.loads(published.run("verify", str(target), "--json").stdout)["fetched"] == ["test"]
    next((target / "test").iterdir()).unlink()
    assert published.run("verify", str(target)).returncode == 1
    done = published.run("repair", str(target))
    assert (done.returncode, len(done.stdout.splitlines())) == (0, 2), done.stdout
    assert hash_files(target) == before

    # With the other split too, or everything, nothing may be missing any more.
    for arguments in (["--split", "train"], []):
        get(published, "tiny@1.0.0", *arguments, "--to", str(target))
        assert not (target / ".fetched.json").exists()
    get(published, "tiny@1.0.0", "--split", "test", "--to", str(target))
    shutil.rmtree(target / "train")
    assert published.run("verify", str(target), "--depth", "quick").stdout.count("missing, with 6 samples") == 8


def test_get_passes_over_what_other_tools_leave_in_its_folder(published: Checkout, tmp_path: Path) -> None:
    (tmp_path / "got").mkdir()
    (tmp_path / "got/.DS_Store").touch()
    get(published, "tiny@1.0.0", "--split", "test", "--to", str(tmp_path / "got"))
    assert (tmp_path / "got/.DS_Store").exists()


def test_get_goes_on_where_it_was_interrupted_and_repairs_what_is_wrong(published: Checkout, tmp_path: Path) -> None:
    target = tmp_path / "got"
    get(published, "tiny@1.0.0", "--to", str(target))
    expected = hash_files(target)
    cut = next((target / "test").iterdir())
    cut.write_bytes(cut.read_bytes()[:-1])
    said = json.loads(get(published, "tiny@1.0.0", "--to", str(target), "--json"))
    assert (said["num_files"], said["num_fetched"]) == (13, 1)
    (target / "manifest.json").unlink()
    (target / "train/00000.tfrecord").unlink()
    (target / "train/00001.tfrecord.0123456789ab.tmp").write_bytes(b"what a killed process left")
    said = json.loads(get(published, "tiny@1.0.0", "--to", str(target), "--json"))
    assert (said["num_files"], said["num_fetched"]) == (13, 2)
    assert hash_files(target) == expected


def test_nothing_is_fetched_into_a_dataset(published: Checkout, dataset_copy: Path) -> None:
    before = hash_files(dataset_copy)
    done = published.run("get", "tiny@1.0.0", "--repo", published.origin, "--to", str(dataset_copy / "other"))
    assert done.returncode == 2
    assert f"{dataset_copy}/other lies in the dataset {dataset_copy}, where it would be taken for damage: name" in done.stderr
    assert hash_files(dataset_copy) == before
    # Of a page, not of a dataset.
    (dataset_copy / "manifest.json").write_text('{"name": "a page"}')
    get(published, "tiny@1.0.0", "--to", str(dataset_copy / "other"))


def has_ended_or_made(process: Process, target: Path, num_files: int) -> bool:
    return process.poll() is not None or sum(path.is_file() for path in target.rglob("*")) > num_files


def test_get_killed_at_any_moment_leaves_no_manifest_or_a_complete_dataset(published: Checkout, tmp_path: Path) -> None:
    for num_files in (0, 1, 5, 12):
        target = tmp_path / f"got{num_files}"
        process = published.start("get", "tiny@1.0.0", "--repo", published.origin, "--to", str(target))
        wait_until(partial(has_ended_or_made, process, target, num_files), "the fetching of a file", pause_seconds=0.0005)
        process.kill()
        process.communicate()
        if (target / "manifest.json").exists():
            with ThreadPoolExecutor(1) as executor:
                assert verify_dataset(target, "full", executor) == []
        get(published, "tiny@1.0.0", "--to", str(target))
        assert len(hash_files(target)) == 13


def test_what_cannot_be_written_here_is_no_matter_of_the_remote(public_folder: Path) -> None:
    (public_folder / "there").write_bytes(b"x")
    remote = RemoteFile("tiny@1.0.0: a/b", DvcFileSystem(), str(public_folder / "there"), "0")
    checksum = Checksum("sha256", hashlib.sha256(b"x").hexdigest())
    (public_folder / "a").mkdir(mode=0o555)
    with as_another_user(), pytest.raises(PermissionError) as refused:
        remote.fetch(checksum, public_folder / "a/b")
    assert refused.value.filename == str(public_folder / "a")
    (public_folder / "a").chmod(0o777)
    remote.fetch(checksum, public_folder / "a/b")
    (public_folder / "there").unlink()
    with pytest.raises(UserError, match="there is not on the remote: its owner has to run `dvc push --all-commits`"):
        remote.fetch(checksum, public_folder / "a/b")


def test_two_gets_into_one_folder_both_succeed(published: Checkout, tmp_path: Path) -> None:
    target = str(tmp_path / "got")
    both = [published.start("get", "tiny", "--repo", published.origin, "--to", target) for _ in range(2)]
    outputs = [process.communicate() for process in both]
    assert [process.returncode for process in both] == [0, 0], outputs
    with ThreadPoolExecutor(1) as executor:
        assert verify_dataset(Path(target), "full", executor) == []


def test_get_overwrites_nothing_that_is_not_its_own(published: Checkout, tmp_path: Path) -> None:
    other, own, draft, old, file = (tmp_path / name for name in ("other", "own", "draft", "old", "file"))
    for folder, name in ((other, "thesis.txt"), (own, "README.md"), (draft, "README.md.draft.tmp")):
        folder.mkdir()
        (folder / name).write_text("years of work")
    get(published, "tiny@1.0.0", "--to", str(old))
    file.write_text("a file")
    before = hash_files(tmp_path)
    for target, message in (
        (other, "holds thesis.txt, which is not part of tiny@1.1.0"),
        (own, "own/README.md is there already, with other bytes than tiny@1.1.0 has"),
        (draft, "holds README.md.draft.tmp"),
        (old, "holds another dataset or version"),
        (file, "is a file"),
    ):
        done = published.run("get", "tiny@1.1.0", "--repo", published.origin, "--to", str(target))
        assert (done.returncode, message in done.stderr) == (2, True), done.stderr
    assert hash_files(tmp_path) == before


def test_get_names_a_folder_in_the_place_of_a_file(published: Checkout, tmp_path: Path) -> None:
    shard = tmp_path / "got/train/00001.tfrecord"
    get(published, "tiny@1.0.0", "--to", str(tmp_path / "got"))
    shard.unlink()
    shard.mkdir()
    done = published.run("get", "tiny@1.0.0", "--to", str(tmp_path / "got"))
    assert (done.returncode, f"{shard} is a folder; expected a file: move it away" in done.stderr) == (2, True), done.stderr


def test_get_never_writes_through_a_link(published: Checkout, tmp_path: Path) -> None:
    (tmp_path / "outside").mkdir()
    (tmp_path / "got").mkdir()
    (tmp_path / "got/train").symlink_to(tmp_path / "outside")
    done = published.run("get", "tiny", "--repo", published.origin, "--to", str(tmp_path / "got"))
    assert done.returncode == 2
    assert "got/train is a symbolic link" in done.stderr
    (tmp_path / "nowhere").symlink_to("nowhere")
    done = published.run("get", "tiny", "--to", str(tmp_path / "nowhere"))
    assert "nowhere is a symbolic link that leads nowhere: remove it" in done.stderr
    assert list((tmp_path / "outside").iterdir()) == []


def copy_remote(published: Checkout, tmp_path: Path) -> tuple[Checkout, Path]:
    """Copy a published repository with its remote, but not its cache; return the copy and its first test shard at the remote."""
    copy = Path(shutil.copytree(published.root.parent, tmp_path / "copy"))
    shard = (published.root / "data/tiny/test/00009.tfrecord").read_bytes()
    (found,) = [path for path in (copy / "remote").rglob("*") if path.is_file() and path.read_bytes() == shard]
    shutil.rmtree(copy / "checkout/.dvc/cache")
    config = copy / "checkout/.dvc/config"
    config.write_text(config.read_text().replace(str(published.remote), str(copy / "remote")))
    checkout = Checkout(copy / "checkout")
    checkout.git("commit", "--quiet", "--all", "--message", "moved")
    return checkout, found


@pytest.mark.usefixtures("cache")
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_a_get_that_is_stopped_says_so_and_leaves_no_part_of_a_file_and_goes_on(
    published: Checkout, tmp_path: Path, number: int
) -> None:
    checkout, shard = copy_remote(published, tmp_path)
    content, target = shard.read_bytes(), tmp_path / "got"
    # Whoever opens this waits, as for a server that does not answer.
    shard.unlink()
    os.mkfifo(shard)
    process = published.start("get", "tiny", "--repo", str(checkout.root), "--to", str(target))
    wait_until(lambda: has_ended_or_made(process, target, 3), "the fetching of other files")
    process.send_signal(number)
    output, errors = process.communicate(timeout=HANG_SECONDS)
    by = "" if number == signal.SIGINT else f" by {signal.Signals(number).name}"
    assert (process.returncode, output, errors) == (128 + number, "", f"stopped{by}; run the same command again to go on\n")
    left = {path.relative_to(target).as_posix() for path in target.rglob("*") if path.is_file()}
    assert left
    assert {"manifest.json", "test/00009.tfrecord"}.isdisjoint(left)
    assert not [name for name in left if name.endswith(".tmp")]
    shard.unlink()
    shard.write_bytes(content)
    said = json.loads(get(checkout, "tiny", "--to", str(target), "--json"))
    assert said["num_fetched"] == said["num_files"] - len(left)
    with ThreadPoolExecutor(1) as executor:
        assert verify_dataset(target, "full", executor) == []


@pytest.mark.parametrize("suffix", [b"", b"x"], ids=["flipped", "longer"])
def test_a_damaged_remote_is_named_and_nothing_of_it_gets_its_name(
    published: Checkout, tmp_path: Path, cache: Path, suffix: bytes
) -> None:
    checkout, shard = copy_remote(published, tmp_path)
    content = shard.read_bytes()
    middle = len(content) // 2
    shard.chmod(0o644)
    shard.write_bytes(content[:middle] + bytes([content[middle] ^ 1]) + content[middle + 1 :] + suffix)
    done = published.run("get", "tiny", "--repo", str(checkout.root), "--to", str(tmp_path / "got"))
    assert done.returncode == 2
    assert "has other bytes than were published" in done.stderr
    assert not (tmp_path / "got/manifest.json").exists()
    samples = captcha_registry.load("tiny", repo=str(checkout.root), split="test")
    with pytest.raises(UserError, match="has other bytes than were published"):
        samples.to_numpy()
    assert "test/00009.tfrecord" not in {path.relative_to(path.parent.parent).as_posix() for path in cache.rglob("*.tfrecord")}


@pytest.mark.parametrize("path", ["index.parquet", "test/00009.tfrecord", "manifest.json"])
def test_a_pipe_in_the_place_of_a_file_is_refused_and_not_waited_for(dataset_copy: Path, published: Checkout, path: str) -> None:
    (dataset_copy / path).unlink()
    os.mkfifo(dataset_copy / path)
    message = rf"{path} is not a regular file: move it away"
    with pytest.raises(UserError, match=message):
        list(captcha_registry.load(dataset_copy))
    if not path.startswith("test"):
        assert re.search(message, published.run("diff", str(dataset_copy), "tiny@1.0.0").stderr)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (Path.touch, "index.parquet has other bytes than the manifest says: `captcha-registry repair "),
        (Path.mkdir, "index.parquet is not a regular file: move it away"),
        (lambda _: None, "index.parquet is missing: "),
    ],
    ids=["empty", "folder", "missing"],
)
def test_a_version_is_not_compared_by_a_damaged_index(
    dataset_copy: Path, published: Checkout, make: Callable[[Path], None], message: str
) -> None:
    (dataset_copy / "index.parquet").unlink()
    make(dataset_copy / "index.parquet")
    done = published.run("diff", str(dataset_copy), "tiny@1.0.0")
    assert (done.returncode, message in done.stderr) == (2, True), done.stderr


def damage_cache(published: Checkout, tmp_path: Path) -> Checkout:
    """Copy a checkout with its cache, and change a shard in that."""
    copy = Checkout(Path(shutil.copytree(published.root, tmp_path / "copy")))
    shard = (published.root / "data/tiny/test/00009.tfrecord").read_bytes()
    files = [path for path in (copy.root / ".dvc/cache").rglob("*") if path.is_file()]
    (found,) = [path for path in files if path.read_bytes() == shard]
    found.chmod(0o644)
    found.write_bytes(shard[:-1])
    return copy


@pytest.mark.usefixtures("cache")
def test_what_is_damaged_in_the_cache_of_a_repository_comes_from_its_remote(published: Checkout, tmp_path: Path) -> None:
    copy = damage_cache(published, tmp_path)
    done = copy.run("get", "tiny", "--to", str(tmp_path / "got"))
    assert done.returncode == 0, done.stderr
    with ThreadPoolExecutor(1) as executor:
        assert verify_dataset(tmp_path / "got", "full", executor) == []
    captcha_registry.load("tiny", repo=str(copy.root)).to_numpy()


@pytest.mark.usefixtures("cache")
def test_a_damaged_cache_is_named_where_there_is_no_remote(published: Checkout, tmp_path: Path) -> None:
    copy = damage_cache(published, tmp_path)
    copy.git("switch", "--quiet", "--detach", "tiny@v1.1.0")
    (copy.root / ".dvc/config").write_text("")
    copy.git("commit", "--quiet", "--all", "--message", "no remote")
    copy.git("tag", "--annotate", "--message", "x", "tiny@v1.1.1")
    done = copy.run("get", "tiny", "--to", str(tmp_path / "got"))
    assert done.returncode == 2
    assert "the DVC cache of that repository is damaged; delete that file" in done.stderr


# --- read where it lies


def test_a_published_dataset_is_read_record_by_record(
    published: Checkout, tiny_dataset: CaptchaDataset, cache: Path, asked: list[tuple[str, int]]
) -> None:
    there = captcha_registry.load("tiny", repo=published.origin, version="1.0.0")
    assert [name.split(": ")[1] for name, _ in asked] == ["manifest.json", "index.parquet"]
    here = captcha_registry.load(tiny_dataset.root)
    for number in (3, 41, -1):
        np.testing.assert_array_equal(there[number].image, here[number].image)
        assert there[number].label == here[number].label
    records = asked[2:]
    assert [length for _, length in records] == [here.index["length"][number].as_py() for number in (3, 3, 41, 41, 59, 59)]
    assert not list(cache.rglob("*.tfrecord"))


@pytest.mark.usefixtures("cache")
@pytest.mark.parametrize(
    ("source", "version"),
    [("tiny@1.0.0", None), ("tiny@v1.0.0", None), ("tiny", "1.0.0"), ("tiny", "v1.0.0"), ("tiny@1.0.0", "v1.0.0")],
)
def test_a_version_is_understood_however_it_is_written(published: Checkout, source: str, version: str | None) -> None:
    samples = captcha_registry.load(source, repo=str(published.root), version=version, split="test")
    assert (samples.version, samples.name, samples.splits) == ("1.0.0", "tiny", {"test": 12})


def test_a_version_needs_no_repository_named_in_its_own(published: Checkout, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(published.root)
    assert len(captcha_registry.load("tiny@1.1.0")) == 90
    assert captcha_registry.load("tiny", repo=".").version == "1.1.0"
    with pytest.raises(UserError, match=r"two versions are given, 1\.0\.0 and 1\.1\.0: leave one out"):
        captcha_registry.load("tiny@1.0.0", version="1.1.0")


def test_a_published_version_is_exported(published: Checkout, tmp_path: Path) -> None:
    arguments = ["--format", "images", "--to", str(tmp_path / "out")]
    done = published.run("export", "tiny@1.0.0", "--repo", published.origin, *arguments)
    assert done.returncode == 0, done.stderr
    assert len([*(tmp_path / "out").rglob("*.png")]) == 60


def test_commands_take_a_version_apart_from_its_name(published: Checkout, tmp_path: Path) -> None:
    card = published.run("show", "tiny@1.0.0").stdout
    assert "Version 1.0.0." in card
    assert published.run("show", "tiny", "1.0.0").stdout == card
    assert "tiny@1.0.0" in get(published, "tiny", "1.0.0", "--to", str(tmp_path / "got"))
    refused = published.run("show", "tiny@1.0.0", "1.1.0")
    assert (refused.returncode, refused.stderr) == (2, "error: two versions are given, 1.0.0 and 1.1.0: leave one out\n")


@pytest.mark.usefixtures("cache")
def test_what_is_needed_is_fetched_once_and_shared_between_versions(
    published: Checkout, tiny_dataset: CaptchaDataset, asked: list[tuple[str, int]]
) -> None:
    old = captcha_registry.load("tiny", repo=published.origin, version="1.0.0")
    images, _ = old.to_numpy()
    np.testing.assert_array_equal(images, captcha_registry.load(tiny_dataset.root).to_numpy()[0])
    assert sum(".tfrecord" in name for name, _ in asked) == 10
    asked.clear()
    captcha_registry.load("tiny", repo=published.origin, version="1.0.0").to_numpy()
    assert [name.split(": ")[1] for name, _ in asked] == ["manifest.json"]
    captcha_registry.load("tiny", repo=published.origin).to_numpy()
    assert sum(".tfrecord" in name for name, _ in asked) == 5


def test_a_cached_file_that_was_changed_is_fetched_again(published: Checkout, cache: Path) -> None:
    images, _ = captcha_registry.load("tiny", repo=published.origin, split="test").to_numpy()
    for path in [path for path in cache.rglob("*.tfrecord") if path.is_file()]:
        path.write_bytes(path.read_bytes()[:-3])
    again, _ = captcha_registry.load("tiny", repo=published.origin, split="test").to_numpy()
    np.testing.assert_array_equal(again, images)


def test_ctrl_c_before_all_files_are_under_way_leaves_no_part_of_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    is_over = Event()

    class Slow:
        """A remote that has begun to send a file."""

        def get_file(self, _: str, target: str) -> None:
            Path(target).touch()
            is_over.wait(HANG_SECONDS)

    def submit(executor: ThreadPoolExecutor, fetch: Callable[[str], None], path: str) -> Future[None]:
        if path == "second":
            wait_until(lambda: any(tmp_path.iterdir()), "the first file")
            raise KeyboardInterrupt
        return submit_now(executor, fetch, path)

    submit_now = ThreadPoolExecutor.submit
    monkeypatch.setattr(ThreadPoolExecutor, "submit", submit)
    remote = RemoteFile("first", cast("Any", Slow()), "there", "0")
    with pytest.raises(KeyboardInterrupt):
        fetch_all({"first": 1, "second": 1}, lambda path: remote.fetch(Checksum("md5", "0"), tmp_path / path))
    assert list(tmp_path.iterdir()) == []
    is_over.set()


@pytest.mark.parametrize("setting", ["GTO_LOG_LEVEL=debug", "GTO_STAGES=dev,prod", "GTO_TYPES=abc"])
def test_settings_of_gto_change_nothing(published: Checkout, setting: str) -> None:
    name, value = setting.split("=")
    code = f"import os, captcha_registry as c; c.load('tiny', repo={published.origin!r}); print(os.environ[{name!r}])"
    with Popen([sys.executable, "-c", code], stdout=PIPE, stderr=PIPE, text=True, env=os.environ | {name: value}) as process:
        assert process.communicate() == (f"{value}\n", "")


def test_two_processes_fill_one_cache(published: Checkout, cache: Path) -> None:
    code = f"import captcha_registry as c; print(c.load('tiny', repo={published.origin!r}).to_numpy()[0].sum())"
    both = [Popen([sys.executable, "-c", code], stdout=PIPE, stderr=PIPE, text=True) for _ in range(2)]
    (first, first_errors), (second, second_errors) = (process.communicate() for process in both)
    assert first == second != "", first_errors + second_errors
    assert not list(cache.rglob("*.tmp"))


def test_what_a_killed_fetch_left_in_the_cache_is_removed_a_day_later(published: Checkout, cache: Path) -> None:
    captcha_registry.load("tiny", repo=published.origin).to_numpy()
    fetched = next(path for path in (cache / "files").rglob("*") if path.is_file())
    old, new = (fetched.with_name(f"{fetched.name}.{number:012x}.tmp") for number in range(2))
    for path in (old, new):
        path.write_bytes(b"half")
    os.utime(old, (0, 0))
    fetched.unlink()
    shutil.rmtree(cache / "datasets")
    captcha_registry.load("tiny", repo=published.origin).to_numpy()
    assert (fetched.exists(), old.exists(), new.exists()) == (True, False, True)


@pytest.mark.peers
def test_samples_for_torch_can_be_sent_to_worker_processes(published: Checkout) -> None:
    samples = captcha_registry.load("tiny", repo=published.origin, split="test").to_torch()
    assert pickle.loads(pickle.dumps(samples))[0][1] == samples[0][1]  # noqa: S301 - its own


def test_a_version_whose_commit_names_another_remote_than_today_is_read_by_the_address_of_its_repository(
    published: Checkout, tmp_path: Path
) -> None:
    moved = published.copy_to(tmp_path / "moved")
    moved.dvc("remote", "modify", "store", "url", str(tmp_path / "elsewhere"))
    moved.commit("another storage")
    moved.git("clone", "--quiet", moved.origin, str(tmp_path / "clone"))
    clone = Checkout(tmp_path / "clone")
    done = clone.run("get", "tiny@1.0.0", "--to", str(tmp_path / "got"))
    assert done.returncode == 2
    assert "if its commit names another remote than today's, name the repository with --repo URL" in done.stderr
    done = clone.run("get", "tiny@1.0.0", "--repo", moved.origin, "--to", str(tmp_path / "got"))
    assert done.returncode == 0, done.stderr


def test_a_relative_remote_is_found_from_the_folder_of_the_project(published: Checkout, tmp_path: Path) -> None:
    moved = published.copy_to(tmp_path / "moved")
    moved.dvc("remote", "modify", "store", "url", "../remote")
    moved.commit("a path of this project")
    moved.git("tag", "--annotate", "--message", "x", "tiny@v1.2.0")
    shutil.rmtree(moved.root / ".dvc/cache")
    done = moved.run("get", "tiny@1.2.0", "--to", str(tmp_path / "fetched"))
    assert (done.returncode, done.stderr) == (0, "")


def test_a_default_remote_that_is_not_there_is_told_with_what_chooses_one(published: Checkout, tmp_path: Path) -> None:
    checkout = published.copy_to(tmp_path)
    checkout.dvc("config", "core.remote", "elsewhere")
    done = checkout.run("list")
    assert (done.returncode, done.stdout) == (2, "")
    assert (
        "DVC's settings have no remote 'elsewhere', which they name as the default; there are store: choose one with `"
        in done.stderr
    )
    checkout.dvc("remote", "default", "store")
    assert checkout.run("list").returncode == 0


@pytest.mark.parametrize("setting", ["version_aware", "worktree"])
def test_a_remote_that_holds_files_under_their_names_is_told(published: Checkout, tmp_path: Path, setting: str) -> None:
    checkout = published.copy_to(tmp_path)
    checkout.dvc("remote", "modify", "--local", "store", setting, "true")
    for command in (["get", "tiny"], ["diff", "tiny@1.0.0", "tiny@1.1.0"], ["list"]):
        errors = checkout.run(*command).stderr
        assert "is version_aware or a worktree, which holds files under their names; expected a plain one: take" in errors
    checkout.dvc("remote", "modify", "--local", "--unset", "store", setting)
    assert checkout.run("get", "tiny@1.0.0", "--to", str(tmp_path / "tiny")).returncode == 0


@pytest.mark.parametrize(
    ("error", "expected"),
    [
        (OSError("HEAD: failed stat: Permission denied"), UserError("here: Git's files could not be read (HEAD: failed stat")),
        (OSError(errno.ENOSPC, "No space left on device", "/file"), OSError(errno.ENOSPC, "No space left on device", "/file")),
    ],
)
def test_what_libgit2_says_of_the_machine_is_an_error_like_others(error: Exception, expected: Exception) -> None:
    with pytest.raises(type(expected), match=re.escape(str(expected))), explain_errors("here"):
        raise error


@pytest.mark.parametrize(
    "error", [PermissionError("Forbidden"), UnicodeDecodeError("utf-8", b"\xff", 0, 1, "invalid start byte")], ids=repr
)
def test_an_error_that_is_none_of_git_or_dvc_stays_what_it_is(error: Exception) -> None:
    with pytest.raises(type(error)) as raised, explain_errors("here"):
        raise error
    assert raised.value is error


def test_a_file_that_dvc_may_not_read_gets_the_advice_that_others_get() -> None:
    with pytest.raises(PermissionError, match="/file"), explain_errors("here"):
        raise DvcException("unable to open") from PermissionError(errno.EACCES, "Permission denied", "/file")
