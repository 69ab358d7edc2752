import os
import subprocess
import sys

import pytest

from fourfold_ops.hooks.threads import IDLE_LIMITS, VARIABLES, limit_idle_threads, pin_threads


def test_threads_are_pinned_for_this_process_and_its_children(monkeypatch):
    for name in (*VARIABLES, "TOKENIZERS_PARALLELISM"):
        monkeypatch.setenv(name, "7")
    pin_threads(1)
    assert {os.environ[name] for name in VARIABLES} == {"1"}
    with pytest.raises(ValueError, match="1 or more"):
        pin_threads(0)


def test_idle_threads_are_limited_by_default():
    environment = {}
    limit_idle_threads(environment)
    assert environment == IDLE_LIMITS


@pytest.mark.parametrize("name", ["OMP_WAIT_POLICY", "GOMP_SPINCOUNT", "KMP_BLOCKTIME"])
def test_choice_of_the_user_about_idle_threads_stays(name):
    environment = {name: "as chosen"}
    limit_idle_threads(environment)
    assert environment == {name: "as chosen"}


@pytest.mark.parametrize("first", ["pipelines.settings", "pipelines.cli", "pipelines.pretraining.nodes"])
def test_limit_is_set_before_torch_loads(first):
    """A finder that sees the import of torch reports what OpenMP will read then."""
    script = f"""
import importlib.abc, os, sys
class Finder(importlib.abc.MetaPathFinder):
    def find_spec(self, name, path=None, target=None):
        if name == "torch":
            print("torch", os.environ.get("GOMP_SPINCOUNT"))
            os._exit(0)
sys.meta_path.insert(0, Finder())
import {first}
print("no torch", os.environ.get("GOMP_SPINCOUNT"))
"""
    environment = {name: value for name, value in os.environ.items() if name not in ("OMP_WAIT_POLICY", *IDLE_LIMITS)}
    done = subprocess.run([sys.executable, "-c", script], env=environment, capture_output=True, text=True, check=True)
    assert done.stdout.split()[-1] == IDLE_LIMITS["GOMP_SPINCOUNT"], done.stdout
