"""Draw a dataset into TFRecord shards with a Parquet index and a manifest: `python -m stages.generate digits`.

Reads `datasets.<name>` of params.yaml, writes `data/generated/<name>/`. Shards that an interrupted run finished are kept.
"""

import argparse
import time
from pathlib import Path

from captcha_registry.dataset.spec import DatasetSpec
from captcha_registry.errors import report_errors
from captcha_registry.generation.drawing import Drawer, hash_fonts
from captcha_registry.generation.executors import count_usable_cores, local_processes
from captcha_registry.generation.generating import DATASET_PACKAGES, assemble_dataset, draw_missing_shards
from captcha_registry.params import load_section
from captcha_registry.workspace import fingerprint, open_work_dir


def main(name: str, num_workers: int) -> None:
    """Draw the dataset `name` with `num_workers` processes."""
    started = time.perf_counter()
    spec = load_section(DatasetSpec, f"datasets.{name}")
    drawer = Drawer(spec)
    facts = (spec.model_dump(), hash_fonts(spec.fonts, drawer.font_files))
    with open_work_dir("generate", name, fingerprint(*facts, packages=DATASET_PACKAGES)) as work_dir:
        with local_processes(num_workers) as executor:
            shards = draw_missing_shards(drawer, work_dir, executor)
        manifest = assemble_dataset(name, drawer, shards, work_dir, Path("data/generated") / name)

    size_bytes = sum(shard.size_bytes for shard in manifest.shards)
    seconds = time.perf_counter() - started
    print(f"{name}: {spec.count:,} samples in {len(shards)} shards, {size_bytes / 1e6:,.0f} MB, {seconds:.0f} s")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("name", help="a key below `datasets` in params.yaml")
    parser.add_argument("--workers", type=int, default=count_usable_cores(), help="processes (default: every core)")
    arguments = parser.parse_args()
    with report_errors():
        main(arguments.name, arguments.workers)
