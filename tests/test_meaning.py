"""A stage runs again when what it computes may have changed, and only then."""

import ast
import json
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from textwrap import dedent

import pytest
from conftest import ROOT
from hypothesis import given, settings
from hypothesis import strategies as st

from captcha_registry import meaning
from captcha_registry.generation.generating import describe_tools
from captcha_registry.meaning import hash_meaning, hash_modules
from captcha_registry.recognition.recipe import CnnParams
from stages.check import URL_MODULES, describe_stage

SOURCES = sorted(path for package in meaning.PACKAGES for path in (ROOT / package).rglob("*.py"))

MODULE = """\
import math


class Settings:
    width: int = 3


def draw(size, dark=False):
    if size < 1:
        raise ValueError("too small")
    area = math.pi * size
    return area, dark
"""


def hash_text(text: str) -> str:
    return hash_meaning(text.encode())


@pytest.mark.parametrize(
    ("old", "new"),
    [
        pytest.param("import math\n", '"""Draw."""\n\nimport math\n', id="docstring of the module"),
        pytest.param(
            "    width: int = 3\n", '    """Settings."""\n\n    width: int = 3\n    """In pixels."""\n', id="of a class"
        ),
        pytest.param("dark=False):\n", 'dark=False):\n    """Draw."""\n', id="docstring of a function"),
        pytest.param("    area =", "    # In square pixels.\n    area =", id="comment"),
        pytest.param("    area =", "    pass\n    area =", id="pass"),
        pytest.param("(size, dark=False)", "(size: int, dark: bool=False) -> tuple[float, bool]", id="annotations of a function"),
        pytest.param("    area =", "    area: float =", id="annotation of a variable"),
        pytest.param("    area =", "    area: float\n    area =", id="annotation without a value"),
        pytest.param("import math\n", "import math\nSIDES: int\n", id="annotation of a constant"),
        pytest.param('"too small"', '"not large enough"', id="error text"),
        pytest.param('"too small"', '"too" " small"', id="error text in parts"),
        pytest.param("area, dark", "(\n        area,\n        dark,\n    )", id="format"),
    ],
)
def test_words_and_format_change_no_meaning(old: str, new: str) -> None:
    assert old in MODULE
    assert hash_text(MODULE.replace(old, new, 1)) == hash_text(MODULE)


@pytest.mark.parametrize(
    ("before", "after"),
    [
        pytest.param(
            "def f(x): return x",
            "from collections.abc import Iterable\ndef f(x: Iterable[int]): return x",
            id="import for an annotation",
        ),
        pytest.param(
            "import numpy as np\ndef f(x): return np.sum(x)",
            "import numpy as np\nimport numpy.typing as npt\ndef f(x: 'npt.NDArray[np.uint8]'): return np.sum(x)",
            id="import for an annotation that is a text",
        ),
        pytest.param(
            "def f(): return 1",
            "from typing import TYPE_CHECKING\nif TYPE_CHECKING:\n    import torch\ndef f(): return 1",
            id="import for type checkers",
        ),
        pytest.param("import keras\ndef f(x: keras.Model): return x", "import keras\ndef f(x): return x", id="left over"),
        pytest.param("def f(): ...", "def f():\n    '''Do nothing.'''", id="a docstring in place of a body"),
        pytest.param("async def f(x): return x", "async def f(x: int) -> int: return x", id="async function"),
        pytest.param("x = 'a'", 'x = u"a"', id="quotes and prefix"),
        pytest.param("x = 1000", "x = 1_000", id="digits in groups"),
        pytest.param("x = 1\ny = 2\n", "x = 1\r\ny = 2\r\n", id="line ends of Windows"),
        pytest.param("x = '''a\nb'''", "x = '''a\r\nb'''", id="line ends of Windows inside a text"),
        pytest.param("x = f'a{y:>{z}}b'", "x = f'a' f'{y:>{z}}' 'b'", id="parts of an f-string"),
        pytest.param("raise E(f'{a} of {b!r}')", "raise E(f'{a:,} is not {b}')", id="format of a value in an error"),
        pytest.param("assert x", "assert x, 'no x'", id="words of an assertion"),
        pytest.param("raise E(f'no')", "raise E('none')", id="an f-string without values"),
    ],
)
def test_what_changes_no_result_changes_no_meaning(before: str, after: str) -> None:
    assert hash_text(before) == hash_text(after)


@pytest.mark.parametrize(
    ("old", "new"),
    [
        pytest.param("width: int", "width: float", id="annotation in a class"),
        pytest.param("width: int = 3", "width: int = 4", id="value in a class"),
        pytest.param("dark=False", "dark=True", id="default"),
        pytest.param("dark=False", "*, dark=False", id="kind of an argument"),
        pytest.param("math.pi", "math.tau", id="name"),
        pytest.param("math.pi * size", "math.pi ** size", id="operation"),
        pytest.param("size < 1", "size < 2", id="bound"),
        pytest.param("size < 1", "size < 1.0", id="type of a constant"),
        pytest.param("dark=False", "dark=0", id="a number for a truth value"),
        pytest.param("ValueError", "TypeError", id="kind of an error"),
        pytest.param('"too small"', "str(size)", id="what is computed for an error"),
        pytest.param("        raise", "        return 0\n        raise", id="statement"),
        pytest.param("import math", "import cmath as math", id="what is imported"),
        pytest.param("def draw", "@cache\ndef draw", id="decorator"),
        pytest.param("return area, dark", "return 'area', dark", id="text that is no error's"),
    ],
)
def test_what_may_change_a_result_changes_the_meaning(old: str, new: str) -> None:
    assert old in MODULE
    assert hash_text(MODULE.replace(old, new, 1)) != hash_text(MODULE)


@pytest.mark.parametrize(
    ("before", "after"),
    [
        pytest.param("x = 1", "x = None", id="nothing"),
        pytest.param("x = None", "x = ...", id="ellipsis"),
        pytest.param("x = 'a'", "x = b'a'", id="bytes"),
        pytest.param("x = 0.0", "x = -0.0", id="sign of zero"),
        pytest.param("x = 'ä'", "x = 'a\u0308'", id="composed letter"),
        pytest.param("f(*a)", "f(**a)", id="stars"),
        pytest.param("x = {**a}", "x = {a: None}", id="unpacked dictionary"),
        pytest.param("x = f'{y}'", "x = f'{y!r}'", id="conversion"),
        pytest.param("x = f'{y:>3}'", "x = f'{y:<3}'", id="format of a value"),
        pytest.param("match x:\n case None: f()", "match x:\n case True: f()", id="pattern"),
        pytest.param(
            "if TYPE_CHECKING:\n    x = 1\nelse:\n    x = 2", "if TYPE_CHECKING:\n    x = 1", id="else of type checkers"
        ),
        pytest.param("if not TYPE_CHECKING:\n    x = 1", "if not TYPE_CHECKING:\n    x = 2", id="not for type checkers"),
        pytest.param("from a import b\nb()", "from c import b\nb()", id="where a name is from"),
        pytest.param("try:\n import a\nexcept E:\n f()", "try:\n import b\nexcept E:\n f()", id="attempt"),
        pytest.param("f()", "from __future__ import annotations\nf()", id="future"),
        pytest.param(
            "class A:\n def f(self):\n  class B:\n   x: int", "class A:\n def f(self):\n  class B:\n   x: str", id="inner class"
        ),
    ],
)
def test_what_looks_alike_has_different_meanings(before: str, after: str) -> None:
    assert hash_text(before) != hash_text(after)


def test_the_hash_is_the_same_under_every_python() -> None:
    everything = dedent("""\
        from __future__ import annotations
        import numpy as np
        class A(B, metaclass=M):
            x: int = 1
        @decorate
        async def f(a, /, b=None, *c, d: int = 2, **e) -> None:
            x: list = [i async for i in a if i]
            raise E(f"{x!r:>{a}} {{}}") from None
        def g(): return f"a{x=}{{b}}{y:>{z}.2f}" 'ü' if (n := 1_0) else lambda *, q=...: {**q, 1: b"\\xff"}
        match f:
            case {"k": [1, *_], **rest} | A(x=None): pass
        """)
    assert hash_text(everything) == "4deb25aa0f30d241"


@pytest.mark.parametrize("path", SOURCES, ids=lambda path: path.stem)
def test_another_format_of_a_module_has_the_same_meaning(path: Path) -> None:
    content = path.read_bytes()
    assert hash_text(ast.unparse(ast.parse(content))) == hash_meaning(content)


class _Tidier(ast.NodeTransformer):
    """Gives everything docstrings, annotations and other error texts."""

    def visit_FunctionDef(self, node: ast.FunctionDef) -> ast.AST:
        node.body.insert(0, ast.parse(f"'''Do {node.name}.'''").body[0])
        node.returns = ast.Constant("NewName | None")
        for argument in [*node.args.posonlyargs, *node.args.args, *node.args.kwonlyargs]:
            argument.annotation = ast.Name("object")
        return self.generic_visit(node)

    def visit_ClassDef(self, node: ast.ClassDef) -> ast.AST:
        node.body.insert(0, ast.Expr(ast.Constant("Be.")))
        return self.generic_visit(node)

    def visit_Raise(self, node: ast.Raise) -> ast.AST:
        for text in [part for part in ast.walk(node) if isinstance(part, ast.Constant) and isinstance(part.value, str)]:
            text.value = f"other {text.value}"
        return node


def tidy(source: str) -> str:
    tree = _Tidier().visit(ast.parse(source))
    return f'"""Other words."""\n# Another comment.\n{ast.unparse(ast.fix_missing_locations(tree))}'


@pytest.fixture
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A copy of the project's code, of which stages are described."""
    for package in meaning.PACKAGES:
        shutil.copytree(ROOT / package, tmp_path / package, ignore=shutil.ignore_patterns("__pycache__"))
    monkeypatch.setattr(meaning, "ROOT", tmp_path)
    return tmp_path


def hash_stages() -> dict[str, dict[str, str]]:
    """Hash the modules of every stage that the check describes."""
    stages = {stage: hash_modules(f"stages.{stage}") for stage in ("split", "describe", "evaluate")}
    stages["generate"] = hash_modules("stages.generate", without=URL_MODULES)
    families = {family: hash_modules("stages.train", f"captcha_registry.recognition.{family}") for family in ("cnn", "crnn")}
    return stages | families


def change(path: Path, old: str, new: str) -> set[str]:
    """Change a file and tell which stages compute something else."""
    before, text = hash_stages(), path.read_text()
    assert old in text
    path.write_text(text.replace(old, new, 1))
    return {stage for stage, modules in hash_stages().items() if modules != before[stage]}


def test_tidying_all_modules_runs_no_stage(project: Path) -> None:
    before = hash_stages()
    for path in project.rglob("*.py"):
        path.write_text(tidy(text := path.read_text()))
        assert path.read_text() != text
    assert hash_stages() == before


def test_workers_and_unfinished_work_outlast_tidying_but_no_change(project: Path) -> None:
    before, file = describe_tools(), project / "captcha_registry/generation/png.py"
    file.write_text(tidy(file.read_text()))
    assert describe_tools() == before
    file.write_text(f"{file.read_text()}\nLEVEL = 2\n")
    assert {tool for tool, version in describe_tools().items() if version != before[tool]} == {"captcha_registry.generation.png"}
    # What draws to a URL decides nothing elsewhere.
    here, there, file = describe_tools(), describe_tools("remote"), project / "captcha_registry/generation/remote.py"
    file.write_text(f"{file.read_text()}\nLEVEL = 2\n")
    assert describe_tools() == here
    assert describe_tools("remote") != there


def test_formatting_all_modules_otherwise_runs_no_stage(project: Path) -> None:
    before = hash_stages()
    settings = ["--config", "line-length=60", "--config", "format.quote-style='single'", "--config", "format.line-ending='cr-lf'"]
    subprocess.run([sys.executable, "-m", "ruff", "format", "--isolated", "--quiet", *settings, project], check=True)
    assert b"\r\n" in (project / "stages/split.py").read_bytes()
    assert hash_stages() == before


@pytest.mark.parametrize(
    ("file", "old", "new", "stages"),
    [
        pytest.param(
            "dataset/spec.py", "le=1024", "le=2048", {"generate", "split", "describe", "evaluate", "cnn", "crnn"}, id="dataset"
        ),
        pytest.param("recognition/recipe.py", "le=10_000", "le=20_000", {"cnn", "crnn", "evaluate"}, id="recipe"),
        pytest.param(
            "generation/executors.py",
            "(tcp|tls)://",
            "(tcp|tls|ws)://",
            {"generate", "describe", "cnn", "crnn"},
            id="drawing",
        ),
    ],
)
def test_a_changed_bound_in_a_params_model_runs_what_reads_it(
    project: Path, file: str, old: str, new: str, stages: set[str]
) -> None:
    assert change(project / "captcha_registry" / file, old, new) == stages


@pytest.mark.parametrize(
    ("file", "old", "new", "stages"),
    [
        pytest.param("recognition/cnn.py", "FIRST_CLASS = 0", "FIRST_CLASS = 2", {"cnn"}, id="constant of the cnn"),
        pytest.param("recognition/crnn.py", "FAST_UNITS = (96,)", "FAST_UNITS = (97,)", {"crnn"}, id="constant of the crnn"),
        pytest.param("recognition/layers.py", "tuple[int, int] = 1", "tuple[int, int] = 2", {"cnn", "crnn"}, id="default"),
        pytest.param("recognition/optimizers.py", "alpha=recipe.final_rate", "alpha=0", {"cnn", "crnn"}, id="call"),
        pytest.param("recognition/scoring.py", "z: float = 1.959964", "z: float = 1", {"evaluate"}, id="scores"),
        pytest.param("generation/pixels.py", "int16", "int32", {"generate", "cnn", "crnn", "evaluate"}, id="pixels"),
        pytest.param("generation/splitting.py", "MAX_TRIES = 100", "MAX_TRIES = 99", {"split"}, id="split"),
        pytest.param("describing/card.py", "To teach", "To learn", {"describe"}, id="card"),
        pytest.param("generation/remote.py", "CLAIM_SECONDS = 120", "CLAIM_SECONDS = 60", set(), id="URL"),
        pytest.param("registry/publishing.py", '"patch"', '"fix"', set(), id="registry"),
        pytest.param("commands/verify.py", "return", "return 1 +", set(), id="command"),
        pytest.param("__init__.py", '"load"', '"loads"', set(), id="front door"),
        pytest.param("__init__.py", '__version__ = "', '__version__ = "9', set(), id="version"),
    ],
)
def test_a_change_runs_the_stages_that_import_it(project: Path, file: str, old: str, new: str, stages: set[str]) -> None:
    assert change(project / "captcha_registry" / file, old, new) == stages


@settings(max_examples=30)
@given(data=st.data())
def test_any_changed_constant_of_any_module_is_seen(data: st.DataObject) -> None:
    """But for docstrings and the words of errors."""
    tree = ast.parse(data.draw(st.sampled_from(SOURCES)).read_bytes())
    before = hash_text(ast.unparse(tree))
    words = {id(part) for node in ast.walk(tree) if isinstance(node, ast.Raise | ast.Assert) for part in ast.walk(node)}
    words |= {id(node.value) for node in ast.walk(tree) if isinstance(node, ast.Expr)}
    words |= {
        id(part)
        for node in ast.walk(tree)
        for annotation in (getattr(node, "annotation", None), getattr(node, "returns", None))
        if annotation
        for part in ast.walk(annotation)
    }
    numbers = [
        node for node in ast.walk(tree) if isinstance(node, ast.Constant) and type(node.value) is int and id(node) not in words
    ]
    if numbers:
        data.draw(st.sampled_from(numbers)).value += data.draw(st.integers(1, 10))
        assert hash_text(ast.unparse(tree)) != before


@pytest.fixture
def library(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[str], list[str]]:
    """A function that gives a module `stages.use` its text and lists the modules found from there."""
    files = {
        "captcha_registry/__init__.py": "def __dir__():\n    return __all__\n"
        "def __getattr__(name):\n    from captcha_registry.front import load\n    return load\n",
        "captcha_registry/front.py": "load = 1\n",
        "captcha_registry/ground.py": "SIZE = 1\n",
        "captcha_registry/room/__init__.py": "",
        "captcha_registry/room/table.py": "from ..ground import SIZE\n",
        "captcha_registry/room/chair.py": "from . import table\n",
        "stages/__init__.py": "",
    }
    monkeypatch.setattr(meaning, "ROOT", tmp_path)
    for name, text in files.items():
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(text)

    def find(text: str) -> list[str]:
        (tmp_path / "stages/use.py").write_text(text + "\nx = 1\n")
        return [name.removeprefix("captcha_registry.") for name in hash_modules("stages.use") if name != "stages.use"]

    return find


@pytest.mark.parametrize(
    ("text", "found"),
    [
        pytest.param("import numpy, os.path", [], id="other packages"),
        pytest.param("from captcha_registry.ground import SIZE", ["ground"], id="name"),
        pytest.param("from captcha_registry.ground import *", ["ground"], id="star"),
        pytest.param("from captcha_registry import ground", ["ground"], id="module of a package"),
        pytest.param("from captcha_registry.room import table as t", ["ground", "room.table"], id="deep"),
        pytest.param("import captcha_registry.room.table as t", ["ground", "room.table"], id="dotted"),
        pytest.param(
            "def f():\n    from captcha_registry.room import chair", ["ground", "room.chair", "room.table"], id="function"
        ),
        pytest.param("try:\n    import captcha_registry.ground as g\nexcept ImportError:\n    g = 0", ["ground"], id="try"),
        pytest.param("m = import_module('captcha_registry.ground')", ["ground"], id="by name"),
        pytest.param("m = importlib.import_module('captcha_registry.ground')", ["ground"], id="by name, through a module"),
        pytest.param("m = __import__('captcha_registry.room.chair')", ["ground", "room.chair", "room.table"], id="built-in"),
        pytest.param("from typing import TYPE_CHECKING\nif TYPE_CHECKING:\n    import captcha_registry.ground", [], id="types"),
        pytest.param("from captcha_registry import load", ["captcha_registry", "front"], id="through the front door"),
        pytest.param("import captcha_registry\ncaptcha_registry.load", ["captcha_registry", "front"], id="front door itself"),
    ],
)
def test_modules_are_found_wherever_they_are_imported(library: Callable[[str], list[str]], text: str, found: list[str]) -> None:
    assert library(text) == found


def test_a_name_that_is_handed_on_counts(library: Callable[[str], list[str]], tmp_path: Path) -> None:
    """It is used nowhere in the module that it is taken from."""
    middle = tmp_path / "captcha_registry/middle.py"
    middle.write_text("from math import floor as rounded\n")
    for text in ("from captcha_registry.middle import rounded", "from captcha_registry import middle"):
        middle.write_text("from math import floor as rounded\n")
        assert library(text) == ["middle"]
        before = hash_modules("stages.use")
        middle.write_text("from math import ceil as rounded\n")
        assert hash_modules("stages.use") != before


def test_what_runs_when_a_package_is_passed_counts(library: Callable[[str], list[str]], tmp_path: Path) -> None:
    (tmp_path / "captcha_registry/room/__init__.py").write_text("import os\nos.environ['KERAS_BACKEND'] = 'tensorflow'\n")
    assert library("from captcha_registry.room.table import SIZE") == ["ground", "room.__init__", "room.table"]


def test_a_module_that_is_not_there_is_an_error() -> None:
    with pytest.raises(ModuleNotFoundError, match=r"holds no module stages\.none"):
        hash_modules("stages.none")


def test_the_train_stage_of_a_model_knows_its_own_family_only() -> None:
    params = CnnParams.model_construct(family="cnn")
    modules = describe_stage("train", params.family_module, packages=["keras"])["modules"]
    assert "captcha_registry.recognition.cnn" in modules
    assert "captcha_registry.recognition.crnn" not in modules
    assert json.loads(json.dumps(modules)) == modules
