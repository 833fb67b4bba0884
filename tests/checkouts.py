"""Repositories of people who publish: real Git with a bare origin, real DVC with a remote, one artifact `tiny`."""

import os
import shutil
import subprocess
from contextlib import chdir, redirect_stderr, redirect_stdout
from dataclasses import dataclass
from io import StringIO
from pathlib import Path

import dvc.cli
import pytest
from processes import Process
from ruamel.yaml import YAML

from captcha_registry.cli import main
from examples.demo import SETTINGS
from examples.demo import run as run_apart

# Whatever the machine's own Git settings are.
GIT_ENVIRONMENT = {
    "GIT_CONFIG_GLOBAL": str(Path(__file__).with_name("gitconfig")),
    "GIT_CONFIG_NOSYSTEM": "1",
    "GIT_DEFAULT_HASH": "sha1",
    "GIT_DEFAULT_REF_FORMAT": "files",
    "GIT_AUTHOR_NAME": "A. Uthor",
    "GIT_AUTHOR_EMAIL": "author@localhost",
    "GIT_COMMITTER_NAME": "A. Uthor",
    "GIT_COMMITTER_EMAIL": "author@localhost",
    "DVC_NO_ANALYTICS": "1",
}
OUTPUTS = ("train", "test", "index.parquet", "manifest.json", "README.md")


def run_here(command: list[str], folder: Path) -> str:
    """Run a command as the examples do, but DVC's and ours in this process, which saves their start."""
    program, *arguments = command
    if program not in {"captcha-registry", "dvc"}:
        return run_apart(command, folder)
    with chdir(folder), pytest.MonkeyPatch.context() as patch:
        for name, value in SETTINGS.items():
            patch.setenv(name, value)
        if program == "dvc":
            code = dvc.cli.main(arguments)
        else:
            with pytest.raises(SystemExit) as end:
                main(arguments)
            code = int(end.value.code or 0)
    assert code == 0, command
    return ""


@dataclass(frozen=True)
class Checkout:
    """A clone of `origin` in which one stage copies a dataset to data/tiny, the path of the artifact `tiny`."""

    root: Path

    @property
    def origin(self) -> str:
        return (self.root.parent / "origin.git").as_uri()

    @property
    def remote(self) -> Path:
        """Where DVC pushes to, unless a test says otherwise."""
        return self.root.parent / "remote"

    @classmethod
    def create(cls, parent: Path, *remote_options: str) -> "Checkout":
        """Make an empty repository below a folder, with its origin; `remote_options` are those of `dvc remote add`."""
        checkout = cls(parent / "checkout")
        subprocess.run(["git", "init", "--quiet", "--bare", "--initial-branch=main", parent / "origin.git"], check=True)
        subprocess.run(["git", "init", "--quiet", "--initial-branch=main", checkout.root], check=True)
        checkout.git("remote", "add", "origin", checkout.origin)
        checkout.dvc("init", "--quiet")
        checkout.dvc("remote", "add", "--quiet", "--default", "store", *(remote_options or [str(checkout.remote)]))
        return checkout

    def copy_to(self, parent: Path) -> "Checkout":
        """Copy it to a folder, with its origin and its remote, for a test that changes it."""
        shutil.copytree(self.root.parent, parent, symlinks=True, dirs_exist_ok=True)
        copy = Checkout(parent / "checkout")
        for name in (".git/config", ".dvc/config"):
            config = copy.root / name
            config.write_text(config.read_text().replace(str(self.root.parent), str(parent)))
        copy.commit("copy")
        return copy

    def git(self, *arguments: str) -> str:
        return self._run("git", *arguments).stdout.strip()

    def dvc(self, *arguments: str) -> None:
        """Run `dvc` here in this process, which saves its start."""
        output, errors = StringIO(), StringIO()
        with chdir(self.root), redirect_stdout(output), redirect_stderr(errors):
            code = dvc.cli.main(list(arguments))
        assert code == 0, f"dvc {' '.join(arguments)}:\n{output.getvalue()}\n{errors.getvalue()}"

    def start(self, *arguments: str) -> Process:
        """Start `captcha-registry` here without waiting for it."""
        return Process(["captcha_registry.cli", *arguments], self.root, os.environ)

    def run(self, *arguments: str) -> subprocess.CompletedProcess[str]:
        """Run `captcha-registry` here in this process, which saves its start."""
        output, errors = StringIO(), StringIO()
        with chdir(self.root), redirect_stdout(output), redirect_stderr(errors), pytest.raises(SystemExit) as end:
            main(arguments)
        return subprocess.CompletedProcess(arguments, int(end.value.code or 0), output.getvalue(), errors.getvalue())

    def make(self, dataset: Path, card: str = "# tiny\n") -> None:
        """Let the stage make a copy of a dataset, and commit it."""
        shutil.rmtree(self.root / "source", ignore_errors=True)
        shutil.copytree(dataset, self.root / "source")
        (self.root / "source/README.md").write_text(card)
        (self.root / ".gitignore").write_text("/source\n")
        stage = {
            "cmd": "mkdir -p data/tiny && cp -r source/. data/tiny",
            "deps": ["source"],
            "outs": [f"data/tiny/{name}" for name in OUTPUTS],
        }
        artifact = {"path": "data/tiny", "type": "dataset", "desc": "A tiny dataset."}
        YAML().dump({"stages": {"make": stage}, "artifacts": {"tiny": artifact}}, self.root / "dvc.yaml")
        self.dvc("repro", "--quiet")
        self.commit("make a dataset")

    def commit(self, message: str) -> None:
        """Commit all that changed, and push the branch."""
        self.git("add", "--all")
        self.git("commit", "--quiet", "--allow-empty", "--message", message)
        self.git("push", "--quiet", "origin", "main")

    def list_remote(self) -> dict[str, int]:
        """Return the size of every object that was pushed, by its path."""
        files = [path for path in self.remote.rglob("*") if path.is_file()]
        return {path.relative_to(self.remote).as_posix(): path.stat().st_size for path in files}

    def list_origin_tags(self) -> list[str]:
        return [line.split("refs/tags/")[1] for line in self.git("ls-remote", "--tags", "--refs", "origin").splitlines()]

    def _run(self, *command: str) -> subprocess.CompletedProcess[str]:
        done = subprocess.run(command, cwd=self.root, capture_output=True, text=True, check=False)
        assert done.returncode == 0, f"{' '.join(command)}:\n{done.stdout}\n{done.stderr}"
        return done
