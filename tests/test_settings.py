"""What decides a training's result, and what of this machine's settings must not."""

import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parent.parent


def test_a_models_params_are_read_without_a_framework() -> None:
    code = """
import sys
from captcha_registry.recognition.recipe import load_model_params

assert [load_model_params(name).family for name in ("cnn", "crnn")] == ["cnn", "crnn"]
assert not {"keras", "tensorflow"} & set(sys.modules)
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=ROOT, check=False)
    assert done.returncode == 0, done.stderr
