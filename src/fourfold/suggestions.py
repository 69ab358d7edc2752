"""One form for the error about an unknown name: what was received, the nearest known name, all known names, what to do."""

import difflib
from collections.abc import Iterable


def unknown_name(noun: str, name: str, known: Iterable[str], remedy: str = "") -> str:
    """Return the message for a name that is not in `known`, to be raised by the caller as a ValueError.

    Example: `Unknown modality 'dpeth'. Did you mean 'depth'? Known: caption, clip, depth. Add it in fourfold/modalities.`

    Args:
        noun: what the name should be the name of, e.g. "modality".
        name: the name that was received.
        known: the allowed names; listed in sorted order.
        remedy: a sentence that tells the user what to do, e.g. where to add a name.
    """
    names = sorted(known)
    nearest = difflib.get_close_matches(name, names, n=1)
    hint = f" Did you mean {nearest[0]!r}?" if nearest else ""
    return f"Unknown {noun} {name!r}.{hint} Known: {', '.join(names) or 'none'}." + (f" {remedy}" if remedy else "")
