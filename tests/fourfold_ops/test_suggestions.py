from fourfold_ops.suggestions import did_you_mean


def test_close_names_are_suggested():
    assert did_you_mean("dpeth", ["depth", "rgb"]) == " Did you mean 'depth'?"
    assert did_you_mean("sizes", ["size", "sizing"], count=2) == " Did you mean 'size' or 'sizing'?"


def test_nothing_is_suggested_for_a_name_like_no_other():
    assert did_you_mean("xyz", ["depth", "rgb"]) == ""
