"""The map in dvc.yaml and in the folders is true: files, dependencies, directions."""

import ast
import re
from collections.abc import Iterable
from pathlib import Path

import pytest
from ruamel.yaml import YAML

ROOT = Path(__file__).parent.parent
STAGES = YAML(typ="safe").load(ROOT / "dvc.yaml")["stages"]

# From the ground up: a module imports from its own room and from the lines above.
FLOORS = (
    {"errors", "meaning", "nearest", "stopping"},
    {"extras", "machine", "obstacles", "params"},
    {"cache", "ends"},
    {"workspace"},
    {"leftovers", "places"},
    {"dataset"},
    {"generation"},
    {"recognition"},
    {"describing"},
    {"export", "registry"},
    {"seeing"},
    {"commands"},
    {"cli"},
    {"__main__"},
)


def find_names(nodes: Iterable[ast.AST]) -> set[str]:
    """Find the names of modules, or of what is in them, that some statements import."""
    names: set[str] = set()
    for node in nodes:
        if isinstance(node, ast.ImportFrom) and node.module:
            names |= {node.module} | {f"{node.module}.{alias.name}" for alias in node.names}
        elif isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
    return names


def find_files(names: set[str]) -> set[Path]:
    """Find the project files behind names of modules."""
    candidates = {ROOT / Path(*name.split(".")).with_suffix(".py") for name in names}
    return {candidate for candidate in candidates if candidate.is_file()}


def find_imports(path: Path) -> set[Path]:
    """Find the project files that a file imports directly, wherever the import stands."""
    return find_files(find_names(ast.walk(ast.parse(path.read_text(encoding="utf-8")))))


def test_every_stage_has_a_file_and_every_file_a_stage() -> None:
    files = {path.stem for path in (ROOT / "stages").glob("*.py")} - {"__init__"}
    assert files == set(STAGES)


@pytest.mark.parametrize("stage", sorted(set(STAGES) - {"check"}))
def test_a_stage_depends_on_what_the_check_says_of_its_code(stage: str) -> None:
    definition = STAGES[stage].get("do", STAGES[stage])
    files = ("data/generated/", "data/${", "models/", "metrics", "captcha_registry/seeing/")
    (tools,) = {dep for dep in definition["deps"] if not dep.startswith(files)}
    assert tools in {
        f"data/tools/{stage}.json",
        f"data/tools/{stage}/${{item.dataset}}.json",
        f"data/tools/{stage}/${{key}}.json",
    }


def test_the_pipeline_is_a_page_long() -> None:
    assert len((ROOT / "dvc.yaml").read_text(encoding="utf-8").splitlines()) < 150


def test_the_check_depends_on_all_code() -> None:
    assert {"captcha_registry", "stages"} <= set(STAGES["check"]["deps"])


def test_what_no_hash_covers_decides_no_result() -> None:
    """A docstring is read for help only, annotations of functions by nothing, and one import of a stage has a computed name."""
    sources = {
        path: path.read_text(encoding="utf-8") for room in ("captcha_registry", "stages") for path in (ROOT / room).rglob("*.py")
    }
    readers = re.compile(r"__annotations__|get_type_hints|computed_field|\w+_serializer|singledispatch|validate_call|inspect\.")
    assert [path for path, text in sources.items() if readers.search(text)] == []
    docs = [line.strip() for text in sources.values() for line in text.splitlines() if "__doc__" in line]
    assert all("CommandLine(description=__doc__" in line for line in docs)
    dynamic = [path.name for path, text in sources.items() if re.search(r"import_module\((?!\")", text)]
    assert sorted(dynamic) == ["cli.py", "training.py"]


@pytest.mark.parametrize("path", sorted((ROOT / "captcha_registry").rglob("*.py")), ids=lambda path: path.name)
def test_a_module_imports_nothing_from_a_floor_above_it(path: Path) -> None:
    def room_of(module: Path) -> str:
        return module.relative_to(ROOT / "captcha_registry").parts[0].removesuffix(".py")

    def floor_of(module: Path) -> int:
        return next(number for number, rooms in enumerate(FLOORS) if room_of(module) in rooms)

    if path == ROOT / "captcha_registry/__init__.py":
        # The front door imports when it is asked for something.
        return
    if path.name == "__init__.py":
        assert not find_imports(path)
        return
    for imported in find_imports(path):
        assert imported.is_relative_to(ROOT / "captcha_registry"), f"{path} imports {imported}"
        assert room_of(imported) == room_of(path) or floor_of(imported) < floor_of(path), f"{path} imports {imported}"


@pytest.mark.parametrize("path", sorted((ROOT / "captcha_registry/seeing").glob("[!_]*.py")), ids=lambda path: path.name)
def test_what_shows_readings_starts_no_framework(path: Path) -> None:
    """It imports none, wherever the import stands, nor does what it imports, as far as that happens at once."""
    names = find_names(ast.walk(ast.parse(path.read_text(encoding="utf-8"))))
    waiting, seen = find_files(names), {path}
    while waiting:
        module = waiting.pop()
        seen.add(module)
        found = find_names(ast.parse(module.read_text(encoding="utf-8")).body)
        names |= found
        waiting |= find_files(found) - seen
    assert not {name.partition(".")[0] for name in names} & {"keras", "tensorflow", "torch", "jax"}
