"""Open a dataset or a model, in a folder or published under a version."""

import os
import shlex
from collections.abc import Callable
from importlib import util
from pathlib import Path
from typing import TYPE_CHECKING

import pyarrow as pa

from captcha_registry.dataset.dataset import make_dataset
from captcha_registry.dataset.folder import open_folder
from captcha_registry.dataset.front_door import LoadedDataset
from captcha_registry.dataset.index import read_index
from captcha_registry.dataset.manifest import MANIFEST_NAME
from captcha_registry.dataset.readings import READINGS_NAME, read_readings
from captcha_registry.dataset.verify import advise_cure, find_manifest_problems, require_dataset
from captcha_registry.errors import MAKE_OR_PULL, UserError, require_regular
from captcha_registry.extras import advise_install, needs
from captcha_registry.machine import expand_home
from captcha_registry.nearest import suggest
from captcha_registry.recognition.card import CARD_NAME, NETWORK_NAME, read_card, read_part
from captcha_registry.recognition.model import CaptchaModel
from captcha_registry.recognition.onnx_network import CHECKSUMS, ONNX_NAME, open_onnx, read_onnx
from captcha_registry.recognition.pretrained import PRETRAINED, read_pretrained

if TYPE_CHECKING:
    from captcha_registry.registry.fetching import RemoteFile
    from captcha_registry.registry.repository import Published

# What brings a file of a model that is missing or damaged.
_CURE = f"{MAKE_OR_PULL}; if it was fetched, move it away and fetch it again"
# What is needed of a model to read with Keras, and with onnxruntime; the network first.
KERAS, ONNX = (NETWORK_NAME, CARD_NAME), (ONNX_NAME, CARD_NAME, CHECKSUMS)


def load(
    source: str | Path, *, repo: str | Path | None = None, version: str | None = None, split: str | None = None
) -> LoadedDataset:
    """Open a dataset.

    Args:
        source: its folder, such as `data/digits`; or the name under which it is published, such as `digits@1.1.0`, or with
            `repo` or `version` just `digits`. Without a version that is the newest release.
        repo: Git URL or path of the repository that publishes it; without it the one around the working folder.
        version: such as `1.1.0`, for a name without one.
        split: `train` or `test`; without it all samples.

    Raises:
        UserError: there is no complete dataset, or no such version or split.
    """
    if _is_published(source, repo, version):
        dataset = _load_published(str(source), repo, version)
    else:
        # Absolute, as a notebook may go elsewhere before it reads.
        folder = _require_folder(source, "datasets").absolute()
        dataset = LoadedDataset.of(open_folder(folder))
        if problem := next(find_manifest_problems(folder, dataset.manifest), None):
            raise UserError(f"{problem}: {advise_cure(folder, [problem])}")
    return dataset if split is None else dataset.split(split)


def load_model(source: str | Path, *, repo: str | Path | None = None, version: str | None = None) -> CaptchaModel:
    """Open a trained model, which reads pictures: `load_model("models/crnn").read("captcha.png")[0].text`.

    The network is compared with the SHA-256 in the model's card before it is loaded, and one that carries code is refused. Where
    TensorFlow is not installed, or the model has no `model.keras`, onnxruntime runs the `model.onnx` that `evaluate` wrote, which
    is compared with the SHA-256 beside it.

    Args:
        source: `digits` or `alnum`, which come with the package; a folder, such as `models/crnn`; an ONNX file that was exported;
            or the name of a published model, such as `crnn@1.2.0`, or with `repo` or `version` just `crnn`. Without a version
            that is the newest release.
        repo: Git URL or path of the repository that publishes it; without it the one around the working folder.
        version: such as `1.2.0`, for a name without one.

    Raises:
        UserError: there is no complete model or no such version, it is damaged, or there is nothing to read it with.
    """
    if not _is_published(source, repo, version):
        if str(source) in PRETRAINED:
            return open_onnx(read_pretrained(str(source)), str(source))
        if str(source).endswith(".onnx"):
            return open_onnx(_read_exported(expand_home(source)), str(source))
    choices = (KERAS, ONNX) if util.find_spec("tensorflow") else (ONNX,)
    name, folder, chosen = _find_model(source, repo, version, *choices)
    if chosen == ONNX:
        return open_exported(folder, name)
    with needs("load_model", extra="train"):
        from captcha_registry.recognition.reading import open_model  # noqa: PLC0415

    return open_model(folder, name)


def _read_exported(path: Path) -> bytes:
    require_regular(path)
    if not path.exists():
        raise UserError(
            f"there is no file {path}: `captcha-registry export MODEL --format onnx --to {shlex.quote(str(path))}` makes one of "
            "a model"
        )
    return read_part(path)


def open_exported(folder: Path, name: str) -> CaptchaModel:
    """Open the ONNX file in the folder of a model; `name` is what the model calls itself.

    Raises:
        UserError: a file is missing, the ONNX file has other bytes than its checksum says, or another card than the folder.
    """
    if not (folder / ONNX_NAME).is_file():
        raise UserError(
            f"{folder} holds no {ONNX_NAME} to read without TensorFlow: {advise_install('keras', 'tensorflow')}, "
            "or make one elsewhere with `captcha-registry export`, and name that file"
        )
    try:
        content = read_onnx(folder / ONNX_NAME, cure=_CURE)
    except UnicodeDecodeError:
        raise UserError(f"{folder / CHECKSUMS} is not a list of checksums: {_CURE}") from None
    model = open_onnx(content, name)
    if model.card != read_card(folder):
        raise UserError(f"{folder / ONNX_NAME} was made of another network than {CARD_NAME} tells of: run `dvc repro`")
    return model


def load_readings(source: str | Path, *, repo: str | Path | None = None, version: str | None = None) -> pa.Table:
    """Open what a model read on the test samples of its dataset, for `LoadedDataset.with_readings`.

    Args:
        source: the model, as for `load_model`.
        repo: as for `load_model`.
        version: as for `load_model`.

    Returns:
        A table with the columns of `dataset.readings`; no framework is needed.

    Raises:
        UserError: there is no such model, or it comes without readings.
    """
    if str(source) in PRETRAINED and not _is_published(source, repo, version) and not Path(source).exists():
        raise UserError(
            f"the model {source}, which comes with the package, has no readings; expected the folder of a model, such as "
            "models/crnn, or NAME@VERSION of a published one"
        )
    _, folder, _ = _find_model(source, repo, version, (READINGS_NAME,))
    return read_readings(folder)


def _find_model(
    source: str | Path, repo: str | Path | None, version: str | None, *choices: tuple[str, ...]
) -> tuple[str, Path, tuple[str, ...]]:
    """Return what a model calls itself, a folder with its files of one of the choices, and which choice that is."""

    def choose(holds: Callable[[str], bool]) -> tuple[str, ...]:
        return next((parts for parts in choices if holds(parts[0])), choices[0])

    if not _is_published(source, repo, version):
        folder = _require_folder(source, "models")
        chosen = choose(lambda part: (folder / part).is_file())
        for part in chosen:
            require_regular(folder / part)
        return folder.resolve().name, folder, chosen
    from captcha_registry.registry.fetching import fetch_parts  # noqa: PLC0415

    published, sources = _find_version(str(source), repo, version)
    if MANIFEST_NAME in sources:
        raise UserError(f"{published} is a dataset, which `load` opens; expected a model")
    chosen = choose(sources.__contains__)
    return str(published), fetch_parts(published, sources, chosen), chosen


def _is_published(source: str | Path, repo: str | Path | None, version: str | None) -> bool:
    """Tell whether a version is meant rather than a folder."""
    if not isinstance(source, str | os.PathLike):
        raise UserError(f"{source!r} is no name; expected a text or a path, such as digits, data/digits or digits@1.0.0")
    if (repo is not None or version is not None) and len(Path(source).parts) > 1:
        raise UserError(
            f"{source} is a path, which goes without repo and version; expected the name of what is published, such as "
            f"{Path(source).name}"
        )
    return repo is not None or version is not None or ("@" in Path(source).name and not expand_home(source).exists())


def _require_folder(source: str | Path, kind: str) -> Path:
    folder = expand_home(source)
    if "://" in str(source) and not folder.exists():
        raise UserError(
            f"{source} is a URL; expected a folder, or the name of what is published with --repo URL, in Python with repo=URL"
        )
    if folder.is_file():
        is_inside = any((folder.parent / name).is_file() for name in (CARD_NAME, MANIFEST_NAME))
        near = folder.parent if is_inside else {"models": "models/crnn", "datasets": "data/digits"}[kind]
        raise UserError(f"{folder} is a file; expected the folder of one of the {kind}, such as {near}")
    if (near := Path("models" if kind == "models" else "data") / folder).is_dir() and not folder.exists():
        raise UserError(f"there is no folder {folder}: did you mean {near}?")
    if not folder.exists():
        pretrained = PRETRAINED if kind == "models" else ()
        hint = suggest(str(folder), pretrained)
        with_package = f"{' and '.join(pretrained)} come with the package, " if pretrained else ""
        raise UserError(
            f"there is no folder {folder}: {hint and f'{hint} '}{with_package}in a project run `dvc repro`, or "
            "`dvc pull --allow-missing` if a DVC remote has it; for a published one add --repo URL, in Python repo=URL"
        )
    if kind == "datasets" and (folder / CARD_NAME).is_file():
        raise UserError(f"{folder} is a model, which `load_model` opens; expected a dataset")
    if kind == "models" and (folder / MANIFEST_NAME).is_file():
        raise UserError(f"{folder} is a dataset, which `load` opens; expected a model")
    if kind == "datasets":
        require_dataset(folder)
    elif not (folder / CARD_NAME).is_file() and not (folder / READINGS_NAME).is_file():
        raise UserError(
            f"{folder} holds no model: {CARD_NAME} is missing; name the folder that has it, in a project `dvc repro` makes it"
        )
    return folder


def _find_version(reference: str, repo: str | Path | None, version: str | None) -> "tuple[Published, dict[str, RemoteFile]]":
    # DVC takes longer to import than a folder to open.
    from captcha_registry.registry.fetching import find_files  # noqa: PLC0415
    from captcha_registry.registry.repository import find_published, open_repository, parse_reference  # noqa: PLC0415

    name, wanted = parse_reference(reference, version)
    with open_repository(repo) as opened:
        published = find_published(opened, name, wanted)
        return published, find_files(opened, published)


def _load_published(reference: str, repo: str | Path | None, version: str | None) -> LoadedDataset:
    from captcha_registry.registry.fetching import open_files  # noqa: PLC0415

    published, sources = _find_version(reference, repo, version)
    files, manifest = open_files(published, sources)
    index_path = files.make_local([manifest.index.path]) / manifest.index.path
    return LoadedDataset.of(make_dataset(files, manifest, read_index(index_path)), str(published.version))
