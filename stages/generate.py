"""Draw a dataset into TFRecord shards with a Parquet index and a manifest: `python -m stages.generate digits`.

Reads `datasets.<name>` and `drawing` of params.yaml, writes `data/generated/<name>/`. Shards that an interrupted run finished
are kept. With `--to URL` the dataset goes there instead, outside of DVC.
"""

import argparse
import sys
import time
from functools import partial
from pathlib import Path

from captcha_registry.dataset.manifest import Manifest
from captcha_registry.dataset.spec import DatasetSpec
from captcha_registry.describing.card import write_dataset_card
from captcha_registry.describing.croissant import write_croissant
from captcha_registry.describing.statistics import summarize_manifest
from captcha_registry.ends import report_errors
from captcha_registry.errors import CommandLine
from captcha_registry.generation.drawing import Drawer, hash_fonts
from captcha_registry.generation.executors import FEW_SAMPLES, DrawingParams, open_executor
from captcha_registry.generation.generating import (
    assemble_dataset,
    describe_tools,
    draw_missing_shards,
    find_finished_shards,
)
from captcha_registry.generation.legibility import check_legibility
from captcha_registry.generation.remote import draw_remote_dataset, require_url
from captcha_registry.params import PARAMS_PATH, check_names, load_section, name_section
from captcha_registry.workspace import fingerprint, open_work_dir


def describe(manifest: Manifest) -> dict[str, str]:
    """Compose what is written beside a dataset at a URL: the card and the metadata, as `describe` writes them."""
    card = write_dataset_card(manifest, summarize_manifest(manifest))
    return {"README.md": card, "croissant.json": write_croissant(manifest)}


def main(name: str, num_workers: int | None = None, url: str | None = None) -> None:
    """Draw the dataset `name` with `num_workers` processes or the workers of a cluster, here or to a URL."""
    started = time.perf_counter()
    if url is not None:
        require_url(url)
    spec = load_section(DatasetSpec, f"datasets.{name}")
    check_names([name])
    params = load_section(DrawingParams, "drawing")
    with name_section(f"datasets.{name}"):
        drawer = Drawer(spec)
        drawer.check_fonts()
        warnings = check_legibility(drawer)
    # What draws to a URL decides nothing here: unfinished work outlasts a change to it.
    describe_code = partial(describe_tools, "generating" if url is None else "remote")
    work = fingerprint(spec.model_dump(), hash_fonts(spec.fonts, drawer.font_files), describe_code())
    if params.executor == "dask":
        print(f"{name}: drawing on the workers of {params.scheduler}", flush=True)
    if url is not None:
        with open_executor(params, spec.count, num_workers, describe_code) as executor:
            manifest, num_kept = draw_remote_dataset(name, drawer, url, work, executor, describe)
    else:
        with open_work_dir("generate", name, work) as work_dir:
            num_kept = len(finished := find_finished_shards(work_dir))
            with open_executor(params, spec.count, num_workers, describe_code) as executor:
                shards = draw_missing_shards(drawer, finished, work_dir, executor)
            manifest = assemble_dataset(name, drawer, shards, work_dir, Path("data/generated") / name)

    size_bytes = sum(shard.size_bytes for shard in manifest.shards)
    seconds = time.perf_counter() - started
    kept = f" ({num_kept} were there already)" if num_kept else ""
    print(f"{name}: {spec.count:,} samples in {len(manifest.shards)} shards{kept}, {size_bytes / 1e6:,.0f} MB, {seconds:.0f} s")
    # In the pipeline the stage `check` tells them.
    for warning in warnings if url is not None else ():
        print(f"warning: {PARAMS_PATH}: datasets.{name}: {warning}", file=sys.stderr)


if __name__ == "__main__":
    parser = CommandLine(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("name", help="a key below `datasets` in params.yaml")
    parser.add_argument(
        "--workers",
        type=int,
        help=f"local processes (default: one a core, as memory allows; none for up to {FEW_SAMPLES:,} samples)",
    )
    parser.add_argument("--to", metavar="URL", help="where fsspec shall put it, such as s3://bucket/digits")
    with report_errors():
        arguments = parser.parse_args()
        main(arguments.name, arguments.workers, arguments.to)
