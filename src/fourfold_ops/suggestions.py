"""Suggests a close name for an unknown one. `fourfold.suggestions` does so for the library, which is not imported here."""

import difflib
from collections.abc import Iterable


def did_you_mean(name: str, allowed: Iterable[str], count: int = 1) -> str:
    """Return " Did you mean 'depth'?" (with a leading space) for a name close to an allowed one, else "".

    Args:
        name: The unknown name.
        allowed: The names that exist.
        count: How many close names to suggest at most.
    """
    close = difflib.get_close_matches(name, list(allowed), n=count)
    return f" Did you mean {' or '.join(map(repr, close))}?" if close else ""
