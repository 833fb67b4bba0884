"""Import Keras and TensorFlow without other projects' settings; this room takes both from here.

Keras reads `~/.keras/keras.json` and `KERAS_*` when it is imported: with `channels_first` the same params build other networks,
with `KERAS_MAX_EPOCHS` a training is cut short. TensorFlow and oneDNN read `TF_*`, `XLA_*`, `ONEDNN_*` and `DNNL_*` when they
are imported, and later: numbers of threads, kernels and precision, which decide what a training comes to. All of them are
ignored but those that concern messages and GPU memory.

Whoever imports Keras before this module has chosen its backend and settings, so that networks run on JAX too; a training
refuses other settings than these.
"""

import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from pathlib import Path

from captcha_registry.errors import UserError

_IGNORED_PREFIXES = ("TF_", "TF2_", "XLA_", "ONEDNN_", "DNNL_", "NVIDIA_TF32_OVERRIDE")
_HEEDED_PREFIXES = ("TF_CPP_", "TF_FORCE_", "TF_GPU_ALLOCATOR")


@contextmanager
def _ignore_settings() -> Iterator[None]:
    """Hide other projects' settings: Keras' while it is imported, TensorFlow's for good, as it reads some of them later."""
    for name in list(os.environ):
        if name.startswith(_IGNORED_PREFIXES) and not name.startswith(_HEEDED_PREFIXES):
            del os.environ[name]
    of_keras = {name: os.environ.pop(name) for name in list(os.environ) if name.startswith("KERAS_")}
    # A home that can hold no keras.json: none is read, and none written.
    own = {"KERAS_BACKEND": "tensorflow", "KERAS_HOME": os.devnull}
    os.environ.update(own)
    try:
        yield
    finally:
        for name in own:
            del os.environ[name]
        os.environ.update(of_keras)


# TensorFlow takes of a GPU's memory what it needs, not all of it at its start, unless the environment wants that.
os.environ.setdefault("TF_FORCE_GPU_ALLOW_GROWTH", "true")
with _ignore_settings() if "keras" not in sys.modules else nullcontext():
    from captcha_registry.dataset.quiet_tensorflow import tf

    # After TensorFlow, which it imports.
    import keras  # isort: skip
    from keras import layers, ops

__all__ = ["choose_precision", "choose_recurrent_precision", "keras", "layers", "ops", "require_own_settings", "tf"]


def require_own_settings() -> None:
    """Refuse to train with a Keras that was set otherwise before this module was imported.

    Raises:
        UserError: names the setting, its value and the one that is expected.
    """
    expected = {
        "backend": "tensorflow",
        "image_data_format": "channels_last",
        "floatx": "float32",
        "epsilon": 1e-7,
        "max_epochs": None,
        "max_steps_per_epoch": None,
    }
    for name, value in expected.items():
        found = getattr(keras.config, name)()
        if found != value:
            raise UserError(
                f"Keras is set to {name} {found!r}; expected {value!r}: train with `python -m stages.train`, or in a process "
                "that imports captcha_registry.recognition.training before keras"
            )


def choose_precision(wanted: str) -> str:
    """Name the Keras dtype policy: bfloat16 for products and float32 for weights, by `auto` where the hardware is fast at it."""
    return "mixed_bfloat16" if wanted == "bfloat16" or (wanted == "auto" and _has_bfloat16()) else "float32"


def choose_recurrent_precision() -> str | None:
    """Name the dtype policy of recurrent layers: float32 on a GPU, as cuDNN has no bfloat16 kernel for them; else that of all."""
    return "float32" if tf.config.list_physical_devices("GPU") else None


def _has_bfloat16() -> bool:
    """Tell whether the device multiplies bfloat16 in hardware: avx512_bf16 on x86, compute capability 8 on Nvidia."""
    gpus = tf.config.list_physical_devices("GPU")
    if gpus:
        return all(tf.config.experimental.get_device_details(gpu).get("compute_capability", (0, 0)) >= (8, 0) for gpu in gpus)
    cpu_info = Path("/proc/cpuinfo")
    return cpu_info.exists() and "avx512_bf16" in cpu_info.read_text()
