import pytest

from fourfold_ops.hooks.threads import pin_threads


def test_threads_are_pinned_for_this_process_and_its_children(monkeypatch):
    import os

    from fourfold_ops.hooks.threads import VARIABLES

    for name in (*VARIABLES, "TOKENIZERS_PARALLELISM"):
        monkeypatch.setenv(name, "7")
    pin_threads(1)
    assert {os.environ[name] for name in VARIABLES} == {"1"}
    with pytest.raises(ValueError, match="1 or more"):
        pin_threads(0)
