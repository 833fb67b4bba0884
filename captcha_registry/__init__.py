"""Reproducible captcha datasets: drawn from a seed, split, verified, published under versions, read by trained recognizers."""

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from captcha_registry.dataset.front_door import CaptchaDataset
    from captcha_registry.errors import UserError
    from captcha_registry.registry.loading import load

__all__ = ["CaptchaDataset", "UserError", "__version__", "load"]
__version__ = "0.1.0"


# The decorator has `dir` list what is offered. No function does it: whatever a package's `__init__.py` holds besides
# `__all__`, `__version__` and `__getattr__` is part of what stages compute (see `meaning`).
@lambda offer: globals().setdefault("__dir__", lambda: __all__) and offer
def __getattr__(name: str) -> object:
    """Import what the front door gives out when it is first asked for; every other module stays cheap to import."""
    match name:
        case "load":
            from captcha_registry.registry.loading import load  # noqa: PLC0415

            return load
        case "CaptchaDataset":
            from captcha_registry.dataset.front_door import CaptchaDataset  # noqa: PLC0415

            return CaptchaDataset
        case "UserError":
            from captcha_registry.errors import UserError  # noqa: PLC0415

            return UserError
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
