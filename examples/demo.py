"""Run the complete pipeline at a small scale in a throwaway copy of the project: `python examples/demo.py`.

The copy holds the same dvc.yaml and code; only params.yaml is smaller. It stays in `.work/demo`, which Git and DVC ignore, until
the next demo.
"""

import argparse
import json
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from tempfile import TemporaryDirectory

import psutil
from configobj import ConfigObj
from filelock import Timeout
from ruamel.yaml import YAML
from ruamel.yaml.comments import CommentedMap

from captcha_registry.cache import find_lock, hold_lock
from captcha_registry.ends import prepare_process, report_errors
from captcha_registry.errors import UserError
from captcha_registry.workspace import remove

ROOT = Path(__file__).resolve().parent.parent

DEMO_PARAMS: Mapping[str, int] = {
    "datasets.digits.count": 8_000,
    "datasets.digits.shard_size": 800,
    "datasets.alnum.count": 8_000,
    "datasets.alnum.shard_size": 800,
    "models.cnn.fast.epochs": 10,
    "models.crnn.fast.epochs": 12,
    # A CTC network reads nothing in the first epochs where they are as short as these.
    "models.crnn.fast.patience": 12,
}
# Programs are found beside this Python, stages run in a plain shell, and of Git and DVC nobody's settings are taken:
# hooks, signatures and ignored files of a user would change the copy.
SETTINGS = {
    "PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ.get('PATH', os.defpath)}",
    "SHELL": "/bin/sh",
    "GIT_CONFIG_GLOBAL": os.devnull,
    "GIT_CONFIG_NOSYSTEM": "1",
    # What DVC can read, whatever a new Git makes.
    "GIT_DEFAULT_HASH": "sha1",
    "GIT_DEFAULT_REF_FORMAT": "files",
    # Where Git looks for what a user ignores and converts, even if it reads no settings.
    "XDG_CONFIG_HOME": str(ROOT / ".work" / "no_settings"),
    "DVC_GLOBAL_CONFIG_DIR": str(ROOT / ".work" / "no_settings"),
    "DVC_SYSTEM_CONFIG_DIR": str(ROOT / ".work" / "no_settings"),
    "DVC_NO_ANALYTICS": "1",
} | {f"GIT_{role}_{field}": "demo@localhost" for role in ("AUTHOR", "COMMITTER") for field in ("NAME", "EMAIL")}


def run(command: list[str], folder: Path) -> str:
    """Run a command; what it prints is shown, but for a list of files, which is returned.

    Raises:
        UserError: it failed; it has said why.
    """
    # Variables of Git bring settings, and in a hook they name the repository of the hook.
    kept = {name: value for name, value in os.environ.items() if not name.startswith("GIT_") or name == "GIT_EXEC_PATH"}
    output = subprocess.PIPE if "ls-files" in command else None
    with subprocess.Popen(command, cwd=folder, env=kept | SETTINGS, stdout=output, text=True) as process:
        try:
            printed, _ = process.communicate()
        except BaseException:
            # DVC hands on no signal to the stage that it runs.
            for child in (children := psutil.Process().children(recursive=True)):
                with suppress(psutil.NoSuchProcess):
                    child.terminate()
            psutil.wait_procs(children)
            raise
    if process.returncode:
        raise UserError(f"`{' '.join(command)}` in {folder} ended with exit code {process.returncode}, see above")
    return printed or ""


def list_files() -> list[str]:
    """List the files of the project that no .gitignore leaves out; those of a download or a container without .git, too."""
    with TemporaryDirectory() as empty:
        run(["git", "init", "--quiet", "--bare", empty], ROOT)
        command = ["git", "--git-dir", empty, "--work-tree", str(ROOT), "ls-files", "-z", "--others"]
        return run([*command, "--exclude-per-directory=.gitignore"], ROOT).split("\0")[:-1]


@contextmanager
def claim(place: Path) -> Iterator[None]:
    """Empty a folder, which may be a link to one on a larger disk, and keep other runs out of it until the block ends.

    Raises:
        UserError: another run is at work there.
    """
    try:
        with hold_lock(find_lock("example", place), wait=False):
            place.mkdir(parents=True, exist_ok=True)
            for path in place.iterdir():
                remove(path)
            yield
    except Timeout:
        raise UserError(f"another run is at work in {place}: wait for it to end, or stop it") from None


def copy_project(target: Path, params: Mapping[str, object]) -> None:
    """Copy the project's files into a new Git and DVC repository, with other parameters.

    Args:
        target: a folder that is empty or not there yet.
        params: dotted keys of params.yaml with their new values.
    """
    for name in list_files():
        # Results and their lock belong to the full scale.
        if name.split("/")[0] not in {"data", "dvc.lock", "metrics", "models"}:
            (target / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(ROOT / name, target / name)
    copy_compiled(target)
    change_params(target / "params.yaml", params)
    run(["git", "init", "--quiet", "--initial-branch", "main"], target)
    run(["git", "add", "--all"], target)
    run(["git", "commit", "--quiet", "--message", "copy"], target)


def copy_compiled(target: Path) -> None:
    """Take along what numba has compiled here, which takes longer than all drawing at a small scale."""
    package = Path("captcha_registry/generation/__pycache__")
    (target / package).mkdir(parents=True, exist_ok=True)
    for compiled in (ROOT / package).glob("*.nb[ci]"):
        shutil.copy2(compiled, target / package)


def add_remotes(project: Path, place: Path) -> None:
    """Give a copy of the project a Git host and a DVC remote in a folder, in place of any remote that the project has.

    They are the bare repository `registry.git`, with the branch main, and the folder `store`.
    """
    host = place / "registry.git"
    run(["git", "init", "--quiet", "--bare", "--initial-branch=main", str(host)], place)
    # With spaces and umlauts as they are: DVC does not decode them.
    run(["git", "remote", "add", "origin", f"file://{host}"], project)
    # Not `dvc remote add`, which cannot write a path with umlauts, though DVC reads it.
    config = ConfigObj(str(project / ".dvc" / "config"), encoding="utf-8")
    for section in [name for name in config.sections if name.startswith('remote "')]:
        del config[section]
    config.setdefault("core", {})["remote"] = "store"
    config['remote "store"'] = {"url": str(place / "store")}
    config.write()


def change_params(path: Path, params: Mapping[str, object]) -> None:
    """Set dotted keys of a params file and keep all else, comments too; sections that it does not have are made."""
    yaml = YAML()
    content = yaml.load(path)
    for key, value in params.items():
        *sections, name = key.split(".")
        section = content
        for part in sections:
            section = section.setdefault(part, CommentedMap())
        if name in section:
            section[name] = value
        else:
            # At the end it would come after the comment on what follows.
            section.insert(0, name, value)
    yaml.dump(content, path)


def main() -> None:
    """Run the demo and say where its results are."""
    started = time.perf_counter()
    target = ROOT / ".work" / "demo"
    with claim(target):
        copy_project(target, DEMO_PARAMS)
        run(["dvc", "repro"], target)
    seconds, num_samples = time.perf_counter() - started, DEMO_PARAMS["datasets.alnum.count"]
    print(f"\nDone in {seconds:.0f} s, with {num_samples:,} samples of each dataset; `make repro` draws and trains more.")
    for model, dataset in (("cnn", "digits"), ("crnn", "alnum")):
        print(describe_model(json.loads((target / "metrics" / f"{model}.json").read_text()), model, dataset))
    print("\nLook at the report, at what was drawn, and at what was read wrong:")
    shown = [target / "models" / "report.html", *sorted((target / "metrics").rglob("*.png"))]
    print(*(f"  {path.relative_to(ROOT)}" for path in shown), sep="\n")


def describe_model(metrics: Mapping[str, float], model: str, dataset: str) -> str:
    """Say in a line how well a model reads."""
    low, high = metrics["exact_match_low"], metrics["exact_match_high"]
    return (
        f"{model:<5}reads {metrics['exact_match']:.1%} of the {metrics['test_samples']:,} test texts of {dataset} right "
        f"(95 % interval {low:.1%} to {high:.1%})"
    )


if __name__ == "__main__":
    prepare_process()
    with report_errors():
        argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter).parse_args()
        main()
