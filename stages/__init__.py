"""One thin file per DVC stage, run as `python -m stages.<name>` from the project's top folder."""

import shlex
import sys
from importlib.util import find_spec

from captcha_registry.errors import prepare_process

if missing := [name for name in ("captcha", "keras", "numba", "tensorflow", "zlib_ng") if find_spec(name) is None]:
    # Raised, as another wording of what is raised runs no stage again.
    raise SystemExit(
        f"error: the pipeline needs {', '.join(missing)}, not installed for {sys.executable}: "
        f"run `make repro`, or first `{shlex.join([sys.executable, '-m', 'pip', 'install', '--editable', '.[all]'])}`"
    )
# Only where a stage is looked up to be run, as its imports take seconds; who imports one keeps a process as it is.
if sys.argv[0] == "-m":
    prepare_process()
