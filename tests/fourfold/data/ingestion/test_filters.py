"""Filters: rules about metadata, their counts, and settings that make no sense."""

import csv

import pytest
from pydantic import ValidationError

from fourfold.data.ingestion.filters import FilterConfig, broken
from fourfold.data.ingestion.images import CleaningConfig
from fourfold.data.ingestion.ingest import IngestionConfig, ingest, ingestion_report
from tests.fourfold.data.crawls import image_bytes

SAFE = FilterConfig(name="safe", field="punsafe", max=0.5)
NICE = FilterConfig(name="nice", field="aesthetic_score", min=4, missing="drop")
ENGLISH = FilterConfig(name="language", field="lang", one_of=("en", "de"))


@pytest.mark.parametrize(
    ("metadata", "rule"),
    [
        ({"punsafe": 0.5, "aesthetic_score": 4, "lang": "EN"}, None),
        ({"punsafe": 0.51, "aesthetic_score": 4}, "filter safe (punsafe)"),
        ({"punsafe": "0.9", "aesthetic_score": 9}, "filter safe (punsafe)"),  # as CSV has it
        ({"punsafe": None, "aesthetic_score": "5.5"}, None),
        ({"punsafe": 0.1, "aesthetic_score": 3.9}, "filter nice (aesthetic_score)"),
        ({"punsafe": 0.1}, "filter nice (aesthetic_score)"),
        ({"aesthetic_score": float("nan")}, "filter nice (aesthetic_score)"),
        ({"aesthetic_score": True}, "filter nice (aesthetic_score)"),
        ({"aesthetic_score": 5, "lang": "fr"}, "filter language (lang)"),
        ({"aesthetic_score": 5, "lang": 3}, None),
    ],
)
def test_the_first_broken_rule_names_the_reason(metadata, rule):
    assert broken((SAFE, NICE, ENGLISH), metadata) == rule


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"name": "a", "field": "f"}, "Filter 'a' has no limit. Set min, max or one_of"),
        ({"name": "a", "field": "f", "min": 2, "max": 1}, "min 2.0 is above max 1.0"),
        ({"name": "a b", "field": "f", "min": 2}, "pattern"),
    ],
)
def test_a_rule_that_makes_no_sense_is_an_error(settings, message):
    with pytest.raises(ValidationError, match=message):
        FilterConfig(**settings)
    with pytest.raises(ValidationError, match=r"two rules of the name safe"):
        IngestionConfig(source={"kind": "folder", "path": "x"}, filters=(SAFE, SAFE))


def test_removed_samples_are_counted_by_rule_and_are_no_fault(tmp_path):
    (tmp_path / "in").mkdir()
    with (tmp_path / "in" / "captions.csv").open("w", newline="") as file:
        rows = csv.writer(file)
        rows.writerow(["file", "caption", "punsafe", "width"])
        for number in range(40):
            (tmp_path / "in" / f"{number}.png").write_bytes(image_bytes(number))
            rows.writerow([f"{number}.png", f"photo {number}", 0.9 if number < 15 else 0.1, 100 + number])
    config = IngestionConfig(
        source={"kind": "folder", "path": str(tmp_path / "in")},
        cleaning=CleaningConfig(min_side=16),
        filters=(SAFE, FilterConfig(name="wide", field="width", max=137)),
        image_size=16,
        val_share=0.2,
        test_share=0.2,
        max_drop_share=0.0,
    )
    shards = ingest(config, 0, tmp_path / "out")
    assert sum(shards.num_samples(split) for split in shards.splits()) == 23
    report = ingestion_report(tmp_path / "out")
    assert report["by_source"]["source"]["removals_dropped"] == {"filter safe (punsafe)": 15, "filter wide (width)": 2}
    assert report["seen"] == 40 and report["drop_share"] == 0.0 and "15" not in str(report["dropped"])
