"""The base install reads, verifies, fetches, publishes and exports; what it lacks is named, with a line that works as typed."""

import ast
import importlib
import json
import os
import re
import shlex
import shutil
import subprocess
import sys
import tomllib
from dataclasses import dataclass
from importlib.metadata import packages_distributions
from pathlib import Path

import pytest
from checkouts import Checkout
from conftest import ROOT
from packaging.requirements import Requirement

from captcha_registry.cli import main
from captcha_registry.dataset.dataset import CaptchaDataset
from captcha_registry.errors import UserError
from captcha_registry.extras import advise_install, needs
from captcha_registry.registry.loading import load

PACKAGE = ROOT / "captcha_registry"
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
BASE = {Requirement(line).name for line in PROJECT["dependencies"]}
EXTRAS = {name: {Requirement(line).name for line in lines} for name, lines in PROJECT["optional-dependencies"].items()}
DISTRIBUTIONS = {top: {name.lower() for name in names} for top, names in packages_distributions().items()}
# A name space that many share, and what never comes without pydantic.
DISTRIBUTIONS |= {"google": {"protobuf"}, "pydantic_core": {"pydantic"}}
# What is imported when its framework is asked for.
BRIDGES = {"quiet_tensorflow.py", "tensorflow_batches.py", "torch_samples.py"}


def find_module_imports(path: Path) -> set[str]:
    """Find the modules that a file imports when it is imported itself: not in functions, not for type checkers."""
    names: set[str] = set()
    waiting: list[ast.AST] = [ast.parse(path.read_text(encoding="utf-8"))]
    while waiting:
        node = waiting.pop()
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            names |= {node.module} | {f"{node.module}.{alias.name}" for alias in node.names}
        elif not isinstance(node, ast.FunctionDef) and not (isinstance(node, ast.If) and "TYPE_CHECKING" in ast.dump(node.test)):
            waiting += ast.iter_child_nodes(node)
    return names


def find_base_files() -> set[Path]:
    """Find every file of the package that one of its commands or its front door imports before any extra is asked for."""
    found: set[Path] = set()
    waiting = [PACKAGE / "cli.py", PACKAGE / "__init__.py", *(PACKAGE / "registry").glob("*.py")]
    while waiting:
        found.add(path := waiting.pop())
        candidates = {ROOT / Path(*name.split(".")).with_suffix(".py") for name in find_module_imports(path)}
        waiting += [candidate for candidate in candidates - found if candidate.is_file()]
    return found


def find_distributions(path: Path) -> set[str]:
    """Find the distributions from which a file imports when it is imported itself."""
    tops = {name.split(".")[0] for name in find_module_imports(path)} - sys.stdlib_module_names - {"captcha_registry"}
    return set().union(*(DISTRIBUTIONS[top] for top in tops))


def test_what_the_base_install_imports_is_among_its_dependencies() -> None:
    files = find_base_files()
    assert len(files) > 20
    for path in files:
        assert find_distributions(path) <= BASE, path


@pytest.mark.parametrize(
    ("room", "extras"),
    [
        pytest.param("dataset", (), id="dataset"),
        pytest.param("registry", (), id="registry"),
        pytest.param("describing", (), id="describing"),
        pytest.param("commands", (), id="commands"),
        pytest.param("generation", ("draw",), id="generation"),
        pytest.param("recognition", ("train",), id="recognition"),
        pytest.param("seeing", ("report",), id="seeing"),
    ],
)
def test_a_room_imports_the_base_and_its_own_extra(room: str, extras: tuple[str, ...]) -> None:
    allowed = BASE.union(*(EXTRAS[extra] for extra in extras))
    for path in (PACKAGE / room).rglob("*.py"):
        assert path.name in BRIDGES or find_distributions(path) <= allowed, path


def test_the_development_install_brings_every_extra_but_two_that_take_gigabytes() -> None:
    everything = {name for line in PROJECT["optional-dependencies"]["all"] for name in Requirement(line).extras}
    assert everything == set(EXTRAS) - {"all", "dev", "docs", "gpu", "torch"}
    assert "captcha-registry[all,docs]" in PROJECT["optional-dependencies"]["dev"]


def advised_command(message: str) -> list[str]:
    """Return the command that a message says to type."""
    return shlex.split(message.split("`")[1])


def test_a_repair_without_the_drawing_packages_names_all_of_them(
    dataset_copy: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    for module in ("repair", "drawing", "pixels"):
        monkeypatch.delitem(sys.modules, f"captcha_registry.generation.{module}", raising=False)
    monkeypatch.setitem(sys.modules, "numba", None)
    with pytest.raises(SystemExit, match="2"):
        main(["repair", str(dataset_copy)])
    message = capsys.readouterr().err
    assert message.startswith("error: repair needs the package numba, which is not installed: `")
    assert message.count("\n") == 1
    *tool, captcha, numba, _, zlib_ng = advised_command(message)
    assert tool == [sys.executable, "-m", "pip", "install"]
    assert (Requirement(captcha).name, numba, Requirement(zlib_ng).name) == ("captcha", "numba>=0.68", "zlib-ng")


@pytest.mark.parametrize("package", ["numba", "psutil", "vl_convert"])
def test_a_pipeline_without_its_packages_names_them_and_what_brings_them(monkeypatch: pytest.MonkeyPatch, package: str) -> None:
    monkeypatch.delitem(sys.modules, "stages", raising=False)
    monkeypatch.setitem(sys.modules, package, None)
    with pytest.raises(
        SystemExit, match=rf"^error: the pipeline needs {package}, not installed for .*: run `make repro`"
    ) as caught:
        importlib.import_module("stages")
    assert shlex.split(str(caught.value).split("`")[3])[1:] == ["-m", "pip", "install", "--editable", ".[all]"]


@pytest.mark.parametrize(
    ("package", "method", "requirement"),
    [
        pytest.param("tensorflow", lambda dataset: dataset.to_tf(batch_size=2), "tensorflow<2.22,>=2.21", id="to_tf"),
        pytest.param("torch", CaptchaDataset.to_torch, "torch>=2.8", id="to_torch"),
        pytest.param("datasets", CaptchaDataset.to_huggingface, "datasets>=4", id="to_huggingface"),
    ],
)
def test_a_framework_that_is_not_installed_is_named_with_its_releases(
    tiny_dataset: CaptchaDataset, monkeypatch: pytest.MonkeyPatch, package: str, method: object, requirement: str
) -> None:
    for module in ("quiet_tensorflow", "tensorflow_batches", "torch_samples"):
        monkeypatch.delitem(sys.modules, f"captcha_registry.dataset.{module}", raising=False)
    monkeypatch.setitem(sys.modules, package, None)
    with pytest.raises(UserError, match=f" needs the package {package}, which is not installed") as caught:
        method(load(tiny_dataset.root))  # type: ignore[operator]
    assert advised_command(str(caught.value))[-1] == requirement


def test_an_environment_without_pip_is_filled_by_uv(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("captcha_registry.extras.util.find_spec", lambda _: None)
    assert shlex.split(advise_install("dvc-s3").strip("`")) == [
        *("uv", "pip", "install", "--python", sys.executable),
        "dvc-s3>=3.2",
    ]


def test_an_error_in_an_installed_package_is_not_taken_for_a_missing_one() -> None:
    with pytest.raises(ImportError, match="broken"), needs("to_torch"):
        raise ImportError("libtorch.so is broken")


def test_the_version_is_told(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit, match="0"):
        main(["--version"])
    assert re.fullmatch(r"captcha-registry \d+\.\d+\.\d+\n", capsys.readouterr().out)


def run_apart(command: list[str], folder: Path) -> subprocess.CompletedProcess[str]:
    """Run a command that finds nothing of this checkout."""
    environment = {name: value for name, value in os.environ.items() if name not in {"PYTHONPATH", "PYTHONDONTWRITEBYTECODE"}}
    return subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True, check=False)


@pytest.fixture(scope="session")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The wheel of the package, which does for every Python."""
    place = tmp_path_factory.mktemp("wheel")
    (place / "source").mkdir()
    for name in ("pyproject.toml", "README.md", "LICENSE"):
        shutil.copy(ROOT / name, place / "source")
    shutil.copytree(PACKAGE, place / "source/captcha_registry", ignore=shutil.ignore_patterns("__pycache__"))
    done = run_apart([sys.executable, "-m", "pip", "wheel", "--quiet", "--no-deps", "--wheel-dir", ".", "./source"], place)
    assert done.returncode == 0, done.stdout + done.stderr
    (built,) = place.glob("*.whl")
    return built


@dataclass(frozen=True)
class Base:
    """An environment with the wheel and its dependencies alone, in a folder far from the checkout."""

    place: Path

    @classmethod
    def create(cls, python: str, place: Path, wheel: Path) -> "Base":
        """Install the wheel with the releases of the lock file."""
        base = cls(place)
        subprocess.run([python, "-m", "venv", "--without-pip", place / "venv"], check=True)
        locked = re.sub(r"( \\\n +--hash=\S+)+", "", (ROOT / "requirements.lock").read_text(encoding="utf-8"))
        (place / "constraints.txt").write_text(locked)
        # With our pip, as that of an older Python takes twice the time. What is imported is compiled then, the rest never.
        pip = [sys.executable, "-m", "pip", "--python", str(place / "venv/bin/python")]
        install = ["install", "--quiet", "--no-compile", "--constraint", "constraints.txt", "pip", str(wheel)]
        done = run_apart([*pip, *install], place)
        assert done.returncode == 0, done.stdout + done.stderr
        return base

    def run(self, program: str, *arguments: str, cwd: Path | None = None) -> subprocess.CompletedProcess[str]:
        """Run a program of the environment."""
        command = [str(self.place / "venv/bin" / program), *arguments]
        return run_apart(command, cwd or self.place)

    def run_ok(self, program: str, *arguments: str, cwd: Path | None = None) -> str:
        done = self.run(program, *arguments, cwd=cwd)
        assert done.returncode == 0, done.stdout + done.stderr
        return done.stdout


# What the wheels hold; the bytecode that Python adds at its own discretion is not counted, nor what the environment came with.
SIZE = """
from importlib.metadata import distributions
files = [f for d in distributions() if d.name not in {"pip", "setuptools"} for f in d.files or () if f.suffix != ".pyc"]
print(sum(f.locate().stat().st_size for f in files if f.locate().is_file()))
"""
# One start for many commands; two more below are started by their program.
RUN_ALL = """
import json, sys
from captcha_registry.cli import main
for command in json.loads(sys.argv[1]):
    try:
        main(command)
    except SystemExit as end:
        assert not end.code, command
"""
LOAD = """
import sys
import captcha_registry
folder, repo = sys.argv[1:]
samples = captcha_registry.load(folder, split="test")
images, labels = samples[:4].to_numpy()
published = captcha_registry.load("tiny", repo=repo, version="1.0.0", split="test")
assert [published[i].label for i in range(4)] == list(labels) and (published[0].image == images[0]).all()
assert not {"tensorflow", "keras", "numba", "pandas", "sklearn", "captcha"} & set(sys.modules)
"""


@pytest.mark.peers
@pytest.mark.slow
@pytest.mark.parametrize("python", ["the one of this run", "the newest"])
def test_the_base_install_reads_verifies_fetches_publishes_and_exports(
    python: str, wheel: Path, published: Checkout, tiny_dataset: CaptchaDataset, tmp_path: Path
) -> None:
    newest = os.environ.get("NEWEST_PYTHON")
    if python == "the newest" and not newest:
        pytest.skip("no Python beside this one; name one in NEWEST_PYTHON")
    base = Base.create(str(newest) if python == "the newest" else sys.executable, tmp_path, wheel)
    assert 100e6 < int(base.run_ok("python", "-c", SIZE)) < 400e6

    base.run_ok("captcha-registry", "--help")
    base.run_ok("captcha-registry", "--version")
    asked = (["list"], ["show", "tiny@1.0.0"], ["get", "tiny@1.0.0"], ["diff", "tiny@1.0.0", "tiny@1.1.0"])
    calls = [[*command, "--repo", published.origin] for command in asked]
    calls += [["verify", "tiny", "--depth", depth] for depth in ("quick", "full", "deep")]
    calls += [
        ["export", "tiny", "--format", kind, "--to", kind]
        for kind in ("images", "numpy", "webdataset", "tfrecord", "huggingface")
    ]
    base.run_ok("python", "-c", RUN_ALL, json.dumps(calls))
    base.run_ok("python", "-c", LOAD, "tiny", published.origin)

    (tmp_path / "own").mkdir()
    own = Checkout.create(tmp_path / "own")
    own.make(tiny_dataset.root)
    base.run_ok("captcha-registry", "publish", "tiny", "1.0.0", cwd=own.root)

    refused = base.run("captcha-registry", "repair", "tiny")
    assert refused.returncode == 2
    program, *arguments = advised_command(refused.stderr)
    assert program == str(tmp_path / "venv/bin/python")
    base.run_ok("python", *arguments, "--dry-run", "--quiet")

    predict = ("predict", str(ROOT / "metrics/plots/digits/samples.png"), "--resize", "--model", "digits")
    refused = base.run("captcha-registry", *predict)
    assert refused.returncode == 2
    base.run_ok("python", *advised_command(refused.stderr)[1:], "--quiet", "--no-compile", "--constraint", "constraints.txt")
    assert base.run_ok("captcha-registry", *predict).startswith(f"{predict[1]}: ")
