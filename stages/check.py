"""Refuse parameters that cannot work before anything is drawn: `python -m stages.check`.

Reads all of params.yaml; writes `data/params.ok`, whose content never changes, so that it orders the stages without
making any of them run again.
"""

import re
from collections import Counter
from collections.abc import Iterable
from pathlib import Path

from captcha_registry.dataset.spec import DatasetSpec, SplitRule
from captcha_registry.errors import UserError, report_errors
from captcha_registry.generation.splitting import check_split
from captcha_registry.params import PARAMS_PATH, ParamsError, load_section, read_params
from captcha_registry.recognition.training import build_network, load_model_params
from captcha_registry.workspace import require_free_space, write_atomically

SECTIONS = {"datasets", "split", "models"}


def check_names(names: Iterable[object]) -> None:
    """Refuse names of datasets and models that would not do as the names of their folders and metrics files."""
    for name, times in Counter(names).items():
        if not (isinstance(name, str) and re.fullmatch(r"[a-z0-9][a-z0-9_-]*", name)):
            raise ParamsError(f"{PARAMS_PATH}: the name {name!r} does not do; expected text of a-z, 0-9, - and _")
        if name == "generated":
            raise ParamsError(f"{PARAMS_PATH}: the name 'generated' is taken by data/generated: choose another")
        if times > 1:
            raise ParamsError(f"{PARAMS_PATH}: a dataset and a model are both called {name!r}: rename one, they share metrics/")


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
    rule = load_section(SplitRule, "split")
    models = {name: load_model_params(name) for name in params["models"]}
    require_free_space(Path("data"), sum(spec.estimated_bytes for spec in specs.values()))
    for name, spec in specs.items():
        try:
            check_split(spec, rule)
        except UserError as error:
            raise ParamsError(f"{PARAMS_PATH}: datasets.{name}: {error}") from None
    for name, model in models.items():
        if model.dataset not in specs:
            raise ParamsError(f"{PARAMS_PATH}: models.{name}.dataset is {model.dataset!r}; expected one of {', '.join(specs)}")
        build_network(model, specs[model.dataset])

    write_atomically(Path("data/params.ok"), b"The parameters were checked.\n")
    print(f"{PARAMS_PATH}: {len(specs)} datasets and {len(models)} models can be made")


if __name__ == "__main__":
    with report_errors():
        main()
