"""`captcha-registry predict`: read pictures with a trained model."""

import argparse
import csv
import json
import sys
import warnings
from contextlib import closing
from math import floor

from tqdm import tqdm

from captcha_registry.errors import show_path
from captcha_registry.machine import keep_freed_memory
from captcha_registry.recognition.predicting import Record, list_places, read_pictures
from captcha_registry.registry.loading import load_model

HELP = "read pictures with a trained model"
DESCRIPTION = (
    "Read the texts on pictures, and say how sure the model is: one record for each picture, in the order given. "
    "Confidences are rounded; one below 1 is never shown as 1. "
    "Exit code: 0 if all were read, 1 if some were not, 2 if there is no such model or an option is wrong."
)
EXAMPLES = """examples:
  captcha-registry predict picture.png --model digits
  captcha-registry predict captchas/ --model models/crnn --format csv > read.csv
  captcha-registry predict 'captchas/*.png' --model crnn@1.2.0 --repo URL
  find . -name '*.png' | captcha-registry predict - --model alnum --format jsonl
"""

# As many texts as a reading has; and decimals of a confidence, for programs and for people.
MOST_TEXTS, DIGITS, FEW_DIGITS = 3, 6, 4


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare what the command takes."""
    parser.add_argument(
        "places",
        metavar="PATH",
        nargs="+",
        help="picture, folder (and all folders in it), pattern, or - for a list of them on standard input, one per line or as "
        "`find -print0` writes it; links are followed",
    )
    parser.add_argument(
        "--model",
        required=True,
        help="digits or alnum, which come with the package | a folder such as models/crnn | an ONNX file that `export` wrote | "
        "NAME or NAME@VERSION of a published one",
    )
    parser.add_argument("--repo", metavar="URL", help="Git URL or path of the repository that publishes the model")
    parser.add_argument("--format", choices=FORMATS, default="text", help="text by default")
    parser.add_argument(
        "--top",
        type=int,
        choices=range(1, MOST_TEXTS + 1),
        help=f"how many of the most probable texts to print (default: 1, with jsonl {MOST_TEXTS})",
    )
    parser.add_argument(
        "--min-confidence", type=_probability, default=0.0, metavar="P", help="report a reading below this confidence as an error"
    )
    parser.add_argument("--resize", action="store_true", help="scale pictures of another size than the model's")


def _probability(text: str) -> float:
    try:
        value = float(text)
    except ValueError:
        value = -1.0
    if not 0 <= value <= 1:
        raise argparse.ArgumentTypeError(f"{text!r} is not a probability; expected a number from 0 to 1")
    return value


def run(arguments: argparse.Namespace) -> int:
    """Read the pictures; return 1 if some were not."""
    keep_freed_memory()
    model = load_model(arguments.model, repo=arguments.repo)
    top = arguments.top or (MOST_TEXTS if arguments.format == "jsonl" else 1)
    num_read = num_errors = 0
    bar = tqdm(desc="predict", unit=" pictures", disable=sys.stdout.isatty() or None)
    with warnings.catch_warnings(), bar:
        # What Pillow finds odd about a picture.
        warnings.filterwarnings("ignore", module=r"PIL\.")
        if arguments.format == "csv":
            others = [f"{name}_{n}" for n in range(2, top + 1) for name in ("text", "confidence")]
            _print_row(["path", "error", "text", "confidence", *others])
        with closing(read_pictures(model, list_places(arguments.places), resize=arguments.resize)) as batches:
            for batch in batches:
                for record in batch:
                    checked = _require_confidence(record, arguments.min_confidence)
                    num_errors += checked.error is not None
                    FORMATS[arguments.format](checked, top)
                sys.stdout.flush()
                num_read += len(batch)
                bar.update(len(batch))
    if not num_read:
        print("no picture was named", file=sys.stderr)
    return 1 if num_errors else 0


def _require_confidence(record: Record, least: float) -> Record:
    """Make an error of a reading that is not sure enough."""
    reading = record.reading
    if reading is None or reading.confidence >= least:
        return record
    confidence = floor(reading.confidence * 10**DIGITS) / 10**DIGITS
    return Record(record.path, error=f"read as {reading.text!r} with confidence {confidence:g}, below {least:g}")


def _round(confidence: float, digits: int) -> float:
    """Round a confidence, but what is not certain never to that."""
    return min(round(confidence, digits), 1 - 10**-digits) if confidence < 1 else 1.0


def _print_text(record: Record, top: int) -> None:
    texts = [
        f"{text or chr(39) * 2} {_round(confidence, FEW_DIGITS):.{FEW_DIGITS}f}" for text, confidence in record.list_texts(top)
    ]
    print(f"{show_path(record.path)}: {'  '.join(texts) or f'error: {record.error}'}")


def _print_object(record: Record, top: int) -> None:
    if record.reading is None:
        print(json.dumps({"path": record.path, "error": record.error}))
        return
    reading = record.reading
    characters = zip(reading.text, reading.characters, strict=True)
    told = {
        "path": record.path,
        "text": reading.text,
        "confidence": _round(reading.confidence, DIGITS),
        "characters": [{"char": character, "confidence": _round(confidence, DIGITS)} for character, confidence in characters],
        "alternatives": [{"text": text, "confidence": _round(confidence, DIGITS)} for text, confidence in record.list_texts(top)],
    }
    print(json.dumps(told))


def _print_columns(record: Record, top: int) -> None:
    texts = [value for text, confidence in record.list_texts(top) for value in (text, f"{_round(confidence, DIGITS):.{DIGITS}f}")]
    _print_row([record.path, record.error or "", *texts, *[""] * (2 * top - len(texts))])


def _print_row(values: list[str]) -> None:
    csv.writer(sys.stdout, lineterminator="\n").writerow(values)


FORMATS = {"text": _print_text, "jsonl": _print_object, "csv": _print_columns}
