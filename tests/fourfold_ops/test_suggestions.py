from fourfold_ops.suggestions import did_you_mean


def test_close_names_are_suggested():
    assert did_you_mean("dpeth", ["depth", "rgb"]) == " Did you mean 'depth'?"
    assert did_you_mean("size", ["sizes", "sized", "rgb"], count=2) == " Did you mean 'sizes' or 'sized'?"


def test_no_suggestion_without_a_close_name():
    assert did_you_mean("xyz", ["depth", "rgb"]) == ""
