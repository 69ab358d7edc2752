"""The interface of a source: a configuration class with a `kind`, and an object that opens it as streams of raw samples.

A new kind of source is one `Source` object in `SOURCES`, registered by a plug-in; see docs/guides/add-a-source.md.
"""

from abc import ABC, abstractmethod
from collections.abc import Callable, Collection, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Any, ClassVar, Literal

from pydantic import BeforeValidator, Field, SerializeAsAny

from fourfold.configuration import Config
from fourfold.plugins import Registry
from fourfold.suggestions import unknown_name

DropUnit = Literal["sample", "member", "archive", "folder", "row", "caption", "removal"]


class SourceConfig(Config):
    """Base of the settings of a source. A subclass sets `kind: Literal["its_kind"] = "its_kind"` and adds its own fields."""

    kind: str  # the name of a registered source; it decides which other keys are allowed
    license: str | None = Field(None, exclude_if=lambda value: value is None)  # of images and captions, for the data card

    def fixed_image_size(self) -> int | None:
        """Return the side in pixels of the source's images if all are squares of one size, as rendered ones are; else None."""
        return None


@dataclass(frozen=True)
class RawSample:
    """One image with its caption as undecoded bytes.

    Attributes:
        key: name of the sample in the shards; see `files.safe_key`.
        name: name of the sample in the source, for reports.
        image: content of an image file (JPEG, PNG, WebP, GIF, BMP or TIFF).
        caption: UTF-8 text, the first one if there are several; None if there is none.
        metadata: what else the source has about the sample; annotations and filters read it.
        further: other captions of the same image, as `caption`.
        no_caption: the reason why there is no caption, for the counts.
    """

    key: str
    name: str
    image: bytes
    caption: bytes | None
    metadata: dict[str, Any] = field(default_factory=dict)
    further: Sequence[bytes] = ()
    no_caption: str = "no caption"


@dataclass(frozen=True)
class Drop:
    """Data that cannot become a sample, with the reason under which the loss is counted.

    `what` is the unit of the loss: one sample, a file or member of an archive that belongs to no sample, the rest of an
    archive, a folder, a row of a caption table without an image, one of several captions, or a sample that a rule of the
    settings removes, which is no fault of the source.
    """

    name: str
    reason: str
    what: DropUnit = "sample"


@dataclass(frozen=True)
class SourceSlice:
    """A part of a stream that can be read independently, e.g. an archive or a run of files; the unit of resuming.

    Each call of `read` starts from the first sample and must yield the same items in the same order.
    """

    name: str
    read: Callable[[], Iterator[RawSample | Drop]]


@dataclass(frozen=True)
class SampleStream:
    """A sequence of samples that belong together: all of a source, or one split of a source that is split already.

    Attributes:
        name: name in the report; must be unique.
        location: where the samples come from, for error messages. Slices of a URL (`s3://…`) are read in one process, others
            in several at once.
        slices: the parts, in the order in which they are read.
        digest: changes whenever the content changes, see `digests.digest_and_version`; results are used again if it is equal.
        split: the split of all samples; None: a hash of each key decides between `train`, `val` and `test`.
        version: changes whenever a file was touched, see `digests.digest_and_version`; an interrupted ingestion resumes only if
            it is equal. Not stored among results. "" if the digest covers every byte.
        source: the name of the source among several; its samples get shards of their own.
        group: the part of a key whose hash decides where `split` is None; samples of one group, e.g. of one patient, fall into
            one split. None: the whole key.
    """

    name: str
    location: str
    slices: Sequence[SourceSlice]
    digest: str
    split: str | None = None
    version: str = ""
    source: str = ""
    group: Callable[[str], str] | None = None

    def split_by(self, key: str) -> str:
        """Return the text whose hash decides about the split of a sample."""
        return self.group(key) if self.group else key


@dataclass(frozen=True)
class SourceContext:
    """What the ingestion passes to a source that it opens.

    Attributes:
        seed: for a source that generates its samples.
        folder: for files that a source generates or downloads, in a sub-folder with the name of the stream. Files of earlier
            runs are still there.
        skip_splits: splits that another source provides.
        digests: folder for the digests of files that were read before; None: all are read.
        fields: names of metadata that are read of a sample; a source need not keep others in memory.
    """

    seed: int
    folder: Path
    skip_splits: Collection[str] = ()
    digests: Path | None = None
    fields: Collection[str] = ()


@dataclass(frozen=True)
class TruthTarget:
    """Exact labels of one split, to be written as `folder/<split>/<modality>/shard-*.tar`.

    Attributes:
        folder: root of the shard set of truth.
        split: name of the split.
        keys: the samples that cleaning kept, in the order of the shards.
        samples_per_shard: number of keys in each shard, so that truth is aligned with the images.
    """

    folder: Path
    split: str
    keys: Sequence[str]
    samples_per_shard: int


class Source(ABC):
    """A kind of source. It has no state: everything it needs comes from its configuration."""

    title: ClassVar[str]  # a few words for people
    config_class: ClassVar[type[SourceConfig]]  # its `kind` is the name of the source
    has_truth: ClassVar[bool] = False  # whether it can write exact labels of its images

    @property
    def kind(self) -> str:
        """The value of `kind` in conf/ that selects this source."""
        return str(self.config_class.model_fields["kind"].default)

    @abstractmethod
    def open(self, config: Any, context: SourceContext) -> list[SampleStream]:
        """Return the streams of the source, in the order in which they are read.

        Args:
            config: an instance of `config_class`.
            context: seed, folder for generated files, and splits to leave out.

        Raises:
            ValueError: there is nothing to read, or it is not of this kind.
        """

    def count(self, config: Any, split_of: Callable[[str], str]) -> dict[str, int] | None:
        """Return the number of samples of each split at most, found without reading any; None if that is not possible.

        A run is refused before it starts if this is too few for its settings, or too much for the disk.

        Args:
            config: an instance of `config_class`.
            split_of: the split of a key, for streams without a fixed split.

        Raises:
            ValueError: as in `open`.
        """
        return None

    def estimate(self, config: Any) -> int | None:
        """Return about how many samples there are, within seconds; None if that is not possible.

        `kedro plan` computes from it what the results take on disk. Unlike `count`, it may look into a few files.

        Args:
            config: an instance of `config_class`.

        Raises:
            ValueError: as in `open`.
        """
        counts = self.count(config, lambda key: "train")
        return None if counts is None else sum(counts.values())

    def write_truth(self, config: Any, seed: int, target: TruthTarget) -> None:
        """Write the exact labels of one split; called only if `has_truth`.

        Args:
            config: an instance of `config_class`.
            seed: as in the context of `open`.
            target: where to write the labels, and of which samples.
        """
        raise NotImplementedError(f"Source {self.kind!r} has has_truth = True, so it must define write_truth.")


SOURCES: Registry[Source] = Registry(
    "source.kind", "Add one in a plug-in (docs/guides/add-a-source.md), or list its plug-in under `plugins` in conf/."
)


def register_source(source: Source) -> None:
    """Add a source under its kind; raises ValueError when the kind is taken."""
    SOURCES.register(source.kind, source)


def _parse_source(value: Any) -> Any:
    """Turn `{kind: ..., ...}` into an instance of the configuration class that is registered for the kind."""
    if not isinstance(value, dict):
        return value  # an instance already, or a type error that pydantic reports
    if not isinstance(value.get("kind"), str):
        raise ValueError(f"A source needs a `kind`, one of: {', '.join(SOURCES)}.")
    config_class = SOURCES.get(value["kind"]).config_class
    if unknown := sorted(map(str, set(value) - set(config_class.model_fields))):
        raise ValueError(unknown_name(f"setting of a source of kind {value['kind']!r}:", unknown[0], config_class.model_fields))
    return config_class.model_validate(value)


# The settings of any registered source: a union that is discriminated by `kind`, and grows with the plug-ins.
AnySourceConfig = Annotated[SerializeAsAny[SourceConfig], BeforeValidator(_parse_source)]
