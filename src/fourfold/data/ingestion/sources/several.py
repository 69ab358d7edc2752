"""Several sources in one run, each with its own form, captions and license.

    ingestion:
      source:
        kind: several
        sources:
          mine: {kind: folder, path: photos, license: CC-BY-4.0}
          crawl: {kind: webdataset, path: "crawl/{00000..00099}.tar"}

A shard holds samples of one source and has its name: `shard-00000-mine.tar`. Pretraining can give each a weight
(`pretraining.datasets`).
"""

from collections import Counter
from collections.abc import Callable
from dataclasses import replace
from typing import Annotated, Literal

from pydantic import Field, StringConstraints, field_validator

from fourfold.data.ingestion.sources.source import (
    SOURCES,
    AnySourceConfig,
    SampleStream,
    Source,
    SourceConfig,
    SourceContext,
)

SourceName = Annotated[str, StringConstraints(pattern=r"^[a-z][a-z0-9_]{0,30}$")]


class SeveralConfig(SourceConfig):
    """Settings of several sources; they are read in the order in which they are listed."""

    kind: Literal["several"] = "several"
    sources: dict[SourceName, AnySourceConfig] = Field(min_length=2)  # by names of your choice

    @field_validator("sources")
    @classmethod
    def _have_no_truth(cls, value: dict[str, SourceConfig]) -> dict[str, SourceConfig]:
        for name, config in value.items():
            if isinstance(config, SeveralConfig) or SOURCES.get(config.kind).has_truth:
                raise ValueError(
                    f"{name} is of kind {config.kind!r}, which cannot be one of several sources. Use it as ingestion.source or "
                    "ingestion.supplement."
                )
        return value


class SeveralSource(Source):
    """Reads one source after the other."""

    title = "several sources"
    config_class = SeveralConfig

    def open(self, config: SeveralConfig, context: SourceContext) -> list[SampleStream]:
        """Return the streams of all sources; each names the source that it belongs to."""
        streams = []
        for name, one in config.sources.items():
            own = replace(context, folder=context.folder / name)
            found = SOURCES.get(one.kind).open(one, own)
            streams += [_of_source(name, stream, is_only=len(found) == 1) for stream in found]
        return streams

    def count(self, config: SeveralConfig, split_of: Callable[[str], str]) -> dict[str, int] | None:  # noqa: D102
        total, is_known = Counter[str](), True  # all are checked, also if one cannot tell
        for one in config.sources.values():
            counts = SOURCES.get(one.kind).count(one, split_of)
            total.update(counts or {})
            is_known &= counts is not None
        return dict(total) if is_known else None

    def estimate(self, config: SeveralConfig) -> int | None:  # noqa: D102
        found = [SOURCES.get(one.kind).estimate(one) for one in config.sources.values()]
        known = [count for count in found if count is not None]
        return sum(known) if len(known) == len(found) else None


def _of_source(name: str, stream: SampleStream, is_only: bool) -> SampleStream:
    """Return a stream of one of several sources, whose name and parts differ from those of the others."""
    parts = [replace(part, name=f"{name}: {part.name}") for part in stream.slices]
    return replace(stream, name=name if is_only else f"{name}-{stream.name}", slices=parts, source=name)


def each_source(config: SourceConfig) -> dict[str, SourceConfig]:
    """Return the sources of a configuration by name: those of `several`, or the one under the name ""."""
    return dict(config.sources) if isinstance(config, SeveralConfig) else {"": config}
