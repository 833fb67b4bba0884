"""Every random choice of a sample has a name; the sample can be drawn again with any of them, and nothing else, replaced."""

from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
from PIL import ImageFont

from captcha_registry.dataset.dataset import CaptchaDataset
from captcha_registry.dataset.spec import ChannelRange, DatasetSpec, LengthRange
from captcha_registry.errors import UserError
from captcha_registry.generation.drawing import Choices, Drawer, Sketch, describe_pixels, sample_stream
from captcha_registry.generation.redrawing import CAUSES, OPAQUE_LUMINANCE, Cause, Redrawing
from captcha_registry.generation.tape import Tape, number_of

STOCK = DatasetSpec(alphabet="0O1IW", length=4, width=128, height=64, count=9, shard_size=9, seed=3, dots=4, curves=2)
CLASSIC = STOCK.model_copy(update={"style": "classic", "length": LengthRange(min=1, max=6), "dots": 0})
PROPORTIONAL = STOCK.model_copy(update={"fonts": ("aileron.ttf",), "font_sizes": (30,)})
SPECS = [STOCK, CLASSIC, CLASSIC.model_copy(update={"dots": 30, "curves": 0, "font_sizes": (20,)})]


def make_drawer(spec: DatasetSpec) -> Drawer:
    return Drawer(spec, tuple(ImageFont.load_default(20).path.getvalue() for _ in spec.fonts))


def sketch(spec: DatasetSpec, tape: Tape) -> Sketch:
    return make_drawer(spec).choose(Choices(tape.play()), spec.alphabet)


def find_differences(value: Any, other: Any, where: str = "") -> Iterator[str]:
    """Yield where two sketches differ, such as `glyphs.1.left`."""
    if isinstance(value, np.ndarray):
        yield from () if np.array_equal(value, other) else (where,)
    elif isinstance(value, tuple | list):
        names = getattr(value, "_fields", range(len(value)))
        for name, one, another in zip(names, value, other, strict=True):
            yield from find_differences(one, another, f"{where}.{name}".lstrip("."))
    elif value != other:
        yield where


@pytest.mark.parametrize("spec", SPECS, ids=["stock", "classic", "dots only"])
def test_a_tape_has_the_numbers_that_a_sample_is_drawn_with_and_no_more(spec: DatasetSpec) -> None:
    drawer = Drawer(spec)
    for sample_id in range(20):
        tape, stream = Tape.record(spec, sample_id), sample_stream(spec.seed, sample_id)
        assert list(tape.numbers.values()) == [stream.random() for _ in tape.numbers]
        playing = tape.play()
        assert np.array_equal(drawer.draw_from(playing, spec.alphabet).pixels, drawer.draw(sample_id).pixels)
        with pytest.raises(StopIteration):
            playing.random()


def find_sample(spec: DatasetSpec, **numbers: bool) -> Tape:
    """Find a sample with a blank before some characters and none before others."""
    for sample_id in range(200):
        tape = Tape.record(spec, sample_id)
        if all((tape.numbers[f"blank[{name[1:]}]"] > 0.5) == is_there for name, is_there in numbers.items()):
            return tape
    raise AssertionError


# Blanks before characters 1 and 2: glyph 0, blank, 1, blank, 2, 3.
MOVED = {
    "text[1]": {"label", "glyphs.2.mask"},
    "background.green": {"background.1"},
    "ink.alpha": {"ink.3"},
    "ink.blue": {"ink.2"},
    "rotation[2]": {"glyphs.4.cosine", "glyphs.4.sine"},
    "warp[0].reach_x": {"glyphs.0.corners.0", "glyphs.0.corners.2"},
    "warp[0].reach_y": {"glyphs.0.corners.1", "glyphs.0.corners.3"},
    "warp[3].x1": {"glyphs.5.corners.0"},
    "warp[3].y1": {"glyphs.5.corners.1"},
    "warp[3].x2": {"glyphs.5.corners.2"},
    "warp[3].y2": {"glyphs.5.corners.3"},
    "overlap[2]": {"glyphs.5.left"},
    "blank_overlap[1]": {f"glyphs.{n}.left" for n in range(2, 6)},
    "blank_rotation[1]": {"glyphs.1.cosine", "glyphs.1.sine"},
    "offset[1].x": set(),
    "dot[3].x": {"noise.dots.3.0"},
    "dot[3].y": {"noise.dots.3.1"},
    "curve[1].x1": {"noise.curves.1.0"},
    "curve[1].x2": {"noise.curves.1.2"},
    "curve[1].y2": {"noise.curves.1.3"},
    "curve[1].end": {"noise.curves.1.5"},
    "curve[1].start": {"noise.curves.1.4"},
}


@pytest.mark.parametrize(("name", "expected"), MOVED.items(), ids=MOVED)
def test_a_number_changes_what_its_name_says_and_nothing_else(name: str, expected: set[str]) -> None:
    spec = STOCK.model_copy(update={"font_sizes": (50,), "alphabet": "0O", "style": "classic"})
    tape = find_sample(spec, n0=False, n1=True, n2=True, n3=False)
    # Corners that hardly move do not show by how much they may.
    tape = tape.replace({f"warp[0].{corner}": 0.1 for corner in ("x1", "y1", "x2", "y2")})
    changed = tape.replace({name: 0.01 if tape.numbers[name] > 0.5 else 0.99})
    assert set(find_differences(sketch(spec, tape), sketch(spec, changed))) == expected


def test_a_font_changes_a_character_and_the_places_of_those_that_follow() -> None:
    tape = Tape.record(STOCK, 0).replace({"font[2]": number_of(0, 3)})
    larger = tape.replace({"font[2]": number_of(2, 3)})
    (before, after), place = (sketch(STOCK, one) for one in (tape, larger)), 2 + int((np.array(blanks_of(tape)[:3])).sum())
    assert after.glyphs[place].height > before.glyphs[place].height
    assert after.noise == before.noise
    assert len({len(one.glyphs) for one in (before, after)}) == 1


def blanks_of(tape: Tape) -> list[bool]:
    return [number > 0.5 for name, number in tape.numbers.items() if name.startswith("blank[")]


def test_a_blank_or_a_character_more_or_less_leaves_all_other_choices_as_they_were() -> None:
    tape = find_sample(STOCK, n0=False, n1=True)
    replaced = dict(tape.replace({"blank[0]": 0.9, "blank[1]": 0.1}))
    assert replaced["blank_rotation[0]"] == 0.5
    assert "blank_rotation[1]" not in replaced
    assert {name: number for name, number in replaced.items() if "blank" not in name} == {
        name: number for name, number in tape.numbers.items() if "blank" not in name
    }
    longer = Tape.record(CLASSIC, 0).replace({"length": 0.99})
    assert len(sketch(CLASSIC, longer).label) == 6
    assert sketch(CLASSIC, longer).noise == sketch(CLASSIC, Tape.record(CLASSIC, 0)).noise


def test_names_and_numbers_that_choose_nothing_are_refused() -> None:
    tape = Tape.record(STOCK, 0)
    with pytest.raises(UserError, match=r"nothing of this sample is chosen by 'txt\[0\]'; its choices are text\[0\], text\[1\]"):
        tape.replace({"txt[0]": 0.5})
    for number in (1.0, -0.1, float("nan")):
        with pytest.raises(UserError, match=r"rotation\[0\] is .*; expected a number from 0 up to 1"):
            tape.replace({"rotation[0]": number})


def test_every_choice_of_many_can_be_named_by_a_number() -> None:
    assert all(int(number_of(choice, num) * num) == choice for num in range(1, 300) for choice in range(num))


def test_a_sample_drawn_again_with_its_own_text_has_the_pixels_of_the_index(generated_dataset: CaptchaDataset) -> None:
    drawer = Drawer(generated_dataset.manifest.spec)
    for row in generated_dataset.index.to_pylist():
        again = Redrawing(drawer, row["id"])
        for drawn in (again.draw(), again.draw_pair(row["label"])):
            assert describe_pixels(drawn).items() <= row.items()


@pytest.mark.parametrize("spec", [STOCK, PROPORTIONAL], ids=["one width", "many widths"])
def test_a_pair_has_another_character_and_all_else_in_its_place(spec: DatasetSpec) -> None:
    drawer = make_drawer(spec)
    for sample_id in range(20):
        again = Redrawing(drawer, sample_id)
        sample = again.draw()
        place = sample_id % 4
        text = sample.label[:place] + ("I" if sample.label[place] == "W" else "W") + sample.label[place + 1 :]
        pair = again.draw_pair(text)
        assert (pair.label, pair.ink, pair.background) == (text, sample.ink, sample.background)
        differs = np.flatnonzero((pair.pixels != sample.pixels).any(axis=(0, 2)))
        # The wider of both starts where the other did; pressing and smoothing spread it.
        glyph = again.sketch.glyphs[place + sum(blanks_of(again.tape)[: place + 1])]
        pressed = spec.width / again.sketch.width
        widest = max(width for (_, _, width, _) in drawer._boxes.values())  # noqa: SLF001 - the cells of all characters
        assert len(differs) > 0
        assert glyph.left * pressed - 3 <= differs.min()
        assert differs.max() <= (glyph.left + widest) * pressed + 3


def test_only_a_text_of_the_same_length_and_alphabet_makes_a_pair() -> None:
    again = Redrawing(Drawer(STOCK), 0)
    assert [again.can_show(text) for text in ("0O1I", "0O1", "0O1IW", "0O1A", "")] == [True, False, False, False, False]


def redraw(spec: DatasetSpec, cause: Cause, sample_id: int) -> bytes:
    return Redrawing(Drawer(spec), sample_id).draw_without(cause).pixels.tobytes()


def draw_with(spec: DatasetSpec, sample_id: int, number: float, *starts: str) -> bytes:
    """Draw a sample whose choices with such names have another number."""
    tape = Tape.record(spec, sample_id)
    replaced = tape.replace({name: number for name in tape.numbers if name.startswith(starts)})
    return Drawer(spec).draw_from(replaced.play(), spec.alphabet).pixels.tobytes()


@pytest.mark.parametrize("style", ["stock", "classic"])
def test_without_rotation_or_warp_a_sample_is_what_captcha_draws_with_the_numbers_for_none(style: str) -> None:
    spec = STOCK.model_copy(update={"style": style})
    corners = [f"warp[{n}].{corner}" for n in range(4) for corner in ("x1", "x2", "y1", "y2")]
    for sample_id in range(10):
        assert redraw(spec, "rotation", sample_id) == draw_with(spec, sample_id, 0.5, "rotation")
        assert redraw(spec, "warp", sample_id) == draw_with(spec, sample_id, 0.5, *corners)


def test_without_dots_or_curves_a_sample_is_that_of_a_spec_without_them() -> None:
    no_curves, no_dots = STOCK.model_copy(update={"curves": 0}), STOCK.model_copy(update={"dots": 0})
    bare = STOCK.model_copy(update={"curves": 0, "dots": 0})
    for sample_id in range(10):
        assert redraw(STOCK, "curve", sample_id) == Drawer(no_curves).draw(sample_id).pixels.tobytes()
        assert redraw(no_curves, "dots", sample_id) == Drawer(bare).draw(sample_id).pixels.tobytes()
        assert redraw(no_dots, "dots", sample_id) == Drawer(no_dots).draw(sample_id).pixels.tobytes()
        again = Redrawing(Drawer(STOCK), sample_id)
        assert again._sketch_without("dots").noise == ([], again.sketch.noise.curves)  # noqa: SLF001 - the curves stay


def test_by_chance_only_the_dots_move() -> None:
    no_dots = STOCK.model_copy(update={"dots": 0})
    assert redraw(no_dots, "chance", 1) == Drawer(no_dots).draw(1).pixels.tobytes()
    again = Redrawing(Drawer(STOCK), 1)
    moved = again._sketch_without("chance")  # noqa: SLF001 - what is painted
    assert moved._replace(noise=again.sketch.noise) == again.sketch
    assert moved.noise.curves == again.sketch.noise.curves
    assert len(moved.noise.dots) == len(again.sketch.noise.dots)
    assert not set(map(tuple, moved.noise.dots)) & set(map(tuple, again.sketch.noise.dots))


@pytest.mark.parametrize("sizes", [(42, 50, 56), (20,), (70, 30, 90)], ids=str)
def test_without_squeeze_a_text_fits_the_picture_in_the_largest_sizes_that_do(sizes: tuple[int, ...]) -> None:
    spec = STOCK.model_copy(update={"font_sizes": sizes})
    num_squeezed = 0
    for sample_id in range(30):
        again = Redrawing(Drawer(spec), sample_id)
        is_squeezed = again.sketch.width > spec.width
        num_squeezed += is_squeezed
        narrower = again._sketch_without("squeeze")  # noqa: SLF001 - what is painted
        assert narrower.width == spec.width
        assert (narrower.label, narrower.ink, narrower.noise) == (again.sketch.label, again.sketch.ink, again.sketch.noise)
        if not is_squeezed:
            assert not list(find_differences(again.sketch, narrower))
        else:
            assert len(narrower.glyphs) == 4
            assert all(glyph.cosine in {other.cosine for other in again.sketch.glyphs} for glyph in narrower.glyphs)
    assert num_squeezed == 0 if sizes == (20,) else num_squeezed > 5


def test_a_text_that_fits_in_no_size_is_drawn_in_the_smallest() -> None:
    spec = STOCK.model_copy(update={"length": 12})
    narrowest = Redrawing(Drawer(spec), 0)._sketch_without("squeeze")  # noqa: SLF001 - what is painted
    assert 12 * 25 <= narrowest.width <= 12 * 27


@pytest.mark.parametrize(
    "ink", [ChannelRange(min=10, max=200), ChannelRange(min=0, max=90), ChannelRange(min=180, max=255)], ids=str
)
def test_in_full_ink_text_is_as_opaque_as_the_spec_allows_and_no_channel_darker(ink: ChannelRange) -> None:
    spec = STOCK.model_copy(update={"ink": ink})
    for sample_id in range(30):
        again = Redrawing(Drawer(spec), sample_id)
        before, after = again.draw(), again.draw_without("ink")
        full = min(ink.max, OPAQUE_LUMINANCE)
        luminance = describe_pixels(after)["ink_luminance"]
        assert luminance >= full
        assert all(one <= other <= ink.max for one, other in zip(before.ink, after.ink, strict=True))
        assert before.ink == after.ink or luminance <= full + 1
        assert after.background == before.background


def test_causes_are_told_apart() -> None:
    # Dark ink, and blanks, so that each of them has something to take away.
    spec = STOCK.model_copy(update={"ink": ChannelRange(min=10, max=200), "dots": 30})
    dark = next(n for n in range(99) if max(Drawer(spec).draw(n).ink) < 90 and Redrawing(Drawer(spec), n).sketch.width > 170)
    assert len({redraw(spec, cause, dark) for cause in CAUSES} | {Drawer(spec).draw(dark).pixels.tobytes()}) == len(CAUSES) + 1
