"""A picture follows from the spec and the sample's id alone, and is to the pixel the one that `captcha` would draw."""

import ast
import hashlib
import inspect
import json
import math
import os
import pickle
import random
import secrets
import struct
import subprocess
import sys
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, Protocol

import captcha.image
import numpy as np
import numpy.typing as npt
import pytest
from captcha.image import DEFAULT_FONTS, ImageCaptcha
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image, ImageDraw, ImageFont

from captcha_registry.dataset.spec import ChannelRange, DatasetSpec, LengthRange
from captcha_registry.errors import UserError
from captcha_registry.generation import drawing
from captcha_registry.generation.drawing import Captcha, Drawer, describe_pixels, hash_fonts, read_fonts
from captcha_registry.generation.pixels import PlacedGlyph
from captcha_registry.generation.png import encode_png

PRINTABLE = "".join(chr(code) for code in range(ord("!"), ord("~") + 1))
WIDE = DatasetSpec(alphabet=PRINTABLE, length=4, width=160, height=60, count=1000, shard_size=100, seed=5)

# Files of the folder `font_dir`: what comes with `captcha`, what comes with Pillow, and letters that jut out above their line.
FONTS = ("droid.ttf", "aileron.ttf", "tall.ttf")

Floats = npt.NDArray[np.float64]


def with_changes(spec: DatasetSpec, **changes: Any) -> DatasetSpec:
    return DatasetSpec.model_validate(dict(spec) | changes)


def find_table(font: bytes, tag: bytes) -> int:
    """Return where a table of a TrueType file starts."""
    (num_tables,) = struct.unpack_from(">H", font, 4)
    entries = [struct.unpack_from(">4sIII", font, 12 + 16 * n) for n in range(num_tables)]
    return next(offset for name, _, offset, _ in entries if name == tag)


def overwrite(data: bytes, offset: int, new: bytes) -> bytes:
    return data[:offset] + new + data[offset + len(new) :]


@pytest.fixture(scope="session")
def font_dir(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("fonts")
    aileron = ImageFont.load_default(20).path.getvalue()
    # The ascender, the second field of the table after its version.
    ascender_at = find_table(aileron, b"hhea") + 4
    (ascender,) = struct.unpack_from(">h", aileron, ascender_at)
    tall = overwrite(aileron, ascender_at, struct.pack(">h", ascender * 2 // 3))
    for name, file in zip(FONTS, (Path(DEFAULT_FONTS[0]).read_bytes(), aileron, tall), strict=True):
        (folder / name).write_bytes(file)
    return folder


def make_drawer(spec: DatasetSpec, font_dir: Path) -> Drawer:
    return Drawer(spec, read_fonts(spec, font_dir))


class Stream(Protocol):
    def random(self) -> float: ...


def make_stream(seed: int, sample_id: int) -> random.Random:
    """Key the random numbers of a sample as the module's docstring promises."""
    key = hashlib.blake2b(f"{seed}/{sample_id}".encode(), digest_size=16).digest()
    return random.Random(int.from_bytes(key, "little"))  # noqa: S311 - pictures, not secrets


class Replay:
    """What `captcha` uses of `secrets`, out of a stream of floats from 0 to 1."""

    def __init__(self, stream: Stream) -> None:
        self.stream = stream

    def randbelow(self, bound: int) -> int:
        return int(self.stream.random() * bound)

    def randbits(self, num_bits: int) -> int:
        return self.randbelow(2**num_bits)

    def choice(self, items: Sequence[Any]) -> Any:
        return items[self.randbelow(len(items))]

    def draw_label(self, spec: DatasetSpec) -> str:
        variable = spec.min_length < spec.max_length
        length = spec.min_length + (self.randbelow(spec.max_length - spec.min_length + 1) if variable else 0)
        return "".join(self.choice(spec.alphabet) for _ in range(length))


def list_fonts(spec: DatasetSpec, font_dir: Path) -> list[str]:
    return [str(font_dir / name) for name in spec.fonts]


def make_stock_captcha(spec: DatasetSpec, font_dir: Path) -> ImageCaptcha:
    return ImageCaptcha(spec.width, spec.height, list_fonts(spec, font_dir), spec.font_sizes)


class ToldCaptcha(ImageCaptcha):
    """`captcha` with the numbers of a spec in place of 30 dots and one curve."""

    def __init__(self, spec: DatasetSpec, font_dir: Path) -> None:
        super().__init__(spec.width, spec.height, list_fonts(spec, font_dir), spec.font_sizes)
        self.spec = spec

    def create_noise_dots(self, image: Image.Image, color: tuple[int, ...]) -> None:
        super().create_noise_dots(image, color, number=self.spec.dots)

    def create_noise_curve(self, image: Image.Image, color: tuple[int, ...]) -> None:
        for _ in range(self.spec.curves):
            super().create_noise_curve(image, color)


class ClassicCaptcha(ToldCaptcha):
    """`captcha` with the warp and the curve that it had before 0.7.1."""

    def create_noise_curve(self, image: Image.Image, color: tuple[int, ...]) -> None:
        width, height = image.size
        for _ in range(self.spec.curves):
            x1 = choose_between(0, width // 5)
            x2 = choose_between(width - width // 5, width)
            y1 = choose_between(height // 5, height - height // 5)
            y2 = choose_between(y1, height - height // 5)
            end, start = choose_between(160, 200), choose_between(0, 20)
            ImageDraw.Draw(image).arc([x1, y1, x2, y2], start, end, fill=color)

    def _draw_character(self, c: str, draw: ImageDraw.ImageDraw, color: tuple[int, ...]) -> Image.Image:
        font = captcha.image.secrets.choice(self.truefonts)
        _, _, width, height = draw.multiline_textbbox((1, 1), c, font=font)
        x, y = choose_between(0, 4), choose_between(0, 6)
        glyph = Image.new("RGBA", (width + x, height + y))
        ImageDraw.Draw(glyph).text((x, y), c, font=font, fill=color)
        glyph = glyph.crop(glyph.getbbox()).rotate(choose_uniformly(-30, 30), Image.Resampling.BILINEAR, expand=True)

        reach_x, reach_y = width * choose_uniformly(0.1, 0.3), height * choose_uniformly(0.2, 0.3)
        x1, y1, x2, y2 = (int(choose_uniformly(-reach, reach)) for reach in (reach_x, reach_y, reach_x, reach_y))
        wide, high = width + abs(x1) + abs(x2), height + abs(y1) + abs(y2)
        corners = (x1, y1, -x1, high - y2, wide + x2, high + y2, wide - x2, -y1)
        return glyph.resize((wide, high)).transform((width, height), Image.Transform.QUAD, corners)


def choose_between(low: int, high: int) -> int:
    return low + captcha.image.secrets.randbelow(high - low + 1)


def choose_uniformly(low: float, high: float) -> float:
    return low + (high - low) * (captcha.image.secrets.randbits(32) / 2**32)


def make_colour_chooser(spec: DatasetSpec) -> Callable[..., tuple[int, ...]]:
    """Make `captcha.image.random_color` choose from the ranges of a spec."""
    choose, ranges = captcha.image.random_color, {(238, 255): spec.background, (10, 200): spec.ink}

    def choose_colour(start: int, end: int, opacity: int | None = None) -> tuple[int, ...]:
        channels = ranges[start, end]
        return choose(channels.min, channels.max, opacity)

    return choose_colour


def draw_as_captcha_does(reference: ImageCaptcha, spec: DatasetSpec, stream: Stream) -> tuple[str, npt.NDArray[np.uint8]]:
    replay = Replay(stream)
    label = replay.draw_label(spec)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(captcha.image, "secrets", replay)
        if not isinstance(reference, ToldCaptcha):
            return label, np.asarray(reference.generate_image(label))
        patch.setattr(captcha.image, "random_color", make_colour_chooser(spec))
        return label, np.asarray(reference.generate_image(label))


def assert_equal_to_captcha(reference: ImageCaptcha, drawer: Drawer, sample_id: int) -> None:
    label, pixels = draw_as_captcha_does(reference, drawer.spec, make_stream(drawer.spec.seed, sample_id))
    assert_same_picture(drawer.draw(sample_id), label, pixels, f"sample {sample_id} of {drawer.spec!r}")


def assert_same_picture(drawn: Captcha, label: str, pixels: npt.NDArray[np.uint8], name: str) -> None:
    assert drawn.label == label, name
    assert drawn.pixels.shape == pixels.shape, name
    assert not (num := np.count_nonzero((drawn.pixels != pixels).any(axis=2))), f"{num} pixels differ: {name}"


def choose_spec(numbers: random.Random, **changes: Any) -> DatasetSpec:
    """Choose a spec in the style and with the colours, dots and curve of `captcha`."""
    fixed, low = numbers.randint(1, 16), numbers.randint(1, 16)
    largest = numbers.choice((32, 160, 160, 300))
    sections = {
        "alphabet": "".join(numbers.sample(PRINTABLE, numbers.randint(2, len(PRINTABLE)))),
        "length": numbers.choice((fixed, LengthRange(min=low, max=numbers.randint(low, 16)))),
        "width": numbers.randint(16, largest),
        "height": numbers.randint(16, largest),
        "seed": numbers.randrange(2**63),
        "fonts": numbers.choice(((), (), FONTS[1:2], FONTS[2:], FONTS)),
        "font_sizes": tuple(numbers.randint(8, numbers.choice((20, 60, 120))) for _ in range(numbers.randint(1, 4))),
    }
    return with_changes(WIDE, **sections | changes)


def choose_free_spec(numbers: random.Random, style: str) -> DatasetSpec:
    """Choose a spec in which nothing needs to be as `captcha` has it."""
    ink, background = choose_channels(numbers), choose_channels(numbers)
    dots, curves = numbers.choice((0, 1, 30, 200)), numbers.choice((0, 1, 2, 5))
    return choose_spec(numbers, style=style, ink=ink, background=background, dots=dots, curves=curves)


def choose_channels(numbers: random.Random) -> ChannelRange:
    low = numbers.choice((0, 255, numbers.randint(0, 255)))
    return ChannelRange(min=low, max=numbers.randint(low, 255))


def choose_specs(chunk: int, num: int, choose: Callable[[random.Random], DatasetSpec]) -> Iterator[tuple[DatasetSpec, int]]:
    """Yield specs, and a sample id for each."""
    numbers = random.Random(chunk)  # noqa: S311 - pictures, not secrets
    for _ in range(num):
        yield choose(numbers), numbers.choice((0, 1, 10**9 - 1, numbers.randrange(10**9)))


def test_captcha_takes_random_numbers_from_its_global_secrets_only() -> None:
    tree = ast.parse(inspect.getsource(captcha.image))
    imported = {alias.name for node in ast.walk(tree) if isinstance(node, ast.Import) for alias in node.names}
    imported |= {node.module or "" for node in ast.walk(tree) if isinstance(node, ast.ImportFrom)}
    pillow = {"PIL.Image", "PIL.ImageDraw", "PIL.ImageFilter", "PIL.ImageFont"}
    assert imported <= {"__future__", "io", "os", "secrets", "typing"} | pillow
    assert names_used_of("secrets", tree) == {"choice", "randbelow", "randbits"}
    assert names_used_of("os", tree) == {"path"}
    assert captcha.image.secrets is secrets


def names_used_of(module: str, tree: ast.Module) -> set[str]:
    attributes = [node for node in ast.walk(tree) if isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name)]
    return {node.attr for node in attributes if node.value.id == module}


@pytest.mark.parametrize("chunk", [*range(4), *(pytest.param(chunk, marks=pytest.mark.thorough) for chunk in range(4, 8))])
def test_a_stock_picture_is_what_captcha_draws_with_the_same_random_numbers(chunk: int, font_dir: Path) -> None:
    for spec, sample_id in choose_specs(chunk, 250, choose_spec):
        assert_equal_to_captcha(make_stock_captcha(spec, font_dir), make_drawer(spec, font_dir), sample_id)


def test_sample_after_sample_is_what_captcha_draws(font_dir: Path) -> None:
    for spec in (WIDE, with_changes(WIDE, fonts=FONTS, length=LengthRange(min=2, max=6))):
        reference, drawer = make_stock_captcha(spec, font_dir), make_drawer(spec, font_dir)
        for sample_id in range(300):
            assert_equal_to_captcha(reference, drawer, sample_id)


@pytest.mark.parametrize("chunk", range(2))
def test_colours_dots_and_curves_are_as_many_and_as_bright_as_captcha_would_draw_them(chunk: int, font_dir: Path) -> None:
    for spec, sample_id in choose_specs(100 + chunk, 250, lambda numbers: choose_free_spec(numbers, "stock")):
        assert_equal_to_captcha(ToldCaptcha(spec, font_dir), make_drawer(spec, font_dir), sample_id)


@pytest.mark.parametrize("chunk", range(2))
def test_a_classic_picture_is_what_captcha_drew_before_it_lost_two_pairs_of_brackets(chunk: int, font_dir: Path) -> None:
    for spec, sample_id in choose_specs(200 + chunk, 250, lambda numbers: choose_free_spec(numbers, "classic")):
        assert_equal_to_captcha(ClassicCaptcha(spec, font_dir), make_drawer(spec, font_dir), sample_id)


class LoadedStream:
    """Random numbers, most of which are some that hardly ever come."""

    def __init__(self, seed: int, rare: tuple[float, ...]) -> None:
        self.numbers = random.Random(seed)  # noqa: S311 - pictures, not secrets
        self.rare = rare

    def random(self) -> float:
        return self.numbers.choice((*self.rare, self.numbers.random()))


def assert_equal_on_rare_numbers(
    reference: type[ToldCaptcha], rare: tuple[float, ...], font_dir: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    style = "classic" if reference is ClassicCaptcha else "stock"
    monkeypatch.setattr(drawing, "sample_stream", lambda seed, sample_id: LoadedStream(seed ^ sample_id, rare))
    for spec, sample_id in choose_specs(300, 150, lambda numbers: choose_free_spec(numbers, style)):
        stream = LoadedStream(spec.seed ^ sample_id, rare)
        label, pixels = draw_as_captcha_does(reference(spec, font_dir), spec, stream)
        drawn = make_drawer(spec, font_dir).draw(sample_id)
        assert_same_picture(drawn, label, pixels, f"sample {sample_id} of {spec!r} with {rare}")


@pytest.mark.parametrize("reference", [ToldCaptcha, ClassicCaptcha], ids=["stock", "classic"])
def test_choices_at_their_bounds_give_what_captcha_draws(
    reference: type[ToldCaptcha], font_dir: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert_equal_on_rare_numbers(reference, (0.0, math.nextafter(1.0, 0.0)), font_dir, monkeypatch)


def test_characters_that_stand_upright_are_what_captcha_draws(font_dir: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    # Half-way from -30 to 30 degrees: one character in 2^32.
    assert_equal_on_rare_numbers(ToldCaptcha, (0.5,), font_dir, monkeypatch)


def test_a_font_without_a_space_gives_what_captcha_draws(tmp_path: Path) -> None:
    (tmp_path / "digits.ttf").write_bytes(keep_only_digits(Path(DEFAULT_FONTS[0]).read_bytes()))
    spec = with_changes(WIDE, alphabet="0123456789", fonts=("digits.ttf",))
    drawer = make_drawer(spec, tmp_path)
    drawer.check_fonts()
    assert_equal_to_captcha(make_stock_captcha(spec, tmp_path), drawer, 0)


OBSERVED = with_changes(WIDE, length=8, width=128, height=64, dots=0, curves=4, style="classic")
NUM_OBSERVED = 2_500


def observe_choices(spec: DatasetSpec) -> tuple[list[PlacedGlyph], npt.NDArray[np.int64]]:
    """Return the characters of some thousand pictures, and x1, y1, x2, y2, start and end of their curves `(curves, 6)`."""
    glyphs: list[PlacedGlyph] = []
    arcs: list[tuple[int, ...]] = []
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(drawing, "paint_glyph", lambda _picture, glyph, _ink, _opacities: glyphs.append(glyph))
        patch.setattr(ImageDraw.ImageDraw, "arc", lambda _draw, box, start, end, fill: arcs.append((*box, start, end, fill)))
        drawer = Drawer(spec)
        for sample_id in range(NUM_OBSERVED):
            drawer.draw(sample_id)
    return glyphs, np.array(arcs)[:, :6]


def draw_old_corners(sizes: npt.NDArray[np.int64], low: float, high: float, repeats: int = 20) -> Floats:
    """Draw by how much the corners of characters of these sizes moved before 0.7.1, independently of ours."""
    numbers = np.random.default_rng(1)
    sizes = np.tile(sizes, repeats)
    reach = sizes * numbers.uniform(low, high, len(sizes))
    return np.trunc(numbers.uniform(-reach, reach))


def draw_old_curves(width: int, height: int, num: int = 200_000) -> npt.NDArray[np.int64]:
    """Draw x1, y1, x2, y2, start and end of curves as before 0.7.1, independently of ours."""
    numbers = np.random.default_rng(2)
    x1 = numbers.integers(0, width // 5, num, endpoint=True)
    x2 = numbers.integers(width - width // 5, width, num, endpoint=True)
    y1 = numbers.integers(height // 5, height - height // 5, num, endpoint=True)
    y2 = numbers.integers(y1, height - height // 5, endpoint=True)
    start, end = numbers.integers(0, 20, num, endpoint=True), numbers.integers(160, 200, num, endpoint=True)
    return np.stack([x1, y1, x2, y2, start, end], axis=1)


def measure_distance(some: npt.NDArray[Any], others: npt.NDArray[Any]) -> float:
    """Measure how far means and variances of two sets of numbers are apart, in standard errors; the larger of both."""
    means = abs(some.mean() - others.mean()) / math.hypot(error_of_mean(some), error_of_mean(others))
    variances = abs(some.var() - others.var()) / math.hypot(error_of_variance(some), error_of_variance(others))
    return float(max(means, variances))


def error_of_mean(numbers: npt.NDArray[Any]) -> float:
    return math.sqrt(numbers.var() / len(numbers))


def error_of_variance(numbers: npt.NDArray[Any]) -> float:
    fourth_moment = ((numbers - numbers.mean()) ** 4).mean()
    return math.sqrt((fourth_moment - numbers.var() ** 2) / len(numbers))


# Twenty comparisons of right numbers come 5 standard errors apart once in 100,000 times; the seeds here are fixed.
FAR = 5.0


def test_classic_characters_are_warped_as_much_as_before() -> None:
    glyphs, _ = observe_choices(OBSERVED)
    corners = np.array([glyph.corners for glyph in glyphs])
    for columns, sizes, low in (
        (corners[:, ::2], np.array([glyph.width for glyph in glyphs]), 0.1),
        (corners[:, 1::2], np.array([glyph.height for glyph in glyphs]), 0.2),
    ):
        expected = draw_old_corners(sizes, low, 0.3)
        for corner in columns.T:
            assert measure_distance(corner, expected) < FAR
            assert measure_distance(np.abs(corner), np.abs(expected)) < FAR
            shares = np.abs(corner) / sizes
            # One in 200 is above 0.27, of 20,000.
            assert 0.27 < shares.max() <= 0.3


def test_classic_curves_go_where_they_went_before() -> None:
    _, curves = observe_choices(OBSERVED)
    expected = draw_old_curves(OBSERVED.width, OBSERVED.height)
    for ours, theirs in zip(curves.T, expected.T, strict=True):
        assert measure_distance(ours, theirs) < FAR
        assert (ours.min(), ours.max()) == (theirs.min(), theirs.max())


def test_stock_characters_are_warped_less_and_stock_curves_end_anywhere() -> None:
    glyphs, curves = observe_choices(with_changes(OBSERVED, style="stock"))
    corners = np.array([glyph.corners for glyph in glyphs])
    for corner, sizes, low in (
        (corners[:, 0], np.array([glyph.width for glyph in glyphs]), 0.1),
        (corners[:, 1], np.array([glyph.height for glyph in glyphs]), 0.2),
    ):
        assert measure_distance(corner, expected := draw_old_corners(sizes, low, 0.3)) > FAR
        assert corner.var() < expected.var()
    expected_curves = draw_old_curves(OBSERVED.width, OBSERVED.height)
    far = [measure_distance(ours, theirs) > FAR for ours, theirs in zip(curves.T, expected_curves.T, strict=True)]
    assert far == [False, False, True, False, False, False]
    assert (curves[:, 2].min(), curves[:, 2].max()) == (OBSERVED.width // 5, OBSERVED.width)


@given(st.permutations(range(12)))
@settings(max_examples=10)
def test_a_sample_is_the_same_in_any_order_of_drawing(order: list[int]) -> None:
    small = with_changes(WIDE, width=48, height=32, style="classic")
    in_order = [(pixels_of(WIDE, n), pixels_of(small, n)) for n in range(12)]
    wide_drawer, small_drawer = Drawer(WIDE), Drawer(small)
    for sample_id in order:
        random.seed(0)
        in_this_order = wide_drawer.draw(sample_id).pixels.tobytes(), small_drawer.draw(sample_id).pixels.tobytes()
        assert in_this_order == in_order[sample_id]


def pixels_of(spec: DatasetSpec, sample_id: int) -> bytes:
    """Draw a sample with a drawer that has not drawn anything."""
    return Drawer(spec).draw(sample_id).pixels.tobytes()


def test_a_drawn_picture_stays_as_it_is_when_others_are_drawn() -> None:
    drawer = Drawer(WIDE)
    first = drawer.draw(0)
    before = first.pixels.copy()
    for sample_id in range(1, 20):
        drawer.draw(sample_id)
    assert np.array_equal(first.pixels, before)


def test_other_samples_and_other_seeds_give_other_pictures() -> None:
    drawers = [Drawer(with_changes(WIDE, seed=seed)) for seed in (5, 6, 50)]
    drawn = [drawer.draw(sample_id).pixels.tobytes() for drawer in drawers for sample_id in range(30)]
    assert len(set(drawn)) == len(drawn)


@pytest.mark.parametrize("change", [{"count": 7}, {"shard_size": 3}], ids=["count", "shard_size"])
def test_a_picture_does_not_depend_on_how_the_dataset_is_cut(change: dict[str, int]) -> None:
    assert pixels_of(WIDE, 3) == pixels_of(with_changes(WIDE, **change), 3)


def test_a_drawing_leaves_the_global_random_numbers_alone() -> None:
    before, numpy_before = random.getstate(), np.random.get_state()  # noqa: NPY002 - the global state itself
    Drawer(WIDE).draw(0)
    assert random.getstate() == before
    assert all(map(np.array_equal, np.random.get_state(), numpy_before))  # noqa: NPY002 - the global state itself


def test_a_drawer_that_was_pickled_draws_the_same_and_is_small(font_dir: Path) -> None:
    drawers = [Drawer(WIDE), make_drawer(with_changes(WIDE, fonts=FONTS[1:2]), font_dir)]
    for drawer in drawers:
        drawn = [drawer.draw(sample_id) for sample_id in range(20)]
        pickled = pickle.dumps(drawer)
        assert len(pickled) < 2_000 + sum(map(len, drawer.font_files))
        copy = pickle.loads(pickled)  # noqa: S301 - our own bytes
        assert copy.spec == drawer.spec
        for sample_id, before in enumerate(drawn):
            assert_same_picture(copy.draw(sample_id), before.label, before.pixels, f"sample {sample_id}")


DRAW_SOME = """
import sys, json
from hashlib import sha256
from pathlib import Path
from captcha_registry.dataset.spec import DatasetSpec
from captcha_registry.generation.drawing import Drawer, read_fonts
from captcha_registry.generation.png import encode_png
for section in json.loads(sys.argv[1]):
    spec = DatasetSpec.model_validate(section)
    drawer = Drawer(spec, read_fonts(spec, Path(sys.argv[2])))
    for drawn in map(drawer.draw, range(9, -1, -1)):
        print(drawn.label, sha256(drawn.pixels).hexdigest(), sha256(encode_png(drawn.pixels)).hexdigest())
"""


@pytest.mark.parametrize("hash_seed", ["0", "1"])
def test_a_fresh_process_draws_the_same_bytes(hash_seed: str, font_dir: Path) -> None:
    specs = [WIDE, with_changes(WIDE, style="classic", fonts=FONTS[1:], length=LengthRange(min=1, max=9), curves=3)]
    command = [sys.executable, "-c", DRAW_SOME, json.dumps([spec.model_dump() for spec in specs]), str(font_dir)]
    environment = os.environ | {"PYTHONHASHSEED": hash_seed}
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=True)
    drawn = [make_drawer(spec, font_dir).draw(sample_id) for spec in specs for sample_id in range(9, -1, -1)]
    assert done.stdout.splitlines() == [
        f"{one.label} {hashlib.sha256(one.pixels).hexdigest()} {hashlib.sha256(encode_png(one.pixels)).hexdigest()}"
        for one in drawn
    ]


DRAW_WITH_ANOTHER_TABLE = """
import sys
from captcha.image import ImageCaptcha
ImageCaptcha.lookup_table = list(range(256))
from captcha_registry.dataset.spec import DatasetSpec
from captcha_registry.generation.drawing import Drawer
from captcha_registry.generation.pixels import paint_glyph
sys.stdout.buffer.write(Drawer(DatasetSpec.model_validate_json(sys.argv[1])).draw(0).pixels.tobytes())
print(sum(paint_glyph.stats.cache_hits.values()), file=sys.stderr)
"""


def test_compiled_code_that_is_kept_follows_the_constants_of_captcha(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    own = Drawer(WIDE).draw(0)
    command = [sys.executable, "-c", DRAW_WITH_ANOTHER_TABLE, WIDE.model_dump_json()]
    done = subprocess.run(command, capture_output=True, check=True)
    assert int(done.stderr) > 0
    pixels = np.frombuffer(done.stdout, np.uint8).reshape(own.pixels.shape)
    assert (pixels != own.pixels).any()

    monkeypatch.setattr(ImageCaptcha, "lookup_table", list(range(256)))
    label, expected = draw_as_captcha_does(make_stock_captcha(WIDE, tmp_path), WIDE, make_stream(WIDE.seed, 0))
    assert_same_picture(Captcha(pixels, label, own.ink, own.background), own.label, expected, "another table")


# `ru_maxrss` of a child starts with what its parent held when it started it; VmHWM is the child's own.
DRAW_SHARDS = """
import re, sys
from pathlib import Path
from captcha_registry.dataset.spec import DatasetSpec
from captcha_registry.generation.drawing import Drawer
from captcha_registry.generation.shards import draw_shard
drawer = Drawer(DatasetSpec.model_validate_json(sys.argv[1]))
for shard_number in range(3):
    draw_shard(drawer, shard_number, Path(sys.argv[2]))
    sizes = dict(re.findall(r"(VmHWM|RssFile):\\s+(\\d+) kB", Path("/proc/self/status").read_text()))
    # The peak, without what is mapped of libraries' files: how many pages of them, is the kernel's choice.
    print(int(sizes["VmHWM"]) - int(sizes["RssFile"]))
"""


@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="only Linux tells a process's own peak")
def test_the_memory_of_a_worker_stays_flat(tmp_path: Path) -> None:
    spec = with_changes(
        WIDE, alphabet="0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZ", width=128, height=64, count=3_000, shard_size=1_000
    )
    # Whoever comes first compiles the passes, which takes 90 MB more, once on a machine.
    for drawn in (with_changes(spec, count=3, shard_size=1), spec):
        command = [sys.executable, "-c", DRAW_SHARDS, drawn.model_dump_json(), str(tmp_path)]
        done = subprocess.run(command, capture_output=True, text=True, check=True)
    megabytes = [int(kilobytes) / 1024 for kilobytes in done.stdout.split()]
    assert megabytes[-1] < 150
    # The 3,000 pictures hold 70 MB, their PNGs 22.
    assert megabytes[-1] - megabytes[0] < 5


def test_characters_that_are_kept_stay_within_bounds(font_dir: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    spec = with_changes(WIDE, fonts=FONTS, font_sizes=(150, 200, 250))
    unbounded = [make_drawer(spec, font_dir).draw(number).pixels.tobytes() for number in range(40)]
    monkeypatch.setattr(drawing, "MAX_GLYPH_BYTES", 500_000)
    drawer = make_drawer(spec, font_dir)
    most_bytes = 0
    for number in range(40):
        assert drawer.draw(number).pixels.tobytes() == unbounded[number]
        most_bytes = max(most_bytes, sum(glyph.nbytes for glyph in drawer._glyphs.values()))  # noqa: SLF001 - what it keeps
    # One more is drawn when the bound is passed.
    assert 250_000 < most_bytes < 600_000


@pytest.mark.parametrize(
    "spec",
    [WIDE, with_changes(WIDE, ink=ChannelRange(min=0, max=255), background=ChannelRange(min=60, max=61), dots=5, curves=0)],
    ids=["stock", "free"],
)
def test_the_colours_told_are_the_colours_used(spec: DatasetSpec) -> None:
    drawer = Drawer(spec)
    for sample_id in range(20):
        drawn, replay = drawer.draw(sample_id), Replay(make_stream(spec.seed, sample_id))
        replay.draw_label(spec)
        # The order in `ImageCaptcha.generate_image`: background, opacity, ink.
        background = choose_colour(replay, spec.background)
        replay.randbelow(36)
        assert (drawn.background, drawn.ink) == (background, choose_colour(replay, spec.ink))
        colours, counts = np.unique(drawn.pixels.reshape(-1, 3), axis=0, return_counts=True)
        assert tuple(colours[counts.argmax()]) == background


def choose_colour(replay: Replay, channels: ChannelRange) -> tuple[int, ...]:
    return tuple(channels.min + replay.randbelow(channels.max - channels.min + 1) for _ in range(3))


def test_dots_are_of_the_ink_told() -> None:
    # 10,000 dots leave nothing of the ground.
    drawn = Drawer(with_changes(WIDE, width=32, height=32, dots=10_000)).draw(0)
    assert {tuple(pixel) for pixel in drawn.pixels.reshape(-1, 3).tolist()} == {drawn.ink}


@given(st.tuples(*[st.integers(0, 255)] * 3), st.tuples(*[st.integers(0, 255)] * 3))
def test_the_index_tells_pixels_and_colours(ink: tuple[int, int, int], background: tuple[int, int, int]) -> None:
    pixels = np.full((4, 6, 3), background, np.uint8)
    columns = describe_pixels(Captcha(pixels, "AB", ink, background))
    assert (columns["ink"], columns["background"]) == ("#" + bytes(ink).hex(), "#" + bytes(background).hex())
    assert columns["pixel_sha256"] == hashlib.sha256(pixels.tobytes()).digest()
    # Rec. 601, to the nearest whole number.
    thousandths = 299 * ink[0] + 587 * ink[1] + 114 * ink[2]
    assert abs(columns["ink_luminance"] * 1000 - thousandths) <= 500


LENGTHS = st.integers(1, 16)
CHANNELS = st.tuples(st.integers(0, 255), st.integers(0, 255)).map(lambda pair: ChannelRange(min=min(pair), max=max(pair)))
SPECS = st.builds(
    DatasetSpec,
    alphabet=st.lists(st.sampled_from(PRINTABLE), min_size=2, unique=True).map("".join),
    length=LENGTHS | st.tuples(LENGTHS, LENGTHS).map(lambda pair: LengthRange(min=min(pair), max=max(pair))),
    width=st.integers(16, 1024),
    height=st.integers(16, 1024),
    count=st.integers(1, 10**9),
    shard_size=st.integers(1, 10**6),
    seed=st.integers(0, 2**63 - 1),
    style=st.sampled_from(["stock", "classic"]),
    fonts=st.lists(st.sampled_from(FONTS), max_size=3).map(tuple),
    font_sizes=st.lists(st.integers(8, 500), min_size=1, max_size=4).map(tuple),
    ink=CHANNELS,
    background=CHANNELS,
    dots=st.integers(0, 10_000),
    curves=st.integers(0, 100),
)


@given(SPECS, st.integers(0, 10**9 - 1))
@settings(max_examples=60)
def test_every_allowed_spec_can_be_drawn(font_dir: Path, spec: DatasetSpec, sample_id: int) -> None:
    drawn = make_drawer(spec, font_dir).draw(sample_id)
    assert (drawn.pixels.shape, drawn.pixels.dtype) == ((spec.height, spec.width, 3), np.uint8)
    assert spec.min_length <= len(drawn.label) <= spec.max_length
    assert set(drawn.label) <= set(spec.alphabet)
    assert all(spec.ink.min <= channel <= spec.ink.max for channel in drawn.ink)
    assert all(spec.background.min <= channel <= spec.background.max for channel in drawn.background)


@pytest.mark.parametrize("size", [(16, 16), (16, 1024), (1024, 16), (1024, 1024)], ids=str)
@pytest.mark.parametrize(
    "change", [{"length": 1, "font_sizes": (8,)}, {"length": 16, "font_sizes": (500,)}], ids=["least", "most"]
)
def test_the_smallest_and_the_largest_pictures_are_what_captcha_draws(
    size: tuple[int, int], change: dict[str, Any], font_dir: Path
) -> None:
    spec = with_changes(WIDE, width=size[0], height=size[1], **change)
    assert_equal_to_captcha(make_stock_captcha(spec, font_dir), Drawer(spec), 0)


def test_every_character_is_drawn_about_equally_often() -> None:
    drawer = Drawer(with_changes(WIDE, alphabet="ABCD", length=16, width=16, height=16))
    text = "".join(drawer.draw(sample_id).label for sample_id in range(100))
    # 1,600 characters: 400 of each, with a standard deviation of 17.
    assert all(300 < text.count(character) < 500 for character in "ABCD")


def test_every_length_is_drawn_about_equally_often() -> None:
    drawer = Drawer(with_changes(WIDE, length=LengthRange(min=3, max=6), width=16, height=16))
    lengths = [len(drawer.draw(sample_id).label) for sample_id in range(1_600)]
    # 1,600 texts: 400 of each length, with a standard deviation of 17.
    assert set(lengths) == {3, 4, 5, 6}
    assert all(300 < lengths.count(length) < 500 for length in (3, 4, 5, 6))


def test_the_labels_of_a_seed_never_change() -> None:
    drawer = Drawer(with_changes(WIDE, alphabet="0123456789", seed=2023))
    assert [drawer.draw(sample_id).label for sample_id in range(6)] == ["3139", "2425", "4049", "9627", "5844", "6233"]


def test_a_drawer_reads_the_fonts_of_its_spec_from_the_folder_fonts(
    font_dir: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "fonts").symlink_to(font_dir)
    monkeypatch.chdir(tmp_path)
    drawer = Drawer(with_changes(WIDE, fonts=("tall.ttf", "aileron.ttf")))
    assert drawer.font_files == ((font_dir / "tall.ttf").read_bytes(), (font_dir / "aileron.ttf").read_bytes())
    assert_equal_to_captcha(make_stock_captcha(drawer.spec, font_dir), drawer, 0)


def test_without_fonts_the_one_of_captcha_is_used_and_with_them_none_but_those(font_dir: Path) -> None:
    pictures = {
        fonts: make_drawer(with_changes(WIDE, fonts=fonts), font_dir).draw(0).pixels.tobytes() for fonts in ((), *zip(FONTS))
    }
    assert pictures[()] == pictures["droid.ttf",]
    assert len(set(pictures.values())) == len(FONTS)


@pytest.mark.parametrize(
    ("there", "told"), [((), "none"), (("b.TTF", "a.otf", "notes.txt"), r"a\.otf, b\.TTF")], ids=["nothing", "others"]
)
def test_a_missing_font_is_named_with_what_is_there(there: tuple[str, ...], told: str, tmp_path: Path) -> None:
    for name in there:
        (tmp_path / name).touch()
    spec = with_changes(WIDE, fonts=(*there[:1], "absent.ttf"))
    with pytest.raises(UserError, match=rf"fonts names 'absent\.ttf', which is not in .*; font files there: {told}$"):
        read_fonts(spec, tmp_path)


def test_a_folder_is_no_font(tmp_path: Path) -> None:
    (tmp_path / "folder.ttf").mkdir()
    with pytest.raises(UserError, match=r"fonts names 'folder\.ttf', which is no file in .*; font files there: none$"):
        read_fonts(with_changes(WIDE, fonts=("folder.ttf",)), tmp_path)


@pytest.mark.parametrize("size", [8, 9, 12, 42, 500])
def test_a_font_with_every_character_passes_at_any_size(size: int, font_dir: Path) -> None:
    make_drawer(with_changes(WIDE, fonts=FONTS, font_sizes=(size,)), font_dir).check_fonts()


@pytest.mark.parametrize("file", [b"", b"not a font", encode_png(np.zeros((9, 9, 3), np.uint8))], ids=["empty", "text", "png"])
def test_a_file_that_is_no_font_is_named(file: bytes, font_dir: Path) -> None:
    good = (font_dir / "droid.ttf").read_bytes()
    drawer = Drawer(with_changes(WIDE, fonts=("droid.ttf", "broken.ttf")), (good, file))
    with pytest.raises(UserError, match=r"fonts/broken\.ttf cannot be drawn at \d+ pixels .*: it is damaged, no TrueType or Op"):
        drawer.check_fonts()


def change_every_line_end(font: bytes) -> bytes:
    """As a transfer does that takes a font for a text."""
    return font.replace(b"\n", b"\r\n")


def flip_bits_of_an_outline(font: bytes) -> bytes:
    """Damage what is read only when the character is drawn."""
    place = find_table(font, b"glyf") + 1_000
    return font[:place] + bytes(byte ^ 0xFF for byte in font[place : place + 20_000]) + font[place + 20_000 :]


@pytest.mark.parametrize("damage", [change_every_line_end, flip_bits_of_an_outline])
def test_a_font_that_is_damaged_is_named(damage: Callable[[bytes], bytes], font_dir: Path) -> None:
    drawer = Drawer(with_changes(WIDE, fonts=("broken.ttf",)), (damage((font_dir / "droid.ttf").read_bytes()),))
    with pytest.raises(UserError, match=r"fonts/broken\.ttf cannot be drawn at \d+ pixels .*: it is damaged, no TrueType or Op"):
        drawer.check_fonts()


def make_bitmap_font(height: int) -> bytes:
    """Make a font of a blank, 0 and 1 in one size, in the Glyph Bitmap Distribution Format of Adobe."""
    characters = [
        f"STARTCHAR {code}\nENCODING {code}\nSWIDTH 500 0\nDWIDTH 16 0\nBBX 8 {height} 4 0\nBITMAP\n{row * height}ENDCHAR\n"
        for code, row in ((32, "00\n"), (48, "7E\n"), (49, "18\n"))
    ]
    sizes = f"FONT_ASCENT {height}\nFONT_DESCENT 0\nPIXEL_SIZE {height}\n"
    head = (
        f"FONT bitmap\nSIZE {height} 72 72\nFONTBOUNDINGBOX 16 {height} 0 0\nSTARTPROPERTIES 3\n{sizes}ENDPROPERTIES\nCHARS 3\n"
    )
    return f"STARTFONT 2.1\n{head}{''.join(characters)}ENDFONT\n".encode()


def test_a_size_that_a_bitmap_font_lacks_is_named() -> None:
    spec = with_changes(WIDE, fonts=("bitmap.bdf",), alphabet="01")
    Drawer(with_changes(spec, font_sizes=(42,)), (make_bitmap_font(42),)).check_fonts()
    with pytest.raises(
        UserError, match=r"fonts/bitmap\.bdf cannot be drawn at 50 pixels .*has other sizes only: use another font or"
    ):
        Drawer(with_changes(spec, font_sizes=(42, 50)), (make_bitmap_font(42),)).check_fonts()


@pytest.mark.parametrize("name", FONTS[:2])
def test_the_characters_that_a_font_lacks_are_named(name: str, font_dir: Path) -> None:
    files = ((font_dir / name).read_bytes(), keep_only_digits((font_dir / name).read_bytes()))
    spec = with_changes(WIDE, fonts=("whole.ttf", "digits.ttf"), alphabet="0123456789")
    Drawer(spec, files).check_fonts()
    with pytest.raises(UserError, match=r"fonts/digits\.ttf has no glyph for 'Ab': use another font or alphabet"):
        Drawer(with_changes(spec, alphabet="A0123456789b"), files).check_fonts()


def keep_only_digits(font: bytes) -> bytes:
    """Give a font a character map of ten digits and nothing else."""
    # One table, for Windows and Unicode, 12 bytes on: format 6, its length, no language, first character, number, glyphs.
    header = struct.pack(">HHHHI", 0, 1, 3, 1, 12)
    return overwrite(font, find_table(font, b"cmap"), header + struct.pack(">5H10H", 6, 30, 0, ord("0"), 10, *range(20, 30)))


def test_the_hash_of_a_font_is_told_by_its_name() -> None:
    expected = {"a.ttf": hashlib.sha256(b"one").hexdigest(), "b.ttf": hashlib.sha256(b"two").hexdigest()}
    assert hash_fonts(["a.ttf", "b.ttf"], [b"one", b"two"]) == expected
