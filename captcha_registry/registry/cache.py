"""Where fetched files stay, each under its own SHA-256, so that versions share what they have in common."""

import os
from pathlib import Path

import platformdirs


def find_cache_dir() -> Path:
    """Return `$CAPTCHA_REGISTRY_CACHE`, or the folder that the system has for caches."""
    return Path(os.environ.get("CAPTCHA_REGISTRY_CACHE") or platformdirs.user_cache_path("captcha-registry"))
