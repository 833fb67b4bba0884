"""Train a model: `python -m stages.train cnn`.

Reads `models.<name>` of params.yaml and the train split of its dataset, draws more pictures if the params say so, and writes
`model.keras`, `model.json` and `history.csv` below `models/<name>/`. If it is killed and started again, it goes on after the
last finished epoch.
"""

import argparse
import time
from pathlib import Path

from captcha_registry.dataset.folder import open_folder
from captcha_registry.ends import report_errors
from captcha_registry.errors import CommandLine
from captcha_registry.machine import keep_freed_memory, tell_of_kill
from captcha_registry.meaning import hash_modules
from captcha_registry.recognition.recipe import load_model_params
from captcha_registry.workspace import fingerprint, open_work_dir, tool_versions


def main(name: str) -> None:
    """Train the model `name`."""
    started = time.perf_counter()
    keep_freed_memory()
    # Not at the top: TensorFlow takes seconds, and the processes that draw import this file, too.
    from captcha_registry.recognition.frameworks import choose_precision  # noqa: PLC0415
    from captcha_registry.recognition.trained import save_model  # noqa: PLC0415
    from captcha_registry.recognition.training import (  # noqa: PLC0415
        find_best_epoch,
        order_operations,
        train_model,
    )

    order_operations()
    params = load_model_params(name)
    dataset = open_folder(Path("data") / params.dataset)
    code = hash_modules("captcha_registry.recognition.training", params.family_module, without=params.unused_modules)
    # Work that another machine left in another precision is not continued.
    precision = choose_precision(params.recipe.precision)
    work = fingerprint(params.model_dump(), precision, dataset.manifest.dataset_id, tool_versions(params.packages), code)
    with open_work_dir("train", name, work) as work_dir:
        network, history = train_model(params, dataset, work_dir)
        save_model(Path("models") / name, network, history, params, dataset.manifest)

    best = history.iloc[find_best_epoch(history)]
    seconds = time.perf_counter() - started
    print(
        f"{name}: {network.count_params():,} parameters, best of {len(history)} epochs is {best['epoch']:.0f}, "
        f"validation exact match {best['val_exact_match']:.4f}, {seconds:.0f} s"
    )


if __name__ == "__main__":
    parser = CommandLine(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("name", help="a key below `models` in params.yaml")
    with report_errors(), tell_of_kill("the training"):
        main(parser.parse_args().name)
