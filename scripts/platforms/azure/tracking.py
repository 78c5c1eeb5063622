"""Runs and the model registry of an Azure ML workspace, through azureml-core.

A run's trained model is its artifact `model`; a version of a model refers to the run it came from.
The newest version is the champion, as everywhere.
"""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Callable, Mapping, Sequence
from functools import cached_property
from pathlib import Path
from typing import Any

from scripts import console
from scripts.errors import UsageError
from scripts.platforms import open_records
from scripts.platforms.azure.az import Az
from scripts.platforms.azure.lease import leased
from scripts.platforms.azure.workspace import explained, open_workspace, silenced, status_of
from scripts.platforms.base import ModelVersion
from scripts.settings import Settings


class AzureTracking:
    """`Tracking` in the workspace."""

    def __init__(self, root: Path, settings: Settings, az: Az) -> None:
        self.root = root
        self.settings = settings
        self.az = az

    @cached_property
    def workspace(self) -> Any:
        """The SDK's workspace; what else works in it shares this one."""
        return open_workspace(self.root, self.settings, self.az)

    def run(self, run_id: str) -> Any:
        """The SDK's run; UsageError if the workspace has none of that id."""
        workspace = self.workspace
        with explained(f"run {run_id}"), silenced():
            from azureml.core import Run

            try:
                return Run.get(workspace, run_id)
            except Exception as error:
                if status_of(error) != 404:
                    raise
        raise UsageError(
            f"workspace {workspace.name} has no run {run_id}", "run `make train FORCE=1`"
        )

    def start_run(self, experiment: str, tags: Mapping[str, str]) -> str:
        workspace = self.workspace
        with explained(f"experiment {experiment}"), silenced():
            from azureml.core import Experiment

            run = Experiment(workspace, experiment).start_logging(
                outputs=None, snapshot_directory=None
            )
            run.set_tags(dict(tags))
        return str(run.id)

    def log(
        self,
        run_id: str,
        *,
        parameters: Mapping[str, Any] = {},
        metrics: Mapping[str, float] = {},
    ) -> None:
        run = self.run(run_id)
        with explained(f"run {run_id}"), silenced():
            if parameters:
                run.set_tags({name: str(value) for name, value in parameters.items()})
            for name, value in metrics.items():
                run.log(name, value)
            if metrics:
                run.flush()

    def log_folder(self, run_id: str, folder: Path, to: str) -> None:
        run = self.run(run_id)
        with explained(f"run {run_id}"), silenced():
            # A node that was taken away (lowpriority) begins the same run again; what it had uploaded
            # cannot be replaced.
            there = set(run.get_file_names())
            files = {
                f"{to}/{path.relative_to(folder).as_posix()}": str(path)
                for path in sorted(folder.rglob("*"))
                if path.is_file()
            }
            wanted = {name: path for name, path in files.items() if name not in there}
            if wanted:
                run.upload_files(list(wanted), list(wanted.values()))

    def finish_run(self, run_id: str, *, succeeded: bool) -> None:
        run = self.run(run_id)
        with explained(f"run {run_id}"), silenced():
            if succeeded:
                run.complete()
            else:
                run.fail()

    def register(
        self,
        name: str,
        run_id: str,
        tags: Mapping[str, str],
        check: Callable[[Sequence[ModelVersion]], None],
    ) -> tuple[ModelVersion, bool]:
        console.step(f"registering in workspace {self.workspace.name}")
        with explained(f"model {name}"):
            with silenced():
                datastore = self.workspace.get_default_datastore()
            with leased(datastore, f"register-{name}", f"registering {name}") as still_ours:
                versions = self.versions(name)
                found = next((item for item in versions if item.run_id == run_id), None)
                if found is not None:
                    return found, False
                check(versions)
                run = self.run(run_id)
                still_ours()
                with silenced():
                    # The tags go into this call: a version that exists is never half-made.
                    made = run.register_model(
                        name, model_path="model", tags=dict(tags), model_framework="ScikitLearn"
                    )
        return ModelVersion(name, int(made.version), run_id, dict(tags)), True

    def versions(self, name: str) -> Sequence[ModelVersion]:
        workspace = self.workspace
        with explained(f"model {name}"), silenced():
            from azureml.core import Model

            found = Model.list(workspace, name=name, expand=False)
        versions = [
            ModelVersion(
                name,
                int(item.version),
                # A model that was registered from files names its run in a tag, if at all.
                str(item.run_id or (item.tags or {}).get("run_id", "")),
                dict(item.tags or {}),
            )
            for item in found
        ]
        return sorted(versions, key=lambda item: item.version, reverse=True)

    def download(self, run_id: str, artifact: str) -> Path:
        # A run's artifacts never change, so a copy of them stays good.
        kept = open_records(self.root, self.settings).folder / ".cache" / run_id
        if (kept / artifact).exists():
            return kept / artifact
        if not run_id:
            raise UsageError(
                f"the champion names no run with an artifact {artifact!r}",
                "set another MODEL_NAME, or CHAMPION=none to start anew",
            )
        run = self.run(run_id)
        console.step(f"downloading {artifact} of run {run_id}")
        kept.mkdir(parents=True, exist_ok=True)
        work = Path(tempfile.mkdtemp(prefix=".part-", dir=kept))
        try:
            with explained(f"run {run_id}"), silenced():
                names = [
                    name
                    for name in run.get_file_names()
                    if name == artifact or name.startswith(f"{artifact}/")
                ]
                if names:
                    run.download_files(prefix=artifact, output_directory=str(work))
            if not names:
                raise UsageError(
                    f"run {run_id} has no artifact {artifact!r}",
                    "its files were removed; set CHAMPION=none to train a new champion",
                )
            try:
                os.replace(work / artifact, kept / artifact)
            except OSError:
                if not (kept / artifact).exists():  # else another call was faster
                    raise
        finally:
            shutil.rmtree(work, ignore_errors=True)
        return kept / artifact
