"""Filters over the columns of an index, such as `ink_luminance < 40 and label in ("0000", "1111")`.

An expression looks like Python and is never run as Python: comparisons, `in`, `and`, `or`, `not`, parentheses, names of
columns, numbers and texts are all that there is.
"""

import ast
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from captcha_registry.errors import UserError

# Python's parser takes memory and time by the length.
MAX_CHARACTERS = 1_000

_COMPARISONS = {
    ast.Lt: pc.less,
    ast.LtE: pc.less_equal,
    ast.Gt: pc.greater,
    ast.GtE: pc.greater_equal,
    ast.Eq: pc.equal,
    ast.NotEq: pc.not_equal,
}
_GRAMMAR = "comparisons of columns with values, in, and, or, not, parentheses"


def select_rows(rows: pa.Table, expression: str) -> pa.Table:
    """Return the rows for which an expression over their columns is true, in their order.

    Raises:
        UserError: it is no such expression, or names an unknown column.
    """
    try:
        return rows.filter(_find_matches(expression.strip(), rows))
    except (SyntaxError, ValueError, OverflowError, TypeError, pa.ArrowException) as error:
        raise UserError(f"filter {expression[:80]!r}: {error}") from None
    except (RecursionError, MemoryError):
        raise UserError(f"filter {expression[:80]!r}: it is nested deeper than can be read; expected {_GRAMMAR}") from None


def _find_matches(expression: str, rows: pa.Table) -> pa.ChunkedArray:
    """Tell for each row whether an expression is true."""
    if len(expression) > MAX_CHARACTERS:
        raise ValueError(f"it has {len(expression):,} characters; expected at most {MAX_CHARACTERS:,}")
    matches = _evaluate(ast.parse(expression, mode="eval").body, rows)
    if not isinstance(matches, pa.ChunkedArray) or matches.type != pa.bool_():
        raise ValueError(f"it is no condition on a column; expected {_GRAMMAR}")
    return matches


def _evaluate(node: ast.expr, rows: pa.Table) -> Any:
    """Evaluate a part of an expression: a column of values, or a constant."""
    match node:
        case ast.BoolOp(op, [first, *others]):
            combine = pc.and_kleene if isinstance(op, ast.And) else pc.or_kleene
            result = _evaluate(first, rows)
            for other in others:
                result = combine(result, _evaluate(other, rows))
            return result
        case ast.UnaryOp(ast.Not(), operand):
            return pc.invert(_evaluate(operand, rows))
        case ast.Compare():
            return _compare(node, rows)
        case ast.Name(name):
            if name not in rows.column_names:
                raise ValueError(f"{name} is no column; expected one of {', '.join(rows.column_names)}")
            return rows[name]
        case ast.Constant() | ast.UnaryOp(ast.USub(), ast.Constant()) | ast.List() | ast.Tuple() | ast.Set():
            return ast.literal_eval(node)
        case _:
            raise ValueError(f"{ast.unparse(node)[:40]!r} is not understood; expected {_GRAMMAR}")


def _compare(node: ast.Compare, rows: pa.Table) -> Any:
    """Evaluate `a < b`, `a < b < c` or `a in (b, c)`."""
    values = [_evaluate(part, rows) for part in (node.left, *node.comparators)]
    results = []
    for operator, left, right in zip(node.ops, values[:-1], values[1:], strict=True):
        if isinstance(operator, ast.In | ast.NotIn):
            found = pc.is_in(left, value_set=pa.array(right, left.type if isinstance(left, pa.ChunkedArray) else None))
            results.append(pc.invert(found) if isinstance(operator, ast.NotIn) else found)
        elif compare := _COMPARISONS.get(type(operator)):
            results.append(compare(left, right))
        else:
            raise ValueError(f"`is` is not understood; expected {_GRAMMAR}")
    result = results[0]
    for other in results[1:]:
        result = pc.and_kleene(result, other)
    return result
