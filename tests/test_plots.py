"""Plots need nothing but their files: charts are drawn by what lies beside them, pictures mark what differs by form."""

import hashlib
from pathlib import Path

import numpy as np
import pytest
from PIL import Image, ImageColor
from ruamel.yaml import YAML

from captcha_registry.recognition.steps import list_steps
from captcha_registry.seeing.dvc_plots import TEMPLATES, make_files
from captcha_registry.seeing.plots import BLUE, RED, draw_errors, draw_steps
from captcha_registry.seeing.vendored import FOLDER, LICENSES_NAME, SUMS_NAME, VERSIONS, read_scripts

ROOT = Path(__file__).parent.parent
CAPTCHA = Image.new("RGB", (60, 30), "#dddddd")


def count_pixels(sheet: Image.Image, color: str) -> int:
    return int((np.asarray(sheet) == ImageColor.getrgb(color)).all(axis=-1).sum())


def test_vendored_files_are_the_listed_ones() -> None:
    lines = [line.split("  ") for line in (FOLDER / SUMS_NAME).read_text().splitlines()]
    sums = {name: digest for digest, name in lines}
    found = {path.name: hashlib.sha256(path.read_bytes()).hexdigest() for path in FOLDER.iterdir() if path.name != SUMS_NAME}
    assert found == sums
    assert set(sums) == {LICENSES_NAME, *(f"{package}.min.js" for package in VERSIONS)}


def test_vendored_files_are_of_the_versions_and_licences_that_are_named() -> None:
    for script, version in zip(read_scripts(), VERSIONS.values(), strict=True):
        assert f'"{version}"' in script
        assert "sourceMappingURL" not in script
    licences = (FOLDER / LICENSES_NAME).read_text(encoding="utf-8")
    for package in VERSIONS:
        text = licences.split(f"\n{package}\n\n")[1]
        assert text.startswith("Copyright (c)")
        assert "Redistribution and use in source and binary forms" in text[:600]


def test_what_dvc_draws_with_is_what_the_code_makes() -> None:
    for name, content in make_files().items():
        assert (ROOT / ".dvc" / name).read_text(encoding="utf-8") == content, "run `make charts`"


def test_dvc_names_the_page_and_every_template() -> None:
    assert "html_template = plots.html" in (ROOT / ".dvc/config").read_text()
    pipeline = YAML(typ="safe").load(ROOT / "dvc.yaml")
    plots = [*pipeline["stages"]["evaluate"]["do"]["plots"], *pipeline["plots"]]
    named = {props.get("template") for plot in plots for props in plot.values()} - {None}
    assert named == set(TEMPLATES) == {path.stem for path in (ROOT / ".dvc/plots").iterdir()}


def test_dvc_replaces_one_place_in_the_page() -> None:
    page = make_files()["plots.html"]
    assert [page.count(f"{{{name}}}") for name in ("plot_divs", "refresh_tag", "scripts")] == [1, 1, 0]


def test_an_error_is_marked_by_a_box_around_what_differs() -> None:
    right, wrong, missing = ([("A", "A"), ("0", "0")], [("A", "A"), ("0", "O")], [("A", "A"), ("0", "")])
    assert count_pixels(draw_errors([CAPTCHA], [right], [0.5]), RED) == 0
    # Beyond the two characters themselves.
    assert count_pixels(draw_errors([CAPTCHA], [wrong], [0.5]), RED) > 80
    assert count_pixels(draw_errors([CAPTCHA], [missing], [0.5]), RED) > 80
    assert draw_errors([], [], []).size == (240, 60)


def test_steps_are_the_likeliest_classes_with_their_probabilities() -> None:
    logits = np.log(np.array([[[0.7, 0.2, 0.1], [0.1, 0.1, 0.8]]], dtype=np.float32))
    assert list_steps("crnn", logits, "AB") == [[("", pytest.approx(0.7)), ("B", pytest.approx(0.8))]]
    assert list_steps("cnn", logits, "ABC") == [[("A", pytest.approx(0.7)), ("C", pytest.approx(0.8))]]


def test_bars_of_steps_are_as_high_as_their_probabilities() -> None:
    high, low = (count_pixels(draw_steps([CAPTCHA], [""], [[("A", share), ("", 1)]]), BLUE) for share in (1.0, 0.5))
    assert low / high == pytest.approx(0.5, abs=0.06)
