"""Reproducible captcha datasets: drawn from a seed, split, verified, published under versions, read by trained recognizers."""

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from captcha_registry.dataset.dataset import CaptchaDataset
    from captcha_registry.dataset.front_door import LoadedDataset
    from captcha_registry.errors import UserError
    from captcha_registry.recognition.model import CaptchaModel
    from captcha_registry.registry.loading import load, load_model, load_readings

__all__ = ["CaptchaDataset", "CaptchaModel", "LoadedDataset", "UserError", "__version__", "load", "load_model", "load_readings"]
__version__ = "0.1.0"


def __dir__() -> list[str]:
    """List the public names."""
    return __all__


def __getattr__(name: str) -> object:
    """Import what a public name needs when the name is first used, so that all other modules stay quick to import."""
    match name:
        case "load" | "load_model" | "load_readings":
            from captcha_registry.registry import loading  # noqa: PLC0415

            return getattr(loading, name)
        case "CaptchaModel":
            from captcha_registry.recognition.model import CaptchaModel  # noqa: PLC0415

            return CaptchaModel
        case "CaptchaDataset":
            from captcha_registry.dataset.dataset import CaptchaDataset  # noqa: PLC0415

            return CaptchaDataset
        case "LoadedDataset":
            from captcha_registry.dataset.front_door import LoadedDataset  # noqa: PLC0415

            return LoadedDataset
        case "UserError":
            from captcha_registry.errors import UserError  # noqa: PLC0415

            return UserError
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
