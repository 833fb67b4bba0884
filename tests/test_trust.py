"""A hostile repository is refused with a clear error: nothing of it is run, nothing is written outside the target."""

import hashlib
import json
import shutil
from collections.abc import Callable
from pathlib import Path

import keras
import numpy as np
import pyarrow as pa
import pytest
from checkouts import Checkout
from conftest import hash_files
from ruamel.yaml import YAML

import captcha_registry
from captcha_registry.dataset.folder import DatasetFolder
from captcha_registry.dataset.index import read_index, write_index
from captcha_registry.dataset.manifest import FileEntry, Manifest, read_manifest, write_manifest
from captcha_registry.dataset.spec import DatasetSpec
from captcha_registry.errors import UserError
from captcha_registry.recognition.trained import ModelCard, load_model


@pytest.fixture
def hostile(tiny_dataset: DatasetFolder, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Checkout:
    """A repository that a test makes hostile, and then publishes with plain DVC and Git; the cache is empty."""
    monkeypatch.setenv("CAPTCHA_REGISTRY_CACHE", str(tmp_path / "cache"))
    checkout = Checkout.create(tmp_path / "hostile")
    checkout.make(tiny_dataset.root)
    return checkout


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
    (root / "index.parquet").unlink()
    write_index(
        root / "index.parquet", pa.Table.from_pylist(rows, schema=read_index(hostile.root / "source/index.parquet").schema)
    )
    fields = {name: content for name, content in read_manifest(root) if name != "dataset_id"}
    (root / "manifest.json").unlink()
    write_manifest(root, Manifest.create(**fields | {"index": FileEntry.of(root, "index.parquet", len(rows))}))
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
CONFIGS = {
    "remote.bearer_token_command": f"{REMOTE}    url = webdavs://127.0.0.1:1/\n    bearer_token_command = touch OWNED\n",
    "remote.configpath": f"{REMOTE}    url = s3://bucket\n    configpath = aws\n",
    "remote.keyfile": f"{REMOTE}    url = ssh://127.0.0.1:1/\n    keyfile = key\n",
    "core.site_cache_dir": "[core]\n    site_cache_dir = OWNED\n",
}


@pytest.mark.parametrize("option", CONFIGS)
def test_a_configuration_that_runs_commands_or_names_files_of_this_machine_is_refused(
    hostile: Checkout, tmp_path: Path, option: str
) -> None:
    publish(hostile)
    (hostile.root / ".dvc/config").write_text(CONFIGS[option].replace("OWNED", str(tmp_path / "owned")))
    hostile.commit("hostile settings")
    hostile.git("tag", "--annotate", "--message", "settings", "tiny@v1.1.0")
    hostile.git("push", "--quiet", "origin", "tiny@v1.1.0")
    refuse(hostile, f"its .dvc/config sets {option}")
    assert not (tmp_path / "owned").exists()


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


def test_a_link_in_git_is_not_followed(hostile: Checkout) -> None:
    shutil.rmtree(hostile.root / "data")
    (hostile.root / "dvc.lock").unlink()
    (hostile.root / "data").symlink_to("/etc")
    YAML().dump({"artifacts": {"tiny": {"path": "data/tiny", "type": "dataset"}}}, hostile.root / "dvc.yaml")
    publish(hostile)
    refuse(hostile, "DVC tracks nothing under data/tiny")


def test_a_card_cannot_steer_the_terminal(tiny_dataset: DatasetFolder, tmp_path: Path) -> None:
    checkout = Checkout.create(tmp_path)
    checkout.make(tiny_dataset.root, card="# tiny\n\x1b]0;owned\x07\x1b[2Jhidden\n")
    publish(checkout)
    assert checkout.run("show", "tiny").stdout == "# tiny\n]0;owned[2Jhidden\n\n"


def save(folder: Path, spec: DatasetSpec, network: keras.Model, *, model_sha256: str | None = None) -> None:
    """Write a model file with a card that fits, unless told otherwise."""
    folder.mkdir()
    network.save(folder / "model.keras")
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
