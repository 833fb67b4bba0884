"""`captcha-registry export`: write a dataset in the form that another tool reads."""

import argparse
import json
import time
from dataclasses import asdict

from captcha_registry.export import FORMATS, export_dataset
from captcha_registry.machine import expand_home
from captcha_registry.registry.loading import load

HELP = "write a dataset for other tools: WebDataset, Hugging Face, images, NumPy"
DESCRIPTION = (
    "Write a dataset, or a split of it, into a new folder in the form that another tool reads; every sample is verified on "
    "the way. Exit code: 0, or 2 if nothing was written."
)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare what the command takes."""
    parser.add_argument("path", type=expand_home, help="folder of the dataset, such as data/digits")
    parser.add_argument(
        "--format",
        required=True,
        choices=FORMATS,
        help="tfrecord: the shards | webdataset: tar files | huggingface: Parquet for `datasets` | images: PNG and labels.csv | "
        "numpy: .npz files",
    )
    parser.add_argument("--split", help="write one split only, such as test")
    parser.add_argument("--to", metavar="DIR", type=expand_home, required=True, help="folder to make")
    parser.add_argument("--json", action="store_true", help="print one JSON object instead of the closing line")


def run(arguments: argparse.Namespace) -> int:
    """Write the dataset."""
    started = time.perf_counter()
    exported = export_dataset(load(arguments.path, split=arguments.split), arguments.format, arguments.to)
    if arguments.json:
        print(json.dumps({"path": str(arguments.to), "format": arguments.format} | asdict(exported), indent=2))
    else:
        wrote = f"{exported.num_samples:,} samples in {exported.num_files:,} files, {exported.size_bytes / 1e6:,.1f} MB"
        print(f"{arguments.to}: {wrote}, {time.perf_counter() - started:.1f} s")
    return 0
