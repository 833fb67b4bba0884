"""croissant.json: a dataset's metadata in the Croissant format 1.1, by which search engines find it and `mlcroissant` reads it.

The records are the rows of the index; the pictures are in TFRecord shards, a form that Croissant does not know, so shards are
listed as files with their SHA-256. Source: https://docs.mlcommons.org/croissant/docs/croissant-spec-1.1.html
"""

import json
from typing import Any

import pyarrow as pa

from captcha_registry.dataset.index import SCHEMA
from captcha_registry.dataset.manifest import FileEntry, Manifest
from captcha_registry.describing.card import COLUMNS, LICENSE_NAMES, describe_split, find_license

CONFORMS_TO = "http://mlcommons.org/croissant/1.1"
# The context that the specification gives; readers warn about any other.
CONTEXT: dict[str, Any] = {
    "@language": "en",
    "@vocab": "https://schema.org/",
    "arrayShape": "cr:arrayShape",
    "citeAs": "cr:citeAs",
    "column": "cr:column",
    "conformsTo": "dct:conformsTo",
    "containedIn": "cr:containedIn",
    "cr": "http://mlcommons.org/croissant/",
    "data": {"@id": "cr:data", "@type": "@json"},
    "dataType": {"@id": "cr:dataType", "@type": "@vocab"},
    "dct": "http://purl.org/dc/terms/",
    "description": {"@container": "@language"},
    "equivalentProperty": "cr:equivalentProperty",
    "examples": {"@id": "cr:examples", "@type": "@json"},
    "extract": "cr:extract",
    "field": "cr:field",
    "fileObject": "cr:fileObject",
    "fileProperty": "cr:fileProperty",
    "fileSet": "cr:fileSet",
    "format": "cr:format",
    "includes": "cr:includes",
    "isArray": "cr:isArray",
    "isLiveDataset": "cr:isLiveDataset",
    "jsonPath": "cr:jsonPath",
    "key": "cr:key",
    "md5": "cr:md5",
    "name": {"@container": "@language"},
    "parentField": "cr:parentField",
    "path": "cr:path",
    "rai": "http://mlcommons.org/croissant/RAI/",
    "recordSet": "cr:recordSet",
    "references": "cr:references",
    "regex": "cr:regex",
    "repeated": "cr:repeated",
    "replace": "cr:replace",
    "samplingRate": "cr:samplingRate",
    "sc": "https://schema.org/",
    "separator": "cr:separator",
    "source": "cr:source",
    "subField": "cr:subField",
    "transform": "cr:transform",
}
# The day on which each drawing version was published: since then, spec and seed decide every picture.
DRAWN_SINCE = {1: "2026-11-23", 2: "2026-11-23"}
TYPES = {pa.int64(): "cr:Int64", pa.uint8(): "cr:UInt8", pa.string(): "sc:Text", pa.binary(32): "sc:Text"}


def write_croissant(manifest: Manifest) -> str:
    """Compose the file; equal manifests give equal bytes."""
    spec = manifest.spec
    content = {
        "@context": CONTEXT,
        "@type": "sc:Dataset",
        "conformsTo": CONFORMS_TO,
        "name": manifest.name,
        "description": f"{spec.count:,} captchas of {spec.described_length} characters, {spec.width}x{spec.height} pixels, each "
        "with its text. The records are the rows of the index; the pictures are in the TFRecord shards, where `shard`, `offset` "
        "and `length` of a row point.",
        "license": LICENSE_NAMES[find_license(manifest)],
        "identifier": f"sha256:{manifest.dataset_id}",
        "citeAs": _cite(manifest),
        "datePublished": DRAWN_SINCE[manifest.drawing_version],
        # A release gets its number after this file is made, from a Git tag: this one names the content, and comes before any.
        "version": f"0.0.0+{manifest.dataset_id[:12]}",
        "keywords": ["captcha", "ocr", "synthetic"],
        "isLiveDataset": False,
        "distribution": [_describe_file(manifest.index, "application/x-parquet", "One row per sample.")]
        + [
            _describe_file(shard, "application/octet-stream", f"TFRecord file with {shard.num_samples:,} samples.")
            for shard in manifest.shards
        ],
        "recordSet": [_describe_splits(manifest), _describe_samples(manifest)],
    }
    return f"{json.dumps(content, indent=2)}\n"


def _cite(manifest: Manifest) -> str:
    """Compose the BibTeX entry of a dataset."""
    year = DRAWN_SINCE[manifest.drawing_version][:4]
    return (
        f"@misc{{{manifest.name}, title = {{{manifest.name}: {manifest.spec.count:,} synthetic captchas}}, year = {{{year}}}, "
        f"howpublished = {{drawn by captcha-registry}}, note = {{dataset id sha256:{manifest.dataset_id}}}}}"
    )


def _describe_file(entry: FileEntry, encoding: str, description: str) -> dict[str, Any]:
    return {
        "@type": "cr:FileObject",
        "@id": entry.path,
        "name": entry.path,
        "description": description,
        "contentUrl": entry.path,
        "contentSize": f"{entry.size_bytes} B",
        "encodingFormat": encoding,
        "sha256": entry.sha256,
    }


def _describe_splits(manifest: Manifest) -> dict[str, Any]:
    urls = {"train": "cr:TrainingSplit", "test": "cr:TestSplit"}
    return {
        "@type": "cr:RecordSet",
        "@id": "splits",
        "name": "splits",
        "description": describe_split(manifest),
        "dataType": "cr:Split",
        "key": {"@id": "splits/name"},
        "field": [
            {"@type": "cr:Field", "@id": "splits/name", "name": "name", "dataType": "sc:Text"},
            {"@type": "cr:Field", "@id": "splits/url", "name": "url", "dataType": "sc:URL"},
        ],
        "data": [{"splits/name": name, "splits/url": urls[name]} for name in manifest.splits],
    }


def _describe_samples(manifest: Manifest) -> dict[str, Any]:
    return {
        "@type": "cr:RecordSet",
        "@id": "samples",
        "name": "samples",
        "description": "One record per captcha.",
        "key": {"@id": "samples/id"},
        "field": [_describe_field(field, manifest) for field in SCHEMA],
    }


def _describe_field(field: pa.Field, manifest: Manifest) -> dict[str, Any]:
    described = {
        "@type": "cr:Field",
        "@id": f"samples/{field.name}",
        "name": field.name,
        "description": COLUMNS[field.name],
        "dataType": TYPES[field.type],
        "source": {"fileObject": {"@id": manifest.index.path}, "extract": {"column": field.name}},
    }
    return described | ({"references": {"field": {"@id": "splits/name"}}} if field.name == "split" and manifest.split else {})
