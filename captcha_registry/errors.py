"""Errors that a person can mend: one line that says where, what was found, what is expected and what to do."""

import errno
import re
import sys
from collections.abc import Iterator
from contextlib import contextmanager

# What to do about what the machine refuses.
_REMEDIES = dict.fromkeys((errno.ENOSPC, errno.EDQUOT), ": free some space and run the same command again, it goes on from here")
_REMEDIES |= dict.fromkeys((errno.EROFS, errno.EACCES, errno.EPERM), ": make it writable, or work in another folder")


# User and password of an address; a password may hold any character, and a token may stand in the place of the user.
_LOGIN = re.compile(r"\b(?P<scheme>[a-z][a-z0-9+.-]*://)(?P<login>[^\s/]*|[^\s/:@]*:(?!\d+/)[^\s@]*)@", re.IGNORECASE)
# What is asked of an address, such as the signature of a link that was shared; a file has none.
_QUERY = re.compile(r"\b(?P<place>(?!file:)[a-z][a-z0-9+.-]*://[^\s'\"?#]*[?#])[^\s'\"`)]+", re.IGNORECASE)


class UserError(Exception):
    """Something in the input, the parameters or the machine that its owner has to change; it never holds a secret."""

    def __init__(self, message: str) -> None:
        super().__init__(hide_secrets(message))


def hide_secrets(text: str) -> str:
    """Leave out of the addresses in a text who logs in and what is asked; `ssh://git@host` says nothing that is secret."""

    def hide_login(match: re.Match[str]) -> str:
        open_to_all = match["scheme"].lower().endswith("ssh://") and ":" not in match["login"]
        return match[0] if open_to_all else f"{match['scheme']}***@"

    return _QUERY.sub(r"\g<place>***", _LOGIN.sub(hide_login, text))


def printable(text: object) -> str:
    """Leave out of a text what could steer a terminal: a repository's words may be a stranger's."""
    return "".join(character for character in str(text) if character.isprintable() or character in "\n\t")


@contextmanager
def report_errors() -> Iterator[None]:
    """Turn an error that a person can mend into one line on stderr and exit code 2, Ctrl-C into exit code 130."""
    try:
        yield
    except UserError as error:
        print(f"error: {printable(error)}", file=sys.stderr)
        sys.exit(2)
    except OSError as error:
        # One without a file is no matter of the disk.
        if error.filename is None:
            raise
        problem = f"{error.filename}: {error.strerror}{_REMEDIES.get(error.errno or 0, '')}"
        print(f"error: {printable(problem)}", file=sys.stderr)
        sys.exit(2)
    except KeyboardInterrupt:
        print("stopped; run the same command again to go on", file=sys.stderr)
        sys.exit(130)
