"""The benchmarks run and say what they found."""

import json
import math
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent


def run_benchmark(*arguments: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, str(ROOT / "benchmarks/lab_note.py"), *arguments]
    return subprocess.run(command, capture_output=True, text=True, check=False)


@pytest.mark.parametrize("arguments", [("--samples", "5"), ("--pairs", "0")], ids=["samples", "pairs"])
def test_a_measurement_of_too_little_is_refused(arguments: tuple[str, str]) -> None:
    done = run_benchmark(*arguments)
    assert done.returncode == 2
    assert "expected at least 320 and 1" in done.stderr


@pytest.mark.slow
def test_lab_note_benchmark_measures_every_step_of_both_ways() -> None:
    done = run_benchmark("--samples", "320", "--pairs", "1", "--json", "-")
    assert done.returncode == 0, done.stderr
    result = json.loads(done.stdout)
    rates, ratios = result["images_per_second"], result["ratios"]
    for step in ("drawing", "feeding", "training cnn", "training crnn"):
        assert f"{step}, note" in rates
        assert any(way.startswith(f"{step}, ours") for way in ratios)
    assert all(math.isfinite(rate) and rate > 0 for rate in [*rates.values(), *ratios.values()])
