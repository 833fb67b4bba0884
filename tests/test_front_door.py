"""What a person at a prompt or in a notebook meets: names that can be found, columns, orders, pictures."""

import pydoc
import subprocess
import sys

import numpy as np
import pytest
from conftest import ROOT

import captcha_registry
from captcha_registry import CaptchaDataset, UserError

OFFERS = {"CaptchaDataset", "UserError", "__version__", "load"}


@pytest.fixture(scope="module")
def tiny(tiny_dataset: CaptchaDataset) -> CaptchaDataset:
    return captcha_registry.load(tiny_dataset.root)


def test_the_package_shows_what_it_offers_and_imports_nothing_for_that() -> None:
    code = "import sys, captcha_registry; print(*dir(captcha_registry)); assert not {'numpy', 'pydantic'} & set(sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=ROOT, check=True)
    assert set(done.stdout.split()) == OFFERS
    assert all(getattr(captcha_registry, name) is not None for name in OFFERS)
    with pytest.raises(AttributeError, match="no attribute 'lode'"):
        captcha_registry.lode  # noqa: B018


def test_help_explains_what_the_package_offers() -> None:
    text = pydoc.plain(pydoc.render_doc(captcha_registry))
    for name in ("class CaptchaDataset", "class UserError", "load(source: str", captcha_registry.__version__):
        assert name in text


def test_a_column_is_an_array(tiny: CaptchaDataset) -> None:
    rows = tiny.index.to_pylist()
    assert tiny.labels.tolist() == tiny["label"].tolist() == [row["label"] for row in rows]
    assert tiny["ink_luminance"].dtype == np.uint8
    assert tiny["pixel_sha256"].tolist() == [row["pixel_sha256"] for row in rows]
    assert tiny[tiny["ink_luminance"] < 90].labels.tolist() == [row["label"] for row in rows if row["ink_luminance"] < 90]
    assert tiny[:0].labels.tolist() == []


def test_a_column_that_says_nothing_of_some_samples_holds_none(generated_dataset: CaptchaDataset) -> None:
    assert captcha_registry.load(generated_dataset.root)["split"].tolist() == [None] * 60


def test_a_name_that_is_no_column_is_refused_with_those_that_are(tiny: CaptchaDataset) -> None:
    with pytest.raises(UserError, match=r"'image' is no column of tiny; expected one of id, label, .*dataset\[0\]\.image"):
        tiny["image"]


def test_a_dataset_says_what_is_in_it(tiny: CaptchaDataset, generated_dataset: CaptchaDataset) -> None:
    assert (tiny.name, tiny.version) == ("tiny", None)
    assert tiny.splits == {"train": 48, "test": 12}
    assert list(tiny.splits) == ["train", "test"]
    assert tiny.split("test").splits == {"test": 12}
    assert captcha_registry.load(generated_dataset.root).splits == {}
    assert tiny.features == {"image": "uint8 (32, 48, 3)"} | {field.name: str(field.type) for field in tiny.index.schema}


def test_a_seed_decides_the_order_of_a_shuffle(tiny: CaptchaDataset) -> None:
    one, again, other = (tiny.shuffle(seed)["id"].tolist() for seed in (1, 1, 2))
    assert one == again != other
    assert sorted(one) == sorted(other) == list(range(60)) != one
    with pytest.raises(UserError, match="seed is -1; expected a whole number from 0"):
        tiny.shuffle(-1)


def test_select_takes_samples_in_the_order_of_their_numbers(tiny: CaptchaDataset) -> None:
    assert tiny.select(range(5, 2, -1))["id"].tolist() == tiny.select(np.array([5, 4, 3]))["id"].tolist() == [5, 4, 3]
    with pytest.raises(TypeError):
        tiny.select(3)


def test_a_selection_keeps_what_the_dataset_is(tiny: CaptchaDataset) -> None:
    named = CaptchaDataset.of(tiny, version="1.2.0")
    selections = [named[:3], named.split("test"), named.filter("id < 3"), named.shuffle(1), named.select([1])]
    assert [(type(chosen), chosen.version) for chosen in selections] == [(CaptchaDataset, "1.2.0")] * 5


def test_a_sample_shows_its_text_and_size_in_a_line(tiny: CaptchaDataset) -> None:
    assert repr(tiny[3]) == f"<CaptchaSample 3: {str(tiny.labels[3])!r}, 48x32>"
