"""The section of the report that says whether the data are sound."""

from collections.abc import Sequence
from io import BytesIO
from itertools import pairwise

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc
from PIL import Image

from captcha_registry.dataset.dataset import CaptchaDataset
from captcha_registry.errors import MAKE_OR_PULL, UserError
from captcha_registry.seeing.charts import draw_counts
from captcha_registry.seeing.document import Chart, Code, Heading, Heatmap, Paragraph, Part, Section, Table
from captcha_registry.seeing.results import ModelResult
from captcha_registry.seeing.sections import percent

# So many pictures show where ink is.
NUM_PICTURES = 200
# A pixel is ink if a channel differs by so much from the ground, of 255: drawing smooths edges.
INK_CONTRAST = 24
LUMINANCE_STEP = 20
# Of the drawing of ink, with its share as opacity: it suits light and dark pages.
INK_COLOUR = (0x3A, 0x8D, 0xC4)
NUM_BANDS = 4


def show_health(results: Sequence[ModelResult]) -> Section:
    """Describe each dataset that a model was tested on."""
    parts: list[Part] = []
    for name, result in {result.card.dataset: result for result in results}.items():
        parts.append(Heading(name))
        if (dataset := result.dataset) is None:
            parts.append(Paragraph.quote(f"It is not here, or is another by now: {MAKE_OR_PULL}."))
        else:
            parts += [_show_overlap(dataset), _show_balance(dataset), _show_colours(dataset), _show_luminance(dataset)]
            parts.append(_show_ink(dataset))
    return Section("health", "The data's health", parts)


def _show_overlap(dataset: CaptchaDataset) -> Table:
    """Count what stands on both sides of the split."""
    train, test = (dataset.split(name).index for name in ("train", "test"))
    shared = {column: pc.is_in(test[column], pc.unique(train[column])) for column in ("label", "pixel_sha256")}
    rows = [
        ("samples in train", f"{train.num_rows:,}", ""),
        ("samples in test", f"{test.num_rows:,}", ""),
        *(
            (what, f"{num:,}", f"{percent(num / test.num_rows)} of test")
            for what, num in (
                ("texts of test that stand in train, too, on other pictures", pc.sum(shared["label"]).as_py() or 0),
                ("pictures of test that are in train, too", pc.sum(shared["pixel_sha256"]).as_py() or 0),
            )
        ),
        ("pictures that an earlier sample shows already", f"{_count_twins(dataset.index):,}", ""),
    ]
    return Table.of("Train and test", ("what", "samples", "share"), rows)


def _count_twins(index: pa.Table) -> int:
    return int(index.num_rows - pc.count_distinct(index["pixel_sha256"]).as_py())


def _show_balance(dataset: CaptchaDataset) -> Table:
    """Compare the rarest character of each position with the commonest."""
    rows = []
    for position in range(dataset.manifest.spec.max_length):
        counts = pc.value_counts(pc.utf8_slice_codeunits(dataset.index["label"], position, position + 1)).to_pylist()
        known = {count["values"]: count["counts"] for count in counts if count["values"]}
        by_count = sorted((known.get(c, 0), c) for c in dataset.manifest.spec.alphabet)
        (least, rarest), (most, commonest) = by_count[0], by_count[-1]
        rows.append(
            (str(position + 1), Code(rarest), f"{least:,}", Code(commonest), f"{most:,}", percent(least / max(1, most), 1))
        )
    return Table.of("Balance of the characters", ("position", "rarest", "times", "commonest", "times", "balance"), rows)


def _show_colours(dataset: CaptchaDataset) -> Table:
    rows = []
    for column in ("ink", "background"):
        colours = pc.unique(dataset.index[column]).to_pylist()
        channels = np.frombuffer(bytes.fromhex("".join(colours).replace("#", "")), np.uint8).reshape(-1, 3)
        rows.append(
            (
                column,
                f"{len(colours):,}",
                *(f"{low} to {high}" for low, high in zip(channels.min(0), channels.max(0), strict=True)),
            )
        )
    return Table.of("Colours", ("of", "different ones", "red", "green", "blue"), rows)


def _show_luminance(dataset: CaptchaDataset) -> Chart:
    """Count samples by the luminance of their ink."""
    edges = np.arange(0, 256 + LUMINANCE_STEP, LUMINANCE_STEP)
    counts, _ = np.histogram(dataset.index["ink_luminance"].to_numpy(), bins=edges)
    rows = [
        {"range": f"{low} to {high - 1}", "samples": int(num)}
        for (low, high), num in zip(pairwise(edges.tolist()), counts, strict=True)
        if num
    ]
    title = f"{dataset.manifest.name}: luminance of the ink; dark ink is drawn faint"
    numbers = Table.of(title, ("luminance", "samples"), [(str(row["range"]), f"{row['samples']:,}") for row in rows])
    return Chart(title, draw_counts(rows, "luminance of the ink"), numbers)


def _show_ink(dataset: CaptchaDataset) -> Part:
    """Draw how often each place of the canvas is inked, over the first pictures of test."""
    samples = dataset.split("test")[:NUM_PICTURES]
    try:
        shares = find_ink(samples)
    except UserError as error:
        return Paragraph.quote(f"Where ink lies is not shown: {error}.")
    title = (
        f"{dataset.manifest.name}: where ink lies on the canvas, in {len(samples):,} pictures; at most {percent(shares.max(), 0)}"
    )
    bands = [np.array_split(band, NUM_BANDS, axis=1) for band in np.array_split(shares, NUM_BANDS, axis=0)]
    rows = [(f"band {n}", *(percent(float(cell.mean()), 1) for cell in band)) for n, band in enumerate(bands, 1)]
    head = ("from the top", *(f"part {n} from the left" for n in range(1, NUM_BANDS + 1)))
    return Heatmap(title, _draw_shares(shares), Table.of("Share of inked pixels", head, rows))


def find_ink(samples: CaptchaDataset) -> npt.NDArray[np.float64]:
    """Compute for each place of the canvas in what share of the pictures it is inked: `(height, width)`, 0 to 1."""
    grounds = [np.frombuffer(bytes.fromhex(colour[1:]), np.uint8) for colour in samples.index["background"].to_pylist()]
    spec = samples.manifest.spec
    inked = np.zeros((spec.height, spec.width))
    for sample, ground in zip(samples, grounds, strict=True):
        inked += (np.abs(sample.image.astype(np.int16) - ground) > INK_CONTRAST).any(axis=-1)
    return inked / max(1, len(samples))


def _draw_shares(shares: npt.NDArray[np.float64]) -> bytes:
    """Draw shares as opacity, the greatest opaque."""
    picture = np.empty((*shares.shape, 4), np.uint8)
    picture[..., :3] = INK_COLOUR
    picture[..., 3] = np.rint(255 * shares / max(shares.max(), 1e-9))
    content = BytesIO()
    Image.fromarray(picture, "RGBA").save(content, "PNG", optimize=True)
    return content.getvalue()
