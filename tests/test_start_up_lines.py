"""TensorFlow's start-up lines are left out of standard error, and nothing else is, however a process ends."""

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from conftest import HANG_SECONDS, ROOT

from captcha_registry.dataset.dataset import CaptchaDataset

# What TensorFlow writes at its start, in the two forms in which it has written notes.
NOTES = """WARNING: All log messages before absl::InitializeLog() is called are written to STDERR
I0000 00:00:1795666766.610908    8026 port.cc:153] oneDNN custom operations are on. You may see slightly different results.
I0000 00:00:1795666766.611284    8026 cudart_stub.cc:31] Could not find cuda drivers on your machine, GPU will not be used.
2026-11-26 04:19:06.745150: I tensorflow/core/platform/cpu_feature_guard.cc:227] This TensorFlow binary is optimized to use some.
E0000 00:00:1795666774.824045    8026 cuda_platform.cc:52] failed call to cuInit: INTERNAL: CUDA error: UNKNOWN ERROR (303)
E0000 00:00:1795666774.824045    8026 cuda_platform.cc:52] failed call to cuInit: INTERNAL: CUDA_ERROR_NO_DEVICE: no device
E0000 00:00:1795667810.272696    9853 util.cc:131] oneDNN supports DT_BOOL only on platforms with AVX-512. Falling back to Eigen.
"""
# What is no start-up line, though some look alike.
WARNINGS = """W0000 00:00:1795666766.610908    8026 computation_placer.cc:177] computation placer already registered.
E0000 00:00:1795666774.824045    8026 cuda_platform.cc:52] failed call to cuInit: INTERNAL: CUDA_ERROR_OUT_OF_MEMORY
I1126 04:19:06.745150 140231 server.py:12] a line of another library
"""
FATAL = "F0000 00:00:1795666766.610908    8026 cpu_feature_guard.cc:69] The TensorFlow library was compiled to use AVX.\n"
STOPPED = "stopped by SIGTERM; run the same command again to go on\n"

START = """
import os
from captcha_registry.ends import prepare_process
prepare_process()
before = os.fstat(2)[:7]
import captcha_registry.dataset.quiet_tensorflow
assert (os.fstat(2)[:7], os.get_inheritable(2)) == (before, True)
print("started")
"""


def start_with(tensorflow: str, folder: Path, redirection: str = "", **environment: str) -> tuple[int, str, str]:
    """Start a process whose TensorFlow writes its notes and then does something else; return how it ended and what it said."""
    (folder / "tensorflow.py").write_text(
        f"import os, signal, types\nconfig = types.SimpleNamespace(list_physical_devices=list)\n"
        f"os.write(2, {NOTES.encode()})\n{tensorflow}\n"
    )
    done = subprocess.run(
        ["/bin/sh", "-c", f'exec "$@" {redirection}', "sh", sys.executable, "-c", START],
        env={name: value for name, value in os.environ.items() if not name.startswith("TF_")}
        | {"PYTHONPATH": f"{folder}{os.pathsep}{ROOT}"}
        | environment,
        capture_output=True,
        text=True,
        timeout=HANG_SECONDS,
        check=False,
    )
    return done.returncode, done.stdout, done.stderr


@pytest.mark.parametrize(
    ("tensorflow", "code", "said"),
    [
        pytest.param("", 0, "", id="nothing else"),
        pytest.param(f"os.write(2, {WARNINGS.encode()})", 0, WARNINGS, id="warnings"),
        pytest.param(f"os.write(2, {FATAL.encode()}); os.abort()", -signal.SIGABRT, FATAL, id="brought down"),
        pytest.param("os.write(2, b'a line that'); os._exit(3)", 3, "a line that", id="ended within a line"),
        pytest.param("os.kill(os.getpid(), signal.SIGTERM)", 143, STOPPED, id="stopped"),
    ],
)
def test_all_but_the_notes_is_said_however_tensorflow_starts(tensorflow: str, code: int, said: str, tmp_path: Path) -> None:
    assert start_with(tensorflow, tmp_path) == (code, "" if code else "started\n", said)


def test_why_tensorflow_cannot_be_imported_is_said(tmp_path: Path) -> None:
    code, _, said = start_with("raise ImportError('libtensorflow_cc.so.2: cannot open shared object file')", tmp_path)
    assert (code, said.splitlines()[0]) == (1, "Traceback (most recent call last):")
    assert said.endswith("\nImportError: libtensorflow_cc.so.2: cannot open shared object file\n")
    assert "oneDNN" not in said


def test_who_asks_tensorflow_for_all_its_messages_gets_them(tmp_path: Path) -> None:
    assert start_with("", tmp_path, TF_CPP_MIN_LOG_LEVEL="0") == (0, "started\n", NOTES)


@pytest.mark.parametrize("redirection", ["2>&-", "2>/dev/full", "2<&0"], ids=["closed", "full", "for reading"])
def test_tensorflow_starts_where_nothing_can_be_said(redirection: str, tmp_path: Path) -> None:
    assert start_with(f"os.write(1, {WARNINGS.encode()})", tmp_path, redirection) == (0, f"{WARNINGS}started\n", "")


# What commands and stages do with TensorFlow, in the order in which it writes most.
WORK = """
import sys
from pathlib import Path

import captcha_registry

samples = captcha_registry.load(sys.argv[1], split="train")
for _ in samples.to_tf(batch_size=8, cache=True):
    pass

from captcha_registry.recognition.frameworks import keras, tf

from captcha_registry.recognition.crnn import build_loss

network = keras.Sequential([keras.Input((3, 4)), keras.layers.Dense(5)])
network.compile("adam", build_loss())
network.fit(tf.zeros((8, 3, 4)), tf.ones((8, 1)), verbose=0)
assert sys.stderr.write("here\\n")
list(tf.data.Dataset.range(10).cache().take(1))
"""


@pytest.mark.thorough
def test_reading_and_training_say_nothing_of_tensorflow_but_its_warnings(tiny_dataset: CaptchaDataset) -> None:
    environment = {name: value for name, value in os.environ.items() if not name.startswith("TF_")}
    done = subprocess.run(
        [sys.executable, "-c", WORK, tiny_dataset.root],
        env=environment | {"PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        timeout=HANG_SECONDS,
        check=False,
    )
    before, after = done.stderr.split("here\n")
    assert (done.returncode, done.stdout, before) == (0, "", "")
    assert "The calling iterator did not fully read the dataset being cached" in after
