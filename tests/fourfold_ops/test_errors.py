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
    error.exit_code = 75
    assert exit_code(error) == 75
