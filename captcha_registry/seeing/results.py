"""What a model came to, read from the files that `train` and `evaluate` left; no framework is needed for that."""

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property, partial
from pathlib import Path

import pandas as pd

from captcha_registry.dataset.dataset import CaptchaDataset
from captcha_registry.dataset.explanations import EXPLANATIONS_NAME, read_explanations
from captcha_registry.dataset.folder import open_folder
from captcha_registry.dataset.index import INDEX_NAME
from captcha_registry.dataset.manifest import MANIFEST_NAME
from captcha_registry.dataset.readings import READINGS_NAME, describe_samples, read_readings
from captcha_registry.params import PARAMS_PATH
from captcha_registry.recognition.card import CARD_NAME, HISTORY_NAME, ModelCard, read_card
from captcha_registry.recognition.tables import pair_characters, worst_errors
from captcha_registry.seeing.metrics import read_epochs, read_metrics, read_names


@dataclass(frozen=True)
class ModelResult:
    """One model with its readings of the test split.

    Attributes:
        card: its model.json.
        readings: one row per test sample, with the columns of `dataset.readings`, and `right`.
        drawing: a hash of what decided how these samples were drawn.
        errors: one row per wrong reading whose causes somebody looked for, with `pair_text`, `pair_pixels` and `cured_by`.
        history: one row per epoch of its training.
        metrics: its file below `metrics/`.
    """

    name: str
    card: ModelCard
    readings: pd.DataFrame
    drawing: str
    errors: pd.DataFrame
    history: list[dict[str, str]]
    metrics: Mapping[str, float]

    @property
    def alphabet(self) -> str:
        """The characters that it reads."""
        return self.card.spec.alphabet

    @property
    def files(self) -> list[Path]:
        """The files that it was read from, and those that describe its dataset."""
        folder, dataset = Path("models") / self.name, Path("data") / self.card.dataset
        own = [folder / name for name in (CARD_NAME, HISTORY_NAME, READINGS_NAME, EXPLANATIONS_NAME)]
        others = [Path("metrics") / f"{self.name}.json", dataset / MANIFEST_NAME, dataset / INDEX_NAME]
        return [path for path in (*own, *others) if path.exists()]

    @property
    def wrong(self) -> pd.DataFrame:
        """Its wrong readings, those first of which it was most certain."""
        return worst_errors(self.readings, len(self.readings))

    @cached_property
    def characters(self) -> pd.DataFrame:
        """Each character of a label beside what was read, as `recognition.tables.pair_characters` has them."""
        return pair_characters(self.readings)

    @cached_property
    def dataset(self) -> CaptchaDataset | None:
        """The dataset that it was tested on, or None where that is not here, or is drawn otherwise by now."""
        root = Path("data") / self.card.dataset
        if not (root / MANIFEST_NAME).exists() or not (root / INDEX_NAME).exists():
            return None
        dataset = open_folder(root)
        return dataset if describe_samples(dataset.manifest)["drawing"] == self.drawing else None


def hash_md5(path: Path) -> str:
    """Hash a file as DVC does."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, partial(hashlib.md5, usedforsecurity=False)).hexdigest()


def load_results() -> list[ModelResult]:
    """Load the results of every model of params.yaml.

    Raises:
        UserError: a file of one is missing, or is not what it should be.
    """
    return [load_result(name) for name in read_names(PARAMS_PATH, "models")]


def load_result(name: str) -> ModelResult:
    """Load the result of one model.

    Raises:
        UserError: a file of it is missing, or is not what it should be.
    """
    folder = Path("models") / name
    readings, drawing = load_readings(folder)
    return ModelResult(
        name=name,
        card=read_card(folder),
        readings=readings,
        drawing=drawing,
        errors=_load_errors(folder / EXPLANATIONS_NAME),
        history=read_epochs(folder / HISTORY_NAME),
        metrics=read_metrics(Path("metrics") / f"{name}.json"),
    )


def load_readings(path: Path) -> tuple[pd.DataFrame, str]:
    """Load the readings of a model, and a hash of what decided how the samples were drawn.

    Raises:
        UserError: the file is missing, or is none.
    """
    table = read_readings(path)
    rows: pd.DataFrame = table.to_pandas()
    return rows.assign(right=rows["label"] == rows["text"]), (table.schema.metadata or {}).get(b"drawing", b"").decode()


def _load_errors(path: Path) -> pd.DataFrame:
    """Load what is known of each wrong reading; nothing, where nobody has looked for causes."""
    if path.exists():
        rows: pd.DataFrame = read_explanations(path).to_pandas()
        # Of a model with very many errors only some are explained.
        return rows[rows["cured_by"].notna()]
    return pd.DataFrame({"id": [], "pair_text": [], "pair_pixels": [], "cured_by": []})
