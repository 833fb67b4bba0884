"""Refuse parameters that cannot work before anything is drawn: `python -m stages.check`.

Reads all of params.yaml and the fonts that it names; writes `data/tools/drawing/<name>.json` and `data/tools/training.json`:
the versions of the packages, and the SHA-256 of the fonts, that decide what drawing and training come to. The stages that
use them depend on these files, and so come after the check.
"""

import json
import re
import sys
from collections import Counter
from collections.abc import Iterable
from pathlib import Path

from captcha_registry.dataset.manifest import read_manifest
from captcha_registry.dataset.spec import DatasetSpec, SplitRule
from captcha_registry.errors import UserError, report_errors
from captcha_registry.generation.drawing import Drawer, hash_fonts
from captcha_registry.generation.executors import DrawingParams
from captcha_registry.generation.generating import DATASET_PACKAGES
from captcha_registry.generation.legibility import check_legibility
from captcha_registry.generation.splitting import check_split, describe_sides
from captcha_registry.params import PARAMS_PATH, ParamsError, load_section, name_section, read_params
from captcha_registry.recognition.recipe import load_model_params
from captcha_registry.recognition.training import TRAINING_PACKAGES, build_network
from captcha_registry.workspace import require_free_space, tool_versions, write_atomically

SECTIONS = {"datasets", "drawing", "split", "models"}
RESERVED_NAMES = {"generated", "tools"}
TOOLS_DIR = Path("data/tools")


def check_names(names: Iterable[object]) -> None:
    """Refuse names of datasets and models that would not do as the names of their folders and metrics files."""
    for name, times in Counter(names).items():
        if not (isinstance(name, str) and re.fullmatch(r"[a-z0-9][a-z0-9_-]*", name)):
            raise ParamsError(f"{PARAMS_PATH}: the name {name!r} does not do; expected text of a-z, 0-9, - and _")
        if name in RESERVED_NAMES:
            raise ParamsError(f"{PARAMS_PATH}: the name {name!r} is taken by data/{name}: choose another")
        if times > 1:
            raise ParamsError(f"{PARAMS_PATH}: a dataset and a model are both called {name!r}: rename one, they share metrics/")


def is_drawn(name: str, spec: DatasetSpec) -> bool:
    """Tell whether a dataset of this spec is on the disk already, and needs no more room."""
    try:
        return read_manifest(Path("data/generated") / name).spec == spec
    except UserError:
        return False


def main() -> None:
    """Check every section and what the sections ask of each other."""
    params = read_params()
    if set(params) != SECTIONS:
        raise ParamsError(f"{PARAMS_PATH} has the sections {', '.join(map(str, params))}; expected {', '.join(sorted(SECTIONS))}")
    for section in ("datasets", "models"):
        if not isinstance(params[section], dict) or not params[section]:
            raise ParamsError(f"{PARAMS_PATH}: {section} is {params[section]!r}; expected at least one name with its settings")

    check_names([*params["datasets"], *params["models"]])
    specs = {name: load_section(DatasetSpec, f"datasets.{name}") for name in params["datasets"]}
    load_section(DrawingParams, "drawing")
    rule = load_section(SplitRule, "split")
    models = {name: load_model_params(name) for name in params["models"]}
    require_free_space(Path("data"), sum(spec.estimated_bytes for name, spec in specs.items() if not is_drawn(name, spec)))
    tools = {}
    for name, spec in specs.items():
        with name_section(f"datasets.{name}"):
            drawer = Drawer(spec)
            drawer.check_fonts()
            for warning in check_legibility(drawer):
                print(f"warning: {PARAMS_PATH}: datasets.{name}: {warning}", file=sys.stderr)
            tools[f"drawing/{name}"] = tool_versions(DATASET_PACKAGES) | hash_fonts(spec.fonts, drawer.font_files)
            num_test = check_split(spec, rule)
        growth = "; they change sides when `count` does" if rule.by in {"sample", "label"} else ""
        print(f"{name}: {'about ' if rule.by.endswith('_hash') else ''}{describe_sides(spec.count, num_test, rule)}{growth}")
    for name, model in models.items():
        if model.dataset not in specs:
            raise ParamsError(f"{PARAMS_PATH}: models.{name}.dataset is {model.dataset!r}; expected one of {', '.join(specs)}")
        with name_section(f"models.{name}"):
            num_parameters = build_network(model, specs[model.dataset]).count_params()
        print(f"{name}: {model.family} of preset {model.preset} for {model.dataset}, {num_parameters:,} parameters")

    tools["training"] = tool_versions(TRAINING_PACKAGES)
    for work, versions in tools.items():
        write_atomically(TOOLS_DIR / f"{work}.json", f"{json.dumps(versions, indent=2)}\n".encode())


if __name__ == "__main__":
    with report_errors():
        main()
