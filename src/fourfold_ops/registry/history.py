"""The history of promotions of one registered model: append-only, and one writer at a time wins.

MLflow never changes a parameter of a run that is logged. Each model has one run whose parameters are its promotions, numbered:
logging number n + 1 fails if somebody else did so since n was read.
"""

import json
from dataclasses import asdict, dataclass
from typing import Any

from fourfold_ops.errors import EXIT_BUSY, UserError

TAG = "promotions.of"  # of the run: the name of the model
FOLDER = "promotions"  # of artifacts: what each promotion was judged by
MAX_VALUE = 6000  # characters of a parameter that MLflow accepts
MAX_REASON = 4000


class OvertakenError(UserError):
    """Somebody else moved the champion first; nothing was changed."""

    exit_code = EXIT_BUSY


@dataclass(frozen=True)
class Entry:
    """One move of the champion."""

    action: str  # "promote" or "rollback"
    from_version: str  # the champion before; "" if there was none
    to_version: str
    at: str  # time, ISO 8601, UTC
    by: str  # who
    commit: str  # of the project in which the command ran
    gate: str  # SHA-256 of the gate; "" for a rollback
    evidence: str  # run whose evidence was judged
    forced: bool
    reason: str

    @property
    def text(self) -> str:
        """Return one line for people."""
        change = f"{self.from_version or 'none'} → {self.to_version}"
        return f"{self.at}  {self.action} {change} by {self.by}" + (f' (forced: "{self.reason}")' if self.forced else "")


class History:
    """Reads and extends the history of one model."""

    def __init__(self, client: Any, name: str) -> None:
        """Open the history of a model; it is created if there is none.

        Args:
            client: of MLflow.
            name: of the registered model.
        """
        self._client, self._name = client, name
        self.run_id = self._found() or self._created()

    def entries(self) -> list[Entry]:
        """Return all entries, oldest first."""
        params = self._client.get_run(self.run_id).data.params
        return [Entry(**json.loads(params[key])) for key in sorted(params, key=int)]

    def append(self, number: int, entry: Entry, judged: dict[str, Any]) -> None:
        """Add an entry.

        Args:
            number: how many entries there were when the decision was made.
            entry: the new one.
            judged: a JSON value with all that the decision was based on; it is kept as an artifact.

        Raises:
            OvertakenError: Another entry was added meanwhile.
        """
        from mlflow.exceptions import MlflowException

        key, value = f"{number + 1}", json.dumps(asdict(entry), ensure_ascii=False)
        try:
            self._client.log_param(self.run_id, key, value)
        except MlflowException as error:
            others = self.entries()[number:]
            if not others:
                raise
            raise OvertakenError(
                f"Another command moved the champion of {self._name!r} first: {others[-1].text}. Nothing was changed.",
                "Check `kedro models list`, then run the command again.",
            ) from error
        self._client.log_dict(self.run_id, {**asdict(entry), **judged}, f"{FOLDER}/{key:0>4}.json")

    def _found(self) -> str:
        experiment = self._client.get_experiment_by_name(experiment_name(self._name))
        if experiment is None:
            return ""
        runs = self._client.search_runs([experiment.experiment_id], f"tags.`{TAG}` = '{self._name}'")
        # the oldest, should two commands have created one at the same moment
        return min(((run.info.start_time, str(run.info.run_id)) for run in runs), default=(0, ""))[1]

    def _created(self) -> str:
        experiment = self._client.get_experiment_by_name(experiment_name(self._name))
        identifier = experiment.experiment_id if experiment else self._new_experiment()
        run = self._client.create_run(identifier, tags={TAG: self._name}, run_name=f"promotions of {self._name}")
        self._client.set_terminated(run.info.run_id, "FINISHED")
        return self._found()

    def _new_experiment(self) -> str:
        from mlflow.exceptions import MlflowException

        name = experiment_name(self._name)
        try:
            return str(self._client.create_experiment(name, self._location()))
        except MlflowException as error:
            if error.error_code != "RESOURCE_ALREADY_EXISTS":
                raise
            return str(self._client.get_experiment_by_name(name).experiment_id)

    def _location(self) -> str | None:
        """Return the folder of artifacts of a local store; None: the server decides."""
        found = self._client.search_model_versions(f"name = '{self._name}'", max_results=1)
        run_id = found[0].run_id if found else ""
        if not run_id:
            return None
        location = self._client.get_experiment(self._client.get_run(run_id).info.experiment_id).artifact_location
        return str(location) if location.startswith("file:") else None


def experiment_name(model: str) -> str:
    """Return the name of the experiment with the history of a model."""
    return f"{model} promotions"
