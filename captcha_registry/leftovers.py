"""What is left of a dataset or model that params.yaml no longer names, and its removal.

DVC forgets the stages of such a name, and touches neither what they wrote nor their entries in dvc.lock. That file says which
outputs were theirs, so that nothing is removed which somebody else put beside them.
"""

import shutil
from collections.abc import Collection, Iterable, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from io import BytesIO
from pathlib import Path
from typing import Any

from dvc.utils.serialize import modify_yaml
from ruamel.yaml import YAML

from captcha_registry.workspace import write_atomically

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
        outs: outputs of these that are on the disk.
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
        leftover.outs += sorted(out for out in outs if Path(out).exists())
    _find_in_pipeline(pipeline, names, found)
    return found


def _load(path: Path) -> dict[str, Any]:
    return (path.is_file() and YAML(typ="safe").load(path)) or {}


def _list_outs(locked: Mapping[str, Any], stages: Iterable[str]) -> set[str]:
    return {out["path"] for stage in stages for out in locked[stage].get("outs", [])}


def _find_in_pipeline(pipeline: Mapping[str, Any], names: Mapping[str, Collection[str]], found: dict[str, Leftover]) -> None:
    """Add what dvc.yaml says of names that are found, and artifacts of others where nothing is that somebody else put there."""
    for artifact, told in (pipeline.get("artifacts") or {}).items():
        folder, _, name = told["path"].partition("/")
        is_removed = folder in FOLDERS and name not in names[FOLDERS[folder]]
        if is_removed and (name in found or not Path(told["path"]).exists()):
            found.setdefault(name, Leftover(name)).artifacts.append(artifact)
    for plot in pipeline.get("plots") or []:
        for path in _list_plotted(plot):
            name = path.removeprefix("metrics/plots/").partition("/")[0]
            if name in found and name not in {*names["datasets"], *names["models"]} and path not in found[name].plots:
                found[name].plots.append(path)


def _list_plotted(plot: Mapping[str, Any]) -> list[str]:
    """List the files that an entry of `plots` shows."""
    return [path for told in plot.values() if isinstance(told, dict) and isinstance(told.get("y"), dict) for path in told["y"]]


def remove_leftover(leftover: Leftover) -> None:
    """Remove what is left of a name; what others put beside its outputs stays."""
    for out in map(Path, leftover.outs):
        shutil.rmtree(out) if out.is_dir() else out.unlink()
        _forget_ignored(out)
    if leftover.stages:
        with modify_yaml(LOCK_PATH) as lock:
            for stage in leftover.stages:
                del lock["stages"][stage]
    if leftover.artifacts or leftover.plots:
        yaml = YAML()
        # As the file is written, which people edit.
        yaml.preserve_quotes, yaml.width = True, 4_096
        yaml.indent(mapping=2, sequence=4, offset=2)
        pipeline, content = yaml.load(PIPELINE_PATH), BytesIO()
        for artifact in leftover.artifacts:
            del pipeline["artifacts"][artifact]
        _remove_plots(pipeline, leftover.plots)
        yaml.dump(pipeline, content)
        write_atomically(PIPELINE_PATH, content.getvalue())


def _forget_ignored(out: Path) -> None:
    """Take an output out of the .gitignore that DVC wrote beside it; remove what is then empty."""
    ignored = out.parent / ".gitignore"
    if ignored.is_file():
        lines = [line for line in ignored.read_text(encoding="utf-8").splitlines() if line != f"/{out.name}"]
        if lines:
            write_atomically(ignored, "".join(f"{line}\n" for line in lines).encode())
        else:
            ignored.unlink()
    with suppress(OSError):
        out.parent.rmdir()


def _remove_plots(pipeline: dict[str, Any], plots: Collection[str]) -> None:
    """Take files out of `plots`, with entries that then show nothing."""
    for plot in list(pipeline.get("plots") or []):
        for title, told in list(plot.items()):
            for path in set(plots).intersection(_list_plotted({title: told})):
                del told["y"][path]
            if isinstance(told, dict) and told.get("y") == {}:
                del plot[title]
        if not plot:
            pipeline["plots"].remove(plot)
