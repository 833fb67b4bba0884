"""A version is published complete or not at all: what is refused, what a dry run leaves, what interruptions and races do."""

import errno
import hashlib
import json
import os
import re
import shlex
import shutil
import signal
import stat
import subprocess
from collections.abc import Callable
from contextlib import closing
from pathlib import Path

import psutil
import pytest
from checkouts import OUTPUTS, Checkout
from conftest import HANG_SECONDS, ROOT, hash_files, wait_until
from ruamel.yaml import YAML
from servers import free_port
from zc.lockfile import LockFile

from captcha_registry.dataset.dataset import CaptchaDataset
from captcha_registry.errors import UserError
from captcha_registry.registry import publishing
from captcha_registry.registry.git import run_git
from captcha_registry.registry.tagging import require_committer, require_same_address


@pytest.fixture
def checkout(unpublished: Checkout, tmp_path: Path) -> Checkout:
    """A repository with a dataset that nobody has published."""
    return unpublished.copy_to(tmp_path)


def refuse(checkout: Checkout, version: str, message: str) -> None:
    """Make sure that a version is refused with this message, and that neither remote sees anything of it."""
    before = checkout.list_remote(), checkout.list_origin_tags(), checkout.git("tag")
    for dry_run in (["--dry-run"], []):
        done = checkout.run("publish", "tiny", version, *dry_run)
        assert (done.returncode, message in done.stderr) == (2, True), done.stderr
        assert (checkout.list_remote(), checkout.list_origin_tags(), checkout.git("tag")) == before


def publish(checkout: Checkout, version: str) -> dict[str, object]:
    done = checkout.run("publish", "tiny", version, "--json")
    assert done.returncode == 0, done.stderr
    said: dict[str, object] = json.loads(done.stdout)
    return said


def get(checkout: Checkout, version: str, target: Path) -> dict[str, str]:
    """Fetch a version from the origin as a stranger, who has nothing of it; return the hashes of its files."""
    shutil.rmtree(checkout.root / ".dvc/cache")
    done = checkout.run("get", f"tiny@{version}", "--repo", checkout.origin, "--to", str(target))
    assert done.returncode == 0, done.stderr
    return hash_files(target)


def set_hook(git: Path, name: str, command: str) -> Path:
    """Have a repository run a command when it is pushed to, or from."""
    hook = git / "hooks" / name
    hook.write_text(f"#!/bin/sh\n{command}\n")
    hook.chmod(hook.stat().st_mode | stat.S_IXUSR)
    return hook


def set_option(checkout: Checkout, name: str, option: dict[str, object]) -> None:
    """Give an output of the stage an option in dvc.yaml, and commit that."""
    pipeline = YAML(typ="safe").load(checkout.root / "dvc.yaml")
    outs = pipeline["stages"]["make"]["outs"]
    outs[outs.index(f"data/tiny/{name}")] = {f"data/tiny/{name}": option}
    YAML().dump(pipeline, checkout.root / "dvc.yaml")
    checkout.dvc("repro", "--quiet")
    checkout.commit(f"{name}: {option}")


@pytest.fixture(autouse=True)
def _empty_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CAPTCHA_REGISTRY_CACHE", str(tmp_path / "fetched"))


def test_a_version_is_an_annotated_tag_at_the_origin_and_every_object_at_the_remote(checkout: Checkout) -> None:
    said = publish(checkout, "1.0.0")
    assert said["tag"] == "tiny@v1.0.0"
    assert checkout.list_origin_tags() == ["tiny@v1.0.0"]
    assert checkout.git("rev-parse", "tiny@v1.0.0^{commit}") == checkout.git("rev-parse", "HEAD") == said["commit"]
    assert "60 samples" in checkout.git("tag", "--list", "-n9", "tiny@v1.0.0")
    # Ten shards, two listings, index, manifest and card.
    assert len(checkout.list_remote()) == 15


def test_the_message_of_a_version_is_the_same_whatever_begins_a_comment(checkout: Checkout) -> None:
    messages = []
    for character in ("#", "d", "6"):
        checkout.git("config", "core.commentChar", character)
        publish(checkout, "1.0.0")
        messages.append(checkout.git("cat-file", "-p", "tiny@v1.0.0").split("\n\n", maxsplit=1)[1])
        checkout.git("push", "--quiet", "--delete", "origin", "tiny@v1.0.0")
        checkout.git("tag", "--delete", "tiny@v1.0.0")
    assert messages[0].startswith("tiny@v1.0.0\n")
    assert "\n60 samples" in messages[0]
    assert "\ndataset id " in messages[0]
    assert messages == messages[:1] * 3


def test_json_is_all_that_a_process_prints(checkout: Checkout) -> None:
    output, _ = checkout.start("publish", "tiny", "1.0.0", "--json").communicate()
    assert json.loads(output)["tag"] == "tiny@v1.0.0"


def test_a_dry_run_says_what_would_be_done_and_does_nothing(checkout: Checkout) -> None:
    ways = [["tiny@1.0.0"], ["tiny@v1.0.0"], ["tiny", "1.0.0"]]
    dry_runs = [checkout.run("publish", *way, "--dry-run") for way in ways]
    assert [done.returncode for done in dry_runs] == [0, 0, 0]
    assert [done.stdout for done in dry_runs] == [dry_runs[0].stdout] * 3
    assert dry_runs[0].stdout.startswith("tiny@1.0.0 would be published")
    assert max(map(len, dry_runs[0].stdout.splitlines())) < 80
    assert (checkout.list_remote(), checkout.list_origin_tags(), checkout.git("tag")) == ({}, [], "")


def test_what_is_published_needs_a_version(checkout: Checkout) -> None:
    done = checkout.run("publish", "tiny")
    assert (done.returncode, "error: name the version, such as tiny@1.0.0; " in done.stderr) == (2, True)


def test_publishing_again_changes_nothing_and_puts_back_what_the_remote_lost_or_cut(checkout: Checkout) -> None:
    publish(checkout, "1.0.0")
    whole = checkout.list_remote()
    gone, cut = (checkout.remote / path for path in sorted(whole, key=lambda path: whole[path])[-2:])
    gone.unlink()
    cut.chmod(0o644)
    os.truncate(cut, 10)
    assert publish(checkout, "1.0.0")["already_published"]
    assert checkout.list_remote() == whole


def test_a_dirty_tree_is_refused(checkout: Checkout) -> None:
    (checkout.root / "notes.txt").write_text("not committed")
    refuse(checkout, "1.0.0", "notes.txt is not committed")


def test_a_stale_pipeline_is_refused(checkout: Checkout) -> None:
    (checkout.root / "source/README.md").write_text("# another card\n")
    message = "tiny is not what the pipeline would make now (make): run `dvc repro make` and commit"
    refuse(checkout, "1.0.0", message)
    for name in OUTPUTS:
        subprocess.run(["rm", "-rf", checkout.root / "data/tiny" / name], check=True)
    refuse(checkout, "1.0.0", message)


def test_a_damaged_dataset_is_to_be_repaired_and_not_made_again(checkout: Checkout) -> None:
    shard = checkout.root / "data/tiny/train/00000.tfrecord"
    content = shard.read_bytes()
    shard.unlink()
    shard.write_bytes(content[:-1])
    refuse(checkout, "1.0.0", "`captcha-registry repair ")
    assert checkout.run("repair", "data/tiny").returncode == 0
    publish(checkout, "1.0.0")


def test_what_the_data_was_made_from_need_not_be_here(checkout: Checkout) -> None:
    shutil.rmtree(checkout.root / "source")
    publish(checkout, "1.0.0")


def test_data_that_was_changed_by_hand_is_refused(checkout: Checkout) -> None:
    (checkout.root / "data/tiny/README.md").unlink()
    (checkout.root / "data/tiny/README.md").write_text("# changed\n")
    refuse(checkout, "1.0.0", "tiny is not what the pipeline would make now (make)")


def test_a_cache_that_lost_an_object_is_refused_with_what_repairs_it(checkout: Checkout) -> None:
    (checkout.root / "data/tiny/train/00000.tfrecord").chmod(0o644)
    content = (checkout.root / "data/tiny/train/00000.tfrecord").read_bytes()
    (lost,) = [p for p in (checkout.root / ".dvc/cache/files").rglob("*") if p.is_file() and p.read_bytes() == content]
    lost.unlink()
    done = checkout.run("publish", "tiny", "1.0.0")
    assert done.returncode == 2
    assert "`captcha-registry repair FOLDER` for shards and index, else `dvc commit`. Then run this again" in done.stderr
    assert checkout.list_origin_tags() == []
    checkout.dvc("commit", "--quiet", "--force", "make")
    publish(checkout, "1.0.0")


def follow_advice(checkout: Checkout, message: str) -> None:
    """Run the first command of DVC that a message names, as it stands there."""
    (command, *_) = re.findall(r"`dvc (.+?)`", message)
    checkout.dvc(*shlex.split(command))


def test_what_a_clone_is_advised_to_do_brings_what_was_published_and_nothing_else(checkout: Checkout, tmp_path: Path) -> None:
    pipeline = YAML(typ="safe").load(checkout.root / "dvc.yaml")
    pipeline["stages"]["never"] = {"cmd": "echo x > never_published", "outs": ["never_published"]}
    YAML().dump(pipeline, checkout.root / "dvc.yaml")
    checkout.dvc("repro", "--quiet")
    checkout.commit("more than is published")
    publish(checkout, "1.0.0")
    clone = Checkout(tmp_path / "clone")
    checkout.git("clone", "--quiet", checkout.origin, str(clone.root))
    done = clone.run("verify", "data/tiny")
    assert done.returncode == 2
    follow_advice(clone, done.stderr.replace("`dvc repro`", ""))
    assert clone.run("verify", "data/tiny").returncode == 0


def test_a_lost_listing_comes_back_as_it_is_advised(checkout: Checkout) -> None:
    for listing in list((checkout.root / ".dvc/cache").rglob("*.dir")):
        listing.unlink()
    follow_advice(checkout, checkout.run("publish", "tiny", "1.0.0", "--dry-run").stderr)
    publish(checkout, "1.0.0")


def test_a_fresh_clone_is_told_to_make_or_pull_what_it_does_not_have(checkout: Checkout, tmp_path: Path) -> None:
    clone = Checkout(tmp_path / "clone")
    run_git(tmp_path, "clone", "--quiet", checkout.origin, str(clone.root))
    refuse(
        clone, "1.0.0", "has what data/tiny/train holds: run `dvc repro`, or `dvc pull --allow-missing` if a DVC remote has it"
    )


def test_a_remote_that_does_not_answer_is_not_told_as_one_that_lacks_data(checkout: Checkout, tmp_path: Path) -> None:
    clone = Checkout(tmp_path / "clone")
    run_git(tmp_path, "clone", "--quiet", checkout.origin, str(clone.root))
    clone.dvc("remote", "modify", "store", "url", f"http://127.0.0.1:{free_port()}")
    clone.commit("a server that is down")
    refuse(clone, "1.0.0", "the list of files of data/tiny/train, and the remote does not give it (Cannot connect to host")


def find_cached(checkout: Checkout, path: Path) -> Path:
    """Find what DVC's cache has of a file."""
    md5 = hashlib.md5(path.read_bytes(), usedforsecurity=False).hexdigest()
    return checkout.root / ".dvc/cache/files/md5" / md5[:2] / md5[2:]


@pytest.mark.parametrize("cache_type", ["hardlink", "copy"])
def test_damage_that_reached_the_cache_is_repaired_there_too(checkout: Checkout, cache_type: str) -> None:
    folder = checkout.root / "data/tiny"
    path = next((folder / "train").iterdir())
    before, cached = hash_files(folder), find_cached(checkout, path)
    if cache_type == "hardlink":
        path.unlink()
        path.hardlink_to(cached)
    for damaged in {cached, path} if cache_type == "hardlink" else {cached}:
        # In place, and as read-only as DVC leaves it.
        damaged.chmod(0o644)
        with damaged.open("r+b") as file:
            file.write(b"damage")
        damaged.chmod(0o444)
    if cache_type == "copy":
        refuse(checkout, "1.0.0", f"DVC's cache has lost or damaged 1 of 15 objects, such as {cached}: ")
    done = checkout.run("repair", "data/tiny")
    assert (done.returncode, "in DVC's cache" in done.stdout) == (0, True)
    assert checkout.run("publish", "tiny", "1.0.0", "--dry-run").returncode == 0
    for output in OUTPUTS:
        subprocess.run(["rm", "-r", folder / output], check=True)
    checkout.dvc("checkout", "--quiet")
    assert hash_files(folder) == before
    assert stat.S_IMODE(cached.stat().st_mode) == 0o444


def test_a_cache_that_cannot_be_written_keeps_no_repaired_file_from_being_told(
    checkout: Checkout, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = next((checkout.root / "data/tiny/train").iterdir())
    cached = find_cached(checkout, path)
    for damaged in (path, cached):
        damaged.chmod(0o644)
        damaged.write_bytes(b"damage")

    def refuse(path: Path, _: bytes) -> None:
        # Modes, which would do, forbid root nothing.
        raise OSError(errno.EROFS, os.strerror(errno.EROFS), str(path))

    monkeypatch.setattr("captcha_registry.generation.repair.write_atomically", refuse)
    done = checkout.run("repair", "data/tiny", "--workers", "1")
    assert (done.returncode, done.stderr) == (2, "")
    assert done.stdout.startswith(f"train/{path.name}: drawn again, 6 samples, with the SHA-256 of the manifest\n")
    assert f"is right, but {cached} in DVC's cache is damaged and cannot be written (Read-only file system): have" in done.stdout


@pytest.mark.parametrize("link", [Path.hardlink_to, Path.symlink_to])
def test_a_manifest_that_was_damaged_in_the_cache_too_comes_back_as_it_is_advised(
    checkout: Checkout, link: Callable[[Path, Path], None]
) -> None:
    path = checkout.root / "data/tiny/manifest.json"
    cached, content = find_cached(checkout, path), path.read_bytes()
    path.unlink()
    link(path, cached)
    path.chmod(0o644)
    path.write_bytes(content.replace(b'"seed": 7', b'"seed": 8'))
    path.chmod(0o444)
    # After this, as a first try may be, DVC takes the damage for what it should be.
    checkout.dvc("checkout", "--force", "--quiet")
    *removes, _, repro = re.findall(r"`(rm .+?|dvc .+?)`", checkout.run("repair", "data/tiny").stderr)
    for remove in removes:
        subprocess.run(shlex.split(remove), cwd=checkout.root, check=True)
    follow_advice(checkout, f"`{repro}`")
    assert path.read_bytes() == cached.read_bytes() == content


def test_what_other_tools_leave_does_not_keep_from_publishing_and_other_files_do(checkout: Checkout) -> None:
    for name in (".gitignore", ".dvcignore"):
        with (checkout.root / name).open("a") as file:
            file.write((ROOT / name).read_text())
    checkout.commit("ignore litter")
    for folder in ("", "train"):
        (checkout.root / "data/tiny" / folder / ".DS_Store").touch()
    # Emacs, while a file is edited.
    (checkout.root / "data/tiny/.#README.md").symlink_to("me@host.4711:1")
    assert checkout.run("publish", "tiny", "1.0.0", "--dry-run").returncode == 0
    (checkout.root / "data/tiny/.gitignore").write_text((checkout.root / "data/tiny/.gitignore").read_text() + "/notes.txt\n")
    checkout.commit("ignore notes")
    (checkout.root / "data/tiny/notes.txt").touch()
    refuse(checkout, "1.0.0", "(1 problem in all): move what is not of the dataset out of ")


def test_a_commit_that_others_have_built_upon_is_published(checkout: Checkout) -> None:
    other = Checkout(checkout.root.parent / "other")
    checkout.git("clone", "--quiet", checkout.origin, str(other.root))
    before = checkout.git("for-each-ref")
    for branch in ("theirs", "main"):
        other.git("commit", "--quiet", "--allow-empty", "--message", branch)
        other.git("push", "--quiet", "origin", f"HEAD:refs/heads/{branch}")
        done = checkout.run("publish", "tiny", "1.0.0", "--dry-run")
        assert (done.returncode, checkout.git("for-each-ref")) == (0, before), done.stderr
    publish(checkout, "1.0.0")


def test_a_version_that_was_withdrawn_stays_withdrawn(checkout: Checkout) -> None:
    publish(checkout, "1.0.0")
    checkout.git("push", "--quiet", "origin", "HEAD:refs/tags/tiny@v1.0.0!")
    refuse(checkout, "1.0.0", "tiny@v1.0.0 was withdrawn")


def test_tags_that_gto_counts_are_those_of_their_versions(checkout: Checkout) -> None:
    publish(checkout, "1.0.0")
    checkout.git("commit", "--quiet", "--allow-empty", "--message", "later")
    for name, target in (("v1.0.1#1", "HEAD~1"), ("v1.0.2!#2", "HEAD")):
        checkout.git("tag", "--annotate", "--message", "by GTO", f"tiny@{name}", target)
    checkout.git("push", "--quiet", "origin", "main", "tiny@v1.0.1#1", "tiny@v1.0.2!#2")
    refuse(checkout, "1.0.1", f"tiny@v1.0.1 is published already, from commit {checkout.git('rev-parse', 'HEAD~1')[:8]}")
    refuse(checkout, "1.0.2", "tiny@v1.0.2 was withdrawn")


def test_a_repository_without_a_commit_is_refused(tmp_path: Path) -> None:
    done = Checkout.create(tmp_path).run("publish", "tiny", "1.0.0")
    assert (done.returncode, "error: nothing is committed yet" in done.stderr) == (2, True), done.stderr


def test_an_origin_without_a_default_branch_is_refused_here_and_by_readers(checkout: Checkout, tmp_path: Path) -> None:
    publish(checkout, "1.0.0")
    checkout.git("--git-dir", str(tmp_path / "origin.git"), "symbolic-ref", "HEAD", "refs/heads/trunk")
    cure = "in a bare repository with `git symbolic-ref HEAD refs/heads/main`"
    for command in (["publish", "tiny", "1.0.1"], ["list", "--repo", checkout.origin]):
        done = checkout.run(*command)
        assert (done.returncode, cure in done.stderr) == (2, True), done.stderr


def test_a_repository_without_an_origin_is_refused(checkout: Checkout) -> None:
    checkout.git("remote", "remove", "origin")
    done = checkout.run("publish", "tiny", "1.0.0")
    assert "there is no Git remote 'origin' to publish at: add one with `git remote add origin URL`" in done.stderr


def add_model(checkout: Checkout, weights: bytes, dataset_id: str) -> None:
    """Commit a model that says that it was trained on `tiny`, as the artifact `reader`."""
    folder = checkout.root / "reader"
    folder.mkdir()
    (folder / "model.keras").write_bytes(weights)
    card = {"model_sha256": hashlib.sha256(weights).hexdigest(), "family": "cnn", "dataset": "tiny", "dataset_id": dataset_id}
    (folder / "model.json").write_text(json.dumps(card))
    pipeline = YAML(typ="safe").load(checkout.root / "dvc.yaml")
    pipeline["artifacts"]["reader"] = {"path": "reader", "type": "model"}
    YAML().dump(pipeline, checkout.root / "dvc.yaml")
    checkout.dvc("add", "--quiet", "reader")
    checkout.commit("a model")


def test_a_model_is_published_if_its_weights_are_those_of_its_card(checkout: Checkout) -> None:
    add_model(checkout, b"weights", "d")
    done = checkout.run("publish", "reader", "1.0.0")
    assert (done.returncode, "  cnn, trained on tiny\n  dataset id d\n" in done.stdout) == (0, True), done
    (row,) = json.loads(checkout.run("list", "--json").stdout)
    assert (row["name"], row["samples"], row["dataset_id"]) == ("reader", None, "d")
    (checkout.root / "reader/model.keras").unlink()
    (checkout.root / "reader/model.keras").write_bytes(b"others")
    checkout.dvc("add", "--quiet", "reader")
    checkout.commit("another model")
    done = checkout.run("publish", "reader", "1.1.0")
    assert (done.returncode, "is not the model that" in done.stderr) == (2, True)


def test_a_model_names_the_published_version_that_it_was_trained_on(
    checkout: Checkout, tiny_dataset: CaptchaDataset, grown_dataset: CaptchaDataset
) -> None:
    publish(checkout, "1.0.0")
    checkout.make(grown_dataset.root)
    publish(checkout, "1.1.0")
    add_model(checkout, b"weights", tiny_dataset.manifest.dataset_id)
    done = checkout.run("publish", "reader", "1.0.0")
    assert (done.returncode, "cnn, trained on tiny@1.0.0\n" in done.stdout) == (0, True), done


def test_a_commit_that_the_origin_does_not_have_is_refused(checkout: Checkout) -> None:
    checkout.git("commit", "--quiet", "--allow-empty", "--message", "unpushed")
    refuse(checkout, "1.0.0", "is on no branch of origin: run `git push origin HEAD` first")
    checkout.git("switch", "--quiet", "--detach")
    refuse(checkout, "1.0.0", "run `git push origin HEAD:refs/heads/BRANCH` first, with the name of a branch")
    checkout.git("push", "--quiet", "origin", "HEAD:refs/heads/other")
    assert checkout.run("publish", "tiny", "1.0.0", "--dry-run").returncode == 0


def test_a_commit_made_during_the_checks_is_noticed(
    checkout: Checkout, grown_dataset: CaptchaDataset, monkeypatch: pytest.MonkeyPatch
) -> None:
    verify = publishing.verify_folder

    def commit_and_verify(root: Path) -> object:
        here = verify(root)
        checkout.make(grown_dataset.root)
        return here

    monkeypatch.setattr(publishing, "verify_folder", commit_and_verify)
    done = checkout.run("publish", "tiny", "1.0.0")
    assert (done.returncode, "was checked out while" in done.stderr) == (2, True), done.stderr
    assert (checkout.list_remote(), checkout.git("tag")) == ({}, "")


def test_files_that_change_during_the_checks_are_noticed(checkout: Checkout, monkeypatch: pytest.MonkeyPatch) -> None:
    verify = publishing.verify_folder

    def change_and_verify(root: Path) -> object:
        (root / "README.md").unlink()
        (root / "README.md").write_text("# changed\n")
        return verify(root)

    monkeypatch.setattr(publishing, "verify_folder", change_and_verify)
    done = checkout.run("publish", "tiny", "1.0.0")
    assert (done.returncode, "data/tiny/README.md is not the file that commit" in done.stderr) == (2, True), done.stderr


def test_what_is_pushed_is_what_the_tagged_commit_names(
    checkout: Checkout,
    tiny_dataset: CaptchaDataset,
    grown_dataset: CaptchaDataset,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    push = publishing.push_objects

    def commit_and_push(objects: list[publishing.Objects]) -> None:
        checkout.make(grown_dataset.root)
        push(objects)

    monkeypatch.setattr(publishing, "push_objects", commit_and_push)
    publish(checkout, "1.0.0")
    got = get(checkout, "1.0.0", tmp_path / "got")
    assert got.pop("README.md")
    assert got == hash_files(tiny_dataset.root)


@pytest.mark.parametrize(
    ("name", "option", "message"),
    [
        ("train", {"push": False}, "error: data/tiny/train has `push: false`, so readers could not fetch it"),
        ("README.md", {"cache": False}, "error: data/tiny/README.md has `cache: false`, so readers would not get it"),
    ],
)
def test_an_output_that_is_kept_from_readers_is_refused(
    checkout: Checkout, name: str, option: dict[str, object], message: str
) -> None:
    set_option(checkout, name, option)
    refuse(checkout, "1.0.0", message)


def test_a_remote_that_only_this_checkout_names_is_refused(checkout: Checkout) -> None:
    config = checkout.root / ".dvc/config"
    (checkout.root / ".dvc/config.local").write_text(config.read_text())
    config.write_text("")
    checkout.commit("no tracked remote")
    refuse(checkout, "1.0.0", ".dvc/config names no default DVC remote, so readers could not fetch data/tiny/")


def test_a_default_remote_of_this_checkout_alone_is_not_pushed_to(checkout: Checkout, tmp_path: Path) -> None:
    checkout.dvc("remote", "add", "--quiet", "--local", "--default", "mine", str(tmp_path / "mine"))
    publish(checkout, "1.0.0")
    assert (len(checkout.list_remote()), (tmp_path / "mine").exists()) == (15, False)


def test_settings_that_readers_refuse_are_refused(checkout: Checkout) -> None:
    config = checkout.root / ".dvc/config"
    config.write_text(f"{config.read_text()}[hydra]\n    enabled = false\n")
    checkout.commit("hydra")
    refuse(checkout, "1.0.0", "its .dvc/config sets hydra.enabled")


def test_a_path_that_readers_would_not_find_is_refused(checkout: Checkout) -> None:
    pipeline = YAML(typ="safe").load(checkout.root / "dvc.yaml")
    pipeline["artifacts"]["tiny"]["path"] = "data/tiny/"
    YAML().dump(pipeline, checkout.root / "dvc.yaml")
    checkout.commit("a slash")
    refuse(checkout, "1.0.0", "dvc.yaml: artifacts.tiny.path is 'data/tiny/'; expected 'data/tiny'")
    (checkout.root / "dvc.yaml").rename(checkout.root / "theirs.yaml")
    (checkout.root / "dvc.yaml").symlink_to("theirs.yaml")
    checkout.commit("a link")
    refuse(checkout, "1.0.0", "dvc.yaml is a symbolic link, and readers of a commit follow none")


def test_what_a_sparse_checkout_leaves_out_is_named_with_what_brings_it(checkout: Checkout) -> None:
    checkout.git("sparse-checkout", "set", "--no-cone", "/*", "!/dvc.lock", "!/.dvc")
    refuse(checkout, "1.0.0", ".dvc/config is not here, as the checkout is sparse: run `git sparse-checkout disable`")
    shutil.rmtree(checkout.root / ".dvc")
    done = checkout.run("list")
    assert "Git has one, but .dvc is not here: run `git sparse-checkout disable`, or `git checkout HEAD -- :/.dvc`" in done.stderr
    checkout.git("sparse-checkout", "disable")
    assert checkout.run("list").returncode == 0


def test_a_file_that_git_takes_for_unchanged_is_named_with_what_ends_that(checkout: Checkout) -> None:
    for way in ("skip-worktree", "assume-unchanged"):
        checkout.git("update-index", f"--{way}", "dvc.lock")
        cure = ["update-index", f"--no-{way}", "dvc.lock"]
        refuse(checkout, "1.0.0", f"Git takes dvc.lock for unchanged, whatever it holds: run `git {' '.join(cure)}`")
        checkout.git(*cure)
    publish(checkout, "1.0.0")


def test_a_clone_without_files_is_told_how_to_get_them(checkout: Checkout, tmp_path: Path) -> None:
    checkout.git("clone", "--quiet", "--no-checkout", checkout.origin, str(tmp_path / "clone"))
    clone = Checkout(tmp_path / "clone")
    assert "its files are not here, as after `git clone --no-checkout`: run `git checkout HEAD -- :/`" in clone.run("list").stderr
    clone.git("checkout", "HEAD", "--", ":/")
    assert clone.run("list").returncode == 0
    # Where other files are, that would undo changes.
    clone.git("rm", "--quiet", "-r", ".dvc")
    shutil.rmtree(clone.root / ".dvc")
    assert "Git has one, but .dvc is not here: run" in clone.run("list").stderr


def test_a_folder_that_is_not_here_is_named_with_what_brings_it(checkout: Checkout) -> None:
    (checkout.root / ".gitignore").write_text("/source\n/data/tiny\n")
    checkout.git("rm", "--quiet", "data/tiny/.gitignore")
    checkout.commit("as `dvc add` has it")
    shutil.rmtree(checkout.root / "data/tiny")
    refuse(checkout, "1.0.0", "error: data/tiny is not here: run `dvc checkout`, or `dvc pull --allow-missing` if that does not")
    checkout.dvc("checkout")
    publish(checkout, "1.0.0")


@pytest.mark.parametrize("change", ["no project", "unsafe settings"])
def test_a_default_branch_with_which_no_reader_could_begin_is_refused(checkout: Checkout, tmp_path: Path, change: str) -> None:
    checkout.git("clone", "--quiet", checkout.origin, str(tmp_path / "other"))
    other = Checkout(tmp_path / "other")
    if change == "no project":
        other.git("rm", "--quiet", "-r", ".dvc")
        message = "origin: the default branch of this Git repository has no .dvc folder at its top, and readers begin there"
    else:
        other.dvc("config", "core.no_scm", "false")
        message = "origin: its .dvc/config sets core.no_scm, which can reach files"
    other.git("commit", "--quiet", "--all", "--message", change)
    other.git("push", "--quiet", "origin", "HEAD:refs/heads/pages")
    origin = checkout.root.parent / "origin.git"
    run_git(origin, "symbolic-ref", "HEAD", "refs/heads/pages", bare=True)
    refuse(checkout, "1.0.0", message)
    assert message.removeprefix("origin") in checkout.run("list", "--repo", checkout.origin).stderr
    run_git(origin, "symbolic-ref", "HEAD", "refs/heads/main", bare=True)
    publish(checkout, "1.0.0")


def test_a_version_whose_tag_was_moved_at_the_origin_is_nobodys_predecessor(
    checkout: Checkout, grown_dataset: CaptchaDataset
) -> None:
    publish(checkout, "1.0.0")
    first = checkout.git("rev-parse", "HEAD")
    checkout.make(grown_dataset.root)
    checkout.git("push", "--quiet", "--force", "origin", ":refs/tags/tiny@v1.0.0")
    checkout.git("tag", "--annotate", "--force", "--message", "moved", "tiny@v1.0.0")
    checkout.git("push", "--quiet", "origin", "tiny@v1.0.0")
    checkout.git("tag", "--annotate", "--force", "--message", "as it was", "tiny@v1.0.0", first)
    refuse(checkout, "1.0.1", f"at origin, and on {first[:8]} here: run `git fetch --tags --force`, and ask who moved it")
    checkout.git("fetch", "--quiet", "--tags", "--force")
    assert not publish(checkout, "1.0.1")["already_published"]


def test_a_push_that_cannot_be_signed_is_told_how_to_go_without(checkout: Checkout) -> None:
    checkout.git("config", "push.gpgSign", "true")
    refuse(checkout, "1.0.0", "if that is about a signature: `git config push.gpgSign false` pushes without one")
    # Now the key is at fault, of which a dry run makes no use.
    run_git(checkout.root.parent / "origin.git", "config", "receive.certNonceSeed", "seed", bare=True)
    checkout.git("config", "gpg.program", "false")
    done = checkout.run("publish", "tiny", "1.0.0")
    assert (done.returncode, checkout.list_origin_tags()) == (2, [])
    assert "if that is about a signature: `git config push.gpgSign false` pushes without one" in done.stderr
    checkout.git("config", "push.gpgSign", "false")
    hook = set_hook(checkout.root.parent / "origin.git", "pre-receive", "exit 1")
    assert "signature" not in checkout.run("publish", "tiny", "1.0.0").stderr
    hook.unlink()
    publish(checkout, "1.0.0")


def test_each_output_is_looked_for_at_the_remote_of_its_own(
    checkout: Checkout, tiny_dataset: CaptchaDataset, tmp_path: Path
) -> None:
    other = tmp_path / "other"
    checkout.dvc("remote", "add", "--quiet", "other", str(other))
    set_option(checkout, "train", {"remote": "other"})
    for _ in ("new", "lost by that remote"):
        publish(checkout, "1.0.0")
        objects = [path for path in other.rglob("*") if path.is_file()]
        # Eight shards and their listing; two shards, their listing, index, manifest and card.
        assert (len(objects), len(checkout.list_remote())) == (9, 6)
        for path in objects:
            path.unlink()
    publish(checkout, "1.0.0")
    got = get(checkout, "1.0.0", tmp_path / "got")
    assert got.pop("README.md")
    assert got == hash_files(tiny_dataset.root)


def test_a_remote_of_an_output_that_only_this_checkout_names_is_refused(checkout: Checkout, tmp_path: Path) -> None:
    checkout.dvc("remote", "add", "--quiet", "--local", "other", str(tmp_path / "other"))
    set_option(checkout, "train", {"remote": "other"})
    refuse(checkout, "1.0.0", ".dvc/config has no url for the DVC remote 'other', so readers could not fetch data/tiny/train")


def test_an_object_that_dvc_has_damaged_is_not_pushed(checkout: Checkout) -> None:
    card = checkout.root / "data/tiny/README.md"
    (kept,) = [p for p in (checkout.root / ".dvc/cache/files").rglob("*") if p.is_file() and p.read_bytes() == card.read_bytes()]
    kept.unlink()
    kept.write_text("# tinY\n")
    kept.chmod(0o444)
    done = checkout.run("publish", "tiny", "1.0.0")
    assert (done.returncode, f"damaged 1 of 15 objects, such as {kept}: delete" in done.stderr) == (2, True), done.stderr
    assert (checkout.list_remote(), checkout.git("tag")) == ({}, "")
    kept.unlink()
    checkout.dvc("commit", "--quiet", "--force", "make")
    publish(checkout, "1.0.0")


def test_data_that_its_own_manifest_contradicts_is_refused(checkout: Checkout) -> None:
    shard = checkout.root / "data/tiny/train/00000.tfrecord"
    content = shard.read_bytes()
    shard.unlink()
    shard.write_bytes(content[:-1] + bytes([content[-1] ^ 1]))
    checkout.dvc("commit", "--quiet", "--force", "make")
    checkout.commit("damage")
    refuse(checkout, "1.0.0", "train/00000.tfrecord")


def test_a_remote_that_does_not_answer_is_named_with_its_host(checkout: Checkout) -> None:
    checkout.dvc("remote", "modify", "store", "url", "ssh://nobody@127.0.0.1:1/store")
    checkout.commit("far away")
    refuse(checkout, "1.0.0", "the remote at ssh://127.0.0.1:1/store/files/md5 could not be asked (")


def test_an_artifact_that_is_a_file_is_refused(checkout: Checkout) -> None:
    pipeline = checkout.root / "dvc.yaml"
    pipeline.write_text(pipeline.read_text().replace("path: data/tiny\n", "path: data/tiny/index.parquet\n"))
    checkout.commit("a file")
    refuse(checkout, "1.0.0", "dvc.yaml: artifacts.tiny.path is data/tiny/index.parquet, a file; expected the folder of a")


def test_what_was_never_made_is_refused_with_what_makes_it(checkout: Checkout) -> None:
    pipeline = YAML(typ="safe").load(checkout.root / "dvc.yaml")
    pipeline["stages"]["make"]["deps"].append("tools.json")
    pipeline["stages"]["check"] = {"cmd": "echo {} > tools.json", "outs": ["tools.json"]}
    YAML().dump(pipeline, checkout.root / "dvc.yaml")
    (checkout.root / "dvc.lock").unlink()
    checkout.commit("not made")
    refuse(checkout, "1.0.0", "tools.json, from which it is made, is missing: run `dvc repro make` and commit")
    checkout.dvc("repro", "--quiet", "make")
    checkout.commit("made")
    publish(checkout, "1.0.0")


def test_a_key_that_comes_twice_is_named_without_how_to_hide_it(checkout: Checkout) -> None:
    with (checkout.root / "dvc.yaml").open("a") as pipeline:
        pipeline.write("artifacts: {}\n")
    checkout.commit("twice")
    done = checkout.run("publish", "tiny", "1.0.0")
    assert (done.returncode, 'found duplicate key "artifacts"' in done.stderr) == (2, True), done.stderr
    assert done.stderr.endswith(": correct that file, and commit it\n")
    assert "suppress" not in done.stderr


def test_a_repository_without_a_remote_is_refused(checkout: Checkout) -> None:
    checkout.dvc("remote", "remove", "store")
    checkout.commit("no remote")
    refuse(checkout, "1.0.0", ".dvc/config names no default DVC remote, so readers could not fetch data/tiny/")


@pytest.mark.parametrize(
    ("version", "message"),
    [
        ("1.0", "'1.0' is not a version"),
        ("1.0.1", "1.0.1 is a patch version, but the change since tiny@1.0.0 is minor: publish it as 1.1.0 or higher"),
        ("0.9.0", "tiny 0.9.0 is lower than 1.0.0"),
        ("1.0.0", "tiny@v1.0.0 is published already"),
    ],
)
def test_a_version_that_is_taken_or_says_too_little_is_refused(
    checkout: Checkout, grown_dataset: CaptchaDataset, version: str, message: str
) -> None:
    publish(checkout, "1.0.0")
    checkout.make(grown_dataset.root)
    refuse(checkout, version, message)
    assert publish(checkout, "1.1.0")["bump"] == "minor"


def test_a_version_between_two_of_its_major_version_is_refused(checkout: Checkout, grown_dataset: CaptchaDataset) -> None:
    publish(checkout, "1.0.0")
    checkout.make(grown_dataset.root)
    publish(checkout, "1.2.0")
    # The change since 1.0.0 is none that 1.1.0 could not say, but nobody would see what 1.2.0 took away from it.
    checkout.make(grown_dataset.root, card="# another card\n")
    refuse(checkout, "1.1.0", "tiny 1.1.0 is lower than 1.2.0, which is already published")
    publish(checkout, "1.2.1")
    shutil.rmtree(checkout.root / "source")
    checkout.git("checkout", "--quiet", "tiny@v1.0.0")
    checkout.dvc("checkout", "--quiet")
    assert publish(checkout, "1.0.0")["already_published"]


def set_remote(checkout: Checkout, url: str, more: str = "") -> None:
    """Give the default remote another address, as it stands in Git, and commit that."""
    (checkout.root / ".dvc/config").write_text(f"[core]\n    remote = store\n['remote \"store\"']\n    url = {url}\n{more}")
    checkout.commit("another remote")


def test_a_remote_that_readers_cannot_reach_is_refused(checkout: Checkout) -> None:
    elsewhere = "which others would look for in a folder of their own; expected an address, or a path from the root"
    for url, message in {
        "../store": f".dvc/config: the url of remote 'store' is ../store, {elsewhere}",
        "store": elsewhere,
        "~/store": elsewhere,
        "$HOME/store": elsewhere,
        "C:\\store": elsewhere,
        f"{checkout.root}/store": "in the checkout itself, which readers do not have",
        f"{checkout.root}/.dvc/cache": "in the checkout itself, which readers do not have",
        f"{checkout.root}/../checkout/store": "in the checkout itself, which readers do not have",
        f"file://{checkout.remote}": f"expected a path: `dvc remote modify store url {checkout.remote}`, and commit",
        "remote://me:s3cret@mine/store": "is remote://***@mine/store, and has no url for 'mine', so readers could not follow it",
    }.items():
        set_remote(checkout, url)
        # A dry run only, which is quicker; what is published passes the same checks.
        done = checkout.run("publish", "tiny", "1.0.0", "--dry-run")
        assert (done.returncode, message in done.stderr) == (2, True), (url, done.stderr)
    set_remote(checkout, "remote://other/x", "['remote \"other\"']\n    url = other\n")
    refuse(checkout, "1.0.0", f".dvc/config: the url of remote 'other' is other, {elsewhere}")
    set_remote(checkout, "remote://other/x", f"['remote \"other\"']\n    url = {checkout.remote}\n")
    publish(checkout, "1.0.0")
    assert len(checkout.list_remote()) == 15


def test_the_cache_of_the_checkout_is_no_remote(checkout: Checkout) -> None:
    checkout.dvc("config", "--local", "cache.dir", str(checkout.remote))
    checkout.dvc("commit", "--quiet", "--force", "make")
    refuse(checkout, "1.0.0", "the DVC remote 'store' is DVC's own cache of this checkout: expected a folder of its own")


def test_a_project_whose_settings_are_not_in_git_is_refused(checkout: Checkout) -> None:
    checkout.git("rm", "--quiet", "--cached", ".dvc/config")
    (checkout.root / ".git/info/exclude").write_text("/.dvc/config\n")
    checkout.commit("no settings")
    refuse(checkout, "1.0.0", ".dvc/config names no default DVC remote, so readers could not fetch data/tiny/")


def test_the_address_of_a_remote_is_that_of_git_wherever_this_checkout_pushes_to(checkout: Checkout) -> None:
    checkout.dvc("remote", "modify", "--local", "store", "url", str(checkout.remote))
    set_remote(checkout, "../store")
    refuse(checkout, "1.0.0", "the url of remote 'store' is ../store")
    (readers := checkout.root.parent / "readers").touch()
    set_remote(checkout, str(readers))
    refuse(checkout, "1.0.0", f"the remote at {readers}/files/md5 could not be asked ([Errno 20] Not a directory")
    set_remote(checkout, f"http://127.0.0.1:{free_port()}")
    done = checkout.run("publish", "tiny", "1.0.0", "--dry-run")
    assert (done.returncode, "could not be asked (Cannot connect to host" in done.stderr) == (2, True), done.stderr
    set_remote(checkout, str(readers))
    readers.unlink()
    done = checkout.run("publish", "tiny", "1.0.0")
    assert "15 of 15 objects are missing or incomplete on the remote, such as " in done.stderr
    assert f", as settings that are not in Git push to {checkout.remote}/files/md5; nothing was tagged" in done.stderr
    assert (done.returncode, checkout.list_origin_tags(), checkout.git("tag")) == (2, [], "")
    readers.symlink_to(checkout.remote)
    publish(checkout, "1.0.0")


def test_a_server_that_only_the_settings_of_this_checkout_name_is_refused(checkout: Checkout) -> None:
    set_remote(checkout, "s3://bucket/store")
    checkout.dvc("remote", "modify", "--local", "store", "endpointurl", "http://127.0.0.1:1")
    refuse(checkout, "1.0.0", "`dvc remote modify store endpointurl http://127.0.0.1:1`, and commit")


def test_a_name_that_no_tag_can_have_is_refused(checkout: Checkout) -> None:
    pipeline = YAML(typ="safe").load(checkout.root / "dvc.yaml")
    names = ["tiny.v2", "digits_", "-tiny", "tiny v2", "tiny//v2", "kaptcha\u00e9"]
    pipeline["artifacts"] = dict.fromkeys([*names, "team/Tiny-2_a"], pipeline["artifacts"]["tiny"])
    YAML().dump(pipeline, checkout.root / "dvc.yaml")
    checkout.commit("names")
    for name in names:
        for dry_run in (["--dry-run"], []):
            done = checkout.run("publish", *dry_run, "--", name, "1.0.0")
            assert (done.returncode, f"{name!r} is not a name that a tag of a version can have" in done.stderr) == (2, True), done
    assert (checkout.list_remote(), checkout.list_origin_tags(), checkout.git("tag")) == ({}, [], "")
    assert checkout.run("publish", "team/Tiny-2_a", "1.0.0").returncode == 0
    assert "team/Tiny-2_a" in checkout.run("list", "--repo", checkout.origin).stdout


def test_a_project_below_the_top_of_its_git_repository_is_refused(checkout: Checkout) -> None:
    for path in [".dvc", "dvc.yaml", "dvc.lock", "data", "source", ".gitignore", ".dvcignore"]:
        (checkout.root / "team").mkdir(exist_ok=True)
        (checkout.root / path).rename(checkout.root / "team" / path)
    checkout.commit("a project of many")
    (checkout.root / "other").mkdir()
    (checkout.root / "other/notes.txt").write_text("not committed")
    project = Checkout(checkout.root / "team")
    for dry_run in (["--dry-run"], []):
        done = project.run("publish", "tiny", "1.0.0", *dry_run)
        assert (done.returncode, "is the folder team/ of a Git repository, and readers look only at its top" in done.stderr) == (
            2,
            True,
        ), done.stderr
    done = project.run("list")
    assert (done.returncode, f"those of the top: name that with --repo {checkout.root}\n" in done.stderr) == (2, True), (
        done.stderr
    )
    assert (checkout.list_remote(), checkout.list_origin_tags(), checkout.git("tag")) == ({}, [], "")


def test_a_dirty_file_of_another_project_does_not_block(checkout: Checkout) -> None:
    other = Checkout(checkout.root / "\u00fcber alles/other [1]")
    other.root.mkdir(parents=True)
    other.dvc("init", "--quiet", "--subdir")
    (other.root / "notes.txt").write_text("committed")
    checkout.commit("another project")
    (other.root / "notes.txt").write_text("not committed")
    (other.root / "more.txt").write_text("not committed")
    publish(checkout, "1.0.0")
    (checkout.root / "\u00fcber alles/notes.txt").write_text("not committed")
    refuse(checkout, "1.0.0", "\u00fcber alles/notes.txt is not committed")


SETTINGS = {
    "color.ui": "always",
    "column.ui": "always",
    "core.quotePath": "true",
    "fetch.prune": "true",
    "fetch.pruneTags": "true",
    "log.showSignature": "true",
    "push.followTags": "true",
    "push.recurseSubmodules": "on-demand",
    "status.branch": "true",
    "status.relativePaths": "true",
    "status.short": "false",
    "status.showUntrackedFiles": "no",
    "tag.sort": "-version:refname",
}


def test_settings_and_variables_of_git_change_nothing(checkout: Checkout, monkeypatch: pytest.MonkeyPatch) -> None:
    for setting, value in SETTINGS.items():
        checkout.git("config", setting, value)
    (checkout.root.parent / "ignored").write_text("*.yaml\n*.lock\n.dvc\n")
    checkout.git("config", "core.excludesFile", str(checkout.root.parent / "ignored"))
    checkout.git("update-index", "--split-index")
    checkout.git("tag", "--annotate", "--message", "mine", "mine")
    checkout.git("tag", "--annotate", "--message", "mine", "other@v1.0.0")
    (checkout.root / "\u00fcber.txt").write_text("not committed")
    refuse(checkout, "1.0.0", "error: \u00fcber.txt is not committed")
    (checkout.root / "\u00fcber.txt").unlink()
    with monkeypatch.context() as hook:
        for name in ("GIT_DIR", "GIT_WORK_TREE", "GIT_INDEX_FILE", "GIT_QUARANTINE_PATH"):
            hook.setenv(name, str(checkout.root.parent / "origin.git"))
        hook.setenv("GIT_TRACE", "1")
        hook.setenv("LANG", "C")
        for version in ("1.0.0", "1.0.1", "1.0.2"):
            assert not publish(checkout, version)["already_published"]
    assert checkout.list_origin_tags() == ["tiny@v1.0.0", "tiny@v1.0.1", "tiny@v1.0.2"]
    assert set(checkout.git("for-each-ref", "--format=%(refname:lstrip=2)", "refs/tags").split()) > {"mine", "other@v1.0.0"}


def test_a_tag_that_cannot_be_signed_is_refused_before_anything_is_pushed(checkout: Checkout) -> None:
    checkout.git("config", "tag.gpgSign", "true")
    checkout.git("config", "gpg.program", "false")
    refuse(checkout, "1.0.0", "Git cannot sign tiny@v1.0.0, as tag.gpgSign asks: name a key that is here with")
    key = checkout.root.parent / "key"
    subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", key], check=True)
    checkout.git("config", "gpg.format", "ssh")
    checkout.git("config", "user.signingKey", str(key))
    publish(checkout, "1.0.0")
    assert "BEGIN SSH SIGNATURE" in checkout.git("cat-file", "tag", "tiny@v1.0.0")
    assert checkout.run("list", "--repo", checkout.origin).stdout.count("tiny") == 1
    checkout.git("config", "user.signingKey", str(key.with_name("none")))
    refuse(checkout, "1.0.1", "`git config tag.gpgSign false`")
    checkout.git("config", "tag.gpgSign", "false")
    publish(checkout, "1.0.1")


@pytest.mark.parametrize("refusal", ["a hook", "a signature of pushes"])
def test_a_tag_that_could_not_be_made_or_pushed_is_found_before_anything_is_pushed(checkout: Checkout, refusal: str) -> None:
    if refusal == "a hook":
        set_hook(checkout.root / ".git", "reference-transaction", "echo the hook says no >&2; exit 1")
        refuse(checkout, "1.0.0", "Git cannot make the tag tiny@v1.0.0 here, and nothing was pushed: correct what it says (`git")
    else:
        checkout.git("config", "push.gpgSign", "true")
        refuse(checkout, "1.0.0", "the receiving end does not support --signed push")


def test_a_hook_before_a_push_is_asked_before_anything_is_pushed_and_never_by_a_dry_run(checkout: Checkout) -> None:
    # That of `dvc install` pushes all data of the project.
    set_hook(checkout.root / ".git", "pre-push", "cp -r .dvc/cache/files ../remote; echo the hook says no >&2; exit 1")
    assert checkout.run("publish", "tiny", "1.0.0", "--dry-run").returncode == 0
    assert checkout.list_remote() == {}
    set_hook(checkout.root / ".git", "pre-push", "echo the hook says no >&2; exit 1")
    done = checkout.run("publish", "tiny", "1.0.0")
    assert (done.returncode, "`git push`: the hook says no" in done.stderr) == (2, True), done.stderr
    assert (checkout.list_remote(), checkout.list_origin_tags(), checkout.git("tag")) == ({}, [], "")


def test_a_process_that_learns_of_no_failure_runs_no_git(tmp_path: Path) -> None:
    before = signal.signal(signal.SIGCHLD, signal.SIG_IGN)
    try:
        with pytest.raises(UserError, match=r"this process ignores SIGCHLD, so it would not learn that `git` failed: call `sig"):
            run_git(tmp_path, "status")
    finally:
        signal.signal(signal.SIGCHLD, before)


def test_git_is_not_waited_for_without_end_and_what_it_started_is_stopped(tmp_path: Path) -> None:
    started = tmp_path / "pid"
    with pytest.raises(UserError, match=r"`git -c` gave no answer in 1 s; a hook, a password that nobody types or a server"):
        run_git(tmp_path, "-c", f"alias.wait=!echo $$ > '{started}'; sleep 300; true", "wait", seconds=1)
    pid = int(started.read_text())
    wait_until(lambda: not psutil.pid_exists(pid) or psutil.Process(pid).status() == psutil.STATUS_ZOMBIE, "the end of it")


@pytest.mark.parametrize("place", ["here", "origin"])
def test_a_lightweight_tag_is_refused_as_no_reader_sees_it(checkout: Checkout, place: str) -> None:
    checkout.git("tag", "tiny@v1.0.0")
    if place == "origin":
        checkout.git("push", "--quiet", "origin", "tiny@v1.0.0")
        refuse(checkout, "1.0.0", "tiny@v1.0.0 on origin is a lightweight tag; readers expect an annotated one: delete it")
        checkout.git("push", "--quiet", "origin", "--delete", "tiny@v1.0.0")
    refuse(checkout, "1.0.0", "tiny@v1.0.0 is here, but not as an annotated tag of")
    checkout.git("tag", "--delete", "tiny@v1.0.0")
    publish(checkout, "1.0.0")


def test_who_has_no_git_identity_is_refused_before_anything_is_pushed(
    checkout: Checkout, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("GIT_AUTHOR_NAME", "GIT_AUTHOR_EMAIL", "GIT_COMMITTER_NAME", "GIT_COMMITTER_EMAIL"):
        monkeypatch.delenv(name)
    checkout.git("config", "user.useConfigOnly", "true")
    refuse(checkout, "1.0.0", "Git does not know who publishes, or when: run `git config user.name NAME`")
    monkeypatch.setenv("GIT_COMMITTER_NAME", "")
    checkout.git("config", "committer.name", ".")
    advice = "run `unset GIT_COMMITTER_NAME`, and if that is not enough `git config committer.name NAME` and `git config comm"
    with pytest.raises(UserError, match=advice):
        require_committer(checkout.root)
    monkeypatch.delenv("GIT_COMMITTER_NAME")
    checkout.git("config", "committer.name", "A. Uthor")
    checkout.git("config", "committer.email", "author@localhost")
    require_committer(checkout.root)


def test_tags_are_not_pushed_where_no_reader_looks(checkout: Checkout) -> None:
    fork = checkout.root.parent / "fork.git"
    checkout.git("init", "--quiet", "--bare", str(fork))
    checkout.git("config", "remote.origin.pushurl", str(fork))
    refuse(checkout, "1.0.0", f"Git pushes to {fork}, but fetches from {checkout.origin}, where readers look")
    # As it is advised; and another address of the same repository.
    for address in (checkout.git("remote", "get-url", "origin"), str(checkout.root.parent / "origin.git")):
        checkout.git("config", "--replace-all", "remote.origin.pushurl", address)
        require_same_address(checkout.root)


def test_an_artifact_that_does_not_exist_is_named_with_those_that_do(checkout: Checkout) -> None:
    done = checkout.run("publish", "tinny", "1.0.0")
    assert (done.returncode, done.stderr) == (2, f"error: {checkout.root}/dvc.yaml names no artifact 'tinny'; expected tiny\n")


def test_tags_that_only_the_origin_has_must_be_fetched_first(checkout: Checkout) -> None:
    publish(checkout, "1.0.0")
    checkout.git("tag", "--delete", "tiny@v1.0.0")
    done = checkout.run("publish", "tiny", "1.1.0")
    assert "origin has tiny@v1.0.0, which is not known here: run `git fetch --tags`" in done.stderr


def test_a_push_of_data_that_fails_tags_nothing_and_is_made_good_later(checkout: Checkout) -> None:
    config = checkout.root / ".dvc/config.local"
    blocked = checkout.root.parent / "blocked"
    blocked.write_text("a file where a folder should be")
    config.write_text(f"['remote \"store\"']\n    url = {blocked}/remote\n")
    done = checkout.run("publish", "tiny", "1.0.0")
    assert done.returncode == 2
    assert checkout.git("tag") == ""
    assert checkout.list_origin_tags() == []
    config.unlink()
    publish(checkout, "1.0.0")


def test_an_origin_that_refuses_the_tag_leaves_none_here_and_is_asked_again_later(checkout: Checkout) -> None:
    closed_origin = set_hook(checkout.root.parent / "origin.git", "pre-receive", "echo closed >&2; exit 1")
    done = checkout.run("publish", "tiny", "1.0.0")
    assert done.returncode == 2
    assert "the data is at its remote, but origin did not take the tag tiny@v1.0.0" in done.stderr
    assert "closed" in done.stderr
    assert checkout.git("tag") == ""
    closed_origin.unlink()
    assert not publish(checkout, "1.0.0")["already_published"]


def test_an_origin_that_hides_the_tag_has_published_nothing(checkout: Checkout) -> None:
    origin = checkout.root.parent / "origin.git"
    run_git(origin, "config", "uploadpack.hideRefs", "refs/tags")
    done = checkout.run("publish", "tiny", "1.0.0")
    assert (done.returncode, "origin hides the tag tiny@v1.0.0 that it took, so nobody sees" in done.stderr) == (2, True), done
    run_git(origin, "config", "--unset", "uploadpack.hideRefs")
    assert publish(checkout, "1.0.0")["already_published"]


def test_a_tag_that_was_taken_but_whose_answer_was_lost_is_published(checkout: Checkout) -> None:
    set_hook(checkout.root.parent / "origin.git", "post-receive", "kill -9 $PPID")
    assert not publish(checkout, "1.0.0")["already_published"]
    assert checkout.git("rev-parse", "tiny@v1.0.0") == checkout.git("ls-remote", "origin", "tiny@v1.0.0").split()[0]


def test_a_tag_that_only_the_origin_has_is_fetched_when_it_is_published_again(checkout: Checkout) -> None:
    publish(checkout, "1.0.0")
    before = checkout.git("rev-parse", "tiny@v1.0.0")
    checkout.git("tag", "--delete", "tiny@v1.0.0")
    assert publish(checkout, "1.0.0")["already_published"]
    assert checkout.git("rev-parse", "tiny@v1.0.0") == before


def list_complete_objects(checkout: Checkout) -> list[str]:
    """List the objects on the remote whose bytes are those of their names."""
    files = {path.parent.name + path.stem: path for path in checkout.remote.rglob("*") if path.is_file()}
    return [name for name, path in files.items() if hashlib.md5(path.read_bytes(), usedforsecurity=False).hexdigest() == name]


def count_files(folder: Path) -> int:
    """Count the files in a folder, in which others come and go."""
    return sum(len(files) for _, _, files in os.walk(folder))


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM])
@pytest.mark.parametrize(
    "moment",
    [
        pytest.param(lambda checkout: count_files(checkout.remote) >= 1, id="an object on the remote"),
        pytest.param(lambda checkout: count_files(checkout.remote) >= 8, id="half of the objects"),
        pytest.param(lambda checkout: (checkout.root / ".git/refs/tags/tiny@v1.0.0").exists(), id="the tag here"),
        pytest.param(lambda checkout: (checkout.root.parent / "asked").exists(), id="the tag on its way"),
        pytest.param(lambda checkout: (checkout.root.parent / "origin.git/refs/tags/tiny@v1.0.0").exists(), id="the tag there"),
    ],
)
def test_stopped_at_any_moment_it_can_be_run_again_and_no_version_is_seen_before_its_data(
    checkout: Checkout, moment: Callable[[Checkout], object], number: int
) -> None:
    # The origin takes its time over the tag, so that every moment is one in which there still is a process to kill.
    set_hook(checkout.root.parent / "origin.git", "pre-receive", f"touch '{checkout.root.parent}/asked'; sleep 0.3")
    set_hook(checkout.root.parent / "origin.git", "post-receive", "sleep 0.3")
    process = checkout.start("publish", "tiny", "1.0.0")
    wait_until(lambda: moment(checkout), "that moment", pause_seconds=0.0002)
    process.send_signal(number)
    output, errors = process.communicate(timeout=HANG_SECONDS)
    if number == signal.SIGTERM:
        said = (128 + number, "", "stopped by SIGTERM; run the same command again to go on\n")
    else:
        said = (-number, "", "")
    assert (process.returncode, output, errors) == said
    assert not checkout.list_origin_tags() or len(checkout.list_remote()) == 15
    publish(checkout, "1.0.0")
    assert checkout.list_origin_tags() == ["tiny@v1.0.0"]
    assert len(list_complete_objects(checkout)) == 15


def test_a_version_is_fetched_while_the_next_is_published(
    checkout: Checkout, tiny_dataset: CaptchaDataset, grown_dataset: CaptchaDataset, tmp_path: Path
) -> None:
    publish(checkout, "1.0.0")
    checkout.make(grown_dataset.root)
    fetch = ["get", "tiny@1.0.0", "--repo", checkout.origin, "--to", str(tmp_path / "got")]
    both = [checkout.start("publish", "tiny", "1.1.0"), checkout.start(*fetch)]
    errors = [process.communicate()[1] for process in both]
    assert [process.returncode for process in both] == [0, 0], errors
    got = hash_files(tmp_path / "got")
    assert got.pop("README.md")
    assert got == hash_files(tiny_dataset.root)
    assert checkout.list_origin_tags() == ["tiny@v1.0.0", "tiny@v1.1.0"]


def test_another_command_of_dvc_is_waited_for_as_it_is_advised(checkout: Checkout, monkeypatch: pytest.MonkeyPatch) -> None:
    # DVC tries for seconds.
    monkeypatch.setattr("dvc.lock.DEFAULT_TIMEOUT", 0)
    with closing(LockFile(checkout.root / ".dvc/tmp/lock")):
        refuse(
            checkout, "1.0.0", "another DVC process is running or was terminated abruptly. Wait for it to end, or end it; where"
        )
    publish(checkout, "1.0.0")


def test_of_two_at_once_one_publishes_and_the_other_says_so_or_finds_it_done(checkout: Checkout) -> None:
    both = [checkout.start("publish", "tiny", "1.0.0") for _ in range(2)]
    outputs = [process.communicate()[1] for process in both]
    codes = sorted(process.returncode for process in both)
    assert codes in ([0, 0], [0, 2])
    assert codes == [0, 0] or any("another publication runs" in errors for errors in outputs)
    assert checkout.list_origin_tags() == ["tiny@v1.0.0"]
