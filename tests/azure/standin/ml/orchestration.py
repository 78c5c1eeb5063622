"""A pipeline's run at work: its steps in the graph's order, each a run that executes for real."""

from __future__ import annotations

import json
import threading
import traceback
from pathlib import Path

from tests.azure.standin.messages import Json, Refused
from tests.azure.standin.ml import datastores, execution, graphs, jobs, runs
from tests.azure.standin.ml.graphs import kept
from tests.azure.standin.ml.workspace import Plane, Workspace, new_id, user_error

#: The service's own names for what run history calls otherwise.
CODES = {"Completed": "Finished", "CancelRequested": "Running", "Finalizing": "Running"}
#: Before a step runs it is queued to the service.
WAITING = ("Preparing", "Provisioning", "Starting", "Queued")


def begin(plane: Plane, workspace: Workspace, made: Json) -> Json:
    """Submit a pipeline's run; the world's lock is held."""
    if made["IsSubmitted"]:
        raise user_error(400, f"PipelineRun {made['Id']} was submitted before.")
    made["IsSubmitted"] = True
    pipeline = {"azureml.pipelineid": made["PipelineId"]} if made["PipelineId"] else {}
    run = runs.make(
        workspace,
        made["RunHistoryExperimentName"],
        made["Id"],
        status="Running",
        runType="azureml.PipelineRun",
        description=made.get("Description"),
        tags=made["Tags"],
        properties={
            "azureml.runsource": "azureml.PipelineRun",
            "runSource": made["RunSource"],
            "runType": made["RunType"],
            "azureml.parameters": json.dumps(made["ParameterAssignments"]),
            **pipeline,
            **made["Properties"],
        },
    )
    Conductor(plane, workspace, made, run).start()
    return shown(workspace, made)


def code(run: Json) -> str:
    """A run's state in the service's words."""
    status = str(run["status"])
    return "Queued" if status in WAITING else CODES.get(status, status)


def shown(workspace: Workspace, made: Json) -> Json:
    """A pipeline's run with its present state."""
    run = workspace.runs.get(made["Id"])
    status = {"StatusCode": "NotStarted", "StatusDetail": None, "CreationTime": made["CreatedDate"]}
    if run is not None:
        status = {
            **status,
            "StatusCode": code(run),
            "StatusDetail": ((run["error"] or {}).get("error") or {}).get("message"),
            "EndTime": run["endTimeUtc"],
        }
    return {**made, "Status": status, "HasErrors": status["StatusCode"] == "Failed"}


def cancel(workspace: Workspace, run_id: str) -> None:
    """Cancel a pipeline's run and its steps."""
    if run_id in workspace.runs:
        runs.cancel(workspace, run_id)


def nodes(workspace: Workspace, run_id: str) -> Json:
    """The state of each node by its id; those that have not begun are NotStarted."""
    made = kept(workspace).runs[run_id]
    graph = kept(workspace).graphs[made["GraphId"]]
    found = {run["tags"].get("azureml.nodeid"): run for run in runs.children(workspace, run_id)}
    answer: Json = {}
    for node in graph["ModuleNodes"]:
        run = found.get(node["Id"])
        answer[node["Id"]] = {
            "StatusCode": code(run) if run else "NotStarted",
            "Status": None,
            "RunId": run["runId"] if run else None,
            "CreationTime": run["createdUtc"] if run else None,
            "StartTime": run["startTimeUtc"] if run else None,
            "EndTime": run["endTimeUtc"] if run else None,
            "IsBypassed": False,
        }
    return answer


class Conductor(threading.Thread):
    """Starts the steps when those before them have completed, and ends with them."""

    def __init__(self, plane: Plane, workspace: Workspace, made: Json, run: Json) -> None:
        super().__init__(name=f"pipeline {made['Id']}", daemon=True)
        self.plane, self.workspace, self.made, self.run_ = plane, workspace, made, run
        self.graph = kept(workspace).graphs[made["GraphId"]]
        self.before = graphs.predecessors(self.graph)
        self.steps: dict[str, str] = {}
        self._changed = threading.Condition(workspace.world.lock)
        workspace.stoppers[made["Id"]] = self._stopped

    def _stopped(self) -> None:
        with self._changed:
            self._changed.notify_all()

    def run(self) -> None:
        with self._changed:
            try:
                while not self._over():
                    if self.run_["status"] == "Running":
                        self._start_ready()
                    if not self._over():
                        self._changed.wait(1)
                self._end()
            except Refused as refused:
                self._broken(refused.message)
            except Exception:
                traceback.print_exc()
                self._broken("The stand-in is broken")
            self.workspace.stoppers.pop(self.made["Id"], None)

    def _broken(self, message: str) -> None:
        for run in runs.children(self.workspace, self.made["Id"]):
            runs.cancel(self.workspace, run["runId"])
        runs.fail(self.workspace, self.run_, message)

    def _status(self, node: str) -> str:
        return str(self.workspace.runs[self.steps[node]]["status"])

    def _lost(self) -> list[str]:
        """The statuses of steps that ended otherwise than well."""
        return [s for s in map(self._status, self.steps) if s in ("Failed", "Canceled")]

    def _over(self) -> bool:
        """Whether no step works and none will."""
        if any(self._status(node) not in runs.ENDED for node in self.steps):
            return False
        if self.run_["status"] != "Running" or (self._lost() and not self._goes_on):
            return True
        return not self._ready()

    @property
    def _goes_on(self) -> bool:
        return bool(self.made["ContinueRunOnStepFailure"])

    def _ready(self) -> list[Json]:
        return [
            node
            for node in self.graph["ModuleNodes"]
            if node["Id"] not in self.steps
            and all(
                b in self.steps and self._status(b) == "Completed" for b in self.before[node["Id"]]
            )
        ]

    def _start_ready(self) -> None:
        if self._lost() and not self._goes_on:
            for run_id in self.steps.values():
                runs.cancel(self.workspace, run_id)
            return
        for node in self._ready():
            self._start(node)

    def _start(self, node: Json) -> None:
        module = kept(self.workspace).modules[node["ModuleId"]]
        step = graphs.step(self.graph, node, module, self.made["ParameterAssignments"])
        environment = execution.resolved(self.workspace, step.configuration["environment"])
        run_id = new_id()
        order = jobs.Order(
            self.made["RunHistoryExperimentName"],
            run_id,
            {**step.configuration, "environment": environment},
            step.snapshot_id,
            fields={
                "parentRunId": self.made["Id"],
                "runType": "azureml.StepRun",
                "name": step.name,
                "displayName": step.name,
                "tags": {"azureml.nodeid": node["Id"], "azureml.pipeline": self.made["Id"]},
                "properties": {
                    "azureml.runsource": "azureml.StepRun",
                    "azureml.nodeid": node["Id"],
                    "azureml.moduleid": node["ModuleId"],
                    "azureml.moduleName": step.name,
                    "azureml.pipelinerunid": self.made["Id"],
                    "azureml.stepname": step.name,
                    "StepType": str(module.get("StepType") or ""),
                },
            },
            variables=step.variables,
            ended=lambda status: self._stopped(),
            prepare=lambda folder: self._bring(node, folder),
            collect=lambda folder: self._take(node, module, folder),
        )
        jobs.submit(self.plane, self.workspace, order)
        self.steps[node["Id"]] = run_id

    def _store(self) -> str:
        return datastores.container(self.workspace, self.workspace.default_datastore)

    def _bring(self, node: Json, folder: Path) -> None:
        """Lay out what the steps before left for this one's inputs."""
        account, place = self.workspace.account, self._store()
        for port, (source, name) in graphs.sources(self.graph, node["Id"]).items():
            prefix = f"azureml/{self.steps[source]}/{name}/"
            for blob in account.names(place, prefix):
                target = folder / graphs.PORTS / port / blob.removeprefix(prefix)
                target.parent.mkdir(parents=True, exist_ok=True)
                target.write_bytes(account.get(place, blob) or b"")
        for port in graphs.outputs(kept(self.workspace).modules[node["ModuleId"]]):
            (folder / graphs.PORTS / port).mkdir(parents=True, exist_ok=True)

    def _take(self, node: Json, module: Json, folder: Path) -> None:
        """Keep what the step left in its outputs in the datastore."""
        account, place = self.workspace.account, self._store()
        for port in graphs.outputs(module):
            root = folder / graphs.PORTS / port
            for path in sorted(root.rglob("*")):
                if path.is_file():
                    name = path.relative_to(root).as_posix()
                    blob = f"azureml/{self.steps[node['Id']]}/{port}/{name}"
                    account.put(place, blob, path.read_bytes())

    def _end(self) -> None:
        lost = self._lost()
        if self.run_["status"] == "CancelRequested" or (lost and "Failed" not in lost):
            runs.move(self.workspace, self.run_, "Canceled")
        elif lost:
            names = [
                self.workspace.runs[run]["name"]
                for node, run in self.steps.items()
                if self._status(node) == "Failed"
            ]
            message = f"Pipeline has failed child jobs. Failed nodes: {', '.join(names)}."
            runs.fail(self.workspace, self.run_, message, "PipelineHasStepJobFailed")
        else:
            runs.move(self.workspace, self.run_, "Completed")
