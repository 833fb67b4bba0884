"""Reproducible captcha datasets: drawn from a seed, split, verified, published under versions, read by trained recognizers."""

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from captcha_registry.dataset.dataset import CaptchaDataset
    from captcha_registry.registry.loading import load

__all__ = ["CaptchaDataset", "__version__", "load"]
__version__ = "0.1.0"


def __getattr__(name: str) -> object:
    """Import what the front door gives out when it is first asked for; every other module stays cheap to import."""
    if name == "load":
        from captcha_registry.registry.loading import load  # noqa: PLC0415

        return load
    if name == "CaptchaDataset":
        from captcha_registry.dataset.dataset import CaptchaDataset  # noqa: PLC0415

        return CaptchaDataset
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
