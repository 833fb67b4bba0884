"""What another revision has of the results that are here, from its commit and DVC's cache or remote; nothing is checked out."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from dvc.repo import Repo
from dvc.utils.diff import diff as diff_files
from dvc.utils.diff import format_dict
from dvc.utils.serialize import load_path

from captcha_registry.dataset.readings import READINGS_NAME
from captcha_registry.errors import UserError
from captcha_registry.registry.diff import Change
from captcha_registry.registry.fetching import Checksum, find_tracked_files
from captcha_registry.registry.git import run_git
from captcha_registry.registry.repository import explain_errors, open_repository, open_revision
from captcha_registry.seeing.comparing import Changes, Comparison, compare_readings
from captcha_registry.seeing.results import ModelResult, load_readings


def find_changes(revision: str, results: Sequence[ModelResult]) -> Changes:
    """Compare the results that are here with those of a revision, which are read from its commit and the DVC cache or remote.

    Raises:
        UserError: there is no such revision, or no repository.
    """
    with open_repository(None) as repo, explain_errors(revision):
        commit = _resolve(Path(repo.root_dir), revision)
        paths = ["params.yaml", *(f"metrics/{result.name}.json" for result in results)]
        with open_revision(repo, commit):
            old = _read_files(repo, paths)
        changes = diff_files(old, _read_files(repo, paths), with_unchanged=True)
        comparisons, lacking = {}, {}
        for result in results:
            try:
                comparisons[result.name] = _compare(repo, commit, result)
            except UserError as error:
                lacking[result.name] = str(error)
        return Changes(
            revision=revision,
            commit=commit,
            params=_list_changes(changes, "params.yaml"),
            metrics={result.name: _list_changes(changes, f"metrics/{result.name}.json") for result in results},
            comparisons=comparisons,
            lacking=lacking,
        )


def _resolve(root: Path, revision: str) -> str:
    try:
        return run_git(root, "rev-parse", "--verify", "--quiet", "--end-of-options", f"{revision}^{{commit}}").splitlines()[-1]
    except UserError:
        raise UserError(
            f"there is no revision {revision!r} here; expected a branch, tag or commit: `git branch --all` lists branches, "
            "`git fetch` brings those of others"
        ) from None


def _compare(repo: Repo, commit: str, result: ModelResult) -> Comparison:
    """Compare one model with itself at a commit.

    Raises:
        UserError: it cannot be compared.
    """
    where = f"{result.name} at {commit[:8]}"
    files = find_tracked_files(repo, commit, f"models/{result.name}", where)
    if READINGS_NAME not in files:
        raise UserError(
            f"{where} has no readings, as it is older than they are: compare with a later revision, or read there again, "
            f"with `git switch --detach {commit[:8]}` and today's `evaluate`"
        )
    with TemporaryDirectory() as folder:
        path = Path(folder) / READINGS_NAME
        files[READINGS_NAME].fetch(Checksum("md5", files[READINGS_NAME].md5), path)
        old, drawing = load_readings(path)
    if drawing != result.drawing:
        raise UserError(
            f"{where} read other pictures than {result.name} does here, drawn with another seed, size, font or style: compare "
            "models that read the same dataset"
        )
    return compare_readings(old, result.readings)


def _read_files(repo: Repo, paths: Sequence[str]) -> dict[str, Any]:
    """Read what Git has of some files at the commit that a repository shows, or what is here; DVC fetches nothing for that."""
    files = {path: repo.fs.join(repo.root_dir, path) for path in paths}
    there = {path: {"data": load_path(place, repo.fs)} for path, place in files.items() if repo.fs.isfile(place)}
    return dict(format_dict(there))


def _list_changes(changes: Mapping[str, Any], path: str) -> list[Change]:
    """Take DVC's word for what differs in a file."""
    changed = changes.get(path, {})
    return [Change(field, of.get("old"), of.get("new")) for field, of in changed.items() if of.get("old") != of.get("new")]
