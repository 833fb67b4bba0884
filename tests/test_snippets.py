"""The commands and snippets of the tutorial run as they stand.

A block is not run where the line above it says `% Not run:` and why. What is shown below a command is what the command says, with
`...` for what differs from run to run. A block with a caption is put into the file that the caption names, where it says.
"""

import os
import re
import shlex
import shutil
import subprocess
import sys
from contextlib import chdir, redirect_stderr, redirect_stdout
from dataclasses import dataclass, field
from doctest import ELLIPSIS, OutputChecker
from io import StringIO
from pathlib import Path

import dvc.cli
import pytest
from test_docs import DOCS
from test_pipeline import commit_all

from captcha_registry.cli import main
from examples.demo import ROOT, copy_project

FENCE = re.compile(
    r"^(?:% Not run: (?P<reason>[^\n]+)\n)?```(?:\{code-block\} )?(?P<language>\w+)\n"
    r"(?::caption: (?P<caption>[^\n]+)\n\n)?(?P<text>.*?)^```$",
    re.MULTILINE | re.DOTALL,
)
OPENING = re.compile(r"^```(?:\{code-block\} )?\w+$", re.MULTILINE)
CAPTION = re.compile(r"(?P<file>\S+), (?P<how>below|in place of) (?P<keys>.+)")
# What a shell would have to look at.
SHELL_WORDS = re.compile(r"[|&;<>$*!]|^cd ")


@dataclass(frozen=True)
class Block:
    """A fenced block of a page."""

    language: str
    text: str
    caption: str
    reason: str
    where: str


def read_blocks(page: Path) -> list[Block]:
    content = page.read_text(encoding="utf-8")
    assert len(OPENING.findall(content)) == len(FENCE.findall(content)), f"{page} has a block that is not understood"
    return [
        Block(
            found["language"],
            found["text"],
            found["caption"] or "",
            found["reason"] or "",
            f"{page.relative_to(DOCS)}:{content.count(chr(10), 0, found.start()) + 1}",
        )
        for found in FENCE.finditer(content)
        if found["language"] != "text"
    ]


@dataclass
class Reader:
    """Somebody who types what a page says, in a folder; `stand_ins` are what certain words of the page mean here."""

    folder: Path
    stand_ins: dict[str, str]
    names: dict[str, object] = field(default_factory=dict)

    def follow(self, blocks: list[Block]) -> None:
        """Do what some blocks say."""
        follow = {"console": self._type, "python": self._run_python, "yaml": self._edit}
        for block in blocks:
            if not block.reason:
                follow[block.language](block, self._translate(block.text))

    def _translate(self, text: str) -> str:
        for word, meaning in self.stand_ins.items():
            text = text.replace(word, meaning)
        return text

    def _type(self, block: Block, text: str) -> None:
        """Type the commands of a block, and compare what they say with what is shown."""
        for part in re.split(r"^\$ ", text, flags=re.MULTILINE)[1:]:
            command, _, shown = part.partition("\n")
            code, said = self._run(command)
            assert bool(code) == shown.startswith("error:"), f"{block.where}: {command} ended with {code}:\n{said}"
            assert not shown or OutputChecker().check_output(shown.strip(), said.strip(), ELLIPSIS), (
                f"{block.where}: {command} said:\n{said}"
            )

    def _run(self, command: str) -> tuple[int, str]:
        """Run a command, if possible in this process, which saves its start; return its exit code and what it says."""
        words = [str(Path(word).expanduser()) if word.startswith("~") else word for word in shlex.split(command)]
        if words[0] == "cd":
            self.folder /= words[1]
            return 0, ""
        if SHELL_WORDS.search(command) or words[0] not in {"captcha-registry", "dvc"}:
            return self._run_in_shell(command)
        said = StringIO()
        with chdir(self.folder), redirect_stdout(said), redirect_stderr(said):
            if words[0] == "dvc":
                code = dvc.cli.main(words[1:])
            else:
                with pytest.raises(SystemExit) as end:
                    main(words[1:])
                code = int(end.value.code or 0)
        return code, said.getvalue()

    def _run_in_shell(self, command: str) -> tuple[int, str]:
        shell = ["bash", "-c", command]
        done = subprocess.run(shell, cwd=self.folder, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, check=False)
        return done.returncode, done.stdout

    def _run_python(self, block: Block, text: str) -> None:
        with chdir(self.folder):
            exec(compile(text, block.where, "exec"), self.names)  # noqa: S102 - it is ours

    def _edit(self, block: Block, text: str) -> None:
        """Put a block into a file, below a section or in place of some."""
        change = CAPTION.fullmatch(block.caption)
        assert change, f"{block.where}: say where the block goes, such as `:caption: params.yaml, below datasets`"
        path, keys = self.folder / change["file"], re.findall(r"`(\w+)`", change["keys"])
        content = path.read_text(encoding="utf-8")
        sections = {key: _find_section(content, key) for key in keys}
        if change["how"] == "below":
            (section,) = sections.values()
            content = content.replace(section, f"{section.rstrip()}\n{text}\n")
        else:
            for section in sections.values():
                content = content.replace(section, "")
            content = f"{content.rstrip()}\n\n{text}"
        path.write_text(content, encoding="utf-8")


def _find_section(content: str, key: str) -> str:
    found = re.search(rf"^{key}:.*\n(?:(?:[ #].*)?\n)*", content, re.MULTILINE)
    assert found, f"there is no section {key}"
    return found[0]


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The home of somebody who has activated the environment, with an empty cache."""
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("CAPTCHA_REGISTRY_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv("PATH", f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}")
    return tmp_path


def test_every_block_of_every_page_can_be_run_or_says_why_it_is_not() -> None:
    blocks = [block for page in DOCS.rglob("*.md") if "build" not in page.parts for block in read_blocks(page)]
    assert {block.language for block in blocks} <= {"console", "python", "yaml"}
    assert all(CAPTION.fullmatch(block.caption) for block in blocks if block.language == "yaml")


@pytest.mark.thorough
def test_the_tutorial_works_from_a_clone_to_a_consumer_elsewhere_and_through_an_upgrade(home: Path) -> None:
    upstream = make_upstream(home / "upstream")
    clone, *blocks = read_blocks(DOCS / "tutorial.md")
    reader = Reader(home, {"REPOSITORY": str(upstream)})
    reader.follow([clone])
    bring_compiled_code(reader.folder)
    upgrade = next(number for number, block in enumerate(blocks) if "git fetch" in block.text)
    reader.follow(blocks[:upgrade])
    release(upstream)
    reader.follow(blocks[upgrade:])
    assert (reader.folder / "CHANGELOG.md").read_text().endswith(RELEASED)
    assert not (reader.folder / "metrics/digits.json").exists()


RELEASED = "A line of the next release.\n"


def make_upstream(project: Path) -> Path:
    """Make the repository that people clone: this project with its results, as Git has them."""
    copy_project(project, {})
    results = [name for name in ("dvc.lock", "metrics") if (ROOT / name).exists()]
    results += [str(path.relative_to(ROOT)) for top in ("data", "models") for path in (ROOT / top).rglob(".gitignore")]
    for name in results:
        (project / name).parent.mkdir(parents=True, exist_ok=True)
        copy = shutil.copytree if (ROOT / name).is_dir() else shutil.copy2
        copy(ROOT / name, project / name)
    commit_all(project)
    return project


def bring_compiled_code(project: Path) -> None:
    """Give a clone what numba has compiled here, which takes longer than all drawing; it goes by the time of the source."""
    package = Path("captcha_registry/generation")
    (project / package / "__pycache__").mkdir(exist_ok=True)
    for compiled in (ROOT / package / "__pycache__").glob("*.nb[ci]"):
        shutil.copy2(compiled, project / package / "__pycache__")
    for source in (ROOT / package).glob("*.py"):
        shutil.copystat(source, project / package / source.name)


def release(project: Path) -> None:
    """Make the next release, which touches all that a team has changed: parameters, stages, artifacts and results."""
    changes = {
        "params.yaml": ("    length: 4 # characters", "    length: 4 # number of characters"),
        "dvc.yaml": ("    desc: Captchas of four digits,", "    desc: Pictures of four digits,"),
    }
    for name, (old, new) in changes.items():
        text = (project / name).read_text(encoding="utf-8")
        assert old in text, name
        (project / name).write_text(text.replace(old, new), encoding="utf-8")
    for name in ("CHANGELOG.md", "dvc.lock", "metrics/digits.json", "data/.gitignore", "models/cnn/.gitignore"):
        with (project / name).open("a", encoding="utf-8") as file:
            file.write(f"# {RELEASED}" if "lock" in name or "ignore" in name else RELEASED)
    commit_all(project)
