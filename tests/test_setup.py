"""Set-up works where people are: odd paths, other projects' settings, no Git repository, no activated environment."""

import hashlib
import os
import shlex
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from checkouts import GIT_ENVIRONMENT
from conftest import ROOT
from dvc.config import Config
from dvc.scm import SCM
from ruamel.yaml import YAML

from captcha_registry.errors import UserError
from examples import demo
from examples.two_teams import run as two_teams

# What users' machines hold; make is to let none of it in.
FOREIGN = {
    **dict.fromkeys(("PIP_USER", "PIP_DRY_RUN", "PYTHONSAFEPATH", "PYTHONOPTIMIZE"), "1"),
    **dict.fromkeys(("PIP_TARGET", "PIP_PREFIX", "PIP_ROOT", "PYTHONPATH"), "/elsewhere"),
    "SHELL": "/bin/false",
    "PYTHONUTF8": "0",
}
# Stands for Python: it notes where it is called, how, and with which settings, and makes an environment of itself.
STUB = """#!/bin/sh
[ "$1" = -c ] && exit 0
{ pwd; for word in "$@"; do echo " $word"; done; env; } >> "$NOTES"
[ "$2" = venv ] && mkdir -p .venv/bin && cp "$0" .venv/bin/python
exit 0
"""


@pytest.fixture(scope="session")
def sources(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The project's files in a folder without Git. Shared: read it, never write to it."""
    root = tmp_path_factory.mktemp("sources")
    for name in demo.list_files():
        if name.split("/")[0] not in {"data", "models", "metrics"}:
            (root / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(ROOT / name, root / name)
    return root


@pytest.fixture
def place_sources(sources: Path, tmp_path: Path) -> Callable[[str], Path]:
    """A function that puts a copy of the project into a folder of a name."""
    return lambda name: Path(shutil.copytree(sources, tmp_path / name))


def make(folder: Path, *arguments: str, **settings: str) -> subprocess.CompletedProcess[str]:
    """Run make as from a shell of a user with other projects."""
    return subprocess.run(
        ["make", *arguments],
        cwd=folder,
        env={"PATH": os.environ["PATH"], "HOME": str(folder), **settings},
        capture_output=True,
        text=True,
        check=False,
    )


def hash_folder(folder: Path) -> dict[str, str]:
    files = [path for path in folder.rglob("*") if path.is_file() and ".git" not in path.parts]
    return {path.relative_to(folder).as_posix(): hashlib.sha256(path.read_bytes()).hexdigest() for path in files}


def test_git_changes_no_byte_of_a_checkout(sources: Path, place_sources: Callable[[str], Path]) -> None:
    origin = place_sources("origin")
    environment = os.environ | GIT_ENVIRONMENT
    for command in (["init", "--quiet"], ["add", "--all"], ["commit", "--quiet", "--message", "project"]):
        subprocess.run(["git", *command], cwd=origin, env=environment, check=True)
    clone = origin.parent / "clone"
    subprocess.run(["git", "clone", "--quiet", "--config", "core.autocrlf=true", origin, clone], env=environment, check=True)
    assert hash_folder(clone) == hash_folder(sources)


@pytest.mark.parametrize("name", ["Mein Übungsordner", "it's #1 of $HOME (100%)", "plain"])
def test_setup_stays_in_the_project_whatever_its_path_and_others_settings(
    place_sources: Callable[[str], Path], tmp_path: Path, name: str
) -> None:
    project, stub = place_sources(name), tmp_path / "python of mine"
    stub.write_text(STUB)
    stub.chmod(0o755)
    done = make(project, "setup", f"PYTHON={stub}", NOTES=str(tmp_path / "notes"), **FOREIGN)
    assert done.returncode == 0, done.stderr
    notes = (tmp_path / "notes").read_text().splitlines()
    assert notes.count(str(project)) == 4, "venv, pip, the packages, the package itself"
    assert notes[notes.index(" --prefix") + 1] == f" {project}/.venv"
    settings = {line for line in notes if line.split("=")[0] in FOREIGN}
    assert settings == {"SHELL=/bin/sh", "PYTHONUTF8=1"}
    assert {path.name for path in tmp_path.iterdir()} == {name, stub.name, "notes"}
    assert make(project, "setup", f"PYTHON={stub}").stdout == "make: Nothing to be done for 'setup'.\n"


def test_a_project_that_was_moved_gets_a_new_environment(place_sources: Callable[[str], Path]) -> None:
    project, python = place_sources("project"), f"PYTHON={sys.executable}"
    (project / ".venv").mkdir()
    (project / ".venv/.installed").write_text(f"{project}\n")
    assert "venv" not in make(project, "--dry-run", "setup", python).stdout
    moved = project.rename(project.parent / "moved to another place")
    assert "venv --clear .venv" in make(moved, "--dry-run", "setup", python).stdout
    (moved / ".venv/.installed").unlink()
    assert "--clear" not in make(moved, "--dry-run", "setup", python).stdout, (
        "an environment that make did not make is not deleted"
    )


def test_an_environment_elsewhere_that_a_link_leads_to_is_left_alone(
    place_sources: Callable[[str], Path], tmp_path: Path
) -> None:
    project, of_others = place_sources("project"), tmp_path / "environment"
    of_others.mkdir()
    (of_others / ".installed").write_text(f"{of_others}\n")
    (project / ".venv").symlink_to(of_others)
    done = make(project, "setup", f"PYTHON={sys.executable}")
    assert done.returncode == 2
    assert "rm .venv" in done.stderr
    assert [path.name for path in of_others.iterdir()] == [".installed"]


@pytest.mark.parametrize("python", ["", "/no/such/python", "/bin/false"])
def test_a_python_that_cannot_do_is_named_in_one_line(place_sources: Callable[[str], Path], python: str) -> None:
    project = place_sources("project")
    done = make(project, "test", f"PYTHON={python}")
    assert done.returncode == 2
    message, end = done.stderr.splitlines()
    assert message.startswith(f"error: {python} is no Python 3.11 to 3.13" if python else "error: found no Python 3.11 to 3.13")
    assert "apt install python3-venv" in message
    assert end.startswith("make: ***")
    assert not (project / ".venv").exists()


def test_make_names_the_place_of_every_program_that_setup_installs() -> None:
    """make 3.81, which comes with macOS, does not find programs through a PATH that a Makefile exports."""
    done = make(ROOT, "--dry-run", "--always-make", "quickstart", "repro", "demo", "test", "bench", "lint", "PYTHON=python3")
    recipes = [shlex.split(line)[0] for line in done.stdout.replace("\\\n", " ").splitlines()]
    installed = {path.name for path in Path(sys.executable).parent.iterdir()} - {"python3"}
    assert len(recipes) > 10
    assert not installed.intersection(recipes)


STAGES = YAML(typ="safe").load(ROOT / "dvc.yaml")


@pytest.mark.parametrize("stage", sorted(STAGES["stages"]))
def test_every_stage_runs_with_the_python_of_the_project(stage: str) -> None:
    definition = STAGES["stages"][stage]
    assert definition.get("do", definition)["cmd"].startswith(f"${{python}} -m stages.{stage}")


def test_a_stage_runs_without_an_activated_environment_and_under_a_safe_path(tmp_path: Path) -> None:
    (tmp_path / ".venv").symlink_to(sys.prefix)
    (tmp_path / "stages").symlink_to(ROOT / "stages")
    command = f"{STAGES['vars'][0]['python']} -m stages.split --help"
    settings = {"PATH": "/usr/bin:/bin", "PYTHONSAFEPATH": "1"}
    done = subprocess.run(["/bin/sh", "-c", command], cwd=tmp_path, env=settings, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith("usage: ")


@pytest.mark.parametrize("example", ["demo.py", "quickstart.py", "two_teams/run.py"])
def test_the_help_of_an_example_starts_nothing(example: str, tmp_path: Path) -> None:
    script = shutil.copytree(ROOT / "examples", tmp_path / "examples") / example
    done = subprocess.run([sys.executable, script, "--help"], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith("usage: ")
    assert not (tmp_path / ".work").exists()


def test_a_download_without_git_is_copied_like_a_clone(
    place_sources: Callable[[str], Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    download = place_sources("download")
    (download / ".venv").mkdir()
    (download / ".venv/python").touch()
    monkeypatch.setattr(demo, "ROOT", download)
    # As in a Git hook of another repository, and with what a user ignores and converts everywhere.
    monkeypatch.setenv("GIT_DIR", str(tmp_path / "elsewhere"))
    monkeypatch.setenv("GIT_DEFAULT_HASH", "sha256")
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path / "config"))
    (tmp_path / "config/git").mkdir(parents=True)
    (tmp_path / "config/git/ignore").write_text("*.yaml\n")
    (tmp_path / "config/git/attributes").write_text("* working-tree-encoding=UTF-16\n")
    demo.copy_project(tmp_path / "copy", {"datasets.digits.count": 50})
    assert "dvc.yaml" in demo.run(["git", "ls-files"], tmp_path / "copy").split()
    assert "objectformat" not in (tmp_path / "copy/.git/config").read_text()
    copied, there = hash_folder(tmp_path / "copy"), hash_folder(download)
    assert set(there) - set(copied) == {".venv/python", "dvc.lock"}
    assert {name for name in copied if copied[name] != there[name]} == {"params.yaml"}
    assert not (tmp_path / "elsewhere").exists()


def test_what_a_user_ignores_everywhere_hides_no_pipeline_from_dvc(place_sources: Callable[[str], Path], tmp_path: Path) -> None:
    project = place_sources("project")
    (tmp_path / "ignored").write_text("*.yaml\n*.lock\n")
    demo.run(["git", "init", "--quiet"], project)
    demo.run(["git", "config", "core.excludesFile", str(tmp_path / "ignored")], project)
    hidden = [name for name in ("dvc.yaml", "dvc.lock", "params.yaml") if SCM(str(project)).is_ignored(str(project / name))]
    assert hidden == ["params.yaml"]


def test_the_examples_take_no_remote_of_the_reader(
    place_sources: Callable[[str], Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    project = place_sources("project")
    path = project / ".dvc/config"
    path.write_text(path.read_text().replace("[core]\n", "[core]\n    remote = mine\n"))
    with path.open("a") as file:
        for name in ("store", "mine"):
            file.write(f"['remote \"{name}\"']\n    url = s3://bucket/{name}\n    profile = mine\n")
    monkeypatch.setattr(demo, "ROOT", project)
    place = tmp_path / "a place with an ä"
    team = two_teams.start_team_a(place)
    config = Config(str(team.root / ".dvc"))
    assert list(config["remote"]) == ["store"]
    assert (config["remote"]["store"]["url"], config["remote"]["store"].get("profile")) == (str(place / "store"), None)
    assert (config["core"]["remote"], config["core"]["autostage"]) == ("store", False)


def test_a_command_of_an_example_that_fails_is_named_in_one_line(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"`git show nothing` in .* ended with exit code 128, see above"):
        demo.run(["git", "show", "nothing"], tmp_path)
