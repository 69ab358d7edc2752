"""The rendered scenes as a source of images and captions, with exact labels."""

from collections.abc import Callable

from fourfold.data.ingestion.sources import SampleStream, Source, SourceContext, TruthTarget
from fourfold.data.ingestion.sources.webdataset import WebdatasetConfig, open_tars
from fourfold.scenes.world import ScenesConfig, write_crawl, write_truth


class ScenesSource(Source):
    """Renders each split as an img2dataset crawl and reads it as one, so that scenes are cleaned like real data."""

    title = "rendered scenes with exact labels"
    config_class = ScenesConfig
    has_truth = True

    def open(self, config: ScenesConfig, context: SourceContext) -> list[SampleStream]:  # noqa: D102
        splits = [split for split, count in config.num_samples.items() if count and split not in context.skip_splits]
        for split in splits:
            write_crawl(context.folder, split, context.seed, config)
        configs = {split: WebdatasetConfig(path=str(context.folder / split), digest="content") for split in sorted(splits)}
        return [open_tars(config, split, split) for split, config in configs.items()]

    def count(self, config: ScenesConfig, split_of: Callable[[str], str]) -> dict[str, int]:  # noqa: D102
        return {split: count for split, count in config.num_samples.items() if count}

    def write_truth(self, config: ScenesConfig, seed: int, target: TruthTarget) -> None:  # noqa: D102
        write_truth(target.folder, target.split, target.keys, seed, config, target.samples_per_shard)
