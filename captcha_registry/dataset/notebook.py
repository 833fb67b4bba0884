"""Samples and datasets as a notebook shows them: HTML in the notebook's own colours, light or dark, that loads nothing."""

from base64 import b64encode
from html import escape
from io import BytesIO
from typing import TYPE_CHECKING

from PIL import Image

from captcha_registry.errors import UserError

if TYPE_CHECKING:
    from captcha_registry.dataset.dataset import DecodedSample
    from captcha_registry.dataset.front_door import LoadedDataset

# So many pictures stand on a dataset's wall.
NUM_PICTURES = 12

_WALL = "display:flex;flex-wrap:wrap;gap:8px 12px;margin:8px 0"
_FACTS = "display:grid;grid-template-columns:max-content auto;gap:2px 12px;margin:4px 0;padding:0"
_PICTURE = "display:block;margin:0;max-width:100%;height:auto"
_CAPTION = "font-family:monospace;font-size:13px;text-align:center"


def encode_png(sample: "DecodedSample") -> bytes:
    """Encode a sample's picture."""
    buffer = BytesIO()
    Image.fromarray(sample.image).save(buffer, "PNG")
    return buffer.getvalue()


def show_sample(sample: "DecodedSample") -> str:
    """Compose the HTML of a picture with its text below."""
    height, width, _ = sample.image.shape
    label, source = escape(sample.label), b64encode(encode_png(sample)).decode()
    return (
        f'<figure style="margin:0;display:inline-block"><img src="data:image/png;base64,{source}" width="{width}" '
        f'height="{height}" alt="captcha {sample.id}: {label}" title="id {sample.id}" style="{_PICTURE}">'
        f'<figcaption style="{_CAPTION}">{label}</figcaption></figure>'
    )


def show_dataset(dataset: "LoadedDataset") -> str:
    """Compose the HTML of a dataset: its facts, and its first pictures on a wall."""
    facts = "".join(f'<dt style="opacity:.7">{name}</dt><dd style="margin:0">{fact}</dd>' for name, fact in list_facts(dataset))
    return f'<div><dl style="{_FACTS}">{facts}</dl>{_show_wall(dataset)}</div>'


def list_facts(dataset: "LoadedDataset") -> list[tuple[str, str]]:
    """List what is worth knowing of a dataset at first sight, as HTML."""
    spec = dataset.manifest.spec
    chosen = f" of {spec.count:,}" if len(dataset) != spec.count else ""
    splits = ", ".join(f"{name} {count:,}" for name, count in dataset.splits.items())
    version = f" {escape(dataset.version)}" if dataset.version else ""
    return [
        ("dataset", f"<b>{escape(dataset.name)}</b>{version}"),
        ("samples", f"{len(dataset):,}{chosen}{f' ({splits})' if splits else ''}"),
        ("pictures", f"{spec.width}x{spec.height}, style {spec.style}"),
        ("texts", f"{spec.described_length} characters of <code>{escape(spec.alphabet)}</code>"),
        ("columns", ", ".join(map(escape, dataset.index.column_names))),
    ]


def _show_wall(dataset: "LoadedDataset") -> str:
    """Show the first pictures, or say why they cannot be read."""
    try:
        figures = "".join(map(show_sample, dataset[:NUM_PICTURES]))
    except UserError as error:
        return f"<p>No picture could be read: {escape(str(error))}</p>"
    more = f'<div style="opacity:.7">the first {NUM_PICTURES} samples</div>' if len(dataset) > NUM_PICTURES else ""
    return f'<div style="{_WALL}">{figures}</div>{more}'
