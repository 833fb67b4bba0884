"""Publish a version: prove what is here, push it, prove what is there, then tag.

The pushed tag is the commit point. Whatever stops the work before it leaves objects on the remote that nothing names yet, and
the same call made again goes on from there; a version that can be seen is whole.
"""

import hashlib
import logging
import subprocess
import sys
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from dvc.annotations import Artifact
from dvc.output import Output
from dvc.repo import Repo
from dvc_data.hashfile.db import HashFileDB
from filelock import FileLock, Timeout
from semver import Version

from captcha_registry.dataset.verify import verify_dataset
from captcha_registry.errors import UserError
from captcha_registry.registry.diff import Bump, DatasetDiff, DatasetVersion, ModelDiff, ModelVersion
from captcha_registry.registry.fetching import find_files
from captcha_registry.registry.repository import (
    Published,
    explain_errors,
    find_commits,
    find_root,
    make_tag,
    parse_version,
    read_artifact,
)
from captcha_registry.registry.versions import diff_versions, read_folder, read_published

ORDER: tuple[Bump, ...] = ("none", "patch", "minor", "major")
GIT_REMOTE = "origin"
# Progress is no result.
STDERR = 2


@dataclass(frozen=True, slots=True)
class Release:
    """What is to be published, or was: the tag, its commit, what it holds, and how it differs from the version before."""

    tag: str
    commit: str
    outputs: list[str]
    size_bytes: int
    samples: int | None
    predecessor: str | None
    bump: Bump | None
    summary: str
    already_published: bool


@contextmanager
def lock_publishing(repo: Repo) -> Iterator[None]:
    """Keep a second publication out of this checkout.

    Raises:
        UserError: one is running.
    """
    try:
        with FileLock(Path(repo.tmp_dir) / "captcha-registry.publish.lock", timeout=0):
            yield
    except Timeout:
        raise UserError(f"another publication runs in {repo.root_dir}: wait for it to end, or stop it") from None


def publish(name: str, version_text: str, *, dry_run: bool = False) -> Release:
    """Publish the artifact as it is at the commit that is checked out; with `dry_run` only find out whether that would do.

    Raises:
        UserError: the version is taken or says less than the change, the tree is dirty, the pipeline stale, the data damaged, or
            a remote is missing or does not take it.
    """
    version = parse_version(version_text)
    root = find_root()
    with explain_errors(str(root)), Repo(str(root)) as repo, lock_publishing(repo):
        release = prepare_release(repo, name, version)
        if not dry_run:
            _push_data(repo, [str(root / path) for path in release.outputs])
            _push_tag(root, release)
    return release


def prepare_release(repo: Repo, name: str, version: Version) -> Release:
    """Check all that has to be true before anything is pushed; nothing is changed.

    Raises:
        UserError: says which of it is not.
    """
    root = Path(repo.root_dir)
    tag = make_tag(name, version)
    _require_clean_tree(root)
    commit = _git(root, "rev-parse", "HEAD")
    _require_known_commit(root, commit)
    taken = _find_remote_tags(root, name)
    if f"{tag}!" in taken:
        raise UserError(f"{tag} was withdrawn, and a version never changes: choose a higher one")
    if taken.get(tag, commit) != commit:
        raise UserError(f"{tag} is published already, from commit {taken[tag][:8]}; a version never changes: choose a higher one")
    artifact = _find_artifact(repo, name)
    outputs = _find_outputs(repo, artifact, name)
    _require_fresh(repo, outputs, name)
    here = _prove(root / artifact.path)
    predecessor = _find_predecessor(repo, name, version, taken)
    difference = diff_versions(read_published(predecessor, find_files(repo, predecessor)), here) if predecessor else None
    if predecessor and difference:
        _require_bump(predecessor, version, difference)
    repo.cloud.get_remote(command="push")
    return Release(
        tag,
        commit,
        sorted(Path(out.fs_path).relative_to(root).as_posix() for out in outputs),
        sum(out.meta.size or 0 for out in outputs),
        here.manifest.spec.count if isinstance(here, DatasetVersion) else None,
        str(predecessor) if predecessor else None,
        difference.bump if difference else None,
        _summarize(here, predecessor, difference),
        tag in taken,
    )


def _require_clean_tree(root: Path) -> None:
    changed = _git(root, "status", "--porcelain").splitlines()
    if changed:
        more = f" and {len(changed) - 1} more" if len(changed) > 1 else ""
        raise UserError(f"{changed[0][3:]}{more} is not committed, and a version is a commit: commit or stash it")


def _require_known_commit(root: Path, commit: str) -> None:
    """Refuse a commit that is on no branch of the Git remote: a clone would not have it, or lose it."""
    if GIT_REMOTE not in _git(root, "remote").split():
        raise UserError(f"there is no Git remote {GIT_REMOTE!r} to publish at: add one with `git remote add {GIT_REMOTE} URL`")
    heads = sorted({line.split("\t")[0] for line in _git(root, "ls-remote", "--heads", GIT_REMOTE).splitlines()})
    if heads and commit not in heads:
        # Objects only, of what others have built upon it; no branch and no tag is written.
        _git(root, "fetch", "--quiet", "--no-tags", "--refmap=", GIT_REMOTE, *heads)
    if not heads or _git(root, "rev-list", "--max-count=1", commit, "--not", *heads):
        raise UserError(f"commit {commit[:8]} is on no branch of {GIT_REMOTE}: run `git push` first")


def _find_remote_tags(root: Path, name: str) -> dict[str, str]:
    """Return the commits of the artifact's versions at the Git remote, by tag; of a withdrawn one too."""
    lines = _git(root, "ls-remote", "--tags", GIT_REMOTE, f"refs/tags/{name}@v*").splitlines()
    # An annotated tag is followed by the commit that it stands on, under the name with `^{}`.
    commits = {ref.removeprefix("refs/tags/").removesuffix("^{}"): sha for sha, ref in (line.split("\t") for line in lines)}
    return {tag: sha for tag, sha in commits.items() if Version.is_valid(tag.removeprefix(f"{name}@v").removesuffix("!"))}


def _find_artifact(repo: Repo, name: str) -> Artifact:
    artifacts = repo.artifacts.read().get("dvc.yaml", {})
    if name not in artifacts:
        raise UserError(f"dvc.yaml names no artifact {name!r}; expected {' or '.join(artifacts) or 'one below `artifacts`'}")
    return artifacts[name]


def _find_outputs(repo: Repo, artifact: Artifact, name: str) -> list[Output]:
    """List the outputs that make up the artifact."""
    folder = repo.fs.join(repo.root_dir, artifact.path)
    outputs = [out for out in repo.index.outs if repo.fs.isin_or_eq(out.fs_path, folder)]
    if not outputs:
        raise UserError(f"dvc.yaml: artifacts.{name}.path is {artifact.path}, in which DVC tracks nothing")
    return outputs


def _require_fresh(repo: Repo, outputs: list[Output], name: str) -> None:
    """Refuse outputs that are not what the pipeline would make now; what they were made from need not be here."""
    stages = sorted({out.stage.addressing for out in outputs})
    with _keep_quiet("dvc"):
        stale = repo.reproduce(targets=stages, dry=True, allow_missing=True)
    if stale:
        names = ", ".join(stage.addressing for stage in stale)
        raise UserError(
            f"{name} is not what the pipeline would make now ({names}): run `dvc repro {' '.join(stages)}` and commit"
        )


@contextmanager
def _keep_quiet(logger_name: str) -> Iterator[None]:
    """Hold back what a library would print on stdout, where results go."""
    logger = logging.getLogger(logger_name)
    level = logger.level
    logger.setLevel(logging.CRITICAL)
    try:
        yield
    finally:
        logger.setLevel(level)


def _prove(root: Path) -> DatasetVersion | ModelVersion:
    """Compare every byte with the manifest, or a model's with its card."""
    here = read_folder(root)
    if isinstance(here, ModelVersion):
        model = root / "model.keras"
        if hashlib.sha256(model.read_bytes()).hexdigest() != here.card.get("model_sha256"):
            raise UserError(f"{model} is not the model that {root}/model.json describes: run `dvc repro`, or `dvc checkout`")
        return here
    with ThreadPoolExecutor() as executor:
        problems = verify_dataset(root, "full", executor)
    if problems:
        raise UserError(f"{problems[0]} ({len(problems)} problems in all): `captcha-registry repair {root}` mends it")
    return here


def _find_predecessor(repo: Repo, name: str, version: Version, taken: dict[str, str]) -> Published | None:
    """Find the newest published version below a new one; one such as 1.0.0-rc.1 is nobody's predecessor."""
    known = {other: commit for (artifact, other), commit in find_commits(repo).items() if artifact == name}
    if unknown := sorted(set(taken) - set(_git(Path(repo.root_dir), "tag", "--list", f"{name}@v*").splitlines())):
        raise UserError(f"{GIT_REMOTE} has {unknown[0]}, which is not known here: run `git fetch --tags`")
    published = [other for other in known if make_tag(name, other) in taken and other != version and not other.prerelease]
    lower = [other for other in published if other < version]
    if published and not lower:
        raise UserError(f"{name} {version} is lower than {min(published)}, the first that was published: choose a higher version")
    return read_artifact(repo, (name, max(lower)), known[max(lower)]) if lower else None


def _require_bump(predecessor: Published, version: Version, difference: DatasetDiff | ModelDiff) -> None:
    """Refuse a version that says less than the change."""
    old = predecessor.version
    said: Bump = "major" if version.major > old.major else "minor" if version.minor > old.minor else "patch"
    if ORDER.index(said) >= ORDER.index(difference.bump):
        return
    wanted = {"major": old.bump_major, "minor": old.bump_minor, "patch": old.bump_patch}[difference.bump]()
    raise UserError(
        f"{version} says {said} but the change since {predecessor} is {difference.bump}: publish it as {wanted} or higher; "
        f"`captcha-registry diff {predecessor} {predecessor.path}` shows what changed"
    )


def _summarize(
    here: DatasetVersion | ModelVersion, predecessor: Published | None, difference: DatasetDiff | ModelDiff | None
) -> str:
    """Say in a few lines what the version holds and what is new; the message of its tag."""
    if isinstance(here, DatasetVersion):
        holds = f"{here.manifest.spec.count:,} samples, dataset id {here.manifest.dataset_id}"
    else:
        holds = f"{here.card.get('family')}, trained on {here.card.get('dataset')}, dataset id {here.card.get('dataset_id')}"
    if not predecessor or not difference:
        return f"{holds}\nfirst version"
    changes = (
        [f"{len(ids):,} {kind}" for kind, ids in difference.samples.items() if len(ids)]
        if isinstance(difference, DatasetDiff)
        else []
    )
    return f"{holds}\nsince {predecessor}: {', '.join(['samples ' + ', '.join(changes)] if changes else [difference.bump])}"


def _push_data(repo: Repo, targets: list[str]) -> None:
    """Push the outputs with DVC's own command, whose progress is seen.

    DVC takes a folder whose listing is at the remote for complete, so each of its objects is looked for, and sent if it is not
    there or was cut.
    """
    result = subprocess.run([sys.executable, "-m", "dvc", "push", *targets], cwd=repo.root_dir, stdout=STDERR, check=False)
    if result.returncode:
        raise UserError("`dvc push` failed, see above; nothing was tagged: mend it and run the same command again")
    local: HashFileDB = repo.cache.local
    remote: HashFileDB = repo.cloud.get_remote_odb(command="push")
    hashes = sorted({info.value for infos in repo.used_objs(targets, push=True).values() for info in infos})
    if lost := [value for value in hashes if not local.fs.exists(local.oid_to_path(value))]:
        raise UserError(
            f"DVC's cache has lost {len(lost)} of {len(hashes)} objects, such as {lost[0]}: run `dvc commit` and again this"
        )
    if lacking := _find_lacking(local, remote, hashes):
        remote.add([local.oid_to_path(value) for value in lacking], local.fs, lacking, check_exists=False)
    if lacking := _find_lacking(local, remote, hashes):
        raise UserError(
            f"{len(lacking)} of {len(hashes)} objects are missing or cut on the remote, such as "
            f"{remote.oid_to_path(lacking[0])}; nothing was tagged: make the remote writable and run the same command again"
        )


def _find_lacking(local: HashFileDB, remote: HashFileDB, hashes: list[str]) -> list[str]:
    """List the objects that are not at the remote, or with another size than here."""
    found = remote.fs.info([remote.oid_to_path(value) for value in hashes], return_exceptions=True)
    sizes = [local.fs.size(local.oid_to_path(value)) for value in hashes]
    checks = zip(hashes, found, sizes, strict=True)
    return [value for value, info, size in checks if isinstance(info, Exception) or info["size"] != size]


def _push_tag(root: Path, release: Release) -> None:
    """Tag the commit and push the tag, which makes the version seen; a tag that cannot be pushed is taken back."""
    if release.tag not in _git(root, "tag", "--list", release.tag).splitlines():
        _git(root, "tag", "--annotate", "--message", f"{release.tag}\n\n{release.summary}", release.tag, release.commit)
    elif (commit := _git(root, "rev-parse", f"{release.tag}^{{commit}}")) != release.commit:
        raise UserError(
            f"{release.tag} is here, at {commit[:8]}, but not on {GIT_REMOTE}: `git tag --delete {release.tag}` it first"
        )
    try:
        _git(root, "push", "--quiet", GIT_REMOTE, f"refs/tags/{release.tag}")
    except UserError:
        _git(root, "tag", "--delete", release.tag)
        raise


def _git(root: Path, *arguments: str) -> str:
    """Run Git and return what it prints.

    Raises:
        UserError: it fails; with its words.
    """
    result = subprocess.run(["git", *arguments], cwd=root, capture_output=True, text=True, check=False)
    if result.returncode:
        raise UserError(f"`git {' '.join(arguments[:2])}`: {' '.join(result.stderr.split()) or 'failed'}")
    return result.stdout.rstrip()
