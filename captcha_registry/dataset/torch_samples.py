"""A dataset as PyTorch's DataLoader takes it."""

import operator
from typing import TYPE_CHECKING

import torch
from torch.utils.data import Dataset

if TYPE_CHECKING:
    from captcha_registry.dataset.dataset import CaptchaDataset


class TorchSamples(Dataset[tuple[torch.Tensor, str]]):
    """Map-style samples: `(image uint8 (3, height, width), label)`; torchvision's transforms make floats of the images."""

    def __init__(self, samples: "CaptchaDataset") -> None:
        """Give out samples of a dataset."""
        self._samples = samples

    def __len__(self) -> int:
        return len(self._samples)

    def __getitem__(self, number: int) -> tuple[torch.Tensor, str]:
        """Read one sample.

        Raises:
            TypeError: it is named by something else than a whole number.
        """
        sample = self._samples[operator.index(number)]
        return torch.tensor(sample.image).permute(2, 0, 1), sample.label
