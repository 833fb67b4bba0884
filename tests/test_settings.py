"""What decides a training's result: params, data and machine, not load, nor the settings of other tools and projects."""

import json
import os
import platform
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from test_recognition import (
    ALNUM,
    datasets,  # noqa: F401 - a fixture
    small_params,
)

from captcha_registry.dataset.dataset import CaptchaDataset
from captcha_registry.errors import UserError
from captcha_registry.machine import count_usable_cores
from captcha_registry.recognition.frameworks import keras, tf
from captcha_registry.recognition.training import (
    build_network,
    choose_strategy,
    compile_network,
    import_family,
    train_model,
)

ROOT = Path(__file__).parent.parent
# In a folder of its own: TensorFlow would import it at every start, which takes half a second.
JAX = ROOT / ".work/jax"

# Settings of another project; any of them used to change the networks, their weights, or to end in a traceback.
KERAS_JSON = {"backend": "torch", "floatx": "float16", "epsilon": 0.1, "image_data_format": "channels_first"}
FOREIGN_SETTINGS = {
    "KERAS_BACKEND": "jax",
    "KERAS_MAX_EPOCHS": "1",
    "KERAS_MAX_STEPS_PER_EPOCH": "1",
    "KERAS_NNX_ENABLED": "true",
    "TF_ENABLE_ONEDNN_OPTS": "0",
    "TF_USE_LEGACY_KERAS": "1",
    "TF_XLA_FLAGS": "--tf_xla_auto_jit=2 --tf_xla_cpu_global_jit",
    "XLA_FLAGS": "--no_such_flag",
    "TF_NUM_INTRAOP_THREADS": "1",
    "TF_NUM_INTEROP_THREADS": "4",
    "TF_DETERMINISTIC_OPS": "1",
    "TF_FUNCTION_JIT_COMPILE_DEFAULT": "1",
    "TF2_BEHAVIOR": "0",
    "TF_SET_ONEDNN_FPMATH_MODE": "BF16",
    "ONEDNN_DEFAULT_FPMATH_MODE": "BF16",
    "DNNL_MAX_CPU_ISA": "SSE41",
    "OMP_NUM_THREADS": "1",
    "PYTHONHASHSEED": "7",
    "LC_ALL": "tr_TR.UTF-8",
    "TZ": "Asia/Tokyo",
}


def start(code: str, *arguments: object, **environment: str) -> subprocess.Popen[str]:
    command = [sys.executable, "-c", code, *map(str, arguments)]
    return subprocess.Popen(
        command, env=os.environ | environment, cwd=ROOT, text=True, stdout=subprocess.PIPE, stderr=subprocess.PIPE
    )


def finish(process: subprocess.Popen[str]) -> str:
    output, errors = process.communicate()
    assert process.returncode == 0, errors
    return output


def test_a_models_params_are_read_without_a_framework() -> None:
    code = """
import sys
from captcha_registry.recognition.recipe import load_model_params

assert [load_model_params(name).family for name in ("cnn", "crnn")] == ["cnn", "crnn"]
assert not {"keras", "tensorflow"} & set(sys.modules)
"""
    finish(start(code))


def test_a_number_of_threads_that_numba_refuses_is_passed_over_and_another_left_alone() -> None:
    code = "import os; import captcha_registry.generation.pixels; print(os.environ.get('NUMBA_NUM_THREADS'))"
    processes = [start(code, NUMBA_NUM_THREADS=number) for number in ("0", "1")]
    assert [finish(process).strip() for process in processes] == ["None", "1"]


def test_what_draws_is_compiled_whatever_the_environment_says() -> None:
    code = "from captcha_registry.generation.pixels import smooth; print(type(smooth).__module__)"
    assert finish(start(code, NUMBA_DISABLE_JIT="1")) == "numba.core.registry\n"


@pytest.mark.parametrize(("package", "module"), [("keras", "frameworks.py"), ("tensorflow", "quiet_tensorflow.py")])
def test_one_module_imports_a_framework_and_the_others_take_it_from_there(package: str, module: str) -> None:
    # Of a card, which is text, the import is another's.
    direct = re.compile(rf"^\s*(import|from) {package}\b", re.MULTILINE)
    sources = {path for room in ("captcha_registry", "stages", "benchmarks") for path in (ROOT / room).rglob("*.py")}
    sources -= {ROOT / "captcha_registry/describing/card.py"}
    assert [path.name for path in sources if direct.search(path.read_text(encoding="utf-8"))] == [module]


# Trains the models that it is given, in this order, as the stage does.
TRAIN = """
import sys
from pathlib import Path

from captcha_registry.recognition.training import order_operations, train_model

order_operations()
sys.path.insert(0, "tests")
from test_recognition import open_folder, save_model, small_params

out = Path(sys.argv[1])
for name in sys.argv[3:]:
    changes = {"precision": "float32"} if name == "cnn" else {"precision": "bfloat16", "fresh": 0.5}
    params = small_params(name, epochs=2, **changes)
    dataset = open_folder(Path(sys.argv[2]) / params.dataset)
    (out / "work" / name).mkdir(parents=True)
    network, history = train_model(params, dataset, out / "work" / name)
    save_model(out / name, network, history, params, dataset.manifest)
"""


@pytest.mark.thorough
def test_trainings_have_equal_bytes_under_load_in_any_order_with_any_settings_of_others(
    datasets: Path,  # noqa: F811 - the fixture
    tmp_path: Path,
) -> None:
    (tmp_path / "keras.json").write_text(json.dumps(KERAS_JSON))
    # Two trainings at once are each other's load.
    one = start(TRAIN, tmp_path / "one", datasets, "cnn", "crnn")
    other = start(TRAIN, tmp_path / "other", datasets, "crnn", "cnn", **FOREIGN_SETTINGS, KERAS_HOME=str(tmp_path))
    finish(one)
    finish(other)
    for file in [f"{name}/{file}" for name in ("cnn", "crnn") for file in ("history.csv", "model.json", "model.keras")]:
        assert (tmp_path / "one" / file).read_bytes() == (tmp_path / "other" / file).read_bytes(), file
    assert json.loads((tmp_path / "keras.json").read_text()) == KERAS_JSON
    cards = [json.loads((tmp_path / "one" / name / "model.json").read_text()) for name in ("cnn", "crnn")]
    assert [(card["precision"], card["num_threads"]) for card in cards] == [
        ("float32", count_usable_cores()),
        ("mixed_bfloat16", count_usable_cores()),
    ]


# Twelve times the gradients of one large batch: without an order of operations one in three used to differ.
FIND_GRADIENTS = """
import sys

import numpy as np

from captcha_registry.recognition import cnn
from captcha_registry.recognition.frameworks import keras, tf
from captcha_registry.recognition.training import build_training_network, order_operations

order_operations()
sys.path.insert(0, "tests")
from test_recognition import DIGITS, small_params

network = build_training_network(small_params("cnn"), DIGITS)
images = tf.constant(np.random.default_rng(1).integers(0, 256, (128, 100, 120, 3), np.uint8))

@tf.function
def find_gradients():
    with tf.GradientTape() as tape:
        value = cnn.build_loss()(tf.zeros((128, 4), tf.int32), network(images, training=True))
    return tape.gradient(value, [variable.value for variable in network.trainable_variables])

print(len({b"".join(gradient.numpy().tobytes() for gradient in find_gradients()) for _ in range(12)}))
"""


@pytest.mark.thorough
def test_a_large_batch_has_the_same_gradients_every_time() -> None:
    assert finish(start(FIND_GRADIENTS)) == "1\n"


@pytest.mark.parametrize("num_gpus", [0, 1])
def test_operations_of_a_gpu_are_deterministic_before_the_network_is_built_if_the_recipe_says_so(
    num_gpus: int, tiny_dataset: CaptchaDataset, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # Not at the top: what imports TensorFlow first decides its settings.
    from tensorflow.python.framework.config import disable_op_determinism, is_op_determinism_enabled  # noqa: PLC0415

    params = small_params("cnn", preset="lab", precision="float32", deterministic=True)
    fake_gpus(monkeypatch, num_gpus)
    assert not is_op_determinism_enabled()
    try:
        with pytest.raises(UserError, match="no cnn of preset lab fits"):
            train_model(params, tiny_dataset, tmp_path)
        assert is_op_determinism_enabled() == (num_gpus == 1)
    finally:
        disable_op_determinism()


def test_a_keras_that_was_set_otherwise_before_does_not_train() -> None:
    code = """
import keras
keras.config.set_image_data_format("channels_first")
from captcha_registry.errors import UserError
from captcha_registry.recognition.training import train_model
try:
    train_model(None, None, None)
except UserError as error:
    print(error)
"""
    message = finish(start(code))
    assert message.startswith(
        "Keras is set to image_data_format 'channels_first'; expected 'channels_last': train with `python -m"
    )


def fake_gpus(monkeypatch: pytest.MonkeyPatch, number: int) -> None:
    """Have TensorFlow tell of GPUs that are not there."""
    devices = [tf.config.LogicalDevice(f"/device:GPU:{n}", "GPU") for n in range(number)]
    for kind in ("physical", "logical"):
        real = getattr(tf.config, f"list_{kind}_devices")
        monkeypatch.setattr(
            tf.config, f"list_{kind}_devices", lambda name=None, real=real: devices if name == "GPU" else real(name)
        )


@pytest.mark.parametrize("recurrent", ["gru", "lstm"])
def test_recurrent_layers_and_logits_are_in_float32_on_a_gpu_and_models_of_either_machine_load_on_the_other(
    recurrent: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    keras.config.set_dtype_policy("mixed_bfloat16")
    try:
        params = small_params("crnn", recurrent=recurrent)
        networks = [build_network(params, ALNUM)]
        fake_gpus(monkeypatch, 1)
        networks.append(build_network(params, ALNUM))
    finally:
        keras.config.set_dtype_policy("float32")
    kinds = (keras.layers.Bidirectional, keras.layers.Conv2D)
    precisions = [
        [{layer.compute_dtype for layer in network.layers if isinstance(layer, kind)} for kind in kinds] for network in networks
    ]
    assert precisions == [[{"bfloat16"}, {"bfloat16"}], [{"float32"}, {"bfloat16"}]]
    for network, other in zip(networks, networks[::-1], strict=True):
        assert network.get_layer("logits").compute_dtype == "float32"
        network.save_weights(tmp_path / "latest.weights.h5")
        other.load_weights(tmp_path / "latest.weights.h5")
        assert all(map(np.array_equal, network.get_weights(), other.get_weights()))
    (both,) = [layer for layer in networks[1].layers if isinstance(layer, keras.layers.Bidirectional)]
    assert {layer.cell.compute_dtype for layer in (both.forward_layer, both.backward_layer)} == {"float32"}


def test_one_device_trains_without_what_keeps_several_equal(monkeypatch: pytest.MonkeyPatch) -> None:
    for num_gpus in (0, 1):
        with monkeypatch.context() as patched:
            fake_gpus(patched, num_gpus)
            assert choose_strategy() is tf.distribute.get_strategy()


def test_tensorflow_takes_the_memory_of_a_gpu_as_it_needs_it() -> None:
    assert os.environ["TF_FORCE_GPU_ALLOW_GROWTH"] == "true"


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="other C libraries have no mallopt")
@pytest.mark.parametrize(
    ("call", "is_kept"), [("keep_freed_memory()", True), ("import captcha_registry.recognition.frameworks", False)]
)
def test_a_process_keeps_freed_memory_if_it_is_to(call: str, is_kept: bool) -> None:
    code = f"""
import resource
from captcha_registry.machine import keep_freed_memory

{call}

def count_page_faults():
    bytearray(100_000_000)
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt

counts = [count_page_faults() for _ in range(4)]
print(counts[-1] - counts[0])
"""
    # From the kernel come 24,000 pages of 4 KiB each time.
    assert (int(finish(start(code))) < 1_000) == is_kept


def train_two_steps(folder: Path) -> Iterator[float]:
    """Train both networks in float32, from weights that the first process leaves in a folder; yield the losses."""
    for family in ("cnn", "crnn"):
        params = small_params(family, warmup=0.0)
        keras.utils.set_random_seed(1)
        keras.config.set_dtype_policy("float32")
        network = build_network(params, ALNUM.model_copy(update={"width": 64, "height": 32, "length": 3}))
        weights = folder / f"{family}.weights.h5"
        (network.load_weights if weights.exists() else network.save_weights)(weights)
        compile_network(network, params, 1e-3, num_steps=10)
        stream = np.random.default_rng(1)
        images = stream.integers(0, 256, (8, 32, 64, 3), np.uint8)
        classes = stream.integers(0, 36, (8, 3)).astype(np.int32) + import_family(params).FIRST_CLASS
        yield from (float(network.train_on_batch(images, classes)[0]) for _ in range(2))


@pytest.mark.peers
@pytest.mark.slow
def test_steps_of_both_networks_come_to_the_same_losses_on_jax(tmp_path: Path) -> None:
    if not JAX.exists():
        pytest.skip(f"JAX is not in {JAX}: .ci/run puts it there")
    code = """
import os, sys
from pathlib import Path

os.environ["KERAS_BACKEND"] = "jax"
import keras

sys.path[:0] = ["tests"]
from test_settings import train_two_steps

assert keras.backend.backend() == "jax"
print(*train_two_steps(Path(sys.argv[1])))
"""
    expected = list(train_two_steps(tmp_path))
    assert expected[0] != expected[1]
    losses = [float(loss) for loss in finish(start(code, tmp_path, PYTHONPATH=str(JAX))).split()]
    assert losses[::2] == pytest.approx(expected[::2], rel=1e-4)
    # After a step, which makes a rounding larger.
    assert losses[1::2] == pytest.approx(expected[1::2], rel=1e-3)
