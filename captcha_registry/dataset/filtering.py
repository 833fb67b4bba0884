"""Filters over the columns of an index, such as `ink_luminance < 40 and label in ("0000", "1111")` or `"O" in label`.

An expression looks like Python but is never run as Python. It may contain comparisons, `in`, `and`, `or`, `not`, parentheses,
names of columns, numbers and texts, and nothing else.
"""

import ast
from functools import reduce
from typing import Any, NoReturn

import pyarrow as pa
import pyarrow.compute as pc

from captcha_registry.errors import UserError

# Python's parser takes memory and time by the length.
MAX_CHARACTERS = 1_000

# Of an expression, in a message.
MAX_CHARACTERS_SHOWN = 80

_COMPARISONS = {
    ast.Lt: pc.less,
    ast.LtE: pc.less_equal,
    ast.Gt: pc.greater,
    ast.GtE: pc.greater_equal,
    ast.Eq: pc.equal,
    ast.NotEq: pc.not_equal,
}
_GRAMMAR = "comparisons of columns with values, in, and, or, not, parentheses"
_TRUTH, _NUMBERS, _TEXTS, _BYTES = "truth values", "numbers", "texts", "bytes"


def select_rows(rows: pa.Table, expression: str) -> pa.Table:
    """Return the rows for which an expression over their columns is true, in their order.

    Raises:
        UserError: it is no such expression, or names an unknown column; says which part of it.
    """
    if not isinstance(expression, str):
        raise UserError(
            f"a filter is a text, such as 'ink_luminance < 40', not {expression!r}; what Python can tell of each sample makes a "
            "mask, which selects, too: digits[digits['ink_luminance'] < 40]"
        )
    text = expression.strip()
    try:
        return rows.filter(_find_matches(text, rows))
    except SyntaxError as error:
        before = text.splitlines(keepends=True)[: (error.lineno or 1) - 1]
        # 0 or none where it ends too early.
        place = sum(map(len, before)) + error.offset if error.offset else len(text) + 1
        problem = f"{error.msg} at character {place}, after {_shorten(text[: place - 1], from_end=True)!r}"
        raise UserError(f"filter {_shorten(text)!r}: {problem}; expected {_GRAMMAR}") from None
    except ValueError as error:
        raise UserError(f"filter {_shorten(text)!r}: {error}") from None
    except (RecursionError, MemoryError):
        raise UserError(f"filter {_shorten(text)!r}: it is nested deeper than can be read; expected {_GRAMMAR}") from None


def _shorten(text: str, *, from_end: bool = False) -> str:
    if len(text) <= MAX_CHARACTERS_SHOWN:
        return text
    return f"...{text[-MAX_CHARACTERS_SHOWN:]}" if from_end else f"{text[:MAX_CHARACTERS_SHOWN]}..."


def _fail(node: ast.expr, problem: str) -> NoReturn:
    raise ValueError(f"{_shorten(ast.unparse(node))!r} {problem}")


def _find_matches(expression: str, rows: pa.Table) -> pa.ChunkedArray:
    """Tell for each row whether an expression is true."""
    if not expression:
        raise ValueError(f"it is empty; expected {_GRAMMAR}")
    if len(expression) > MAX_CHARACTERS:
        raise ValueError(f"it has {len(expression):,} characters; expected at most {MAX_CHARACTERS:,}")
    matches = _evaluate(ast.parse(expression, mode="eval").body, rows)
    if not isinstance(matches, pa.ChunkedArray) or matches.type != pa.bool_():
        raise ValueError(f"it is not a condition on a column; expected {_GRAMMAR}")
    return matches


def _evaluate(node: ast.expr, rows: pa.Table) -> Any:
    """Evaluate a part of an expression: a column of values, or a constant."""
    match node:
        case ast.BoolOp(op, parts):
            combine = pc.and_kleene if isinstance(op, ast.And) else pc.or_kleene
            return reduce(combine, [_evaluate_condition(part, rows) for part in parts])
        case ast.UnaryOp(ast.Not(), operand):
            return pc.invert(_evaluate_condition(operand, rows))
        case ast.Compare():
            return _compare(node, rows)
        case ast.Name(name):
            if name not in rows.column_names:
                _fail(node, f"is no column; expected one of {', '.join(rows.column_names)}, and texts in quotes")
            return rows[name]
        case ast.Constant() | ast.UnaryOp(ast.USub(), ast.Constant()) | ast.List() | ast.Tuple() | ast.Set():
            return _read_constant(node)
        case _:
            _fail(node, f"is not understood; expected {_GRAMMAR}")


def _evaluate_condition(node: ast.expr, rows: pa.Table) -> Any:
    value = _evaluate(node, rows)
    if (kind := _find_kind(value)) != _TRUTH:
        _fail(node, f"is no condition, it stands for {kind}; expected a comparison")
    return value


def _read_constant(node: ast.expr) -> Any:
    """Read a number or a text, or a list of some."""
    try:
        value = ast.literal_eval(node)
    except (ValueError, TypeError):
        _fail(node, "is no value; expected numbers, or texts in quotes")
    items = list(value) if isinstance(value, list | tuple | set) else [value]
    for item in items:
        if not isinstance(item, int | float | str | bytes):
            _fail(node, f"holds {item!r}; expected numbers, or texts in quotes")
        if isinstance(item, int) and abs(item) >= 2**63:
            _fail(node, "is too large a number; expected less than 2**63")
    if len(kinds := {_find_kind(item) for item in items}) > 1:
        _fail(node, f"holds {' and '.join(sorted(kinds))}; expected values of one kind")
    return items if isinstance(value, list | tuple | set) else value


def _find_kind(value: Any) -> str:
    """Name the kind of a constant, of the items of a list, or of a column's values."""
    if isinstance(value, list):
        return _find_kind(value[0]) if value else "nothing"
    if isinstance(value, pa.ChunkedArray | pa.Scalar):
        kinds = {pa.types.is_boolean: _TRUTH, pa.types.is_integer: _NUMBERS, pa.types.is_floating: _NUMBERS}
        kinds |= {pa.types.is_string: _TEXTS, pa.types.is_binary: _BYTES, pa.types.is_fixed_size_binary: _BYTES}
        return next((kind for is_of, kind in kinds.items() if is_of(value.type)), str(value.type))
    kinds_of_constants = {bool: _TRUTH, int: _NUMBERS, float: _NUMBERS, str: _TEXTS, bytes: _BYTES}
    return kinds_of_constants[type(value)]


def _compare(node: ast.Compare, rows: pa.Table) -> Any:
    """Evaluate `a < b`, `a < b < c` or `a in (b, c)`."""
    values = [_evaluate(part, rows) for part in (node.left, *node.comparators)]
    return reduce(pc.and_kleene, [_compare_two(node, *three) for three in zip(node.ops, values[:-1], values[1:], strict=True)])


def _compare_two(node: ast.Compare, operator: ast.cmpop, left: Any, right: Any) -> Any:
    if isinstance(operator, ast.Is | ast.IsNot):
        _fail(node, f"has `is`, which is not understood; expected {_GRAMMAR}")
    if isinstance(operator, ast.In | ast.NotIn):
        found = _find_in(node, left, right)
        return pc.invert(found) if isinstance(operator, ast.NotIn) else found
    if isinstance(left, list) or isinstance(right, list):
        _fail(node, "compares with a list, which only `in` does")
    _require_one_kind(node, left, right)
    return _COMPARISONS[type(operator)](left, right)


def _find_in(node: ast.Compare, left: Any, right: Any) -> Any:
    """Evaluate `column in (a, b)`, or `"a" in column`, which is true of texts that hold it."""
    if isinstance(left, str) and isinstance(right, pa.ChunkedArray) and _find_kind(right) == _TEXTS:
        return pc.match_substring(right, left)
    if not (isinstance(left, pa.ChunkedArray) and isinstance(right, list)):
        _fail(
            node,
            "has `in` without a column before it and a list of values behind it, or a text before it and a column of texts "
            "behind it; expected such as label in ('12', '34') or '1' in label",
        )
    if not right:
        return pc.is_in(left, value_set=pa.array([], left.type))
    _require_one_kind(node, left, right)
    allowed = pa.array(right)
    if pa.types.is_integer(allowed.type) and pa.types.is_floating(left.type):
        allowed = allowed.cast(pa.float64())
    return pc.is_in(left.cast(allowed.type), value_set=allowed)


def _require_one_kind(node: ast.Compare, left: Any, right: Any) -> None:
    kinds = _find_kind(left), _find_kind(right)
    if kinds[0] != kinds[1]:
        _fail(node, f"compares {kinds[0]} with {kinds[1]}; expected values of one kind, texts in quotes")
