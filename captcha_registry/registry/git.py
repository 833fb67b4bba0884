"""Git: its program, whose answers no setting of the user changes, and its objects, each read in one piece."""

import os
import re
import signal
import subprocess
import sys
from collections.abc import Callable, Iterable, Mapping
from contextlib import suppress
from functools import cache
from io import BytesIO, TextIOWrapper
from pathlib import Path
from typing import Any
from urllib.parse import unquote_to_bytes

import pygit2
from dvc.scm import SCM, Git, SCMError
from pygit2.enums import ObjectType
from scmrepo.git.backend.pygit2 import Pygit2Object

from captcha_registry.errors import UserError

GIT_REMOTE = "origin"
TAGS = "refs/tags/"
# How what an annotated tag says begins.
TAG_CONTENT = re.compile(rb"object (?P<oid>[0-9a-f]{40})\ntype (?P<kind>\w+)\n")
# Variables that Git sets for hooks, and that would lead each command to another repository or change how paths are read.
MISLEADING = (
    *("GIT_DIR", "GIT_WORK_TREE", "GIT_INDEX_FILE", "GIT_COMMON_DIR", "GIT_NAMESPACE", "GIT_PREFIX", "GIT_GRAFT_FILE"),
    *("GIT_OBJECT_DIRECTORY", "GIT_ALTERNATE_OBJECT_DIRECTORIES", "GIT_SHALLOW_FILE", "GIT_REPLACE_REF_BASE", "GIT_CONFIG"),
    *("GIT_LITERAL_PATHSPECS", "GIT_GLOB_PATHSPECS", "GIT_NOGLOB_PATHSPECS", "GIT_ICASE_PATHSPECS", "GIT_QUARANTINE_PATH"),
    "GIT_CURL_VERBOSE",
)
# A shallow repository has the versions that it has, and is read.
SETTINGS = ("-c", "clone.rejectShallow=false")
# A command that only asks, with time to type a passphrase; one that transfers a history, or runs a hook that tests a project.
ASK_SECONDS = 120
TRANSFER_SECONDS = 1_200
# A web server that sends less than a byte a second for that long is not waited for.
SILENCE = {"GIT_HTTP_LOW_SPEED_LIMIT": "1", "GIT_HTTP_LOW_SPEED_TIME": f"{ASK_SECONDS}"}
# Answers Git, which asks for what an address does not hold.
CREDENTIAL_HELPER = '!f() { test "$1" != get || printf %s "$CAPTCHA_REGISTRY_LOGIN"; }; f'


def _require_exit_codes() -> None:
    """Refuse to work in a process that is told of every program that it did its work."""
    if hasattr(signal, "SIGCHLD") and signal.getsignal(signal.SIGCHLD) is signal.SIG_IGN:
        raise UserError(
            "this process ignores SIGCHLD, so it would not learn that `git` failed: call "
            "`signal.signal(signal.SIGCHLD, signal.SIG_DFL)` first"
        )


def run_git(
    root: Path,
    *arguments: str,
    seconds: float = ASK_SECONDS,
    bare: bool = False,
    variables: Mapping[str, str] | None = None,
    told: str | None = None,
) -> str:
    """Run Git and return what it prints; `told` is what it reads.

    Where nobody sits at a terminal it cannot ask for a password, but fails at once. A bare repository is named to it, as
    `safe.bareRepository` may forbid to find one. `variables` are those that it gets beside those of this process.

    Raises:
        UserError: it fails, with its words, or takes longer than it may.
    """
    _require_exit_codes()
    attended = sys.stdin is not None and sys.stdin.isatty()
    # Traces may go to a file, but not between the words of an error.
    traces = {name for name, value in os.environ.items() if name.startswith("GIT_TRACE") and not value.startswith("/")}
    environment = SILENCE | {name: value for name, value in os.environ.items() if name not in {*MISLEADING, *traces}}
    # DVC's libraries read references from files only.
    environment |= {"GIT_OPTIONAL_LOCKS": "0", "GIT_DEFAULT_REF_FORMAT": "files"} | (
        {} if attended else {"GIT_TERMINAL_PROMPT": "0"}
    )
    environment |= variables or {}
    try:
        process = subprocess.Popen(
            ["git", *SETTINGS, *(["--git-dir=."] if bare else []), *arguments],
            cwd=root,
            env=environment,
            stdin=subprocess.PIPE if told else None if attended else subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            encoding="utf-8",
            errors="replace",
            start_new_session=not attended,
        )
    except FileNotFoundError:
        raise UserError("the program `git` is not installed, and versions are in Git: install it") from None
    command = f"`git {arguments[0]}`"
    with process:
        output, errors = _wait(process, command, seconds, told)
    if process.returncode:
        raise UserError(f"{command}: {' '.join(errors.split()) or 'failed'}")
    return output.rstrip()


def _wait(process: subprocess.Popen[str], command: str, seconds: float, told: str | None) -> tuple[str, str]:
    """Return what a command says until it ends; with this process, or too late, it is stopped together with what it started."""
    try:
        return process.communicate(told, seconds)
    except BaseException as error:
        with suppress(ProcessLookupError):
            own_session = os.getpgid(process.pid) == process.pid
            os.killpg(process.pid, signal.SIGKILL) if own_session else process.kill()
        if isinstance(error, subprocess.TimeoutExpired):
            raise UserError(
                f"{command} gave no answer in {seconds:,.0f} s; a hook, a password that nobody types or a server may keep it "
                "waiting: run it yourself to see which, then run the same command again"
            ) from None
        raise


def clone(url: str, folder: Path) -> None:
    """Clone the history of a repository, without a checkout; neither hooks nor templates of the user's are run on it."""
    address, helpers, login = take_login(url)
    settings = [f"--config={key}={value}" for key, value in {"core.hooksPath": os.devnull, **helpers}.items()]
    command = ("clone", "--quiet", "--bare", "--template=", *settings, "--", address, str(folder))
    run_git(Path.cwd(), *command, seconds=TRANSFER_SECONDS, variables=login)


def take_login(url: str) -> tuple[str, dict[str, str], dict[str, str]]:
    """Take user and password out of a web address; return it with settings and variables by which Git gets them nevertheless.

    All users of a machine see the arguments of a program, and only its own the variables. No helper of the user's is asked, nor
    told what to keep.

    Raises:
        UserError: user or password break a line.
    """
    scheme, _, rest = url.partition("://")
    login, _, host = rest.partition("/")[0].rpartition("@")
    user, colon, password = (os.fsdecode(unquote_to_bytes(os.fsencode(part))) for part in login.partition(":"))
    if scheme.lower() not in {"http", "https"} or not colon:
        return url, {}, {}
    if {*"\0\r\n"} & {*user, *password}:
        raise UserError(f"user or password in {url} have a line break or a zero byte: write there what you log in with")
    # An empty helper takes those away that were named before; a server that leads to another one does not hand on a password.
    helpers = {"credential.helper": "", f"credential.{scheme}://{host}.helper": CREDENTIAL_HELPER}
    address = f"{scheme}://{rest.removeprefix(f'{login}@')}"
    return address, helpers, {"CAPTCHA_REGISTRY_LOGIN": f"username={user}\npassword={password}\n"}


def _open_scm(root: Path, *, bare: bool) -> Any:
    try:
        scm: Any = SCM(str(root))
        # What Git does not know, such as the second in old ones, it prints as it stands.
        names, references = run_git(root, "rev-parse", "--show-object-format", "--show-ref-format", bare=bare).split()
        pygit2.settings.owner_validation = False
        if names != "sha256" and references != "reftable":
            _ = scm.pygit2
    except (SCMError, UserError):
        raise
    except Exception as error:  # noqa: BLE001 - both libraries have many, and no common ancestor
        # Git's own words are better, where it cannot read the repository either.
        run_git(root, "rev-parse", "--git-dir", bare=bare)
        problem = f"{type(error).__name__}: {error}"
        raise UserError(
            f"DVC cannot read the Git repository of {root} ({problem}), though Git can: make a new clone, and work there"
        ) from None
    if names == "sha256":
        raise UserError("DVC cannot read a Git repository whose objects have SHA-256 names; expected SHA-1, Git's default")
    if references == "reftable":
        raise UserError(
            f"DVC cannot read the Git repository of {root}, whose references are in a reftable: make a new clone with "
            "`git clone --ref-format=files`, and work there"
        )
    is_ignored = scm.is_ignored
    # Git is asked once, as DVC asks for each folder that is ignored.
    list_tracked = cache(lambda: _list_tracked(root, bare=bare))
    scm.is_tracked = lambda path: os.path.relpath(path, root) in list_tracked()
    scm.is_ignored = lambda path: is_ignored(path) and not scm.is_tracked(path)
    return scm


def _list_tracked(root: Path, *, bare: bool) -> set[str]:
    """List the files that Git tracks, and their folders."""
    tracked: set[str] = set()
    for file in run_git(root, "ls-files", "-z", bare=bare).split("\0"):
        path = file
        while path and path not in tracked:
            tracked.add(path)
            path = path.rpartition("/")[0]
    return tracked


def open_git(root: Path, *, bare: bool = False) -> Git:
    """Open a repository such that DVC reads its files in one piece, and Git fetches those that a partial clone lacks.

    It would read them as streams of pygit2, in which the thread that writes and the one that reads can wait for each other
    for ever. And it would know neither what the variables of Git say about owners that are trusted, nor who called `sudo`; it
    cannot read every index that Git writes, and takes what a user ignores everywhere for ignored where it is tracked.

    Raises:
        UserError: Git does not trust its owner, or it is of a kind that DVC cannot read.
        dvc.scm.SCMError: there is none.
    """
    scm = _open_scm(root, bare=bare)
    backend: Any = scm.pygit2

    def fetch(read: Callable[[], Any]) -> Any:
        try:
            return read()
        except (KeyError, pygit2.GitError) as error:
            # Both name the object that is not here.
            if not (lacking := re.search("[0-9a-f]{40}", str(error))):
                raise
            run_git(root, "cat-file", "-e", lacking[0], seconds=TRANSFER_SECONDS, bare=bare)
            return read()

    backend.get_tree_obj = lambda rev, **_: _WholeObject(fetch(lambda: backend.repo[rev].tree), fetch)
    return scm


def list_tag_names(scm: Git) -> list[str]:
    """List the tags of a repository; no name that is no text is one of ours."""
    objects: Any = scm.pygit2.repo
    refs = [ref.decode(errors="replace") for ref in objects.raw_listall_references()]
    return [ref.removeprefix(TAGS) for ref in refs if ref.startswith(TAGS)]


def find_tagged_commit(scm: Git, tag: str) -> str | None:
    """Find the commit of an annotated tag; None if it is another tag, or is on no commit.

    Nothing else of it is read: who made it may be said in bytes that are no text, or not at all.

    Raises:
        UserError: its object is not there or damaged.
    """
    objects: Any = scm.pygit2.repo
    try:
        oid, kind = objects.lookup_reference(f"{TAGS}{tag}").resolve().target, b"tag"
    except (KeyError, ValueError, pygit2.GitError):
        # As Git itself has it: a file that holds no name of an object, or that of another tag which is not there.
        return None
    try:
        while kind == b"tag":
            found, content = objects.read(oid)
            if found != ObjectType.TAG or not (match := TAG_CONTENT.match(content)):
                return None
            oid, kind = match["oid"].decode(), match["kind"]
    except (KeyError, pygit2.GitError) as error:
        raise UserError(f"the tag {tag} cannot be read ({error}): `git fsck` says what is damaged; make a new clone") from None
    return oid if kind == b"commit" else None


class _Content(BytesIO):
    """The bytes of a file; scmrepo notes their number on it."""

    size: int


class _WholeObject(Pygit2Object):
    """A file or folder of a commit; a file's bytes are those that were committed."""

    def __init__(self, obj: Any, fetch: Callable[[Callable[[], Any]], Any]) -> None:
        super().__init__(obj)
        self._fetch = fetch

    def open(self, mode: str = "r", encoding: str | None = None, **_: object) -> Any:  # type: ignore[override]
        content = _Content(self._fetch(self.obj.read_raw))
        return content if mode == "rb" else TextIOWrapper(content, encoding=encoding or "utf-8")

    def scandir(self) -> Iterable["_WholeObject"]:
        return [_WholeObject(entry, self._fetch) for entry in self._fetch(lambda: list(self.obj))]
