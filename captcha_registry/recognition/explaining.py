"""Explain wrong readings: draw each such sample again with one thing different, and read it again.

A sample with the text on it that the model had read is its pair. Where the two differ in a few pixels, nobody can be sure which
of them is seen; where the model reads both alike, it cannot tell them apart. A sample that is read right without its curve was
misread for its curve, and so on (`generation.redrawing`); some are so near to being read right that any change cures them.
"""

from collections.abc import Callable, Iterable
from statistics import mean
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
from tqdm import tqdm

from captcha_registry.dataset.explanations import SCHEMA
from captcha_registry.errors import UserError
from captcha_registry.generation.drawing import Captcha, Drawer, describe_pixels
from captcha_registry.generation.redrawing import CAUSES, Redrawing
from captcha_registry.recognition.model import BATCH_SIZE

# The first by id, which are as good as any: up to eight pictures each. A model that has not learned has 20,000.
MAX_EXPLAINED = 1_000
# Errors whose pictures are drawn before they are read: a pair, and one for each cause.
_AT_A_TIME = BATCH_SIZE // (len(CAUSES) + 1)

# Levels of 255 by which two pixels differ visibly. Of a pair almost every pixel of the character differs by some: 0 and O in 750.
VISIBLE_LEVELS = 32
# As many as a dot, which has 8, as three of them and as a dozen.
FEW_PIXELS = (10, 30, 100)

PAIR = "pair"

Row = dict[str, Any]
# Of pictures `(number, height, width, 3)`, their texts.
Read = Callable[[npt.NDArray[np.uint8]], list[str]]


def explain_errors(wrong: pa.Table, drawer: Drawer, read: Read) -> pa.Table:
    """Explain wrong readings, with a progress bar.

    Args:
        wrong: rows of the dataset's index, and in the column `text` what was read.
        drawer: of the dataset.
        read: the model that was wrong.

    Returns:
        A row for each, in order of id, with the columns of `dataset.explanations`; from the 1,001st on nothing is explained.

    Raises:
        UserError: a sample has other pixels when it is drawn here.
    """
    rows = wrong.select(["id", "label", "text", "pixel_sha256"]).sort_by("id").to_pylist()
    chosen, explained = rows[:MAX_EXPLAINED], []
    with tqdm(total=len(chosen), unit=" errors", desc="explaining", disable=None) as progress:
        for start in range(0, len(chosen), _AT_A_TIME):
            some = chosen[start : start + _AT_A_TIME]
            explained += _explain_some(some, drawer, read)
            progress.update(len(some))
    return pa.concat_tables(
        [pa.Table.from_pylist(explained, SCHEMA), leave_unexplained(row["id"] for row in rows[len(chosen) :])]
    )


def leave_unexplained(ids: Iterable[int]) -> pa.Table:
    """Return the rows of wrong readings that nothing is known of."""
    return pa.Table.from_pylist([{"id": sample_id} for sample_id in ids], SCHEMA)


def _explain_some(rows: list[Row], drawer: Drawer, read: Read) -> list[Row]:
    """Draw some errors again in all ways, and read all those pictures at once."""
    drawn = [_draw_otherwise(row, drawer) for row in rows]
    pictures = [captcha.pixels for _, others in drawn for captcha in others.values()]
    texts = iter(read(np.stack(pictures)) if pictures else [])
    explained = []
    for row, (sample, others) in zip(rows, drawn, strict=True):
        readings = dict(zip(others, texts, strict=False))
        explained.append(
            {
                "id": row["id"],
                "pair_text": readings.get(PAIR),
                "pair_pixels": count_visible_differences(sample, others[PAIR]) if PAIR in others else None,
                "cured_by": [cause for cause in CAUSES if readings.get(cause) == row["label"]],
            }
        )
    return explained


def _draw_otherwise(row: Row, drawer: Drawer) -> tuple[Captcha, dict[str, Captcha]]:
    """Draw the sample of an error, its pair if there is one, and the sample without each cause that it has."""
    again = Redrawing(drawer, row["id"])
    sample = again.draw()
    if describe_pixels(sample)["pixel_sha256"] != row["pixel_sha256"]:
        raise UserError(
            f"sample {row['id']} has other pixels when it is drawn here than the index says: install what requirements.lock "
            "names, and look for damage with `captcha-registry verify`"
        )
    others: dict[str, Captcha] = {PAIR: again.draw_pair(row["text"])} if again.can_show(row["text"]) else {}
    without = {cause: again.draw_without(cause) for cause in CAUSES}
    return sample, others | {cause: other for cause, other in without.items() if (other.pixels != sample.pixels).any()}


def count_visible_differences(one: Captcha, other: Captcha) -> int:
    """Count the pixels in which two pictures differ visibly: by more than 32 levels of 255 in a channel."""
    levels = np.abs(one.pixels.astype(np.int16) - other.pixels).max(axis=2)
    return int(np.count_nonzero(levels > VISIBLE_LEVELS))


def sum_up_explanations(explained: pa.Table, wrong: pa.Table) -> dict[str, float | int]:
    """Sum up what explains errors.

    Args:
        explained: what `explain_errors` returned.
        wrong: what it was given.

    Returns:
        errors_explained, their number. If there are any, errors_cured_by_<cause>: the share of them that is read right without
        that. If any of them have pairs, of those: pairs_under_<few>_pixels, the share that differs visibly in fewer pixels, and
        pairs_read_as_drawn, the share of which the pair is read right, and so both as one text.
    """
    known = [row for row in explained.to_pylist() if row["cured_by"] is not None]
    sums: dict[str, float | int] = {"errors_explained": len(known)}
    if known:
        sums |= {f"errors_cured_by_{cause}": _share(cause in row["cured_by"] for row in known) for cause in CAUSES}
    drawn = dict(zip(wrong["id"].to_pylist(), wrong["text"].to_pylist(), strict=True))
    pairs = [row for row in known if row["pair_pixels"] is not None]
    if pairs:
        sums |= {f"pairs_under_{few}_pixels": _share(row["pair_pixels"] < few for row in pairs) for few in FEW_PIXELS}
        sums["pairs_read_as_drawn"] = _share(row["pair_text"] == drawn[row["id"]] for row in pairs)
    return sums


def _share(hits: Iterable[bool]) -> float:
    return round(float(mean(hits)), 6)
