"""A picture follows from the spec and the sample's id alone, and `captcha` draws it as it always does."""

import ast
import hashlib
import inspect
import random
import secrets
from collections.abc import Sequence
from io import BytesIO

import captcha.image
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from captcha_registry.dataset.spec import DatasetSpec
from captcha_registry.generation.drawing import Captcha, describe_pixels, draw_captcha, encode_png

PRINTABLE = "".join(chr(code) for code in range(ord("!"), ord("~") + 1))
WIDE = DatasetSpec(alphabet=PRINTABLE, length=4, width=160, height=60, count=1000, shard_size=100, seed=5)

SPECS = st.builds(
    DatasetSpec,
    alphabet=st.lists(st.sampled_from(PRINTABLE), min_size=2, unique=True).map("".join),
    length=st.integers(1, 16),
    width=st.integers(16, 200),
    height=st.integers(16, 200),
    count=st.just(10),
    shard_size=st.just(10),
    seed=st.integers(0, 2**63 - 1),
)


class Replay:
    """The random numbers of one sample once more, worked out from the seed as the module's docstring promises."""

    def __init__(self, seed: int, sample_id: int) -> None:
        key = hashlib.blake2b(f"{seed}/{sample_id}".encode(), digest_size=16).digest()
        self.stream = random.Random(int.from_bytes(key, "little"))  # noqa: S311 - pictures, not secrets

    def randbelow(self, bound: int) -> int:
        return int(self.stream.random() * bound)

    def randbits(self, num_bits: int) -> int:
        return self.randbelow(2**num_bits)

    def choice(self, items: Sequence[str]) -> str:
        return items[self.randbelow(len(items))]

    def draw_label(self, spec: DatasetSpec) -> str:
        return "".join(self.choice(spec.alphabet) for _ in range(spec.length))


def pixels_of(drawn: Captcha) -> bytes:
    return drawn.image.tobytes()


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


@pytest.mark.parametrize("sample_id", [0, 1, 999_999_999])
def test_a_picture_is_what_captcha_draws_with_the_same_random_numbers(sample_id: int, monkeypatch: pytest.MonkeyPatch) -> None:
    drawn = draw_captcha(WIDE, sample_id)
    replay = Replay(WIDE.seed, sample_id)
    label = replay.draw_label(WIDE)
    monkeypatch.setattr(captcha.image, "secrets", replay)
    picture = captcha.image.ImageCaptcha(width=160, height=60).generate_image(label)
    assert drawn.label == label
    assert pixels_of(drawn) == picture.tobytes()


def test_the_colours_told_are_the_colours_used() -> None:
    for sample_id in range(20):
        drawn = draw_captcha(WIDE, sample_id)
        replay = Replay(WIDE.seed, sample_id)
        replay.draw_label(WIDE)
        # The order in `ImageCaptcha.generate_image`: background, opacity, ink.
        background = tuple(238 + replay.randbelow(18) for _ in range(3))
        replay.randbelow(36)
        ink = tuple(10 + replay.randbelow(191) for _ in range(3))
        assert (drawn.background, drawn.ink) == (background, ink)
        _, commonest = max(drawn.image.getcolors(160 * 60))
        assert commonest == drawn.background

        columns = describe_pixels(drawn)
        assert (columns["ink"], columns["background"]) == ("#" + bytes(ink).hex(), "#" + bytes(background).hex())
        assert columns["ink_luminance"] == Image.new("RGB", (1, 1), ink).convert("L").getpixel((0, 0))
        assert columns["pixel_sha256"] == hashlib.sha256(np.asarray(drawn.image).tobytes()).digest()


@given(st.permutations(range(12)))
@settings(max_examples=10, deadline=None)
def test_a_sample_is_the_same_in_any_order_of_drawing(order: list[int]) -> None:
    small = WIDE.model_copy(update={"width": 48, "height": 32})
    in_order = [(pixels_of(draw_captcha(WIDE, n)), pixels_of(draw_captcha(small, n))) for n in range(12)]
    for sample_id in order:
        assert pixels_of(draw_captcha(small, sample_id)) == in_order[sample_id][1]
        random.seed(0)
        assert pixels_of(draw_captcha(WIDE, sample_id)) == in_order[sample_id][0]


def test_other_samples_and_other_seeds_give_other_pictures() -> None:
    specs = [WIDE, WIDE.model_copy(update={"seed": 6}), WIDE.model_copy(update={"seed": 50})]
    drawn = [draw_captcha(spec, sample_id) for spec in specs for sample_id in range(30)]
    assert len({pixels_of(one) for one in drawn}) == len(drawn)


@pytest.mark.parametrize("change", [{"count": 7}, {"shard_size": 3}], ids=["count", "shard_size"])
def test_a_picture_does_not_depend_on_how_the_dataset_is_cut(change: dict[str, int]) -> None:
    assert pixels_of(draw_captcha(WIDE, 3)) == pixels_of(draw_captcha(WIDE.model_copy(update=change), 3))


def test_captcha_has_its_secrets_back_after_a_drawing() -> None:
    draw_captcha(WIDE, 0)
    assert captcha.image.secrets is secrets


def test_captcha_has_its_secrets_back_after_a_drawing_that_failed() -> None:
    with pytest.raises(ZeroDivisionError):
        draw_captcha(WIDE.model_copy(update={"length": 0}), 0)
    assert captcha.image.secrets is secrets


def test_a_drawing_leaves_the_global_random_numbers_alone() -> None:
    before = random.getstate()
    draw_captcha(WIDE, 0)
    assert random.getstate() == before


@given(SPECS, st.integers(0, 10**9 - 1))
@settings(max_examples=40, deadline=None)
def test_every_allowed_spec_can_be_drawn(spec: DatasetSpec, sample_id: int) -> None:
    drawn = draw_captcha(spec, sample_id)
    assert (drawn.image.size, drawn.image.mode) == ((spec.width, spec.height), "RGB")
    assert len(drawn.label) == spec.length
    assert set(drawn.label) <= set(spec.alphabet)
    assert all(10 <= channel <= 200 for channel in drawn.ink)
    assert all(238 <= channel <= 255 for channel in drawn.background)


@pytest.mark.parametrize("size", [(16, 16), (16, 1024), (1024, 16), (1024, 1024)])
def test_the_smallest_and_the_largest_pictures_can_be_drawn(size: tuple[int, int]) -> None:
    spec = WIDE.model_copy(update={"width": size[0], "height": size[1]})
    assert draw_captcha(spec, 0).image.size == size


def test_every_character_is_drawn_about_equally_often() -> None:
    spec = WIDE.model_copy(update={"alphabet": "ABCD", "length": 16, "width": 16, "height": 16})
    text = "".join(draw_captcha(spec, sample_id).label for sample_id in range(100))
    # 1,600 characters: 400 of each, with a standard deviation of 17.
    assert all(300 < text.count(character) < 500 for character in "ABCD")


def test_the_labels_of_a_seed_never_change() -> None:
    spec = WIDE.model_copy(update={"alphabet": "0123456789", "seed": 2023})
    assert [draw_captcha(spec, sample_id).label for sample_id in range(6)] == ["3139", "2425", "4049", "9627", "5844", "6233"]


def test_encoding_keeps_every_pixel() -> None:
    drawn = draw_captcha(WIDE, 0)
    encoded = encode_png(drawn.image)
    assert encoded == encode_png(drawn.image)
    assert Image.open(BytesIO(encoded)).tobytes() == pixels_of(drawn)
