"""One thin file per DVC stage, run as `python -m stages.<name>` from the project's top folder."""

import os
import shlex
import signal
import sys
import threading
import time
from importlib.util import find_spec

from captcha_registry.stopping import heed_signals

# Only where a stage is looked up to be run, as its imports take seconds; who imports one keeps a process as it is.
_IS_RUN = sys.argv[0] == "-m"
if _IS_RUN:
    heed_signals()

from captcha_registry.ends import prepare_process  # noqa: E402 - a tenth of a second

_PAUSE_SECONDS = 0.2

_NEEDED = ("captcha", "keras", "numba", "psutil", "tensorflow", "vl_convert", "zlib_ng")

if missing := [name for name in _NEEDED if find_spec(name) is None]:
    # Raised, as another wording of what is raised runs no stage again.
    raise SystemExit(
        f"error: the pipeline needs {', '.join(missing)}, not installed for {sys.executable}: "
        f"run `make repro`, or first `{shlex.join([sys.executable, '-m', 'pip', 'install', '--editable', '.[all]'])}`"
    )


def _end_with_dvc() -> None:
    """Stop this process when DVC, which runs it, has ended: DVC hands on no signal, and nobody would note the results."""
    # Not at the top, as the line on what is not installed comes first.
    import psutil  # noqa: PLC0415

    top = psutil.Process()
    try:
        # DVC is above what it has told which stage this is: this process, and perhaps a shell.
        while (dvc := top.parent()) and "DVC_STAGE" in dvc.environ():
            top = dvc
        while dvc and top.ppid() == dvc.pid:
            time.sleep(_PAUSE_SECONDS)
    except psutil.AccessDenied:
        # Somebody else's.
        return
    except psutil.NoSuchProcess:
        pass
    os.kill(os.getpid(), signal.SIGTERM)


if _IS_RUN:
    prepare_process()
    if "DVC_STAGE" in os.environ:
        threading.Thread(target=_end_with_dvc, daemon=True).start()
