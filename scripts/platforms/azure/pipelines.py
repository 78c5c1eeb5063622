"""Train, evaluate and register as a published pipeline of Azure ML.

Each step is job.py on a node, so it is the code of the verb itself. The parameters are those of the
reference: model_name, dataset_version, data_file_path, caller_run_id; and params, which is PARAMS with
its blanks and quotes percent-encoded, as the command goes through a shell.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from scripts import console
from scripts.errors import UsageError
from scripts.platforms import open_records
from scripts.platforms.azure.az import Az
from scripts.platforms.azure.compute import ensure_cluster
from scripts.platforms.azure.data import dataset_name, dataset_version, ensure_data, find_version
from scripts.platforms.azure.environment import ensure_environment
from scripts.platforms.azure.job import NONE
from scripts.platforms.azure.pipeline_runs import PipelineRuns
from scripts.platforms.azure.place import place
from scripts.platforms.azure.submission import (
    code_copy,
    inputs_hash,
    job_command,
    run_configuration,
    variables,
)
from scripts.platforms.azure.tracking import AzureTracking
from scripts.platforms.azure.workspace import explained, silenced
from scripts.records import write_atomic
from scripts.settings import Settings

#: The version where no CI build gave one.
NO_BUILD = "local"


class AzurePipelines:
    """`Pipelines` in the workspace."""

    def __init__(self, root: Path, settings: Settings, az: Az) -> None:
        self.root = root
        self.settings = settings
        self.az = az
        self.tracking = AzureTracking(root, settings, az)
        self.name = settings.TRAINING_PIPELINE_NAME or f"{settings.require('MODEL_NAME')}-training"
        self.version = settings.BUILD_BUILDID or NO_BUILD

    def publish(self) -> Mapping[str, Any]:
        from scripts.platforms.azure.images import AzureImages

        settings, workspace = self.settings, self.tracking.workspace
        where = place(self.root, settings, self.az)
        cluster = ensure_cluster(workspace, settings, where.cluster_identity_id)
        dataset = self._ensure_data(workspace)
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
                "data": [dataset, settings.DATASET_VERSION],
            },
        )
        description = f"slipway inputs {inputs}"
        active = self._active(workspace)
        same = [item for item in active if item.version == self.version]
        published = next((item for item in same if item.description == description), None)
        if published is None:
            published = self._publish(workspace, environment, cluster, dataset, description)
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

    def _ensure_data(self, workspace: Any) -> str:
        """The name of the data set, which must exist by the time the pipeline runs: DATA_PATH's file is
        its first version, unless another model's data set holds that file already.
        """
        from scripts.dataset import data_path, file_sha256

        settings, pinned = self.settings, dataset_version(self.settings)
        name = dataset_name(settings)
        if find_version(workspace, name, pinned) is not None:
            return name
        if pinned is not None:
            raise UsageError(
                f"data set {name} {pinned} does not exist", "set DATASET_VERSION=latest in .env"
            )
        file = data_path(self.root, settings.require("DATA_PATH"))
        return ensure_data(workspace, settings, file, file_sha256(file)).name

    def _publish(
        self, workspace: Any, environment: Any, cluster: str, dataset: str, description: str
    ) -> Any:
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
                *("--dataset-name", dataset),
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

    def run(self, *, wait: bool, params: str = "") -> Mapping[str, Any]:
        dataset_version(self.settings)  # refused here, and not by the node minutes later
        found = [
            item for item in self._active(self.tracking.workspace) if item.version == self.version
        ]
        if not found:
            raise UsageError(
                f"no pipeline {self.name} of version {self.version} is published",
                "run `make publish-pipeline` with the same BUILD_BUILDID",
            )
        published, runs = found[0], PipelineRuns(self.root, self.settings, self.tracking)
        record: dict[str, Any] = {
            "pipeline_id": str(published.id),
            "pipeline_name": self.name,
            "pipeline_version": self.version,
            "experiment": runs.experiment,
            "run_id": None,
            "model_version": None,
            "outcome": "done",
        }
        file = open_records(self.root, self.settings).folder / "pipeline_id.txt"
        write_atomic(file, f"{published.id}\n".encode())
        if not wait:
            named = f"pipeline {self.name} {self.version} is {published.id}"
            return {**record, "message": f"{named}, for a job to run ({file.name})"}
        return {**record, **runs.see_through(published, params)}
