"""Errors that a person can fix: where, what was found, what is expected, what to do; in words that hold no secret."""

import argparse
import errno
import os
import re
import shlex
from pathlib import Path
from typing import NoReturn
from urllib.parse import unquote

# What a full disk, a quota and a limit on the size of files are called.
FULL_DISK = {errno.ENOSPC, errno.EDQUOT, errno.EFBIG}

# What to do about what the machine refuses.
AGAIN = "and run the same command again"
_REMEDIES = dict.fromkeys(FULL_DISK, f": free some space {AGAIN}")
_REMEDIES |= {errno.EFBIG: f": raise the limit on the size of files (`ulimit -f`) {AGAIN}"}
_REMEDIES |= {errno.EROFS: ": make it writable, or work in another folder", errno.ENAMETOOLONG: ": choose a shorter name"}
# What the limits of a process and of a machine are called; such an error names no file, or one that has nothing to do with it.
LIMITS = dict.fromkeys((errno.EMFILE, errno.ENFILE), ": raise the limit on open files (`ulimit -n`)")
LIMITS |= dict.fromkeys((errno.EAGAIN, errno.ENOMEM), ": raise the limits on processes and memory (`ulimit -u`, `ulimit -v`)")
_REMEDIES |= {number: f"{cure}, or end other programs, {AGAIN}" for number, cure in LIMITS.items()}

# Variables that name folders, which libraries make and fill.
_FOLDER_VARIABLES = (
    *("DVC_SITE_CACHE_DIR", "DVC_GLOBAL_CONFIG_DIR", "DVC_SYSTEM_CONFIG_DIR", "NUMBA_CACHE_DIR"),
    *("XDG_CACHE_HOME", "XDG_CONFIG_HOME", "XDG_DATA_HOME"),
)

# Where they are if no variable says so, for those that are elsewhere than in a home.
_DEFAULT_FOLDERS = {"DVC_SITE_CACHE_DIR": "/var/tmp/dvc"}  # noqa: S108 - what DVC itself has chosen

STDOUT = "standard output"

# What brings an output of the pipeline that is missing.
MAKE_OR_PULL = "run `dvc repro`, or `dvc pull --allow-missing` if a DVC remote has it"

# User and password of an address; a password may hold any character, and a token may stand in the place of the user. Whoever
# mistypes the address may leave out a slash, or have one too many.
_LOGIN = re.compile(
    r"\b(?P<scheme>https?:///|[a-z][a-z0-9+.-]+:/{1,2})"
    # To the last @ with a host and a slash behind it, as that of x@1.0.0 is another; else to the last before a slash, or at all.
    r"(?P<login>[^\s/:@]*:(?!\d+/)\S*(?=@[^\s/@]+/)|[^\s/]*|[^\s/:@]*:(?!\d+/)\S*)@",
    re.IGNORECASE,
)
# The same where the scheme was left out, which Git takes for a host and a path; `image:tag@sha256:...` is none.
_BARE_LOGIN = re.compile(r"(?<![\w/:@.-])(?P<user>[\w.-]+):[^\s/]+@(?!sha256:)(?=(\[|[\w-]+(\.[\w-]+)*[:/]))")
# What is asked of an address, such as the signature of a link that was shared; a file has none. The `?` may have been escaped,
# and a path that was made from a URL has one slash less.
_QUERY = re.compile(
    r"\b(?P<place>(?!file:)[a-z][a-z0-9+.-]+:/[^\s'\"?#]*?([?#]|%3f(?=[^\s'\"]*=)))[^\s'\"`)]+",
    re.IGNORECASE,
)
# What stands for a byte that is no text has a number from DC80 to DCFF; the other surrogates stand for nothing.
_NO_BYTES = re.compile("[\\ud800-\\udc7f\\udd00-\\udfff]")


class UserError(Exception):
    """Something in the input, the parameters or the machine that its owner has to change; it never holds a secret."""

    def __init__(self, message: str) -> None:
        super().__init__(hide_secrets(message).rstrip())


def hide_secrets(text: str) -> str:
    """Leave out of the addresses in a text who logs in and what is asked; `ssh://git@host` says nothing that is secret."""

    def hide_login(match: re.Match[str]) -> str:
        open_to_all = match["scheme"].lower().endswith("ssh://") and ":" not in match["login"]
        return match[0] if open_to_all else f"{match['scheme']}***@"

    return _QUERY.sub(r"\g<place>***", _BARE_LOGIN.sub(r"\g<user>:***@", _LOGIN.sub(hide_login, text)))


def hide_login(text: str, url: str) -> str:
    """Leave out of a text what is secret in the login of a URL, as libraries take addresses apart in their messages."""
    for match in _LOGIN.finditer(url):
        user, colon, password = match["login"].partition(":")
        secret = (password if colon else user) if hide_secrets(match[0]) != match[0] else ""
        for form in {secret, unquote(secret)} - {""}:
            text = text.replace(form, "***")
    return text


def require_regular(path: Path) -> None:
    """Refuse what is no file, such as a named pipe, from which reading would wait without end.

    Raises:
        UserError: something else has the name of the file.
    """
    if not path.is_file() and path.exists():
        raise UserError(
            f"{path} is not a regular file: move it away, and restore it from Git or with `dvc checkout`, or fetch it again"
        )


def list_causes(error: BaseException) -> list[BaseException]:
    """List an error and those that led to it, the first cause last."""
    causes = [error]
    while causes[-1].__context__:
        causes.append(causes[-1].__context__)
    return causes


class CommandLine(argparse.ArgumentParser):
    """What a process was called with; what is wrong with it is said without secrets."""

    def error(self, message: str) -> NoReturn:
        """End the process with the usage and the message."""
        super().error(hide_secrets(message))


def printable(text: object) -> str:
    """Leave out of a text what could steer a terminal: a repository's words may be a stranger's.

    Bytes of a path that the locale does not know are shown as the text that they most likely are.
    """
    encoded = _NO_BYTES.sub("", str(text)).encode("utf-8", "surrogateescape")
    return "".join(c for c in encoded.decode("utf-8", "backslashreplace") if c.isprintable() or c in "\n\t")


def show_path(path: object) -> str:
    """Write a path in one line, without what could steer a terminal."""
    return printable(path).replace("\n", "\\n")


def find_remedy(error: OSError) -> str:
    """Tell what to do about what the machine refuses."""
    if error.filename == STDOUT and error.errno in FULL_DISK:
        # Most commands print when their work is done.
        return (
            ": the work may be complete though its output is not: free some space, and see what is there before you run it again"
        )
    if isinstance(error.filename, int):
        # What libraries have opened themselves has no name.
        return _REMEDIES.get(error.errno or 0, "")
    path = Path(os.fsdecode(error.filename or "")).absolute()
    for name in _FOLDER_VARIABLES if error.filename and error.errno not in FULL_DISK else ():
        if (folder := os.environ.get(name, _DEFAULT_FOLDERS.get(name))) and path.is_relative_to(Path(folder).absolute()):
            unset = ", or unset it" if name in os.environ else ""
            return f": set the variable {name} to a folder that can be made or written to{unset}"
    if error.errno not in {errno.EACCES, errno.EPERM} or error.filename is None:
        return _REMEDIES.get(error.errno or 0, "")
    # What is not there was to be made, or cannot be seen, in the nearest folder that is.
    there = next(place for place in (path, *path.parents) if os.path.lexists(place))
    needed = os.R_OK | (os.X_OK if there.is_dir() else 0)
    what = "it" if there == path else str(there)
    if not os.access(there, needed, effective_ids=os.access in os.supports_effective_ids):
        return f": you may not read {what}: run `chmod u+rX {shlex.quote(str(there))}` if it is yours, or ask its owner"
    return f": make {what} writable, or work in another folder"
