"""A trained model for other people's code: pictures in, readings out.

    crnn = captcha_registry.load_model("models/crnn")
    crnn.read("captcha.png")[0].text
    for reading in crnn.read(images):  # uint8 (batch, height, width, 3)
        print(reading.text, reading.confidence)

No framework is imported here: any function that computes logits makes a model.
"""

import os
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from glob import has_magic
from io import IOBase
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from PIL import Image, ImageOps

from captcha_registry.dataset.dataset import DecodedSample
from captcha_registry.dataset.spec import DatasetSpec
from captcha_registry.errors import UserError
from captcha_registry.machine import expand_home
from captcha_registry.recognition.card import ModelCard
from captcha_registry.recognition.pictures import URL, flatten, open_picture, require_size
from captcha_registry.recognition.readings import Reading, decode

# Pictures that go through a network at once.
BATCH_SIZE = 500

Images = npt.NDArray[np.uint8]
Logits = npt.NDArray[np.float32]
Picture = str | os.PathLike[str] | Image.Image | Images | DecodedSample
# From images `(batch, height, width, 3)` to the logits of a family, as `recognition.cnn` and `recognition.crnn` say.
FindLogits = Callable[[Images], Logits]


@dataclass(frozen=True, eq=False, repr=False)
class CaptchaModel:
    """A trained model: `model.read(pictures)` gives a list of readings, each with `text` and `confidence`.

    It reads captchas of its `spec`: pictures of `spec.width` x `spec.height` pixels, texts of `alphabet`.

    Attributes:
        name: where the model comes from.
        card: the content of its model.json.
        find_logits: the network.
    """

    name: str
    card: ModelCard
    find_logits: FindLogits

    def __repr__(self) -> str:
        spec = self.spec
        return (
            f"<CaptchaModel {self.name}: read(images or paths) of {spec.width}x{spec.height} pixels with "
            f"{spec.described_length} characters of {self.alphabet!r}>"
        )

    @property
    def spec(self) -> DatasetSpec:
        """The settings of the dataset on which the model was trained."""
        return self.card.spec

    @property
    def alphabet(self) -> str:
        """The characters that the model knows."""
        return self.spec.alphabet

    def read(self, pictures: Picture | Iterable[Picture]) -> list[Reading]:
        """Read pictures: one, or many in their order.

        Args:
            pictures: paths, Pillow images, arrays uint8 `(height, width, 3)` or samples, one or an iterable of them, such as a
                dataset, or one array `(batch, height, width, 3)`. Transparent parts are read on white.

        Returns:
            A list of `Reading`, each with `text`, `confidence` (0 to 1), `characters` and `alternatives`.

        Raises:
            UserError: a file is not a picture, a picture has another size than the model reads, or an array is not of uint8.
        """
        if isinstance(pictures, np.ndarray) and pictures.dtype.kind in "biufc" and pictures.ndim not in {3, 4}:
            raise _refuse_array(pictures, (self.spec.width, self.spec.height))
        waiting = iter(
            [pictures] if isinstance(pictures, str | os.PathLike | Image.Image | DecodedSample) else _list_images(pictures)
        )
        readings: list[Reading] = []
        while batch := [self._take(picture) for picture in islice(waiting, BATCH_SIZE)]:
            readings += self.read_batch(np.stack(batch))
        return readings

    def read_batch(self, images: Images) -> list[Reading]:
        """Read a batch `(batch, height, width, 3)` of uint8 that goes through the network at once."""
        return decode(self.card.family, self.find_logits(images), self.alphabet)

    def _take(self, picture: Picture) -> Images:
        """Turn a picture into the array that the network takes."""
        size = self.spec.width, self.spec.height
        if isinstance(picture, str | os.PathLike):
            try:
                path = expand_home(os.fspath(picture))
                _require_one(path)
                return open_picture(path, *size)
            except UserError as error:
                raise UserError(f"{os.fspath(picture)}: {error}") from None
        if isinstance(picture, Image.Image):
            shown = flatten(ImageOps.exif_transpose(picture))
            require_size(shown.size, size, resize=False)
            return np.asarray(shown)
        if not isinstance(picture, DecodedSample | list | tuple) and not hasattr(picture, "__array__"):
            raise _refuse(picture)
        image = np.asarray(picture.image if isinstance(picture, DecodedSample) else picture)
        if image.ndim != 3 or image.shape[-1] != 3 or image.dtype != np.uint8:  # noqa: PLR2004 - height, width, colours
            raise _refuse_array(image, size)
        require_size((image.shape[1], image.shape[0]), size, resize=False)
        return image


def _require_one(path: Path) -> None:
    """Refuse what stands for many pictures.

    Raises:
        UserError: it is a folder or a pattern.
    """
    is_folder = os.path.isdir(path)  # noqa: PTH112 - a name that is too long is told where the file is opened
    # What is asked of a URL is no pattern, and may be a secret.
    if is_folder or (has_magic(str(path)) and not os.path.lexists(path) and not URL.match(str(path))):
        pattern = str(path / "*.png" if is_folder else path)
        raise UserError(
            f"a {'folder' if is_folder else 'pattern'}; `read` takes files, such as model.read(sorted(glob.glob({pattern!r}))) "
            "after `import glob`"
        )


def _refuse_array(found: npt.NDArray[Any], size: tuple[int, int]) -> UserError:
    return UserError(
        f"a picture is an array {found.dtype} {found.shape}; expected uint8 {(size[1], size[0], 3)}, or with one more "
        "dimension in front for many, or paths, or Pillow images"
    )


def _refuse(found: object) -> UserError:
    return UserError(
        f"a picture is a path, a Pillow image, an array of uint8 or a sample; found one of the type {type(found).__name__}, "
        "of which only the path or the decoded picture can be read"
    )


def _list_images(pictures: Iterable[Picture]) -> Iterable[Picture]:
    """Iterate over many pictures, or over the one that an array may be.

    Raises:
        UserError: they are neither.
    """
    if isinstance(pictures, bytes | IOBase) or not isinstance(pictures, Iterable):
        raise _refuse(pictures)
    return [pictures] if isinstance(pictures, np.ndarray) and pictures.ndim == 3 else pictures  # noqa: PLR2004 - as above
