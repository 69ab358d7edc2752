"""A registry with versions that come from recorded runs, without any model files."""

import hashlib
import json
import subprocess
from pathlib import Path
from typing import Any

import numpy as np

from fourfold_ops.registry.evidence import ARTIFACT
from fourfold_ops.registry.gate import read_gate
from fourfold_ops.registry.promotion import Request
from fourfold_ops.registry.versions import CANDIDATE, DIGEST_TAG
from fourfold_ops.tracking import names

NAME = "echo"
SAMPLES, REPLICATES = 100, 200
RNG = np.random.default_rng(0)
WEIGHTS_RN = RNG.multinomial(SAMPLES, np.full(SAMPLES, 1 / SAMPLES), REPLICATES) / SAMPLES
BASE_N = RNG.normal(size=SAMPLES)
GATE = {
    "require": ["clean_tree", "committed_lock", "whole_evaluation", "this_model", "data_checks"],
    "metrics": {"score": {"direction": "higher", "max_loss": 0.01}},
}


class Shelf:
    """A project folder with a git repository and an MLflow store, to which versions of one model are added."""

    def __init__(self, project: Path, client: Any) -> None:
        self.project, self.client = project, client
        is_server = client.tracking_uri.startswith("http")
        self.experiment = client.create_experiment("e", None if is_server else (project / "artifacts").as_uri())
        for arguments in (["init", "-q"], ["config", "user.name", "Ada"], ["config", "user.email", "ada@example.org"]):
            self.git(*arguments)
        self.commit_lock("lock 1")

    def git(self, *arguments: str) -> str:
        done = subprocess.run(["git", *arguments], cwd=self.project, capture_output=True, text=True, check=True)
        return done.stdout.strip()

    def commit_lock(self, content: str) -> None:
        (self.project / "dvc.lock").write_text(content)
        self.git("add", "dvc.lock")
        self.git("commit", "-q", "-m", content)

    def add(self, quality: float, checked: bool = True, evidence: dict[str, Any] | None = None, **facts: str) -> str:
        """Add the candidate: a version whose score is `quality` above the trivial answer; return its number."""
        tags = {
            names.DIRTY: "false",
            names.COMMIT: self.git("rev-parse", "HEAD"),
            names.LOCK_MD5: hashlib.md5((self.project / "dvc.lock").read_bytes()).hexdigest(),
            names.RESULTS_SCOPE: "whole",
            **facts,
        }
        parent = self._run({key: value for key, value in tags.items() if value})
        maker = self._run({"mlflow.parentRunId": parent}, writes=f"data {quality}")
        if checked:
            self.client.log_metric(maker, "quality/numbers/failed", 0)
        stage = self._run({"mlflow.parentRunId": parent}, reads=f"data {quality}")
        digest = f"digest {quality}"
        self.client.log_text(stage, json.dumps(evidence or self.evidence(quality)), ARTIFACT)
        if not self.client.search_registered_models(f"name = '{NAME}'"):
            self.client.create_registered_model(NAME)
        own = {DIGEST_TAG: digest, names.MODEL_RUN: stage, names.MODEL_PARENT_RUN: parent}
        number = str(self.client.create_model_version(NAME, f"runs:/{stage}/model", stage, tags=own).version)
        self.client.set_registered_model_alias(NAME, CANDIDATE, number)
        return number

    def evidence(self, quality: float, **changed: Any) -> dict[str, Any]:
        def replicates(shift: float) -> list[float]:
            return [float(value) for value in WEIGHTS_RN @ (BASE_N + shift)]

        score = {
            "value": float(BASE_N.mean() + quality),
            "baseline": float(BASE_N.mean()),
            "lower_is_better": False,
            "data": "data",
            "replicates": replicates(quality),
            "baseline_replicates": replicates(0),
        }
        return {"subject": "m", "digest": f"digest {quality}", "samples": SAMPLES, "metrics": {"score": score | changed}}

    def request(self, require: list[str] | None = None, **options: Any) -> Request:
        """Return a request with the gate, or with one that has other requirements."""
        gate = read_gate(GATE if require is None else {**GATE, "require": require})
        return Request(self.project, gate, {"numbers": ("numbers",)}, **options)

    def aliases(self) -> dict[str, str]:
        return {alias: str(number) for alias, number in self.client.get_registered_model(NAME).aliases.items()}

    def _run(self, tags: dict[str, str], reads: str = "", writes: str = "") -> str:
        from mlflow.entities import Dataset, DatasetInput, InputTag

        run = self.client.create_run(self.experiment, tags=tags).info.run_id
        for digest, context in ((reads, "input"), (writes, "output")):
            if digest:
                data = Dataset("numbers", digest, "test", "{}")
                self.client.log_inputs(run, [DatasetInput(data, [InputTag("mlflow.data.context", context)])])
        self.client.set_terminated(run, "FINISHED")
        return str(run)
