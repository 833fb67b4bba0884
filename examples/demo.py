"""Run the whole pipeline at a small scale in a throwaway copy of the project: `python examples/demo.py`.

The copy holds the same dvc.yaml and code; only params.yaml is smaller. It stays in `.work/demo`, which Git and DVC ignore, until
the next demo.
"""

import argparse
import shutil
import subprocess
import sys
import time
from collections.abc import Mapping
from pathlib import Path

from ruamel.yaml import YAML

from captcha_registry.errors import prepare_process, report_errors

ROOT = Path(__file__).resolve().parent.parent

DEMO_PARAMS: Mapping[str, int] = {
    "datasets.digits.count": 8_000,
    "datasets.digits.shard_size": 800,
    "datasets.alnum.count": 8_000,
    "datasets.alnum.shard_size": 800,
    "models.cnn.fast.epochs": 3,
    "models.crnn.fast.epochs": 7,
}


def copy_project(target: Path, params: Mapping[str, object]) -> None:
    """Copy the files that Git knows into a new Git and DVC repository, with other parameters.

    Args:
        target: a folder that is not there yet.
        params: dotted keys of params.yaml with their new values.
    """
    listed = subprocess.run(
        ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"],
        cwd=ROOT,
        check=True,
        capture_output=True,
        text=True,
    )
    for name in listed.stdout.split("\0"):
        # Results and their lock belong to the full scale.
        if (ROOT / name).is_file() and name.split("/")[0] not in {"data", "dvc.lock", "metrics", "models"}:
            (target / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(ROOT / name, target / name)
    change_params(target / "params.yaml", params)
    for command in ("git init --quiet --initial-branch main", "git add --all", "git commit --quiet --message copy"):
        identity = ["git", "-c", "user.name=demo", "-c", "user.email=demo@localhost", "-c", "commit.gpgsign=false"]
        subprocess.run([*identity, *command.split()[1:]], cwd=target, check=True)


def change_params(path: Path, params: Mapping[str, object]) -> None:
    """Set dotted keys of a params file and keep all else, comments too."""
    yaml = YAML()
    content = yaml.load(path)
    for key, value in params.items():
        *sections, name = key.split(".")
        section = content
        for part in sections:
            section = section[part]
        section[name] = value
    yaml.dump(content, path)


def main() -> int:
    """Run the demo and say where its results are."""
    started = time.perf_counter()
    target = ROOT / ".work" / "demo"
    shutil.rmtree(target, ignore_errors=True)
    copy_project(target, DEMO_PARAMS)
    for command in (["dvc", "repro"], ["dvc", "metrics", "show", "metrics/cnn.json", "metrics/crnn.json"]):
        if code := subprocess.run(command, cwd=target, check=False).returncode:
            return code
    print(f"\nDone in {time.perf_counter() - started:.0f} s. A small scale gives small accuracies; `make repro` the real ones.")
    print("Pictures:", *sorted((target / "metrics").rglob("*.png")), sep="\n  ")
    return 0


if __name__ == "__main__":
    prepare_process()
    with report_errors():
        argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter).parse_args()
        sys.exit(main())
