"""Tables of where a model reads right and where it errs, each row with how many it counts and a 95 % Wilson interval.

| table       | one row per                 | counts                                                        |
|-------------|-----------------------------|---------------------------------------------------------------|
| ink         | range of the ink's luminance | texts                                                        |
| character   | character of the alphabet   | characters of labels                                          |
| position    | place in the text, from 1   | characters of labels                                          |
| confidence  | bin of the confidence       | texts                                                         |
| confusion   | actual and read character   | characters of labels, and under `NOTHING` what no label holds |

The first four have the columns `accuracy` (the share that was read right), `low`, `high` and `samples` besides their key.
"""

from itertools import pairwise, zip_longest

import pandas as pd
from rapidfuzz.distance import Levenshtein

from captcha_registry.recognition.scoring import find_bins, wilson_interval

# Stands in a confusion for a character that was left out of a reading, or put in.
NOTHING = "none"

LUMINANCE_EDGES = (0, 40, 80, 120, 160, 256)


def align_texts(label: str, text: str) -> list[tuple[str, str]]:
    """Pair the characters of a label with those of a reading, by the fewest edits; "" stands where one of them has none."""
    pairs: list[tuple[str, str]] = []
    for block in Levenshtein.opcodes(label, text):
        actual, read = label[block.src_start : block.src_end], text[block.dest_start : block.dest_end]
        pairs += zip_longest(actual, read, fillvalue="")
    return pairs


def pair_characters(readings: pd.DataFrame) -> pd.DataFrame:
    """List all characters of labels beside what was read.

    Args:
        readings: the columns `label` and `text`.

    Returns:
        `position` (of the character in its label, from 1; 0 for a character that was put in), `actual` and `predicted`, where
        `NOTHING` stands for no character.
    """
    rows = []
    for label, text in zip(readings["label"], readings["text"], strict=True):
        position = 0
        for actual, predicted in align_texts(label, text):
            position += bool(actual)
            rows.append((position if actual else 0, actual or NOTHING, predicted or NOTHING))
    return pd.DataFrame(rows, columns=["position", "actual", "predicted"])


def score_by_ink(readings: pd.DataFrame) -> pd.DataFrame:
    """Compute the share of texts that were read right by luminance of the ink; the key is `ink_luminance`, as "40-79"."""
    names = [f"{low}-{high - 1}" for low, high in pairwise(LUMINANCE_EDGES)]
    ranges = pd.cut(readings["ink_luminance"], LUMINANCE_EDGES, right=False, labels=names)
    return _score(readings["label"] == readings["text"], ranges.rename("ink_luminance"))


def score_by_character(pairs: pd.DataFrame) -> pd.DataFrame:
    """Compute the share of characters that were read right by what they are; the key is `character`."""
    held = pairs[pairs["position"] > 0]
    return _score(held["actual"] == held["predicted"], held["actual"].rename("character"))


def score_by_position(pairs: pd.DataFrame) -> pd.DataFrame:
    """Compute the share of characters that were read right by where they stand; the key is `position`, from 1."""
    held = pairs[pairs["position"] > 0]
    return _score(held["actual"] == held["predicted"], held["position"])


def score_by_confidence(readings: pd.DataFrame) -> pd.DataFrame:
    """Compute the share of texts that were read right in each of 15 bins of the confidence: a reliability diagram.

    The key is `confidence`, the mean of a bin. Source: Guo et al. 2017, https://arxiv.org/abs/1706.04599
    """
    confidence, bins = readings["confidence"].astype(float), find_bins(readings["confidence"]).rename("bin")
    scores = _score(readings["label"] == readings["text"], bins)
    return scores.assign(bin=confidence.groupby(bins).mean().round(6).to_numpy()).rename(columns={"bin": "confidence"})


def count_confusions(pairs: pd.DataFrame) -> pd.DataFrame:
    """Count what each character was read as.

    Returns:
        `actual`, `predicted`, `count`, `total` (how often `actual` stands in labels) and `share` of the total; sorted, without
        pairs that never occurred. What was put in, read for `NOTHING`, is a share of nothing.
    """
    counts = pairs.groupby(["actual", "predicted"]).size().rename("count").reset_index()
    totals = counts.groupby("actual")["count"].transform("sum").where(counts["actual"] != NOTHING).astype("Int64")
    return counts.assign(total=totals, share=(counts["count"] / totals).round(6))


def find_confusions(readings: pd.DataFrame) -> pd.DataFrame:
    """List every misread character, as `pair_characters` does."""
    pairs = pair_characters(readings[readings["label"] != readings["text"]])
    return pairs[pairs["actual"] != pairs["predicted"]]


def worst_errors(readings: pd.DataFrame, limit: int) -> pd.DataFrame:
    """Return the wrong readings of which the model was most certain, the most certain first."""
    wrong = readings[readings["label"] != readings["text"]]
    return wrong.sort_values(["confidence", "id"], ascending=[False, True]).head(limit)


def _score(right: pd.Series, key: pd.Series) -> pd.DataFrame:
    """Compute the share that is right by a key, with its Wilson interval and count; keys without a sample are left out."""
    counts = right.groupby(key, observed=True).agg(["sum", "count"])
    rows = [
        (
            name,
            round(num_right / num_samples, 6),
            *(round(end, 6) for end in wilson_interval(num_right, num_samples)),
            num_samples,
        )
        for name, num_right, num_samples in zip(counts.index, counts["sum"].tolist(), counts["count"].tolist(), strict=True)
    ]
    return pd.DataFrame(rows, columns=[str(key.name), "accuracy", "low", "high", "samples"])
