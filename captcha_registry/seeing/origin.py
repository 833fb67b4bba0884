"""The commit that the results here are of, without what it takes to read another one."""

from collections.abc import Sequence
from pathlib import Path

from ruamel.yaml import YAML
from ruamel.yaml.error import YAMLError

from captcha_registry.errors import UserError
from captcha_registry.params import PARAMS_PATH
from captcha_registry.registry.git import run_git
from captcha_registry.seeing.document import Code, Paragraph
from captcha_registry.seeing.results import ModelResult, hash_md5


def describe_origin(results: Sequence[ModelResult]) -> Paragraph | None:
    """Name the commit that results are of, or say that they are not committed; None outside a Git repository."""
    try:
        commit = run_git(Path.cwd(), "rev-parse", "HEAD")
        changed = [line[3:] for line in run_git(Path.cwd(), "status", "--porcelain", "--", str(PARAMS_PATH)).splitlines()]
    except UserError:
        return None
    recorded = _list_recorded()
    read = dict.fromkeys(path for result in results for path in result.files)
    changed += [str(path) for path in read if hash_md5(path) != recorded.get(path.as_posix())]
    if not changed:
        return Paragraph.of("The results are those of ", Code(commit), ".")
    names, verb = ", ".join(f"`{name}`" for name in changed), "is" if len(changed) == 1 else "are"
    return Paragraph.quote(f"These results are not committed: {names} {verb} not what `{commit}` has.")


def _list_recorded() -> dict[str, str]:
    """List the MD5 of each file that dvc.lock has at the commit that is checked out."""
    try:
        lock = YAML(typ="safe").load(run_git(Path.cwd(), "cat-file", "blob", "HEAD:./dvc.lock"))
    except (UserError, YAMLError):
        return {}
    # A file that a merge has left in pieces may hold anything.
    stages = lock.get("stages") if isinstance(lock, dict) else None
    return {out["path"]: out.get("md5", "") for stage in (stages or {}).values() for out in stage.get("outs", ())}
