"""What `make quickstart` tells a newcomer to type works, word for word, and the README tells the same."""

import io
import shlex
import subprocess
from contextlib import chdir, redirect_stdout
from pathlib import Path

import pytest
from checkouts import Checkout, run_here
from conftest import ROOT

import captcha_registry
from captcha_registry.errors import UserError
from examples import quickstart
from examples.demo import claim

SMALL = {version: count // 10 for version, count in quickstart.VERSIONS.items()}
SHELL, PYTHON = (quickstart.list_commands(quickstart.TRY, prompt) for prompt in ("$", ">>>"))


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a quickstart at a tenth of its size, below a project as always, in which an earlier one was killed."""
    project = tmp_path_factory.mktemp("project with an ä")
    subprocess.run(["git", "init", "--quiet", project], check=True)
    (project / ".dvc").mkdir()
    place = project / quickstart.PLACE.relative_to(ROOT)
    (place / "publisher/.git").mkdir(parents=True)
    (place / "store").touch()
    with (
        redirect_stdout(io.StringIO()) as output,
        pytest.MonkeyPatch.context() as patch,
    ):
        patch.setattr(quickstart, "run", run_here)
        quickstart.main(place, SMALL)
    assert output.getvalue().endswith(quickstart.TRY + "\n")
    return place


def type_in(folder: Path, line: str) -> subprocess.CompletedProcess[str]:
    """Run a line of the shell; what is a command of ours runs in this process, which saves its start."""
    first, *arguments = shlex.split(line)
    if first == "captcha-registry":
        return Checkout(folder).run(*arguments)
    return subprocess.run(["/bin/sh", "-c", line], cwd=folder, capture_output=True, text=True, check=False)


def type_into_python(folder: Path, lines: list[str]) -> str:
    """Run lines as the interactive Python does; return what it prints."""
    with chdir(folder), redirect_stdout(io.StringIO()) as output:
        names: dict[str, object] = {}
        for line in lines:
            exec(compile(line, "<stdin>", "single"), names)  # noqa: S102 - that is what is tested
    return output.getvalue()


@pytest.mark.thorough
def test_every_line_works_as_it_is_typed(place: Path) -> None:
    enter, *commands, python = SHELL
    assert enter == f". .venv/bin/activate && cd {quickstart.PLACE.relative_to(ROOT)}"
    assert python == "python"
    done = [type_in(place, command) for command in commands]
    damaged = next(number for number, command in enumerate(commands) if command.startswith("echo damage")) + 1
    assert [result.returncode for result in done] == [int(number == damaged) for number in range(len(commands))], done
    said = dict(zip(commands, done, strict=True))
    assert commands[damaged] == "captcha-registry verify digits"
    assert all(name in done[0].stdout for name in ("digits", "alnum", "cnn", "crnn", "1.0.0", "1.1.0"))
    assert "calls for MINOR" in said["captcha-registry diff digits@1.0.0 digits@1.1.0 --repo registry.git"].stdout
    assert "test/00003.tfrecord: drawn again" in said["captcha-registry repair digits"].stdout
    (predict,) = [command for command in commands if " predict " in command]
    texts = [line.split(": ")[1].split()[0] for line in said[predict].stdout.splitlines()]
    samples = captcha_registry.load(place / "digits", split="test")
    assert texts == [sample.label for sample in samples if sample.id % 100 == 71], "one for each picture whose number ends in 71"
    assert "(100, 120, 3)" in type_into_python(place, PYTHON)


@pytest.mark.thorough
@pytest.mark.parametrize("name", quickstart.MODELS)
def test_the_models_are_those_of_the_package(place: Path, name: str, tmp_path: Path) -> None:
    registry, reader = str(place / "registry.git"), Checkout(tmp_path)
    model, packaged = captcha_registry.load_model(name, repo=registry), captcha_registry.load_model(quickstart.MODELS[name])
    assert model.card == packaged.card
    picture = captcha_registry.load(packaged.card.dataset, repo=registry)[0].image
    assert model.read(picture) == packaged.read(picture)
    shown = reader.run("show", name, "--repo", registry)
    assert f"of `{packaged.alphabet}` from pictures of {packaged.spec.width}x{packaged.spec.height} pixels" in shown.stdout
    assert reader.run("get", name, "--repo", registry).returncode == 0
    assert captcha_registry.load_model(tmp_path / name).card == packaged.card


@pytest.mark.thorough
def test_the_publisher_goes_on_with_plain_dvc_and_git(place: Path) -> None:
    publisher = Checkout(place / "publisher")
    assert publisher.git("status", "--porcelain") == ""
    assert publisher.git("rev-parse", "--abbrev-ref", "@{upstream}") == "origin/main", "`git push` alone needs it"
    for name, version in (("digits", "1.1.0"), ("cnn", "1.0.1")):
        assert publisher.run("publish", name, version, "--dry-run").returncode == 0


def test_a_place_may_be_a_link_and_is_of_one_run_at_a_time(tmp_path: Path) -> None:
    place, disk = tmp_path / "quickstart", tmp_path / "disk"
    (disk / "store").mkdir(parents=True)
    place.symlink_to(disk)
    with claim(place):
        assert (place.is_symlink(), list(disk.iterdir())) == (True, [])
        (place / "made").touch()
        with pytest.raises(UserError, match=rf"another run is at work in {place}: wait for it to end, or stop it"), claim(place):
            pass
    assert (disk / "made").is_file()


def test_the_ending_fits_a_terminal() -> None:
    lines = quickstart.compose_ending(quickstart.PLACE, 100.0).splitlines()
    assert len(lines) <= 25
    assert max(map(len, lines)) <= 80


def test_the_readme_has_the_same_lines() -> None:
    assert f"```console\n{quickstart.TRY}\n```" in (ROOT / "README.md").read_text(encoding="utf-8")
