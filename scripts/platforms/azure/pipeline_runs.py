"""Runs of the published pipeline: begun once, followed step by step, and what came of them.

What was submitted stands in `.runs/run-pipeline.json` beside the records until its end was seen: the
same call goes on with that run, whatever interrupted the one before.
"""

from __future__ import annotations

import hashlib
import json
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from scripts import console
from scripts.errors import Refused, SlipwayError
from scripts.platforms import open_records
from scripts.platforms.azure import names
from scripts.platforms.azure.job import OUTCOME, REASON, VERSION
from scripts.platforms.azure.marker import Marker, undisturbed
from scripts.platforms.azure.streaming import ENDED, FAULT_PAUSES, OVER, Follower, ask_to_cancel
from scripts.platforms.azure.submission import encoded
from scripts.platforms.azure.tracking import AzureTracking
from scripts.platforms.azure.workspace import enduring, explained, silenced, status_of
from scripts.settings import Settings

PAUSE = 3.0


class PipelineRuns:
    """The runs that this clone asks for."""

    def __init__(self, root: Path, settings: Settings, tracking: AzureTracking) -> None:
        self.settings = settings
        self.tracking = tracking
        self.experiment = names.experiment(settings)
        self.marker = Marker(open_records(root, settings), "run-pipeline")

    def see_through(self, published: Any, params: str) -> Mapping[str, Any]:
        """Run it, or go on with the run of an interrupted call; the record's fields of how it ended."""
        parameters = {
            "model_name": self.settings.require("MODEL_NAME"),
            "dataset_version": self.settings.DATASET_VERSION,
        }
        if params:
            parameters["params"] = encoded(params)
        asked = json.dumps([str(published.id), parameters], sort_keys=True)
        inputs = hashlib.sha256(asked.encode()).hexdigest()
        run = self._begun(inputs)
        try:
            if run is None:
                with undisturbed():
                    run = self._submit(published, parameters, inputs)
            status = self._follow(run)
        except KeyboardInterrupt:
            if run is not None:
                ask_to_cancel(run, "the same `make run-pipeline` goes on with it")
            raise
        # Forgotten once all is known: what fails before is asked again of the same run.
        tags = enduring(lambda: self._tags(run), FAULT_PAUSES)
        self.marker.forget()
        return {"run_id": str(run.id), **self._outcome(run, status, tags)}

    def _begun(self, inputs: str) -> Any:
        """The run that an earlier call submitted from the same inputs and did not see to its end."""
        known = self.marker.read()
        if known is None or known["inputs"] != inputs:
            return None
        workspace = self.tracking.workspace
        with explained(f"run {known['run_id']}"), silenced():
            from azureml.core import Experiment
            from azureml.pipeline.core import PipelineRun

            try:
                run = PipelineRun(Experiment(workspace, known["experiment"]), known["run_id"])
                status, outcome = _status(run), run.get_tags().get(OUTCOME)
            except Exception as error:
                if status_of(error) != 404:
                    raise
                return None
        if status in OVER and status != "Completed" and outcome != "kept":
            return None
        console.step(f"going on with run {run.id} ({status.lower()})")
        return run

    def _submit(self, published: Any, parameters: Mapping[str, str], inputs: str) -> Any:
        settings = self.settings
        tags = {"BuildId": settings.BUILD_BUILDID, "BuildUri": settings.BUILD_URI}
        console.step(f"running pipeline {published.name} {published.version} in {self.experiment}")
        with explained(f"pipeline {published.name}"), silenced():
            run = published.submit(
                self.tracking.workspace, self.experiment, pipeline_parameters=dict(parameters)
            )
            self.marker.write(inputs=inputs, run_id=str(run.id), experiment=self.experiment)
            run.set_tags({name: value for name, value in tags.items() if value})
        console.step(f"run {run.id}: {run.get_portal_url()}")
        return run

    def _follow(self, run: Any) -> str:
        """Show the steps as they work until the pipeline's run has ended; returns its status."""
        followers: dict[str, Follower] = {}
        ended: set[str] = set()

        def look() -> tuple[str, list[Any]]:
            with explained(f"run {run.id}"), silenced():
                return _status(run), list(run.get_children())

        while True:
            status, children = enduring(look, FAULT_PAUSES)
            for child in reversed(children):
                if child.id in ended:
                    continue
                if child.id not in followers:
                    console.step(f"step {child.name}")
                    followers[child.id] = Follower(child, run)
                if enduring(followers[child.id].look, FAULT_PAUSES) not in ENDED:
                    # Its last lines come before the step after it.
                    break
                ended.add(child.id)
            if status in ENDED:
                return status
            time.sleep(PAUSE)

    def _tags(self, run: Any) -> dict[str, str]:
        with explained(f"run {run.id}"), silenced():
            return dict(run.get_tags())

    def _outcome(self, run: Any, status: str, tags: Mapping[str, str]) -> dict[str, Any]:
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


def _status(run: Any) -> str:
    """A pipeline's run has a word of its own for a run that completed."""
    return str(run.get_status()).replace("Finished", "Completed")
