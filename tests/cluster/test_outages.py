"""Runs while the API server is away. No other test runs meanwhile."""

import json
import re
import time

import pytest

TRAINING = "--pipelines=training"
pytestmark = pytest.mark.alone


def test_an_unreachable_server_ends_the_run_with_its_address(project):
    project.configure(api_seconds=4)
    driver = project.start(*project.on_cluster(TRAINING, "--params=training.seconds=3.0"))
    project.wait_for_log("training: 1/12")
    project.cluster.stop_api()
    try:
        driver.wait()
    finally:
        project.cluster.start_api()
    assert driver.code == 75  # EX_TEMPFAIL: the Jobs continue, and the same command adopts them
    assert "Traceback" not in driver.output
    assert re.search(r"API server .*198\.18\.2\.1:6443", driver.last_line), driver.last_line


def test_30_seconds_without_the_server_lose_no_run_and_no_log_line(project):
    driver = project.start(*project.on_cluster(TRAINING, "--params=training.seconds=0.5,training.steps=60"))
    project.wait_for_log("training: 5/60")
    project.cluster.stop_api()
    time.sleep(30)
    project.cluster.start_api()
    assert driver.wait(300) == 0, driver.output
    assert json.loads(project.read("trained.json"))["steps"] == 60
    kept = [path.read_text() for path in (project.folder / "data/logs").rglob("train-*") if "1/60 steps" in path.read_text()]
    assert kept, [str(path) for path in (project.folder / "data/logs").rglob("*")]
    for text in kept:
        assert [int(n) for n in re.findall(r"training: (\d+)/60 steps", text)] == list(range(1, 61))
