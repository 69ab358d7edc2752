"""The data set as Croissant JSON-LD (version 1.0 of MLCommons' format), beside the data card: for programs and data set search.

It lists the files, the splits with their samples, the sources with their licenses, and what was left out. Programs that read
Croissant, such as mlcroissant, load images, captions and keys from it without any code of this project.
"""

import json
from collections.abc import Iterator, Mapping
from typing import Any

from pydantic import Field

from fourfold.configuration import Config
from fourfold.data.ingestion.drops import losses
from fourfold.data.ingestion.sources import SOURCES, SourceConfig
from fourfold.data.shards import ShardSet
from fourfold.digests import sha256_file
from fourfold.modalities import SOURCE_LABELS

VERSION = "http://mlcommons.org/croissant/1.0"
MAX_LISTED = 500  # shards of images; of more, patterns name the files and single samples are not described
TAR, JSON = "application/x-tar", "application/json"
SHARDS = "shards"  # folder of the shard set, relative to the file
CONTEXT: dict[str, Any] = {
    "@language": "en",
    "@vocab": "https://schema.org/",
    **{name: f"cr:{name}" for name in (
        "citeAs", "column", "equivalentProperty", "extract", "field", "fileProperty", "fileObject", "fileSet", "format",
        "includes", "isLiveDataset", "jsonPath", "key", "md5", "parentField", "path", "recordSet", "references", "regex",
        "repeated", "replace", "samplingRate", "separator", "source", "subField", "transform",
    )},
    "conformsTo": "dct:conformsTo",
    "cr": "http://mlcommons.org/croissant/",
    "rai": "http://mlcommons.org/croissant/RAI/",
    "data": {"@id": "cr:data", "@type": "@json"},
    "dataType": {"@id": "cr:dataType", "@type": "@vocab"},
    "dct": "http://purl.org/dc/terms/",
    "examples": {"@id": "cr:examples", "@type": "@json"},
    "sc": "https://schema.org/",
}  # fmt: skip
TITLES = {"rgb": "The image, a square of equal size for all", "caption": "Captions of the image"}
CONTENT_FILES = {"rgb": (["*.png", "*.jpg", "*.webp"], "image/*"), "caption": (["*.txt", "*.json"], "text/plain")}
CONTENT = {"rgb": "sc:ImageObject", "caption": "sc:Text"}


class CardConfig(Config):
    """What cards and Croissant say of the data set; nothing is computed from it."""

    name: str = Field("fourfold-data", pattern=r"^[A-Za-z0-9_-]+$")
    description: str = "Images and captions, cleaned, split and sharded by fourfold."
    url: str | None = None  # page of the data set
    license: str | None = None  # of the whole; None: those of the sources
    creators: tuple[str, ...] = ()
    cite_as: str | None = None  # BibTeX or text
    date_published: str | None = Field(None, pattern=r"^\d{4}-\d{2}-\d{2}$")
    version: str = Field("1.0.0", pattern=r"^\d+\.\d+\.\d+$")


def croissant(card: CardConfig, sources: Mapping[str, SourceConfig], report: Mapping[str, Any], shards: ShardSet) -> str:
    """Return the JSON-LD text of a finished ingestion; equal arguments give equal text.

    Args:
        card: what is said of the data set.
        sources: settings of the sources by name; "" for one without a name.
        report: of the ingestion, see `drops.loss_report`.
        shards: the images and captions.
    """
    licenses = [card.license] if card.license else sorted({one.license for one in sources.values() if one.license})
    about = {
        "@context": CONTEXT,
        "@type": "sc:Dataset",
        "name": card.name,
        "description": card.description,
        "conformsTo": VERSION,
        "url": card.url,
        "license": licenses,
        "creator": [{"@type": "sc:Organization", "name": name} for name in card.creators],
        "citeAs": card.cite_as,
        "datePublished": card.date_published,
        "version": card.version,
        "distribution": [part for split in shards.splits() for part in _files(shards, split)],
        "recordSet": [
            _splits(shards),
            _table("sources", "The sources", _source_rows(sources, report)),
            *_left_out(report),
            *(_samples(shards, split, modality) for split, modality in _described(shards)),
        ],
    }
    return json.dumps({key: value for key, value in about.items() if value}, indent=1, ensure_ascii=False) + "\n"


def _described(shards: ShardSet) -> list[tuple[str, str]]:
    """Return split and modality of the samples that are described one by one: all, unless there are too many shards."""
    count = sum(len(shards.shard_names(split)) for split in shards.splits())
    return [(split, modality) for split in shards.splits() for modality in SOURCE_LABELS] if count <= MAX_LISTED else []


def _files(shards: ShardSet, split: str) -> Iterator[dict[str, Any]]:
    """Yield the manifest of each modality, with its digest, and the shards, which it names with theirs."""
    is_listed, store = bool(_described(shards)), shards.store
    for modality in shards.modalities(split):
        where, manifest = f"{SHARDS}/{split}/{modality}", shards.manifest(split, modality)
        path = shards.root / split / modality / "manifest.json"
        yield _file(f"{split}/{modality}/manifest.json", f"{where}/manifest.json", JSON, sha256_file(path))
        if not is_listed or modality not in SOURCE_LABELS:
            if store is None:  # elsewhere, no pattern names the shards of one set; the manifest does
                yield _file_set(f"{split}/{modality}", f"{where}/*.tar", TAR)
            continue
        names = [f"{split}/{modality}/{shard.name}" for shard in manifest.shards]
        for name, shard in zip(names, manifest.shards, strict=True):
            yield _file(name, f"{SHARDS}/{name}" if store is None else str(store.path(shard.sha256)), TAR, shard.sha256)
        inside = {"containedIn": [{"@id": name} for name in names]}
        patterns, encoding = CONTENT_FILES[modality]
        yield _file_set(f"{split}/{modality}", patterns, encoding) | inside


def _file(id_: str, url: str, encoding: str, sha256: str) -> dict[str, Any]:
    name = url.rpartition("/")[2]
    return {"@type": "cr:FileObject", "@id": id_, "name": name, "contentUrl": url, "encodingFormat": encoding, "sha256": sha256}


def _file_set(id_: str, includes: str | list[str], encoding: str) -> dict[str, Any]:
    return {"@type": "cr:FileSet", "@id": id_, "name": id_, "encodingFormat": encoding, "includes": includes}


def _samples(shards: ShardSet, split: str, modality: str) -> dict[str, Any]:
    """Return the record set of one modality of a split: the key of each sample and its content."""
    id_ = f"{split}-{modality}"
    files = {"fileSet": {"@id": f"{split}/{modality}"}}
    key = {"extract": {"fileProperty": "filename"}, "transform": {"regex": r"^(.+)\..+$"}}
    return {
        "@type": "cr:RecordSet",
        "@id": id_,
        "name": id_,
        "description": f"{TITLES[modality]}; {shards.num_samples(split)} samples of {split}.",
        "field": [
            _field(f"{id_}/key", "sc:Text") | {"source": files | key},
            _field(f"{id_}/{modality}", CONTENT[modality]) | {"source": files | {"extract": {"fileProperty": "content"}}},
        ],
    }


def _splits(shards: ShardSet) -> dict[str, Any]:
    rows = [{"split": split, "samples": shards.num_samples(split)} for split in shards.splits()]
    return _table("splits", "The splits and their number of samples", rows) | {"dataType": "cr:Split"}


def _source_rows(sources: Mapping[str, SourceConfig], report: Mapping[str, Any]) -> list[dict[str, Any]]:
    """Return a row for each of several sources, or one for all streams together."""
    rows, streams = [], dict(report["by_source"])
    for name, config in sources.items():
        own = [stream for stream in streams if not name or stream.partition("-")[0] == name]
        kept, seen = (sum(streams[stream][what] for stream in own) for what in ("kept", "seen"))
        title = SOURCES.get(config.kind).title
        row = {"source": name or config.kind, "kind": title, "license": config.license or "not stated"}
        rows += [row | {"kept": kept, "seen": seen}] if own else []
    return rows


def _left_out(report: Mapping[str, Any]) -> list[dict[str, Any]]:
    rows = [{"source": loss.source, "reason": loss.reason, "count": loss.count, "unit": loss.unit} for loss in losses(report)]
    return [_table("left_out", "What was left out, by reason", rows)] if rows else []


def _table(id_: str, description: str, rows: list[dict[str, Any]]) -> dict[str, Any]:
    """Return a record set whose rows are in the file itself."""
    kinds = {str: "sc:Text", int: "sc:Integer"}
    return {
        "@type": "cr:RecordSet",
        "@id": id_,
        "name": id_,
        "description": description,
        "key": {"@id": f"{id_}/{next(iter(rows[0]))}"},
        "field": [_field(f"{id_}/{name}", kinds[type(value)]) for name, value in rows[0].items()],
        "data": [{f"{id_}/{name}": value for name, value in row.items()} for row in rows],
    }


def _field(id_: str, data_type: str) -> dict[str, Any]:
    return {"@type": "cr:Field", "@id": id_, "name": id_, "dataType": data_type}
