"""However a command or stage ends, it ends as other tools do: a line or none, an exit code, nothing half-written or left."""

import itertools
import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from checkouts import Checkout
from conftest import HANG_SECONDS, ROOT, Project

from captcha_registry.cli import list_commands, make_parser
from captcha_registry.dataset.dataset import CaptchaDataset

# Of every command a call that prints something, in the checkout of `published`; TMP is a folder of the call's own.
COMMANDS = {
    "publish": ["publish", "tiny", "1.1.0", "--dry-run", "--json"],
    "list": ["list", "--json"],
    "show": ["show", "tiny"],
    "get": ["get", "tiny", "--to", "TMP/got"],
    "diff": ["diff", "tiny@1.0.0", "tiny@1.1.0", "--json"],
    "export": ["export", "data/tiny", "--format", "images", "--to", "TMP/exported", "--json"],
    "verify": ["verify", "data/tiny", "--depth", "deep"],
    "repair": ["repair", "data/tiny", "--workers", "1", "--json"],
}
STAGES = sorted(path.stem for path in (ROOT / "stages").glob("[a-z]*.py"))
EXAMPLES = ["examples/demo.py", "examples/two_teams/run.py"]

# Runs each call in a child of its own, which has all that takes long imported already, and ends as a fresh process does.
RUN_ALL = """
import importlib, json, os, pkgutil, runpy, sys
import captcha_registry.commands
for module in pkgutil.iter_modules(captcha_registry.commands.__path__):
    importlib.import_module(f"captcha_registry.commands.{module.name}")

def connect(descriptor, what):
    if what == "closed":
        os.close(descriptor)
    elif what == "full":
        os.dup2(os.open("/dev/full", os.O_WRONLY), descriptor)
    elif what == "pipe":
        reader, writer = os.pipe()
        os.close(reader)
        os.dup2(writer, descriptor)

results = []
for call in json.load(sys.stdin):
    errors = os.memfd_create("errors")
    child = os.fork()
    if not child:
        os.dup2(errors, 2)
        connect(1, call["stdout"])
        connect(2, call["stderr"])
        os.chdir(call["folder"])
        module, *sys.argv[1:] = call["command"]
        sys.argv[0] = "-m"
        if module.endswith(".py"):
            runpy.run_path(module, run_name="__main__")
        else:
            runpy.run_module(module, run_name="__main__", alter_sys=True)
        break
    code = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    results.append([code, os.pread(errors, 100_000, 0).decode()])
else:
    sys.stdout.write(json.dumps(results))
"""

# The state of stdout and stderr, the exit code that it leads to, and what stderr gets.
FULL = "error: standard output: No space left on device: free some space and run the same command again\n"
OUTPUTS = [("pipe", "there", 141, ""), ("pipe", "pipe", 141, ""), ("closed", "closed", 0, ""), ("full", "there", 2, FULL)]


def run_all(folder: Path, cases: list[tuple[list[str], str, str, int, str]]) -> None:
    """Run commands whose outputs are closed, full, or pipes that nobody reads, and look how they end."""
    calls = [
        {"folder": str(folder), "command": command, "stdout": stdout, "stderr": stderr} for command, stdout, stderr, *_ in cases
    ]
    done = subprocess.run(
        [sys.executable, "-c", RUN_ALL],
        input=json.dumps(calls),
        env=os.environ | {"PYTHONPATH": str(ROOT), "TF_CPP_MIN_LOG_LEVEL": "3"},
        capture_output=True,
        text=True,
        timeout=HANG_SECONDS,
        check=True,
    )
    ends = [(*case[:3], code, errors) for case, (code, errors) in zip(cases, json.loads(done.stdout), strict=True)]
    assert ends == cases


def test_every_command_stands_in_the_table_of_this_test() -> None:
    assert set(list_commands(make_parser())) == set(COMMANDS)


def test_a_command_whose_output_cannot_be_written_ends_as_other_tools_do(published: Checkout, tmp_path: Path) -> None:
    calls = [[part.replace("TMP", str(tmp_path)) for part in call] for call in COMMANDS.values()]
    # Each in its way, one in every way.
    pairs = [*zip(calls, itertools.cycle(OUTPUTS), strict=False), *((["list"], output) for output in OUTPUTS)]
    run_all(published.root, [(["captcha_registry.cli", *call], *output) for call, output in pairs])


@pytest.mark.slow
def test_a_stage_or_example_whose_output_cannot_be_written_ends_as_other_tools_do(
    generated_dataset: CaptchaDataset, project: Project
) -> None:
    shutil.copytree(generated_dataset.root, project.root / "data/generated/tiny")
    helps = [[f"stages.{stage}", "--help"] for stage in STAGES] + [[str(ROOT / name), "--help"] for name in EXAMPLES]
    run_all(project.root, [(["stages.split", "tiny"], *output) for output in OUTPUTS] + [(each, *OUTPUTS[1]) for each in helps])
