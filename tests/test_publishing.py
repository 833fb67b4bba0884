"""A version is published whole or not at all: what is refused, what a dry run leaves, what interruptions and races do."""

import hashlib
import json
import os
import shutil
import stat
import subprocess
from contextlib import suppress
from pathlib import Path

import pytest
from checkouts import Checkout
from conftest import wait_until
from ruamel.yaml import YAML

from captcha_registry.dataset.folder import DatasetFolder


@pytest.fixture
def checkout(tiny_dataset: DatasetFolder, tmp_path: Path) -> Checkout:
    """A repository with a dataset that nobody has published."""
    made = Checkout.create(tmp_path)
    made.make(tiny_dataset.root)
    return made


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


def test_a_version_is_an_annotated_tag_at_the_origin_and_every_object_at_the_remote(checkout: Checkout) -> None:
    said = publish(checkout, "1.0.0")
    assert said["tag"] == "tiny@v1.0.0"
    assert checkout.list_origin_tags() == ["tiny@v1.0.0"]
    assert checkout.git("rev-parse", "tiny@v1.0.0^{commit}") == checkout.git("rev-parse", "HEAD") == said["commit"]
    assert "60 samples" in checkout.git("tag", "--list", "-n9", "tiny@v1.0.0")
    # Ten shards, two listings, index, manifest and card.
    assert len(checkout.list_remote()) == 15


def test_json_is_all_that_a_process_prints(checkout: Checkout) -> None:
    output, _ = checkout.start("publish", "tiny", "1.0.0", "--json").communicate()
    assert json.loads(output)["tag"] == "tiny@v1.0.0"


def test_a_dry_run_says_what_would_be_done_and_does_nothing(checkout: Checkout) -> None:
    done = checkout.run("publish", "tiny", "1.0.0", "--dry-run")
    assert done.returncode == 0
    assert "tiny@v1.0.0 would be published" in done.stdout
    assert (checkout.list_remote(), checkout.list_origin_tags(), checkout.git("tag")) == ({}, [], "")


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
    refuse(checkout, "1.0.0", "tiny is not what the pipeline would make now (make): run `dvc repro make` and commit")


def test_what_the_data_was_made_from_need_not_be_here(checkout: Checkout) -> None:
    shutil.rmtree(checkout.root / "source")
    publish(checkout, "1.0.0")


def test_data_that_was_changed_by_hand_is_refused(checkout: Checkout) -> None:
    (checkout.root / "data/tiny/README.md").unlink()
    (checkout.root / "data/tiny/README.md").write_text("# changed\n")
    refuse(checkout, "1.0.0", "tiny is not what the pipeline would make now (make)")


def test_a_cache_that_lost_an_object_is_refused_with_what_mends_it(checkout: Checkout) -> None:
    (checkout.root / "data/tiny/train/00000.tfrecord").chmod(0o644)
    content = (checkout.root / "data/tiny/train/00000.tfrecord").read_bytes()
    (lost,) = [p for p in (checkout.root / ".dvc/cache/files").rglob("*") if p.is_file() and p.read_bytes() == content]
    lost.unlink()
    done = checkout.run("publish", "tiny", "1.0.0")
    assert done.returncode == 2
    assert "run `dvc commit`" in done.stderr or "`dvc push` failed" in done.stderr
    assert checkout.list_origin_tags() == []
    checkout.dvc("commit", "--quiet", "--force", "make")
    publish(checkout, "1.0.0")


def test_a_commit_that_others_have_built_upon_is_published(checkout: Checkout) -> None:
    other = checkout.root.parent / "other"
    checkout.git("clone", "--quiet", checkout.origin, str(other))
    Checkout(other).commit("later")
    before = checkout.git("for-each-ref")
    assert checkout.run("publish", "tiny", "1.0.0", "--dry-run").returncode == 0
    assert checkout.git("for-each-ref") == before
    publish(checkout, "1.0.0")


def test_a_version_that_was_withdrawn_stays_withdrawn(checkout: Checkout) -> None:
    publish(checkout, "1.0.0")
    checkout.git("push", "--quiet", "origin", "HEAD:refs/tags/tiny@v1.0.0!")
    refuse(checkout, "1.0.0", "tiny@v1.0.0 was withdrawn")


def test_a_repository_without_an_origin_is_refused(checkout: Checkout) -> None:
    checkout.git("remote", "remove", "origin")
    done = checkout.run("publish", "tiny", "1.0.0")
    assert "there is no Git remote 'origin' to publish at: add one with `git remote add origin URL`" in done.stderr


def test_a_model_is_published_if_its_weights_are_those_of_its_card(checkout: Checkout) -> None:
    weights, folder = b"weights", checkout.root / "reader"
    folder.mkdir()
    (folder / "model.keras").write_bytes(weights)
    (folder / "model.json").write_text(
        json.dumps({"model_sha256": hashlib.sha256(weights).hexdigest(), "family": "cnn", "dataset_id": "d"})
    )
    pipeline = YAML(typ="safe").load(checkout.root / "dvc.yaml")
    pipeline["artifacts"]["reader"] = {"path": "reader", "type": "model"}
    YAML().dump(pipeline, checkout.root / "dvc.yaml")
    checkout.dvc("add", "--quiet", "reader")
    checkout.commit("a model")
    done = checkout.run("publish", "reader", "1.0.0")
    assert (done.returncode, "cnn" in done.stdout) == (0, True), done.stderr
    (row,) = json.loads(checkout.run("list", "--json").stdout)
    assert (row["name"], row["samples"], row["dataset_id"]) == ("reader", None, "d")
    (folder / "model.keras").unlink()
    (folder / "model.keras").write_bytes(b"others")
    checkout.dvc("add", "--quiet", "reader")
    checkout.commit("another model")
    done = checkout.run("publish", "reader", "1.1.0")
    assert (done.returncode, "is not the model that" in done.stderr) == (2, True)


def test_a_commit_that_the_origin_does_not_have_is_refused(checkout: Checkout) -> None:
    checkout.git("commit", "--quiet", "--allow-empty", "--message", "unpushed")
    refuse(checkout, "1.0.0", "is on no branch of origin: run `git push` first")


def test_data_that_its_own_manifest_contradicts_is_refused(checkout: Checkout) -> None:
    shard = checkout.root / "data/tiny/train/00000.tfrecord"
    content = shard.read_bytes()
    shard.unlink()
    shard.write_bytes(content[:-1] + bytes([content[-1] ^ 1]))
    checkout.dvc("commit", "--quiet", "--force", "make")
    checkout.commit("damage")
    refuse(checkout, "1.0.0", "train/00000.tfrecord")


def test_a_repository_without_a_remote_is_refused(checkout: Checkout) -> None:
    checkout.dvc("remote", "remove", "store")
    checkout.commit("no remote")
    refuse(checkout, "1.0.0", "no remote specified")


@pytest.mark.parametrize(
    ("version", "message"),
    [
        ("1.0", "'1.0' is no version"),
        ("1.0.1", "1.0.1 says patch but the change since tiny@v1.0.0 is minor: publish it as 1.1.0 or higher"),
        ("0.9.0", "tiny 0.9.0 is lower than 1.0.0"),
        ("1.0.0", "tiny@v1.0.0 is published already"),
    ],
)
def test_a_version_that_is_taken_or_says_too_little_is_refused(
    checkout: Checkout, grown_dataset: DatasetFolder, version: str, message: str
) -> None:
    publish(checkout, "1.0.0")
    checkout.make(grown_dataset.root)
    refuse(checkout, version, message)
    assert publish(checkout, "1.1.0")["bump"] == "minor"


def test_an_artifact_that_does_not_exist_is_named_with_those_that_do(checkout: Checkout) -> None:
    done = checkout.run("publish", "tinny", "1.0.0")
    assert (done.returncode, done.stderr) == (2, "error: dvc.yaml names no artifact 'tinny'; expected tiny\n")


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


@pytest.fixture
def closed_origin(checkout: Checkout) -> Path:
    """An origin that takes no tag."""
    hook = checkout.root.parent / "origin.git/hooks/pre-receive"
    hook.write_text("#!/bin/sh\necho closed >&2\nexit 1\n")
    hook.chmod(hook.stat().st_mode | stat.S_IXUSR)
    return hook


def test_an_origin_that_refuses_the_tag_leaves_none_here_and_is_asked_again_later(
    checkout: Checkout, closed_origin: Path
) -> None:
    done = checkout.run("publish", "tiny", "1.0.0")
    assert done.returncode == 2
    assert "closed" in done.stderr
    assert checkout.git("tag") == ""
    closed_origin.unlink()
    assert not publish(checkout, "1.0.0")["already_published"]


def test_killed_at_any_moment_it_can_be_run_again_and_no_version_is_seen_before_its_data(checkout: Checkout) -> None:
    for seconds in (1.0, 1.4, 1.8, 2.2, 2.6):
        process = checkout.start("publish", "tiny", "1.0.0")
        with suppress(subprocess.TimeoutExpired):
            process.wait(seconds)
        process.kill()
        process.communicate()
        if checkout.list_origin_tags():
            assert len(checkout.list_remote()) == 15
    # A `dvc push` that outlived its parent may hold DVC's lock for a moment.
    wait_until(lambda: checkout.run("publish", "tiny", "1.0.0").returncode == 0, "a publication", pause_seconds=0.5)
    assert checkout.list_origin_tags() == ["tiny@v1.0.0"]
    assert len(checkout.list_remote()) == 15


def test_of_two_at_once_one_publishes_and_the_other_says_so_or_finds_it_done(checkout: Checkout) -> None:
    both = [checkout.start("publish", "tiny", "1.0.0") for _ in range(2)]
    outputs = [process.communicate()[1] for process in both]
    codes = sorted(process.returncode for process in both)
    assert codes in ([0, 0], [0, 2])
    assert codes == [0, 0] or any("another publication runs" in errors for errors in outputs)
    assert checkout.list_origin_tags() == ["tiny@v1.0.0"]
