"""The models that come with the package: those of the committed run, as ONNX files that `make pretrained` writes."""

from pathlib import Path

from captcha_registry.recognition.onnx_network import read_onnx

PRETRAINED = ("digits", "alnum")
FOLDER = Path(__file__).parent.parent / "pretrained"


def read_pretrained(name: str) -> bytes:
    """Read the ONNX file of a model, which is named after what it reads.

    Raises:
        UserError: it is not there, or has other bytes than were packed.
    """
    return read_onnx(FOLDER / f"{name}.onnx", cure="install the package again, or in a checkout run `make pretrained`")
