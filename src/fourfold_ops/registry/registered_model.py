"""A model folder, registered in MLflow as a model that loads without this repository."""

import logging
from importlib import import_module
from importlib.metadata import version
from pathlib import Path
from typing import Any

from kedro.io import AbstractDataset, DatasetError

from fourfold_ops.atomic import digest_of
from fourfold_ops.datasets.folders import path_of
from fourfold_ops.tracking.run import ActiveRun, active_run

logger = logging.getLogger(__name__)
CANDIDATE, CHAMPION = "candidate", "champion"
DIGEST_TAG = "digest"


class RegisteredModelDataset(AbstractDataset[Any, Any]):
    """Save registers a model folder under the alias `candidate` (and `champion` if there is none); load returns the candidate.

    Equal content is registered once: saving it again only moves the alias.
    """

    def __init__(
        self,
        name: str,
        loader: str,
        inputs: dict[str, str],
        params: dict[str, Any] | None = None,
        requirements: list[str] | None = None,
        metadata: dict[str, Any] | None = None,
    ) -> None:
        """Create the data set.

        Args:
            name: Name in the registry.
            loader: Dotted path of a class with `load(folder: Path)` whose objects have `predict(conditions: dict, **params)`.
            inputs: What `conditions` may contain, any subset: name → NumPy dtype of one sample's array, `str` or `json`.
            params: Keyword arguments of `predict` with their defaults (numbers, strings or lists of strings).
            requirements: Distributions that the model needs; they are pinned to the installed versions.
            metadata: Free data of the catalog entry.
        """
        self.metadata = metadata
        self._name, self._loader, self._inputs, self._params = name, loader, inputs, params or {}
        self._requirements = ["numpy", "mlflow", *(requirements or [])]

    def load(self) -> Any:
        """Return the candidate as a model of MLflow's pyfunc flavor."""
        import mlflow

        return mlflow.pyfunc.load_model(f"models:/{self._name}@{CANDIDATE}")

    def save(self, data: Any) -> None:
        """Register a model folder.

        Args:
            data: The path of the folder, or an object with `root`, `folder` or `path`.

        Raises:
            DatasetError: No run is tracked, or `data` is no folder.
        """
        run = active_run()
        if run.client is None:
            raise DatasetError("A model is registered with a tracked run, and there is none. Save it through `kedro run`.")
        folder = path_of(data)
        if folder is None or not folder.is_dir():
            raise DatasetError(f"A model is registered from its folder; got {data!r}. Return the folder from the node.")
        digest = digest_of([path for path in folder.rglob("*") if path.is_file()], folder)
        number = self._known_version(run, digest) or self._register(run, folder, digest)
        run.client.set_registered_model_alias(self._name, CANDIDATE, number)
        if CHAMPION not in run.client.get_registered_model(self._name).aliases:
            run.client.set_registered_model_alias(self._name, CHAMPION, number)
        run.client.set_tag(run.run_id, "registered_model", f"models:/{self._name}/{number}")
        logger.info("Registered model %s, version %s.", self._name, number)

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
            registered_model_name=self._name,
        )
        number = str(logged.registered_model_version)
        run.client.set_model_version_tag(self._name, number, DIGEST_TAG, digest)
        return number

    def _signature(self) -> Any:
        from mlflow.models import ModelSignature
        from mlflow.types import ColSpec, DataType, ParamSchema, ParamSpec, Schema
        from mlflow.types.schema import AnyType

        columns: Any = [ColSpec(AnyType(), name, required=False) for name in self._inputs]
        types = {bool: DataType.boolean, int: DataType.long, float: DataType.double, str: DataType.string}
        params = []
        for name, default in self._params.items():
            sample = default[0] if isinstance(default, list) else default
            params.append(ParamSpec(name, types[type(sample)], default, (-1,) if isinstance(default, list) else None))
        schema: Any = ParamSchema(params) if params else None
        return ModelSignature(inputs=Schema(columns), params=schema)

    def _exists(self) -> bool:
        return False  # the registry may hold other content than the folder, so the folder is always offered

    def _describe(self) -> dict[str, Any]:
        return {"name": self._name, "loader": self._loader}
