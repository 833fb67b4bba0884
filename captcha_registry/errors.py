"""Errors that a person can mend: one line that says where, what was found, what is expected and what to do."""

import sys
from collections.abc import Iterator
from contextlib import contextmanager


class UserError(Exception):
    """Something in the input, the parameters or the machine that its owner has to change."""


@contextmanager
def report_errors() -> Iterator[None]:
    """Turn a `UserError` into one line on stderr and exit code 2, Ctrl-C into exit code 130."""
    try:
        yield
    except UserError as error:
        print(f"error: {error}", file=sys.stderr)
        sys.exit(2)
    except KeyboardInterrupt:
        print("stopped; run the same command again to go on", file=sys.stderr)
        sys.exit(130)
