"""Read the test split with a trained model and score it: `python -m stages.evaluate cnn`.

Reads `models/<name>/` and the dataset that its card names. Below `models/<name>/` it writes `readings.parquet`, what the model
reads on every sample; `errors.parquet`, the causes of its errors; `model.onnx`, the network for onnxruntime; `SHA256SUMS`, the
checksum of that file; and the card, `README.md`. It also writes `metrics/<name>.json` and, below `metrics/plots/<name>/`, the
tables of `recognition.tables`, `learning_curves.csv`, `errors.png` and `steps.png`.
"""

import argparse
import json
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc
from PIL import Image

from captcha_registry.dataset.dataset import CaptchaDataset
from captcha_registry.dataset.explanations import EXPLANATIONS_NAME, write_explanations
from captcha_registry.dataset.folder import open_folder
from captcha_registry.dataset.readings import READINGS_NAME
from captcha_registry.ends import report_errors
from captcha_registry.errors import CommandLine, UserError
from captcha_registry.machine import keep_freed_memory, tell_of_kill
from captcha_registry.params import check_names
from captcha_registry.recognition.onnx_network import write_onnx
from captcha_registry.seeing.plots import Steps, draw_errors, draw_steps, encode_sheet, open_captchas
from captcha_registry.workspace import write_atomically

# From pictures `(batch, height, width, 3)` to the steps of each, see `recognition.steps`.
FindSteps = Callable[[npt.NDArray[np.uint8]], Sequence[Steps]]

NUM_ERRORS_SHOWN = 30
# Of the first samples, and of the worst errors.
NUM_WORDS_SHOWN = 3


def write_tables(folder: Path, readings: pd.DataFrame) -> None:
    """Write where the model is right and where it errs."""
    from captcha_registry.recognition import tables  # noqa: PLC0415

    pairs = tables.pair_characters(readings)
    found = {
        "ink": tables.score_by_ink(readings),
        "character": tables.score_by_character(pairs),
        "position": tables.score_by_position(pairs),
        "confidence": tables.score_by_confidence(readings),
        "confusion": tables.count_confusions(pairs),
    }
    for name, rows in found.items():
        write_atomically(folder / f"{name}.csv", rows.to_csv(index=False).encode())


def write_pictures(folder: Path, readings: pd.DataFrame, test: CaptchaDataset, find_steps: FindSteps) -> None:
    """Draw the worst errors, and what the model sees at each step of a few words."""
    from captcha_registry.recognition.tables import align_texts, worst_errors  # noqa: PLC0415

    worst = worst_errors(readings, NUM_ERRORS_SHOWN)
    pairs = [align_texts(label, text) for label, text in zip(worst["label"], worst["text"], strict=True)]
    sheet = draw_errors(open_pictures(test, worst), pairs, worst["confidence"].tolist())
    write_atomically(folder / "errors.png", encode_sheet(sheet))

    words = pd.concat([readings.head(NUM_WORDS_SHOWN), worst.head(NUM_WORDS_SHOWN)])
    images = open_pictures(test, words)
    captions = [f"{label} read as {text or 'nothing'}" for label, text in zip(words["label"], words["text"], strict=True)]
    write_atomically(
        folder / "steps.png",
        encode_sheet(draw_steps(images, captions, find_steps(np.stack([np.asarray(image) for image in images])))),
    )


def open_pictures(test: CaptchaDataset, readings: pd.DataFrame) -> list[Image.Image]:
    """Open the pictures that some readings are of."""
    return open_captchas([sample.image for sample in test[readings.index.to_numpy()].read_samples()])


def explain(
    name: str, dataset: CaptchaDataset, wrong: pa.Table, read: Callable[[npt.NDArray[np.uint8]], list[str]]
) -> dict[str, float | int]:
    """Write what explains the errors of a model, and return its sums.

    Of a dataset that cannot be drawn again here, such as one that another version of the project drew, nothing is explained.
    """
    # What is compiled takes a second to load.
    from captcha_registry.generation.drawing import make_drawer  # noqa: PLC0415
    from captcha_registry.recognition.explaining import explain_errors, leave_unexplained, sum_up_explanations  # noqa: PLC0415

    try:
        drawer = make_drawer(dataset.manifest, "draw the dataset again")
    except UserError as error:
        print(f"warning: no error of {name} is explained: {error}", file=sys.stderr)
        explained = leave_unexplained(wrong["id"].to_pylist())
    else:
        explained = explain_errors(wrong, drawer, read)
    write_explanations(Path("models") / name / EXPLANATIONS_NAME, explained)
    return sum_up_explanations(explained, wrong)


def main(name: str) -> None:
    """Evaluate the model `name`."""
    check_names([name])
    keep_freed_memory()
    # TensorFlow takes seconds to start, which a mistake on the command line need not wait for.
    from captcha_registry.describing.model_card import write_model_card  # noqa: PLC0415
    from captcha_registry.recognition.onnx_conversion import convert_model  # noqa: PLC0415
    from captcha_registry.recognition.reading import open_model, read_split  # noqa: PLC0415
    from captcha_registry.recognition.readings import write_readings  # noqa: PLC0415
    from captcha_registry.recognition.scoring import compute_metrics  # noqa: PLC0415
    from captcha_registry.recognition.steps import list_steps  # noqa: PLC0415
    from captcha_registry.recognition.trained import read_history  # noqa: PLC0415

    def find_steps(images: npt.NDArray[np.uint8]) -> Sequence[Steps]:
        return list_steps(card.family, model.find_logits(images), card.spec.alphabet)

    started = time.perf_counter()
    folder = Path("models") / name
    model = open_model(folder, name)
    card = model.card
    dataset = open_folder(Path("data") / card.dataset)
    write_onnx(folder, convert_model(folder))
    write_readings(folder / READINGS_NAME, read_split(model, dataset, "test"))
    test = dataset.split("test").with_readings(folder)
    readings = test.index.to_pandas()

    wrong = test.index.filter(pc.not_equal(test.index["label"], test.index["text"]))
    explained = explain(name, dataset, wrong, lambda images: [reading.text for reading in model.read_batch(images)])

    metrics = compute_metrics(readings, card.spec.alphabet) | {"parameters": card.num_parameters} | explained
    plots_dir = Path("metrics/plots") / name
    write_tables(plots_dir, readings)
    write_pictures(plots_dir, readings, test, find_steps)
    write_atomically(plots_dir / "learning_curves.csv", read_history(folder).to_csv(index=False).encode())
    write_atomically(folder / "README.md", write_model_card(name, card, metrics).encode())
    write_atomically(Path("metrics") / f"{name}.json", f"{json.dumps(metrics, indent=2)}\n".encode())

    seconds = time.perf_counter() - started
    print(f"{name}: exact match {metrics['exact_match']:.4f} on {metrics['test_samples']:,} test samples, {seconds:.0f} s")


if __name__ == "__main__":
    parser = CommandLine(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("name", help="a key below `models` in params.yaml")
    with report_errors(), tell_of_kill("the evaluation"):
        main(parser.parse_args().name)
