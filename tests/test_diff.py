"""A diff finds exactly what was changed, and calls for the bump that the table says."""

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from random import Random

import numpy as np
import pyarrow as pa
import pytest
from checkouts import Checkout
from conftest import replace_index
from hypothesis import given
from hypothesis import strategies as st

import captcha_registry
from captcha_registry.commands.diff import to_json
from captcha_registry.dataset.dataset import CaptchaDataset
from captcha_registry.dataset.index import read_index
from captcha_registry.dataset.manifest import Manifest
from captcha_registry.errors import UserError
from captcha_registry.registry.diff import DatasetDiff, DatasetVersion, ModelVersion, diff_datasets, diff_models
from captcha_registry.registry.versions import read_folder

KINDS = ("added", "removed", "redrawn", "relabelled", "moved", "altered")
COUNT = 60


@pytest.fixture(scope="module")
def version(tiny_dataset: CaptchaDataset) -> DatasetVersion:
    read = read_folder(tiny_dataset.root)
    assert isinstance(read, DatasetVersion)
    return read


def change_rows(index: pa.Table, ids: set[int], column: str, change: Callable[[object], object]) -> pa.Table:
    rows = [row | {column: change(row[column])} if row["id"] in ids else row for row in index.to_pylist()]
    return pa.Table.from_pylist(rows, schema=index.schema)


id_sets = st.sets(st.integers(0, COUNT - 1), max_size=8)


@given(changed=st.tuples(id_sets, id_sets, id_sets, id_sets), removed=id_sets, added=st.integers(0, 5), order=st.randoms())
def test_exactly_the_samples_that_changed_are_found_in_any_order_of_rows(
    version: DatasetVersion, changed: tuple[set[int], ...], removed: set[int], added: int, order: Random
) -> None:
    redrawn, relabelled, moved, altered = changed
    index = change_rows(version.index, redrawn, "pixel_sha256", lambda old: bytes(reversed(old)))  # type: ignore[call-overload]
    index = change_rows(index, relabelled, "label", lambda old: f"{old}x")
    index = change_rows(index, moved, "split", lambda old: {"train": "test", "test": "train"}[str(old)])
    index = change_rows(index, altered, "ink", lambda old: f"{old}0")
    rows = [row for row in index.to_pylist() if row["id"] not in removed]
    rows += [index.slice(0, 1).to_pylist()[0] | {"id": COUNT + number} for number in range(added)]
    order.shuffle(rows)
    diff = diff_datasets(version, replace(version, index=pa.Table.from_pylist(rows, schema=index.schema)))
    expected = {
        "added": {COUNT + number for number in range(added)},
        "removed": removed,
        "redrawn": redrawn - removed,
        "relabelled": relabelled - removed,
        "moved": moved - removed,
        "altered": altered - removed,
    }
    assert {kind: set(ids.tolist()) for kind, ids in diff.samples.items()} == expected
    lost = any(ids for kind, ids in expected.items() if kind != "added")
    assert diff.bump == ("major" if lost else "minor" if added else "none")


def change_manifest(version: DatasetVersion, **changes: object) -> DatasetVersion:
    fields = {name: value for name, value in version.manifest if name != "dataset_id"}
    return replace(version, manifest=Manifest.create(**fields | changes))


def change_spec(version: DatasetVersion, **changes: object) -> DatasetVersion:
    return change_manifest(version, spec=version.manifest.spec.model_copy(update=changes))


CASES: dict[str, tuple[Callable[[DatasetVersion], DatasetVersion], str]] = {
    "nothing": (lambda v: v, "none"),
    "another card": (lambda v: replace(v, described={**v.described, "README.md": "0"}), "patch"),
    "other bytes of a shard": (
        lambda v: change_manifest(
            v, shards=(v.manifest.shards[0].model_copy(update={"sha256": "0" * 64}), *v.manifest.shards[1:])
        ),
        "patch",
    ),
    "another drawing program, same pictures": (lambda v: change_manifest(v, drawing_version=99), "patch"),
    "shards of another size": (lambda v: change_spec(v, shard_size=12), "patch"),
    "a column added": (lambda v: replace(v, index=v.index.append_column("weight", pa.array(np.ones(COUNT)))), "minor"),
    "a column removed": (lambda v: replace(v, index=v.index.drop_columns(["ink"])), "major"),
    "a column of another type": (
        lambda v: replace(v, index=v.index.drop_columns(["ink"]).append_column("ink", pa.array(np.ones(COUNT)))),
        "major",
    ),
    "another seed": (lambda v: change_spec(v, seed=8), "major"),
    "another alphabet": (lambda v: change_spec(v, alphabet="xyz"), "major"),
    "no split": (lambda v: change_manifest(v, split=None), "major"),
    "another font": (lambda v: change_manifest(v, fonts={"a.ttf": "0" * 64}), "major"),
}


@pytest.mark.parametrize("case", CASES)
def test_the_bump_is_what_the_table_says(version: DatasetVersion, case: str) -> None:
    change, bump = CASES[case]
    assert diff_datasets(version, change(version)).bump == bump


def test_params_that_changed_are_named_with_old_and_new(version: DatasetVersion) -> None:
    (change,) = diff_datasets(version, change_spec(version, seed=8)).params
    assert (change.field, change.old, change.new) == ("spec.seed", 7, 8)


def test_samples_that_are_the_same_are_not_called_changed(version: DatasetVersion) -> None:
    assert diff_datasets(version, change_manifest(version, name="other")).reason == "name changed"
    assert diff_datasets(version, CASES["a column removed"][0](version)).reason == "samples were removed or changed"
    sides = pa.array(["test"] * COUNT)
    moved = replace(version, index=version.index.set_column(version.index.schema.get_field_index("split"), "split", sides))
    assert diff_datasets(version, moved).reason == "samples moved between train and test"


def test_an_index_that_names_a_sample_twice_is_refused(version: DatasetVersion) -> None:
    twice = replace(version, index=pa.concat_tables([version.index, version.index.slice(5, 1)]))
    with pytest.raises(UserError, match="names sample 5 more than once"):
        diff_datasets(version, twice)


CARD = {"family": "cnn", "model_sha256": "a", "num_parameters": 1, "spec": {"alphabet": "01", "length": 4, "seed": 1}}


@pytest.mark.parametrize(
    ("changes", "files", "bump"),
    [
        ({}, {"README.md": "1"}, "none"),
        ({}, {"README.md": "2"}, "patch"),
        ({"model_sha256": "b"}, {"README.md": "1"}, "minor"),
        ({"spec": {"alphabet": "012", "length": 4, "seed": 1}}, {"README.md": "1"}, "major"),
        ({"spec": {"alphabet": "01", "length": {"min": 3, "max": 6}, "seed": 1}}, {"README.md": "1"}, "major"),
        ({"family": "crnn"}, {"README.md": "1"}, "major"),
    ],
)
def test_a_model_is_compared_by_what_it_reads_and_its_weights(
    changes: dict[str, object], files: dict[str, str], bump: str
) -> None:
    assert diff_models(ModelVersion(CARD, {"README.md": "1"}), ModelVersion(CARD | changes, files)).bump == bump


def test_the_command_compares_versions_and_folders(published: Checkout, grown_dataset: CaptchaDataset) -> None:
    for new in ("tiny@1.1.0", "tiny", str(grown_dataset.root)):
        done = published.run("diff", "tiny@v1.0.0", new, "--json")
        said = json.loads(done.stdout)
        assert (said["bump"], said["samples"]["added"]) == ("minor", {"count": 30, "ranges": [[60, 89]]})
        assert len(done.stdout.splitlines()) == 9
        assert said["params"] == {"spec.count": {"old": 60, "new": 90}}
    lines = published.run("diff", "tiny@v1.1.0", "tiny@1.0.0").stdout
    assert "samples removed                30   ids 60, 61, 62, 63, 64, ..." in lines
    assert "calls for MAJOR" in lines


@pytest.mark.parametrize(
    ("ids", "ranges"), [([], []), ([4], [[4, 4]]), ([0, 1, 2, 7, 9, 10], [[0, 2], [7, 7], [9, 10]])], ids=str
)
def test_ids_that_follow_each_other_are_a_range(version: DatasetVersion, ids: list[int], ranges: list[list[int]]) -> None:
    diff = replace(diff_datasets(version, version), samples={"moved": np.array(ids, np.int64)})
    assert to_json(diff)["samples"] == {"moved": {"count": len(ids), "ranges": ranges}}


def test_what_is_no_part_of_a_dataset_is_no_change(published: Checkout, tmp_path: Path) -> None:
    got = tmp_path / "tiny"
    done = published.run("get", "tiny@1.0.0", "--to", str(got))
    assert done.returncode == 0, done.stderr
    (got / "train/.DS_Store").touch()
    (got / ".fetched.json").touch()
    assert json.loads(published.run("diff", "tiny@1.0.0", str(got), "--json").stdout)["bump"] == "none"


def test_a_release_that_adds_a_column_can_be_read_and_compared(published: Checkout, dataset_copy: Path) -> None:
    index = read_index(dataset_copy / "index.parquet").append_column("weight", pa.array(np.ones(COUNT)))
    replace_index(dataset_copy, index)
    diff = json.loads(published.run("diff", "tiny@1.0.0", str(dataset_copy), "--json").stdout)
    assert (diff["bump"], diff["columns"]["added"]) == ("minor", ["weight double"])
    assert captcha_registry.load(dataset_copy).filter("weight > 0").index.num_rows == COUNT


def test_a_dataset_and_a_model_cannot_be_compared(published: Checkout, tmp_path: Path) -> None:
    (tmp_path / "model.json").write_text(json.dumps(CARD))
    done = published.run("diff", "tiny", str(tmp_path))
    assert (done.returncode, "cannot be compared" in done.stderr) == (2, True)
    (tmp_path / "model.json").write_text("[")
    assert "model.json is not valid JSON" in published.run("diff", "tiny", str(tmp_path)).stderr


def test_what_is_compared_says_what_it_found(version: DatasetVersion) -> None:
    diff = diff_datasets(version, version)
    assert isinstance(diff, DatasetDiff)
    assert tuple(diff.samples) == KINDS
