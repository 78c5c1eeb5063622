"""A submitted run at work: it waits for a node, executes its command for real and leaves its files."""

from __future__ import annotations

import json
import shutil
import threading
import time
import traceback
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path

from tests.azure.standin.containers import PullFailed
from tests.azure.standin.messages import Json, Refused
from tests.azure.standin.ml import artifacts, compute, environments, runs, snapshots
from tests.azure.standin.ml.processes import Started, Work, start_container, start_process
from tests.azure.standin.ml.workspace import Plane, Workspace, user_error
from tests.azure.standin.world import World

LOG = "user_logs/std_log.txt"
#: Folders of the working directory whose files become the run's artifacts.
KEPT = ("outputs", "logs")
FAILS, CANCELLED, PREEMPTED = "a run fails", "a run is cancelled", "node preempted"
#: Seconds that a run takes to be prepared on its node.
PREPARATION = 0.2
#: Seconds until a run whose node was taken away has another one.
QUEUED = 4.0
#: Seconds between a cancellation and the end of what it cancels.
STOPS_AFTER = 0.5


@dataclass
class Order:
    """What is to be executed. `ended` hears the run's last status once all of it is kept."""

    experiment: str
    run_id: str
    configuration: Json
    snapshot_id: str | None
    fields: Json = field(default_factory=dict)
    variables: dict[str, str] = field(default_factory=dict)
    ended: Callable[[str], None] = lambda status: None
    #: Called with the working directory before the command begins, and once it has succeeded.
    prepare: Callable[[Path], None] = lambda folder: None
    collect: Callable[[Path], None] = lambda folder: None


def declare(world: World) -> None:
    """The troubles that a run may get into."""
    world.faults.declare(FAILS, "a run ends as Failed though its code would not have")
    world.faults.declare(CANCELLED, "somebody cancels a run while it works")
    world.faults.declare(PREEMPTED, "a run loses its node and begins again on another")


def command_of(configuration: Json) -> str:
    """The shell's line that a run executes; Refused (400) where there is none.

    Source: the SDK's documentation of `command`, whose parts are joined by blanks and given to a shell.
    """
    command = configuration.get("command")
    if command:
        return " ".join(map(str, command)) if isinstance(command, list) else str(command)
    script = configuration.get("script")
    if not script:
        raise user_error(400, "Neither a script nor a command is given.")
    python = configuration["environment"]["python"].get("interpreterPath") or "python"
    return " ".join([python, script, *map(str, configuration.get("arguments") or [])])


def check(workspace: Workspace, configuration: Json) -> None:
    """Refused what a run cannot be made of."""
    target = configuration.get("target")
    cluster = compute.find(workspace, str(target))
    if cluster is None or cluster["properties"]["computeType"] != "AmlCompute":
        message = f"Compute target {target} not found in workspace {workspace.name}."
        raise user_error(400, message, "ComputeTargetNotFound")
    for name in ("data", "dataReferences", "outputData", "datacaches"):
        if configuration.get(name):
            raise user_error(400, f"The stand-in knows no runs with {name}.")
    if int(configuration.get("nodeCount") or 1) != 1:
        raise user_error(400, "The stand-in knows runs on one node only.")
    command_of(configuration)


def submit(plane: Plane, workspace: Workspace, order: Order) -> Json:
    """Make the run and begin its work; the world's lock is held."""
    check(workspace, order.configuration)
    if order.snapshot_id:
        snapshots.find(workspace, order.snapshot_id)
    known = workspace.runs.get(order.run_id)
    if known is not None and known["status"] != "NotStarted":
        raise user_error(409, f"Run {order.run_id} already exists.", "Conflict")
    at = f"/execution/v1.0{workspace.id}/experiments/{order.experiment}/runId/{order.run_id}/cancel"
    fields = {
        "status": "Queued",
        "runType": "azureml.scriptrun",
        "target": order.configuration["target"],
        "scriptName": order.configuration.get("script"),
        "runDefinition": order.configuration,
        "cancelUri": f"https://{workspace.region}.experiments.azureml.net{at}",
        **order.fields,
        "properties": {
            "_azureml.ComputeTargetType": "amlctrain",
            **({"ContentSnapshotId": order.snapshot_id} if order.snapshot_id else {}),
            **(order.fields.get("properties") or {}),
        },
    }
    if known is None:
        run = runs.make(workspace, order.experiment, order.run_id, **fields)
    else:
        # The SDK gives a run its tags before it submits it.
        run = known
        runs.change(workspace, run, fields)
    Job(plane, workspace, run, order).start()
    return run


class Job(threading.Thread):
    """One run's life on its node."""

    def __init__(self, plane: Plane, workspace: Workspace, run: Json, order: Order) -> None:
        super().__init__(name=f"run {order.run_id}", daemon=True)
        self.plane, self.workspace, self.run_, self.order = plane, workspace, run, order
        self.world = workspace.world
        self.place = self.world.folder / "runs" / order.run_id
        self.log = self.place / "std_log.txt"
        self._sent = -1
        self._process: Started | None = None
        workspace.stoppers[order.run_id] = self.stop

    @property
    def over(self) -> bool:
        """Whether somebody has ended the run, or wants to."""
        return self.run_["status"] in (*runs.ENDED, "CancelRequested")

    def stop(self) -> None:
        """End what executes: soon, for it may be the command itself that asked for it."""
        threading.Timer(STOPS_AFTER, self._kill).start()

    def _kill(self) -> None:
        if self._process is not None:
            self._process.kill()

    def run(self) -> None:
        target = str(self.run_["target"])
        try:
            while not self.over and not compute.take(self.workspace, target, self.order.run_id):
                time.sleep(0.1)
            try:
                while not self.over and self._attempt():
                    pass
            finally:
                compute.give_back(self.workspace, target, self.order.run_id)
        except PullFailed as failed:
            self._fail(f"Failed to pull Docker image {self._image}: {failed}", "ImagePullFailed")
        except Refused as refused:
            self._fail(refused.message)
        except Exception:
            traceback.print_exc()
            self._fail("The stand-in is broken", "StandInIsBroken")
        with self.world.lock:
            self.workspace.stoppers.pop(self.order.run_id, None)
            if self.run_["status"] == "CancelRequested":
                runs.move(self.workspace, self.run_, "Canceled")
        self.order.ended(str(self.run_["status"]))

    def _fail(self, message: str, code: str = "UserError") -> None:
        with self.world.lock:
            runs.fail(self.workspace, self.run_, message, code)

    def _move(self, status: str) -> bool:
        with self.world.lock:
            return runs.move(self.workspace, self.run_, status)

    @property
    def _image(self) -> str:
        return environments.image(self.workspace, self.run_["runDefinition"]["environment"])

    def _attempt(self) -> bool:
        """Execute the command; whether it has to begin again."""
        self._move("Preparing")
        code = self.place / "wd"
        shutil.rmtree(code, ignore_errors=True)
        code.mkdir(parents=True)
        self.log.touch()
        if self.order.snapshot_id:
            snapshots.lay_out(self.workspace, self.order.snapshot_id, code)
        time.sleep(PREPARATION)
        for folder in KEPT:
            (code / folder).mkdir(exist_ok=True)
        self.order.prepare(code)
        work = Work(self.order.run_id, self._command, code, self.log, self._variables())
        if self.world.docker and self._image:
            started = start_container(self.workspace, str(self.run_["target"]), self._image, work)
        else:
            started = start_process(self.world, work)
        self._process = started
        if self.over or not self._move("Running"):
            started.kill()
        preempted = self._watch(started)
        code_left = started.wait(20)
        self._send_log()
        if preempted:
            with self.world.lock:
                if not self.over:
                    self.run_["status"] = "Queued"
            time.sleep(QUEUED)
            return True
        self._keep(code)
        self._end(code_left)
        return False

    @property
    def _command(self) -> str:
        return command_of(self.run_["runDefinition"])

    def _watch(self, started: Started) -> bool:
        """Send the log as it grows until the command has ended; whether its node went away."""
        faults = self.world.faults
        limit = self.run_["runDefinition"].get("maxRunDurationSeconds")
        end = time.monotonic() + float(limit) if limit else None
        preempted, cancelled = faults.has(PREEMPTED), faults.has(CANCELLED)
        begun = time.monotonic()
        while started.wait(0.25) is None:
            self._send_log()
            shown = self.log.stat().st_size > 0 or time.monotonic() > begun + 5
            if preempted and shown:
                started.kill()
                return True
            if (cancelled and shown) or (end is not None and time.monotonic() > end):
                with self.world.lock:
                    runs.cancel(self.workspace, self.order.run_id)
        return False

    def _end(self, code: int | None) -> None:
        if self.over:
            return
        if self.world.faults.has(FAILS):
            self._fail(
                "AzureMLCompute job failed.\nJobNodeLost: the node stopped responding.",
                "ServiceError",
            )
        elif code:
            name = self._command.split()[0]
            self._fail(
                f"Execution failed. User process '{name}' exited with status code {code}. Please check "
                f"log file '{LOG}' for error details. Error: {self._last_words()}"
            )
        else:
            self._move("Finalizing")
            self.order.collect(self.place / "wd")
            self._move("Completed")

    def _last_words(self) -> str:
        lines = self.log.read_text("utf-8", "replace").splitlines()
        return "\n".join(lines[-5:])

    def _send_log(self) -> None:
        size = self.log.stat().st_size
        if size != self._sent:
            self._sent = size
            artifacts.put(self.workspace, self.order.run_id, LOG, self.log.read_bytes())

    def _keep(self, code: Path) -> None:
        """The files of `outputs` and `logs` become artifacts, unless the code uploaded them itself."""
        for folder in KEPT:
            for path in sorted((code / folder).rglob("*")):
                name = path.relative_to(code).as_posix()
                if path.is_file() and not artifacts.has(self.workspace, self.order.run_id, name):
                    artifacts.put(self.workspace, self.order.run_id, name, path.read_bytes())

    def _variables(self) -> dict[str, str]:
        """The environment as the SDK in the run reads it (azureml-core core/run.py, `_load_scope`)."""
        workspace, configuration = self.workspace, self.run_["runDefinition"]
        parts = workspace.id.split("/")
        expiry = datetime.now(UTC) + timedelta(hours=48)
        own = {
            "AZUREML_RUN_ID": self.order.run_id,
            "AZUREML_ROOT_RUN_ID": self.run_["rootRunId"],
            "AZUREML_RUN_TOKEN": self.plane.run_token(workspace, self.order.run_id),
            "AZUREML_RUN_TOKEN_EXPIRY": str(int(expiry.timestamp())),
            "AZUREML_ARM_SUBSCRIPTION": parts[2],
            "AZUREML_ARM_RESOURCEGROUP": parts[4],
            "AZUREML_ARM_WORKSPACE_NAME": workspace.name,
            "AZUREML_ARM_PROJECT_NAME": self.order.experiment,
            "AZUREML_EXPERIMENT_ID": self.run_["experimentId"],
            "AZUREML_WORKSPACE_ID": workspace.workspace_id,
            "AZUREML_WORKSPACE_SCOPE": workspace.id,
            "AZUREML_EXPERIMENT_SCOPE": f"{workspace.id}/experiments/{self.order.experiment}",
            "AZUREML_SERVICE_ENDPOINT": workspace.url,
            "AZUREML_RUN_HISTORY_SERVICE_ENDPOINT": workspace.url,
            "AZUREML_DISCOVERY_SERVICE_ENDPOINT": f"{workspace.url}/discovery",
            "AZUREML_DATA_CONTAINER_ID": self.run_["dataContainerId"],
            "AZUREML_FRAMEWORK": str(configuration.get("framework") or "Python"),
            "AZUREML_CR_COMPUTE_CONTEXT": json.dumps({"cluster_name": configuration["target"]}),
        }
        asked = {
            **(configuration["environment"].get("environmentVariables") or {}),
            **(configuration.get("environmentVariables") or {}),
        }
        return {**{k: str(v) for k, v in asked.items()}, **self.order.variables, **own}
