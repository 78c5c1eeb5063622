"""The one interface between verbs and the place where a release runs.

A platform has parts: `Infrastructure` (what must be there first), `Training` (where a candidate is
fitted), `Tracking` (runs and the model registry), `Pipelines` (the steps as a pipeline of the
platform's own), `Images` (the scoring image) and `Service` (what is deployed). A verb knows these and
never which platform it has.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

if TYPE_CHECKING:
    from scripts.checks.finding import Check, Finding
    from scripts.verb import Context, Result


@dataclass(frozen=True)
class ModelVersion:
    """A registered version of a model; `run_id` is the run that trained it."""

    name: str
    version: int
    run_id: str
    tags: Mapping[str, str]


class Tracking(Protocol):
    """Runs and the model registry: MLflow here, Azure ML there."""

    def start_run(self, experiment: str, tags: Mapping[str, str]) -> str:
        """Begin a run in `experiment`, made when missing; returns the run's id."""

    def log(
        self,
        run_id: str,
        *,
        parameters: Mapping[str, Any] = {},
        metrics: Mapping[str, float] = {},
    ) -> None:
        """Add parameters and metrics to a run."""

    def log_folder(self, run_id: str, folder: Path, to: str) -> None:
        """Upload the files in `folder` as the run's artifacts under `to`."""

    def finish_run(self, run_id: str, *, succeeded: bool) -> None:
        """End a run."""

    def register(
        self,
        name: str,
        run_id: str,
        tags: Mapping[str, str],
        check: Callable[[Sequence[ModelVersion]], None],
    ) -> tuple[ModelVersion, bool]:
        """Make the run's artifact `model` the next version of `name`; once per run.

        Returns the version and whether this call made it. `check` hears the versions that there are
        before it is made, while no other call can add one; what it raises is raised.
        """

    def versions(self, name: str) -> Sequence[ModelVersion]:
        """All versions of `name`, the newest first; the newest is the champion."""

    def download(self, run_id: str, artifact: str) -> Path:
        """A local folder (or file) with the run's artifact; read it, never write to it."""


@dataclass(frozen=True)
class Image:
    """A scoring image; `id` is its config digest, `digest` its manifest's once it is in a registry."""

    id: str
    reference: str
    size_bytes: int
    labels: Mapping[str, str]
    digest: str | None = None


class Images(Protocol):
    """The scoring images of this clone, or of all that share a registry."""

    @property
    def engine(self) -> str:
        """What builds: `docker`, `acr` (the registry itself), or `none` where no image can be built."""

    def name(self, model: str) -> str:
        """What the images of a model are called, without a tag."""

    def find(self, inputs: str, reference: str = "") -> Image | None:
        """The image built from the inputs with this hash (label `slipway.inputs`), if it is still here.

        `reference` is what `build` was told to call it.
        """

    def build(self, bundle: Path, reference: str, labels: Mapping[str, str]) -> Image:
        """Build the bundle's image, tagged `reference`; SlipwayError with the log's end if it fails."""

    def read(self, image: Image, path: str) -> Mapping[str, bytes]:
        """The content of the file at `path` in the image, or of the files in that folder, by name."""


@dataclass(frozen=True)
class Release:
    """What `deploy` starts: a packaged model version and, where there is an engine, its image."""

    model_name: str
    version: int
    inputs: str
    bundle: Path
    image: Image | None


@dataclass(frozen=True)
class Deployment:
    """One deployment of the service; numbers count up and are never reused.

    `previous` is the deployment that `rollback` would serve again; `rejected` the version a
    rollback left behind, which is not deployed again by itself.
    """

    number: int
    model_name: str
    version: int
    inputs: str
    image_id: str | None
    kind: str  # "container", "process", "aci", "webapp" or "aks"
    url: str  # as the host reaches it
    inner_url: str | None  # as the toolbox reaches it on the clone's network
    previous: int | None
    rejected: int | None
    serving: bool
    healthy: bool
    started: str  # ISO 8601, UTC


@dataclass(frozen=True)
class Endpoint:
    """Where to send requests from here; `headers` carry the key, if there is one.

    `certificate` (PEM) is the service's own, which is trusted whoever signed it; "" where those that
    the system trusts must have.
    """

    url: str
    headers: Mapping[str, str] = field(default_factory=dict, repr=False)
    certificate: str = ""


class Service(Protocol):
    """The deployed scoring service."""

    @property
    def log_delay(self) -> float | None:
        """Seconds to wait for lines of its log that come late; None where they are there at once."""

    def described(self, deployment: Deployment) -> bytes | None:
        """The model.json that a deployment serves; None if it cannot be had from here."""

    def current(self, release: Release) -> Deployment | None:
        """The serving deployment if it is `release` with the present settings, and healthy.

        Finishes first what an interrupted call left behind.
        """

    def deploy(self, release: Release, sample: Mapping[str, Any]) -> Deployment:
        """Start `release` beside what serves now, prove it with `sample` (model.json's), switch, drain.

        SlipwayError with the new one's log if it does not come up; the old one then serves on.
        """

    def rollback(self) -> Deployment:
        """Serve the previous deployment again; UsageError when there is none."""

    def history(self) -> Sequence[Deployment]:
        """The deployments still here, the newest first; at most one of them is serving."""

    def endpoint(self) -> Endpoint:
        """Where the service answers; UsageError if nothing is deployed."""

    def logs(self, *, follow: bool = False) -> Iterator[str]:
        """The serving deployment's log lines, oldest first; `follow` goes on until interrupted."""

    def stop(self) -> int:
        """Stop whatever serves; history and images stay. Returns how many were stopped."""


class Training(Protocol):
    """Where a candidate is fitted."""

    def train(self, context: Context, fit: Callable[[Context], Result]) -> Result:
        """What `fit` gives (scripts.train.fit_candidate), called here or on the platform's machines.

        Its record, and the plots it names, are here afterwards. Called again after an interruption
        it goes on with the run that was begun.
        """

    def restore(self, context: Context, file: Path) -> None:
        """Fetch the data file that is not here; leave it missing where the platform keeps none.

        What the data record names by its hash, else the version that the settings name.
        """


class Infrastructure(Protocol):
    """What the other parts stand on; a platform that needs none refuses with UsageError."""

    def login(self) -> str:
        """Sign in, unless that was done; says as whom and where."""

    def what_if(self) -> str:
        """What `provision` would change, for people; changes nothing."""

    def provision(self) -> Mapping[str, Any]:
        """Make what is missing and change what differs; the provision record's fields."""

    def destroy(self, confirmation: str | None, begun: Callable[[], None]) -> str:
        """Remove all of it, once `confirmation` (or what is typed) is its name; says what went.

        `begun` is called before the first thing goes.
        """

    def findings(self) -> Iterator[Finding]:
        """What `make doctor` says of it: everything wrong, each with its mend."""


class Pipelines(Protocol):
    """The stages train, evaluate and register as a pipeline of the platform."""

    def publish(self) -> Mapping[str, Any]:
        """Publish the pipeline under TRAINING_PIPELINE_NAME and version BUILD_BUILDID; its record."""

    def run(self, *, wait: bool, params: str = "") -> Mapping[str, Any]:
        """Run the published pipeline with PARAMS; without `wait` it is only named, for a job that runs it.

        Called again after an interruption it goes on with the run that was begun.
        """


class Platform(Protocol):
    """One place where a release runs."""

    name: str

    @property
    def checks(self) -> Sequence[Check]:
        """What `make doctor` looks at here, besides the machine and the model room."""

    @property
    def infrastructure(self) -> Infrastructure:
        """What must be there first."""

    @property
    def training(self) -> Training:
        """Where candidates are fitted."""

    @property
    def pipelines(self) -> Pipelines:
        """The stages as a pipeline."""

    @property
    def tracking(self) -> Tracking:
        """Runs and registry; connecting is put off until first asked for."""

    @property
    def images(self) -> Images:
        """The scoring images."""

    @property
    def service(self) -> Service:
        """The scoring service."""

    def show_runs(self, context: Context) -> Result:
        """The page that shows runs and models: served until interrupted, or where it is."""


def start_again(history: Sequence[Deployment]) -> str:
    """The command that serves again what served last; a rolled-back version stays away."""
    last = history[0]
    wanted = "FORCE=1" if last.rejected is None else f"MODEL_VERSION={last.version}"
    return f"make deploy {wanted}"


def serving(service: Service) -> Deployment | None:
    """The deployment that serves now, if any."""
    return next((item for item in service.history() if item.serving), None)
