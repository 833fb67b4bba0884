"""Publish a version: verify what is here, push what its commit names, verify what is there, then tag.

The pushed tag is the commit point. Whatever stops the work before it leaves objects on the remote that nothing names yet, and
the same call made again goes on from there; a version that can be seen is complete.
"""

import logging
import os
import shlex
from collections.abc import Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

from dvc.annotations import Artifact
from dvc.exceptions import DvcException
from dvc.fs import GitFileSystem
from dvc.repo import Repo
from filelock import Timeout
from gto.constants import name_re
from semver import Version

from captcha_registry.cache import hold_lock
from captcha_registry.dataset.manifest import MANIFEST_NAME
from captcha_registry.dataset.verify import advise_cure, verify_dataset
from captcha_registry.errors import UserError, list_causes
from captcha_registry.machine import count_usable_cores, settle_user
from captcha_registry.recognition.card import CARD_NAME, NETWORK_NAME
from captcha_registry.recognition.onnx_network import ONNX_NAME
from captcha_registry.registry.diff import Bump, DatasetDiff, DatasetVersion, ModelDiff, ModelVersion
from captcha_registry.registry.fetching import Checksum, RemoteFile, find_files, measure_version, read_published_manifest
from captcha_registry.registry.git import GIT_REMOTE, open_git, run_git
from captcha_registry.registry.loading import open_exported
from captcha_registry.registry.pushing import (
    Objects,
    find_objects,
    find_outputs,
    name_output,
    push_objects,
    require_remotes,
    require_sound_cache,
)
from captcha_registry.registry.repository import (
    Published,
    explain_errors,
    explain_no_default_branch,
    find_commits,
    find_root,
    make_tag,
    newest_first,
    parse_version,
    read_artifact,
    require_readable,
)
from captcha_registry.registry.tagging import (
    RemoteTag,
    fetch,
    fetch_tag,
    find_remote_tags,
    list_tags,
    push_tag,
    require_committer,
    require_same_address,
    require_tag_is_free,
    require_taggable,
    try_push,
)
from captcha_registry.registry.versions import diff_versions, read_folder, read_published

ORDER: tuple[Bump, ...] = ("none", "patch", "minor", "major")


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
        with hold_lock(Path(repo.tmp_dir) / "captcha-registry.publish.lock", wait=False):
            yield
    except Timeout:
        raise UserError(f"another publication runs in {repo.root_dir}: wait for it to end, or stop it") from None


def publish(name: str, version_text: str, *, dry_run: bool = False) -> Release:
    """Publish the artifact as it is at the commit that is checked out; with `dry_run` only find out whether that would do.

    Raises:
        UserError: the version is taken or says less than the change, the tree is dirty, the pipeline stale, the data damaged, or
            a remote is missing or does not take it.
    """
    settle_user()
    version = parse_version(version_text)
    root = find_root()
    with explain_errors(str(root)), Repo(str(root), scm=open_git(root)) as repo, lock_publishing(repo):
        release, objects = prepare_release(repo, name, version)
        if not dry_run:
            if not release.already_published:
                try_push(root, release.tag, release.commit)
            push_objects(objects)
            if not release.already_published:
                push_tag(root, release.tag, release.commit, f"{release.tag}\n\n{release.summary}")
            fetch_tag(root, release.tag)
    return release


def prepare_release(repo: Repo, name: str, version: Version) -> tuple[Release, list[Objects]]:
    """Check all that has to be true before anything is pushed, and list what is.

    No file of the checkout, no branch and no tag changes; Git objects of other branches may be fetched.

    Raises:
        UserError: says which of it is not.
    """
    root = Path(repo.root_dir)
    _require_seen(root, name)
    _require_files(root)
    if not (commit := run_git(root, "rev-parse", "--revs-only", "HEAD")):
        raise UserError(f"nothing is committed yet: run `git commit` and `git push {GIT_REMOTE} HEAD` first")
    artifacts = _read_artifacts(repo, name)
    taken = _require_taggable_commit(root, commit, name, version)
    _require_readers(repo, commit)
    published = _find_artifact(repo, artifacts[name], (name, version), commit)
    _require_fresh(repo, published)
    objects = find_objects(repo, published)
    files = find_files(repo, published)
    if not (root / published.path).exists():
        raise UserError(
            f"{published.path} is not here: run `dvc checkout`, or `dvc pull --allow-missing` if that does not find it"
        )
    here = verify_folder(root / published.path)
    require_sound_cache(objects, root / published.path)
    require_remotes(objects)
    _require_same(here, files, published)
    predecessor = _find_predecessor(repo, published, taken)
    difference = diff_versions(read_published(predecessor, find_files(repo, predecessor)), here) if predecessor else None
    if predecessor and difference:
        _require_bump(predecessor, version, difference)
    _require_clean_tree(root, commit)
    return Release(
        published.tag,
        commit,
        sorted(name_output(out) for out in find_outputs(repo, published.path)),
        measure_version(repo, published),
        here.manifest.spec.count if isinstance(here, DatasetVersion) else None,
        str(predecessor) if predecessor else None,
        difference.bump if difference else None,
        f"{_summarize_version(repo, here)}\n{_summarize_change(predecessor, difference)}",
        published.tag in taken,
    ), objects


def _require_seen(root: Path, name: str) -> None:
    """Refuse what readers would not see: they look for files at the top of a repository, and for tags that GTO can parse."""
    if place := run_git(root, "rev-parse", "--show-prefix"):
        raise UserError(
            f"{root} is the folder {place} of a Git repository, and readers look only at its top: publish from a Git "
            "repository of its own, with .dvc and dvc.yaml at its top"
        )
    if not name_re.fullmatch(name) or "//" in name:
        raise UserError(
            f"{name!r} is not a name that a tag of a version can have, so nobody would see it: give the artifact one of letters, "
            "digits, - and _ in dvc.yaml, with a letter or digit at both ends, and commit"
        )


def _require_files(root: Path) -> None:
    """Refuse files of DVC that a reader of the commit sees otherwise: links, which it does not follow, and what is not here."""
    for entry in run_git(root, "ls-files", "-z", "-v", "--stage", "--", ".dvc", "dvc.yaml", "dvc.lock").split("\0"):
        kind, _, path = entry.partition("\t")
        if kind[:1].islower() or (kind.startswith("S ") and os.path.lexists(root / path)):
            flag = "--no-skip-worktree" if kind[0] in "Ss" else "--no-assume-unchanged"
            cure = shlex.join(["git", "update-index", flag, path])
            raise UserError(f"Git takes {path} for unchanged, whatever it holds: run `{cure}`")
        if kind.startswith("S "):
            raise UserError(f"{path} is not here, as the checkout is sparse: run `git sparse-checkout disable`")
        if " 120000 " in kind:
            raise UserError(
                f"{path} is a symbolic link, and readers of a commit follow none: put the file itself in its place, and commit"
            )


def _require_taggable_commit(root: Path, commit: str, name: str, version: Version) -> dict[str, RemoteTag]:
    """Refuse what Git could not tag, or readers could not have; return the tags of the artifact that the Git remote has."""
    _require_clean_tree(root, commit)
    require_committer(root)
    _require_known_commit(root, commit)
    require_same_address(root)
    taken = find_remote_tags(root, name)
    tag = make_tag(name, version)
    require_tag_is_free(root, tag, commit, taken)
    if tag not in taken:
        require_taggable(root, tag, commit)
    return taken


def _require_clean_tree(root: Path, commit: str) -> None:
    """Refuse what is not committed; other DVC projects below this one, and what is in submodules, are no part of it."""
    inside = run_git(root, "ls-files", "-z", "--cached", "--others", "--exclude-standard", "--", ":(glob)*/**/.dvc/config").split(
        "\0"
    )
    others = [f":(exclude,literal){path.removesuffix('/.dvc/config')}" for path in inside if path]
    status = ("status", "--porcelain", "-z", "--untracked-files=all", "--ignore-submodules=dirty", "--no-renames")
    changed = [line for line in run_git(root, *status, "--", ".", *others).split("\0") if line]
    if changed:
        more = f" and {len(changed) - 1} more are" if len(changed) > 1 else " is"
        raise UserError(f"{changed[0][3:]}{more} not committed: commit or stash all changes before you publish")
    if (now := run_git(root, "rev-parse", "HEAD")) != commit:
        raise UserError(
            f"commit {now[:8]} was checked out while {commit[:8]} was checked; nothing was pushed: run the same command again"
        )


def _require_known_commit(root: Path, commit: str) -> None:
    """Refuse a commit that is on no branch of the Git remote: a clone would not have it, or lose it."""
    if GIT_REMOTE not in run_git(root, "remote").split():
        raise UserError(f"there is no Git remote {GIT_REMOTE!r} to publish at: add one with `git remote add {GIT_REMOTE} URL`")
    told = [line.split("\t") for line in run_git(root, "ls-remote", "--heads", GIT_REMOTE).splitlines()]
    heads = sorted({head for head, _ in told})
    if heads and commit not in heads:
        # Objects only, of what others have built upon it; no branch and no tag is written.
        fetch(root, *heads)
    # Where it is the head of a branch itself, those of others need not be known here.
    if not heads or (commit not in heads and run_git(root, "rev-list", "--max-count=1", commit, "--not", *heads)):
        is_detached = run_git(root, "rev-parse", "--abbrev-ref", "HEAD").strip() == "HEAD"
        where = "HEAD:refs/heads/BRANCH` first, with the name of a branch" if is_detached else "HEAD` first"
        raise UserError(
            f"commit {commit[:8]} is on no branch of {GIT_REMOTE}: run `git push {GIT_REMOTE} {where}; if the branch has moved "
            "on there, `git pull` before"
        )


def _require_readers(repo: Repo, commit: str) -> None:
    """Refuse a Git remote that nobody can begin to read, as its default branch is missing, or is no DVC project."""
    root = Path(repo.root_dir)
    if not (default := run_git(root, "ls-remote", GIT_REMOTE, "HEAD").partition("\t")[0]):
        branches = [line.split("\t")[1] for line in run_git(root, "ls-remote", "--heads", GIT_REMOTE).splitlines()]
        raise UserError(f"{GIT_REMOTE}: {explain_no_default_branch(branches)}")
    if default != commit:
        fetch(root, default)
        with explain_errors(GIT_REMOTE):
            require_readable(GitFileSystem(scm=repo.scm, rev=default), GIT_REMOTE)


def _read_artifacts(repo: Repo, name: str) -> Mapping[str, Artifact]:
    """Read what dvc.yaml has to publish, and refuse a name that is none of it."""
    artifacts: dict[str, Artifact] = repo.artifacts.read().get("dvc.yaml", {})
    if name not in artifacts:
        expected = " or ".join(artifacts) or "one below `artifacts`"
        raise UserError(f"{repo.root_dir}/dvc.yaml names no artifact {name!r}; expected {expected}")
    return artifacts


def _find_artifact(repo: Repo, artifact: Artifact, key: tuple[str, Version], commit: str) -> Published:
    """Read what the commit says of the artifact, as those who fetch it will."""
    where, path = f"dvc.yaml: artifacts.{key[0]}.path", artifact.path
    if path != (plain := str(PurePosixPath(path))):
        raise UserError(f"{where} is {path!r}; expected {plain!r}: correct it and commit")
    published = read_artifact(repo, key, commit)
    if (Path(repo.root_dir) / path).is_file():
        raise UserError(f"{where} is {path}, a file; expected the folder of a dataset or of a model")
    if not find_outputs(repo, path):
        raise UserError(f"{where} is {path}, in which DVC tracks nothing")
    return published


def _require_fresh(repo: Repo, published: Published) -> None:
    """Refuse outputs that are not what the pipeline would make now; what they were made from need not be here."""
    stages = sorted({out.stage.addressing for out in find_outputs(repo, published.path)})
    run = f"run `{shlex.join(['dvc', 'repro', *stages])}` and commit"
    try:
        with _keep_quiet("dvc"):
            stale = repo.reproduce(targets=stages, dry=True, allow_missing=True)
    except DvcException as error:
        # A file that a stage depends on, and of which dvc.lock says nothing.
        if isinstance(cause := list_causes(error)[-1], FileNotFoundError) and cause.filename:
            raise UserError(
                f"dvc.lock does not say how {published.name} was made, and {cause.filename}, from which it is made, is missing: "
                f"{run}"
            ) from None
        raise
    if stale:
        # Damage, too, makes the pipeline run again; who repairs it need not wait for that. What is not here is not damaged.
        here = Path(repo.root_dir) / published.path
        if any((here / name).is_file() for name in (MANIFEST_NAME, CARD_NAME)):
            verify_folder(here)
        names = ", ".join(stage.addressing for stage in stale)
        raise UserError(f"{published.name} is not what the pipeline would make now ({names}): {run}")


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


def verify_folder(root: Path) -> DatasetVersion | ModelVersion:
    """Compare every byte with the manifest, or a model's with its card; one that is an ONNX file alone with its checksum."""
    here = read_folder(root)
    if isinstance(here, ModelVersion):
        model = root / NETWORK_NAME
        if not model.exists() and (root / ONNX_NAME).exists():
            open_exported(root, str(root))
        elif not Checksum("sha256", str(here.card.get("model_sha256"))).fits(model):
            raise UserError(f"{model} is not the model that {root}/model.json describes: run `dvc repro`, or `dvc checkout`")
        return here
    with ThreadPoolExecutor(count_usable_cores()) as executor:
        problems = verify_dataset(root, "full", executor)
    if problems:
        count = f"{len(problems)} problem{'s' if len(problems) > 1 else ''} in all"
        raise UserError(": ".join(filter(None, [f"{problems[0]} ({count})", advise_cure(root, problems)])))
    return here


def _require_same(here: DatasetVersion | ModelVersion, files: Mapping[str, RemoteFile], published: Published) -> None:
    """Refuse files that were verified but are not those of the commit; a manifest or a model's card stands for all the others."""
    hashes = here.described if isinstance(here, DatasetVersion) else here.files
    changed = sorted(path for path, md5 in hashes.items() if path in files and files[path].md5 != md5)
    if changed:
        path = f"{published.path}/{changed[0]}"
        # What is there DVC would leave, if it takes that for what it knows.
        remove, checkout = shlex.join(["rm", "-f", path]), shlex.join(["dvc", "checkout", path])
        raise UserError(
            f"{path} is not the file that commit {published.revision[:8]} names: run `{remove}`, then `{checkout}`, and let "
            "nothing write to it meanwhile"
        )


def _find_predecessor(repo: Repo, published: Published, taken: Mapping[str, RemoteTag]) -> Published | None:
    """Find the newest published version below a new one; one such as 1.0.0-rc.1 is nobody's predecessor.

    Within a major version the new one has to be the highest, so that each says enough about the change since the one before.
    """
    name, version, root = published.name, published.version, Path(repo.root_dir)
    tags = {tag for tag, there in taken.items() if there.annotated}
    known = {other: commit for (artifact, other), commit in find_commits(repo).items() if artifact == name}
    if unknown := sorted(tags - {published.tag, *list_tags(root, f"{name}@v*")}):
        raise UserError(f"{GIT_REMOTE} has {unknown[0]}, which is not known here: run `git fetch --tags`")
    for other, commit in known.items():
        if (there := taken.get(make_tag(name, other))) and there.annotated and there.commit != commit:
            raise UserError(
                f"{make_tag(name, other)} is on commit {there.commit[:8]} at {GIT_REMOTE}, and on {commit[:8]} here: run "
                "`git fetch --tags --force`, and ask who moved it, as a version never changes"
            )
    others = [other for other in known if make_tag(name, other) in tags and other != version and not other.prerelease]
    lower = [other for other in others if other < version]
    higher = [other for other in others if other > version and (other.major == version.major or not lower)]
    if higher and published.tag not in tags:
        raise UserError(f"{name} {version} is lower than {max(higher)}, which is already published: choose a higher version")
    return read_artifact(repo, (name, max(lower)), known[max(lower)]) if lower else None


def _require_bump(predecessor: Published, version: Version, difference: DatasetDiff | ModelDiff) -> None:
    """Refuse a version that says less than the change."""
    old = predecessor.version
    said: Bump = "major" if version.major > old.major else "minor" if version.minor > old.minor else "patch"
    if ORDER.index(said) >= ORDER.index(difference.bump):
        return
    wanted = {"major": old.bump_major, "minor": old.bump_minor, "patch": old.bump_patch}[difference.bump]()
    raise UserError(
        f"{version} is a {said} version, but the change since {predecessor} is {difference.bump}: publish it as {wanted} or "
        f"higher; `{shlex.join(['captcha-registry', 'diff', str(predecessor), predecessor.path])}` shows what changed"
    )


def _summarize_version(repo: Repo, here: DatasetVersion | ModelVersion) -> str:
    """Say in two lines what the version holds."""
    if isinstance(here, DatasetVersion):
        return f"{here.manifest.spec.count:,} samples\ndataset id {here.manifest.dataset_id}"
    name, dataset_id = here.card.get("dataset"), here.card.get("dataset_id")
    source = _find_dataset(repo, str(name), dataset_id) or name
    return f"{here.card.get('family')}, trained on {source}\ndataset id {dataset_id}"


def _find_dataset(repo: Repo, name: str, dataset_id: object) -> Published | None:
    """Find the newest published version of a dataset that has this id, if there is one and it can be read."""
    commits = find_commits(repo)
    for key in newest_first(commits, name):
        with suppress(UserError):
            published = read_artifact(repo, key, commits[key])
            manifest, _ = read_published_manifest(published, find_files(repo, published))
            if manifest.dataset_id == dataset_id:
                return published
    return None


def _summarize_change(predecessor: Published | None, difference: DatasetDiff | ModelDiff | None) -> str:
    """Say in a line what is new."""
    if not predecessor or not difference:
        return "first version"
    samples = difference.samples if isinstance(difference, DatasetDiff) else {}
    changes = ", ".join(f"{len(ids):,} {kind}" for kind, ids in samples.items() if len(ids))
    return f"since {predecessor}: {f'samples {changes}' if changes else difference.reason}"
