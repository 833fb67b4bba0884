"""The benchmarks: what they refuse, how they compare, and that they run."""

import importlib
import json
import math
import re
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from types import ModuleType
from typing import Any

import pandas as pd
import pytest
from conftest import hash_files, share_workers
from ruamel.yaml import YAML
from test_recognition import uncompiled  # noqa: F401 - a fixture

from benchmarks.cost_model import TERMS, Cost, Job, fit_cost, fit_costs, predict_dataset, recommend_shard_size, relative_errors
from benchmarks.timing import format_table, measure_in_turn, median_rates, median_ratios, parse_arguments
from captcha_registry.dataset.dataset import CaptchaDataset
from captcha_registry.dataset.folder import open_folder
from captcha_registry.dataset.spec import SplitRule
from captcha_registry.errors import UserError
from captcha_registry.generation.executors import local_processes
from captcha_registry.params import read_params
from captcha_registry.recognition.frameworks import keras, tf
from examples.demo import change_params

ROOT = Path(__file__).parent.parent
WAYS = {
    "drawing": ["note", "ours"],
    "feeding": ["note", "ours_first_epoch", "ours_later_epochs"],
    "training_cnn": ["note", "ours_lab", "ours_fast"],
    "training_crnn": ["note", "ours_lab", "ours_fast"],
}


GENERATION_WAYS = {"draw": ["stock", "ours"], "stage": ["note", "ours"], "cores": ["one", "two"], "loop": ["one", "two"]}

# A shard takes 2 s, a sample 1 ms, and 3 s pass before the first.
DRAWING = Cost(fixed=3.0, per_sample=0.001, per_shard=2.0)
SMALL_JOBS = [Job(count, shard_size, workers) for count in (1000, 4000) for shard_size in (50, 500) for workers in (1, 2)]
COSTS = {
    "drawing_seconds": DRAWING,
    "assembling_seconds": Cost(fixed=1.0, per_sample=1e-6, per_shard=0.001),
    "shard_bytes": Cost(per_sample=7000.0),
    "index_bytes": Cost(per_sample=50.0),
    "manifest_bytes": Cost(fixed=1000.0, per_shard=200.0),
    "manifest_memory_bytes": Cost(fixed=5000.0, per_shard=700.0),
}


def run_benchmark(name: str, *arguments: str, folder: Path = ROOT) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, ROOT / "benchmarks" / name, *arguments]
    return subprocess.run(command, cwd=folder, capture_output=True, text=True, check=False)


@pytest.fixture(autouse=True)
def precision() -> Iterator[None]:
    """What a benchmark computes in is left to itself."""
    yield
    keras.config.set_dtype_policy("float32")


@pytest.fixture
def load_benchmark(monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[..., ModuleType]]:
    """A function that imports a benchmark, with the arguments that its `main` will read; what it sets is reset afterwards."""
    monkeypatch.syspath_prepend(ROOT / "benchmarks")
    level = tf.get_logger().level

    def load(name: str, *arguments: str) -> ModuleType:
        monkeypatch.setattr(sys, "argv", [f"{name}.py", *arguments])
        return importlib.import_module(name)

    yield load
    tf.get_logger().setLevel(level)


def find_numbers(value: object) -> list[float]:
    """List all numbers inside a JSON value."""
    if isinstance(value, dict | list):
        return [number for inner in (value.values() if isinstance(value, dict) else value) for number in find_numbers(inner)]
    return [value] if isinstance(value, int | float) else []


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


@pytest.mark.parametrize(("name", "min_samples"), [("lab_note", 128), ("generation", 40)])
def test_benchmark_refuses_too_few_samples_with_exit_code_2(
    load_benchmark: Callable[..., ModuleType], capsys: pytest.CaptureFixture[str], name: str, min_samples: int
) -> None:
    with pytest.raises(SystemExit, match="2"):
        load_benchmark(name, "--samples", "0").main()
    output, errors = capsys.readouterr()
    assert f"--samples: '0' will not do; expected a whole number from {min_samples} to 1,000,000" in errors
    assert not output


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


def test_the_first_way_is_the_baseline_whatever_its_name() -> None:
    assert median_ratios({"step": {"one": [10.0], "two": [19.0], "three": [5.0]}}) == {"step": {"two": 1.9, "three": 0.5}}


def test_a_table_has_columns_of_names_and_then_columns_of_numbers() -> None:
    table = format_table(["step", "way", "rate"], [["draw", "ours", "2.0"]], num_names=2)
    assert table.splitlines() == ["| step | way | rate |", "| --- | --- | ---: |", "| draw | ours | 2.0 |"]


def test_the_model_finds_the_costs_that_made_the_points() -> None:
    found = fit_cost(SMALL_JOBS, [DRAWING.predict(job) for job in SMALL_JOBS], TERMS["drawing_seconds"])
    assert [found.fixed, found.per_sample, found.per_shard] == pytest.approx([3.0, 0.001, 2.0])


def test_the_model_has_no_negative_cost() -> None:
    jobs = [job for job in SMALL_JOBS if job.num_workers == 1]
    measured = [10 + 0.01 * job.count - 0.05 * job.num_shards for job in jobs]
    found = fit_cost(jobs, measured, TERMS["drawing_seconds"])
    assert found.per_shard == 0
    assert found.per_sample > 0


def test_only_drawing_is_divided_among_workers_and_errors_are_relative() -> None:
    points = []
    for job in SMALL_JOBS:
        alone = Job(job.count, job.shard_size)
        sizes = {name: cost.predict(job if name == "drawing_seconds" else alone) for name, cost in COSTS.items()}
        points.append({"count": job.count, "shard_size": job.shard_size, "num_workers": job.num_workers, **sizes})
    costs = fit_costs(points)
    assert costs["manifest_bytes"].per_shard == pytest.approx(200)
    assert all(abs(error) < 1e-6 for point in points for error in relative_errors(costs, point).values())
    doubled = points[0] | {"shard_bytes": 2 * points[0]["shard_bytes"]}
    assert relative_errors(costs, doubled)["shard_bytes_error"] == pytest.approx(-0.5)


@pytest.mark.parametrize(
    ("num_shards", "num_workers", "turns"), [(4, 1, 4), (4, 2, 2), (5, 4, 2), (8, 4, 2), (3, 160, 1), (1, 1, 1)]
)
def test_a_job_takes_as_many_turns_as_its_busiest_worker_has_shards(num_shards: int, num_workers: int, turns: int) -> None:
    assert Cost(per_shard=1.0).predict(Job(10 * num_shards, 10, num_workers)) == pytest.approx(turns)


def test_predicted_bytes_grow_with_the_samples_and_the_manifest_with_the_shards() -> None:
    small, large, coarse = (predict_dataset(COSTS, *size) for size in ((10**7, 5000), (10**9, 5000), (10**9, 100_000)))
    assert [small["shards_gb"], small["index_gb"], small["shard_mb"]] == pytest.approx([70, 0.5, 35])
    assert [large["shards_gb"], large["index_gb"], large["shard_mb"]] == pytest.approx([7000, 50, 35])
    assert [large["shards"], coarse["shards"]] == [200_000, 10_000]
    assert [large["manifest_mb"], coarse["manifest_mb"]] == pytest.approx([40.001, 2.001])


def test_predicted_hours_divide_drawing_but_not_assembling() -> None:
    hours = predict_dataset(COSTS, 16_000_000, 100_000)
    drawing, assembling = 16_000 + 160 * 2.0, 1 + 16 + 0.16
    assert hours["core_hours"] * 3600 == pytest.approx(3 + drawing + assembling)
    assert hours["hours_on_2_cores"] * 3600 == pytest.approx(3 + drawing / 2 + assembling)
    assert hours["hours_on_10_machines_of_16_cores"] * 3600 == pytest.approx(3 + drawing / 160 + assembling)


@pytest.mark.parametrize(("bytes_per_sample", "size"), [(1500, 100_000), (7400, 20_000), (10_000, 20_000), (10**6, 5000)])
def test_the_largest_shard_within_200_mb_is_recommended(bytes_per_sample: float, size: int) -> None:
    assert recommend_shard_size(bytes_per_sample) == size


def test_access_benchmark_reads_opens_and_compares_a_dataset(
    load_benchmark: Callable[..., ModuleType],
    tiny_dataset: CaptchaDataset,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    (tmp_path / "data").mkdir()
    (tmp_path / "data/digits").symlink_to(tiny_dataset.root)
    monkeypatch.chdir(tmp_path)
    load_benchmark("access", "--samples", "10", "--pairs", "1", "--json", "-").main()
    result = json.loads(capsys.readouterr().out)
    rates = result["images_per_second"]
    assert {step: list(ways) for step, ways in rates.items()} == {
        "cold": ["plain", "ours"],
        "cached": ["plain", "ours"],
        "disk": ["one by one", "loop"],
        "remote": ["one by one", "loop"],
        "remote, any order": ["one by one", "loop"],
        "random": ["files", "ours"],
    }
    assert result["rows"] == 60
    assert list(result["seconds"]) == ["import", "open", "diff"]
    assert all(math.isfinite(number) and number > 0 for number in find_numbers([result["images_per_second"], result["seconds"]]))


def test_access_benchmark_without_a_dataset_says_how_to_make_one(
    load_benchmark: Callable[..., ModuleType], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(UserError, match="run `make repro`, or `dvc pull --allow-missing`"):
        load_benchmark("access").main()


def test_verify_benchmark_measures_every_depth_and_a_repair_and_leaves_the_dataset_alone(
    tiny_dataset: CaptchaDataset, tmp_path: Path
) -> None:
    (tmp_path / "data").mkdir()
    (tmp_path / "data/digits").symlink_to(tiny_dataset.root)
    before = hash_files(tiny_dataset.root)
    finished = run_benchmark("verify.py", "--pairs", "1", "--json", "-", folder=tmp_path)
    assert finished.returncode == 0, finished.stderr
    result = json.loads(finished.stdout)
    assert (result["rows"], result["shards"], list(result["seconds"])) == (60, 10, ["quick", "full", "deep", "repair"])
    assert all(math.isfinite(number) and number > 0 for number in find_numbers(result["seconds"]))
    assert hash_files(tiny_dataset.root) == before


TINY_TASK = ["width=40", "height=24", "length=2", "font_sizes=[12]", "dots=0", "count=60", "shard_size=10", 'alphabet="0O1"']
TIMED = ["cnn", "--views", "65", "--points", "2", "--set", "models.cnn.fast.batch_size=16"]
TIMED += ["models.cnn.validation_size=0.2", *(f"datasets.digits.{override}" for override in TINY_TASK)]
DECIDED = "models.cnn.fast.epochs, models.cnn.fast.patience, models.cnn.seed are decided by --views or --seconds, and --seeds"


def import_benchmark(name: str, monkeypatch: pytest.MonkeyPatch, folder: Path) -> ModuleType:
    """Import a benchmark as if it was run in the project's folder, its temporary files elsewhere."""
    monkeypatch.chdir(ROOT)
    monkeypatch.syspath_prepend(ROOT / "benchmarks")
    monkeypatch.setattr(tempfile, "tempdir", str(folder))
    return importlib.import_module(name)


@pytest.mark.slow
def test_time_to_accuracy_spends_its_budget_and_reads_pictures_that_no_training_sees(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    benchmark = import_benchmark("time_to_accuracy", monkeypatch, tmp_path)
    training = importlib.import_module("timed_training")
    for name, value in {"TEST_SAMPLES": 20, "MORE_TEST_SAMPLES": 50, "MORE_ABOVE": -1}.items():
        monkeypatch.setattr(training, name, value)
    with share_workers(
        ThreadPoolExecutor(1), "time_to_accuracy.local_processes", "captcha_registry.generation.fresh.local_processes"
    ):
        result = benchmark.main(benchmark.parse([*TIMED, "--seeds", "4"]))
    (found,) = result["seeds"]
    assert json.loads(json.dumps(result)) == result
    assert (found["seed"], found["views"], found["test_samples"]) == (4, 64, 50)
    assert [point["views"] for point in found["curve"]] == [32, 64]
    assert found["exact_match_low"] <= found["exact_match"] <= found["exact_match_high"]
    assert found["exact_match_0_is_o"] >= found["exact_match"]
    assert list(found["reached"]) == ["98.0%", "99.0%", "99.5%"]
    times = [found[name] for name in ("training_seconds", "compile_seconds", "reading_seconds", "images_per_second")]
    assert all(math.isfinite(value) and value > 0 for value in times)
    (trained_on,) = tmp_path.glob("*/time-to-accuracy/*/split-*")
    (read,) = tmp_path.glob("*/time-to-accuracy/*/50")
    hashes = [set(open_folder(folder).index["pixel_sha256"].to_pylist()) for folder in (trained_on, read)]
    assert not hashes[0] & hashes[1]
    with pytest.raises(UserError, match="65 views are 1 steps of 64; expected 2 or more"):
        benchmark.main(benchmark.parse([*TIMED, "models.cnn.fast.batch_size=64"]))


def test_the_first_point_at_which_enough_was_right_counts(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    find_first = import_benchmark("timed_training", monkeypatch, tmp_path).find_first
    curve = [{"views": n, "seconds": n / 10, "loss": 1.0, "exact_match": share} for n, share in enumerate((0.5, 0.98, 0.9, 0.99))]
    assert find_first(curve, 0.98) == {"views": 1, "seconds": 0.1}
    assert find_first(curve, 0.985) == {"views": 3, "seconds": 0.3}
    assert find_first(curve, 0.995) is None


def test_a_dataset_of_the_project_is_trained_on_if_it_is_of_the_spec(
    tiny_dataset: CaptchaDataset, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    benchmark = import_benchmark("time_to_accuracy", monkeypatch, tmp_path)
    monkeypatch.chdir(tmp_path)
    (tmp_path / "data").mkdir()
    (tmp_path / "data/digits").symlink_to(tiny_dataset.root)
    spec, rule = tiny_dataset.manifest.spec, SplitRule(test_size=0.5, by="shard", seed=1)
    assert benchmark.find_train_samples("digits", spec, rule).root == Path("data/digits")
    other = spec.model_copy(update={"seed": spec.seed + 1, "count": 24})
    made = benchmark.find_train_samples("digits", other, rule)
    assert (made.manifest.spec, len(made.split("test"))) == (other, 12)
    # What was made is kept.
    shutil.rmtree(made.root.parent / "work")
    assert benchmark.find_train_samples("digits", other, rule).root == made.root


@pytest.mark.thorough
@pytest.mark.usefixtures("uncompiled")
@pytest.mark.filterwarnings("ignore:Even though the `tf.config.experimental_run_functions_eagerly` option is set")
def test_input_benchmark_tells_rates_and_how_long_a_network_waits(
    tiny_dataset: CaptchaDataset, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    benchmark = import_benchmark("input", monkeypatch, tmp_path)
    params = read_params()
    model = params["models"]["cnn"]
    model["fast"]["batch_size"] = 8
    (tmp_path / "data").mkdir()
    (tmp_path / "data/digits").symlink_to(tiny_dataset.root)
    monkeypatch.chdir(tmp_path)
    YAML(typ="safe").dump({"models": {"cnn": model}}, tmp_path / "params.yaml")
    monkeypatch.setattr(sys, "argv", ["input.py", "--samples", "40", "--pairs", "1"])
    with share_workers(ThreadPoolExecutor(1), "captcha_registry.generation.fresh.local_processes"):
        result = benchmark.main(parse_arguments("", default_samples=40, min_samples=40))
    alone, waiting = result["medians"].values()
    assert list(alone) == ["cold", "cached", "fresh", "recipe"]
    assert list(waiting) == ["cached", "fresh", "recipe"]
    assert all(rate > 0 for rate in alone.values())
    assert all(0 <= share <= 100 for share in waiting.values())
    assert benchmark.format_result(result).count("\n| cnn, ") == 7


def test_the_error_of_the_pair_is_that_of_its_characters(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    measure = import_benchmark("timed_training", monkeypatch, tmp_path).measure_pair_error
    readings = pd.DataFrame([("0O1", "001"), ("0OA", "0OB"), ("111", "O11")], columns=["label", "text"])
    assert measure(readings, "0O1AB") == 0.25
    assert measure(readings, "01") is None


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("models.cnn.fast.batchsize=3", "models.cnn.fast.batchsize is not a known key; did you mean `batch_size`"),
        ("models.cnn.fast.batch_size=many", "models.cnn.fast.batch_size is 'many'; expected a whole number"),
        ("models.cn.fast.batch_size=3", "--set models.cn.fast.batch_size=3: expected KEY=VALUE with a key of params.yaml"),
        ("models.cnn.seed", "--set models.cnn.seed: expected KEY=VALUE"),
        ("models.cnn.seed=[", "--set models.cnn.seed=[: the value is not valid YAML"),
        ("models.crnn.seed=3", "--set models.crnn.seed=3 changes nothing here; expected a key that starts with models.cnn., "),
        ("models.cnn.fast.epochs=9", f"--set models.cnn.fast.epochs=9 changes nothing here: {DECIDED}"),
        ("models.cnn.fast.patience=9", f"--set models.cnn.fast.patience=9 changes nothing here: {DECIDED}"),
        ("models.cnn.seed=9", f"--set models.cnn.seed=9 changes nothing here: {DECIDED}"),
    ],
    ids=["unknown", "wrong type", "unknown section", "no value", "no YAML", "another model", "epochs", "patience", "seed"],
)
def test_time_to_accuracy_refuses_overrides_that_cannot_be_meant(
    override: str, message: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    benchmark = import_benchmark("time_to_accuracy", monkeypatch, tmp_path)
    with pytest.raises(UserError, match=re.escape(message)):
        benchmark.main(benchmark.parse([*TIMED, override]))


@pytest.mark.thorough
@pytest.mark.usefixtures("uncompiled")
@pytest.mark.filterwarnings("ignore:Even though the `tf.config.experimental_run_functions_eagerly` option is set")
def test_lab_note_benchmark_measures_every_way_of_every_step(
    load_benchmark: Callable[..., ModuleType], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    params = Path(shutil.copy(ROOT / "params.yaml", tmp_path))
    change_params(params, {f"models.{name}.{preset}.batch_size": 4 for name in ("cnn", "crnn") for preset in ("fast", "lab")})
    benchmark = load_benchmark("lab_note", "--samples", "8", "--pairs", "1", "--json", "-")
    monkeypatch.setattr(benchmark, "PARAMS_PATH", params)
    monkeypatch.setattr(benchmark, "MIN_SAMPLES", 4)
    benchmark.main()
    result = json.loads(capsys.readouterr().out)
    assert set(result) == {"command", "date", "machine", "samples", "pairs", "images_per_second", "ratios"}
    assert {step: list(ways) for step, ways in result["images_per_second"].items()} == WAYS
    assert {step: ["note", *ways] for step, ways in result["ratios"].items()} == WAYS
    figures = [value for table in ("images_per_second", "ratios") for ways in result[table].values() for value in ways.values()]
    assert all(math.isfinite(value) and value > 0 for value in figures)


@pytest.mark.thorough
def test_generation_benchmark_measures_both_datasets_and_prints_one_json_object(
    load_benchmark: Callable[..., ModuleType], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    benchmark = load_benchmark("generation", "--samples", "40", "--pairs", "1", "--json", "-")
    smaller: dict[str, Any] = {"NUM_WARM_UPS": 10, "POINT_COUNTS": (1, 2), "POINT_WORKERS": (1,)}
    for name, value in smaller.items():
        monkeypatch.setattr(benchmark, name, value)
    with share_workers(local_processes(2), "generation.local_processes"):
        benchmark.main()
    result = json.loads(capsys.readouterr().out)
    assert list(result["datasets"]) == ["digits", "alnum"]
    for dataset in result["datasets"].values():
        assert {step: list(ways) for step, ways in dataset["images_per_second"].items()} == GENERATION_WAYS
    digits = result["datasets"]["digits"]
    assert all(result[ratio] == digits[ratio]["median"] for ratio in ("draw_ratio", "stage_ratio", "cores_ratio", "loop_ratio"))
    assert [row["samples"] for row in result["memory"]] == [40, 120]
    assert set(result["cost_model"]["terms"]) == set(TERMS)
    assert len(result["png"]) == 26
    assert result["cost_model"]["recommended_shard_size"] == 20_000
    measured = [result["datasets"], result["png"], result["memory"]]
    assert all(math.isfinite(number) and number > 0 for number in find_numbers(measured))
    assert all(map(math.isfinite, find_numbers(result["cost_model"])))
