"""Published versions: Git tags `NAME@vVERSION`, GTO's form, on commits whose dvc.yaml names the artifact.

A repository is not trusted: what its configuration may say is listed here, its paths stay inside it,
and nothing of it is ever run.
"""

import errno
import os
import pickle
import re
import shlex
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from tempfile import TemporaryDirectory
from traceback import walk_tb
from typing import Any
from urllib.parse import urlparse

import gto.tag
from dvc.config import Config, ConfigError, merge
from dvc.exceptions import DvcException, NotDvcRepoError
from dvc.fs import GitFileSystem, RemoteMissingDepsError
from dvc.parsing import ResolveError
from dvc.repo import Repo
from dvc.scm import RevError, SCMError, resolve_rev
from dvc.utils import strictyaml
from dvc.utils.serialize import ParseError, parse_yaml
from dvc.utils.strictyaml import YAMLValidationError
from gto.constants import ACTION, NAME, VERSION, Action
from gto.exceptions import GTOException
from pydantic import TypeAdapter, ValidationError
from pygit2 import GitError as PyGit2Error
from scmrepo.exceptions import SCMError as GitError
from semver import Version

from captcha_registry.cache import make_work_dir
from captcha_registry.dataset.manifest import InsidePath
from captcha_registry.errors import UserError
from captcha_registry.extras import advise_install
from captcha_registry.machine import expand_home, settle_user
from captcha_registry.nearest import suggest
from captcha_registry.registry.git import GIT_REMOTE, clone, find_tagged_commit, list_tag_names, open_git, run_git

# What a repository's own .dvc/config may say. Other options name files of this machine, or commands that DVC runs, such as
# `bearer_token_command` and, through a file of AWS' settings, `configpath`; or they choose or weaken what its user alone decides:
# credentials (`profile`, `auth`) and encryption (`use_ssl`).
SAFE_OPTIONS = {
    "core": {"analytics", "autostage", "checksum_jobs", "check_update", "hardlink_lock", "remote"},
    "cache": {"dir", "type", "shared", "slow_link_warning", "verify"},
    "remote": {
        *("url", "endpointurl", "region", "user", "port", "jobs", "checksum_jobs", "timeout", "method", "connect_timeout"),
        *("read_timeout", "version_aware", "worktree", "no_traverse", "listobjects", "allow_anonymous_login", "account_name"),
        *("projectname", "oss_endpoint", "protected", "slow_link_warning"),
    },
    # A file that `dvc plots` alone reads, which is never run here.
    "plots": {"html_template"},
}
# Which of these decide who gets a password.
PLACES = ("url", "endpointurl", "oss_endpoint", "account_name", "port")
# How Git names a program that it runs to reach a repository: https://git-scm.com/docs/gitremote-helpers
TRANSPORT_HELPER = re.compile(r"[\w.+-]*::")
# How DVC colours what it says.
COLOUR = re.compile(r"\x1b\[[\d;]*m")
# Git keeps a tag in a file of its name, which may have 255 bytes.
MAX_VERSION_LENGTH = 100
REFERENCE = re.compile(r"(?P<name>[^@]+)(@v?(?P<version>.+))?")
# Texts of dvc.yaml and dvc.lock, of the commits that were looked at last.
NUM_PARSED = 16


@lru_cache(NUM_PARSED)
def _parse_text(text: str) -> bytes:
    # The path is for an error, to which `strictyaml` gives its own.
    return pickle.dumps(parse_yaml(text, ""))


def _parse_once(text: str, path: str, typ: str = "safe") -> Any:
    """Parse a dvc.yaml or dvc.lock; DVC asks for the same one up to ten times in a command, and may change what it gets."""
    return pickle.loads(_parse_text(text)) if typ == "safe" else parse_yaml(text, path, typ)  # noqa: S301 - pickled here


# A dry run of `publish` in this project takes a fifth less processor time.
strictyaml.parse_yaml = _parse_once


@dataclass(frozen=True, slots=True)
class Published:
    """One version of an artifact: the commit that it stands on, and the artifact's path, type and description there."""

    name: str
    version: Version
    revision: str
    path: str
    type: str | None
    description: str | None

    def __str__(self) -> str:
        return f"{self.name}@{self.version}"

    @property
    def tag(self) -> str:
        """The Git tag of the version."""
        return make_tag(self.name, self.version)


def make_tag(name: str, version: Version) -> str:
    """Name the Git tag of a version."""
    return f"{name}@v{version}"


def explain_no_default_branch(branches: Sequence[str]) -> str:
    """Say what is wrong with a repository whose HEAD names none of its branches, and who can put it right."""
    if not branches:
        return (
            "it has no branch: nothing or only tags were pushed to it, or what answers there is no Git host; its owner has to "
            "push a branch"
        )
    return (
        f"its HEAD names a branch that is not there, so nobody can clone it; there are {', '.join(branches)}: its owner "
        f"has to push that branch, or to choose one of these in the host's settings, or in a bare repository "
        f"with `git symbolic-ref HEAD {branches[0]}`"
    )


def parse_reference(reference: str, apart: str | None = None) -> tuple[str, str | None]:
    """Take `digits@1.2.0` or `digits` apart into a name and a version; the version may be given apart from the name, too.

    Raises:
        UserError: it is neither, or two versions are given, and differ.
    """
    if "://" in reference or not (match := REFERENCE.fullmatch(reference)):
        raise UserError(f"{reference!r} names no version; expected NAME or NAME@VERSION, such as digits@1.0.0")
    behind = match["version"]
    if apart == "":
        raise UserError("the version is empty, perhaps because a variable is not set; expected one such as 1.0.0, or none")
    if behind and apart and parse_version(behind) != parse_version(apart):
        raise UserError(f"two versions are given, {behind} and {apart}: leave one out")
    return match["name"], behind or apart


def parse_version(text: str) -> Version:
    """Parse `1.2.0` or `v1.2.0`.

    Raises:
        UserError: it is not a semantic version, or one with build metadata: 1.0.0+a and 1.0.0+b have no order.
    """
    try:
        # In Python a number may be given.
        version = Version.parse(str(text).removeprefix("v"))
    except ValueError:
        version = None
    if version is None or version.build or len(str(text)) > MAX_VERSION_LENGTH:
        raise UserError(
            f"{text!r} is not a version; expected MAJOR.MINOR.PATCH, such as 1.0.0, with at most "
            f"{MAX_VERSION_LENGTH} characters (https://semver.org)"
        )
    return version


@contextmanager
def open_repository(url: str | Path | None) -> Iterator[Repo]:
    """Open the repository at a Git URL or a path, or the one around the working folder.

    Raises:
        UserError: it cannot be reached, is no DVC project in Git, or its configuration is not safe to follow.
    """
    settle_user()
    url = url if url is None else str(url)
    where = url or "this folder"
    if url and (url.startswith("-") or TRANSPORT_HELPER.match(url)):
        path = f"; write a path as ./{url}" if url.startswith("-") else ""
        raise UserError(f"{url!r} is not an address of a repository; expected a path or a Git URL (https, ssh, file){path}")
    with explain_errors(where), _open_folder(url, where) or _open_clone(url or "", where) as repo:
        yield repo


def _open_folder(url: str | None, where: str) -> Repo | None:
    """Open a repository in a folder once its configuration is checked, as DVC obeys that at once; None if there is none."""
    try:
        root = find_root() if url is None else Path(Repo.find_root(str(expand_home(url))))
    except NotDvcRepoError:
        return None
    if url is not None and _is_in_another_repository(expand_home(url).resolve(), root.resolve()):
        return None
    try:
        scm = open_git(root)
    except SCMError:
        raise UserError(
            f"{where} is in no Git repository, so it has no versions: go to the folder of one, or name it with --repo if the "
            "command takes that"
        ) from None
    if (top := Path(scm.root_dir).resolve()) != root.resolve():
        raise UserError(
            f"{root} is a project below the top of its Git repository, whose versions are those of the top: name that with "
            f"--repo {shlex.quote(str(top))}"
        )
    local = root / ".dvc" / "config.local"
    if any(path.exists() and scm.is_tracked(str(path)) for path in (local, local.resolve())):
        raise _tracks_local_config(where)
    if (config := root / ".dvc" / "config").is_file():
        _check_config(Config.load_file(config), where)
    _require_default_remote(Config(str(root / ".dvc")), where)
    return Repo(str(root), scm=scm, config=_configure())


def _require_default_remote(settings: Config, where: str) -> None:
    """Refuse settings that name a default remote which they do not have: DVC looks it up when it opens a repository."""
    name, remotes = settings["core"].get("remote"), settings["remote"]
    if name and name not in remotes:
        raise UserError(
            f"{where}: DVC's settings have no remote {name!r}, which they name as the default; there are "
            f"{', '.join(remotes) or 'none'}: choose one with `dvc remote default NAME`, or add it with `dvc remote add NAME URL`"
        )


def _is_in_another_repository(path: Path, root: Path) -> bool:
    """Tell whether a folder below a DVC project is, or is in, a Git repository of its own, such as a bare one."""
    folders = [folder for folder in (path, *path.parents) if root in folder.parents]
    return any((f / ".git").exists() or all((f / name).exists() for name in ("HEAD", "objects", "refs")) for f in folders)


@contextmanager
def _open_clone(url: str, where: str) -> Iterator[Repo]:
    """Clone a repository for as long as it is open, and check the configuration in the clone before DVC opens it."""
    path = expand_home(url)
    with TemporaryDirectory(prefix="captcha-registry-") as folder:
        root = Path(folder, "clone.git")
        try:
            clone(str(path.absolute()) if path.exists() else url, root)
        except UserError as error:
            if (full := os.strerror(errno.ENOSPC)) in str(error):
                raise OSError(errno.ENOSPC, full, str(root)) from None
            raise UserError(f"{where}: No git repository was found there that could be read ({error})") from None
        scm = open_git(root, bare=True)
        try:
            fs = GitFileSystem(scm=scm, rev=resolve_rev(scm, "HEAD"))
        except RevError:
            branches = run_git(root, "for-each-ref", "--format=%(refname)", "refs/heads", bare=True).split()
            raise UserError(f"{where}: {explain_no_default_branch(branches)}") from None
        _check_places(require_readable(fs, where).get("remote", {}), where)
        with Repo("/", fs=fs, scm=scm, url=url, config=_configure(cache={"dir": str(Path(folder, "cache"))})) as repo:
            yield repo


def require_readable(fs: GitFileSystem, where: str) -> dict[str, dict[str, Any]]:
    """Refuse the commit of a default branch with which nobody can begin to read the repository; return its configuration.

    Raises:
        UserError: it is no DVC project, or its configuration is not safe to follow.
    """
    if not fs.isdir("/.dvc"):
        raise UserError(
            f"{where}: the default branch of this Git repository has no .dvc folder at its top, and readers begin there: if "
            "another branch has one, its owner has to make that the default"
        )
    # DVC would not read it from a clone; who reads the repository with plain DVC would follow it.
    if fs.exists("/.dvc/config.local"):
        raise _tracks_local_config(where)
    config: dict[str, dict[str, Any]] = {}
    with suppress(FileNotFoundError):
        config = Config.load_file("/.dvc/config", fs=fs)
    _check_options(config, where)
    return config


def _configure(**others: dict[str, str]) -> dict[str, dict[str, str]]:
    """Say where DVC keeps what belongs to no repository, and what else it takes over a repository's own configuration."""
    return {"core": {"site_cache_dir": str(make_work_dir("dvc"))}, **others}


def _tracks_local_config(where: str) -> UserError:
    return UserError(
        f"{where}: it has .dvc/config.local in Git, which DVC takes for the settings of its user; such a repository is not "
        "followed: its owner has to remove the file with `git rm --cached .dvc/config.local`"
    )


@contextmanager
def explain_errors(where: str) -> Iterator[None]:
    """Say in one line what DVC, Git or GTO refuses, or cannot do for want of a package.

    Raises:
        UserError: in the place of their errors.
    """
    try:
        yield
    except (ImportError, RemoteMissingDepsError) as error:
        # DVC calls its own package for a kind of remote `dvc-s3`, `dvc-gs`, ...
        packages = re.findall(r"dvc-[a-z0-9]+", str(error)) or getattr(error, "missing_deps", [])
        cure = advise_install(*packages) if packages else "install the package that it names"
        raise UserError(f"{where}: its remote cannot be reached ({error}): {cure}") from None
    except RecursionError:
        raise UserError(f"{where}: a file of it is nested deeper than can be read") from None
    except UnicodeDecodeError as error:
        # DVC names the others.
        if not any(frame.f_globals.get("__name__") == "dvc.ignore" for frame, _ in walk_tb(error.__traceback__)):
            raise
        raise UserError(f"{where}: its .dvcignore is no text in UTF-8 ({error}): correct that file") from None
    except (DvcException, SCMError, GitError, PyGit2Error, GTOException) as error:
        causes = _list_causes(error)
        if isinstance(causes[-1], PermissionError) and causes[-1].filename:
            # It names the file, and gets the advice that other errors of rights get.
            raise causes[-1] from None
        raise UserError(_describe_problem(where, causes)) from None
    except OSError as error:
        # libgit2 has only a text for what the machine refuses; remotes have errors of their own kinds.
        if error.errno is not None or type(error) is not OSError:
            raise
        raise UserError(f"{where}: Git's files could not be read ({error}): check your rights to them, and the memory") from None


def _list_causes(error: Exception) -> list[BaseException]:
    """List what led to an error, the first cause last; of a value in dvc.yaml the words of the error itself say all."""
    causes: list[BaseException] = [error]
    while (earlier := causes[-1].__cause__) and not isinstance(error, ResolveError):
        causes.append(earlier)
    return causes


def _describe_problem(where: str, causes: list[BaseException]) -> str:
    """Say what went wrong, in which file, and what to do."""
    # The first cause says what happened; DVC's own words may be "SCM error".
    problem = COLOUR.sub("", " ".join(str(causes[-1]).split())) or type(causes[-1]).__name__
    # ruamel.yaml ends the error of a key that comes twice with how to hide it.
    problem = problem.partition(" To suppress this check see")[0]
    said, is_locked, _ = problem.partition("Check the page ")
    if is_locked:
        return (
            f"{where}: {said}Wait for it to end, or end it; where DVC's setting core.hardlink_lock is true and none runs on "
            "any machine, delete .dvc/tmp/lock and .dvc/tmp/rwlock.lock; then run the same command again"
        )
    if isinstance(causes[0], ConfigError):
        return f"{_find_broken_settings() or f'{where}: its .dvc/config or .dvc/config.local'}: {problem}: correct that file"
    if broken := next((cause for cause in causes if isinstance(cause, ParseError | YAMLValidationError)), None):
        return f"{where}: {Path(broken.path).name}: {problem}: correct that file, and commit it"
    return f"{where}: {problem}"


def _find_broken_settings() -> Path | None:
    """Find the file of the settings of DVC that this user has everywhere, or this machine, if it cannot be read."""
    for level in ("global", "system"):
        path = Path(Config.get_dir(level), Config.CONFIG)
        try:
            # A remote may have its address in one file and its password in another.
            Config.validate({name: content for name, content in Config.load_file(path).items() if name != "remote"})
        except FileNotFoundError:
            continue
        except ConfigError:
            return path
    return None


def list_versions(repo: Repo) -> dict[tuple[str, Version], str]:
    """List the commits of all versions of all artifacts: names in order, and of each the newest version first."""
    commits = find_commits(repo)
    names = sorted({name for name, _ in commits})
    return {key: commits[key] for name in names for key in newest_first(commits, name)}


def find_published(repo: Repo, name: str, version: str | None = None) -> Published:
    """Find a version of an artifact; if none is named the newest, but one such as 2.0.0-rc.1 only if there is no other.

    Raises:
        UserError: it does not exist; says what does.
    """
    commits = find_commits(repo)
    keys = newest_first(commits, name)
    if not keys:
        names = sorted({name for name, _ in commits})
        there = ", ".join(names) or "none; to read from another repository, name it with --repo URL, in Python with repo=URL"
        lacking = say_what_is_lacking(repo)
        hint = suggest(name.rpartition("/")[2], names)
        raise UserError(
            f"{repo.url or repo.root_dir} has no published artifact {name!r}; {hint and f'{hint} '}published there: "
            f"{there}{lacking}"
        )
    newest = next((key for key in keys if not key[1].prerelease), keys[0])
    key = (name, parse_version(version)) if version else newest
    if key not in commits:
        versions = ", ".join(str(version) for _, version in keys)
        raise UserError(f"{name} has no version {version}; published: {versions}{say_what_is_lacking(repo)}")
    return read_artifact(repo, key, commits[key])


def say_what_is_lacking(repo: Repo) -> str:
    """Say which versions a clone does not know of because it was made without tags; nothing if its origin has no other."""
    root = Path(repo.root_dir)
    if repo.url or GIT_REMOTE not in run_git(root, "remote").split():
        return ""
    cure = "run `git fetch --tags` here, or name the repository with --repo URL, in Python with repo=URL"
    try:
        refs = run_git(root, "ls-remote", "--tags", "--refs", GIT_REMOTE, "*@v*").splitlines()
    except UserError as error:
        return f"; {GIT_REMOTE} may have others, but could not be asked ({error}): {cure}"
    here = set(list_tag_names(repo.scm))
    unknown = [tag for ref in refs if gto.tag.parse_name(tag := ref.split("refs/tags/")[1], False) and tag not in here]
    return f"; {GIT_REMOTE} has {', '.join(unknown)}, not known here: {cure}" if unknown else ""


@contextmanager
def open_revision(repo: Repo, revision: str) -> Iterator[None]:
    """Let a repository show another commit, if the configuration there is safe to follow."""
    where = f"{repo.url or repo.root_dir} at {revision[:8]}"
    with explain_errors(where), repo.switch(revision):
        with suppress(FileNotFoundError):
            _check_config(Config.load_file(repo.fs.join(repo.dvc_dir, Config.CONFIG), fs=repo.fs), where)
        if not repo.url:
            # A clone has no settings of a user's own.
            repo.config = _settle_config(repo, where)
        yield


def _settle_config(repo: Repo, where: str) -> Config:
    """Compose the configuration with which a checkout reads the commit that it shows.

    Of what .dvc/config.local has settings, such as a password, today's addresses hold, and so for the default remote, whatever
    older commits say. All else is as the commit has it.

    Raises:
        UserError: the commit puts a remote of its own on one of which .dvc/config.local has settings.
    """
    today = Config(str(Path(repo.scm.root_dir, ".dvc")))
    local, remotes = today.read("local"), today["remote"]
    own = {*local.pop("remote", {})}
    kept = {name for name in remotes if name == today["core"].get("remote") or own & {*_list_bases(remotes, name)}}
    kept |= {base for name in kept for base in _list_bases(remotes, name) if base in remotes}
    merge(local, repo._config or {})  # noqa: SLF001 - what it was opened with
    config = Config(repo.dvc_dir, fs=repo.fs, validate=False, config=local)
    config["remote"] |= {name: remotes[name] for name in kept}
    for name in {*config["remote"]} - kept:
        if strange := own & {*_list_bases(config["remote"], name)}:
            raise UserError(
                f"{where}: its .dvc/config puts remote {name!r} on your own {min(strange)!r}, whose credentials in "
                ".dvc/config.local could go to a stranger: to read the version without that file, name the repository with "
                "--repo URL, in Python with repo=URL"
            )
    settled = Config.validate(config)
    config.clear()
    config.update(settled)
    return config


def _list_bases(remotes: dict[str, dict[str, Any]], name: str) -> list[str]:
    """List a remote and those on which it stands, as `remote://NAME/path` names them."""
    names = [name]
    for each in names:
        base = urlparse(str(remotes.get(each, {}).get("url", "")))
        if base.scheme == "remote" and base.netloc.lower() not in names:
            names.append(base.netloc.lower())
    return names


def find_commits(repo: Repo) -> dict[tuple[str, Version], str]:
    """Return the commit of each published version that was not withdrawn; tags that name no version are passed over.

    Raises:
        UserError: the tag of one is damaged.
    """
    commits, withdrawn = {}, set()
    for tag in list_tag_names(repo.scm):
        told = gto.tag.parse_name(tag, raise_on_fail=False)
        try:
            key = told.get(NAME, ""), parse_version(told.get(VERSION, ""))
        except UserError:
            continue
        if not (commit := find_tagged_commit(repo.scm, tag)):
            continue
        if told[ACTION] == Action.REGISTER:
            commits[key] = commit
        else:
            withdrawn.add(key)
    return {key: commit for key, commit in commits.items() if key not in withdrawn}


def newest_first(commits: dict[tuple[str, Version], str], name: str) -> list[tuple[str, Version]]:
    """Return the versions of one artifact, each with its name."""
    return sorted((key for key in commits if key[0] == name), key=lambda key: key[1], reverse=True)


def read_artifact(repo: Repo, key: tuple[str, Version], revision: str) -> Published:
    """Read what dvc.yaml says of an artifact at the commit of a version.

    Raises:
        UserError: it does not name the artifact, or a path outside the repository.
    """
    name, version = key
    with open_revision(repo, revision):
        artifact = repo.artifacts.read().get("dvc.yaml", {}).get(name)
    if artifact is None:
        raise UserError(f"{name}@{version}: dvc.yaml there has no artifact {name!r}; it was tagged by mistake")
    try:
        path = TypeAdapter(InsidePath).validate_python(artifact.path)
    except ValidationError:
        raise UserError(f"{name}@{version}: its path {artifact.path!r} does not stay inside the repository") from None
    return Published(name, version, revision, path, artifact.type, artifact.desc)


def find_root() -> Path:
    """Return the root of the DVC repository around the working folder.

    Raises:
        UserError: there is none.
    """
    try:
        return Path(Repo.find_root())
    except NotDvcRepoError:
        cure = "go to the folder of one; commands that read from a repository elsewhere take --repo URL, in Python repo=URL"
        with suppress(UserError):
            if run_git(Path.cwd(), "ls-tree", "--full-tree", "HEAD", ".dvc/config"):
                cure = "Git has one, but .dvc is not here: run `git sparse-checkout disable`, or `git checkout HEAD -- :/.dvc`"
                if not run_git(Path.cwd(), "ls-files", "--", ":/"):
                    cure = "its files are not here, as after `git clone --no-checkout`: run `git checkout HEAD -- :/`"
        raise UserError(f"{Path.cwd()} is in no DVC repository: {cure}") from None


def _check_config(config: dict[str, dict[str, Any]], where: str) -> None:
    """Refuse a repository whose own configuration holds what only its user may decide, or that gets what this user has set."""
    _check_options(config, where)
    _check_places(config.get("remote", {}), where)


def _check_options(config: dict[str, dict[str, Any]], where: str) -> None:
    """Refuse a repository whose own configuration holds what only its user may decide."""
    for section, content in config.items():
        groups = list(content.values()) if section == "remote" and isinstance(content, dict) else [content]
        if not all(isinstance(group, dict) for group in groups):
            raise UserError(
                f"{where}: its .dvc/config has a text in the place of the section {section}: its owner has to correct it"
            )
        unsafe = {option for group in groups for option in group} - SAFE_OPTIONS.get(section, set())
        if unsafe:
            raise UserError(
                f"{where}: its .dvc/config sets {section}.{min(unsafe)}, which can reach files or run commands of this machine, "
                "or is for its user to choose; such options belong in your own configuration: `dvc config --global`"
            )


def _check_places(remotes: dict[str, dict[str, Any]], where: str) -> None:
    """Refuse a remote that would get what its user has set, such as a password, for another one of the same name.

    DVC merges the settings of both by name alone, whatever their addresses are.
    """
    # Not validated: a remote may have its address in one file and its password in another.
    own = Config(validate=False)["remote"]
    for name, remote in remotes.items():
        address = urlparse(str(remote.get("url", "")))
        if address.scheme == "remote" and address.netloc.lower() in own:
            raise UserError(
                f"{where}: its .dvc/config puts remote {name!r} on your own {address.netloc!r}; expected an address of its own"
            )
        for option in PLACES:
            there, here = remote.get(option), own.get(name, {}).get(option)
            if name in own and there is not None and str(there) != str(here):
                raise UserError(
                    f"{where}: its .dvc/config sets {option} of remote {name!r} to {there}, and your own configuration to "
                    f"{here or 'nothing'}, so your credentials for a remote of that name could go to a stranger; if they are "
                    f"meant for it, say so: `dvc config --global remote.{name}.{option} {shlex.quote(str(there))}`"
                )
