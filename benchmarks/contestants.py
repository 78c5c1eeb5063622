"""The servers that are compared, each as its own documentation has it run."""

from __future__ import annotations

import json
import secrets
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from benchmarks.environments import Environment
from benchmarks.subject import Rows, Subject, request_of

_HERE = Path(__file__).resolve().parent
ENTRIES = _HERE / "entries"
LOCKS = _HERE / "locks"

Request = Callable[[Rows], bytes]


@dataclass(frozen=True)
class Contestant:
    """A server: how it is started on a port, asked and understood."""

    name: str
    environment: Environment
    #: The package whose version names it, None for our own.
    package: str | None
    command: Callable[[int], list[str]]
    folder: Path
    environ: Mapping[str, str]
    health: str
    score: str
    request: Request
    #: The predictions in a decoded answer.
    predictions: Callable[[Any], list[Any]]
    headers: Mapping[str, str] = field(default_factory=dict)
    #: Lua pattern of the part of an answer that is always the same; empty means all of it.
    part: str = ""


def slipway(subject: Subject, runtime: str, environment: Environment) -> Contestant:
    """What `make deploy` runs: the bundle, the image's own packages, a key; log and metrics on."""
    bundle = subject.bundles[runtime].path
    key = secrets.token_urlsafe(16)
    return Contestant(
        name=f"slipway {runtime}",
        environment=environment,
        package=None,
        command=lambda port: [
            *(environment.python, "-m", "scoring.server"),
            *("--host", "127.0.0.1", "--port", str(port)),
        ],
        folder=bundle,
        environ={
            "PYTHONPATH": f"{bundle}:{bundle / 'code'}",
            "PYTHONDONTWRITEBYTECODE": "1",
            "PYTHONUNBUFFERED": "1",
            "SCORING_MODEL_DIR": str(bundle / "model"),
            "SCORING_KEY": key,
        },
        health="/",
        score="/score",
        request=request_of,
        predictions=lambda answer: list(answer["result"]),
        headers={"Authorization": f"Bearer {key}"},
    )


def azureml(subject: Subject, environment: Environment) -> Contestant:
    """What Azure ML runs, with a plain score.py."""
    script = str(ENTRIES / "azureml_score.py")
    return Contestant(
        name="azureml",
        environment=environment,
        package="azureml-inference-server-http",
        command=lambda port: [
            environment.script("azmlinfsrv"),
            *("--entry_script", script, "--port", str(port)),
        ],
        folder=subject.folder,
        environ={"AZUREML_MODEL_DIR": str(subject.folder)},
        health="/",
        score="/score",
        request=request_of,
        predictions=list,
    )


def mlflow(subject: Subject, environment: Environment) -> Contestant:
    """`mlflow models serve`, which runs FastAPI on uvicorn."""
    return Contestant(
        name="mlflow",
        environment=environment,
        package="mlflow",
        command=lambda port: [
            *(environment.script("mlflow"), "models", "serve", "--env-manager", "local"),
            *("--model-uri", str(subject.folder / "mlflow"), "--host", "127.0.0.1"),
            *("--port", str(port)),
        ],
        folder=subject.folder,
        # It starts uvicorn by name.
        environ={"PATH": f"{environment.path / 'bin'}:/usr/bin:/bin"},
        health="/health",
        score="/invocations",
        request=lambda rows: json.dumps(
            {"dataframe_split": {"columns": rows.columns, "data": rows.rows}}
        ).encode(),
        predictions=lambda answer: list(answer["predictions"]),
    )


def bentoml(subject: Subject, environment: Environment) -> Contestant:
    """`bentoml serve` with a service of one method."""
    return Contestant(
        name="bentoml",
        environment=environment,
        package="bentoml",
        command=lambda port: [
            *(environment.script("bentoml"), "serve", "bentoml_service:Scorer"),
            *("--working-dir", str(ENTRIES), "--host", "127.0.0.1", "--port", str(port)),
        ],
        folder=subject.folder,
        environ={
            "BENCH_MODEL_DIR": str(subject.folder),
            "BENTOML_HOME": str(environment.path / "home"),
            "BENTOML_DO_NOT_TRACK": "true",
            "PYTHONDONTWRITEBYTECODE": "1",
        },
        health="/readyz",
        score="/score",
        request=request_of,
        predictions=list,
    )


def mlserver(subject: Subject, environment: Environment) -> Contestant:
    """MLServer with its scikit-learn runtime, in one process: it has one core."""
    folder = subject.folder / "mlserver"
    folder.mkdir(exist_ok=True)
    model = {
        "name": "model",
        "implementation": "mlserver_sklearn.SKLearnModel",
        "parameters": {"uri": str(subject.folder / "model.joblib")},
    }
    (folder / "model-settings.json").write_text(json.dumps(model))

    def request(rows: Rows) -> bytes:
        shape = [len(rows), len(rows.columns)]
        tensor = {"name": "predict", "shape": shape, "datatype": "FP64", "data": rows.rows}
        return json.dumps({"inputs": [tensor]}).encode()

    return Contestant(
        name="mlserver",
        environment=environment,
        package="mlserver",
        command=lambda port: [environment.script("mlserver"), "start", str(folder)],
        folder=folder,
        environ={"MLSERVER_HOST": "127.0.0.1", "MLSERVER_PARALLEL_WORKERS": "0"},
        health="/v2/models/model/ready",
        score="/v2/models/model/infer",
        request=request,
        predictions=lambda answer: list(answer["outputs"][0]["data"]),
        part='"outputs":.*',  # before it stands an id of the answer
    )


#: By name, and whether they take strings too.
PEERS: dict[str, tuple[Callable[[Subject, Environment], Contestant], bool]] = {
    "azureml": (azureml, True),
    "mlflow": (mlflow, True),
    "bentoml": (bentoml, False),
    "mlserver": (mlserver, False),
}
