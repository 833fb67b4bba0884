"""Compare readings with the truth: exact match, character errors, calibration."""

from collections.abc import Iterable
from math import sqrt

import numpy as np
import pandas as pd
from rapidfuzz.distance import Levenshtein

# The two characters that the font draws all but alike; with both in an alphabet they are three of four errors, and hide the rest.
HARD_PAIR = "0O"
# As in the paper that the calibration error is from.
CONFIDENCE_BINS = 15


def wilson_interval(num_right: int, num_samples: int, z: float = 1.959964) -> tuple[float, float]:
    """Compute the Wilson score interval of a proportion, at 95 % unless `z` says otherwise.

    Source: Wilson 1927, https://doi.org/10.1080/01621459.1927.10502953
    """
    share = num_right / num_samples
    centre = share + z * z / (2 * num_samples)
    spread = z * sqrt(share * (1 - share) / num_samples + z * z / (4 * num_samples**2))
    scale = 1 + z * z / num_samples
    return max(0.0, (centre - spread) / scale), min(1.0, (centre + spread) / scale)


def compute_metrics(readings: pd.DataFrame, alphabet: str) -> dict[str, float | int]:
    """Compute a model's metrics.

    Args:
        readings: the columns `label`, `text` and `confidence`, one row per test sample.
        alphabet: the dataset's characters.

    Returns:
        exact_match (share of texts that are right in every character) with its 95 % Wilson interval; cer (character error rate:
        edits between reading and label, over characters of all labels); character_accuracy (one minus that);
        expected_calibration_error; test_samples; and what `_score_hard_pair` finds.
    """
    right = readings["label"] == readings["text"]
    low, high = wilson_interval(int(right.sum()), len(readings))
    num_edits = sum(Levenshtein.distance(label, text) for label, text in _wrong(readings))
    cer = num_edits / int(readings["label"].str.len().sum())
    return {
        "exact_match": int(right.sum()) / len(readings),
        "exact_match_low": round(low, 6),
        "exact_match_high": round(high, 6),
        **(_score_hard_pair(readings) if set(alphabet) >= set(HARD_PAIR) else {}),
        "character_accuracy": round(1 - cer, 6),
        "cer": round(cer, 6),
        "expected_calibration_error": round(find_calibration_error(readings["confidence"], right), 6),
        "test_samples": len(readings),
    }


def _score_hard_pair(readings: pd.DataFrame) -> dict[str, float]:
    """Compute exact match with 0 and O taken for one character, and on texts with and without them, where there are such."""
    right = readings["label"] == readings["text"]
    folded = readings[["label", "text"]].apply(lambda texts: texts.str.replace(*HARD_PAIR, regex=False))
    holds_pair = readings["label"].str.contains(f"[{HARD_PAIR}]")
    shares = {
        "exact_match_0_is_o": folded["label"] == folded["text"],
        "exact_match_with_0_or_o": right[holds_pair],
        "exact_match_without_0_or_o": right[~holds_pair],
    }
    return {name: round(float(chosen.mean()), 6) for name, chosen in shares.items() if len(chosen)}


def find_calibration_error(confidence: pd.Series, right: pd.Series) -> float:
    """Compute by how much a model's confidence is off: the expected calibration error, of complete texts.

    In each of 15 bins of equal width the share of right texts is compared with the mean confidence; the differences are
    averaged, each weighted with the texts in its bin. Source: Guo et al. 2017, https://arxiv.org/abs/1706.04599

    Args:
        confidence: 0 to 1, one per text.
        right: whether the text was read right.
    """
    sure = confidence.astype(float)
    return float((right - sure).groupby(find_bins(confidence)).sum().abs().sum() / len(sure))


def find_bins(confidence: pd.Series) -> pd.Series:
    """Find the bin of each confidence, 1 to 15; float32 and float64 of one number are in one bin."""
    return (confidence.astype(float) * CONFIDENCE_BINS).apply(np.ceil).clip(lower=1)


def _wrong(readings: pd.DataFrame) -> Iterable[tuple[str, str]]:
    wrong = readings[readings["label"] != readings["text"]]
    return zip(wrong["label"], wrong["text"], strict=True)
