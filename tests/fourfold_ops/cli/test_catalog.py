"""Where commands find what the catalog names."""

from pathlib import Path

import pytest

from fourfold_ops.cli.catalog import catalog_path
from fourfold_ops.errors import UserError

ROOT = Path(__file__).parents[3]


def test_path_is_that_of_the_catalog(monkeypatch):
    monkeypatch.chdir(ROOT)
    assert catalog_path("any_to_any") == Path("data/04_models/any_to_any")
    assert catalog_path("metrics", "smoke") == Path("data/05_reports/metrics.json")


def test_path_is_the_same_from_a_subfolder(monkeypatch):
    monkeypatch.chdir(ROOT / "docs")
    assert catalog_path("any_to_any") == ROOT / "data" / "04_models" / "any_to_any"
    monkeypatch.chdir("/")
    assert catalog_path("any_to_any", start=ROOT).is_relative_to(ROOT.relative_to("/"))


def test_missing_path_and_missing_project_are_reported(monkeypatch, tmp_path):
    monkeypatch.chdir(ROOT)
    with pytest.raises(UserError, match="no path for 'metric_log'"):
        catalog_path("metric_log")
    monkeypatch.chdir(tmp_path)
    with pytest.raises(UserError, match="not in a project"):
        catalog_path("any_to_any")
