"""Training on the workspace's cluster: the very code of `make train`, in a run of Azure ML.

What was submitted stands in `.runs/train.json` beside the records, with a hash of all that went into it:
a call with the same inputs goes on with that run, whatever interrupted the one before.
"""

from __future__ import annotations

import shutil
import uuid
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

from scripts import console
from scripts.dataset import data_path, file_sha256
from scripts.errors import UsageError
from scripts.platforms.azure import names
from scripts.platforms.azure.az import Az
from scripts.platforms.azure.compute import ensure_cluster
from scripts.platforms.azure.data import DataVersion, ensure_data, restore_data
from scripts.platforms.azure.environment import ensure_environment
from scripts.platforms.azure.marker import Marker
from scripts.platforms.azure.place import place
from scripts.platforms.azure.streaming import OVER, Follower, failure
from scripts.platforms.azure.submission import (
    code_copy,
    encoded,
    inputs_hash,
    job_command,
    run_configuration,
    variables,
)
from scripts.platforms.azure.tracking import AzureTracking
from scripts.platforms.azure.workspace import explained, silenced, status_of
from scripts.records import Records
from scripts.settings import Settings

if TYPE_CHECKING:
    from scripts.verb import Context, Result

#: What a record holds besides what the stage itself gave.
ENVELOPE = {"verb", "outcome", "message", "time", "duration_seconds"}
#: The settings that say where a run works and in what.
WHERE = (
    *("AML_COMPUTE_CLUSTER_NAME", "AML_COMPUTE_CLUSTER_CPU_SKU", "AML_CLUSTER_PRIORITY"),
    "AML_ENV_NAME",
)


class Cluster:
    """`Training` on AML_COMPUTE_CLUSTER_NAME."""

    def __init__(self, root: Path, settings: Settings, az: Az) -> None:
        self.root = root
        self.settings = settings
        self.az = az

    def train(self, context: Context, fit: Callable[[Context], Result]) -> Result:
        # `fit` itself is called on the node: job.py does so.
        tracking = cast("AzureTracking", context.platform.tracking)
        data = context.records.read("data")
        file = data_path(self.root, self.settings.require("DATA_PATH"))
        experiment = names.experiment(self.settings)
        if file_sha256(file) != data["sha256"]:
            raise UsageError(f"{file.name} has changed since `make data`", "run `make data` again")
        params = context.call.get("PARAMS", "")
        # Who changes the nodes or the environment wants no run that waits for the old ones.
        where = {name: getattr(self.settings, name) for name in WHERE}
        inputs = inputs_hash(
            self.root, self.settings, {"data": data["sha256"], "params": params, **where}
        )
        marker = Marker(context.records, "train")
        run = self._begun(context, tracking, marker, inputs)
        if run is None:
            run = self._submit(tracking, marker, experiment, inputs, file, data["sha256"], params)
        same = "the same `make train`" + (" without FORCE" if context.call.get("FORCE") else "")
        status = Follower(run).follow(f"{same} goes on with it")
        return self._collect(context, tracking, run, status)

    def restore(self, context: Context, file: Path) -> None:
        # What is written elsewhere would stay in the container.
        if not file.resolve().is_relative_to(self.root.resolve()):
            return
        tracking = cast("AzureTracking", context.platform.tracking)
        known = context.records.find("data") or {}
        restore_data(tracking.workspace, self.settings, file, known.get("sha256"))

    def _begun(self, context: Context, tracking: AzureTracking, marker: Marker, inputs: str) -> Any:
        """The run that an earlier call submitted from the same inputs and did not see to its end."""
        known, train = marker.read(), context.records.find("train") or {}
        if known is None or known["inputs"] != inputs or known["run_id"] == train.get("run_id"):
            return None
        workspace = tracking.workspace
        with explained(f"run {known['run_id']}"), silenced():
            from azureml.core import Run

            try:
                run = Run.get(workspace, known["run_id"])
                status = run.get_status()
            except Exception as error:
                if status_of(error) != 404:
                    raise
                return None
        if status in OVER and status != "Completed":
            return None
        if context.call.get("FORCE"):
            if status != "Completed":
                console.step(f"run {run.id} goes on without us: {run.get_portal_url()}")
            return None
        console.step(f"going on with run {run.id} ({status.lower()})")
        return run

    def _submit(
        self,
        tracking: AzureTracking,
        marker: Marker,
        experiment: str,
        inputs: str,
        file: Path,
        sha256: str,
        params: str,
    ) -> Any:
        from scripts.platforms.azure.images import AzureImages

        settings, workspace = self.settings, tracking.workspace
        where = place(self.root, settings, self.az)
        cluster = ensure_cluster(workspace, settings, where.cluster_identity_id)
        data = ensure_data(workspace, settings, file, sha256)
        image = AzureImages(self.root, settings, self.az).push_toolbox()
        environment = ensure_environment(workspace, settings, image)
        # Noted before it is submitted: what is killed in between is found again.
        run_id = f"{experiment}_{uuid.uuid4().hex[:12]}"[-100:].lstrip("-_.")
        marker.write(inputs=inputs, run_id=run_id, experiment=experiment)
        command = job_command("train", *_arguments(data, params))
        console.step(f"submitting run {run_id} to cluster {cluster}")
        with explained(f"run {run_id}"), silenced(), code_copy(self.root) as code:
            from azureml.core import Experiment, ScriptRunConfig

            configuration = ScriptRunConfig(
                source_directory=str(code),
                command=command,
                run_config=run_configuration(environment, cluster, variables(self.root, settings)),
            )
            return Experiment(workspace, experiment).submit(
                configuration,
                tags={"data_sha256": sha256, "inputs": inputs},
                run_id=run_id,
            )

    def _collect(self, context: Context, tracking: AzureTracking, run: Any, status: str) -> Result:
        from scripts.verb import Result

        if status != "Completed":
            raise failure(tracking, run, status, "train")
        found = Records(tracking.download(str(run.id), "records")).read("train")
        if found["plots"]:
            plots = context.records.folder / "plots"
            fetched = tracking.download(str(run.id), "plots")
            shutil.rmtree(plots, ignore_errors=True)
            shutil.copytree(fetched, plots)
        record = {name: value for name, value in found.items() if name not in ENVELOPE}
        return Result(str(found["message"]), record, str(found["outcome"]))


def _arguments(data: DataVersion, params: str) -> list[str]:
    found = ["--dataset-name", data.name, "--dataset-version", str(data.version)]
    found += ["--checked", data.sha256]
    return [*found, "--params", encoded(params)] if params else found
