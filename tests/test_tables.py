"""Tables say where a model errs, and count what they say it of."""

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from rapidfuzz.distance import Levenshtein

from captcha_registry.recognition.scoring import find_bins, find_calibration_error, wilson_interval
from captcha_registry.recognition.tables import (
    align_texts,
    count_confusions,
    find_confusions,
    pair_characters,
    score_by_character,
    score_by_confidence,
    score_by_ink,
    score_by_position,
    worst_errors,
)

TEXTS = st.text("01O", max_size=6)
SCORES = st.lists(st.tuples(st.floats(0, 1), st.booleans()), min_size=1, max_size=40)


def make_readings(pairs: list[tuple[str, str]]) -> pd.DataFrame:
    readings = pd.DataFrame(pairs, columns=["label", "text"])
    confidence = [number / len(pairs) for number in range(len(pairs))]
    return readings.assign(id=range(len(pairs)), confidence=confidence, ink_luminance=[30, 90] * (len(pairs) // 2))


MIXED = make_readings([("A0B1", "AOB1"), ("1234", "124"), ("55", "595"), ("XY", "XY")])


@given(TEXTS, TEXTS)
def test_aligned_texts_are_the_texts_with_as_few_differences_as_there_are_edits(label: str, text: str) -> None:
    pairs = align_texts(label, text)
    assert "".join(actual for actual, _ in pairs) == label
    assert "".join(predicted for _, predicted in pairs) == text
    assert sum(actual != predicted for actual, predicted in pairs) == Levenshtein.distance(label, text)


def test_confusion_names_misread_left_out_and_added_characters() -> None:
    confusions = find_confusions(MIXED)
    assert confusions.to_dict("split")["data"] == [[2, "0", "O"], [3, "3", "none"], [0, "none", "9"]]


def test_confusions_are_counted_over_all_characters_that_labels_hold() -> None:
    counts = count_confusions(pair_characters(MIXED)).set_index(["actual", "predicted"])
    held = counts.drop("none")
    assert held["total"].groupby("actual").first().sum() == sum(map(len, MIXED["label"]))
    assert (held["share"].groupby("actual").sum() == 1).all()
    assert held.loc[("1", "1")].tolist() == [2, 2, 1]
    assert held.loc[("0", "O")].tolist() == [1, 1, 1]
    assert counts.loc[[("none", "9")]].to_csv(header=False) == "none,9,1,,\n"


def test_slices_show_where_the_errors_are() -> None:
    readings = make_readings([("10", "10"), ("1O", "10"), ("11", "11"), ("OO", "OO")])
    pairs = pair_characters(readings)
    ink = score_by_ink(readings).set_index("ink_luminance")
    assert ink[["accuracy", "samples"]].to_dict("index") == {
        "0-39": {"accuracy": 1, "samples": 2},
        "80-119": {"accuracy": 0.5, "samples": 2},
    }
    characters = score_by_character(pairs).set_index("character")
    assert characters.loc["O", "accuracy"] == pytest.approx(2 / 3, abs=1e-6)
    assert characters.loc["O", ["low", "high"]].tolist() == pytest.approx(wilson_interval(2, 3), abs=1e-6)
    assert characters["samples"].to_dict() == {"0": 1, "1": 4, "O": 3}
    assert score_by_position(pairs)[["position", "accuracy", "samples"]].to_numpy().tolist() == [[1, 1, 4], [2, 0.75, 4]]


def test_a_character_that_was_put_in_shifts_no_position() -> None:
    positions = score_by_position(pair_characters(make_readings([("12", "912"), ("12", "13")])))
    assert positions["accuracy"].tolist() == [1, 0.5]


@settings(max_examples=30)
@given(SCORES)
def test_a_reliability_diagram_counts_all_texts_and_is_off_by_the_calibration_error(scores: list[tuple[float, bool]]) -> None:
    confidence, right = (pd.Series(column) for column in zip(*scores, strict=True))
    bins = score_by_confidence(pd.DataFrame({"label": "1", "text": right.map({True: "1", False: "2"}), "confidence": confidence}))
    assert bins["samples"].sum() == len(scores)
    off = ((bins["accuracy"] - bins["confidence"]).abs() * bins["samples"]).sum() / len(scores)
    assert off == pytest.approx(find_calibration_error(confidence, right), abs=2e-6)


def test_a_diagram_and_the_calibration_error_have_the_same_bins_in_either_precision() -> None:
    edges = pd.Series(np.arange(1, 16) / 15, dtype=np.float32)
    rows = pd.DataFrame({"label": "1", "text": "1", "confidence": edges})
    bins = find_bins(edges)
    assert bins.tolist() == find_bins(edges.astype(float)).tolist()
    assert score_by_confidence(rows)["samples"].tolist() == bins.value_counts(sort=False).tolist()
    # All in one bin, of which each is off by as much as by itself.
    right = pd.Series([True] * 15)
    for precision in (np.float32, np.float64):
        assert find_calibration_error(edges.astype(precision), right) == pytest.approx(
            (1 - edges.astype(float)).mean(), abs=1e-12
        )


def test_worst_errors_are_wrong_and_most_certain_first() -> None:
    worst = worst_errors(make_readings([("1", "2"), ("1", "1"), ("1", "3"), ("1", "4")]), limit=2)
    assert worst["text"].tolist() == ["4", "3"]
