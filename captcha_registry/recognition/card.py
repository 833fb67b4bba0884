"""What has to be known of a trained model to read with it: `model.json`, which needs no framework."""

from collections.abc import Sequence
from pathlib import Path
from typing import Literal

from pydantic import ValidationError

from captcha_registry.dataset.spec import DatasetSpec
from captcha_registry.errors import MAKE_OR_PULL, UserError
from captcha_registry.params import Section, explain_errors

CARD_NAME, NETWORK_NAME, HISTORY_NAME = "model.json", "model.keras", "history.csv"


class ModelCard(Section):
    """What has to be known to read with a model, or to train it again.

    Attributes:
        fresh: share of what it was trained on that was drawn for it, and is in no dataset.
        precision: in which it was trained; not in the cards of older models, as `num_threads`.
        num_threads: for one operation; another number adds up in another order, and comes to other weights.
    """

    family: Literal["cnn", "crnn"]
    preset: str
    dataset: str
    spec: DatasetSpec
    dataset_id: str
    num_parameters: int
    model_sha256: str
    fresh: float = 0.0
    precision: str | None = None
    num_threads: int | None = None


def read_card(folder: Path) -> ModelCard:
    """Read the card of the model in a folder.

    Raises:
        UserError: it is missing, or not valid.
    """
    path = folder / CARD_NAME
    try:
        return ModelCard.model_validate_json(read_part(path))
    except ValidationError as error:
        problems = "; ".join(explain_errors(error, ModelCard))
        raise UserError(
            f"{path} is not a valid model card; restore it, with `dvc checkout` if DVC has it, or fetch it again: {problems}"
        ) from error


def require_shapes(card: ModelCard, taken: Sequence[int], given: Sequence[int]) -> None:
    """Make sure that a network takes the pictures, and gives the logits, that its card speaks of; shapes without the batch.

    Raises:
        ValueError: it does not, so that the card is another network's.
    """
    spec = card.spec
    steps, classes = (spec.length, len(spec.alphabet)) if card.family == "cnn" else (given[0], len(spec.alphabet) + 1)
    found, expected = ([list(taken), list(given)], [[spec.height, spec.width, 3], [steps, classes]])
    if found != expected:
        raise ValueError(f"it maps {found[0]} to {found[1]}; {CARD_NAME} has {expected[0]} to {expected[1]}")


def read_part(path: Path) -> bytes:
    """Read a file of a trained model.

    Raises:
        UserError: it is missing.
    """
    try:
        return path.read_bytes()
    except FileNotFoundError:
        raise UserError(f"{path} is missing: {MAKE_OR_PULL}; if it was fetched, fetch it again") from None
