"""The models in the package are those of the committed run, and read like them."""

import hashlib
import os
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import onnx
import pytest
from conftest import ROOT
from ruamel.yaml import YAML

from captcha_registry.errors import UserError
from captcha_registry.generation.drawing import Drawer
from captcha_registry.recognition import pretrained
from captcha_registry.recognition.onnx_network import CHECKSUMS, open_onnx
from captcha_registry.recognition.pretrained import FOLDER, PRETRAINED, read_pretrained

MODELS = {"digits": "cnn", "alnum": "crnn"}


def test_the_models_in_the_package_are_those_of_the_committed_run() -> None:
    """If not, `make pretrained` was forgotten after a training."""
    assert set(MODELS) == set(PRETRAINED)
    stages = YAML(typ="safe").load(ROOT / "dvc.lock")["stages"]
    for name, model in MODELS.items():
        md5s = {out["path"]: out["md5"] for out in stages[f"train@{model}"]["outs"]}
        (card,) = onnx.load_from_string(read_pretrained(name)).metadata_props
        assert hashlib.md5(card.value.encode(), usedforsecurity=False).hexdigest() == md5s[f"models/{model}/model.json"]
        assert open_onnx(read_pretrained(name), name).card.dataset == name


def test_the_models_in_the_package_are_small_and_nothing_else_is_there() -> None:
    assert {path.name for path in FOLDER.iterdir()} == {CHECKSUMS, *(f"{name}.onnx" for name in PRETRAINED)}
    assert all(path.stat().st_size <= 2_000_000 for path in FOLDER.iterdir())


@pytest.mark.parametrize("name", PRETRAINED)
def test_a_model_in_the_package_reads_as_it_did_in_keras(name: str) -> None:
    model = open_onnx(read_pretrained(name), name)
    drawer = Drawer(model.spec.model_copy(update={"seed": 1}))
    drawn = [drawer.draw(number) for number in range(1_000)]
    images = np.stack([sample.pixels for sample in drawn])
    texts = [reading.text for reading in model.read(images)]
    assert sum(text == sample.label for text, sample in zip(texts, drawn, strict=True)) >= 980
    folder = ROOT / "models" / MODELS[name]
    if (folder / "model.keras").is_file():
        # TensorFlow takes seconds.
        from captcha_registry.recognition.reading import open_model  # noqa: PLC0415

        assert texts == [reading.text for reading in open_model(folder, name).read(images)]


def test_a_model_with_other_bytes_than_were_packed_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pretrained, "FOLDER", tmp_path / "copy")
    with pytest.raises(
        UserError, match=r"digits\.onnx is missing: install the package again, or in a checkout run `make pretrained`"
    ):
        read_pretrained("digits")
    shutil.copytree(FOLDER, tmp_path / "copy")
    assert read_pretrained("digits") == (FOLDER / "digits.onnx").read_bytes()
    with (tmp_path / "copy/digits.onnx").open("ab") as file:
        file.write(b"\0")
    with pytest.raises(UserError, match=rf"digits\.onnx has other bytes than {CHECKSUMS} says: install the package again"):
        read_pretrained("digits")


def test_a_model_tells_nobody_that_it_is_used(tmp_path: Path) -> None:
    """By itself onnxruntime 1.32 keeps an id of the machine and a database of events, which it sends to its maker."""
    script = (
        "from captcha_registry.recognition.onnx_network import open_onnx\n"
        "from captcha_registry.recognition.pretrained import read_pretrained\n"
        "open_onnx(read_pretrained('digits'), 'digits')"
    )
    places = dict.fromkeys(("HOME", "XDG_CACHE_HOME", "TMPDIR"), str(tmp_path))
    subprocess.run([sys.executable, "-c", script], env=os.environ | places, check=True)
    assert [*tmp_path.rglob("*")] == []
