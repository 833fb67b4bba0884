"""The same pictures, read at an earlier revision and now: what was fixed, what was broken, and whether that may be chance."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from math import exp, fsum, lgamma, log

import pandas as pd

from captcha_registry.registry.diff import Change


@dataclass(frozen=True)
class Comparison:
    """Two readings of the same pictures.

    Attributes:
        rows: one for each picture that both have read: `id`, `label`, and `text`, `confidence` and `right` of both, with
            `_old` and `_new` at the end of the name.
    """

    rows: pd.DataFrame

    @property
    def fixed(self) -> pd.DataFrame:
        """What was read wrong and is read right now, first what was wrong with the most certainty."""
        rows = self.rows[~self.rows["right_old"] & self.rows["right_new"]]
        return rows.sort_values(["confidence_old", "id"], ascending=[False, True])

    @property
    def broken(self) -> pd.DataFrame:
        """What was read right and is read wrong now, first what is wrong with the most certainty."""
        rows = self.rows[self.rows["right_old"] & ~self.rows["right_new"]]
        return rows.sort_values(["confidence_new", "id"], ascending=[False, True])

    @property
    def p_value(self) -> float:
        """How likely chance alone makes so great a difference."""
        return mcnemar(len(self.fixed), len(self.broken))


@dataclass(frozen=True)
class Changes:
    """What differs between a revision and the files that are here.

    Attributes:
        revision: as it was asked for.
        commit: that it names.
        params: parameters that differ.
        metrics: of each model the metrics that differ.
        comparisons: of each model that both have read the same pictures with.
        lacking: of each other model, why it cannot be compared and what helps.
    """

    revision: str
    commit: str
    params: Sequence[Change]
    metrics: Mapping[str, Sequence[Change]]
    comparisons: Mapping[str, Comparison]
    lacking: Mapping[str, str]


def mcnemar(num_fixed: int, num_broken: int) -> float:
    """Compute the exact p of McNemar's test: that so uneven a division of the changed readings comes of chance, on both sides.

    Source: McNemar 1947, https://doi.org/10.1007/BF02295996
    """
    changed, few = num_fixed + num_broken, min(num_fixed, num_broken)
    # Logarithms, as the numbers of ways have thousands of digits.
    ways = (lgamma(changed + 1) - lgamma(n + 1) - lgamma(changed - n + 1) for n in range(few + 1))
    return min(1.0, 2 * fsum(exp(way - changed * log(2)) for way in ways))


def compare_readings(old: pd.DataFrame, new: pd.DataFrame) -> Comparison:
    """Put the readings of the same samples beside each other; those of which only one has a reading are left out."""
    return Comparison(old.drop(columns="label").merge(new, on="id", suffixes=("_old", "_new")))
