"""What plug-ins added to the tables of this process, taken out again after a test."""

import sys
from collections.abc import Iterator
from contextlib import contextmanager

from fourfold import plugins
from fourfold.plugins import Registry

_found: tuple[int, list[dict]] = (0, [])  # number of loaded modules, tables in them


@contextmanager
def restored() -> Iterator[None]:
    """Restore all registries, all constant tables of the library and the names of loaded plug-ins at the end.

    What other tests of the process see must not depend on the plug-ins of this one. A table that did not exist at the
    beginning is left as it is.
    """
    before = [(table, dict(table)) for table in _tables()]
    loaded = set(plugins._loaded)
    try:
        yield
    finally:
        for table, entries in before:
            if table.keys() != entries.keys() or any(table[name] is not entry for name, entry in entries.items()):
                table.clear()
                table.update(entries)
        plugins._loaded.intersection_update(loaded)


def _tables() -> list[dict]:
    """Return every registry and every dict with a name in capitals of the loaded modules of the library."""
    global _found
    if _found[0] != len(sys.modules):
        tables = {}
        for module in [module for name, module in sys.modules.items() if name.partition(".")[0] == "fourfold"]:
            for name, value in vars(module).items():
                if isinstance(value, Registry):
                    tables[id(value)] = value._entries
                elif isinstance(value, dict) and name.strip("_").isupper():
                    tables[id(value)] = value
        _found = (len(sys.modules), list(tables.values()))
    return _found[1]
