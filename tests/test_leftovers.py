"""A dataset or model that is deleted from params.yaml leaves nothing behind without telling."""

import difflib
import re
from contextlib import chdir
from pathlib import Path

import pytest
from conftest import ROOT
from ruamel.yaml import YAML

from captcha_registry.errors import UserError
from captcha_registry.leftovers import find_leftovers, remove_leftover
from examples.demo import change_params
from stages import check

DATASET, MODEL = "alnum", "crnn"


@pytest.fixture
def project(tmp_path: Path) -> Path:
    """This project as a clone has it after `dvc checkout`: every output is there, though its bytes are not."""
    for name in ("params.yaml", "dvc.yaml", "dvc.lock"):
        (tmp_path / name).write_bytes((ROOT / name).read_bytes())
    for path in list_outs(tmp_path):
        (tmp_path / path).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / path).mkdir() if is_folder(path) else (tmp_path / path).touch()
        ignored = tmp_path / path
        with (ignored.parent / ".gitignore").open("a") as file:
            file.write(f"/{ignored.name}\n")
    return tmp_path


def is_folder(path: str) -> bool:
    return Path(path).name in {"train", "test", "tools"} or "generated" in path


def list_outs(project: Path) -> list[str]:
    """List the outputs in dvc.lock."""
    stages = YAML(typ="safe").load(project / "dvc.lock")["stages"]
    return [out["path"] for stage in stages.values() for out in stage.get("outs", [])]


def delete_names(project: Path) -> None:
    """Delete a dataset and the model of it from params.yaml, as a person does."""
    yaml = YAML()
    params = yaml.load(project / "params.yaml")
    del params["datasets"][DATASET], params["models"][MODEL]
    yaml.dump(params, project / "params.yaml")


def list_mentions(project: Path, name: str) -> list[str]:
    """List the files that name something in their path or their lines."""
    paths = [path for path in project.rglob("*") if path.name != "params.yaml"]
    texts = {str(path.relative_to(project)): path.read_text() if path.is_file() else "" for path in paths}
    return [path for path, text in texts.items() if name in Path(path).parts or f"{name}." in path or f"/{name}" in text]


def test_nothing_is_left_of_what_params_names(project: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with chdir(project):
        check.tell_leftovers()
    assert capsys.readouterr().err == ""


def test_the_check_says_what_is_left_and_the_command_that_removes_all_of_it(
    project: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    delete_names(project)
    with chdir(project):
        check.tell_leftovers()
        said = capsys.readouterr().err.splitlines()
        assert [line.split("`python -m stages.check --remove ")[1].split("`")[0] for line in said] == [DATASET, MODEL]
        for place in (f"data/{DATASET}, data/generated/{DATASET}, metrics/{DATASET}.json", f"artifacts.{DATASET} in dvc.yaml"):
            assert place in said[0]
        for place in (
            f"models/{MODEL}, ",
            f"train@{MODEL} and evaluate@{MODEL} in dvc.lock",
            f"plots/{MODEL}/learning_curves.csv",
        ):
            assert place in said[1]
        check.remove(DATASET)
        check.remove(MODEL)
        capsys.readouterr()
        check.tell_leftovers()
    assert capsys.readouterr().err == ""
    assert list_mentions(project, DATASET) == list_mentions(project, MODEL) == []
    assert all((project / path).exists() for path in list_outs(project)), "what the others wrote stays"


def test_nothing_is_left_in_a_clone_that_has_fetched_no_data(project: Path) -> None:
    for out in (project / path for path in list_outs(project)):
        if out.is_relative_to(project / "data") or out.is_relative_to(project / "models"):
            out.rmdir() if out.is_dir() else out.unlink()
    delete_names(project)
    with chdir(project):
        check.remove(DATASET)
        check.remove(MODEL)
    assert list_mentions(project, DATASET) == list_mentions(project, MODEL) == []
    assert "/digits" in (project / "data/generated/.gitignore").read_text(), "what others wrote stays"


def test_all_else_in_dvc_yaml_stays_as_it_was_written(project: Path) -> None:
    delete_names(project)
    with chdir(project):
        check.remove(MODEL)
    before, after = ((place / "dvc.yaml").read_text().splitlines() for place in (ROOT, project))
    changed = [line for line in difflib.ndiff(before, after) if not line.startswith(" ")]
    assert [line.partition("desc:")[0].rstrip() for line in changed] == [
        f"-         metrics/plots/{MODEL}/learning_curves.csv: val_exact_match",
        f"-   {MODEL}:",
        f"-     path: models/{MODEL}",
        "-     type: model",
        "-",
    ]


@pytest.mark.parametrize(
    ("before", "after"),
    [
        pytest.param(
            "# a\nartifacts:\n  # b\n  old:\n    # c\n    path: models/old\n\n  new:   {path: models/new} # d\n",
            "# a\nartifacts:\n  # b\n  new:   {path: models/new} # d\n",
            id="one of two",
        ),
        pytest.param("artifacts:\n  old:\n    path: models/old\n\nstages: {}\n\n# end", "stages: {}\n\n# end", id="the only one"),
        pytest.param("stages: {}\n\nartifacts:\n  old: {path: models/old}\n\n", "stages: {}\n", id="the end"),
        pytest.param(
            "plots:\n- a.csv\n- old:\n    y:\n      metrics/plots/old/a.csv: b\n- {c: {}}\n",
            "plots:\n- a.csv\n- {c: {}}\n",
            id="plots that are a name or between braces",
        ),
        pytest.param(
            "artifacts: {old: {path: models/old}, new: {path: models/new}}\n",
            "artifacts: {new: {path: models/new}}\n",
            id="on the line of another",
        ),
        pytest.param(
            "artifacts:\n  old: {path: models/old}\n  none:\n  pathless: {}\n",
            "artifacts:\n  none:\n  pathless: {}\n",
            id="artifacts without a path",
        ),
    ],
)
def test_only_the_lines_of_what_is_removed_go(tmp_path: Path, before: str, after: str) -> None:
    with chdir(tmp_path):
        Path("dvc.yaml").write_text(before)
        Path("dvc.lock").write_text("schema: '2.0'\nstages: {train@old: {cmd: x}}\n")
        remove_leftover(find_leftovers({"datasets": [], "models": ["new"]})["old"])
        assert Path("dvc.yaml").read_text() == after


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("<<<<<<< HEAD\nstages:\n", r"is not valid YAML \(.*\): correct it, or .* `git checkout HEAD -- dvc.lock`"),
        ("- x\n", "holds a list; expected sections such as `stages:`"),
    ],
)
def test_a_file_of_dvc_that_cannot_be_read_is_named(tmp_path: Path, content: str, message: str) -> None:
    (tmp_path / "dvc.lock").write_text(content)
    with chdir(tmp_path), pytest.raises(UserError, match=message):
        find_leftovers({"datasets": [], "models": []})


def test_what_others_put_beside_an_output_stays(project: Path) -> None:
    delete_names(project)
    (project / f"models/{MODEL}/notes.txt").touch()
    with chdir(project):
        check.remove(MODEL)
    assert [path.name for path in (project / f"models/{MODEL}").iterdir()] == ["notes.txt"]


def test_data_that_no_stage_of_ours_made_is_not_left_over(project: Path) -> None:
    (project / "data/imported").mkdir()
    (project / "data/imported/notes.txt").touch()
    change_params(project / "dvc.yaml", {"artifacts.imported": {"path": "data/imported", "type": "dataset"}})
    with chdir(project):
        assert find_leftovers(YAML(typ="safe").load(project / "params.yaml")) == {}


def test_an_artifact_of_a_name_that_was_never_made_is_told(project: Path) -> None:
    (project / "dvc.lock").unlink()
    change_params(project / "dvc.yaml", {"artifacts.old": {"path": "models/old", "type": "model"}})
    (project / "models/old").mkdir(parents=True)
    with chdir(project):
        (leftover,) = find_leftovers(YAML(typ="safe").load(project / "params.yaml")).values()
    assert str(leftover) == "artifacts.old in dvc.yaml"


def test_what_is_left_of_a_model_is_removed_beside_a_dataset_of_its_name(project: Path) -> None:
    yaml = YAML()
    params = yaml.load(project / "params.yaml")
    del params["models"][MODEL]
    params["datasets"][MODEL] = dict(params["datasets"][DATASET])
    yaml.dump(params, project / "params.yaml")
    with chdir(project):
        check.remove(MODEL)
    assert not (project / "models" / MODEL / "model.keras").exists()


@pytest.mark.parametrize(
    ("name", "message"),
    [
        (MODEL, f"params.yaml still names '{MODEL}': delete models.{MODEL} there, then run this again"),
        ("digits", "params.yaml still names 'digits': delete datasets.digits there, then run this again"),
        ("none-such", "nothing is left of 'none-such', and params.yaml does not name it: check the name"),
    ],
)
def test_what_params_names_is_not_removed(project: Path, name: str, message: str) -> None:
    with chdir(project), pytest.raises(UserError, match=re.escape(message)):
        check.remove(name)
    assert all((project / path).exists() for path in list_outs(project))
