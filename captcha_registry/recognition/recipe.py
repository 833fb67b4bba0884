"""How a model is trained: the params model behind `models.<name>`, shared by both families."""

from typing import Annotated, Literal

from pydantic import Field

from captcha_registry.params import Section


class Recipe(Section):
    """The training knobs of one preset."""

    batch_size: int = Field(ge=1, le=65_536)
    epochs: int = Field(ge=1, le=10_000)
    learning_rates: Annotated[tuple[Annotated[float, Field(gt=0, le=1)], ...], Field(min_length=1, strict=False)]
    warmup: float = Field(ge=0, le=0.9)
    final_rate: float = Field(ge=0, le=1)
    beta_2: float = Field(gt=0, lt=1)
    weight_decay: float = Field(ge=0, le=1)
    amsgrad: bool
    patience: int = Field(ge=1)
    precision: Literal["auto", "float32", "bfloat16"]


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
