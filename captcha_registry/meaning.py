"""What a module computes, apart from how it is written: the hash that decides whether a stage runs again.

The hash is computed from the syntax tree, without the parts on which no result depends:

- comments, format, docstrings, `pass`;
- annotations, except those in the body of a class, which pydantic and dataclasses use;
- imports at the top of a module whose names are used nowhere, or only in such annotations;
- the words of errors: texts, and f-strings except their values, in `raise` and `assert`;
- what a package's `__init__.py` offers, if the package is only passed on the way to one of its modules.

The hash is the same under every version of Python. This module needs only the standard library.
"""

import ast
import hashlib
import json
import re
from collections import defaultdict
from functools import cache
from pathlib import Path
from typing import Any

# Where the project's code is, below this folder.
ROOT = Path(__file__).resolve().parent.parent
PACKAGES = ("captcha_registry", "stages")

# What the name of a package ends with that is only passed on the way to a module.
PASSED = ".__init__"


def hash_modules(*names: str, without: tuple[str, ...] = ()) -> dict[str, str]:
    """Hash the meaning of project modules and of every project module that they import, however deep and wherever it stands.

    A module that is imported by a computed name has to be given. A package that is only passed is called `<package>.__init__`.

    Args:
        names: of modules.
        without: what the names of those begin with that are neither hashed nor searched for imports.

    Returns:
        The hashes by module, sorted; modules that compute nothing, such as an empty `__init__.py`, are left out.
    """
    found: dict[str, bytes] = {}
    taken: defaultdict[str, set[str]] = defaultdict(set)
    waiting = set(names)
    while waiting:
        source = _find_source(name := waiting.pop())
        if source is None:
            raise ModuleNotFoundError(f"{ROOT} holds no module {name}")
        found[name] = content = source.read_bytes()
        package = source.parent.relative_to(ROOT).parts
        for base, what in _find_imports(content, package, is_passed=name.endswith(PASSED)):
            # Either is a module: a name is taken from `base`, or `what` is a module of it, from which any may be taken.
            module, used = (f"{base}.{what}", "*") if _find_source(f"{base}.{what}") else (base, what)
            taken[module].add(used)
            waiting |= {module} if _find_source(module) else set()
        waiting |= {".".join(name.split(".")[:depth]) + PASSED for depth in range(1, name.count(".") + 1)}
        waiting = {name for name in waiting - found.keys() if not name.startswith(without)}
    hashes = {
        name: hash_meaning(content, frozenset(taken[name]), is_passed=name.endswith(PASSED))
        for name, content in sorted(found.items())
    }
    return {name: digest for name, digest in hashes.items() if digest != hash_meaning(b"")}


@cache
def hash_meaning(content: bytes, taken: frozenset[str] = frozenset(), *, is_passed: bool = False) -> str:
    """Hash what a Python file computes.

    Args:
        content: of the file.
        taken: names that other modules take from it, or "*" for any.
        is_passed: whether it is a package's `__init__.py` that others only pass on the way to a module.
    """
    tree = _parse(content, is_passed=is_passed)
    if "*" not in taken:
        _drop_unused_imports(tree, taken)
    return hashlib.sha256(json.dumps(_describe(tree)).encode()).hexdigest()[:16]


def _find_source(name: str) -> Path | None:
    """Find the file of a module or package of the project."""
    place = ROOT.joinpath(*name.split("."))
    files = (place / "__init__.py", place.with_suffix(".py")) if name.partition(".")[0] in PACKAGES else ()
    return next((file for file in files if file.is_file()), None)


def _is_offer(statement: ast.stmt) -> bool:
    """Tell whether a package's statement is for those who take a name from it."""
    if isinstance(statement, ast.Assign):
        return all(isinstance(target, ast.Name) and target.id in {"__all__", "__version__"} for target in statement.targets)
    return isinstance(statement, ast.FunctionDef) and statement.name in {"__dir__", "__getattr__"}


def _parse(content: bytes, *, is_passed: bool) -> ast.Module:
    """Parse a file and take out of it what no result depends on, but for imports."""
    tree: ast.Module = _Simplifier().visit(ast.parse(content))
    if is_passed:
        tree.body = [statement for statement in tree.body if not _is_offer(statement)]
    return tree


@cache
def _find_imports(content: bytes, package: tuple[str, ...], *, is_passed: bool) -> list[tuple[str, str]]:
    """Find all imports of a module in `package`, also those inside functions: a module, and the name that is taken from it."""
    imports: list[tuple[str, str]] = []
    for node in ast.walk(_parse(content, is_passed=is_passed)):
        match node:
            case ast.Import(names=names):
                # Without a name of its own, an import gives access to the topmost package.
                imports += [(name, "*") for alias in names for name in (alias.name, alias.asname or alias.name.split(".")[0])]
            case ast.ImportFrom(names=names):
                above = package[: len(package) + 1 - node.level] if node.level else ()
                imports += [(".".join(filter(None, [*above, node.module])), alias.name) for alias in names]
            case ast.Call(
                func=ast.Name(id="import_module" | "__import__") | ast.Attribute(attr="import_module"),
                args=[ast.Constant(value=str(name)), *_],
            ):
                imports.append((name, "*"))
    return imports


def _drop_unused_imports(tree: ast.Module, taken: frozenset[str]) -> None:
    """Take out imports at the top of a module whose names are used nowhere: they are there for annotations."""
    used = {node.id for node in ast.walk(tree) if isinstance(node, ast.Name)} | taken | {"*", "annotations"}
    # What annotates an attribute of a class may be a text.
    texts = [node.value for node in ast.walk(tree) if isinstance(node, ast.Constant) and isinstance(node.value, str)]
    used.update(*(re.findall(r"\w+", text) for text in texts))
    for statement in tree.body:
        if isinstance(statement, ast.Import | ast.ImportFrom):
            statement.names = [name for name in statement.names if (name.asname or name.name.partition(".")[0]) in used]
    tree.body = [statement for statement in tree.body if getattr(statement, "names", True)]


class _Simplifier(ast.NodeTransformer):
    """Takes out of a syntax tree what no result depends on, but for imports."""

    _in_class = False

    def visit(self, node: ast.AST) -> Any:
        """Visit a node and keep in mind whether it stands in the body of a class."""
        outside = self._in_class
        if isinstance(node, ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef):
            self._in_class = isinstance(node, ast.ClassDef)
        simplified = super().visit(node)
        self._in_class = outside
        return simplified

    def visit_Expr(self, node: ast.Expr) -> ast.AST | None:
        return None if isinstance(node.value, ast.Constant) else self.generic_visit(node)

    def visit_Pass(self, _: ast.Pass) -> None:
        return None

    def visit_FunctionDef(self, node: ast.FunctionDef | ast.AsyncFunctionDef) -> ast.AST:
        node.returns = None
        return self.generic_visit(node)

    visit_AsyncFunctionDef = visit_FunctionDef  # noqa: N815 - ast's name

    def visit_arg(self, node: ast.arg) -> ast.AST:
        node.annotation = None
        return node

    def visit_AnnAssign(self, node: ast.AnnAssign) -> ast.AST | None:
        if self._in_class:
            return self.generic_visit(node)
        return self.generic_visit(ast.Assign([node.target], node.value)) if node.value else None

    def visit_If(self, node: ast.If) -> ast.AST | list[ast.stmt]:
        self.generic_visit(node)
        if not (isinstance(node.test, ast.Name | ast.Attribute) and ast.unparse(node.test).endswith("TYPE_CHECKING")):
            return node
        return node.orelse

    def visit_JoinedStr(self, node: ast.JoinedStr) -> ast.AST:
        # Python 3.12 has empty texts beside the values of a format.
        node.values = [part for part in node.values if not (isinstance(part, ast.Constant) and part.value == "")]
        return self.generic_visit(node)

    def visit_Raise(self, node: ast.Raise) -> ast.AST:
        return _WordDropper().generic_visit(self.generic_visit(node))

    def visit_Assert(self, node: ast.Assert) -> ast.AST:
        node.msg = None
        return self.generic_visit(node)


class _WordDropper(ast.NodeTransformer):
    """Takes the words out of what is raised, and leaves what is computed for them."""

    def visit_Constant(self, node: ast.Constant) -> ast.AST:
        return ast.Constant("") if isinstance(node.value, str) else node

    def visit_JoinedStr(self, node: ast.JoinedStr) -> ast.AST:
        values = [self.visit(part.value) for part in node.values if isinstance(part, ast.FormattedValue)]
        return ast.JoinedStr(values) if values else ast.Constant("")


def _describe(node: object) -> object:
    """Write a syntax tree as nested lists, without empty fields: newer versions of Python have more of them."""
    if isinstance(node, ast.AST):
        fields = [(name, value) for name, value in ast.iter_fields(node) if name != "kind" and value not in (None, [])]
        return [type(node).__name__, *([name, _describe(value)] for name, value in fields)]
    return [_describe(item) for item in node] if isinstance(node, list) else ascii(node)
