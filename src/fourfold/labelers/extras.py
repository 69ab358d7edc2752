"""Optional packages: which extra brings them, and one error where they are missing."""

from importlib import metadata
from importlib.util import find_spec


def require_package(package: str, extra: str) -> None:
    """Raise ValueError that names the extra when an optional package is not installed."""
    if find_spec(package) is None:
        raise ValueError(f"Package {package!r} is not installed. Install the extra: pip install 'fourfold[{extra}]'.")


def installed_version(package: str) -> str:
    """Return the version of an installed package."""
    return metadata.version(package)
