"""Names of the tags and artifacts with which a run is recorded: other commands find a run's origin by them.

Parent runs, stage runs and registered model versions have the same tags, except those that name their owner below.
"""

# --- the code and the command ---
COMMAND = "kedro.command"  # the shell command that computes the same again, in a checkout of the commit
ENVIRONMENT = "kedro.env"
PIPELINES = "kedro.pipelines"
COMMIT = "git.commit"
BRANCH = "git.branch"
DIRTY = "git.dirty"  # "true" if the working tree differed from the commit
PATCH_SHA256 = "git.patch_sha256"  # of the artifact PATCH; absent if the tree was clean
PATCH_LEFT_OUT = "git.patch_left_out"  # files that the patch does not contain, with the reason; absent without any

# --- the data ---
LOCK_MD5 = "dvc.lock_md5"  # of the artifact LOCK: dvc.lock as the run left it; "absent" without one
RECORDED = "dvc.recorded"  # "true" if LOCK names the outputs of every stage of the run
OUTDATED = "dvc.outdated"  # stages whose results belong to other code, parameters or data; absent without any

REPRO = "dvc.process"  # of parent runs: the `dvc repro` whose stages they have; absent otherwise

# --- what the run covers ---
STAGES = "run.stages"  # stages of which all nodes ran, by commas
SCOPE = "run.scope"  # WHOLE: every stage of the default pipeline ran in this run
RESULTS_SCOPE = "evaluation.scope"  # WHOLE: the metrics lack no part, and all nodes of their stage ran
RESULTS_LEFT_OUT = "evaluation.left_out"  # what they lack, as sentences; absent without any
WARNINGS = "run.warnings"  # what a reader of the numbers must know, as sentences; absent without any
WHOLE, PARTIAL = "whole", "partial"

# --- machine and environment ---
USER = "mlflow.user"
PACKAGES_SHA256 = "environment.packages_sha256"  # of the artifact PACKAGES
REQUIREMENTS_SHA256 = "environment.requirements_lock_sha256"
IMAGE = "environment.image"  # container image, by digest, also of the stages whose steps ran in pods; absent otherwise

# --- of model versions only ---
MODEL_RUN = "lineage.run_id"  # run of the stage that registered or confirmed the version: it has the metrics
MODEL_PARENT_RUN = "lineage.parent_run_id"  # it has the artifacts below

# --- artifacts of parent runs ---
PATCH = "provenance/dirty.patch"  # `git apply` recreates the working tree from the commit; absent if the tree was clean
LOCK = "provenance/dvc.lock"
RUN_FILE = "provenance/dvc.run.yml"
PACKAGES = "provenance/packages.txt"  # name==version, one a line
PARAMETERS = "parameters.json"
RESULTS = "results"  # folder of the catalog entries with `metadata: {record: ...}`, e.g. results/report.html; stage runs too
