"""Extension points: a registry for each kind of object that can be added, and plug-in packages that add them.

A plug-in is a module with a function `register()` that adds its entries to the registries. It is named by its dotted path in
`conf/`, e.g. `plugins: [fourfold.scenes, my_team.labelers]`. Importing a plug-in registers nothing: what is available depends
on the list in the configuration alone, never on which module happened to be imported first.
"""

import importlib
from collections.abc import Iterable, Iterator
from typing import Generic, TypeVar

from fourfold.suggestions import unknown_name

T = TypeVar("T")

_loaded: set[str] = set()  # plug-ins whose entries are registered in this process


class Registry(Generic[T]):
    """Entries by name, for one kind of object, e.g. all labelers. Iteration is in sorted order of the names."""

    def __init__(self, noun: str, remedy: str = "") -> None:
        """Create an empty registry.

        Args:
            noun: what an entry is, for error messages, e.g. "labeler".
            remedy: a sentence that tells the user how to add an entry.
        """
        self.noun, self.remedy = noun, remedy
        self._entries: dict[str, T] = {}

    def register(self, name: str, entry: T) -> T:
        """Add an entry and return it. Adding the same object again changes nothing.

        Raises:
            ValueError: another entry has this name.
        """
        if self._entries.get(name, entry) is not entry:
            raise ValueError(f"Two entries are registered as {self.noun} {name!r}. Give one of them another name.")
        self._entries[name] = entry
        return entry

    def remove(self, name: str) -> None:
        """Remove an entry, e.g. at the end of a test; raises ValueError when there is none."""
        self.get(name)
        del self._entries[name]

    def get(self, name: str) -> T:
        """Return the entry of a name; raises ValueError that suggests the nearest name when there is none."""
        if name not in self._entries:
            raise ValueError(unknown_name(self.noun, name, self._entries, self.remedy))
        return self._entries[name]

    def names(self) -> list[str]:
        """Return all names, sorted."""
        return sorted(self._entries)

    def items(self) -> list[tuple[str, T]]:
        """Return all (name, entry) pairs, sorted by name."""
        return sorted(self._entries.items(), key=lambda item: item[0])

    def __contains__(self, name: object) -> bool:
        return name in self._entries

    def __iter__(self) -> Iterator[str]:
        return iter(self.names())

    def __len__(self) -> int:
        return len(self._entries)


def load_plugins(modules: Iterable[str]) -> None:
    """Import each plug-in and call its `register()`, in the given order; a plug-in that is already loaded is skipped.

    Args:
        modules: dotted paths, e.g. `["fourfold.scenes", "my_team.labelers"]`.

    Raises:
        ValueError: a module cannot be imported, or has no function `register`.
    """
    for module in modules:
        if module not in _loaded:
            _load(module)
            _loaded.add(module)


def _load(module: str) -> None:
    try:
        plugin = importlib.import_module(module)
    except ImportError as error:
        raise ValueError(
            f"Plug-in {module!r} cannot be imported: {error}. Correct the list `plugins` in conf/, or install the package."
        ) from error
    if not callable(getattr(plugin, "register", None)):
        raise ValueError(f"Plug-in {module!r} has no function register(). Define one that adds its entries to the registries.")
    plugin.register()
