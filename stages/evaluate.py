"""Read the test split with a trained model and score it: `python -m stages.evaluate cnn`.

Reads `models/<name>/` and the dataset that its card names; writes `metrics/<name>.json`, the card `models/<name>/README.md`
and, below `metrics/plots/<name>/`, `learning_curves.csv`, `confusion.csv`, `slices.csv` and `errors.png`.
"""

import argparse
import json
import time
from pathlib import Path

from captcha_registry.dataset.folder import open_folder
from captcha_registry.errors import CommandLine, report_errors
from captcha_registry.seeing.plots import save_contact_sheet
from captcha_registry.workspace import write_atomically

NUM_ERRORS_SHOWN = 30


def main(name: str) -> None:
    """Evaluate the model `name`."""
    # TensorFlow takes seconds to start, which a mistake on the command line need not wait for.
    from captcha_registry.describing.model_card import write_model_card  # noqa: PLC0415
    from captcha_registry.recognition.reading import read_split  # noqa: PLC0415
    from captcha_registry.recognition.scoring import compute_metrics, find_confusions, score_slices, worst_errors  # noqa: PLC0415
    from captcha_registry.recognition.trained import load_model, read_history  # noqa: PLC0415

    started = time.perf_counter()
    network, card = load_model(Path("models") / name)
    dataset = open_folder(Path("data") / card.dataset)
    readings = read_split(network, card, dataset, "test")

    metrics = compute_metrics(readings, card.spec.alphabet) | {"parameters": card.num_parameters}
    plots_dir = Path("metrics/plots") / name
    tables = {
        "learning_curves": read_history(Path("models") / name),
        "confusion": find_confusions(readings),
        "slices": score_slices(readings, card.spec.alphabet),
    }
    for table, rows in tables.items():
        write_atomically(plots_dir / f"{table}.csv", rows.to_csv(index=False).encode())
    worst = worst_errors(readings, NUM_ERRORS_SHOWN)
    pictures = [sample.image for sample in dataset.split("test")[worst.index.to_numpy()].read_samples()]
    captions = [f"{label} read {text or '-'}" for label, text in zip(worst["label"], worst["text"], strict=True)]
    save_contact_sheet(plots_dir / "errors.png", pictures, captions)
    write_atomically(Path("models") / name / "README.md", write_model_card(name, card, metrics).encode())
    write_atomically(Path("metrics") / f"{name}.json", f"{json.dumps(metrics, indent=2)}\n".encode())

    seconds = time.perf_counter() - started
    print(f"{name}: exact match {metrics['exact_match']:.4f} on {metrics['test_samples']:,} test samples, {seconds:.0f} s")


if __name__ == "__main__":
    parser = CommandLine(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("name", help="a key below `models` in params.yaml")
    with report_errors():
        main(parser.parse_args().name)
