"""The user's cache: fetched files, each under its own SHA-256, so that versions share what they have in common; and locks."""

import hashlib
import os
from pathlib import Path

import platformdirs


def find_cache_dir() -> Path:
    """Return `$CAPTCHA_REGISTRY_CACHE`, or the folder that the system has for caches."""
    return Path(os.environ.get("CAPTCHA_REGISTRY_CACHE") or platformdirs.user_cache_path("captcha-registry"))


def find_lock(work: str, folder: Path) -> Path:
    """Name the lock of some work on a folder: outside of it, as a lock that is deleted keeps nobody away."""
    locks = find_cache_dir() / "locks"
    locks.mkdir(parents=True, exist_ok=True)
    return locks / f"{work}-{hashlib.sha256(os.fsencode(folder.resolve())).hexdigest()[:16]}.lock"
