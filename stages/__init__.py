"""One thin file per DVC stage, run as `python -m stages.<name>` from the project's top folder."""

import shlex
import sys
from importlib.util import find_spec

if missing := [name for name in ("captcha", "keras", "numba", "tensorflow", "zlib_ng") if find_spec(name) is None]:
    sys.exit(
        f"error: the pipeline needs {', '.join(missing)}, not installed for {sys.executable}: "
        f"run `make repro`, or first `{shlex.join([sys.executable, '-m', 'pip', 'install', '--editable', '.[all]'])}`"
    )
