"""A run ends with what it came to, on a page of 80 columns."""

import json
import shutil
import subprocess
from pathlib import Path

import pytest

from captcha_registry.dataset.spec import DatasetSpec
from captcha_registry.recognition.card import ModelCard
from captcha_registry.seeing.summary import main

DATASET = {"samples": 1_000_000, "train_samples": 800_000, "test_samples": 200_000, "size_bytes": 7_340_000_000, "labels": 99_999}
MODEL = {
    "exact_match": 0.9936,
    "exact_match_low": 0.99234,
    "exact_match_high": 0.99461,
    "character_accuracy": 0.9984,
    "parameters": 3_157_317,
}


@pytest.fixture
def project(tmp_path: Path, tiny_spec: DatasetSpec) -> Path:
    """A repository with the metrics of a dataset and a model, none of them committed."""
    (tmp_path / "metrics/plots/letters").mkdir(parents=True)
    (tmp_path / "metrics/plots/letters/samples.png").touch()
    (tmp_path / "metrics/letters.json").write_text(json.dumps(DATASET))
    (tmp_path / "metrics/reader.json").write_text(json.dumps(MODEL))
    (tmp_path / "models/reader").mkdir(parents=True)
    known = {"dataset": "letters", "spec": tiny_spec, "dataset_id": "d" * 64, "num_parameters": 1, "model_sha256": "e" * 64}
    card = ModelCard.model_validate({"family": "crnn", "preset": "fast"} | known)
    (tmp_path / "models/reader/model.json").write_text(card.model_dump_json())
    (tmp_path / "data").mkdir()
    (tmp_path / "data/.gitignore").write_text("/letters\n")
    (tmp_path / "dvc.lock").write_text("schema: '2.0'")
    (tmp_path / "params.yaml").write_text("datasets: {letters: {}}\nmodels: {reader: {}}\n")
    (tmp_path / ".gitignore").write_text("models")
    subprocess.run(["git", "init", "--quiet", tmp_path], check=True)
    return tmp_path


def test_datasets_and_models_have_a_table_each_that_fits_80_columns(project: Path, capsys: pytest.CaptureFixture[str]) -> None:
    main(project)
    lines = capsys.readouterr().out.splitlines()
    assert max(map(len, lines)) <= 80
    datasets, models = (line.split() for line in lines[1:5:3])
    assert datasets == ["letters", "1,000,000", "800,000", "200,000", "7,340", "MB", "99,999"]
    assert models == ["reader", "letters", "99.36%", "99.23%", "to", "99.46%", "99.84%", "3,157,317"]
    assert "  metrics/plots/letters/samples.png" in lines
    assert not [line for line in lines if "report" in line]
    (project / "models/report.html").touch()
    main(project)
    assert "Report, for a browser: models/report.html" in capsys.readouterr().out


def test_what_is_not_committed_is_named_until_it_is(project: Path, capsys: pytest.CaptureFixture[str]) -> None:
    subprocess.run(["git", "config", "status.showUntrackedFiles", "no"], cwd=project, check=True)
    main(project)
    command = capsys.readouterr().out.splitlines()[-1].removeprefix("To keep these results: ")
    assert command == "git add data dvc.lock metrics params.yaml && git commit"
    subprocess.run(f"{command} --quiet --message results", shell=True, cwd=project, check=True)  # noqa: S602 - as it says
    main(project)
    assert capsys.readouterr().out.splitlines()[-1] == "Git has these results already: nothing is left to commit."


def test_where_git_cannot_tell_what_is_committed_the_results_are_shown_nevertheless(
    project: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    shutil.rmtree(project / ".git")
    main(project)
    assert capsys.readouterr().out.splitlines()[-1].startswith("Whether these results are committed is not known (`git status`")


def test_a_project_without_models_has_the_table_of_its_datasets(project: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (project / "metrics/reader.json").unlink()
    main(project)
    assert "interval" not in capsys.readouterr().out


def test_what_params_do_not_name_any_more_is_no_result(project: Path, capsys: pytest.CaptureFixture[str]) -> None:
    main(project)
    before = capsys.readouterr().out
    for name, metrics in (("removed", MODEL), ("gone", DATASET)):
        (project / f"metrics/{name}.json").write_text(json.dumps(metrics))
        (project / f"metrics/plots/{name}").mkdir()
        (project / f"metrics/plots/{name}/errors.png").touch()
    main(project)
    assert capsys.readouterr().out == before
