"""ACR Tasks: quick builds and runs of a task in a registry (az acr build, az acr run).

Source: Azure/azure-rest-api-specs containerregistry (containerregistry_build.json) and the azure-cli
recordings acr/test_acr_abac_build, test_acr_abac_run; the lines of a log as users show them.
"""

from __future__ import annotations

import base64
import os
import signal
import subprocess
import tarfile
import threading
import time
from contextlib import suppress
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tests.azure.standin.build_blobs import blobs
from tests.azure.standin.build_steps import Bench, StepFailed, perform
from tests.azure.standin.messages import Answer, Json, Refused, Request
from tests.azure.standin.registry import TYPE, Registry, registry_of
from tests.azure.standin.resources import find
from tests.azure.standin.routes import ARM
from tests.azure.standin.shapes import ANY, FLAG, NUMBER, SERVER, TEXT, Optional, check_shape
from tests.azure.standin.world import World, new_id

if TYPE_CHECKING:
    from tests.azure.standin.standin import Parts

VERSIONS = ("2018-09-01", "2019-04-01", "2019-06-01-preview", "2025-03-01-preview")
SPEC = "Azure/azure-rest-api-specs containerregistry (containerregistry_build.json)"
RECORDED = "azure-cli recordings acr/test_acr_abac_build"
PATH = "/subscriptions/{subscription}/resourceGroups/{group}/providers/" + TYPE + "/{name}"
#: Seconds a run may take unless it says so itself.
TIMEOUT = 3600

_VALUES = Optional([{"name": TEXT, "value": TEXT, "isSecret": Optional(FLAG), "type": SERVER}])
_COMMON = {
    "type": TEXT,
    "platform": {"os": TEXT, "architecture": Optional(TEXT), "variant": Optional(TEXT)},
    "timeout": Optional(NUMBER),
    "credentials": Optional(ANY),
    "agentPoolName": Optional(TEXT),
    "agentConfiguration": Optional(ANY),
    "isArchiveEnabled": Optional(FLAG),
    "logTemplate": Optional(TEXT),
    "sourceLocation": Optional(TEXT),
}
SHAPES = {
    "DockerBuildRequest": {
        **_COMMON,
        "imageNames": Optional([TEXT]),
        "isPushEnabled": Optional(FLAG),
        "noCache": Optional(FLAG),
        "dockerFilePath": TEXT,
        "target": Optional(TEXT),
        "arguments": _VALUES,
    },
    "FileTaskRunRequest": {
        **_COMMON,
        "taskFilePath": TEXT,
        "valuesFilePath": Optional(TEXT),
        "values": _VALUES,
    },
    "EncodedTaskRunRequest": {
        **_COMMON,
        "encodedTaskContent": TEXT,
        "encodedValuesContent": Optional(TEXT),
        "values": _VALUES,
    },
}
#: How a run's state is called in the mark at its log's end.
MARKS = {
    "Succeeded": "successful",
    "Failed": "failed",
    "Timeout": "timedout",
    "Canceled": "canceled",
    "Error": "internalerror",
}


@dataclass
class Run:
    """One run; `asked` may hold secret arguments, which no answer shows."""

    world: World
    registry: Registry
    id: str
    number: int
    asked: Json = field(repr=False)
    status: str = "Queued"
    created: str = ""
    started: str = ""
    finished: str = ""
    error: str = ""
    images: list[Json] = field(default_factory=list)
    process: subprocess.Popen[bytes] | None = None
    thread: threading.Thread | None = None

    @property
    def name(self) -> str:
        return f"cf{self.number:x}"

    @property
    def log(self) -> str:
        return f"logs/{self.registry.host}/{self.name}/rawtext.log"

    def shown(self) -> Json:
        """The run as GET answers it."""
        properties: dict[str, Any] = {
            "runId": self.name,
            "status": self.status,
            "lastUpdatedTime": self.finished or self.started or self.created,
            "runType": "QuickBuild" if self.asked["type"] == "DockerBuildRequest" else "QuickRun",
            "createTime": self.created,
            "platform": self.asked["platform"],
            "agentConfiguration": {"cpu": 2},
            "provisioningState": "Succeeded",
            "isArchiveEnabled": False,
        }
        if self.started:
            properties["startTime"] = self.started
        if self.finished:
            properties |= {"finishTime": self.finished, "outputImages": self.images}
        if self.error:
            properties["runErrorMessage"] = self.error
        return {"type": f"{TYPE}/runs", "properties": properties, "id": self.id, "name": self.name}

    def say(self, line: str) -> None:
        """A line of the log; the agent's own begin with the time."""
        blobs(self.world).append(self.log, f"{line}\r\n".encode())

    def note(self, line: str) -> None:
        self.say(f"{datetime.now(UTC):%Y/%m/%d %H:%M:%S} {line}")

    def begin(self) -> None:
        self.created = _stamp()
        self.thread = threading.Thread(target=self._work, name=f"acr {self.name}", daemon=True)
        self.thread.start()

    def stop(self, status: str) -> None:
        """End it now, with this state."""
        if self.status in ("Queued", "Running"):
            self.status = status
            if self.process is not None and self.process.poll() is None:
                with suppress(ProcessLookupError):
                    os.killpg(self.process.pid, signal.SIGKILL)

    def _watch(self, process: subprocess.Popen[bytes]) -> None:
        self.process = process
        if self.status != "Running":
            os.killpg(process.pid, signal.SIGKILL)

    def _work(self) -> None:
        begin = time.monotonic()
        self.started, self.status = _stamp(), "Running"
        timer = threading.Timer(self.asked.get("timeout") or TIMEOUT, self.stop, ("Timeout",))
        timer.daemon = True
        timer.start()
        folder = self.world.folder / "builds" / "work" / new_id()
        bench = Bench(
            self.world,
            self.registry,
            self.name,
            folder,
            self.say,
            self._watch,
            {each["name"]: each["value"] for each in self.asked.get("values") or []},
        )
        error = ""
        try:
            self._steps(bench, folder)
        except StepFailed as failed:
            error = str(failed)
        except Exception as broken:
            error = f"stand-in: {broken!r}"
        finally:
            timer.cancel()
            bench.give_back()
        if self.status == "Running":
            self.status = "Failed" if error else "Succeeded"
        self.images, self.error = bench.pushed, error and f"failed during run, err: {error}"
        took = f"{time.monotonic() - begin:.0f}s"
        if error:
            self.note(error)
            self.say(f"Run ID: {self.name} failed after {took}. Error: {self.error}")
        else:
            self.say(f"Run ID: {self.name} was successful after {took}")
        self.finished = _stamp()
        blobs(self.world).complete(self.log, MARKS[self.status])

    def _steps(self, bench: Bench, folder: Path) -> None:
        folder.mkdir(parents=True)
        source = self.asked.get("sourceLocation")
        if source:
            self.note("Downloading source code...")
            self._unpack(source, folder)
            self.note("Finished downloading source code")
        self.note("Setting up Docker configuration...")
        self.note(f"Successfully logged into {self.registry.host}")
        if self.world.faults.has("acr build fails"):
            self.note("Executing step ID: build")
            raise StepFailed("failed to run step ID: build: exit status 1")
        if self.asked["type"] == "DockerBuildRequest":
            self._build(bench)
            return
        if self.asked["type"] == "FileTaskRunRequest":
            file = folder / self.asked["taskFilePath"]
            if not file.is_file():
                raise StepFailed(
                    f"failed to load task file: open {file.name}: no such file or directory"
                )
            text = file.read_text()
        else:
            text = base64.b64decode(self.asked["encodedTaskContent"]).decode()
        perform(bench, text, lambda step: self.note(f"Executing step ID: {step}"))

    def _unpack(self, source: str, folder: Path) -> None:
        archive = blobs(self.world).file(source)
        if not archive.is_file():
            raise StepFailed(f"failed to download source code: {source} was never uploaded")
        with tarfile.open(archive) as tar:
            # Debian's 3.11 knows no filters yet.
            tar.extraction_filter = getattr(tarfile, "tar_filter", None)
            tar.extractall(folder)

    def _build(self, bench: Bench) -> None:
        """The two steps of a quick build. Arguments reach docker by its environment, and no log."""
        asked = self.asked
        names = [
            each if each.startswith(self.registry.host + "/") else f"{self.registry.host}/{each}"
            for each in (
                name.replace("{{.Run.ID}}", self.name) for name in asked.get("imageNames") or []
            )
        ]
        options: list[str] = ["--file", asked["dockerFilePath"]]
        for name in names:
            options += ["--tag", name]
        if asked.get("target"):
            options += ["--target", asked["target"]]
        if asked.get("noCache"):
            options.append("--no-cache")
        arguments = {each["name"]: each["value"] for each in asked.get("arguments") or []}
        for name in arguments:
            options += ["--build-arg", name]
        self.note("Executing step ID: build")
        try:
            bench.build([*options, "."], arguments)
        except StepFailed as failed:
            raise StepFailed(f"failed to run step ID: build: {failed}") from None
        self.note("Successfully executed container: build")
        if asked.get("isPushEnabled"):
            self.note("Executing step ID: push")
            for name in names:
                bench.push(name)


def _stamp() -> str:
    return datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%S.%f0+00:00")


def runs(world: World, host: str) -> dict[str, Run]:
    """A registry's runs by name."""
    every: dict[str, dict[str, Run]] = world.rooms.setdefault("acr runs", {})
    return every.setdefault(host, {})


def _registry(world: World, request: Request) -> Registry:
    """The registry a path is about."""
    head, found, rest = request.path.partition("/registries/")
    resource = find(world, head + found + rest.partition("/")[0])
    return registry_of(world, resource["properties"]["loginServer"])


def _run(world: World, request: Request, run: str) -> Run:
    found = runs(world, _registry(world, request).host).get(run)
    if found is None:
        raise Refused(404, "RunNotFound", f"The run with ID '{run}' was not found.")
    return found


def _end_all(world: World) -> None:
    for every in world.rooms.get("acr runs", {}).values():
        for run in every.values():
            run.stop("Canceled")
            if run.thread is not None:
                run.thread.join(20)


def add(parts: Parts) -> None:
    """Routes of runs."""
    routes, world = parts.routes, parts.world
    world.closing.append(lambda: _end_all(world))
    world.faults.declare("acr build fails", "a build in the registry ends with exit status 1")
    world.faults.declare("acr tasks not allowed", "the subscription may not build in registries")

    @routes.add(ARM, "POST", PATH + "/listBuildSourceUploadUrl", source=SPEC, versions=VERSIONS)
    def upload(world: World, request: Request, subscription: str, group: str, name: str) -> Json:
        _registry(world, request)
        path = f"tasks-source/{datetime.now(UTC):%Y%m%d%H%M}/{new_id().replace('-', '')}.tar.gz"
        return {"uploadUrl": blobs(world).address(path, "cw"), "relativePath": path}

    @routes.add(ARM, "POST", PATH + "/scheduleRun", source=RECORDED, versions=VERSIONS)
    def schedule(world: World, request: Request, subscription: str, group: str, name: str) -> Json:
        registry = _registry(world, request)
        body = request.mapping()
        shape = SHAPES.get(str(body.get("type")))
        if shape is None:
            raise Refused(400, "InvalidRequestContent", f"type {body.get('type')!r} is unknown.")
        check_shape(body, shape, str(body["type"]))
        if body["platform"]["os"].lower() != "linux":
            raise Refused(400, "InvalidRequestContent", "This stand-in's agents run Linux.")
        if world.faults.has("acr tasks not allowed"):
            raise Refused(
                403,
                "TasksOperationsNotAllowed",
                f"ACR Tasks requests for the registry {name} and {subscription} are not permitted. Please "
                "file an Azure support request at http://aka.ms/azuresupport for assistance.",
            )
        every = runs(world, registry.host)
        number = len(every) + 1
        made = Run(world, registry, f"{registry.id}/runs/cf{number:x}", number, body)
        every[made.name] = made
        made.begin()
        return made.shown()

    @routes.add(ARM, "GET", PATH + "/runs", source=SPEC, versions=VERSIONS)
    def every_run(world: World, request: Request, subscription: str, group: str, name: str) -> Json:
        found = runs(world, _registry(world, request).host).values()
        return {"value": [run.shown() for run in reversed([*found])]}

    @routes.add(ARM, "GET", PATH + "/runs/{run}", source=RECORDED, versions=VERSIONS)
    def one(
        world: World, request: Request, subscription: str, group: str, name: str, run: str
    ) -> Json:
        return _run(world, request, run).shown()

    @routes.add(ARM, "POST", PATH + "/runs/{run}/listLogSasUrl", source=SPEC, versions=VERSIONS)
    def log(
        world: World, request: Request, subscription: str, group: str, name: str, run: str
    ) -> Json:
        return {"logLink": blobs(world).address(_run(world, request, run).log, "r")}

    @routes.add(ARM, "POST", PATH + "/runs/{run}/cancel", source=SPEC, versions=VERSIONS)
    def cancel(
        world: World, request: Request, subscription: str, group: str, name: str, run: str
    ) -> Answer:
        _run(world, request, run).stop("Canceled")
        return Answer(200)
