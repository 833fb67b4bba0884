"""`captcha-registry export`: write a dataset or a model in the form that another tool reads."""

import argparse
import json
import time
from dataclasses import asdict

from captcha_registry.dataset.manifest import MANIFEST_NAME
from captcha_registry.describing.export_card import describe_reader
from captcha_registry.errors import UserError, show_path
from captcha_registry.export import FORMATS, export_dataset, export_model
from captcha_registry.machine import expand_home
from captcha_registry.places import take_place
from captcha_registry.recognition.card import CARD_NAME
from captcha_registry.registry.loading import load

HELP = "write a dataset for other tools: WebDataset, Hugging Face, images, NumPy; or a model: ONNX"
DESCRIPTION = (
    "Write a dataset, or a split of it, into a new folder in the form that another tool reads. Every sample is verified on "
    "the way. Or write a trained model as an ONNX file for any ONNX runtime. "
    "Exit code: 0, or 2 if nothing was written."
)

ONNX = "onnx"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare what the command takes."""
    parser.add_argument(
        "path",
        metavar="PATH",
        type=expand_home,
        help="folder of a dataset, such as data/digits, or of a model, or a published dataset, NAME@VERSION",
    )
    parser.add_argument("--repo", metavar="URL", help="Git URL or path of the repository that publishes the dataset PATH")
    parser.add_argument(
        "--format",
        required=True,
        choices=(*FORMATS, ONNX),
        help="tfrecord: the shards | webdataset: tar files | huggingface: Parquet for `datasets` | images: PNG and labels | "
        "numpy: .npz files | onnx: a model",
    )
    parser.add_argument("--split", help="write one split only, such as test")
    parser.add_argument("--half", action="store_true", help="for a model: round the weights to half precision")
    parser.add_argument(
        "--to", metavar="PATH", type=take_place, required=True, help="new folder; for a model a file, such as crnn.onnx"
    )
    parser.add_argument("--json", action="store_true", help="print one JSON object instead of the closing line")


def run(arguments: argparse.Namespace) -> int:
    """Write the dataset, or the model."""
    _require_fitting(arguments)
    started = time.perf_counter()
    if arguments.format == ONNX:
        size_bytes = export_model(arguments.path, arguments.to, half=arguments.half)
        facts: dict[str, object] = {"half": arguments.half, "size_bytes": size_bytes}
        wrote = f"{size_bytes / 1e6:,.1f} MB"
        reader = f"captcha_registry.load_model({json.dumps(str(arguments.to), ensure_ascii=False)}).read(pictures)"
    else:
        exported = export_dataset(
            load(arguments.path, repo=arguments.repo, split=arguments.split), arguments.format, arguments.to
        )
        facts = asdict(exported)
        wrote = f"{exported.num_samples:,} samples in {exported.num_files:,} files, {exported.size_bytes / 1e6:,.1f} MB"
        reader = describe_reader(arguments.format, str(arguments.to), next(iter(exported.splits)))
    if arguments.json:
        print(json.dumps({"path": str(arguments.to), "format": arguments.format} | facts, indent=2))
    else:
        print(f"{show_path(arguments.to)}: {wrote}, {time.perf_counter() - started:.1f} s")
        print(f"read it in Python: {reader}")
    return 0


def _require_fitting(arguments: argparse.Namespace) -> None:
    """Refuse a format, or an option, of the other kind of thing."""
    is_model, wants_model = (arguments.path / CARD_NAME).is_file(), arguments.format == ONNX
    if (
        wants_model
        and arguments.path.is_dir()
        and not any((arguments.path / name).is_file() for name in (CARD_NAME, MANIFEST_NAME))
    ):
        raise UserError(f"{arguments.path} holds no model: {CARD_NAME} is missing; name the folder that has it")
    if arguments.path.is_dir() and is_model != wants_model:
        expected = f"--format {ONNX}" if is_model else "a format for datasets"
        raise UserError(
            f"{arguments.path} is a {'model' if is_model else 'dataset'}; expected {expected}, not {arguments.format}"
        )
    unfitting = ("split", "repo") if wants_model else ("half",)
    if option := next((f"--{name}" for name in unfitting if getattr(arguments, name)), None):
        raise UserError(f"{option} goes with a {'dataset' if wants_model else 'model'}, not with --format {arguments.format}")
