"""What a person at a prompt or in a notebook meets: names that can be found, columns, orders, pictures."""

import base64
import gc
import pydoc
import re
import shutil
import subprocess
import sys
import threading
from dataclasses import dataclass, replace
from io import BytesIO
from pathlib import Path

import numpy as np
import pytest
from conftest import ROOT
from PIL import Image

import captcha_registry
from captcha_registry import CaptchaDataset, LoadedDataset, UserError
from captcha_registry.dataset import read_ahead as read_ahead_module
from captcha_registry.dataset.files import Files
from captcha_registry.dataset.front_door import CaptchaSample
from captcha_registry.dataset.records import DamagedRecordError

OFFERS = {"CaptchaDataset", "LoadedDataset", "UserError", "__version__", "load", "load_model"}


@pytest.fixture(scope="module")
def tiny(tiny_dataset: CaptchaDataset) -> LoadedDataset:
    return captcha_registry.load(tiny_dataset.root)


def test_the_package_shows_what_it_offers_and_imports_nothing_for_that() -> None:
    code = "import sys, captcha_registry; print(*dir(captcha_registry)); assert not {'numpy', 'pydantic'} & set(sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=ROOT, check=True)
    assert set(done.stdout.split()) >= OFFERS
    assert all(getattr(captcha_registry, name) is not None for name in OFFERS)
    with pytest.raises(AttributeError, match="no attribute 'lode'"):
        captcha_registry.lode  # noqa: B018


def test_help_explains_what_the_package_offers() -> None:
    text = pydoc.plain(pydoc.render_doc(captcha_registry))
    for name in (
        "class CaptchaDataset",
        "class LoadedDataset(captcha_registry.dataset.dataset.CaptchaDataset)",
        "class UserError",
        "load(source: str",
        "load_model(source: str",
        captcha_registry.__version__,
    ):
        assert name in text


def test_a_column_is_an_array(tiny: LoadedDataset) -> None:
    rows = tiny.index.to_pylist()
    assert tiny.labels.tolist() == tiny["label"].tolist() == [row["label"] for row in rows]
    assert tiny["ink_luminance"].dtype == np.uint8
    assert tiny["pixel_sha256"].tolist() == [row["pixel_sha256"] for row in rows]
    assert tiny[tiny["ink_luminance"] < 90].labels.tolist() == [row["label"] for row in rows if row["ink_luminance"] < 90]
    assert tiny[:0].labels.tolist() == []


def test_a_column_that_says_nothing_of_some_samples_holds_none(generated_dataset: CaptchaDataset) -> None:
    assert captcha_registry.load(generated_dataset.root)["split"].tolist() == [None] * 60


def test_a_name_that_is_no_column_is_refused_with_those_that_are(tiny: LoadedDataset) -> None:
    with pytest.raises(UserError, match=r"'image' is not a column of tiny; expected one of id, label, .*dataset\[0\]\.image"):
        tiny["image"]


def test_a_split_that_is_taken_for_a_column_is_named_with_what_selects_it(tiny: LoadedDataset) -> None:
    with pytest.raises(UserError, match=r"'test' is a split, not a column: tiny\.split\('test'\) selects its samples"):
        tiny["test"]


def test_a_sample_is_read_by_names_like_a_dict(tiny: LoadedDataset) -> None:
    sample = tiny[3]
    assert (sample["label"], sample["id"]) == (sample.label, 3)
    assert sample["image"] is sample.image
    with pytest.raises(KeyError, match="a sample has image, label, id, no 'text'"):
        sample["text"]
    with pytest.raises(TypeError, match="not iterable"):
        _image, _label = sample


def test_a_dataset_whose_manifest_contradicts_itself_is_not_loaded(dataset_copy: Path) -> None:
    manifest = dataset_copy / "manifest.json"
    manifest.write_text(manifest.read_text().replace('"seed": 7', '"seed": 8'))
    with pytest.raises(
        UserError, match=r"manifest.json: dataset_id is .*: `captcha-registry repair .*` repairs it, or tells how"
    ):
        captcha_registry.load(dataset_copy)


def test_samples_are_equal_by_number_text_and_pixels(tiny: LoadedDataset, dataset_copy: Path) -> None:
    first, second = tiny[:2]
    assert first in tiny
    assert list(tiny[:3]).index(second) == 1
    assert {first, tiny[0], captcha_registry.load(dataset_copy)[0]} == {first}
    assert first not in (second, CaptchaSample(255 - first.image, first.label, first.id), "0", None)


def test_a_dataset_says_what_is_in_it(tiny: LoadedDataset, generated_dataset: CaptchaDataset) -> None:
    assert (tiny.name, tiny.version) == ("tiny", None)
    assert tiny.splits == {"train": 48, "test": 12}
    assert list(tiny.splits) == ["train", "test"]
    assert tiny.split("test").splits == {"test": 12}
    assert captcha_registry.load(generated_dataset.root).splits == {}
    assert tiny.column_names == list(tiny.features)[1:]
    frame = tiny.to_pandas()
    assert (frame["label"].tolist(), list(frame)) == (tiny.labels.tolist(), tiny.column_names)
    assert tiny.features == {"image": "uint8 (32, 48, 3)"} | {field.name: str(field.type) for field in tiny.index.schema}


def test_a_seed_decides_the_order_of_a_shuffle(tiny: LoadedDataset) -> None:
    one, again, other = (tiny.shuffle(seed)["id"].tolist() for seed in (1, 1, 2))
    assert one == again != other
    assert sorted(one) == sorted(other) == list(range(60)) != one
    with pytest.raises(UserError, match="seed is -1; expected a whole number from 0"):
        tiny.shuffle(-1)


def test_select_takes_samples_in_the_order_of_their_numbers(tiny: LoadedDataset) -> None:
    assert tiny.select(range(5, 2, -1))["id"].tolist() == tiny.select(np.array([5, 4, 3]))["id"].tolist() == [5, 4, 3]
    with pytest.raises(TypeError):
        tiny.select(3)


def test_a_selection_keeps_what_the_dataset_is(tiny: LoadedDataset) -> None:
    named = LoadedDataset.of(tiny, version="1.2.0")
    selections = [named[:3], named.split("test"), named.filter("id < 3"), named.shuffle(1), named.select([1])]
    assert [(type(chosen), chosen.version) for chosen in selections] == [(LoadedDataset, "1.2.0")] * 5


def test_a_dataset_shows_what_it_is_in_a_line(tiny: LoadedDataset, tiny_dataset: CaptchaDataset) -> None:
    assert repr(tiny[:5]) == "<LoadedDataset tiny: 5 of 60 samples>"
    assert repr(LoadedDataset.of(tiny, version="1.2.0")) == "<LoadedDataset tiny@1.2.0: 60 of 60 samples>"
    # What the pipeline reads.
    assert repr(tiny_dataset) == "<CaptchaDataset tiny: 60 of 60 samples>"


def test_a_sample_shows_its_text_and_size_in_a_line(tiny: LoadedDataset) -> None:
    assert repr(tiny[3]) == f"<CaptchaSample 3: {str(tiny.labels[3])!r}, 48x32>"


@dataclass(frozen=True)
class CountedFiles:
    """The files of a dataset, with a list of what was read."""

    files: Files
    reads: list[str]

    def read(self, path: str, offset: int, length: int) -> bytes:
        self.reads.append(path)
        return self.files.read(path, offset, length)


@pytest.fixture
def counted(tiny: LoadedDataset) -> LoadedDataset:
    return replace(tiny, files=CountedFiles(tiny.files, []))


def test_records_that_lie_side_by_side_are_read_at_once(counted: LoadedDataset) -> None:
    samples = list(counted)
    assert [sample.id for sample in samples] == list(range(60))
    assert [sample.label for sample in samples] == counted.labels.tolist()
    # Ten shards, though 60 records.
    assert sorted(counted.files.reads) == sorted(set(counted["shard"]))


@pytest.mark.parametrize("run", [1, 7, 64])
def test_samples_come_in_the_order_of_the_selection(tiny: LoadedDataset, monkeypatch: pytest.MonkeyPatch, run: int) -> None:
    monkeypatch.setattr(read_ahead_module, "RUN_SAMPLES", run)
    chosen = tiny[[*tiny.shuffle(3)["id"], 5, 5, 6]]
    for place, sample in enumerate(chosen):
        assert (sample.id, sample.label) == (chosen["id"][place], chosen.labels[place])
        np.testing.assert_array_equal(sample.image, tiny[int(sample.id)].image)


def test_large_pictures_are_read_ahead_in_small_numbers(counted: LoadedDataset, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(read_ahead_module, "RUN_BYTES", 48 * 32 * 3)
    iterator = iter(counted)
    assert next(iterator).id == 0
    iterator.close()
    assert len(counted.files.reads) <= read_ahead_module.RUNS_AHEAD + 1


def test_a_loop_that_is_left_leaves_no_thread(tiny: LoadedDataset) -> None:
    before = threading.active_count()
    for _ in tiny:
        break
    gc.collect()
    assert threading.active_count() == before


def test_a_damaged_record_ends_the_loop(dataset_copy: Path) -> None:
    samples = captcha_registry.load(dataset_copy)
    shard = dataset_copy / samples["shard"][30]
    shard.write_bytes(shard.read_bytes()[:-20])
    with pytest.raises(DamagedRecordError, match=shard.name):
        list(samples)


def test_a_sample_shows_its_picture(tiny: LoadedDataset) -> None:
    sample = tiny[3]
    np.testing.assert_array_equal(np.asarray(Image.open(BytesIO(sample._repr_png_()))), sample.image)
    html = sample._repr_html_()
    assert re.findall(r"<figcaption[^>]*>(.*)</figcaption>", html) == [sample.label]
    (source,) = re.findall(r'src="data:image/png;base64,([^"]*)"', html)
    assert base64.b64decode(source) == sample._repr_png_()


def test_a_dataset_shows_its_facts_and_some_pictures(tiny: LoadedDataset) -> None:
    html = LoadedDataset.of(tiny, version="1.2.0")[:20]._repr_html_()
    for fact in ("<b>tiny</b> 1.2.0", "20 of 60 (train ", "48x32", "3 characters of <code>0123456789AB</code>", "ink_luminance"):
        assert fact in html
    assert re.findall(r"<figcaption[^>]*>(.*?)</figcaption>", html) == tiny.labels[:12].tolist()
    # Its colours are the notebook's, and it loads nothing.
    assert "color:" not in html
    assert "http" not in html
    assert "the first 12 samples" not in tiny[:12]._repr_html_()


def test_what_a_text_holds_is_no_html(tiny: LoadedDataset) -> None:
    sample = CaptchaSample(tiny[0].image, '<b>&"', 7)
    assert "&lt;b&gt;&amp;&quot;</figcaption>" in sample._repr_html_()
    assert "<b>" not in sample._repr_html_()


def test_a_dataset_whose_pictures_cannot_be_read_says_why(dataset_copy: Path) -> None:
    samples = captcha_registry.load(dataset_copy)
    (dataset_copy / samples["shard"][0]).unlink()
    html = samples._repr_html_()
    assert "60 (train 48, test 12)" in html
    assert "No picture could be read: " in html
    assert ".tfrecord is missing" in html


def test_a_dataset_that_was_replaced_while_it_was_open_is_to_be_loaded_again(
    dataset_copy: Path, grown_dataset: CaptchaDataset
) -> None:
    loaded = captcha_registry.load(dataset_copy)
    shutil.rmtree(dataset_copy)
    shutil.copytree(grown_dataset.root, dataset_copy)
    # Its first shards are those of the smaller one, and their records would be found.
    for shard in dataset_copy.glob("*/*.tfrecord"):
        shard.chmod(0o644)
        shard.write_bytes(shard.read_bytes()[1:])
    reads = (lambda: loaded[5], loaded.to_numpy, lambda: list(loaded))
    for read in reads:
        with pytest.raises(UserError, match=rf": the dataset in {dataset_copy} was replaced after it was loaded: load it again$"):
            read()
    shutil.rmtree(dataset_copy / "train")
    shutil.rmtree(dataset_copy / "test")
    for read in reads:
        with pytest.raises(UserError, match=r"is missing: the dataset in .* was replaced after it was loaded: load it again$"):
            read()


FORKED = """
import os, signal, sys
import captcha_registry
from captcha_registry.dataset import read_ahead

read_ahead.RUN_SAMPLES = 1
samples = iter(captcha_registry.load(sys.argv[1]))
next(samples)
if (child := os.fork()):
    sys.exit(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]))
signal.alarm(60)
list(samples)
"""


def test_an_iteration_that_goes_on_in_a_forked_process_is_refused(tiny: LoadedDataset) -> None:
    done = subprocess.run([sys.executable, "-c", FORKED, tiny.root], capture_output=True, text=True, cwd=ROOT, check=False)
    assert done.returncode == 1
    assert "this iteration began in the process from which this one was forked: begin another" in done.stderr


def test_a_damaged_record_is_told_with_its_place_and_what_draws_it_again(dataset_copy: Path) -> None:
    shard = dataset_copy / "train/00000.tfrecord"
    shard.chmod(0o644)
    shard.write_bytes(shard.read_bytes()[:-1])
    loaded = captcha_registry.load(dataset_copy, split="train")
    message = f"{shard}: record at byte .*: `captcha-registry repair {dataset_copy}` draws it again"
    with pytest.raises(UserError, match=message):
        list(loaded)
    with pytest.raises(UserError, match=message):
        loaded[5]
