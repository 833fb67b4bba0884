"""Open a dataset folder: its manifest, its index, its shards, its samples."""

from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import pyarrow as pa
import pyarrow.compute as pc

from captcha_registry.dataset.index import read_index
from captcha_registry.dataset.manifest import Manifest, read_manifest
from captcha_registry.dataset.records import Sample, decode_sample, read_record
from captcha_registry.errors import UserError


@dataclass(frozen=True)
class DatasetFolder:
    """A dataset on disk; nothing is read before it is asked for but the manifest."""

    root: Path
    manifest: Manifest

    @cached_property
    def index(self) -> pa.Table:
        """All index rows, in the order of their ids; columns as in `dataset.index`."""
        rows = read_index(self.root / self.manifest.index.path)
        if rows.num_rows != self.manifest.spec.count:
            raise UserError(
                f"{self.root / self.manifest.index.path} has {rows.num_rows:,} rows; "
                f"the manifest says {self.manifest.spec.count:,}: run `dvc repro`, or `dvc pull` in a clone"
            )
        return rows

    def rows(self, split: str) -> pa.Table:
        """Return the index rows of `train` or `test`."""
        return self.index.filter(pc.equal(self.index["split"], split))

    def shard_paths(self, split: str) -> list[Path]:
        """Return the shards of `train` or `test`, in order."""
        return [self.root / shard.path for shard in self.manifest.shards if shard.path.startswith(f"{split}/")]

    def read_samples(self, rows: pa.Table) -> Iterator[Sample]:
        """Yield the samples that index rows point to, with one seek each.

        Raises:
            DamagedRecordError: a record is cut, or fails a checksum.
        """
        for shard, offset in zip(rows["shard"].to_pylist(), rows["offset"].to_pylist(), strict=True):
            yield decode_sample(read_record(self.root / shard, offset))


def open_folder(root: Path) -> DatasetFolder:
    """Open the dataset in a folder.

    Raises:
        UserError: the folder holds no complete dataset.
    """
    return DatasetFolder(root=root, manifest=read_manifest(root))
