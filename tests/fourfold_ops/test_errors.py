import errno
import sqlite3

from kedro.io import DatasetError

from fourfold_ops.errors import EXIT_CONFIGURATION, EXIT_FAILED, UserError, exit_code, location_of, one_line, set_location


def test_one_line_shows_the_cause_and_the_remedy():
    cause = UserError("Too\n  large.", "Lower it.")
    wrapped = DatasetError("Failed while saving data to dataset X(filepath=..., a=1)")
    wrapped.__cause__ = cause
    assert one_line(wrapped) == "Too large. Lower it."
    assert one_line(KeyError("depth")) == "KeyError: 'depth'"
    assert one_line(ValueError("No such modality.")) == "No such modality."


def test_first_location_of_an_error_stays():
    error = ValueError("No such modality.")
    assert location_of(error) == ""
    set_location(error, "pretraining, node pretrain_model")
    set_location(error, "elsewhere")
    assert location_of(error) == "pretraining, node pretrain_model"


def test_exit_code_separates_configuration_errors_from_failures():
    error = RuntimeError("out of memory")
    assert exit_code(error) == EXIT_FAILED
    assert exit_code(UserError("Wrong key.")) == EXIT_CONFIGURATION
    early, late = ValueError("No such pipeline."), ValueError("No such modality.")
    set_location(late, "pretraining, node pretrain_model")
    assert (exit_code(early), exit_code(late)) == (EXIT_CONFIGURATION, EXIT_FAILED)
    error.exit_code = 75
    assert exit_code(error) == 75


def test_errors_of_the_system_and_of_the_store_are_plain():
    full = OSError(errno.ENOSPC, "No space left on device", "data/04_models/x")
    assert one_line(full) == "data/04_models/x: No space left on device. Free some space; the next run continues."
    damaged = RuntimeError("disk I/O error\n[SQL: SELECT 1]")
    assert one_line(damaged) == "RuntimeError: disk I/O error"


def test_error_of_the_record_of_runs_has_no_statement_and_a_remedy():
    expected = "The record of runs (MLflow, SQLite): database or disk is full. Free some space; the next run continues."
    assert one_line(sqlite3.OperationalError("database or disk is full")) == expected
    text = "(raised by autoflush)\n(sqlite3.OperationalError) database or disk is full\n[SQL: UPDATE runs SET x=?]\n"
    assert one_line(RuntimeError(text)) == expected
    assert one_line(UserError("data/mlflow.db (sqlite3.DatabaseError) is damaged.", "Rename it.")).endswith(
        "damaged. Rename it."
    )
    assert one_line(sqlite3.OperationalError("no such table: runs")).endswith("no such table: runs.")
