"""What the front matter of all cards has in common."""

import json
import re


def quote_name(name: str) -> str:
    """Write a name as YAML, in quotes where it may be read as a number, a date, a truth or nothing, as `2026` and `no` are."""
    return json.dumps(name) if re.match(r"\d|(y|yes|n|no|true|false|on|off|null)$", name) else name
