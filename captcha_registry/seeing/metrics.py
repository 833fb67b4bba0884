"""What is shown of plain files that people and Git may have changed: names in params.yaml, metrics and histories."""

import csv
import json
from io import StringIO
from pathlib import Path
from typing import Any, NoReturn

from captcha_registry.errors import UserError
from captcha_registry.params import read_params, show_value
from captcha_registry.recognition.card import read_part

# Where the report of a run is.
REPORT_PATH = Path("models/report.html")
# Columns of a history, of which each epoch has a number.
SHOWN = ("loss", "exact_match", "val_loss", "val_exact_match")
_CURE = "run `dvc repro`, or take the committed one with `git checkout HEAD -- {path}`"


class Metrics(dict[str, Any]):
    """The content of a metrics file."""

    def __init__(self, path: Path, content: dict[str, Any]) -> None:
        """Take what was read from a file."""
        super().__init__(content)
        self.path = path

    def __missing__(self, key: str) -> Any:
        """Say that the file was damaged, or written by an older release."""
        raise UserError(f"{self.path} has no {key}; it holds {', '.join(self) or 'nothing'}: {_CURE.format(path=self.path)}")


def read_names(path: Path, section: str) -> list[str]:
    """Read the names of all datasets or all models of a params file.

    Raises:
        UserError: the file is missing, or the section holds no names.
    """
    found = read_params(path).get(section)
    if not isinstance(found, dict):
        raise UserError(f"{path}: {section} is {show_value(found)}; expected names with their settings, or {{}} for none")
    return [str(name) for name in found]


def read_metrics(path: Path) -> Metrics:
    """Read the metrics of a dataset or a model.

    Raises:
        UserError: the file is missing, or holds no JSON object.
    """
    try:
        content = json.loads(read_part(path), parse_constant=_refuse)
    except (ValueError, RecursionError) as error:
        raise UserError(f"{path} is not valid JSON ({error}): {_CURE.format(path=path)}") from None
    if not isinstance(content, dict):
        raise UserError(f"{path} holds a {type(content).__name__}; expected an object: {_CURE.format(path=path)}")
    return Metrics(path, content)


def _refuse(constant: str) -> NoReturn:
    """Refuse NaN and infinity, which JSON does not have, and no metric is."""
    raise ValueError(f"{constant} is no number")


def read_epochs(path: Path) -> list[dict[str, str]]:
    """Read the history of a training, one row per epoch.

    Raises:
        UserError: the file is missing, or lacks a number that is shown.
    """
    rows = list(csv.DictReader(StringIO(read_part(path).decode(errors="replace"), newline="")))
    try:
        for row in rows:
            for column in SHOWN:
                float(row[column])
    except (KeyError, TypeError, ValueError):
        rows = []
    if not rows:
        raise UserError(
            f"{path} lacks epochs with a number for each of {', '.join(SHOWN)}: run `dvc checkout {path}`, or `dvc repro`"
        )
    return rows
