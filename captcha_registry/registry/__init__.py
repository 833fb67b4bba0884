"""Published versions, found by tags that GTO reads; `GTO_*` variables, which belong to its users, change nothing here."""

import os

_hidden = {name: os.environ.pop(name) for name in list(os.environ) if name.startswith("GTO_")}
try:
    # It reads them when it is imported, and cannot start with some.
    import gto.tag  # noqa: F401
finally:
    os.environ.update(_hidden)
