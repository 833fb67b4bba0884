"""What a run came to, in a table of 80 columns: `python -m captcha_registry.seeing.summary`.

Reads the metrics of what params.yaml names, and what Git says of them; says where the pictures are, and what is left to commit.
"""

from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path

from captcha_registry.ends import prepare_process, report_errors
from captcha_registry.errors import UserError
from captcha_registry.params import PARAMS_PATH
from captcha_registry.recognition.card import read_card
from captcha_registry.registry.git import run_git
from captcha_registry.seeing.metrics import REPORT_PATH, Metrics, read_metrics, read_names

METRICS_DIR = Path("metrics")
# What a run changes of what Git tracks, with the params that it ran with.
TRACKED = ("data", "dvc.lock", "dvc.yaml", "metrics", "models", "params.yaml")


def main(root: Path) -> None:
    """Print the results of the project in a folder."""
    names = (read_names(root / PARAMS_PATH, section) for section in ("datasets", "models"))
    print("\n".join(format_results(root, *(_read_metrics(root, each) for each in names))))


def _read_metrics(root: Path, names: Iterable[str]) -> dict[str, Metrics]:
    """Read the metrics of those that have any; what was removed from params.yaml may have left some, too."""
    paths = {name: root / METRICS_DIR / f"{name}.json" for name in sorted(names)}
    return {name: read_metrics(path) for name, path in paths.items() if path.is_file()}


def format_results(root: Path, datasets: dict[str, Metrics], models: dict[str, Metrics]) -> Iterator[str]:
    """Lay out the metrics of datasets and models, and say what to look at and to do."""
    rows = (_describe_dataset(name, metrics) for name, metrics in datasets.items())
    yield from _lay_out(("dataset", "samples", "train", "test", "size", "texts"), rows, num_names=1)
    yield ""
    if models:
        rows = (_describe_model(name, read_card(root / "models" / name).dataset, metrics) for name, metrics in models.items())
        yield from _lay_out(("model", "dataset", "read right", "95 % interval", "characters", "parameters"), rows, num_names=2)
        yield "Read right: share of the test texts with every character right."
        yield ""
    if (report := root / REPORT_PATH).is_file():
        yield f"Report, for a browser: {report.relative_to(root)}"
    yield "Pictures:"
    pictures = (
        path for name in sorted([*datasets, *models]) for path in sorted((root / METRICS_DIR / "plots" / name).glob("*.png"))
    )
    yield from (f"  {path.relative_to(root)}" for path in pictures)
    yield ""
    yield _say_what_to_commit(root)


def _describe_dataset(name: str, metrics: Metrics) -> list[str]:
    counts = (f"{metrics[key]:,}" for key in ("samples", "train_samples", "test_samples"))
    return [name, *counts, f"{metrics['size_bytes'] / 1e6:,.0f} MB", f"{metrics['labels']:,}"]


def _describe_model(name: str, dataset: str, metrics: Metrics) -> list[str]:
    low, high = metrics["exact_match_low"], metrics["exact_match_high"]
    shares = (f"{metrics['exact_match']:.2%}", f"{low:.2%} to {high:.2%}", f"{metrics['character_accuracy']:.2%}")
    return [name, dataset, *shares, f"{metrics['parameters']:,}"]


def _lay_out(head: Sequence[str], rows: Iterable[Sequence[str]], num_names: int) -> Iterator[str]:
    """Align columns: the first ones, which are names, to the left, numbers to the right."""
    table = [head, *rows]
    widths = [max(map(len, column)) for column in zip(*table, strict=True)]
    for row in table:
        cells = [
            f"{cell:{'<' if place < num_names else '>'}{width}}"
            for place, (cell, width) in enumerate(zip(row, widths, strict=True))
        ]
        yield "  ".join(cells)


def _say_what_to_commit(root: Path) -> str:
    """Ask Git which of these results it does not have yet."""
    command = ("status", "--porcelain", "--untracked-files=normal", "--")
    try:
        names = [name for name in TRACKED if (root / name).exists() and run_git(root, *command, name)]
    except UserError as error:
        return f"Whether these results are committed is not known ({error})."
    if not names:
        return "Git has these results already: nothing is left to commit."
    return f"To keep these results: git add {' '.join(names)} && git commit"


if __name__ == "__main__":
    prepare_process()
    with report_errors():
        main(Path())
