"""Check a dataset to the last byte, then describe it: `python -m stages.describe digits`.

Reads `data/<name>/`; writes `metrics/<name>.json`, `metrics/plots/<name>/samples.png` and, below `data/<name>/`, the card
`README.md` and `croissant.json`. The run fails if the dataset differs from its manifest.
"""

import argparse
import json
import time
from pathlib import Path

from captcha_registry.dataset.folder import open_folder
from captcha_registry.dataset.manifest import count_samples
from captcha_registry.dataset.verify import Problem, advise_cure, verify_dataset
from captcha_registry.describing.card import write_dataset_card
from captcha_registry.describing.croissant import write_croissant
from captcha_registry.describing.statistics import summarize_dataset
from captcha_registry.ends import report_errors
from captcha_registry.errors import CommandLine, UserError
from captcha_registry.generation.executors import open_local
from captcha_registry.params import check_names
from captcha_registry.seeing.plots import save_contact_sheet
from captcha_registry.workspace import write_atomically

MAX_PROBLEMS_SHOWN = 10
NUM_PICTURES = 12


def check_dataset(root: Path) -> None:
    """Fail on anything that is wrong with the dataset, with a progress bar."""
    with open_local(count_samples(root)) as executor:
        problems = verify_dataset(root, "deep", executor)
    if problems:
        raise UserError(explain_problems(root, problems))


def explain_problems(root: Path, problems: list[Problem]) -> str:
    """Name the first problems of a dataset, after what to do about them."""
    cure = advise_cure(root, problems)
    if not cure:
        return str(problems[0])
    more = [f"... and {len(problems) - MAX_PROBLEMS_SHOWN:,} more"] if len(problems) > MAX_PROBLEMS_SHOWN else []
    return "\n".join([f"{root} is not as its manifest says; {cure}:", *map(str, problems[:MAX_PROBLEMS_SHOWN]), *more])


def main(name: str) -> None:
    """Check and describe the dataset `name`."""
    started = time.perf_counter()
    check_names([name])
    check_dataset(Path("data") / name)
    dataset = open_folder(Path("data") / name)

    metrics = summarize_dataset(dataset)
    pictures = list(dataset[:NUM_PICTURES].read_samples())
    samples_path = Path("metrics/plots") / name / "samples.png"
    save_contact_sheet(samples_path, [s.image for s in pictures], [s.label for s in pictures])
    write_atomically(dataset.root / "README.md", write_dataset_card(dataset.manifest, metrics).encode())
    write_atomically(dataset.root / "croissant.json", write_croissant(dataset.manifest).encode())
    write_atomically(Path("metrics") / f"{name}.json", f"{json.dumps(metrics, indent=2)}\n".encode())
    twins = (
        f"; {num_twins:,} of them show a picture that an earlier one shows"
        if (num_twins := metrics["duplicate_pictures"])
        else ""
    )
    print(f"{name}: {metrics['samples']:,} samples checked, nothing wrong{twins}, {time.perf_counter() - started:.0f} s")


if __name__ == "__main__":
    parser = CommandLine(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("name", help="a key below `datasets` in params.yaml")
    with report_errors():
        main(parser.parse_args().name)
