"""`kedro viz run`, as it is, shows this project in a browser, with previews of its data."""

import os
import re
import shutil
import sys
import time
from pathlib import Path

import pytest
import requests

sys.path.insert(0, str(Path(__file__).parents[1] / "support"))

import browser
import preloaded

ROOT = Path(__file__).parents[2]
IMAGES = ("gallery", "label_gallery")
TABLES = {
    "metrics": "out_of_the_box/rgb->depth/abs_rel/value",
    "pretraining_history": "validation/loss",
    "shards": "train/rgb",
}
# Kedro-Viz starts its server as a fresh process, which would import all libraries again; and it asks PyPI for its version.
FORK = """
import multiprocessing, kedro_viz.integrations.pypi as pypi
original = multiprocessing.get_context
multiprocessing.get_context = lambda method=None: original("fork")
pypi.get_latest_version = lambda: None
"""
PORT = 4700 + os.getpid() % 200  # Kedro-Viz takes the next free one


@pytest.fixture
def address(finished, tmp_path):
    project = tmp_path / "clone"
    shutil.copytree(finished, project, symlinks=True)  # Kedro-Viz writes files
    environment = {**os.environ, "PYTHONPATH": f"{ROOT / 'src'}{os.pathsep}{ROOT}"}
    command = ["kedro", "viz", "run", "--no-browser", "--env=tiny", f"--port={PORT}"]
    server = preloaded.Command(command, project, environment, tmp_path / "log", first=FORK)
    try:
        deadline = time.monotonic() + 300
        while not (found := re.search(r"running at\s+(http://[\d.:]+)", server.text())):
            assert time.monotonic() < deadline and server.poll() is None, server.text()
            time.sleep(0.1)
        yield found[1]
    finally:
        server.kill()  # the whole process group


def test_kedro_viz_shows_the_pipeline_with_previews(address):
    main = requests.get(f"{address}/api/main", timeout=300).json()
    ids = {node["name"]: node["id"] for node in main["nodes"] if node["type"] == "data"}
    assert {"ingestion", "evaluation"} <= {pipeline["id"] for pipeline in main["pipelines"]}
    errors: list[str] = []
    with browser.started() as chromium:
        page = chromium.new_page(viewport=browser.DESKTOP)
        page.on("pageerror", lambda error: errors.append(str(error)))
        page.goto(f"{address}/?pid=__default__&sn={ids['gallery']}")
        page.wait_for_selector(".pipeline-node")
        for name in IMAGES:
            page.goto(f"{address}/?pid=__default__&sn={ids[name]}")
            image = page.wait_for_selector(".pipeline-metadata img[src^='data:image/png;base64,']")
            assert image.evaluate("image => image.decode().then(() => image.naturalWidth)") > 100, name
        for name, text in TABLES.items():
            page.goto(f"{address}/?pid=__default__&sn={ids[name]}")
            page.locator(".pipeline-metadata table", has_text=text).wait_for()
        shown = page.locator(".pipeline-node").count()
    assert shown >= 15 and errors == []  # all nodes of the stages, with their data
