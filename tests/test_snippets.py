"""Every command and snippet of docs/ and of the README runs as it stands, page by page, in a project at a tiny scale.

What is shown below a command is what the command says, with `...` for what differs from run to run. A block with a caption is put
into the file that the caption names, where it says. What `NOT_RUN` lists is not run, but parsed.
"""

import ast
import os
import re
import shlex
import shutil
import subprocess
import sys
from collections.abc import Iterator, Sequence
from contextlib import chdir, redirect_stderr, redirect_stdout
from dataclasses import dataclass, field
from doctest import ELLIPSIS, OutputChecker
from io import StringIO
from pathlib import Path

import dvc.cli
import pytest
from checkouts import Checkout
from conftest import ROOT
from test_pipeline import commit_all, share

import captcha_registry
from benchmarks.timing import on_one_core
from captcha_registry.cli import main, parse_arguments
from captcha_registry.recognition.readings import tabulate_readings, write_readings
from examples import quickstart
from examples.demo import change_params, copy_project
from stages import check, describe, generate, report, split

DOCS = ROOT / "docs"
PAGES = {
    str(path.relative_to(ROOT)): path
    for path in [ROOT / "README.md", ROOT / "CONTRIBUTING.md", ROOT / "SECURITY.md", *sorted(DOCS.rglob("*.md"))]
    if "build" not in path.parts
}
TUTORIAL = "docs/tutorial.md"

# Commands, and first lines of Python, which are only parsed: what of a page is not run, and why.
NOT_RUN = {
    "README.md": {
        "git clone REPOSITORY captcha-registry && cd captcha-registry": "tutorial.md does the same",
        "make quickstart": "test_quickstart.py does the same",
        "make repro": "trains for 40 minutes",
        "dvc repro": "test_settings.py tries many wrong values",
    },
    "CONTRIBUTING.md": dict.fromkeys(("make setup", "make lint", "make test", "make docs"), "takes minutes; CI runs it"),
    "docs/tutorial.md": {"make setup": "downloads 4 GB", ". .venv/bin/activate": "comes of `make setup`"},
    "docs/howto/cluster.md": {
        "make setup": "downloads 4 GB",
        ". .venv/bin/activate": "comes of `make setup`",
        "dask scheduler": "needs machines; test_scale_out.py starts a cluster on one",
        "dask worker tcp://head:8786 --nthreads 1 --nworkers 16": "as above",
        "python -m stages.generate digits --to s3://bucket/digits": "needs a bucket; test_scale_out.py has a server",
    },
    "docs/howto/credentials.md": {
        "pip install 'captcha-registry[s3] @ git+REPOSITORY'": "needs a package registry",
        "export AWS_PROFILE=captchas": "needs keys; test_remotes.py reads and writes a server's buckets",
        "dvc remote add --default store s3://bucket/store": "as above",
        "dvc remote add --default store ssh://storage.example.com/srv/captchas": "needs a server; test_remotes.py starts one",
        "dvc config --global remote.store.url https://storage.example.com/captchas": "would change the reader's own settings",
        "dvc config --global remote.store.auth basic": "as above",
        "dvc config --global remote.store.user reader": "as above",
        "dvc config --global remote.store.ask_password true": "as above",
    },
    "docs/howto/filter.md": {"from torch.utils.data import DataLoader": "needs PyTorch; test_dataset.py reads with it"},
    "docs/howto/gpu.md": {
        "make setup": "downloads 4 GB",
        ".venv/bin/pip install --editable '.[gpu]'": "needs a GPU",
        "make repro": "as above",
    },
    "docs/howto/dataset.md": {"dvc repro describe@letters": "draws for half a minute; the tutorial draws a dataset of its own"},
    "docs/howto/grow.md": {
        "dvc repro describe@digits": "draws for half a minute; the tutorial lets its dataset grow",
        'git commit --quiet --all --message "Draw more digits"': "as above",
        "git push --quiet": "as above",
        "captcha-registry publish digits@1.2.0": "as above",
    },
    "docs/howto/model.md": {
        "dvc repro evaluate@lstm": "trains for minutes; test_pipeline.py trains tiny models",
        "dvc repro evaluate@cnn": "as above",
        "dvc metrics show": "needs the trained model",
        "dvc metrics diff main": "needs the trained model",
    },
    "docs/howto/publish.md": {
        "dvc remote add --default store s3://bucket/store": "needs a bucket; the tutorial does the same with a folder",
        'git commit --message "Name the storage" .dvc/config': "as above",
        "git push": "as above",
        "captcha-registry publish crnn@1.0.0": "needs a trained model; test_model.py publishes one",
    },
    "docs/howto/report.md": {
        "captcha-registry report --compare main": "needs trained models; test_report.py compares two commits",
        "import captcha_registry": "needs trained models; read.md does the same",
    },
}

FENCE = re.compile(r"^```(?P<kind>[^\n]*)\n(?::caption: (?P<caption>[^\n]+)\n\n)?(?P<text>.*?)^```$", re.MULTILINE | re.DOTALL)
# What is in curly brackets writes a part of a page from something else.
GENERATED = re.compile(r"\{(command|docstring|eval-rst|include|literalinclude|toctree)\}.*")
# The tree of the README, whose paths have a test of their own.
TREE = re.compile(r"(?<=^## Layout\n\n)```\n.*?^```$", re.MULTILINE | re.DOTALL)
LANGUAGES = ("console", "python", "yaml")
CAPTION = re.compile(r"(?P<file>\S+), (?P<how>below|in place of) (?P<keys>.+)")
# What a shell would have to look at.
SHELL_WORDS = re.compile(r"[|&;<>$*!]|^cd ")
HOST = "https://git.example.com/captchas.git"


@dataclass(frozen=True)
class Block:
    """A fenced block of a page."""

    page: str
    language: str
    text: str
    caption: str
    where: str

    def list_commands(self) -> list[tuple[str, str]]:
        """List the commands, each with what is shown below it."""
        parts = re.split(r"^\$ ", self.text, flags=re.MULTILINE)[1:]
        return [(command.split("  #")[0].rstrip(), shown) for command, _, shown in (part.partition("\n") for part in parts)]

    def list_names(self) -> list[str]:
        """List what `NOT_RUN` calls the parts of this block."""
        return [command for command, _ in self.list_commands()] or [self.text.partition("\n")[0]]

    def is_run(self, name: str) -> bool:
        return name not in NOT_RUN.get(self.page, {})


def read_blocks(page: str) -> list[Block]:
    """Read the blocks of a page that a reader types, but for the README's quickstart, which has a test of its own."""
    content = PAGES[page].read_text(encoding="utf-8").replace(f"```console\n{quickstart.TRY}\n```\n", "\n" * 20)
    content = TREE.sub("", content)
    found = list(FENCE.finditer(content))
    assert content.count("```") == 2 * len(found), f"{page} has a block that is not understood"
    return [
        Block(
            page,
            fence["kind"].removeprefix("{code-block} "),
            fence["text"],
            fence["caption"] or "",
            f"{page}:{content.count(chr(10), 0, fence.start()) + 1}",
        )
        for fence in found
        if not GENERATED.fullmatch(fence["kind"])
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
            follow[block.language](block)
        with chdir(self.folder):
            check.check_values()

    def _translate(self, text: str) -> str:
        for word, meaning in self.stand_ins.items():
            text = text.replace(word, meaning)
        return text

    def _type(self, block: Block) -> None:
        """Type the commands of a block, and compare what they say with what is shown."""
        for command, shown in block.list_commands():
            if not block.is_run(command):
                continue
            code, said = self._run(self._translate(command))
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

    def _run_python(self, block: Block) -> None:
        if all(map(block.is_run, block.list_names())):
            with chdir(self.folder), redirect_stdout(StringIO()):
                exec(compile(self._translate(block.text), block.where, "exec"), self.names)  # noqa: S102 - it is ours

    def _edit(self, block: Block) -> None:
        """Put a block into a file, below a section or in place of some."""
        change = CAPTION.fullmatch(block.caption)
        assert change, f"{block.where}: say where the block goes, such as `:caption: params.yaml, below datasets`"
        path, keys = self.folder / change["file"], re.findall(r"`(\w+)`", change["keys"])
        content = path.read_text(encoding="utf-8")
        sections = {key: _find_section(content, key) for key in keys}
        if change["how"] == "below":
            (section,) = sections.values()
            content = content.replace(section, f"{section.rstrip()}\n{block.text}\n")
        else:
            for section in sections.values():
                content = content.replace(section, "")
            content = f"{content.rstrip()}\n\n{block.text}"
        path.write_text(content, encoding="utf-8")


def _find_section(content: str, key: str) -> str:
    found = re.search(rf"^{key}:.*\n(?:(?:[ #].*)?\n)*", content, re.MULTILINE)
    assert found, f"there is no section {key}"
    return found[0]


def check_parsed(page: str, command: str) -> None:
    """Make sure that a command could be run: the shell, and the program's own parser, take it."""
    subprocess.run(["bash", "-n", "-c", command], check=True)
    program, *words = shlex.split(command)
    if program == "captcha-registry":
        parse_arguments(words)
    elif program == "dvc":
        dvc.cli.parse_args(words)
        if words[0] == "repro" and len(words) > 1:
            assert f"\n  {words[-1].partition('@')[0]}:\n" in (ROOT / "dvc.yaml").read_text(), f"{page}: {command}"
    elif program == "make":
        assert re.search(rf"^{words[0]}:", (ROOT / "Makefile").read_text(), re.MULTILINE), f"{page}: {command}"
    elif words[:1] == ["-m"]:
        assert (ROOT / words[1].replace(".", "/")).with_suffix(".py").is_file(), f"{page}: {command}"


@pytest.fixture(scope="session")
def published_project(tmp_path_factory: pytest.TempPathFactory) -> Checkout:
    """A project without models, with an origin and a storage, which has published digits 1.0.0 and 1.1.0. Shared: copy it."""

    def make(place: Path) -> None:
        checkout = Checkout.create(place)
        shutil.rmtree(checkout.root)
        copy_project(checkout.root, quickstart.choose_params(240, 30) | {"models": {}})
        checkout.git("remote", "add", "origin", checkout.origin)
        checkout.git("push", "--quiet", "--set-upstream", "origin", "main")
        checkout.dvc("remote", "add", "--quiet", "--default", "store", str(checkout.remote))
        for version, count, changed in (("1.0.0", 240, ("digits", "alnum")), ("1.1.0", 300, ("digits",))):
            change_params(checkout.root / "params.yaml", {"datasets.digits.count": count})
            make_datasets(checkout, changed)
            checkout.commit(f"digits {version}")
            assert checkout.run("publish", f"digits@{version}").returncode == 0

    return Checkout(share(tmp_path_factory, "published_project", make) / "checkout")


def make_datasets(checkout: Checkout, names: Sequence[str]) -> None:
    """Draw, split and describe datasets by the stages' own functions, in this process: others would take seconds to start."""
    with chdir(checkout.root), redirect_stdout(StringIO()), redirect_stderr(StringIO()):
        check.main()
        for name in names:
            generate.main(name)
            split.main(name)
            describe.main(name)
        report.main()
    checkout.dvc("commit", "--quiet", "--force", "--with-deps", *(f"describe@{name}" for name in names), "report")


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The home of somebody who has activated the environment, with an empty cache."""
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("CAPTCHA_REGISTRY_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv("PATH", f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}")
    return tmp_path


@pytest.mark.parametrize("page", PAGES)
def test_every_block_can_be_run_or_is_listed_with_a_reason_and_parsed(page: str) -> None:
    names = set()
    for block in read_blocks(page):
        assert block.language in LANGUAGES, f"{block.where}: expected one of {LANGUAGES}, or what a test runs otherwise"
        assert block.language != "yaml" or CAPTION.fullmatch(block.caption), block.where
        assert block.language != "console" or block.list_commands(), f"{block.where}: commands follow `$ `"
        names |= set(block.list_names())
        if block.language == "python":
            ast.parse(block.text)
        for command in block.list_names() if block.language == "console" else ():
            if not block.is_run(command):
                check_parsed(page, command)
    assert NOT_RUN.get(page, {}).keys() <= names, "what is listed stands on the page"


def test_only_pages_are_listed() -> None:
    assert NOT_RUN.keys() <= PAGES.keys()


def list_pages_to_run() -> Iterator[str]:
    for page in PAGES:
        if page != TUTORIAL and any(block.is_run(name) for block in read_blocks(page) for name in block.list_names()):
            yield page


@pytest.mark.thorough
@pytest.mark.parametrize("page", [*list_pages_to_run()])
def test_what_a_page_says_works(page: str, published_project: Checkout, home: Path) -> None:
    copy = published_project.copy_to(home / "team")
    stand_ins = {HOST: copy.origin}
    if page == "docs/howto/model.md":
        shutil.copy2(ROOT / "params.yaml", copy.root)
    if page == "docs/howto/read.md":
        # The models of the package read what the trained ones of a project would.
        stand_ins |= {'load_model("models/crnn")': 'load_model("alnum")', "--model models/crnn": "--model alnum"}
        write_readings_of_the_package(copy.root)
    Reader(copy.root, stand_ins).follow(read_blocks(page))


def write_readings_of_the_package(project: Path) -> None:
    """Write what the model `alnum` of the package reads on the test part, as if it were the project's own `crnn`."""
    test = captcha_registry.load(project / "data/alnum", split="test")
    readings = captcha_registry.load_model("alnum").read(sample.image for sample in test)
    (project / "models/crnn").mkdir(parents=True)
    write_readings(project / "models/crnn/readings.parquet", tabulate_readings(test, list(readings)))


@pytest.mark.thorough
def test_the_tutorial_works_from_a_clone_to_a_consumer_elsewhere_and_through_an_upgrade(home: Path) -> None:
    upstream = make_upstream(home / "upstream")
    clone, *blocks = read_blocks(TUTORIAL)
    reader = Reader(home, {"REPOSITORY": str(upstream)})
    reader.follow([clone])
    bring_compiled_code(reader.folder)
    upgrade = next(number for number, block in enumerate(blocks) if "git fetch" in block.text)
    with on_one_core():
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
