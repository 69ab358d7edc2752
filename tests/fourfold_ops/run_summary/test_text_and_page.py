"""The summary of a run: short and aligned in the terminal, complete and escaped on the page."""

from datetime import UTC, datetime

import pytest

from fourfold_ops.run_summary.facts import MetricFact, ModelFact, RunFacts, StageFact, SuiteFact, run_url
from fourfold_ops.run_summary.page import MARK, head_html, with_head, write_copy
from fourfold_ops.run_summary.text import number, signed, summary_text
from fourfold_ops.tracking import names

TAGS = {
    names.ENVIRONMENT: "smoke",
    names.COMMIT: "0123456789abcdef",
    names.DIRTY: "true",
    names.WARNINGS: "The code had <changes>.",
    names.COMMAND: "kedro run --env=smoke",
    names.LOCK_MD5: "feed" * 8,
    "mlflow.source.git.repoURL": "https://***@git.example.org/team/repo.git",
}
FACTS = RunFacts(
    run_id="abcdef1234567890",
    tags=TAGS,
    seed=3,
    ended=datetime(2026, 11, 30, 6, 5, tzinfo=UTC),
    url="http://127.0.0.1:5000/#/experiments/1/runs/abcdef1234567890",
    stages=[
        StageFact("ingestion", "reused", 50.0, 1_500_000),
        StageFact("tuning", "not run"),
        StageFact("evaluation", "run", 130.0, 2000),
    ],
    model=ModelFact("fourfold", "4", ("candidate",), champion="3"),
    metrics=[
        MetricFact("rgb->depth/abs_rel", True, 0.0279, 0.192, 0.03, "better"),
        MetricFact("caption->rgb/clip_recall_at_10", False, 0.973, 0.017, None, ""),
    ],
    suites=[SuiteFact("labels", 4, 1), SuiteFact("shards", 6, 0)],
    places={"Report": "data/report.html"},
    uncommitted=("dvc.lock",),
)


def test_the_terminal_ends_with_stages_metrics_origin_and_places():
    text = summary_text(FACTS)
    assert max(map(len, text.splitlines())) <= 80
    lines = [" ".join(line.split()) for line in text.splitlines()]
    for line in (
        "ingestion reused 1.5 MB",
        "evaluation run 2 min 2.0 kB",
        "Metric Model Trivial Champion 3",
        "rgb->depth/abs_rel ↓ 0.0279 0.192 0.0300 better",
        "caption->rgb/clip_recall_at_10 ↑ 0.973 0.0170 –",
        "Run abcdef1234567890",
        "Code commit 0123456, uncommitted changes; environment smoke",
        "Model fourfold, version 4 (candidate)",
        "Checks labels (1 of 4 failed)",
        "Report data/report.html",
        "Runs make ui",
        "Record it git add dvc.lock && git commit -m 'Record the run'",
        "Promote it kedro models promote candidate --env=smoke",
    ):
        assert line in lines
    assert "tuning" not in text  # the run had nothing to do with it
    depth, recall = (next(line for line in text.splitlines() if name in line) for name in ("abs_rel", "clip_recall"))
    assert depth.index("0.0279") + 6 == recall.index("0.973") + 5  # numbers end in the same column


def test_without_a_champion_and_without_a_record_lines_are_left_out():
    first = summary_text(RunFacts(model=ModelFact("m", "1"), metrics=[MetricFact("a/b", False, 0.5)]))
    assert "Champion" not in first and "Promote" not in first and "Record it" not in first and "–" in first
    assert summary_text(RunFacts()) == "  Runs  make ui"
    assert summary_text(RunFacts(url="https://mlflow.example.org/#/x")) == "  Runs  https://mlflow.example.org/#/x"
    own = RunFacts(model=ModelFact("m", "1", ("champion",), champion="1"), metrics=[MetricFact("a/b", False, 0.5)])
    assert "Champion" not in summary_text(own)


def test_the_head_has_origin_difference_and_warnings_escaped():
    head = head_html(FACTS)
    for text in (
        "The code had &lt;changes&gt;.",
        '<a href="https://git.example.org/team/repo/commit/0123456789abcdef"><code>0123456</code></a>, with uncommitted',
        "2026-11-30 06:05 UTC",
        "<dt>Seed</dt><dd>3</dd>",
        "version 3",
        "<td>-0.0021</td>",
        '<tr><th scope="row">ingestion</th><td class="left">reused</td><td>–</td><td>1.5 MB</td></tr>',
        '<tr><th scope="row">evaluation</th><td class="left">run</td><td>2 min</td><td>2.0 kB</td></tr>',
        "(after <code>make ui</code>)",
        '<td class="worse">1</td>',
        "kedro run --env=smoke",
    ):
        assert text in head
    empty = head_html(RunFacts())
    assert "warning" not in empty[empty.index("<section") :] and "<table>" not in empty and "None" not in empty


@pytest.mark.parametrize(
    ("page", "before", "after"),
    [
        (f"<body>\n{MARK}\n<h1>A</h1></body>", "<body>", "<h1>A</h1>"),
        ('<body class="x"><h1>A</h1></body>', '<body class="x">', "<h1>A</h1>"),
        ("<h1>A</h1>", "", "<h1>A</h1>"),
    ],
)
def test_the_head_is_the_first_thing_on_the_page(page, before, after):
    result = with_head(page, FACTS)
    assert result.startswith(before) and result.index('class="run"') < result.index(after)
    assert result.count("<section") == 1 and MARK not in result


def test_a_copy_leaves_the_page_as_it_is(tmp_path):
    (tmp_path / "page.html").write_text(page := f"<body>{MARK}ü</body>", encoding="utf-8")
    write_copy(tmp_path / "page.html", tmp_path / "copy.html", FACTS)
    assert (tmp_path / "page.html").read_text(encoding="utf-8") == page
    assert (tmp_path / "copy.html").read_text(encoding="utf-8") == with_head(page, FACTS)


@pytest.mark.parametrize(
    ("remote", "expected"),
    [
        ("git@github.com:team/repo.git", "https://github.com/team/repo/commit/c"),
        ("https://gitlab.com/a/b/c", "https://gitlab.com/a/b/c/commit/c"),
        ("ssh://git@host.example.org/a/b.git", "https://host.example.org/a/b/commit/c"),
        ("/home/ada/project", ""),
        ("javascript:alert(1)", ""),
        ("", ""),
    ],
)
def test_only_hosted_repositories_are_linked(remote, expected):
    assert RunFacts(tags={names.COMMIT: "c", "mlflow.source.git.repoURL": remote}).commit_url == expected


def test_runs_of_a_file_are_shown_by_make_ui():
    assert run_url("sqlite:////x/mlflow.db", "1", "r") == "http://127.0.0.1:5000/#/experiments/1/runs/r"
    assert run_url("https://mlflow.example.org/", "1", "r") == "https://mlflow.example.org/#/experiments/1/runs/r"


def test_differences_have_their_sign():
    assert [signed(v) for v in (-0.6146, 0.0044, 0.0)] == ["-0.615", "+0.0044", "0.000"]


def test_numbers_have_about_three_digits():
    assert [number(v) for v in (None, 0.0, 0.01234, 0.5, 1.0, 2.345, 53.9, -0.2)] == [
        "–", "0.000", "0.0123", "0.500", "1.000", "2.35", "53.9", "-0.200",
    ]  # fmt: skip
