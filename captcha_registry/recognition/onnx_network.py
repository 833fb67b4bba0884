"""Logits of an ONNX file that `onnx_conversion` made, by onnxruntime: without TensorFlow, and without Keras."""

import hashlib
import os
from pathlib import Path

import numpy as np

from captcha_registry.errors import UserError
from captcha_registry.extras import needs
from captcha_registry.machine import count_usable_cores
from captcha_registry.recognition.card import CARD_NAME, ModelCard, require_shapes
from captcha_registry.recognition.model import CaptchaModel, Images, Logits
from captcha_registry.workspace import write_atomically

# What `evaluate` calls such a file, in the folder of the model.
ONNX_NAME = "model.onnx"
# Of its pictures and logits.
TYPES = ["tensor(uint8)", "tensor(float)"]
# Lies beside such a file, as `sha256sum` writes and checks it.
CHECKSUMS = "SHA256SUMS"


def write_onnx(folder: Path, content: bytes) -> None:
    """Write the ONNX file of a model into its folder, and its checksum."""
    write_atomically(folder / ONNX_NAME, content)
    write_atomically(folder / CHECKSUMS, f"{_write_checksum(content, ONNX_NAME)}\n".encode())


def read_onnx(path: Path, cure: str) -> bytes:
    """Read an ONNX file and compare it with the checksum beside it.

    Raises:
        UserError: one of them is missing, or the file has other bytes; `cure` says what to do.
    """
    try:
        content, lines = path.read_bytes(), path.with_name(CHECKSUMS).read_text(encoding="utf-8").splitlines()
    except FileNotFoundError as error:
        raise UserError(f"{error.filename} is missing: {cure}") from None
    if _write_checksum(content, path.name) not in lines:
        raise UserError(f"{path} has other bytes than {CHECKSUMS} says: {cure}")
    return content


def _write_checksum(content: bytes, name: str) -> str:
    return f"{hashlib.sha256(content).hexdigest()}  {name}"


def open_onnx(content: bytes, name: str) -> CaptchaModel:
    """Open an ONNX file, given as its bytes; `name` is what the model calls itself.

    Raises:
        UserError: onnxruntime is not installed, or the file is not a model of this project.
    """
    # Else it makes an id of this machine, keeps it in the user's cache, and sends its maker what it is used for.
    os.environ.setdefault("ORT_DISABLE_TELEMETRY", "1")
    with needs("reading an ONNX file", extra="onnx"):
        import onnxruntime  # noqa: PLC0415 - takes a moment, and is not in the base install

    options = onnxruntime.SessionOptions()
    options.log_severity_level = 4
    options.intra_op_num_threads = count_usable_cores()
    # Threads that wait for work leave the cores to those that decode pictures.
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    try:
        session = onnxruntime.InferenceSession(content, options, providers=["CPUExecutionProvider"])
        card = ModelCard.model_validate_json(session.get_modelmeta().custom_metadata_map[CARD_NAME])
        (taken,), (given,) = session.get_inputs(), session.get_outputs()
        require_shapes(card, taken.shape[1:], given.shape[1:])
        if (types := [taken.type, given.type]) != TYPES:
            raise ValueError(f"it maps {types[0]} to {types[1]}; expected {' to '.join(TYPES)}")  # noqa: TRY301 - as the others
    # Errors of onnxruntime have no ancestor of their own; they say what is wrong with the file.
    except Exception as error:
        problem = " ".join(str(error).split())[:200]
        raise UserError(f"{name} is not a model that `captcha-registry export --format onnx` made: {problem}") from error

    def find_logits(images: Images) -> Logits:
        if not len(images):
            # A recurrent layer of onnxruntime 1.32 ends the process.
            return np.zeros((0, *session.get_outputs()[0].shape[1:]), np.float32)
        (logits,) = session.run(None, {"images": images})
        return np.asarray(logits)

    return CaptchaModel(name, card, find_logits)
