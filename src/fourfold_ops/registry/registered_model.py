"""A model folder, registered in MLflow as a model that loads without this repository."""

import logging
from importlib import import_module
from importlib.metadata import version
from pathlib import Path
from typing import Any

from kedro.io import AbstractDataset, DatasetError

from fourfold_ops.atomic import digest_of
from fourfold_ops.datasets.folders import path_of
from fourfold_ops.registry.evidence import ARTIFACT, parse_evidence
from fourfold_ops.registry.versions import CANDIDATE, DIGEST_TAG
from fourfold_ops.tracking.run import REGISTERED_MODEL, ActiveRun, active_run

logger = logging.getLogger(__name__)


class RegisteredModelDataset(AbstractDataset[Any, Any]):
    """Save registers a model folder as a new version; load returns the candidate.

    Equal content is registered once. `hooks.registry.RegistryHook` moves the alias `candidate` to the version at the end of the
    run; only `kedro models promote` makes a version champion.
    """

    def __init__(
        self,
        name: str,
        loader: str,
        inputs: dict[str, str],
        params: dict[str, Any] | None = None,
        requirements: list[str] | None = None,
        example: dict[str, Any] | None = None,
        metadata: dict[str, Any] | None = None,
    ) -> None:
        """Create the data set.

        Args:
            name: Name in the registry.
            loader: Dotted path of a class with `load(folder: Path)` whose objects have `predict(conditions: dict, **params)`,
                or `prepare(conditions: dict, **params)` and `answer(list of prepared)`, which answers requests together.
            inputs: What `conditions` may contain, any subset: name → NumPy dtype of one sample's array, `str` or `json`.
            params: Keyword arguments with their defaults: numbers, strings, lists of strings, or None for a number that is only
                passed if the request has it. `targets` are also the names of the outputs.
            requirements: Distributions that the model needs; they are pinned to the installed versions.
            example: One sample's inputs, and optionally `params`; MLflow shows it, and `kedro serve` in its description.
            metadata: Free data of the catalog entry.
        """
        self.metadata = metadata
        self._name, self._loader, self._inputs, self._params = name, loader, inputs, params or {}
        self._requirements = ["numpy", "mlflow", *(requirements or [])]
        self._example = example

    def load(self) -> Any:
        """Return the candidate as a model of MLflow's pyfunc flavor."""
        import mlflow

        return mlflow.pyfunc.load_model(f"models:/{self._name}@{CANDIDATE}")

    def save(self, data: Any) -> None:
        """Register a model folder.

        Args:
            data: The path of the folder, or an object with `root`, `folder` or `path`. If it has `evidence`, a JSON value with
                the fields of `registry.evidence.Evidence`, promotions are judged by it.

        Raises:
            DatasetError: No run is tracked, `data` is no folder, or the evidence has another form.
        """
        run = active_run()
        if run.client is None:
            raise DatasetError("A model is registered with a tracked run, and there is none. Save it through `kedro run`.")
        folder = path_of(data)
        if folder is None or not folder.is_dir():
            raise DatasetError(f"A model is registered from its folder; got {data!r}. Return the folder from the node.")
        digest = digest_of([path for path in folder.rglob("*") if path.is_file()], folder)
        if (evidence := getattr(data, "evidence", None)) is not None:
            found = parse_evidence({**evidence, "digest": digest}, f"The evidence of model {self._name!r}")
            run.client.log_text(run.run_id, found.model_dump_json(), ARTIFACT)
        known = self._known_version(run, digest)
        number = known or self._register(run, folder, digest)
        run.client.set_tag(run.run_id, REGISTERED_MODEL, f"models:/{self._name}/{number}")
        logger.info("%s model %s, version %s.", "Found" if known else "Registered", self._name, number)

    def _known_version(self, run: ActiveRun, digest: str) -> str:
        found = run.client.search_model_versions(f"name = '{self._name}'")
        return next((str(v.version) for v in found if v.tags.get(DIGEST_TAG) == digest and v.status == "READY"), "")

    def _register(self, run: ActiveRun, folder: Path, digest: str) -> str:
        import mlflow
        from mlflow import pyfunc
        from mlflow.models import Model

        # without this, MLflow would store the files of the model in ./mlruns, the folder of the default experiment
        mlflow.set_experiment(experiment_id=run.client.get_run(run.run_id).info.experiment_id)
        run.flush()  # the version shows the metrics that the stage has logged so far
        code = [
            str(Path(import_module(package).__path__[0])) for package in (self._loader.split(".")[0], __name__.split(".")[0])
        ]
        logged = Model.log(
            artifact_path=None,
            name=self._name,
            flavor=pyfunc,
            run_id=run.run_id,
            loader_module="fourfold_ops.registry.serving",
            data_path=str(folder),
            code_paths=sorted(set(code)),
            model_config={"loader": self._loader, "inputs": self._inputs},
            pip_requirements=[f"{name}=={version(name)}" for name in self._requirements],
            signature=self._signature(),
            input_example=self._input_example(),
        )
        # With the digest from the start: of a run that is killed here, the next one finds the version and completes it.
        return str(mlflow.register_model(logged.model_uri, self._name, tags={DIGEST_TAG: digest}).version)

    def _signature(self) -> Any:
        from mlflow.models import ModelSignature
        from mlflow.types import ColSpec, ParamSchema, Schema
        from mlflow.types.schema import AnyType

        from fourfold_ops.registry.serving import param_specs

        columns: Any = [ColSpec(AnyType(), name, required=False) for name in self._inputs]
        params = param_specs(self._params)
        schema: Any = ParamSchema(params) if params else None
        results: Any = [ColSpec(AnyType(), name, required=False) for name in self._params.get("targets", ())]
        return ModelSignature(inputs=Schema(columns), outputs=Schema(results) if results else None, params=schema)

    def _input_example(self) -> Any:
        """Return one sample as columns, with its parameters, as MLflow stores it."""
        if self._example is None:
            return None
        given = {name: [value] for name, value in self._example.items() if name != "params"}
        return (given, self._example["params"]) if "params" in self._example else given

    def _exists(self) -> bool:
        return False  # the registry may hold other content than the folder, so the folder is always offered

    def _describe(self) -> dict[str, Any]:
        return {"name": self._name, "loader": self._loader}
