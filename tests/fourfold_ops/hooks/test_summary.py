"""The end of a run: a summary in the terminal, and a copy of the page that names the run."""

import pytest

from fourfold_ops.hooks import summary

PAGE = "metadata: {show: Report, record: artifact, page: data/page.html}"


@pytest.fixture
def paged(miniature):
    """The miniature, whose report has a copy; its settings name no planner, so no stage counts as reused."""
    catalog = (miniature.folder / "conf/base/catalog.yml").read_text()
    miniature.write("conf/base/catalog.yml", catalog.replace("metadata: {show: Report}", PAGE))
    return miniature


def test_a_run_ends_with_stages_and_places_and_copies_the_page(paged, capsys):
    paged.run()
    (parent,) = paged.recorded("parent")
    lines = [" ".join(line.split()) for line in capsys.readouterr().err.splitlines()]
    wanted = ["making run", "tuning run", "judging run", f"Run {parent.info.run_id}", "Report data/page.html", "Runs make ui"]
    assert [line for line in lines if line in wanted] == wanted
    page, copy = (paged.folder / name for name in ("data/03_judged/report.html", "data/page.html"))
    assert parent.info.run_id[:8] in copy.read_text() and parent.info.run_id[:8] not in page.read_text()
    for run in (parent, *paged.recorded("judging")):
        artifact = paged.folder / "data/mlflow_artifacts" / run.info.run_id / "artifacts/results/page.html"
        assert artifact.read_bytes() == copy.read_bytes()
    assert not (paged.folder / "data/mlflow_artifacts" / paged.recorded("making")[0].info.run_id / "artifacts").exists()


def test_a_summary_that_fails_does_not_fail_the_run(paged, capsys, monkeypatch):
    def full_disk(*_):
        raise OSError("No space left on device")

    monkeypatch.setattr(summary, "write_copy", full_disk)
    monkeypatch.setattr(summary.Work, "of", full_disk)
    assert set(paged.run()) == {"report"}
    told = capsys.readouterr().err
    assert told.count("No space left on device") == 2 and "Report  data/03_judged/report.html" in told
    assert paged.recorded("parent")[0].info.status == "FINISHED"
