"""What nobody could read is refused before it is drawn, and what is hard to read is said; the shipped specs are neither."""

import re
import string
import struct
from pathlib import Path
from typing import Any

import pytest
from captcha.image import DEFAULT_FONTS
from conftest import ROOT, Project
from test_drawing import find_table, overwrite

from captcha_registry.dataset.spec import DatasetSpec, SplitRule
from captcha_registry.errors import UserError
from captcha_registry.generation.drawing import Drawer
from captcha_registry.generation.legibility import check_legibility
from captcha_registry.params import ParamsError, load_section, parse_section
from stages import generate as generate_stage

ALNUM = "0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZ"
PLAIN = {"alphabet": ALNUM, "length": 4, "width": 128, "height": 64, "count": 10, "shard_size": 5, "seed": 1}

Changes = dict[str, Any]


def make_spec(**changes: Any) -> DatasetSpec:
    return parse_section(DatasetSpec, PLAIN | changes, "params.yaml: datasets.tiny")


def between(low: int, high: int) -> dict[str, int]:
    return {"min": low, "max": high}


@pytest.mark.parametrize("name", ["digits", "alnum"])
def test_nothing_is_said_of_the_shipped_specs(name: str) -> None:
    assert check_legibility(Drawer(load_section(DatasetSpec, f"datasets.{name}", ROOT / "params.yaml"))) == []


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        pytest.param({"ink": between(0, 0)}, r"text cannot be seen in 100% of the pictures, .* darker its ink", id="black ink"),
        pytest.param({"ink": between(0, 6)}, r"text cannot be seen in \d+% of the pictures", id="nearly black ink"),
        pytest.param({"ink": between(238, 255)}, r"text cannot be seen in \d+% .* nearer to the background", id="ink as ground"),
        pytest.param(
            {"ink": between(30, 30), "background": between(25, 35)}, r"text cannot be seen in 100%", id="dark ink on dark ground"
        ),
        pytest.param({"height": 16}, r"at font size 56 characters are 61 pixels high, and the pictures 16", id="low picture"),
        pytest.param({"font_sizes": [42, 400]}, r"at font size 400 characters are \d+ pixels high", id="a size of two"),
        pytest.param({"width": 16, "length": 16}, r"16 characters with blanks .* on 16 pixels have 0.7 pixels", id="narrow"),
        pytest.param(
            {"width": 32, "length": between(1, 16)}, r"16 characters .* on 32 pixels have 1.3", id="narrow for the longest"
        ),
        pytest.param({"dots": 10_000}, r"`dots: 10000` and `curves: 1` cover 100% of a picture", id="dots"),
        pytest.param({"width": 16, "height": 64, "length": 1, "dots": 60, "curves": 100}, r"cover \d+% of a picture", id="both"),
    ],
)
def test_a_spec_whose_pictures_nobody_can_read_is_refused(changes: Changes, message: str) -> None:
    with pytest.raises(UserError, match=message):
        check_legibility(Drawer(make_spec(**changes)))


def test_letters_whose_cases_look_alike_are_named() -> None:
    """All characters are stretched to one height."""
    (warning,) = check_legibility(Drawer(make_spec(alphabet=string.ascii_letters)))
    pairs = "c and C, o and O, s and S, u and U, v and V and 3 more pairs"
    assert warning == f"{pairs} look almost the same in the font of `captcha`: leave one of each out of `alphabet`"
    assert check_legibility(Drawer(make_spec(alphabet="abdefghijklmnpqrty" + string.ascii_uppercase))) == []


def test_characters_that_become_blocks_are_named() -> None:
    (warning,) = check_legibility(Drawer(make_spec(alphabet="AB-.")))
    assert warning.startswith("- . in the font of `captcha` become filled blocks, as characters are stretched")


HARD = [
    pytest.param({"ink": between(0, 20)}, r"the text can hardly be seen in \d\d% of the pictures", id="some dark ink"),
    pytest.param(
        {"ink": between(0, 255)}, r"the text can hardly be seen in 0\.\d% of the pictures", id="few dark and light ones"
    ),
    pytest.param({"background": between(0, 30)}, r"`ink: {min: 100, max: 255}` can be seen on this background", id="dark ground"),
    pytest.param({"background": between(90, 140)}, r"take `ink: {min: 10, max: 200}` and `background: {min: 238", id="grey"),
    pytest.param({"height": 40}, r"61 pixels high, and the pictures 40: raise `height` to 61, or take", id="low picture"),
    pytest.param({"length": 16}, r"have 5.3 pixels of width each: raise `width` to 240, or lower `length`", id="narrow"),
    pytest.param({"length": 6, "width": 60}, r"have 6.7 pixels of width each: raise `width` to 90, or", id="narrow for blanks"),
    pytest.param({"font_sizes": [8]}, r"at font size 8 characters are 6 pixels wide: take larger `font_sizes`", id="small font"),
    pytest.param({"dots": 600}, r"cover 4\d% of a picture, and so of its text: take `dots: 150` and `curves: 1`", id="dots"),
    pytest.param(
        {"width": 60, "height": 26, "font_sizes": [18]}, r"cover 1\d% .*: take `dots: 15` and `curves: 1`", id="small characters"
    ),
    pytest.param({"curves": 100}, r"cover \d\d% of a picture, .*: take `dots: 15` and `curves: 50`", id="curves"),
]


@pytest.mark.parametrize(("changes", "message"), HARD)
def test_what_is_hard_to_read_is_said_in_a_line(changes: Changes, message: str) -> None:
    (warning,) = check_legibility(Drawer(make_spec(**changes)))
    assert re.search(message, warning)
    assert "\n" not in warning


@pytest.mark.parametrize(("changes", "message"), HARD)
def test_after_what_a_warning_advises_nothing_is_left_to_say(changes: Changes, message: str) -> None:
    (warning,) = check_legibility(Drawer(make_spec(**changes)))
    assert re.search(message, warning)
    advised = {
        name: between(int(low), int(high)) for name, low, high in re.findall(r"`(\w+): {min: (\d+), max: (\d+)}`", warning)
    }
    advised |= {name: int(value) for name, value in re.findall(r"take .*`(dots): (\d+)` and", warning)}
    advised |= {name: int(value) for name, value in re.findall(r"`(curves): (\d+)`$", warning)}
    advised |= {name: int(value) for name, value in re.findall(r"raise `(\w+)` to (\d+)", warning)}
    advised |= {"font_sizes": [42]} if warning.endswith("take larger `font_sizes`") else {}
    assert advised
    assert check_legibility(Drawer(make_spec(**changes | advised))) == []


def make_font(glyphs: dict[str, int]) -> bytes:
    """Make a font that shows the glyphs of these numbers, from the space up to the last of the characters, and nothing else."""
    font, codes = Path(DEFAULT_FONTS[0]).read_bytes(), range(ord(" "), ord(max(glyphs)) + 1)
    # As `keep_only_digits` in test_drawing.
    numbers = [glyphs.get(chr(code), 0) for code in codes]
    table = struct.pack(f">5H{len(codes)}H", 6, 10 + 2 * len(codes), 0, codes.start, len(codes), *numbers)
    return overwrite(font, find_table(font, b"cmap"), struct.pack(">HHHHI", 0, 1, 3, 1, 12) + table)


SPACE, ZERO = 3, 19
DIGITS = {str(digit): ZERO + digit for digit in range(10)}


def test_characters_that_a_font_shows_alike_are_refused() -> None:
    same = make_font({" ": SPACE, **DIGITS, "7": ZERO + 1})
    drawer = Drawer(make_spec(alphabet="0123456789", fonts=["same.ttf"]), (same,))
    drawer.check_fonts()
    with pytest.raises(UserError, match=r"1 and 7 look the same in same\.ttf: leave one of each out of `alphabet`"):
        check_legibility(drawer)
    assert check_legibility(Drawer(make_spec(alphabet="012345689", fonts=["same.ttf"]), (same,))) == []


def test_characters_that_one_font_of_two_shows_alike_are_said() -> None:
    files = (make_font({" ": SPACE, **DIGITS}), make_font({" ": SPACE, **DIGITS, "7": ZERO + 1}))
    (warning,) = check_legibility(Drawer(make_spec(alphabet="0123456789", fonts=["good.ttf", "same.ttf"]), files))
    assert warning == "1 and 7 look almost the same in same.ttf: leave one of each out of `alphabet`"


def test_characters_that_become_the_same_block_are_refused() -> None:
    # A bar below the line and one in it, both solid.
    font = make_font({" ": SPACE, **DIGITS, "1": 66, "7": 113})
    with pytest.raises(UserError, match=r"^1 7 all become the same filled block in bars\.ttf, .*: leave all but one of them out"):
        check_legibility(Drawer(make_spec(alphabet="0123456789", fonts=["bars.ttf"]), (font,)))
    (warning,) = check_legibility(Drawer(make_spec(alphabet="012345689", fonts=["bars.ttf"]), (font,)))
    assert warning.startswith("1 in bars.ttf become filled blocks")
    files = (make_font({" ": SPACE, **DIGITS}), font)
    (warning,) = check_legibility(Drawer(make_spec(alphabet="0123456789", fonts=["good.ttf", "bars.ttf"]), files))
    assert warning.startswith("1 7 in bars.ttf become filled blocks")


def test_a_font_without_a_space_is_said() -> None:
    (warning,) = check_legibility(Drawer(make_spec(alphabet="0123456789", fonts=["digits.ttf"]), (make_font(DIGITS),)))
    assert warning == "digits.ttf has no space, and shows another character where one is drawn: use another font"


def test_generate_refuses_what_nobody_can_read_and_writes_nothing(
    project: Project, shard_rule: SplitRule, monkeypatch: pytest.MonkeyPatch
) -> None:
    project.write_params(datasets={"tiny": PLAIN | {"ink": between(0, 0)}}, split=shard_rule.model_dump())
    monkeypatch.chdir(project.root)
    with pytest.raises(ParamsError, match=r"^params\.yaml: datasets\.tiny: the text cannot be seen in 100% of the pictures"):
        generate_stage.main("tiny", 1, None)
    assert project.list_files() == {"params.yaml"}


def test_what_draws_to_a_url_says_what_the_check_of_the_pipeline_would(
    project: Project, shard_rule: SplitRule, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    specs = {"tiny": PLAIN | {"height": 40}, "A: b": PLAIN, "other": PLAIN | {"fonts": ["missing.ttf"]}}
    project.write_params(datasets=specs, split=shard_rule.model_dump())
    monkeypatch.chdir(project.root)
    generate_stage.main("tiny", 1, str(tmp_path / "tiny"))
    assert capsys.readouterr().err.startswith(
        "warning: params.yaml: datasets.tiny: at font size 56 characters are 61 pixels high"
    )
    for name, message in (
        ("A: b", r"^params\.yaml: the name 'A: b' is not allowed; expected text of a-z, 0-9"),
        ("other", r"^params\.yaml: datasets\.other: fonts names 'missing\.ttf'"),
    ):
        with pytest.raises(ParamsError, match=message):
            generate_stage.main(name, 1, str(tmp_path / "other"))
    assert not (tmp_path / "other").exists()
