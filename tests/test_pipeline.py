"""The complete pipeline with the real dvc and git, at a tiny scale, in throwaway repositories."""

import json
import math
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from contextlib import chdir, redirect_stdout
from io import StringIO
from pathlib import Path

import dvc.cli
import pandas as pd
import pytest
from conftest import hash_files, wait_until
from filelock import FileLock
from test_meaning import tidy

import captcha_registry
from benchmarks.timing import on_one_core
from captcha_registry.dataset.dataset import CaptchaDataset
from captcha_registry.dataset.manifest import read_manifest
from examples.demo import change_params, copy_project

pytestmark = pytest.mark.slow

TINY_PARAMS = {
    "datasets.digits.count": 300,
    "datasets.digits.shard_size": 30,
    "datasets.alnum.width": 64,
    "datasets.alnum.height": 32,
    "datasets.alnum.font_sizes": [21, 25, 28],
    "datasets.alnum.count": 300,
    "datasets.alnum.shard_size": 30,
    "models.cnn.fast.epochs": 2,
    "models.cnn.fast.batch_size": 32,
    # The other model draws while it trains, in processes of its own, and has the optimizer that takes longer to compile.
    "models.cnn.fast.fresh": 0.0,
    "models.cnn.fast.optimizer": "adamw",
    "models.crnn.fast.epochs": 1,
    "models.crnn.fast.batch_size": 32,
}
# This one is killed while others draw for it.
BRANCH_PARAMS = {"models.cnn.fast.learning_rates": [1.0e-4], "models.cnn.fast.epochs": 3, "models.cnn.fast.fresh": 0.5}
UNDISTURBED = "Data and pipelines are up to date."
STOPPED = "stopped by SIGTERM; run the same command again to go on\n"


def run(project: Path, *command: str) -> str:
    """Run a command in a project and return its output; its words show up when it fails."""
    done = subprocess.run(command, cwd=project, env=make_environment(), capture_output=True, text=True, check=False)
    assert done.returncode == 0, f"{' '.join(command)}\n{done.stdout}\n{done.stderr}"
    # With that TensorFlow's start-up lines begin.
    assert "absl::InitializeLog" not in done.stderr
    return done.stdout


def run_dvc(project: Path, *arguments: str) -> None:
    """Run `dvc` in this process, which saves its start; what it says is not looked at."""
    with chdir(project), pytest.MonkeyPatch.context() as patch, redirect_stdout(StringIO()) as output:
        for name, value in make_environment().items():
            patch.setenv(name, value)
        code = dvc.cli.main(list(arguments))
    assert code == 0, f"dvc {' '.join(arguments)}\n{output.getvalue()}"


def make_environment() -> dict[str, str]:
    """Return an environment in which `python`, `dvc` and `git` are the ones under test."""
    bin_dir = str(Path(sys.executable).parent)
    names = {"GIT_AUTHOR_NAME": "test", "GIT_AUTHOR_EMAIL": "test@localhost"}
    names |= {"GIT_COMMITTER_NAME": "test", "GIT_COMMITTER_EMAIL": "test@localhost"}
    return os.environ | names | {"PATH": f"{bin_dir}{os.pathsep}{os.environ['PATH']}"}


def commit_all(project: Path) -> None:
    run(project, "git", "add", "--all")
    run(project, "git", "commit", "--quiet", "--message", "results")


def kill_when(project: Path, is_time: Callable[[], bool], *command: str) -> None:
    """Start a command and kill it, with every process that it started, as soon as `is_time` says so."""
    log = project.parent / "killed.log"
    with log.open("w") as output:
        process = subprocess.Popen(
            command,
            cwd=project,
            env=make_environment() | {"PYTHONUNBUFFERED": "1"},
            stdout=output,
            stderr=output,
            start_new_session=True,
        )
    deadline = time.monotonic() + 600
    while not is_time():
        assert process.poll() is None, f"the command ended before it could be killed:\n{log.read_text()}"
        assert time.monotonic() < deadline, f"nothing to interrupt came up:\n{log.read_text()}"
        time.sleep(0.01)
    os.killpg(process.pid, signal.SIGKILL)
    process.wait()


def start_stage(project: Path, stage: str, name: str) -> subprocess.Popen[str]:
    command = [sys.executable, "-u", "-m", f"stages.{stage}", name]
    pipe = subprocess.PIPE
    return subprocess.Popen(command, cwd=project, env=make_environment(), stdout=pipe, stderr=pipe, text=True)


def list_runs(output: str) -> list[str]:
    """List the stages that dvc ran, or would run."""
    return re.findall(r"Running stage '(.+)'", output)


def share(tmp_path_factory: pytest.TempPathFactory, name: str, make: Callable[[Path], object]) -> Path:
    """Make a folder once for all processes of a test run."""
    own = tmp_path_factory.getbasetemp()
    place = (own.parent if "PYTEST_XDIST_WORKER" in os.environ else own) / name
    with FileLock(f"{place}.lock"):
        if not (place / "done").exists():
            shutil.rmtree(place, ignore_errors=True)
            place.mkdir()
            make(place)
            (place / "done").touch()
    return place


@pytest.fixture(scope="session")
def finished(tmp_path_factory: pytest.TempPathFactory, generated_dataset: CaptchaDataset) -> Path:
    """A project in which everything has run and is committed on main. Shared: read it, never write to it."""
    assert generated_dataset, "drawn here, so that a project has compiled code to copy"

    def make(place: Path) -> None:
        project = place / "project"
        copy_project(project, TINY_PARAMS)
        with on_one_core():
            run(project, "dvc", "repro")
        commit_all(project)

    return share(tmp_path_factory, "finished", make) / "project"


@pytest.fixture(scope="session")
def branch(finished: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a `project` on another branch, whose training was killed and run again. Shared: read it, never write to it.

    `work` is what the killed training left, `killed.log` what dvc said until then and `log` what it said when it ran again.
    """

    def make(place: Path) -> None:
        project = Path(shutil.copytree(finished, place / "project", symlinks=True))
        run(project, "git", "switch", "--quiet", "--create", "wider")
        change_params(project / "params.yaml", BRANCH_PARAMS)
        with on_one_core():
            kill_when(project, lambda: any(project.glob(".work/train/cnn/*/epoch-0000[12]")), "dvc", "repro")
            assert not (project / "models/cnn/model.json").exists()
            shutil.copytree(project / ".work", place / "work")
            (place / "log").write_text(run(project, "dvc", "repro"))
        commit_all(project)

    return share(tmp_path_factory, "branch", make)


@pytest.fixture
def project(finished: Path, tmp_path: Path) -> Path:
    """A copy of the finished project that a test may change."""
    return Path(shutil.copytree(finished, tmp_path / "project", symlinks=True))


def test_repro_writes_finite_flat_metrics_for_every_dataset_and_model(finished: Path) -> None:
    metrics = {path.stem: json.loads(path.read_text()) for path in (finished / "metrics").glob("*.json")}
    assert set(metrics) == {"digits", "alnum", "cnn", "crnn"}
    for values in metrics.values():
        assert all(isinstance(value, int | float) and math.isfinite(value) for value in values.values())
    for model in ("cnn", "crnn"):
        scores = metrics[model]
        assert 0 <= scores["exact_match_low"] <= scores["exact_match"] <= scores["exact_match_high"] <= 1
        assert scores["cer"] == pytest.approx(1 - scores["character_accuracy"])
        assert 0 <= scores["expected_calibration_error"] <= 1
        assert ("exact_match_0_is_o" in scores) == (model == "crnn")
        assert scores["test_samples"] == 60
        for picture in ("errors.png", "steps.png"):
            assert (finished / "metrics/plots" / model / picture).stat().st_size > 0
        test = captcha_registry.load(finished / "data" / ("digits" if model == "cnn" else "alnum"), split="test").with_readings(
            finished / "models" / model
        )
        assert len(test.filter("text == label")) / 60 == scores["exact_match"]


def test_repro_ends_with_a_report_of_all_models(finished: Path) -> None:
    report = (finished / "models/report.html").read_text()
    for model in ("cnn", "crnn"):
        scores = json.loads((finished / "metrics" / f"{model}.json").read_text())
        share = f"{scores['exact_match']:.2%}".removesuffix("%")
        assert re.search(rf"<td><code>{model}</code></td><td[^>]*>{share}", report)
    assert len(report) < 3_000_000


def test_repro_again_changes_nothing(project: Path) -> None:
    assert UNDISTURBED in run(project, "dvc", "repro")
    assert run(project, "git", "status", "--porcelain") == ""
    assert "Running stage" not in run(project, "dvc", "repro", "--dry", "--allow-missing")


def test_work_in_progress_is_gone_when_the_pipeline_is_done(finished: Path) -> None:
    # Empty files that keep two runs apart stay.
    assert [path for path in (finished / ".work").rglob("*") if path.is_file() and path.suffix != ".lock"] == []


@pytest.mark.thorough
def test_a_branch_with_another_param_shows_its_change_in_params_metrics_and_plots(branch: Path, tmp_path: Path) -> None:
    project = branch / "project"
    params = json.loads(run(project, "dvc", "params", "diff", "main", "--json"))
    assert params["params.yaml"]["models.cnn.fast.epochs"] == {"old": 2, "new": 3, "diff": 1}
    metrics = json.loads(run(project, "dvc", "metrics", "diff", "main", "--all", "--json"))
    change = metrics["metrics/cnn.json"]["expected_calibration_error"]
    assert change["new"] != change["old"]
    assert change["diff"] == pytest.approx(change["new"] - change["old"])
    run(project, "dvc", "plots", "diff", "main", "--out", str(tmp_path))
    page = (tmp_path / "index.html").read_text()
    for shown in ("Learning curves of all", "cnn: what characters are read as", "crnn: texts read", "steps.png", '"rev": "main"'):
        assert shown in page


@pytest.mark.thorough
def test_another_param_of_a_model_runs_what_depends_on_it(branch: Path) -> None:
    assert list_runs((branch / "killed.log").read_text()) == ["check", "train@cnn"]
    assert list_runs((branch / "log").read_text()) == ["train@cnn", "evaluate@cnn", "report"]


@pytest.mark.thorough
def test_train_killed_and_run_again_has_all_epochs_and_a_complete_history(branch: Path) -> None:
    done = (branch / "log").read_text()
    assert "Epoch 1/3" not in done
    assert "Epoch 3/3" in done
    history = pd.read_csv(branch / "project/models/cnn/history.csv")
    assert history["epoch"].tolist() == [1, 2, 3]
    assert history.notna().all(axis=None)


@pytest.mark.thorough
def test_state_that_other_params_left_behind_is_not_picked_up(branch: Path, tmp_path: Path) -> None:
    project = Path(shutil.copytree(branch / "project", tmp_path / "project", symlinks=True))
    shutil.copytree(branch / "work", project / ".work", dirs_exist_ok=True)
    assert any(project.glob(".work/train/cnn/*/epoch-0000[12]"))
    change_params(project / "params.yaml", {"models.cnn.seed": 7})
    process = start_stage(project, "train", "cnn")
    assert process.stdout
    first = next(line for line in process.stdout if line.startswith("Epoch "))
    process.terminate()
    assert (process.communicate()[1], process.returncode) == (STOPPED, 128 + signal.SIGTERM)
    assert first == "Epoch 1/3\n"


def test_an_evaluation_that_is_stopped_says_so_and_leaves_the_results_as_they_were(project: Path) -> None:
    before = hash_files(project / "models") | hash_files(project / "metrics")
    process = start_stage(project, "evaluate", "cnn")
    wait_until(lambda: "tensorflow" in Path(f"/proc/{process.pid}/maps").read_text(), "the reading", pause_seconds=0.001)
    process.terminate()
    assert (process.communicate()[1], process.returncode) == (STOPPED, 128 + signal.SIGTERM)
    assert hash_files(project / "models") | hash_files(project / "metrics") == before


def test_a_removed_output_comes_back_from_the_run_cache_without_work(project: Path) -> None:
    shutil.rmtree(project / "models/cnn")
    done = run(project, "dvc", "repro")
    assert "Stage 'train@cnn' is cached - skipping run, checking out outputs" in done
    assert "Running stage" not in done
    assert (project / "models/cnn/model.keras").is_file()


def test_a_wrong_param_stops_the_pipeline_before_anything_is_drawn(project: Path) -> None:
    change_params(project / "params.yaml", {"split.test_size": 1.5, "datasets.digits.seed": 7})
    before = hash_files(project / "data")
    done = subprocess.run(["dvc", "repro"], cwd=project, env=make_environment(), capture_output=True, text=True, check=False)
    assert done.returncode != 0
    assert "params.yaml: split.test_size is 1.5; expected less than 1" in done.stderr
    assert hash_files(project / "data") == before

    run(project, "git", "checkout", "--quiet", "params.yaml")
    assert UNDISTURBED in run(project, "dvc", "status")
    assert run(project, "git", "status", "--porcelain") == ""


@pytest.mark.thorough
def test_after_tidying_and_another_constant_runs_what_imports_the_constant(project: Path) -> None:
    for file in ("captcha_registry/workspace.py", "captcha_registry/recognition/training.py", "stages/train.py"):
        (project / file).write_text(tidy((project / file).read_text(encoding="utf-8")), encoding="utf-8")
    network = project / "captcha_registry/recognition/crnn.py"
    text = network.read_text(encoding="utf-8")
    assert "FAST_UNITS = (96,)" in text
    network.write_text(text.replace("FAST_UNITS = (96,)", "FAST_UNITS = (97,)"), encoding="utf-8")
    assert list_runs(run(project, "dvc", "repro", "check")) == ["check"]
    assert list_runs(run(project, "dvc", "repro", "--dry")) == ["train@crnn"]


def test_generate_killed_and_run_again_ends_where_an_undisturbed_run_ends(project: Path) -> None:
    # As in a new checkout that is in the middle of its first run.
    shutil.rmtree(project / ".dvc/cache/runs")
    shutil.rmtree(project / "data/generated/digits")
    command = ("dvc", "repro", "--single-item", "--force", "generate@digits")
    work = project / ".work/generate/digits"
    kill_when(project, lambda: len(list(work.glob("*/*.parquet"))) > 1, *command)
    assert not (project / "data/generated/digits").exists()
    assert list_runs(run(project, *command)) == ["generate@digits"]
    assert run(project, "git", "status", "--porcelain", "dvc.lock") == ""


def list_objects(remote: Path) -> set[str]:
    """List what a DVC remote stores; a name that ends in `.dir` is the listing of a folder."""
    return {"".join(path.parts[-2:]) for path in remote.glob("files/md5/*/*")}


def test_a_dataset_that_grows_keeps_its_shards_and_stores_only_what_is_new(project: Path, tmp_path: Path) -> None:
    run_dvc(project, "remote", "add", "--default", "storage", str(tmp_path / "remote"))
    run_dvc(project, "push")
    stored = list_objects(tmp_path / "remote")
    before = read_manifest(project / "data/digits")

    change_params(project / "params.yaml", {"datasets.digits.count": 360})
    # The check of other counts and its start of TensorFlow are left out.
    run_dvc(project, "repro", "--single-item", "generate@digits", "split@digits")
    run_dvc(project, "push")
    after = read_manifest(project / "data/digits")
    # Their paths say their sides, too.
    assert set(before.shards) < set(after.shards)
    assert len(after.shards) == len(before.shards) + 2
    new = list_objects(tmp_path / "remote") - stored
    # Two shards, stored once for two folders; index and manifest before and after the split.
    assert len([name for name in new if not name.endswith(".dir")]) == 2 + 2 * 2
    sides = {shard.path.split("/")[0] for shard in set(after.shards) - set(before.shards)}
    assert len([name for name in new if name.endswith(".dir")]) == 1 + len(sides)
