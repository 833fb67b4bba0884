"""Published versions: Git tags `NAME@vVERSION`, GTO's form, on commits whose dvc.yaml names the artifact.

A repository is a stranger's until proved otherwise: what its configuration may say is listed here, its paths stay inside it,
and nothing of it is ever run.
"""

import atexit
import re
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import gto.tag
from dvc.config import Config
from dvc.exceptions import DvcException, NotDvcRepoError
from dvc.repo import Repo
from dvc.repo.open_repo import clean_repos
from dvc.scm import Git, SCMError
from gto.constants import Action
from gto.exceptions import GTOException
from pydantic import TypeAdapter, ValidationError
from scmrepo.exceptions import SCMError as GitError
from semver import Version

from captcha_registry.dataset.manifest import InsidePath
from captcha_registry.errors import UserError
from captcha_registry.registry.cache import find_cache_dir

# What a repository's own .dvc/config may say. Other options name files of this machine, or commands that DVC runs, such as
# `bearer_token_command` and, through a file of AWS' settings, `configpath`.
SAFE_OPTIONS = {
    "core": {"analytics", "autostage", "checksum_jobs", "check_update", "hardlink_lock", "remote"},
    "cache": {"dir", "type", "shared", "slow_link_warning", "verify"},
    "remote": {
        *("url", "endpointurl", "region", "profile", "user", "port", "use_ssl", "jobs", "checksum_jobs", "timeout", "method"),
        *("connect_timeout", "read_timeout", "verify", "version_aware", "worktree", "no_traverse", "listobjects"),
        *("allow_anonymous_login", "account_name", "projectname", "oss_endpoint", "auth", "protected", "slow_link_warning"),
    },
}
REFERENCE = re.compile(r"(?P<name>[^@]+)(@v?(?P<version>.+))?")


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
        return make_tag(self.name, self.version)


def make_tag(name: str, version: Version) -> str:
    """Name the Git tag of a version."""
    return f"{name}@v{version}"


def parse_reference(reference: str) -> tuple[str, str | None]:
    """Take `digits@1.2.0` or `digits` apart into a name and a version.

    Raises:
        UserError: it is neither.
    """
    if not (match := REFERENCE.fullmatch(reference)):
        raise UserError(f"{reference!r} names no version; expected NAME or NAME@VERSION, such as digits@1.0.0")
    return match["name"], match["version"]


def parse_version(text: str) -> Version:
    """Parse `1.2.0` or `v1.2.0`.

    Raises:
        UserError: it is not a semantic version.
    """
    try:
        return Version.parse(text.removeprefix("v"))
    except ValueError:
        raise UserError(f"{text!r} is no version; expected MAJOR.MINOR.PATCH, such as 1.0.0 (https://semver.org)") from None


@contextmanager
def open_repository(url: str | None) -> Iterator[Repo]:
    """Open the repository at a Git URL or a path, or the one around the working folder.

    Raises:
        UserError: it cannot be reached, is no DVC project in Git, or its configuration is not safe to follow.
    """
    where = url or "this folder"
    if url and (url.startswith("-") or "::" in url):
        raise UserError(f"{url!r} is no address of a repository; expected a path or a Git URL (https, ssh, file)")
    with explain_errors(where):
        root = Path(url) if url else find_root()
        # Before DVC opens a folder, as it obeys the configuration there at once; a clone's it reads when data is asked for.
        if (config := root / ".dvc" / "config").is_file():
            _check_config(Config.load_file(config), where)
        # DVC clones into temporary folders, which only its command line clears.
        atexit.register(clean_repos)
        with Repo.open(url or str(root), config={"core": {"site_cache_dir": str(find_cache_dir() / "dvc")}}) as repo:
            if not isinstance(repo.scm, Git):
                raise UserError(f"{where} is in no Git repository, so it has no versions: name another with --repo")
            yield repo


@contextmanager
def explain_errors(where: str) -> Iterator[None]:
    """Say in one line what DVC, Git or GTO refuses.

    Raises:
        UserError: in the place of their errors.
    """
    try:
        yield
    except (DvcException, SCMError, GitError, GTOException) as error:
        # The first cause says what happened; DVC's own words may be "SCM error".
        cause: BaseException = error
        while earlier := cause.__cause__:
            cause = earlier
        raise UserError(f"{where}: {' '.join(str(cause).split()) or type(cause).__name__}") from error


def list_published(repo: Repo) -> list[Published]:
    """List all versions of all artifacts: names in order, and of each the newest version first.

    Raises:
        UserError: a version's dvc.yaml does not name its artifact, or names a path outside the repository.
    """
    commits = find_commits(repo)
    names = sorted({name for name, _ in commits})
    return [read_artifact(repo, key, commits[key]) for name in names for key in newest_first(commits, name)]


def find_published(repo: Repo, name: str, version: str | None = None) -> Published:
    """Find a version of an artifact, the newest if none is named.

    Raises:
        UserError: it does not exist; says what does.
    """
    commits = find_commits(repo)
    keys = newest_first(commits, name)
    if not keys:
        names = ", ".join(sorted({name for name, _ in commits})) or "none"
        raise UserError(f"{repo.url or repo.root_dir} has no published artifact {name!r}; published there: {names}")
    key = (name, parse_version(version)) if version else keys[0]
    if key not in commits:
        versions = ", ".join(str(version) for _, version in keys)
        raise UserError(f"{name} has no version {version}; published: {versions}")
    return read_artifact(repo, key, commits[key])


@contextmanager
def open_revision(repo: Repo, revision: str) -> Iterator[None]:
    """Let a repository show another commit, if the configuration there is safe to follow."""
    with explain_errors(repo.url or repo.root_dir), repo.switch(revision):
        _check_config(repo.config.read("repo"), f"{repo.url or repo.root_dir} at {revision[:8]}")
        yield


def find_commits(repo: Repo) -> dict[tuple[str, Version], str]:
    """Return the commit of each published version that was not withdrawn."""
    tags = [gto.tag.parse_tag(tag) for tag in gto.tag.find(scm=repo.scm) if not gto.tag.parse_name(tag.name).get("stage")]
    withdrawn = {(tag.name, tag.version) for tag in tags if tag.action == Action.DEREGISTER}
    return {
        (tag.name, parse_version(tag.version)): tag.tag.target
        for tag in tags
        if tag.action == Action.REGISTER and (tag.name, tag.version) not in withdrawn
    }


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
        raise UserError(f"{make_tag(name, version)}: dvc.yaml there has no artifact {name!r}; it was tagged by mistake")
    try:
        path = TypeAdapter(InsidePath).validate_python(artifact.path)
    except ValidationError:
        raise UserError(f"{make_tag(name, version)}: its path {artifact.path!r} does not stay inside the repository") from None
    return Published(name, version, revision, path, artifact.type, artifact.desc)


def find_root() -> Path:
    """Return the root of the DVC repository around the working folder.

    Raises:
        UserError: there is none.
    """
    try:
        return Path(Repo.find_root())
    except NotDvcRepoError:
        raise UserError(f"{Path.cwd()} is in no DVC repository: go to one, or name one with --repo URL") from None


def _check_config(config: dict[str, dict[str, Any]], where: str) -> None:
    """Refuse a repository whose own configuration holds what only its user may decide."""
    for section, content in config.items():
        groups = content.values() if section == "remote" else [content]
        unsafe = {option for group in groups for option in group} - SAFE_OPTIONS.get(section, set())
        if unsafe:
            raise UserError(
                f"{where}: its .dvc/config sets {section}.{min(unsafe)}, which can reach files or run commands of this machine; "
                "such options belong into your own configuration: `dvc config --global`"
            )
