"""Places that a person names for what is to be written."""

import re
from pathlib import Path

from captcha_registry.errors import UserError
from captcha_registry.machine import expand_home

_URL = re.compile(r"[a-z][a-z0-9+.-]+://", re.IGNORECASE)


def take_place(text: str) -> Path:
    """Make a path of what a person typed for a file or folder that is to be written.

    Raises:
        UserError: it is empty, or a URL, of which a folder called `https:` would come.
    """
    if _URL.match(text):
        raise UserError(f"{text} is a URL; expected a path on this machine: write there first, then copy it to the URL")
    return expand_home(text)
