from fourfold_ops.tracking.provenance import flat


def test_nested_parameters_get_dotted_names():
    nested = {"a": {"b": 1, "c": []}, "d": [{"e": 2}, 3], "f": [1, 2]}
    assert flat(nested) == {"a.b": 1, "a.c": [], "d.0.e": 2, "d.1": 3, "f": [1, 2]}
    assert flat({}) == {}
