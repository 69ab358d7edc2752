"""The comparison as JSON and as one HTML page that needs no other file."""

import json
from pathlib import Path

from fourfold_ops.atomic import write_whole
from fourfold_ops.html import templates
from fourfold_ops.reproduction.comparison import Comparison
from fourfold_ops.reproduction.text import conclusion, describe, number

JSON_FILE, HTML_FILE = "comparison.json", "comparison.html"


def write_reports(comparison: Comparison, folder: Path) -> list[Path]:
    """Write both reports and return their paths."""
    texts = {JSON_FILE: json.dumps(comparison.as_json(), indent=1, sort_keys=True) + "\n", HTML_FILE: html(comparison)}
    for name, text in texts.items():
        write_whole(folder / name, text.encode())
    return [folder / name for name in texts]


def html(comparison: Comparison) -> str:
    """Return the page; all text from files and names is escaped."""
    environment = templates(Path(__file__).parent)
    environment.filters |= {"number": number, "describe": describe}
    page = environment.get_template("comparison.html.jinja")
    return page.render(comparison=comparison, conclusion=conclusion(comparison))
