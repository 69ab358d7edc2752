import contextlib
import json
import re

import pytest
from kedro.validation.exceptions import DataValidationError

from fourfold_ops.quality import GreatExpectations

ROWS = [{"key": f"k{i}", "width": 64, "split": "train"} for i in range(20)]


def rows_of(data, extra=()):
    return [*data, *extra]


def check(tmp_path, expectations, rows=None, **options):
    options = {"suite": "samples", "path": str(tmp_path / "quality"), "table": f"{__name__}.rows_of", "key": "key", **options}
    return GreatExpectations(expectations=expectations, **options).validate(ROWS if rows is None else rows)


@pytest.fixture(autouse=True)
def importable(monkeypatch):
    """Make this file importable by name: the validator imports the function of the table."""
    import sys

    monkeypatch.setitem(sys.modules, __name__, sys.modules.get(__name__) or type(sys)(__name__))
    monkeypatch.setattr(sys.modules[__name__], "rows_of", rows_of, raising=False)


UNIQUE = [{"type": "expect_column_values_to_be_unique", "column": "key"}]


def test_valid_data_passes_unchanged_and_leaves_a_page(tmp_path):
    assert check(tmp_path, UNIQUE) is ROWS
    files = {path.relative_to(tmp_path / "quality").as_posix() for path in (tmp_path / "quality").rglob("*") if path.is_file()}
    assert files == {"samples.html", "index.html", "results/samples.json"}  # and no data docs of Great Expectations
    assert "all 1 expectations hold" in (tmp_path / "quality/samples.html").read_text()


def test_the_index_lists_the_latest_result_of_each_suite(tmp_path):
    small = [{"type": "expect_column_values_to_be_between", "column": "width", "max_value": 9, "severity": "warning"}]
    for suite, expectations in (("samples", small), ("others", small), ("samples", UNIQUE)):
        check(tmp_path, expectations, suite=suite)
    index = (tmp_path / "quality/index.html").read_text()
    rows = re.findall(r'<td class="(\w+)">.*?href="(\w+)\.html".*?<td>([^<]*)</td><td>20</td>', index)
    assert rows == [("failed", "others", "1 of 1 expectations failed"), ("passed", "samples", "1 hold")]
    assert json.loads((tmp_path / "quality/results/others.json").read_text())["outcomes"][0]["success"] is False


@pytest.fixture
def checks(monkeypatch):
    """Return the list of suites that Great Expectations has checked."""
    from fourfold_ops.quality import suite

    names, run_suite = [], suite.run_suite

    def counted(name, *arguments):
        names.append(name)
        return run_suite(name, *arguments)

    monkeypatch.setattr(suite, "run_suite", counted)
    return names


def test_equal_table_is_checked_once_and_any_change_checks_again(tmp_path, checks, caplog):
    caplog.set_level("INFO")
    wide = [*UNIQUE, {"type": "expect_column_values_to_be_between", "column": "width", "min_value": 64}]
    for _ in range(2):
        check(tmp_path, UNIQUE)
    assert len(checks) == 1 and "20 rows meet 1 expectations (checked before)." in caplog.text
    wider = [{**ROWS[0], "width": 65}, *ROWS[1:]]
    for count, options in enumerate(({"expectations": wide}, {"rows": ROWS[1:]}, {"rows": wider}, {"key": None})):
        check(tmp_path, **{"expectations": UNIQUE, **options})
        assert len(checks) == 2 + count
    check(tmp_path, UNIQUE)
    assert len(checks) == 6
    for name in ("index.html", "samples.html"):
        (tmp_path / "quality" / name).unlink()
    check(tmp_path, UNIQUE)
    assert len(checks) == 6 and "samples.html" in (tmp_path / "quality/index.html").read_text()
    assert (tmp_path / "quality/samples.html").exists()
    (tmp_path / "quality/results/samples.json").write_text('{"digest')
    check(tmp_path, UNIQUE)
    assert len(checks) == 7


def test_unmet_expectations_are_checked_each_time(tmp_path, checks):
    for severity in ("critical", "warning"):
        short = [{"type": "expect_column_values_to_be_between", "column": "width", "max_value": 60, "severity": severity}]
        for _ in range(2):
            with contextlib.suppress(DataValidationError):
                check(tmp_path, short)
    assert len(checks) == 4


@pytest.mark.parametrize("damage", ["", "{}", '{"suite": "{}", "key": [], "result": {}}', "[1]", '{"outcomes": [1]}'])
def test_unreadable_record_does_not_stop_a_check(tmp_path, damage):
    for name in ("samples", "others"):
        (tmp_path / "quality/results").mkdir(parents=True, exist_ok=True)
        (tmp_path / f"quality/results/{name}.json").write_text(damage)
    assert check(tmp_path, UNIQUE) is ROWS
    assert "others" not in (tmp_path / "quality/index.html").read_text()  # until it is checked again


def test_process_killed_while_it_records_leaves_nothing_that_stops_the_next(tmp_path, monkeypatch):
    from fourfold_ops.quality import record

    def killed(*_):
        raise SystemExit(75)

    for name in ("write_whole", "index_page"):
        check(tmp_path, UNIQUE, suite="others")
        (tmp_path / "quality/results/samples.json").unlink(missing_ok=True)  # else an equal table is not checked again
        with monkeypatch.context() as patch, pytest.raises(SystemExit):
            patch.setattr(record, name, killed)
            check(tmp_path, UNIQUE)
        assert check(tmp_path, UNIQUE) is ROWS
    assert "others.html" in (tmp_path / "quality/index.html").read_text()


def test_critical_failure_names_expectation_rows_and_examples(tmp_path):
    bad = [{"key": "k3", "width": 64, "split": "train"}, {"key": "x", "width": 63, "split": "train"}]
    expectations = [
        {"type": "expect_column_values_to_be_unique", "column": "key"},
        {"type": "expect_column_values_to_be_between", "column": "width", "min_value": 64},
        {"type": "expect_table_row_count_to_be_between", "min_value": 50},
        {"type": "expect_column_values_to_be_between", "column": "height", "min_value": 64},
    ]
    with pytest.raises(DataValidationError) as error:
        check(tmp_path, expectations, arguments={"extra": bad})
    told = str(error.value)
    assert "expect_column_values_to_be_unique on 'key' fails in 2 of 22 rows, e.g. k3, k3" in told
    assert "expect_column_values_to_be_between on 'width' (min_value=64" in told
    assert "fails in 1 of 22 rows, e.g. x: 63" in told
    assert "expect_table_row_count_to_be_between (min_value=50) found 22" in told
    assert "'height' could not be checked" in told
    assert "index.html" in error.value.remedy


def test_warning_is_logged_and_does_not_stop_the_run(tmp_path):
    expectations = [
        {"type": "expect_column_values_to_be_in_set", "column": "split", "value_set": ["val"], "severity": "warning"}
    ]
    assert check(tmp_path, expectations) is ROWS


def test_empty_table_fails(tmp_path):
    with pytest.raises(DataValidationError, match=r"row_count.*found 0"):
        check(tmp_path, [{"type": "expect_column_values_to_be_unique", "column": "key"}], rows=[])


def test_misspelled_expectation_gets_a_suggestion(tmp_path):
    with pytest.raises(Exception, match=r"Did you mean .expect_column_values_to_be_unique. or "):
        check(tmp_path, [{"type": "expect_column_values_to_be_uniqe", "column": "key"}])
    with pytest.raises(ValueError, match="allowed are critical, warning, info"):
        check(tmp_path, [{"type": "expect_column_to_exist", "column": "key", "severity": "fatal"}])


def test_failed_expectation_stops_the_run_and_is_recorded(miniature):
    content = (miniature.folder / "conf/base/catalog.yml").read_text()
    validator = {
        "class": "fourfold_ops.quality.GreatExpectations",
        "on": ["save"],
        "options": {
            "suite": "tuned",
            "path": "data/quality",
            "table": f"{miniature.package}.facts.table",
            "expectations": [{"type": "expect_column_max_to_be_between", "column": "sum", "max_value": 1.0}],
        },
    }
    tuned = {"type": "fourfold_ops.datasets.JsonDataset", "filepath": "data/02_tuned/tuned.json", "validator": validator}
    lines = [line for line in content.splitlines() if not line.startswith("tuned:")]
    miniature.write("conf/base/catalog.yml", "\n".join([*lines, f"tuned: {json.dumps(tuned)}\n"]))
    miniature.write(f"{miniature.package}/facts.py", "def table(data):\n    return [data]\n")
    from fourfold_ops.errors import one_line

    with pytest.raises(Exception, match="sum") as error:
        miniature.run()
    told = one_line(error.value)
    assert told.startswith("Dataset 'tuned' does not meet its expectations. Suite 'tuned': expect_column_max_to_be_between")
    assert "\n" not in told and "found 1.5" in told
    (run,) = miniature.recorded("tuning")
    assert run.info.status == "FAILED"
    assert run.data.metrics["quality/tuned/failed"] == 1
    assert (miniature.folder / "data/quality/index.html").exists()


def test_expectation_with_row_condition_and_several_columns(tmp_path):
    depth = {"key": "a", "split": "x", "modality": "depth", "min": 0.5}
    mixed = [depth, {**depth, "modality": "rgb", "min": -1.0}]
    condition = {"row_condition": 'modality=="depth"', "condition_parser": "pandas"}
    positive = {"type": "expect_column_values_to_be_between", "column": "min", "min_value": 0}
    unique = {"type": "expect_compound_columns_to_be_unique", "column_list": ["split", "modality", "key"]}
    assert check(tmp_path, [{**positive, **condition}, unique], rows=mixed) is mixed
    with pytest.raises(DataValidationError, match=r"compound_columns.*fails in 2 of 4 rows"):
        check(tmp_path, [unique], rows=[*mixed, {**depth, "modality": "rgb"}, {**depth, "key": "b"}])
