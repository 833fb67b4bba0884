"""The benchmarks: what they refuse, how they compare, and that they run."""

import json
import math
import subprocess
import sys
from pathlib import Path

import pytest

from benchmarks.timing import measure_in_turn, median_rates, median_ratios, parse_arguments

ROOT = Path(__file__).parent.parent
LAB_NOTE = ROOT / "benchmarks" / "lab_note.py"
WAYS = {
    "drawing": ["note", "ours"],
    "feeding": ["note", "ours_first_epoch", "ours_later_epochs"],
    "training_cnn": ["note", "ours_lab", "ours_fast"],
    "training_crnn": ["note", "ours_lab", "ours_fast"],
}


def run_lab_note(*arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run([sys.executable, LAB_NOTE, *arguments], capture_output=True, text=True, check=False)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--samples", "127"], "--samples: '127' will not do; expected a whole number from 128 to 1,000,000"),
        (["--samples", "-5"], "--samples: '-5' will not do"),
        (["--samples", "many"], "--samples: 'many' will not do"),
        (["--pairs", "0"], "--pairs: '0' will not do; expected a whole number from 1 to 100"),
        (["--json", "no/such/folder/out.json"], "--json: 'no/such/folder/out.json' is a folder or lies in none"),
        (["--json", "."], "--json: '.' is a folder or lies in none"),
        (["--speed"], "unrecognized arguments: --speed"),
    ],
    ids=["few samples", "negative", "no number", "no pairs", "no folder", "a folder", "unknown"],
)
def test_senseless_arguments_are_refused_before_any_work(
    arguments: list[str], message: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(sys, "argv", ["lab_note.py", *arguments])
    with pytest.raises(SystemExit, match="2"):
        parse_arguments("", default_samples=2000, min_samples=128)
    assert message in capsys.readouterr().err


def test_lab_note_benchmark_refuses_too_few_samples_with_exit_code_2() -> None:
    refused = run_lab_note("--samples", "0")
    assert refused.returncode == 2
    assert "--samples: '0' will not do; expected a whole number from 128 to 1,000,000" in refused.stderr
    assert not refused.stdout


def test_ways_run_in_turn_and_the_order_turns_round() -> None:
    calls: list[str] = []

    def record(way: str) -> float:
        calls.append(way)
        return 1.0

    measure_in_turn({"step": {"note": lambda: record("note"), "ours": lambda: record("ours")}}, num_pairs=3)
    assert calls == ["note", "ours", "ours", "note", "note", "ours"]


def test_ratios_are_taken_within_a_round_and_rates_over_all() -> None:
    rounds = {"step": {"note": [10.0, 1.0, 10.0], "ours": [20.0, 4.0, 30.0]}}
    assert median_rates(rounds) == {"step": {"note": 10.0, "ours": 20.0}}
    assert median_ratios(rounds) == {"step": {"ours": 3.0}}


@pytest.mark.slow
def test_lab_note_benchmark_measures_every_way_of_every_step() -> None:
    finished = run_lab_note("--samples", "130", "--pairs", "1", "--json", "-")
    assert finished.returncode == 0, finished.stderr
    result = json.loads(finished.stdout)
    assert set(result) == {"command", "date", "machine", "samples", "pairs", "images_per_second", "ratios"}
    assert {step: list(ways) for step, ways in result["images_per_second"].items()} == WAYS
    assert {step: ["note", *ways] for step, ways in result["ratios"].items()} == WAYS
    figures = [value for table in ("images_per_second", "ratios") for ways in result[table].values() for value in ways.values()]
    assert all(math.isfinite(value) and value > 0 for value in figures)
