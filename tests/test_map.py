"""The map in dvc.yaml and in the folders is true: files, dependencies, directions."""

import ast
from pathlib import Path

import pytest
from ruamel.yaml import YAML

ROOT = Path(__file__).parent.parent
STAGES = YAML(typ="safe").load(ROOT / "dvc.yaml")["stages"]

# From the ground up: a module imports from its own line and from the lines above.
FLOORS = (
    {"cache", "errors", "machine"},
    {"extras", "params", "workspace"},
    {"dataset"},
    {"generation", "recognition"},
    {"describing"},
    {"registry", "plots"},
    {"commands"},
    {"cli"},
)


def find_imports(path: Path) -> set[Path]:
    """Find the project files that a file imports directly, wherever the import stands."""
    names: set[str] = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.ImportFrom) and node.module:
            names |= {node.module} | {f"{node.module}.{alias.name}" for alias in node.names}
        elif isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
    candidates = {ROOT / Path(*name.split(".")).with_suffix(".py") for name in names}
    return {candidate for candidate in candidates if candidate.is_file()}


def find_sources(path: Path) -> set[Path]:
    """Find a file and every project file that it imports, however deep."""
    found, waiting = set(), {path}
    while waiting:
        found.add(current := waiting.pop())
        waiting |= find_imports(current) - found
    return found


def test_every_stage_has_a_file_and_every_file_a_stage() -> None:
    files = {path.stem for path in (ROOT / "stages").glob("*.py")} - {"__init__"}
    assert files == set(STAGES)


@pytest.mark.parametrize("stage", sorted(STAGES))
def test_a_stage_depends_on_every_project_file_that_it_imports(stage: str) -> None:
    definition = STAGES[stage].get("do", STAGES[stage])
    listed = {dep for dep in definition["deps"] if dep.endswith(".py")}
    assert listed == {str(path.relative_to(ROOT)) for path in find_sources(ROOT / "stages" / f"{stage}.py")}


@pytest.mark.parametrize("path", sorted((ROOT / "captcha_registry").rglob("*.py")), ids=lambda path: path.name)
def test_a_module_imports_nothing_from_a_floor_above_it(path: Path) -> None:
    def floor_of(module: Path) -> int:
        room = module.relative_to(ROOT / "captcha_registry").parts[0].removesuffix(".py")
        return next(number for number, rooms in enumerate(FLOORS) if room in rooms)

    if path == ROOT / "captcha_registry/__init__.py":
        # The front door imports when it is asked for something.
        return
    if path.name == "__init__.py":
        assert not find_imports(path)
        return
    for imported in find_imports(path):
        assert imported.is_relative_to(ROOT / "captcha_registry"), f"{path} imports {imported}"
        assert floor_of(imported) <= floor_of(path), f"{path} imports {imported}"
