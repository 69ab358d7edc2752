"""All configured benchmarks of one model: scores, files for the servers, a report, and a list of what is there."""

import logging
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from fourfold.data.shards import ShardSet
from fourfold.evaluation.benchmarks.official import OfficialBenchmark, OfficialModel, Run, score_official
from fourfold.evaluation.benchmarks.protocol import BENCHMARKS
from fourfold.evaluation.config import BenchmarkConfig, EvaluationConfig
from fourfold.evaluation.report.benchmarks import benchmark_page, text_table
from fourfold.labelers.protocol import ImageTextEncoder
from fourfold.metrics.running import Bootstrap
from fourfold.modalities.class_table import ClassTable
from fourfold.storage import write_bytes, write_json

logger = logging.getLogger(__name__)
RESULTS_FILE, REPORT_FILE, PREDICTIONS = "results.json", "report.html", "predictions"


@dataclass(frozen=True)
class BenchmarkSubject:
    """The model that is scored, and what is known about it."""

    model: OfficialModel
    name: str  # as the user named it
    encoder: ImageTextEncoder | None = None
    class_table: ClassTable | None = None


def known_class_table(labels: ShardSet) -> ClassTable | None:
    """Return what the class ids of a data set's segmentation mean; None without one."""
    splits = [split for split in labels.splits() if "semseg" in labels.modalities(split)]
    return labels.class_table(splits[0]) if splits else None


def official(config: BenchmarkConfig) -> OfficialBenchmark:
    """Return the official benchmark of a configuration.

    Raises:
        ValueError: the reader is unknown, or is held in memory and scored with the data set of the run.
    """
    found = BENCHMARKS.get(config.reader)
    if isinstance(found, OfficialBenchmark):
        return found
    raise ValueError(
        f"{config.reader} is scored by `kedro run --pipelines=evaluation`. Leave it out here; see `kedro bench list`."
    )


def run_suite(subject: BenchmarkSubject, config: EvaluationConfig, seed: int, folder: Path) -> tuple[dict[str, Any], str]:
    """Score a model on every benchmark of `config.benchmarks` whose data are there; the others are named in the log.

    Args:
        subject: the model.
        config: names the benchmarks and their folders.
        seed: of generation and of the bootstrap.
        folder: gets `<name>/results.json`, `<name>/report.html` and `<name>/predictions/`.

    Returns:
        The scores by benchmark, and the report of all of them as HTML.

    Raises:
        ValueError: no benchmark is configured, or data of all of them are missing.
    """
    if not config.benchmarks:
        raise ValueError(
            "No benchmark is configured under evaluation.benchmarks. Choose an environment, e.g. --env=nyuv2; "
            "`kedro bench list` shows all."
        )
    chosen, absent = with_data(config.benchmarks)
    if not chosen:
        raise absent[0]
    for problem in absent:
        logger.warning("Left out: %s", problem)
    results = {}
    for name, (benchmark, settings) in chosen.items():
        run = Run(
            model=subject.model,
            config=settings,
            bootstrap=Bootstrap(seed, benchmark.name, config.replicates),
            encoder=subject.encoder,
            class_table=subject.class_table,
            seed=seed,
            folder=folder / name / PREDICTIONS,
        )
        results[name] = score_official(benchmark, run) | {"model": subject.name}
        write_json(folder / name / RESULTS_FILE, without_images(results[name]))
        write_bytes(folder / name / REPORT_FILE, benchmark_page({name: results[name]}).encode())
        logger.info("%s\n%s", name, text_table(results[name]))
    scores = {name: {"samples": result["samples"], **result["scores"]} for name, result in results.items()}
    return scores, benchmark_page(results)


def with_data(
    configured: Mapping[str, BenchmarkConfig],
) -> tuple[dict[str, tuple[OfficialBenchmark, BenchmarkConfig]], list[ValueError]]:
    """Return the benchmarks whose data are there, by name, and the errors about the others.

    Raises:
        ValueError: a split is unknown.
    """
    chosen, absent = {}, []
    for name, settings in configured.items():
        benchmark = official(settings)
        split = settings.split or benchmark.split
        try:
            benchmark.check(settings.path, split)
            chosen[name] = (benchmark, settings)
        except ValueError as error:
            if split not in benchmark.splits:
                raise
            absent.append(error)
    return chosen, absent


def without_images(result: Mapping[str, Any]) -> dict[str, Any]:
    """Return a result as a JSON value: of the failures, only keys, errors and texts."""
    failures = [
        {**entry, "shown": {title: value for title, value in entry["shown"] if isinstance(value, str)}}
        for entry in result["failures"]
    ]
    return {**result, "failures": failures}


@dataclass(frozen=True)
class Listed:
    """A benchmark in the list of all of them."""

    name: str
    title: str
    environment: str  # "" without one
    site: str
    layout: tuple[str, ...]  # of the default split
    path: Path | None  # as configured; None: no environment names it
    missing: tuple[str, ...]


def list_benchmarks(configured: Mapping[str, Mapping[str, Any]]) -> list[Listed]:
    """Return all official benchmarks with what their data need and what of it is missing.

    Args:
        configured: by environment, the section `evaluation.benchmarks` of its parameters.
    """
    places = {  # of several environments the one with the fewest benchmarks, which is about this one
        settings["reader"]: (environment, BenchmarkConfig(**settings))
        for environment, section in sorted(configured.items(), key=lambda item: -len(item[1]))
        for settings in section.values()
    }
    rows = []
    for name, benchmark in BENCHMARKS.items():
        if isinstance(benchmark, OfficialBenchmark):
            environment, config = places.get(name, ("", None))
            split = (config and config.split) or benchmark.split
            layout = tuple(pattern.format(split=split).replace("|", " or ") for pattern in benchmark.layout)
            absent = layout if config is None else tuple(benchmark.missing(config.path, split))
            path = None if config is None else config.path
            rows.append(Listed(name, benchmark.title, environment, benchmark.site, layout, path, absent))
    return rows
