"""Train a model of params.yaml under a budget and tell how soon it reads how well: one JSON object on stdout.

    python benchmarks/time_to_accuracy.py crnn --views 240000 --seeds 1 2 3 --set models.crnn.fast.batch_size=256

It trains as the stage does its first phase; warm-up, decay and emphasis span the budget. `--seconds` becomes a number of views
before the first seed, by the speed of 40 steps.

What it reads are pictures of the dataset's spec under another seed, which no training sees: 20,000 at regular points; at the end,
in float32 as the stage `evaluate`, again 20,000, or 100,000 where more than 99.5 % of those are right. `reached` is the first
point at which as much was right. Seconds are those of training alone: neither the first step, which compiles and waits for the
first pictures (`compile_seconds`), nor reading.

A recipe with `fresh: 1.0` takes no more than the spec of its dataset. For others `data/<name>` is read if it is of the spec; else
a dataset is made. Those and the pictures to read are kept among the temporary files.
"""

import argparse
import json
import shlex
import sys
import tempfile
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from ruamel.yaml import YAML, YAMLError
from timing import describe_machine

from captcha_registry.dataset.dataset import CaptchaDataset
from captcha_registry.dataset.folder import open_folder
from captcha_registry.dataset.manifest import MANIFEST_NAME
from captcha_registry.dataset.spec import DatasetSpec, SplitRule
from captcha_registry.ends import report_errors
from captcha_registry.errors import UserError
from captcha_registry.generation.drawing import Drawer, hash_fonts
from captcha_registry.generation.executors import local_processes
from captcha_registry.generation.generating import assemble_dataset, describe_tools, draw_missing_shards, find_finished_shards
from captcha_registry.generation.splitting import split_dataset
from captcha_registry.machine import count_workers, keep_freed_memory, own_temporary_dir
from captcha_registry.params import PARAMS_PATH, ParamsError, load_section, read_params
from captcha_registry.recognition.recipe import ModelParams, load_model_params
from captcha_registry.workspace import fingerprint

# The first step compiles, another is timed.
MIN_STEPS = 2


def override_params(overrides: Sequence[str], folder: Path) -> Path:
    """Write params.yaml with other values, each given as `dotted.key=YAML`, into a folder."""
    params = read_params(PARAMS_PATH)
    for override in overrides:
        key, equals, value = override.partition("=")
        *parents, last = key.split(".")
        section: Any = params
        for depth, name in enumerate(parents):
            # Of a dataset or model only what differs from the defaults stands there.
            made = {} if depth > 1 else None
            section = section.setdefault(name, made) if isinstance(section, dict) else None
        if not (equals and parents and isinstance(section, dict)):
            raise ParamsError(
                f"--set {override}: expected KEY=VALUE with a key of params.yaml, as models.crnn.fast.batch_size=256"
            )
        try:
            section[last] = YAML(typ="safe").load(value)
        except YAMLError as error:
            raise ParamsError(f"--set {override}: the value is not valid YAML: {' '.join(str(error).split())}") from None
    path = folder / PARAMS_PATH.name
    YAML(typ="safe").dump(params, path)
    return path


def require_heeded(overrides: Sequence[str], model: str, params: ModelParams) -> None:
    """Refuse values that change nothing: what is decided by the budget and the seeds, and what is of others.

    Raises:
        ParamsError: names the override.
    """
    recipe = f"models.{model}.{params.preset}"
    decided = (f"{recipe}.epochs", f"{recipe}.patience", f"models.{model}.seed")
    heeded = (f"models.{model}.", f"datasets.{params.dataset}.", "split.")
    for override in overrides:
        if override.partition("=")[0] in decided:
            raise ParamsError(
                f"--set {override} changes nothing here: {', '.join(decided)} are decided by --views or --seconds, and --seeds"
            )
        if not override.startswith(heeded):
            raise ParamsError(f"--set {override} changes nothing here; expected a key that starts with {', '.join(heeded)}")


def draw_samples(name: str, spec: DatasetSpec) -> CaptchaDataset:
    """Draw a dataset among the temporary files, or take what was drawn there before."""
    drawer = Drawer(spec)
    facts = (spec.model_dump(exclude={"count"}), hash_fonts(spec.fonts, drawer.font_files), describe_tools())
    folder = own_temporary_dir() / "time-to-accuracy" / fingerprint(*facts)
    work_dir, out_dir = folder / "work", folder / str(spec.count)
    if not (out_dir / MANIFEST_NAME).is_file():
        work_dir.mkdir(parents=True, exist_ok=True)
        finished = {number: entry for number, entry in find_finished_shards(work_dir).items() if number < spec.num_shards}
        with local_processes(count_workers()) as executor:
            shards = draw_missing_shards(drawer, finished, work_dir, executor)
        assemble_dataset(name, drawer, shards, work_dir, out_dir)
    return open_folder(out_dir)


def find_train_samples(name: str, spec: DatasetSpec, rule: SplitRule) -> CaptchaDataset:
    """Open the checkout's dataset, if it is of the spec; else make one."""
    committed = Path("data") / name
    if (committed / MANIFEST_NAME).is_file() and open_folder(committed).manifest.spec == spec:
        return open_folder(committed)
    drawn = draw_samples(name, spec)
    folder = drawn.root.with_name(f"split-{fingerprint(spec.count, rule.model_dump())}")
    if not (folder / MANIFEST_NAME).is_file():
        folder.mkdir(exist_ok=True)
        split_dataset(drawn, rule, folder)
    return open_folder(folder)


def main(arguments: argparse.Namespace) -> dict[str, Any]:
    """Train with every seed; return what came out."""
    # Not at the top: the processes that draw import this file, too, and need no TensorFlow.
    from timed_training import measure_seed, measure_speed  # noqa: PLC0415

    with tempfile.TemporaryDirectory() as folder:
        path = override_params(arguments.set, Path(folder))
        params = load_model_params(arguments.model, path)
        spec = load_section(DatasetSpec, f"datasets.{params.dataset}", path)
        rule = load_section(SplitRule, "split", path)
    require_heeded(arguments.set, arguments.model, params)
    size, drawn = params.recipe.batch_size, params.recipe.fresh == 1
    # What draws all that it trains on takes no more than the spec of a dataset.
    train_spec = spec.model_copy(update={"count": 4 * size, "shard_size": size}) if drawn else spec
    train_rule = SplitRule(test_size=0.25, by="shard", seed=0) if drawn else rule
    dataset = find_train_samples(params.dataset, train_spec, train_rule)
    num_views = arguments.views if arguments.views is not None else int(arguments.seconds * measure_speed(params, dataset))
    num_steps = num_views // params.recipe.batch_size
    if num_steps < MIN_STEPS:
        raise UserError(f"{num_views:,} views are {num_steps} steps of {params.recipe.batch_size}; expected {MIN_STEPS} or more")

    def draw_test(count: int) -> CaptchaDataset:
        return draw_samples(f"{params.dataset}-test", spec.model_copy(update={"seed": (spec.seed + 1) % 2**63, "count": count}))

    points, seeds = min(arguments.points, num_steps), arguments.seeds
    return {
        "command": f"python benchmarks/time_to_accuracy.py {shlex.join(sys.argv[1:])}",
        "date": datetime.now(UTC).date().isoformat(),
        "machine": describe_machine(),
        "seeds": [
            measure_seed(params.model_copy(update={"seed": seed}), dataset, num_steps, points, draw_test) for seed in seeds
        ],
    }


def parse(words: Sequence[str] | None = None) -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model", help="a key below `models` in params.yaml")
    budget = parser.add_mutually_exclusive_group(required=True)
    budget.add_argument("--views", type=int, help="pictures that a network is shown, repeated ones counted again")
    budget.add_argument("--seconds", type=float, help="seconds of training")
    parser.add_argument("--seeds", type=int, nargs="+", default=[1], help="of weights and order (default: 1)")
    parser.add_argument(
        "--points", type=int, choices=range(1, 101), metavar="1..100", default=10, help="at which is read (default: 10)"
    )
    parser.add_argument(
        "--set", action="extend", nargs="+", default=[], metavar="KEY=VALUE", help="another value for a key of params.yaml"
    )
    return parser.parse_args(words)


if __name__ == "__main__":
    with report_errors():
        chosen = parse()
        keep_freed_memory()
        from captcha_registry.recognition.training import order_operations

        order_operations()
        print(json.dumps(main(chosen), indent=2))
