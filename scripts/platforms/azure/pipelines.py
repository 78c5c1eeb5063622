"""Train, evaluate and register as a published pipeline of Azure ML.

Each step is job.py on a node, so it is the code of the verb itself. The parameters are those of the
reference: model_name, dataset_version, data_file_path, caller_run_id; and params, which is PARAMS with
its blanks and quotes percent-encoded, as the command goes through a shell.
"""

from __future__ import annotations

import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from scripts import console
from scripts.errors import Refused, SlipwayError, UsageError
from scripts.platforms import open_records
from scripts.platforms.azure.az import Az
from scripts.platforms.azure.compute import ensure_cluster
from scripts.platforms.azure.data import dataset_name, dataset_version, ensure_data, find_version
from scripts.platforms.azure.environment import ensure_environment
from scripts.platforms.azure.job import NONE, OUTCOME, REASON, VERSION
from scripts.platforms.azure.place import place
from scripts.platforms.azure.streaming import ENDED, FAULT_PAUSES, Follower, ask_to_cancel
from scripts.platforms.azure.submission import (
    code_copy,
    inputs_hash,
    job_command,
    run_configuration,
    variables,
)
from scripts.platforms.azure.tracking import AzureTracking
from scripts.platforms.azure.workspace import enduring, explained, silenced
from scripts.records import write_atomic
from scripts.settings import Settings

#: The version where no CI build gave one.
NO_BUILD = "local"
PAUSE = 3.0


class AzurePipelines:
    """`Pipelines` in the workspace."""

    def __init__(self, root: Path, settings: Settings, az: Az) -> None:
        self.root = root
        self.settings = settings
        self.az = az
        self.tracking = AzureTracking(root, settings, az)
        self.name = settings.TRAINING_PIPELINE_NAME or f"{settings.require('MODEL_NAME')}-training"
        self.version = settings.BUILD_BUILDID or NO_BUILD
        self.experiment = settings.EXPERIMENT_NAME or settings.require("MODEL_NAME")

    def publish(self) -> Mapping[str, Any]:
        from scripts.platforms.azure.images import AzureImages

        settings, workspace = self.settings, self.tracking.workspace
        where = place(self.root, settings, self.az)
        cluster = ensure_cluster(workspace, settings, where.cluster_identity_id)
        self._ensure_data(workspace)
        image = AzureImages(self.root, settings, self.az).push_toolbox()
        environment = ensure_environment(workspace, settings, image)
        inputs = inputs_hash(
            self.root,
            settings,
            {
                "image": image,
                "cluster": cluster,
                "environment": f"{environment.name}:{environment.version}",
                "evaluation": settings.RUN_EVALUATION,
                "cancel": settings.ALLOW_RUN_CANCEL,
                "data": [dataset_name(settings), settings.DATASET_VERSION],
            },
        )
        description = f"slipway inputs {inputs}"
        active = self._active(workspace)
        same = [item for item in active if item.version == self.version]
        published = next((item for item in same if item.description == description), None)
        if published is None:
            published = self._publish(workspace, environment, cluster, description)
        # One pipeline of a name and version, so that it can be told which one that is.
        self._disable([item for item in same if item.id != published.id])
        older = [item for item in active if item.version != self.version]
        if settings.DISABLE_OLDER_PIPELINES:
            self._disable(older)
        return {
            "pipeline_id": str(published.id),
            "pipeline_name": self.name,
            "pipeline_version": self.version,
            "endpoint": str(published.endpoint),
            "steps": ["train", *(["evaluate"] if settings.RUN_EVALUATION else []), "register"],
            "image": image,
            "disabled": (
                [str(item.id) for item in older] if settings.DISABLE_OLDER_PIPELINES else []
            ),
        }

    def _ensure_data(self, workspace: Any) -> None:
        """The data set must exist by the time the pipeline runs: DATA_PATH's file is its first version."""
        from scripts.dataset import data_path, file_sha256

        settings, pinned = self.settings, dataset_version(self.settings)
        name = dataset_name(settings)
        if find_version(workspace, name, pinned) is not None:
            return
        if pinned is not None:
            raise UsageError(
                f"data set {name} {pinned} does not exist", "set DATASET_VERSION=latest in .env"
            )
        file = data_path(self.root, settings.require("DATA_PATH"))
        ensure_data(workspace, settings, file, file_sha256(file))

    def _publish(self, workspace: Any, environment: Any, cluster: str, description: str) -> Any:
        console.step(f"publishing pipeline {self.name} {self.version}")
        settings = self.settings
        with explained(f"pipeline {self.name}"), silenced(), code_copy(self.root) as code:
            from azureml.pipeline.core import Pipeline, PipelineParameter, StepSequence
            from azureml.pipeline.steps import CommandStep

            def parameter(name: str, default: str) -> Any:
                return PipelineParameter(name=name, default_value=default)

            model_name = parameter("model_name", settings.require("MODEL_NAME"))
            model = ["--model-name", model_name]
            train = [
                *("--dataset-version", parameter("dataset_version", settings.DATASET_VERSION)),
                *("--data-file-path", parameter("data_file_path", NONE)),
                *("--caller-run-id", parameter("caller_run_id", NONE)),
                *("--params", parameter("params", NONE)),
            ]
            allow = ["--allow-run-cancel", str(settings.ALLOW_RUN_CANCEL).lower()]
            stages = {"train": [*model, *train]}
            if settings.RUN_EVALUATION:
                stages["evaluate"] = [*model, *allow]
            stages["register"] = model if settings.RUN_EVALUATION else [*model, "--unjudged"]
            values = variables(self.root, settings)
            steps = [
                CommandStep(
                    name=stage,
                    command=job_command(stage, *arguments),
                    source_directory=str(code),
                    compute_target=cluster,
                    runconfig=run_configuration(environment, cluster, values),
                    # A result taken over from an earlier run would carry that run's id.
                    allow_reuse=False,
                )
                for stage, arguments in stages.items()
            ]
            pipeline = Pipeline(workspace, steps=StepSequence(steps))
            return pipeline.publish(
                name=self.name,
                description=description,
                version=self.version,
                continue_on_step_failure=False,
            )

    def _active(self, workspace: Any) -> list[Any]:
        """The active pipelines of our name."""
        with explained(f"pipeline {self.name}"), silenced():
            from azureml.pipeline.core import PublishedPipeline

            found = PublishedPipeline.list(workspace, active_only=True)
        return [item for item in found if item.name == self.name]

    def _disable(self, pipelines: list[Any]) -> None:
        for item in pipelines:
            console.step(f"disabling pipeline {item.name} {item.version} ({item.id})")
            with explained(f"pipeline {item.name}"), silenced():
                item.disable()

    def run(self, *, wait: bool) -> Mapping[str, Any]:
        workspace = self.tracking.workspace
        found = [item for item in self._active(workspace) if item.version == self.version]
        if not found:
            raise UsageError(
                f"no pipeline {self.name} of version {self.version} is published",
                "run `make publish-pipeline` with the same BUILD_BUILDID",
            )
        published = found[0]
        record: dict[str, Any] = {
            "pipeline_id": str(published.id),
            "pipeline_name": self.name,
            "pipeline_version": self.version,
            "experiment": self.experiment,
            "run_id": None,
            "model_version": None,
            "outcome": "done",
        }
        file = open_records(self.root, self.settings).folder / "pipeline_id.txt"
        write_atomic(file, f"{published.id}\n".encode())
        if not wait:
            named = f"pipeline {self.name} {self.version} is {published.id}"
            return {**record, "message": f"{named}, for a job to run ({file.name})"}
        run = self._submit(workspace, published)
        status = self._follow(run)
        return {**record, "run_id": str(run.id), **self._outcome(run, status)}

    def _submit(self, workspace: Any, published: Any) -> Any:
        settings = self.settings
        parameters = {
            "model_name": settings.require("MODEL_NAME"),
            "dataset_version": settings.DATASET_VERSION,
        }
        tags = {"BuildId": settings.BUILD_BUILDID, "BuildUri": settings.BUILD_URI}
        console.step(f"running pipeline {self.name} {self.version} in {self.experiment}")
        with explained(f"pipeline {self.name}"), silenced():
            run = published.submit(workspace, self.experiment, pipeline_parameters=parameters)
            run.set_tags({name: value for name, value in tags.items() if value})
        console.step(f"run {run.id}: {run.get_portal_url()}")
        return run

    def _follow(self, run: Any) -> str:
        """Show the steps as they work until the pipeline's run has ended; returns its status."""
        followers: dict[str, Follower] = {}
        ended: set[str] = set()

        def look() -> tuple[str, list[Any]]:
            with explained(f"run {run.id}"), silenced():
                # A pipeline's run has words of its own.
                status = str(run.get_status()).replace("Finished", "Completed")
                return status, list(run.get_children())

        try:
            while True:
                status, children = enduring(look, FAULT_PAUSES)
                for child in reversed(children):
                    if child.id in ended:
                        continue
                    if child.id not in followers:
                        console.step(f"step {child.name}")
                        followers[child.id] = Follower(child)
                    if enduring(followers[child.id].look, FAULT_PAUSES) in ENDED:
                        ended.add(child.id)
                if status in ENDED:
                    return status
                time.sleep(PAUSE)
        except KeyboardInterrupt:
            ask_to_cancel(run, "`make status` and the portal show it")
            raise

    def _outcome(self, run: Any, status: str) -> dict[str, Any]:
        with explained(f"run {run.id}"), silenced():
            tags = dict(run.get_tags())
        outcome, reason = tags.get(OUTCOME), tags.get(REASON, "")
        if outcome == "kept" and status in ("Canceled", "Completed"):
            return {"outcome": "kept", "message": reason or "kept: the candidate is not better"}
        if outcome == "refused":
            raise Refused(reason, "look into the data, the features and the parameters")
        if status == "Completed":
            version = tags.get(VERSION)
            return {
                "model_version": int(version) if version else None,
                "message": reason or f"run {run.id} completed",
            }
        if status == "Canceled":
            raise SlipwayError(
                f"run {run.id} was cancelled",
                "run `make run-pipeline` again, which starts a new one",
            )
        raise SlipwayError(
            f"run {run.id} {status.lower()}: {reason or 'see the log above'}",
            f"see {run.get_portal_url()}, then run `make run-pipeline` again",
        )
