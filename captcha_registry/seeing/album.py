"""The pictures of a report: PNG bytes as their records have them, each once, and no more than the file may hold."""

from collections.abc import Mapping, Sequence
from io import BytesIO

import numpy as np
import numpy.typing as npt
from PIL import Image

from captcha_registry.errors import MAKE_OR_PULL, UserError
from captcha_registry.extras import needs
from captcha_registry.seeing.results import ModelResult


class Album:
    """Collects pictures while a report is composed.

    Attributes:
        pictures: PNG bytes by key.
        lacking: why some pictures are missing, in the order in which that was found.
    """

    def __init__(self, limit_bytes: int) -> None:
        """Collect no more than this."""
        self.pictures: dict[str, bytes] = {}
        self.lacking: dict[str, None] = {}
        self._room_bytes = limit_bytes

    def add(self, result: ModelResult, ids: Sequence[int]) -> dict[int, str]:
        """Collect the pictures of some samples of a model's test split; return the key of each that there is."""
        name, dataset = result.card.dataset, result.dataset
        if dataset is None:
            self.lacking[f"The dataset {name} is not here, or is another by now: {MAKE_OR_PULL}."] = None
            return {}
        chosen = dataset[np.flatnonzero(np.isin(dataset.index["id"].to_numpy(), ids))]
        keys = {}
        for row, number in enumerate(chosen.index["id"].to_pylist()):
            key = f"{name}-{number}"
            if key not in self.pictures:
                try:
                    picture = chosen.read_sample(row).image
                except UserError as error:
                    self.lacking[f"Pictures of {name} are not shown: {error}."] = None
                    break
                if not self._put(key, picture):
                    continue
            keys[number] = key
        return keys

    def add_pairs(self, result: ModelResult, texts: Mapping[int, str]) -> dict[int, str]:
        """Draw samples of a model's test split again with other texts, by id; return the key of each that can be had."""
        if (dataset := result.dataset) is None:
            return {}
        try:
            with needs("drawing the pairs", "draw"):
                from captcha_registry.generation.drawing import make_drawer  # noqa: PLC0415
                from captcha_registry.generation.redrawing import Redrawing  # noqa: PLC0415
            drawer = make_drawer(dataset.manifest, "leave them out")
        except UserError as error:
            self.lacking[f"Minimal pairs are shown without the picture of the other text: {error}."] = None
            return {}
        keys = {number: f"{dataset.manifest.name}-{number}-{text.encode().hex()}" for number, text in texts.items()}
        for number, key in keys.items():
            if key not in self.pictures:
                self._put(key, _encode(Redrawing(drawer, number).draw_pair(texts[number]).pixels))
        return {number: key for number, key in keys.items() if key in self.pictures}

    def _put(self, key: str, picture: bytes) -> bool:
        """Keep a picture if there is room for it."""
        if len(picture) > self._room_bytes:
            self.lacking["Some pictures are left out: with them the report would be too large."] = None
            return False
        self._room_bytes -= len(picture)
        self.pictures[key] = picture
        return True


def _encode(pixels: npt.NDArray[np.uint8]) -> bytes:
    content = BytesIO()
    Image.fromarray(pixels).save(content, "PNG", optimize=True)
    return content.getvalue()
