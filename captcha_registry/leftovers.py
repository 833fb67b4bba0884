"""What is left of a dataset or model that params.yaml no longer names, and its removal.

DVC forgets the stages of such a name, and touches neither what they wrote nor their entries in dvc.lock. That file says which
outputs were theirs, so that nothing is removed which somebody else put beside them.
"""

import os
from collections.abc import Collection, Iterable, Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from io import BytesIO
from pathlib import Path
from typing import Any

from dvc.utils.serialize import modify_yaml
from ruamel.yaml import YAML
from ruamel.yaml.error import YAMLError

from captcha_registry.errors import UserError
from captcha_registry.workspace import remove, write_atomically

LOCK_PATH, PIPELINE_PATH = Path("dvc.lock"), Path("dvc.yaml")

# Of which section of params.yaml the name is that a stage works for, as `train@cnn` does for a model, or that a folder has.
STAGES = {"generate": "datasets", "split": "datasets", "describe": "datasets", "train": "models", "evaluate": "models"}
FOLDERS = {"data": "datasets", "models": "models"}


@dataclass(slots=True)
class Leftover:
    """What is left of one name.

    Attributes:
        name: what params.yaml does not have any more.
        stages: entries in dvc.lock.
        outs: outputs of these that are on the disk, or at least in a .gitignore, as in a clone without the data.
        artifacts: names in dvc.yaml whose data is no longer made.
        plots: files that `plots` in dvc.yaml shows.
    """

    name: str
    stages: list[str] = field(default_factory=list)
    outs: list[str] = field(default_factory=list)
    artifacts: list[str] = field(default_factory=list)
    plots: list[str] = field(default_factory=list)

    def __str__(self) -> str:
        folders = {folder for out in self.outs if (folder := Path(out).parent).name == self.name}
        places = sorted({str(folder) for folder in folders} | {out for out in self.outs if Path(out).parent not in folders})
        places += [f"{' and '.join(self.stages)} in {LOCK_PATH}"] if self.stages else []
        places += [f"artifacts.{artifact} in {PIPELINE_PATH}" for artifact in self.artifacts]
        places += [f"{plot} in the plots of {PIPELINE_PATH}" for plot in self.plots]
        return ", ".join(places)


def find_leftovers(names: Mapping[str, Collection[str]]) -> dict[str, Leftover]:
    """Find what is left in the working folder's project, by name.

    Args:
        names: of the sections `datasets` and `models` of params.yaml.
    """
    locked = _load(LOCK_PATH).get("stages") or {}
    pipeline = _load(PIPELINE_PATH)
    found: dict[str, Leftover] = {}
    for stage in locked:
        kind, _, name = stage.partition("@")
        if kind in STAGES and name not in names[STAGES[kind]]:
            found.setdefault(name, Leftover(name)).stages.append(stage)
    used = _list_outs(locked, set(locked).difference(*(leftover.stages for leftover in found.values())))
    for leftover in found.values():
        outs = _list_outs(locked, leftover.stages) - used
        leftover.outs += sorted(out for out in outs if Path(out).exists() or _name_line(Path(out)) in _read_ignored(Path(out)))
    _find_in_pipeline(pipeline, names, found)
    return found


def _load(path: Path) -> dict[str, Any]:
    try:
        content = (path.is_file() and YAML(typ="safe").load(path)) or {}
    except (YAMLError, ValueError, RecursionError) as error:
        raise UserError(
            f"{path} is not valid YAML ({' '.join(str(error).split())}): correct it, or take the committed one with "
            f"`git checkout HEAD -- {path}`"
        ) from None
    if not isinstance(content, dict):
        raise UserError(f"{path} holds a {type(content).__name__}; expected sections such as `stages:`")
    return content


def _list_outs(locked: Mapping[str, Any], stages: Iterable[str]) -> set[str]:
    return {out["path"] for stage in stages for out in locked[stage].get("outs", [])}


def _find_in_pipeline(pipeline: Mapping[str, Any], names: Mapping[str, Collection[str]], found: dict[str, Leftover]) -> None:
    """Add what dvc.yaml says of names that are found, and artifacts of others where nothing is that somebody else put there."""
    for artifact, told in (pipeline.get("artifacts") or {}).items():
        folder, _, name = str(told["path"] if isinstance(told, dict) and "path" in told else "").partition("/")
        is_removed = folder in FOLDERS and name not in names[FOLDERS[folder]]
        if is_removed and (name in found or _is_empty(Path(told["path"]))):
            found.setdefault(name, Leftover(name)).artifacts.append(artifact)
    for plot in _list_shown(pipeline):
        for path in _list_plotted(plot):
            name = path.removeprefix("metrics/plots/").partition("/")[0]
            if name in found and name not in {*names["datasets"], *names["models"]} and path not in found[name].plots:
                found[name].plots.append(path)


def _is_empty(folder: Path) -> bool:
    """Tell whether a folder is not there, or holds nothing."""
    return not folder.exists() or (folder.is_dir() and not any(folder.iterdir()))


def _list_shown(pipeline: Mapping[str, Any]) -> list[Any]:
    """Return the entries of `plots`; DVC takes a mapping there, too, which has none of ours."""
    return shown if isinstance(shown := pipeline.get("plots"), list) else []


def _list_plotted(plot: object) -> list[str]:
    """List the files that an entry of `plots` shows; one that is a file's name shows that, and names nothing of ours."""
    told = plot.values() if isinstance(plot, dict) else ()
    return [path for each in told if isinstance(each, dict) and isinstance(each.get("y"), dict) for path in each["y"]]


def remove_leftover(leftover: Leftover) -> None:
    """Remove what is left of a name; what others put beside its outputs stays."""
    for out in map(Path, leftover.outs):
        remove(out)
        _forget_ignored(out)
    if leftover.stages:
        with modify_yaml(LOCK_PATH) as lock:
            for stage in leftover.stages:
                del lock["stages"][stage]
    if leftover.artifacts or leftover.plots:
        write_atomically(PIPELINE_PATH, _edit_pipeline(PIPELINE_PATH.read_bytes().decode(), leftover).encode())


def _edit_pipeline(text: str, leftover: Leftover) -> str:
    """Take a leftover's artifacts and plots out of dvc.yaml; all other lines stay as people wrote them."""
    yaml, content = YAML(), BytesIO()
    yaml.preserve_quotes, yaml.width = True, 4_096
    yaml.indent(mapping=2, sequence=4, offset=2)
    pipeline = yaml.load(text)
    lines = {*_remove_artifacts(pipeline, leftover.artifacts), *_remove_plots(pipeline, leftover.plots)}
    yaml.dump(pipeline, content)
    cut, written = _cut_lines(text, lines), content.getvalue().decode()
    with suppress(YAMLError):
        if YAML(typ="safe").load(cut) == YAML(typ="safe").load(written):
            return cut
    # An entry shares its line with others, as between braces.
    return written


def _cut_lines(text: str, numbers: Collection[int]) -> str:
    """Leave out lines, each with those below it that are indented deeper."""
    kept, blank, depth = [], [], -1
    for number, line in enumerate(text.splitlines(keepends=True)):
        indent = len(line) - len(line.lstrip(" "))
        if depth >= 0 and not line.strip():
            blank.append(line)
            continue
        if indent <= depth:
            # What parts a section from the next one stays.
            kept += blank if indent < depth else []
            depth = -1
        if number in numbers and depth < 0:
            depth = indent
        blank.clear()
        kept += [line] if depth < 0 else []
    while depth >= 0 and kept and not kept[-1].strip():
        kept.pop()
    return "".join(kept)


def _name_line(out: Path) -> bytes:
    """Name the line that DVC writes for an output into the .gitignore beside it."""
    return os.fsencode(f"/{out.name}")


def _read_ignored(out: Path) -> list[bytes]:
    """Read the lines of the .gitignore beside an output, if there is one."""
    ignored = out.parent / ".gitignore"
    return ignored.read_bytes().splitlines() if ignored.is_file() else []


def _forget_ignored(out: Path) -> None:
    """Take an output out of the .gitignore that DVC wrote beside it; remove what is then empty."""
    if lines := [line for line in _read_ignored(out) if line != _name_line(out)]:
        write_atomically(out.parent / ".gitignore", b"".join(line + b"\n" for line in lines))
    else:
        (out.parent / ".gitignore").unlink(missing_ok=True)
    with suppress(OSError):
        out.parent.rmdir()


def _remove_artifacts(pipeline: Any, artifacts: Collection[str]) -> Iterator[int]:
    """Take artifacts out of the file's content; yield the numbers of the lines where their entries begin."""
    for artifact in artifacts:
        yield pipeline["artifacts"].lc.key(artifact)[0]
        del pipeline["artifacts"][artifact]
    if artifacts and not pipeline["artifacts"]:
        yield pipeline.lc.key("artifacts")[0]
        del pipeline["artifacts"]


def _remove_plots(pipeline: Any, plots: Collection[str]) -> Iterator[int]:
    """Take files out of `plots`, with entries that then show nothing; yield the numbers of the lines where they begin."""
    shown = _list_shown(pipeline)
    for number, plot in [*enumerate(shown)][::-1]:
        for title, told in list(plot.items()) if isinstance(plot, dict) else ():
            for path in set(plots).intersection(_list_plotted({title: told})):
                yield told["y"].lc.key(path)[0]
                del told["y"][path]
            if isinstance(told, dict) and told.get("y") == {}:
                yield plot.lc.key(title)[0]
                del plot[title]
        if not plot:
            del shown[number]
    if plots and not shown:
        yield pipeline.lc.key("plots")[0]
        del pipeline["plots"]
