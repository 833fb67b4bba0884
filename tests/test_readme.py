"""What the README says is true: files, targets and keys exist, and its numbers are those of the committed run."""

import json
import re
from pathlib import Path

import pytest

from captcha_registry.params import read_params

ROOT = Path(__file__).parent.parent
README = (ROOT / "README.md").read_text(encoding="utf-8")


def find_layout() -> list[str]:
    """List the paths in the tree below `## Layout`; an indented line is in the folder of the last line that is not."""
    tree = README.split("## Layout")[1].split("```")[1]
    paths, folder = [], ""
    for line in filter(None, tree.splitlines()):
        names = re.split(r"\s{2,}", line.strip())[0].split()
        folder = folder if line.startswith(" ") else names[0]
        paths += [folder + name if line.startswith(" ") else name for name in names]
    return paths


@pytest.mark.parametrize("path", find_layout())
def test_every_path_in_the_layout_exists(path: str) -> None:
    assert (ROOT / path).exists() or path in {"data/", "models/"}


@pytest.mark.parametrize("target", sorted(set(re.findall(r"\bmake ([a-z]+)", README))))
def test_every_make_target_exists(target: str) -> None:
    assert re.search(rf"^{target}:", (ROOT / "Makefile").read_text(), re.MULTILINE)


@pytest.mark.parametrize("link", sorted(set(re.findall(r"\]\(([^)#:]+)\)", README))))
def test_every_linked_file_exists(link: str) -> None:
    assert (ROOT / link).is_file()


@pytest.mark.parametrize("path", sorted(set(re.findall(r"`(captcha_registry/[a-z_/.]+)`", README))))
def test_every_named_module_exists(path: str) -> None:
    assert (ROOT / path).is_file()


def test_the_line_that_the_example_changes_is_in_params() -> None:
    old, new = re.findall(r"sed -i 's/([^/]+)/([^/]+)/' params.yaml", README)[0]
    assert old in (ROOT / "params.yaml").read_text()
    assert new == "recurrent: lstm"
    assert read_params(ROOT / "params.yaml")["models"]["crnn"]["recurrent"] == "gru"


@pytest.mark.parametrize("model", ["cnn", "crnn"])
def test_the_results_are_those_of_the_committed_run(model: str) -> None:
    metrics = json.loads((ROOT / f"metrics/{model}.json").read_text())
    (row,) = re.findall(rf"^\| {model} \|.*$", README, re.MULTILINE)
    interval = f"{metrics['exact_match_low']:.2%} to {metrics['exact_match_high']:.2%}"
    for shown in (
        f"{metrics['exact_match']:.2%}",
        interval,
        f"{metrics['character_accuracy']:.2%}",
        f"{metrics['parameters']:,}",
    ):
        assert shown in row


def test_what_is_said_of_errors_is_true_of_the_committed_run() -> None:
    rows = [line.split(",") for line in (ROOT / "metrics/plots/crnn/confusion.csv").read_text().splitlines()[1:]]
    misread = {f"{actual}{read}": int(count) for actual, read, count, *_ in rows if actual != read}
    assert re.search(r"Of the (\d+) characters that\s+the CRNN misreads, (\d+) are", README).groups() == (  # type: ignore[union-attr]
        str(sum(misread.values())),
        str(misread["0O"] + misread["O0"]),
    )
    folded = json.loads((ROOT / "metrics/crnn.json").read_text())["exact_match_0_is_o"]
    assert f"it reads {folded:.1%} of the pictures".replace("%", " %") in README
