"""Tags of published versions at the Git remote: what is there, and the one that is added last."""

import os
import re
from pathlib import Path
from typing import NamedTuple

from semver import Version

from captcha_registry.errors import UserError
from captcha_registry.registry.git import GIT_REMOTE, TRANSFER_SECONDS, run_git

# GTO counts the tags of a version where it was told not to keep them simple: `digits@v1.6.0#1` registers, `digits@v1.6.0!#2`
# withdraws. To readers they are as good as those without a number.
COUNTER = re.compile(r"#\d+$")


class RemoteTag(NamedTuple):
    """A tag at the Git remote: its commit, and whether it is annotated, as readers want it."""

    commit: str
    annotated: bool


def find_remote_tags(root: Path, name: str) -> dict[str, RemoteTag]:
    """Return the tags of an artifact's versions at the Git remote by their names; that of a withdrawn one ends with `!`."""
    lines = run_git(root, "ls-remote", "--tags", GIT_REMOTE, f"refs/tags/{name}@v*").splitlines()
    # An annotated tag is followed by the commit that it stands on, under the name with `^{}`.
    refs = {ref.removeprefix("refs/tags/"): sha for sha, ref in (line.split("\t") for line in lines)}
    tags = {ref: COUNTER.sub("", ref) for ref in refs}
    versions = {ref: tag for ref, tag in tags.items() if Version.is_valid(tag.removeprefix(f"{name}@v").removesuffix("!"))}
    return {tag: RemoteTag(refs.get(f"{ref}^{{}}", refs[ref]), f"{ref}^{{}}" in refs) for ref, tag in versions.items()}


def require_committer(root: Path) -> None:
    """Refuse to begin what ends with a tag that Git could not sign with a name."""
    try:
        run_git(root, "var", "GIT_COMMITTER_IDENT")
    except UserError as error:
        # Variables outdo settings, and what is said of committers outdoes what is said of users.
        variables = [name for name in os.environ if name.startswith("GIT_COMMITTER_")]
        unset = f"`unset {' '.join(variables)}`, and if that is not enough " if variables else ""
        who = "committer" if run_git(root, "config", "--default=", "--get", "committer.name") else "user"
        raise UserError(
            f"Git does not know who publishes, or when: run {unset}`git config {who}.name NAME` and `git config {who}.email "
            f"ADDRESS` ({error})"
        ) from None


def require_same_address(root: Path) -> None:
    """Refuse to push tags to another repository than the one from which they are fetched.

    Who reads over HTTPS and pushes over SSH has two addresses of one repository: both show the same branches and tags.
    """
    here = run_git(root, "remote", "get-url", GIT_REMOTE)
    others = run_git(root, "remote", "get-url", "--push", "--all", GIT_REMOTE).splitlines()
    if here in others:
        return
    seen, *pushed = (run_git(root, "ls-remote", "--heads", "--tags", "--", address) for address in (here, *others))
    if seen not in pushed:
        raise UserError(
            f"Git pushes to {others[0]}, but fetches from {here}, where readers look and other branches and tags are: use "
            f'one address for both, with `git config --replace-all remote.{GIT_REMOTE}.pushurl "$(git remote get-url '
            f'{GIT_REMOTE})"` or another url of {GIT_REMOTE}'
        )


def require_taggable(root: Path, tag: str, commit: str) -> None:
    """Refuse to begin what ends with a tag that Git cannot sign as its user's settings ask, or make here, or push.

    What is tried leaves nothing but, where tags are signed, a commit on no branch.
    """
    if run_git(root, "config", "--type=bool", "--default=false", "--get", "tag.gpgSign") == "true":
        try:
            run_git(root, "commit-tree", "--gpg-sign", "-m", "Try whether a tag could be signed.", f"{commit}^{{tree}}")
        except UserError as error:
            raise UserError(
                f"Git cannot sign {tag}, as tag.gpgSign asks: name a key that is here with `git config user.signingKey KEY`; if "
                "it has a passphrase, have an agent hold it, or work in a terminal; or publish without a signature after "
                f"`git config tag.gpgSign false` ({error})"
            ) from None
    try:
        run_git(root, "update-ref", "--stdin", told=f"start\nupdate refs/tags/{tag} {commit}\nprepare\nabort\n")
    except UserError as error:
        raise UserError(f"Git cannot make the tag {tag} here, and nothing was pushed: correct what it says ({error})") from None
    # Without the hook, which may push more than was checked, as that of `dvc install` does.
    try_push(root, tag, commit, "--no-verify")


def try_push(root: Path, tag: str, commit: str, *options: str) -> None:
    """Refuse a tag that the Git remote, or a hook that is asked before a push, does not take; nothing is pushed."""
    # Forced, as another process may just have put it there, which is nothing to refuse; a dry run moves no tag.
    _push(root, f"{commit}:refs/tags/{tag}", "--dry-run", "--force", *options)


def require_tag_is_free(root: Path, tag: str, commit: str, taken: dict[str, RemoteTag]) -> None:
    """Refuse a tag that stands on another commit, here or at the Git remote, or that readers would not take for a version.

    Raises:
        UserError: says what to delete, or to choose another version.
    """
    if f"{tag}!" in taken:
        raise UserError(f"{tag} was withdrawn, and a version never changes: choose a higher one")
    if (there := taken.get(tag)) and not there.annotated:
        raise UserError(
            f"{tag} on {GIT_REMOTE} is a lightweight tag; readers expect an annotated one: delete it with "
            f"`git push {GIT_REMOTE} --delete {tag}` and `git tag --delete {tag}`, then publish again"
        )
    if there and there.commit != commit:
        raise UserError(
            f"{tag} is published already, from commit {there.commit[:8]}; a version never changes: choose a higher one"
        )
    here = run_git(root, "for-each-ref", "--format=%(objecttype) %(*objectname)", f"refs/tags/{tag}")
    if here not in {"", f"tag {commit}"}:
        raise UserError(
            f"{tag} is here, but not as an annotated tag of {commit[:8]}: delete it first with `git tag --delete {tag}`"
        )


def push_tag(root: Path, tag: str, commit: str, message: str) -> None:
    """Tag the commit and push the tag, which makes the version seen; a tag that the Git remote does not take is taken back.

    Raises:
        UserError: it does not take it, or does not show it.
    """
    if tag not in list_tags(root, tag):
        # Else Git leaves out lines that begin with what its user begins comments with.
        run_git(root, "tag", "--annotate", "--cleanup=verbatim", "--message", f"{message.strip()}\n", tag, commit)
    refusal = None
    try:
        _push(root, f"refs/tags/{tag}")
    except UserError as error:
        run_git(root, "tag", "--delete", tag)
        refusal = error
    # It may have been taken, and only the answer was lost.
    if find_remote_tags(root, tag.split("@", maxsplit=1)[0]).get(tag) != RemoteTag(commit, annotated=True):
        problem = f"did not take the tag {tag}, without which nobody sees the version ({refusal}): have it take"
        if not refusal:
            problem = f"hides the tag {tag} that it took, so nobody sees the version: have it show (transfer.hideRefs)"
        raise UserError(
            f"the data is at its remote, but {GIT_REMOTE} {problem} tags of that name, and run the same command again; no data "
            "is pushed twice"
        )


def fetch_tag(root: Path, tag: str) -> None:
    """Have a tag of the Git remote here too."""
    if tag not in list_tags(root, tag):
        fetch(root, f"refs/tags/{tag}:refs/tags/{tag}")


def list_tags(root: Path, pattern: str) -> list[str]:
    """List the tags that are here; `git tag` would lay them out as its user likes."""
    return run_git(root, "for-each-ref", "--format=%(refname:lstrip=2)", f"refs/tags/{pattern}").splitlines()


def fetch(root: Path, *refs: str) -> None:
    """Fetch what is named from the Git remote, and nothing else."""
    only = ("--no-tags", "--refmap=", "--no-prune", "--no-recurse-submodules", "--no-write-fetch-head")
    run_git(root, "fetch", "--quiet", *only, GIT_REMOTE, *refs, seconds=TRANSFER_SECONDS)


def _push(root: Path, ref: str, *options: str) -> None:
    """Push one reference, and none that the user's settings would add."""
    only = ("--no-follow-tags", "--recurse-submodules=no")
    try:
        run_git(root, "push", "--quiet", *only, *options, GIT_REMOTE, ref, seconds=TRANSFER_SECONDS)
    except UserError as error:
        if run_git(root, "config", "--default=no", "--get", "push.gpgSign").lower() not in {"false", "no", "off", "0"}:
            raise UserError(
                f"{error}; if that is about a signature: `git config push.gpgSign false` pushes without one"
            ) from None
        raise
