"""The line of a log that a verdict quotes."""

import pytest

from fourfold_ops.kubernetes.verdicts.error_line import error_line


def test_the_last_error_of_nested_tracebacks_is_found():
    text = "KeyError: 1\nDuring handling\nmodule.errors.CustomError: second\ntail"
    assert error_line(text) == "module.errors.CustomError: second"
    assert error_line("Failed in a stage, node b: It broke. [details: x]") == "It broke."
    assert error_line("") == ""


CHAINED = """Traceback (most recent call last):
  File "a.py", line 1, in <module>
KeyError: 'rgb'

The above exception was the direct cause of the following exception:

Traceback (most recent call last):
  File "b.py", line 2, in <module>
ValueError: Unknown modality 'rgb'.
Known: depth, normal.
[rank0]: done
"""
GROUP = """  + Exception Group Traceback (most recent call last):
  | ExceptionGroup: two shards (2 sub-exceptions)
  +-+---------------- 1 ----------------
    | ValueError: shard 3 is cut short
    +---------------- 2 ----------------
    | OSError: [Errno 5] Input/output error
    +------------------------------------
"""


@pytest.mark.parametrize(
    ("text", "line"),
    [
        (CHAINED, "ValueError: Unknown modality 'rgb'."),
        (GROUP, "OSError: [Errno 5] Input/output error"),
        ("Traceback (most recent call last):\n  File x\nAssertionError\nclosing the loader\n", "AssertionError"),
        ("Traceback\nKeyboardInterrupt\n", "KeyboardInterrupt"),
        ("\x1b[31m│ RuntimeError: too late │\x1b[0m", "RuntimeError: too late"),
        ("Error: No such option: --envv\n", "Error: No such option: --envv"),
        ("just words\nlast words\n\n", "last words"),
    ],
)
def test_the_line_that_names_the_error_is_found(text, line):
    assert error_line(text) == line
