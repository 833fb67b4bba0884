"""The models that come with the package: those of the committed run, as ONNX files that `make pretrained` writes."""

import hashlib
from pathlib import Path

from captcha_registry.errors import UserError

PRETRAINED = ("digits", "alnum")
FOLDER = Path(__file__).parent.parent / "pretrained"
# As `sha256sum` writes and checks it.
CHECKSUMS = "SHA256SUMS"


def read_pretrained(name: str) -> bytes:
    """Read the ONNX file of a model, which is named after what it reads.

    Raises:
        UserError: it is not there, or has other bytes than were packed.
    """
    path = FOLDER / f"{name}.onnx"
    try:
        content, lines = path.read_bytes(), (FOLDER / CHECKSUMS).read_text(encoding="utf-8").splitlines()
    except FileNotFoundError as error:
        raise UserError(
            f"{error.filename} is missing: install the package again, or in a checkout run `make pretrained`"
        ) from None
    if f"{hashlib.sha256(content).hexdigest()}  {path.name}" not in lines:
        raise UserError(f"{path} has other bytes than {CHECKSUMS} says: install the package again")
    return content
