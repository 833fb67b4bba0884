"""A trained model on disk: `model.keras`, `model.json` (what it reads and where it comes from) and `history.csv`."""

import hashlib
import json
import re
from io import BytesIO
from pathlib import Path
from tempfile import TemporaryDirectory
from zipfile import BadZipFile, ZipFile, ZipInfo

import pandas as pd

from captcha_registry.dataset.manifest import Manifest
from captcha_registry.errors import UserError
from captcha_registry.recognition.card import (
    CARD_NAME,
    HISTORY_NAME,
    NETWORK_NAME,
    ModelCard,
    read_card,
    read_part,
    require_shapes,
)
from captcha_registry.recognition.frameworks import choose_precision, keras, tf
from captcha_registry.recognition.recipe import ModelParams
from captcha_registry.workspace import write_atomically


def save_model(folder: Path, network: keras.Model, history: pd.DataFrame, params: ModelParams, manifest: Manifest) -> None:
    """Write a trained model into `folder`, the card last."""
    folder.mkdir(parents=True, exist_ok=True)
    write_atomically(folder / NETWORK_NAME, _save_network(network))
    history.to_csv(folder / HISTORY_NAME, index=False)
    card = ModelCard(
        family=params.family,
        preset=params.preset,
        dataset=manifest.name,
        spec=manifest.spec,
        dataset_id=manifest.dataset_id,
        num_parameters=network.count_params(),
        model_sha256=hashlib.sha256((folder / NETWORK_NAME).read_bytes()).hexdigest(),
        fresh=params.recipe.fresh,
        precision=choose_precision(params.recipe.precision),
        num_threads=tf.config.threading.get_intra_op_parallelism_threads() or None,
    )
    write_atomically(folder / CARD_NAME, f"{card.model_dump_json(indent=2)}\n".encode())


def _save_network(network: keras.Model) -> bytes:
    """Save a network so that equal weights and layers have equal bytes: without times, and without addresses in memory."""
    with TemporaryDirectory() as folder:
        path = Path(folder) / NETWORK_NAME
        network.save(path)
        with ZipFile(path) as saved:
            parts = {name: saved.read(name) for name in sorted(saved.namelist())}
    parts["metadata.json"] = json.dumps({"keras_version": keras.version()}).encode()
    # Objects that layers share have the address of the object in memory for a name.
    addresses: dict[bytes, int] = {}
    parts["config.json"] = re.sub(
        rb'(?<="shared_object_id": )\d+',
        lambda found: str(addresses.setdefault(found[0], len(addresses) + 1)).encode(),
        parts["config.json"],
    )
    content = BytesIO()
    with ZipFile(content, "w") as archive:
        for name, part in parts.items():
            archive.writestr(ZipInfo(name), part)
    return content.getvalue()


def load_model(folder: Path) -> tuple[keras.Model, ModelCard]:
    """Load a trained model after its file has been checked against the card.

    Raises:
        UserError: a file is missing, the card is not valid, the model's bytes are not those that were saved, or they carry code.
    """
    card, content = read_card(folder), read_part(folder / NETWORK_NAME)
    if (sha256 := hashlib.sha256(content).hexdigest()) != card.model_sha256:
        raise UserError(
            f"{folder / NETWORK_NAME} has the SHA-256 {sha256}; the card says {card.model_sha256}: do not load it, "
            "and restore it, with `dvc checkout` if DVC has it, or move it away and fetch it again"
        )
    return _load_network(content, folder / NETWORK_NAME, card), card


def _load_network(content: bytes, where: Path, card: ModelCard) -> keras.Model:
    """Load a network from the very bytes that were checked: the file of that name may be another by now."""
    with TemporaryDirectory() as unpacked:
        path = Path(unpacked) / NETWORK_NAME
        path.write_bytes(content)
        try:
            network = keras.saving.load_model(path, compile=False, safe_mode=True)
            require_shapes(card, network.input_shape[1:], network.output_shape[1:])
        # Keras raises ValueError for layers that carry code, such as Lambda; the others occur in it for what is not a model.
        except (ValueError, TypeError, LookupError, AttributeError, OSError, RecursionError, BadZipFile) as error:
            problem = " ".join(str(error).split())[:200] or type(error).__name__
            raise UserError(f"{where} is refused: {problem}") from error
    return network


def read_history(folder: Path) -> pd.DataFrame:
    """Read the history of a trained model: one row per epoch."""
    return pd.read_csv(folder / HISTORY_NAME)
