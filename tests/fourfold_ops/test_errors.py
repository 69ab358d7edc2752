from kedro.io import DatasetError

from fourfold_ops.errors import UserError, one_line


def test_one_line_shows_the_cause_and_the_remedy():
    cause = UserError("Too\n  large.", "Lower it.")
    wrapped = DatasetError("Failed while saving data to dataset X(filepath=..., a=1)")
    wrapped.__cause__ = cause
    assert one_line(wrapped) == "Too large. Lower it."
    assert one_line(KeyError("depth")) == "KeyError: 'depth'"
    assert one_line(ValueError("No such modality.")) == "No such modality."
