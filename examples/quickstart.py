"""Publish a registry on this disk to try every command on: `make quickstart`.

Draws both datasets at a small scale in a throwaway copy of the project, publishes them as 1.0.0, lets them grow and publishes
that as 1.1.0. The stages are those of the pipeline, called one after another in this process, which saves a minute of starts.
Nothing is trained: the models that come with the package are published, in the place of those that training makes.
Everything is in `.work/quickstart`, which Git and DVC ignore, until the next quickstart.
"""

import argparse
import os
import re
import sys
import time
from collections.abc import Iterable, Mapping
from contextlib import chdir
from pathlib import Path

HERE = Path(__file__).resolve().parent
sys.path[:0] = [str(HERE), str(HERE.parent)]

from demo import ROOT, add_remotes, change_params, claim, copy_project, run  # noqa: E402 - from this folder

from captcha_registry.dataset.spec import DatasetSpec  # noqa: E402 - in the order of their names
from captcha_registry.ends import prepare_process, report_errors  # noqa: E402 - as above
from captcha_registry.recognition.card import CARD_NAME  # noqa: E402 - as above
from captcha_registry.recognition.onnx_network import open_onnx, write_onnx  # noqa: E402 - as above
from captcha_registry.recognition.pretrained import read_pretrained  # noqa: E402 - as above
from captcha_registry.workspace import write_atomically  # noqa: E402 - as above

PLACE = ROOT / ".work" / "quickstart"
DATASETS = ("digits", "alnum")
# Artifacts of dvc.yaml, and what the package calls these models.
MODELS = {"cnn": "digits", "crnn": "alnum"}
# Samples of each dataset in a version.
VERSIONS = {"1.0.0": 2_000, "1.1.0": 3_000}
NUM_SHARDS = 10

# What a reader types next, in the shell and then in Python; README.md has the same lines, and tests run them.
TRY = """\
$ . .venv/bin/activate && cd .work/quickstart
$ captcha-registry list --repo registry.git
$ captcha-registry show digits@1.1.0 --repo registry.git
$ captcha-registry diff digits@1.0.0 digits@1.1.0 --repo registry.git
$ captcha-registry get digits@1.1.0 --repo registry.git
$ captcha-registry verify digits
$ echo damage >> digits/test/00003.tfrecord
$ captcha-registry verify digits
$ captcha-registry repair digits
$ captcha-registry export digits --split test --format images --to pictures
$ captcha-registry predict pictures/test/*71.png --model cnn --repo registry.git
$ python
>>> import captcha_registry
>>> digits = captcha_registry.load("digits@1.0.0", repo="registry.git")
>>> dark = digits.filter("ink_luminance < 40")
>>> dark[0].label, dark[0].image.shape"""


def list_commands(text: str, prompt: str) -> list[str]:
    """List the lines of a text that follow a prompt, `$` of the shell or `>>>` of Python."""
    return re.findall(rf"^{re.escape(prompt)} (.+)$", text, re.MULTILINE)


def make_models() -> None:
    """Write the models of the package, which are ONNX files, into folders that DVC tracks."""
    for name, packaged in MODELS.items():
        folder, content = Path("models") / name, read_pretrained(packaged)
        card = open_onnx(content, packaged).card
        write_atomically(folder / CARD_NAME, f"{card.model_dump_json(indent=2)}\n".encode())
        write_onnx(folder, content)
        write_atomically(folder / "README.md", compose_card(name, packaged, card.spec).encode())
    run(["dvc", "add", "--quiet", *(f"models/{name}" for name in MODELS)], Path.cwd())


def compose_card(name: str, packaged: str, spec: DatasetSpec) -> str:
    """Say what a model reads, and how to read with it."""
    return f"""# {name}

Reads captchas of {spec.described_length} characters of `{spec.alphabet}` from pictures of {spec.width}x{spec.height} pixels.
It is the model `{packaged}` of the package captcha-registry, an ONNX file that needs no TensorFlow:

    captcha-registry predict PICTURE --model {name} --repo URL
"""


def make_datasets() -> None:
    """Draw, split and describe both datasets in the project that is the working folder, and tell DVC."""
    # The compiler takes seconds to load, which a mistake on the command line need not wait for.
    from stages import check, describe, generate, split  # noqa: PLC0415

    check.main()
    for name in DATASETS:
        generate.main(name)
        split.main(name)
        describe.main(name)
    run(["dvc", "commit", "--quiet", "--force", "--with-deps", *(f"describe@{name}" for name in DATASETS)], Path.cwd())


def publish(version: str, names: Iterable[str]) -> None:
    """Commit what the working folder holds, and publish artifacts of it."""
    for command in (
        ["git", "add", "--all"],
        ["git", "commit", "--quiet", "--message", f"version {version}"],
        ["git", "push", "--quiet", "--set-upstream", "origin", "main"],
        *(["captcha-registry", "publish", f"{name}@{version}"] for name in names),
    ):
        run(command, Path.cwd())


def choose_params(count: int, shard_size: int) -> Mapping[str, object]:
    """Choose how many samples the datasets have."""
    return {f"datasets.{name}.{key}": value for name in DATASETS for key, value in (("count", count), ("shard_size", shard_size))}


def compose_ending(place: Path, seconds: float) -> str:
    """Say what is in the folder, and what to type next."""
    size_bytes = sum(path.stat().st_size for path in (place / "store").rglob("*") if path.is_file())
    return f"""
Published the datasets {" and ".join(DATASETS)}, each as {" and ".join(VERSIONS)},
and the models {" and ".join(MODELS)} as {next(iter(VERSIONS))}: {size_bytes / 1e6:.0f} MB in {seconds:.0f} s.
It stays in {os.path.relpath(place, ROOT)} until the next quickstart or `make clean`:
  registry.git  a bare Git repository; a version is a tag, such as digits@v1.1.0
  store         the DVC remote: a folder with the data of all versions
  publisher     the checkout that published them: change it and publish more
Now try it as a reader would, who only knows where registry.git is:

{TRY}"""


def main(place: Path = PLACE, versions: Mapping[str, int] = VERSIONS) -> None:
    """Publish the registry and say how to try it."""
    started = time.perf_counter()
    publisher = place / "publisher"
    first, *_ = versions.values()
    shard_size = first // NUM_SHARDS
    with claim(place):
        copy_project(publisher, choose_params(first, shard_size) | {"models": {}})
        add_remotes(publisher, place)
        with chdir(publisher):
            make_models()
            names = (*DATASETS, *MODELS)
            for version, count in versions.items():
                change_params(Path("params.yaml"), choose_params(count, shard_size))
                make_datasets()
                publish(version, names)
                # The models stay as they are.
                names = DATASETS
    print(compose_ending(place, time.perf_counter() - started))


if __name__ == "__main__":
    prepare_process()
    with report_errors():
        argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter).parse_args()
        main()
