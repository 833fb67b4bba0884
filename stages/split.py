"""Divide a generated dataset into train and test: `python -m stages.split digits`.

Reads `split` of params.yaml and `data/generated/<name>/`, writes `train/`, `test/`, `index.parquet` and `manifest.json` below
`data/<name>/`.
"""

import argparse
import shutil
import time
from pathlib import Path

from captcha_registry.dataset.folder import open_folder
from captcha_registry.dataset.index import INDEX_NAME
from captcha_registry.dataset.manifest import MANIFEST_NAME
from captcha_registry.dataset.spec import SplitRule
from captcha_registry.ends import report_errors
from captcha_registry.errors import CommandLine
from captcha_registry.generation.splitting import SPLITS, describe_sides, split_dataset
from captcha_registry.params import check_names, load_section
from captcha_registry.workspace import lock_work


def put_in_place(work_dir: Path, out_dir: Path) -> None:
    """Replace the parts of a split dataset, the manifest first and last; the card and DVC's own files in this folder stay."""
    out_dir.mkdir(exist_ok=True)
    (out_dir / MANIFEST_NAME).unlink(missing_ok=True)
    for part in (*SPLITS, INDEX_NAME, MANIFEST_NAME):
        if (out_dir / part).is_dir() and not (out_dir / part).is_symlink():
            shutil.rmtree(out_dir / part)
        else:
            (out_dir / part).unlink(missing_ok=True)
        (work_dir / part).replace(out_dir / part)


def main(name: str) -> None:
    """Split the dataset `name`."""
    started = time.perf_counter()
    check_names([name])
    rule = load_section(SplitRule, "split")
    source = open_folder(Path("data/generated") / name)
    out_dir = Path("data") / name
    # Beside its place, as links and renames do not cross disks; `.work` may be on another disk than `data`.
    work_dir = out_dir.with_name(f".{name}.split")
    with lock_work("split", name):
        if work_dir.exists():
            # A killed run left it.
            shutil.rmtree(work_dir)
        work_dir.mkdir()
        try:
            manifest = split_dataset(source, rule, work_dir)
            put_in_place(work_dir, out_dir)
        finally:
            shutil.rmtree(work_dir)

    num_test = sum(shard.num_samples for shard in manifest.shards if shard.path.startswith("test/"))
    print(f"{name}: {describe_sides(manifest.spec.count, num_test, rule)}, {time.perf_counter() - started:.0f} s")


if __name__ == "__main__":
    parser = CommandLine(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("name", help="a key below `datasets` in params.yaml")
    with report_errors():
        main(parser.parse_args().name)
