"""What changed between two versions, and the version bump that this calls for.

| bump  | a dataset                                              | a model                              |
|-------|--------------------------------------------------------|--------------------------------------|
| PATCH | same pictures; other bytes, tools or descriptions      | same weights; other descriptions     |
| MINOR | only samples or index columns were added               | other weights                        |
| MAJOR | anything else: a sample was removed, changed or moved  | other input, alphabet or kind        |
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from captcha_registry.dataset.manifest import Manifest
from captcha_registry.errors import UserError

Bump = Literal["none", "patch", "minor", "major"]
Ids = npt.NDArray[np.int64]

DATASET_REASONS: dict[Bump, str] = {
    "none": "nothing changed",
    "patch": "the same pictures; other bytes or descriptions",
    "minor": "only samples or columns were added",
    "major": "samples were removed or changed",
}
MODEL_REASONS: dict[Bump, str] = {
    "none": "nothing changed",
    "patch": "the same weights; other descriptions",
    "minor": "the weights changed",
    "major": "it reads other pictures or texts, or is of another kind",
}

# What a change of a column is called; of any other column, altered.
KINDS = {"pixel_sha256": "redrawn", "label": "relabelled", "split": "moved"}
# Columns that only say where a sample is.
PLACE = {"id", "shard", "offset", "length"}
# Parameters whose effect is seen in the samples themselves, or that only say how these are divided into files.
LAYOUT = {"drawing_version", "spec.count", "spec.shard_size"}
# What of a model's card decides what it can read.
READS = {"family", "spec.alphabet", "spec.length", "spec.length.min", "spec.length.max", "spec.width", "spec.height"}


@dataclass(frozen=True, slots=True)
class DatasetVersion:
    """What is compared of a dataset: manifest, index, and the hashes of files that the manifest does not name."""

    manifest: Manifest
    index: pa.Table
    described: Mapping[str, str]


@dataclass(frozen=True, slots=True)
class ModelVersion:
    """What is compared of a model: its model.json and the hashes of its files."""

    card: Mapping[str, Any]
    files: Mapping[str, str]


@dataclass(frozen=True, slots=True)
class Change:
    """One parameter that differs; None where it did not exist."""

    field: str
    old: object
    new: object


@dataclass(frozen=True, slots=True)
class DatasetDiff:
    """What differs, and the bump that this calls for.

    Attributes:
        samples: ids by what happened to them: added, removed, redrawn, relabelled, moved to another split, or altered in some
            other column of the index.
        columns_added: columns of the index, each with its type.
        columns_removed: the same.
        params: what of the manifest decides the samples.
        files: paths of the files whose bytes differ.
        bump: the least that a version with these changes has to say.
    """

    samples: Mapping[str, Ids]
    columns_added: list[str]
    columns_removed: list[str]
    params: list[Change]
    files: list[str]
    bump: Bump

    @property
    def reason(self) -> str:
        """Why it calls for this bump."""
        changed = {kind for kind, ids in self.samples.items() if len(ids)}
        if self.bump == "major" and changed <= {"moved", "added"} and "moved" in changed and not self.columns_removed:
            return "samples moved between train and test"
        is_seen_in_samples = self.columns_removed or changed - {"added"}
        if self.bump != "major" or is_seen_in_samples:
            return DATASET_REASONS[self.bump]
        return f"{', '.join(sorted({param.field for param in self.params} - LAYOUT))} changed"


@dataclass(frozen=True, slots=True)
class ModelDiff:
    """Fields of model.json that differ, files that do, and the bump that this calls for."""

    params: list[Change]
    files: list[str]
    bump: Bump

    @property
    def reason(self) -> str:
        """Why it calls for this bump."""
        return MODEL_REASONS[self.bump]


def diff_datasets(old: DatasetVersion, new: DatasetVersion) -> DatasetDiff:
    """Compare two versions of a dataset, sample by sample.

    Raises:
        UserError: an index names a sample twice.
    """
    samples = _diff_samples(old, new)
    columns = [{f"{field.name} {field.type}" for field in version.index.schema} for version in (old, new)]
    added, removed = sorted(columns[1] - columns[0]), sorted(columns[0] - columns[1])
    params = diff_fields(_list_params(old.manifest), _list_params(new.manifest))
    files = [change.field for change in diff_fields(_hash_files(old), _hash_files(new))]
    bump: Bump = "patch" if files or params else "none"
    if len(samples["added"]) or added:
        bump = "minor"
    if any(len(ids) for kind, ids in samples.items() if kind != "added") or removed or {p.field for p in params} - LAYOUT:
        bump = "major"
    return DatasetDiff(samples, added, removed, params, files, bump)


def diff_models(old: ModelVersion, new: ModelVersion) -> ModelDiff:
    """Compare two versions of a model by what their cards say."""
    params = diff_fields(flatten(old.card), flatten(new.card))
    files = [change.field for change in diff_fields(old.files, new.files)]
    fields = {param.field for param in params}
    bump: Bump = "patch" if files or params else "none"
    if "model_sha256" in fields:
        bump = "minor"
    if fields & READS:
        bump = "major"
    return ModelDiff(params, files, bump)


def diff_fields(old: Mapping[str, object], new: Mapping[str, object]) -> list[Change]:
    """List the fields that differ."""
    return [Change(name, old.get(name), new.get(name)) for name in sorted({*old, *new}) if old.get(name) != new.get(name)]


def flatten(content: Mapping[str, Any], prefix: str = "") -> dict[str, object]:
    """Name the leaves of nested objects by their path, such as `spec.count`."""
    flat: dict[str, object] = {}
    for name, value in content.items():
        flat |= flatten(value, f"{prefix}{name}.") if isinstance(value, Mapping) else {f"{prefix}{name}": value}
    return flat


def _diff_samples(old: DatasetVersion, new: DatasetVersion) -> dict[str, Ids]:
    (old_ids, old_rows), (new_ids, new_rows) = _sort_rows(old), _sort_rows(new)
    common, old_places, new_places = np.intersect1d(old_ids, new_ids, assume_unique=True, return_indices=True)
    samples = {"added": np.setdiff1d(new_ids, old_ids), "removed": np.setdiff1d(old_ids, new_ids)}
    samples |= dict.fromkeys((*KINDS.values(), "altered"), np.empty(0, np.int64))
    before, after = old_rows.take(pa.array(old_places)), new_rows.take(pa.array(new_places))
    for field in before.schema:
        if field.name not in PLACE and field.name in after.schema.names and after.schema.field(field.name).type == field.type:
            kind = KINDS.get(field.name, "altered")
            samples[kind] = np.union1d(samples[kind], common[_find_differences(before[field.name], after[field.name])])
    return samples


def _find_differences(before: pa.ChunkedArray, after: pa.ChunkedArray) -> npt.NDArray[np.bool_]:
    """Tell for each place whether two columns differ there; what is null in both, such as a split, is the same."""
    same = pc.fill_null(pc.equal(before, after), pc.and_(pc.is_null(before), pc.is_null(after)))
    return ~np.asarray(same)


def _sort_rows(version: DatasetVersion) -> tuple[Ids, pa.Table]:
    rows = version.index.sort_by("id")
    ids = np.asarray(rows["id"])
    if (repeated := ids[1:][ids[1:] == ids[:-1]]).size:
        raise UserError(f"the index of {version.manifest.name} names sample {repeated[0]} more than once; expected each once")
    return ids, rows


def _list_params(manifest: Manifest) -> dict[str, object]:
    """List what decides the pictures and their sides; versions of tools show in the pictures or in nothing."""
    fields = manifest.model_dump(mode="json", include={"name", "spec", "split", "fonts", "drawing_version"})
    return flatten(fields)


def _hash_files(version: DatasetVersion) -> dict[str, str]:
    return {path: entry.sha256 for path, entry in version.manifest.entries.items()} | dict(version.described)
