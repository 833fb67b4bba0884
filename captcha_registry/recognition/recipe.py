"""How a model is trained: the params models behind `models.<name>`, read without a framework."""

from pathlib import Path
from typing import Annotated, Literal, Self

from pydantic import Field, model_validator

from captcha_registry.dataset.spec import DatasetSpec
from captcha_registry.errors import UserError
from captcha_registry.params import PARAMS_PATH, ParamsError, Section, load_section, read_params

# Packages that decide what a training comes to.
TRAINING_PACKAGES = ("keras", "numpy", "tensorflow")


class Emphasis(Section):
    """Characters that fresh pictures show `weight` times as often as others, until that share of a phase's steps is done."""

    characters: str
    weight: int = Field(ge=1, le=100)
    until: float = Field(ge=0, le=1)

    def repeat_in(self, alphabet: str) -> str:
        """Repeat these characters in an alphabet, as often as they are to be drawn."""
        return alphabet + "".join(c for c in alphabet if c in self.characters) * (self.weight - 1)


class Recipe(Section):
    """The training knobs of one preset."""

    batch_size: int = Field(ge=1, le=65_536)
    fresh: float = Field(ge=0, le=1)
    emphasis: Emphasis
    epochs: int = Field(ge=1, le=10_000)
    learning_rates: Annotated[tuple[Annotated[float, Field(gt=0, le=1)], ...], Field(min_length=1, strict=False)]
    warmup: float = Field(ge=0, le=0.9)
    final_rate: float = Field(ge=0, le=1)
    beta_2: float = Field(gt=0, lt=1)
    weight_decay: float = Field(ge=0, le=1)
    optimizer: Literal["adamw", "muon"]
    amsgrad: bool
    patience: int = Field(ge=1)
    precision: Literal["auto", "float32", "bfloat16"]

    @model_validator(mode="after")
    def _check_optimizer(self) -> Self:
        if self.amsgrad and self.optimizer != "adamw":
            raise ValueError(f"amsgrad is true and optimizer is {self.optimizer}; expected adamw, or amsgrad: false")
        return self


class ModelParams(Section):
    """What both families are told; `preset` picks the network and the recipe of the same name."""

    family: str
    dataset: str
    preset: Literal["fast", "lab"]
    validation_size: float = Field(gt=0, lt=1)
    seed: int = Field(ge=0, lt=2**32)
    fast: Recipe
    lab: Recipe

    @property
    def recipe(self) -> Recipe:
        """The recipe of the chosen preset."""
        return self.fast if self.preset == "fast" else self.lab

    @property
    def draws(self) -> bool:
        """Whether pictures are drawn while the model trains."""
        return self.recipe.fresh > 0

    @property
    def unused_modules(self) -> tuple[str, ...]:
        """What the names of modules begin with that a training imports to draw, if this one draws nothing."""
        return () if self.draws else ("captcha_registry.generation",)

    def require_known_characters(self, spec: DatasetSpec) -> None:
        """Make sure that the texts of a dataset can hold the characters that are to be drawn more often.

        Raises:
            UserError: one is not in the alphabet.
        """
        characters = self.recipe.emphasis.characters
        if unknown := sorted({c for c in characters if c not in spec.alphabet}):
            raise UserError(
                f"{self.preset}.emphasis.characters is {characters!r}; the alphabet {spec.alphabet!r} does not hold "
                f'{", ".join(map(repr, unknown))}: take characters of it, or "" for none'
            )

    @property
    def family_module(self) -> str:
        """The module that builds networks of the family."""
        return f"captcha_registry.recognition.{self.family}"


class CnnParams(ModelParams):
    """The params of a CNN."""

    family: Literal["cnn"]

    def require_one_length(self, spec: DatasetSpec) -> None:
        """Make sure that the texts of a dataset are such as a CNN reads.

        Raises:
            UserError: they differ in length.
        """
        if spec.min_length != spec.max_length:
            raise UserError(
                "a cnn has one output per position and reads texts of one length; these have "
                f"{spec.described_length} characters: use the family crnn"
            )


class CrnnParams(ModelParams):
    """The params of a CRNN."""

    family: Literal["crnn"]
    recurrent: Literal["gru", "lstm"]


def load_model_params(name: str, path: Path = PARAMS_PATH) -> CnnParams | CrnnParams:
    """Read `models.<name>`, which the key `family` in it gives its form."""
    models = read_params(path).get("models")
    family = models[name].get("family") if isinstance(models, dict) and isinstance(models.get(name), dict) else None
    if family not in (None, "cnn", "crnn"):
        raise ParamsError(f"{path}: models.{name}.family is {family!r}; expected one of cnn, crnn")
    if family == "crnn":
        return load_section(CrnnParams, f"models.{name}", path)
    return load_section(CnnParams, f"models.{name}", path)
