"""Every page that a run writes opens without a network and runs nothing."""

import re
import subprocess
import sys
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parents[1] / "support"))
from offline import loads

from fourfold.evaluation.report.page import MARK as PLACE
from fourfold_ops.run_summary.page import MARK


def text_of(path: Path) -> str:
    return path.read_text(encoding="utf-8")


HARMLESS = '<a href="https://example.org">x</a><img src="data:image/png;base64,AA=="><svg><use xlink:href="#a"/></svg>'


@pytest.mark.parametrize(
    "harm",
    [
        '<img src="https://example.org/x.png">',
        '<img alt="" srcset="//example.org/x.png 2x">',
        "<script>1</script>",
        '<link rel="stylesheet" href="style.css">',
        "<style>@import 'https://example.org/x.css';</style>",
        '<p style="background: url(http://example.org/x.png)">',
        '<svg><image href="https://example.org/x.png"/></svg>',
        '<meta http-equiv="refresh" content="0; url=https://example.org">',
        '<p onclick="alert(1)">',
        '<iframe src="x.html"></iframe>',
    ],
)
def test_the_check_finds_what_a_page_loads(harm):
    assert loads(HARMLESS) == [] and loads(HARMLESS + harm)


def test_no_page_of_a_run_loads_anything(finished):
    files = {path.relative_to(finished).as_posix(): path for path in finished.glob("data/**/*.html")}
    # the code that a registered model carries has the page of the demo, which a server sends with its own files
    pages = {name: text_of(path) for name, path in files.items() if "/artifacts/code/" not in name}
    assert {f"data/{name}.html" for name in ("report", "05_reports/report", "quality/index", "quality/labels")} <= set(pages)
    assert sum(name.endswith("/artifacts/results/report.html") for name in pages) == 2  # in the runs of parent and stage
    assert {name: found for name, page in pages.items() if (found := loads(page))} == {}


def test_the_copy_of_the_report_names_the_run_and_the_report_does_not(finished):
    report, copy = (text_of(finished / f"data/{name}.html") for name in ("05_reports/report", "report"))
    commit = subprocess.run(
        ["git", "rev-parse", "HEAD"], cwd=finished, capture_output=True, text=True, check=True
    ).stdout.strip()
    assert PLACE == MARK and MARK in report and MARK not in copy
    before, _, after = report.partition(MARK)
    assert copy.startswith(before) and copy.endswith(after)
    assert commit[:7] in copy and commit[:7] not in report
    for text in ("fourfold, version 1 (candidate)", "<dt>Environment</dt><dd>tiny</dd>", "<dt>Seed</dt><dd>0</dd>"):
        assert text in copy and text not in report
    assert not re.search(r"\d{4}-\d\d-\d\d", report)  # no date
    stages = re.findall(r'<tr><th scope="row">(\w+)</th><td class="left">(\w[\w ]*)</td>', copy[len(before) : -len(after)])
    assert stages == [(name, "run") for name in (
        "ingestion", "pseudo_labeling", "tokenizer_training", "pretraining", "finetuning", "evaluation"
    )]  # fmt: skip
    artifacts = finished.glob("data/mlflow_artifacts/*/artifacts/results/report.html")
    assert [text_of(path) for path in artifacts] == [copy, copy]
