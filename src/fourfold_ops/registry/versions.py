"""The versions of one registered model, with the record of the runs that they come from."""

from collections.abc import Iterator
from dataclasses import dataclass, field
from datetime import UTC, datetime
from functools import cached_property
from typing import Any

from fourfold_ops.errors import UserError
from fourfold_ops.registry.evidence import Evidence, load_evidence
from fourfold_ops.suggestions import did_you_mean
from fourfold_ops.tracking import names

CANDIDATE, CHAMPION, PREVIOUS = "candidate", "champion", "previous"
DIGEST_TAG = "digest"  # of the files of a version: equal content is one version
PARENT = "mlflow.parentRunId"
FORCED_TAG = "promotion.forced"  # the reason for which a version became champion against the gate


@dataclass(frozen=True)
class Version:
    """One version of a registered model."""

    number: str
    created: datetime
    aliases: tuple[str, ...]
    tags: dict[str, str]  # of the version
    run_id: str  # of the stage that registered or last confirmed it; "" if unknown
    facts: dict[str, str] = field(repr=False)  # tags of the parent run of `run_id`; without that run, those of the version

    @property
    def marks(self) -> list[str]:
        """Return what a user of this version must know, as words."""
        found = ["dirty"] if self.facts.get(names.DIRTY) != "false" else []
        found += ["partial"] if self.facts.get(names.RESULTS_SCOPE, names.WHOLE) != names.WHOLE else []
        found += ["outdated"] if self.facts.get(names.OUTDATED) else []
        return found + (["forced"] if self.tags.get(FORCED_TAG) else [])

    @property
    def title(self) -> str:
        """Return "version 3"."""
        return f"version {self.number}"


class ModelVersions:
    """Reads one registered model of an MLflow registry."""

    def __init__(self, client: Any, name: str) -> None:
        """Open the model; nothing is read yet.

        Args:
            client: of MLflow, for runs and models.
            name: of the registered model.
        """
        self.client, self.name = client, name

    def refresh(self) -> None:
        """Read the aliases again when they are needed next."""
        self.__dict__.pop("aliases", None)

    @cached_property
    def aliases(self) -> dict[str, str]:
        """Return the version number of each alias.

        Raises:
            UserError: The registry has no such model.
        """
        from mlflow.exceptions import MlflowException

        try:
            return {alias: str(number) for alias, number in self.client.get_registered_model(self.name).aliases.items()}
        except MlflowException as error:
            if error.error_code != "RESOURCE_DOES_NOT_EXIST":
                raise
            known = [model.name for model in self.client.search_registered_models()]
            raise UserError(
                f"The registry has no model {self.name!r}.{did_you_mean(self.name, known)}",
                f"Known: {', '.join(known) or 'none'}. `kedro run` registers one at its end; --env and --name choose another.",
            ) from None

    def all(self) -> Iterator[Version]:
        """Yield all versions, newest first."""
        _ = self.aliases  # a model that does not exist is an error, not a model without versions
        token = None
        while True:
            page = self.client.search_model_versions(
                f"name = '{self.name}'", order_by=["version_number DESC"], page_token=token
            )
            yield from (self._version(found) for found in page if found.status == "READY")
            token = page.token
            if not token:
                return

    def get(self, text: str) -> Version:
        """Return a version by its number or by an alias.

        Raises:
            UserError: There is no such version.
        """
        from mlflow.exceptions import MlflowException

        number = self.aliases.get(text, text)
        try:
            if number.isdecimal():
                return self._version(self.client.get_model_version(self.name, number))
        except MlflowException as error:
            if error.error_code != "RESOURCE_DOES_NOT_EXIST":
                raise
        allowed = [*self.aliases, *(version.number for version in self.all())]
        raise UserError(f"Model {self.name!r} has no version or alias {text!r}.", f"Allowed: {', '.join(allowed)}.")

    def evidence(self, version: Version) -> Evidence | None:
        """Return what a version is judged by; None if its run has nothing of that kind."""
        return load_evidence(self.client, version.run_id) if version.run_id else None

    def _version(self, found: Any) -> Version:
        number = str(found.version)
        aliases = tuple(sorted(alias for alias, of in self.aliases.items() if of == number))
        run_id = found.tags.get(names.MODEL_RUN) or found.run_id or ""
        created = datetime.fromtimestamp(found.creation_timestamp / 1000, UTC)
        facts = {**found.tags, **self._tags_of_parent(found.tags.get(names.MODEL_PARENT_RUN, ""), run_id)}
        return Version(number, created, aliases, dict(found.tags), run_id, facts)

    def _tags_of_parent(self, parent: str, run_id: str) -> dict[str, str]:
        from mlflow.exceptions import MlflowException

        try:
            if not parent and run_id:
                parent = self.client.get_run(run_id).data.tags.get(PARENT, run_id)
            return dict(self.client.get_run(parent).data.tags) if parent else {}
        except MlflowException:  # the run was deleted, or belongs to another server
            return {}
