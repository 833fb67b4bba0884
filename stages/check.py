"""Refuse parameters that cannot work before anything is drawn: `python -m stages.check`.

Reads all of params.yaml, the fonts that it names and the project's code; writes below `data/tools/` what each stage computes
with: `<stage>.json`, or `<stage>/<name>.json` where it differs between datasets or models. Such a file holds the versions of
packages, the SHA-256 of fonts and, for each module that the stage imports, a hash of what it computes. The stages depend on
these files: they come after the check, and run again when what they compute may have changed.

It also says what is left of a dataset or model that params.yaml no longer names; `--remove NAME` removes that. `--values` checks
the values in params.yaml alone, in a second: DVC takes its stages from their names, and has other words for one that it lacks.
"""

import argparse
import json
import sys
from collections import ChainMap
from collections.abc import Iterable, Mapping
from pathlib import Path

from captcha_registry.dataset.manifest import read_manifest
from captcha_registry.dataset.spec import DatasetSpec, SplitRule
from captcha_registry.ends import report_errors
from captcha_registry.errors import CommandLine, UserError
from captcha_registry.generation.executors import DrawingParams
from captcha_registry.leftovers import Leftover, find_leftovers, remove_leftover
from captcha_registry.meaning import hash_modules
from captcha_registry.nearest import suggest
from captcha_registry.params import PARAMS_PATH, ParamsError, check_names, load_section, name_section, read_params, show_value
from captcha_registry.recognition.recipe import TRAINING_PACKAGES, CnnParams, CrnnParams, ModelParams, load_model_params
from captcha_registry.workspace import require_free_space, tool_versions, write_atomically

SECTIONS = {"datasets", "drawing", "split", "models"}
TOOLS_DIR = Path("data/tools")

# The smallest pictures, width and height, that networks of the preset `lab` take; those of `fast` pad what is too small.
SMALLEST = {"cnn": (34, 34), "crnn": (16, 32)}
# So many pixels of a picture's width become one column that a crnn reads.
COLUMN_PIXELS = 8

# What `generate` imports to draw to a URL, which the pipeline never does.
URL_MODULES = ("captcha_registry.describing", "captcha_registry.generation.remote")

# Packages that decide what a stage comes to, besides those that drew or trained what it reads.
SPLIT_PACKAGES = ("numpy", "pyarrow", "scikit-learn")
DESCRIBE_PACKAGES = ("numpy", "pillow", "pyarrow", "zlib-ng")
EVALUATE_PACKAGES = (*TRAINING_PACKAGES, "captcha", "numba", "onnx", "pandas", "pillow", "pyarrow", "rapidfuzz")
REPORT_PACKAGES = ("captcha", "jinja2", "numba", "numpy", "pandas", "pillow", "pyarrow", "rapidfuzz", "vl-convert-python")


def is_drawn(name: str, spec: DatasetSpec) -> bool:
    """Tell whether a dataset of this spec is on the disk already, and needs no more room."""
    try:
        return read_manifest(Path("data/generated") / name).spec == spec
    except UserError:
        return False


def check_values() -> tuple[dict[str, DatasetSpec], SplitRule, dict[str, ModelParams]]:
    """Check every value on its own, and what the sections name of each other; nothing large is imported for that."""
    params = read_params()
    if set(params) != SECTIONS:
        missing = sorted(SECTIONS - set(params))
        hint = next((f": {hint}" for name in params if name not in SECTIONS and (hint := suggest(str(name), missing))), "")
        raise ParamsError(
            f"{PARAMS_PATH} has the sections {', '.join(map(str, params))}; expected {', '.join(sorted(SECTIONS))}{hint}"
        )
    # Who only shares datasets has no model.
    for section, expected in (
        ("datasets", "at least one name with its settings"),
        ("models", "names with settings, or {} for none"),
    ):
        if not isinstance(params[section], dict) or (section == "datasets" and not params[section]):
            raise ParamsError(f"{PARAMS_PATH}: {section} is {show_value(params[section])}; expected {expected}")
    check_names([*params["datasets"], *params["models"]])
    specs = {name: load_section(DatasetSpec, f"datasets.{name}") for name in params["datasets"]}
    if "@" in load_section(DrawingParams, "drawing").scheduler:
        raise ParamsError(
            f"{PARAMS_PATH}: drawing.scheduler holds a login, which Dask does not take and Git would keep: leave it out"
        )
    rule = load_section(SplitRule, "split")
    models: dict[str, ModelParams] = {name: load_model_params(name) for name in params["models"]}
    for name, model in models.items():
        if model.dataset not in specs:
            raise ParamsError(f"{PARAMS_PATH}: models.{name}.dataset is {model.dataset!r}; expected one of {', '.join(specs)}")
        with name_section(f"models.{name}"):
            if isinstance(model, CnnParams):
                model.require_one_length(specs[model.dataset])
            model.require_known_characters(specs[model.dataset])
        require_large_pictures(name, model, specs[model.dataset])
    require_free_space(Path("data"), sum(spec.estimated_bytes for name, spec in specs.items() if not is_drawn(name, spec)))
    return specs, rule, models


def require_large_pictures(name: str, model: ModelParams, spec: DatasetSpec) -> None:
    """Refuse pictures that are too small for a network, without building that, which takes seconds.

    Raises:
        ParamsError: says how large they have to be.
    """
    width, height = SMALLEST[model.family] if model.preset == "lab" else (1, 1)
    if isinstance(model, CrnnParams):
        # CTC needs a column for every character and one for a blank between two that are equal; `fast` pads the last one.
        columns = 2 * spec.max_length - 1
        width = max(width, COLUMN_PIXELS * columns if model.preset == "lab" else COLUMN_PIXELS * (columns - 1) + 1)
    if spec.width < width or spec.height < height:
        raise ParamsError(
            f"{PARAMS_PATH}: models.{name}: a {model.family} of preset {model.preset} needs pictures of {max(spec.width, width)}x"
            f"{max(spec.height, height)} for texts of {spec.described_length} characters; those of datasets.{model.dataset} have "
            f"{spec.width}x{spec.height}: raise `width` and `height`, or lower `length`"
        )


def require_training_samples(name: str, model: ModelParams, num_train: int) -> None:
    """Refuse a model whose validation part is all of the train split.

    Raises:
        ParamsError: says how many samples there are.
    """
    if max(1, round(num_train * model.validation_size)) >= num_train:
        raise ParamsError(
            f"{PARAMS_PATH}: models.{name}.validation_size is {model.validation_size}, which leaves nothing of {num_train:,} "
            f"train samples to train on: lower it, or raise `count` of datasets.{model.dataset}"
        )


def check_datasets(specs: Mapping[str, DatasetSpec], rule: SplitRule, models: Mapping[str, ModelParams]) -> dict[str, object]:
    """Check that datasets can be drawn and split; return what `generate` computes with, by file name."""
    # Compiled code and fonts: a second that a wrong value need not wait.
    from captcha_registry.generation.drawing import Drawer, hash_fonts  # noqa: PLC0415
    from captcha_registry.generation.generating import DATASET_PACKAGES  # noqa: PLC0415
    from captcha_registry.generation.legibility import check_legibility  # noqa: PLC0415
    from captcha_registry.generation.splitting import check_split, describe_sides  # noqa: PLC0415

    tools: dict[str, object] = {}
    for name, spec in specs.items():
        with name_section(f"datasets.{name}"):
            drawer = Drawer(spec)
            drawer.check_fonts()
            for warning in check_legibility(drawer):
                print(f"warning: {PARAMS_PATH}: datasets.{name}: {warning}", file=sys.stderr)
            fonts = hash_fonts(spec.fonts, drawer.font_files)
            num_test = check_split(spec, rule)
        for reader, model in models.items():
            if model.dataset == name:
                require_training_samples(reader, model, spec.count - num_test)
        tools[f"generate/{name}"] = describe_stage("generate", packages=DATASET_PACKAGES, without=URL_MODULES) | {"fonts": fonts}
        growth = "; they change sides when `count` does" if rule.by in {"sample", "label"} else ""
        print(f"{name}: {'about ' if rule.by.endswith('_hash') else ''}{describe_sides(spec.count, num_test, rule)}{growth}")
    return tools


def check_models(models: Mapping[str, ModelParams], specs: Mapping[str, DatasetSpec]) -> dict[str, object]:
    """Say what will be trained; return what `train` computes with, by file name."""
    for name, model in models.items():
        if model.recipe.emphasis.characters and not model.draws:
            print(
                f"warning: {PARAMS_PATH}: models.{name}.{model.preset}.emphasis has no effect, as `fresh` is 0.0 and no "
                "picture is drawn while it trains",
                file=sys.stderr,
            )
        print(f"{name}: {model.family} of preset {model.preset} for {model.dataset}")
    return {f"train/{name}": describe_training(model, specs[model.dataset]) for name, model in models.items()}


def describe_training(model: ModelParams, spec: DatasetSpec) -> dict[str, dict[str, str]]:
    """Say what `train` computes with for a model; fonts and what draws are part of it if pictures are drawn meanwhile."""
    from captcha_registry.generation.drawing import hash_fonts, read_fonts  # noqa: PLC0415

    described = describe_stage("train", model.family_module, packages=model.packages, without=model.unused_modules)
    return described | ({"fonts": hash_fonts(spec.fonts, read_fonts(spec))} if model.draws else {})


def describe_evaluation(specs: Iterable[DatasetSpec]) -> dict[str, dict[str, str]]:
    """Say what `evaluate` computes with; it draws misread samples again, in the fonts of their datasets."""
    from captcha_registry.generation.drawing import hash_fonts, read_fonts  # noqa: PLC0415

    fonts = [hash_fonts(spec.fonts, read_fonts(spec)) for spec in specs]
    return describe_stage("evaluate", packages=EVALUATE_PACKAGES) | {"fonts": dict(sorted(ChainMap(*fonts).items()))}


def describe_stage(
    stage: str, *modules: str, packages: Iterable[str], without: tuple[str, ...] = ()
) -> dict[str, dict[str, str]]:
    """Say what a stage computes with: its own file, more `modules`, all that they import `without` some, and `packages`."""
    return {"packages": tool_versions(packages), "modules": hash_modules(f"stages.{stage}", *modules, without=without)}


def write_tools(tools: Mapping[str, object]) -> None:
    """Write what stages compute with, and nothing else: DVC leaves the folder as the last check left it."""
    for path in set(TOOLS_DIR.rglob("*.json")) - {TOOLS_DIR / f"{work}.json" for work in tools}:
        path.unlink()
    for work, content in tools.items():
        write_atomically(TOOLS_DIR / f"{work}.json", f"{json.dumps(content, indent=2)}\n".encode())


def find_removed() -> dict[str, Leftover]:
    """Find what is left of datasets and models that params.yaml no longer names."""
    params = read_params()
    return find_leftovers({section: params[section] or {} for section in ("datasets", "models")})


def tell_leftovers() -> None:
    """Say what is left, and what removes it."""
    for name, leftover in find_removed().items():
        print(
            f"warning: {PARAMS_PATH} no longer names {name!r}, but these are left: {leftover}; to remove them run "
            f"`python -m stages.check --remove {name}`, then commit",
            file=sys.stderr,
        )


def remove(name: str) -> None:
    """Remove what is left of a dataset or model.

    Raises:
        UserError: nothing is, or params.yaml still names it.
    """
    check_values()
    if not (leftover := find_removed().get(name)):
        params = read_params()
        for section in ("datasets", "models"):
            if name in (params[section] or {}):
                raise UserError(f"{PARAMS_PATH} still names {name!r}: delete {section}.{name} there, then run this again")
        raise UserError(f"nothing is left of {name!r}, and {PARAMS_PATH} does not name it: check the name")
    remove_leftover(leftover)
    print(f"removed: {leftover}; DVC's cache keeps the data, and Git what was committed")


def main() -> None:
    """Check every section and what the sections ask of each other."""
    specs, rule, models = check_values()
    tell_leftovers()
    tools = check_datasets(specs, rule, models) | check_models(models, specs)
    tools["split"] = describe_stage("split", packages=SPLIT_PACKAGES)
    tools["describe"] = describe_stage("describe", packages=DESCRIBE_PACKAGES)
    tools["evaluate"] = describe_evaluation(specs.values())
    tools["report"] = describe_stage("report", packages=REPORT_PACKAGES)
    write_tools(tools)


if __name__ == "__main__":
    parser = CommandLine(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    only = parser.add_mutually_exclusive_group()
    only.add_argument("--remove", metavar="NAME", help="remove what is left of a dataset or model, and check nothing else")
    only.add_argument("--values", action="store_true", help="check the values in params.yaml, and write nothing")
    with report_errors():
        arguments = parser.parse_args()
        if arguments.values:
            check_values()
        else:
            remove(arguments.remove) if arguments.remove is not None else main()
