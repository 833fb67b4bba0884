"""How a model is trained: the params models behind `models.<name>`, read without a framework.

A model says its family, its dataset, and what differs from the defaults of the family, which are below.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, ClassVar, Literal, Self

from pydantic import Field, model_validator

from captcha_registry.dataset.spec import DatasetSpec
from captcha_registry.errors import UserError
from captcha_registry.params import PARAMS_PATH, ParamsError, Section, load_section, read_params, show_value

# Packages that decide what a training comes to.
TRAINING_PACKAGES = ("keras", "numpy", "tensorflow")


# What a preset trains with where a model says nothing else: `fast` as it has worked best here, `lab` as in the lab note.
FAST: Mapping[str, Any] = {
    "batch_size": 128,
    "fresh": 0.9,
    "emphasis": {"characters": "", "weight": 1, "until": 0.0},
    "epochs": 5,
    "learning_rates": [4.0e-3],
    "warmup": 0.1,
    "final_rate": 0.01,
    "beta_2": 0.98,
    "weight_decay": 0.02,
    "optimizer": "muon",
    "amsgrad": False,
    "patience": 5,
    "precision": "auto",
    "deterministic": False,
}
LAB: Mapping[str, Any] = {
    "batch_size": 64,
    "fresh": 0.0,
    "emphasis": {"characters": "", "weight": 1, "until": 0.0},
    "epochs": 5,
    "learning_rates": [1.0e-3],
    "warmup": 0.0,
    "final_rate": 1.0,
    "beta_2": 0.999,
    "weight_decay": 0.0,
    "optimizer": "adamw",
    "amsgrad": False,
    "patience": 5,
    "precision": "float32",
    "deterministic": False,
}
# Of the CRNN; the note draws all that it trains that on.
CRNN_FAST = {**FAST, "epochs": 14, "learning_rates": [3.0e-3]}
CRNN_LAB = {**LAB, "batch_size": 128, "fresh": 1.0, "epochs": 100, "learning_rates": [1.0e-3, 1.0e-4], "amsgrad": True}


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
    deterministic: bool

    @model_validator(mode="after")
    def _check_optimizer(self) -> Self:
        if self.amsgrad and self.optimizer != "adamw":
            raise ValueError(f"amsgrad is true and optimizer is {self.optimizer}; expected adamw, or amsgrad: false")
        return self


class ModelParams(Section):
    """What both families are told; `preset` picks the network and the recipe of the same name."""

    # What the recipes of the family are where a model does not say otherwise.
    recipes: ClassVar[Mapping[str, Mapping[str, Any]]] = {}

    family: Literal["cnn", "crnn"]
    dataset: str
    preset: Literal["fast", "lab"] = "fast"
    validation_size: float = Field(default=0.05, gt=0, lt=1)
    seed: int = Field(default=1, ge=0, lt=2**32)
    fast: Recipe
    lab: Recipe

    @model_validator(mode="before")
    @classmethod
    def _complete_recipes(cls, told: Any) -> Any:
        """Take what a recipe does not say from the family's; a key without a value, as `fast:` alone, says nothing."""
        if not isinstance(told, dict):
            return told
        given = {preset: {} if told.get(preset) is None else told[preset] for preset in cls.recipes}
        return told | {
            name: {**cls.recipes[name], **recipe} if isinstance(recipe, dict) else recipe for name, recipe in given.items()
        }

    @property
    def recipe(self) -> Recipe:
        """The recipe of the chosen preset."""
        return self.fast if self.preset == "fast" else self.lab

    @property
    def draws(self) -> bool:
        """Whether pictures are drawn while the model trains."""
        return self.recipe.fresh > 0

    @property
    def packages(self) -> tuple[str, ...]:
        """The packages that decide what a training comes to."""
        if not self.draws:
            return TRAINING_PACKAGES
        # numba takes most of a second to start.
        from captcha_registry.generation.drawing import DRAWING_PACKAGES  # noqa: PLC0415

        return (*TRAINING_PACKAGES, *DRAWING_PACKAGES)

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

    recipes: ClassVar[Mapping[str, Mapping[str, Any]]] = {"fast": FAST, "lab": LAB}

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

    recipes: ClassVar[Mapping[str, Mapping[str, Any]]] = {"fast": CRNN_FAST, "lab": CRNN_LAB}

    family: Literal["crnn"]
    recurrent: Literal["gru", "lstm"] = "gru"


def load_model_params(name: str, path: Path = PARAMS_PATH) -> CnnParams | CrnnParams:
    """Read `models.<name>`, which the key `family` in it gives its form."""
    models = read_params(path).get("models")
    family = models[name].get("family") if isinstance(models, dict) and isinstance(models.get(name), dict) else None
    if family not in (None, "cnn", "crnn"):
        raise ParamsError(f"{path}: models.{name}.family is {show_value(family)}; expected one of cnn, crnn")
    if family == "crnn":
        return load_section(CrnnParams, f"models.{name}", path)
    return load_section(CnnParams, f"models.{name}", path)
