"""What a run takes along to its node: the code, the settings and the environment.

The code is a copy of the folders that training needs; the settings are environment variables,
without the secrets, which no stage up to `register` reads.
"""

from __future__ import annotations

import hashlib
import json
import shutil
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from urllib.parse import quote

from scripts.lineage import LOCK, git_state
from scripts.settings import Settings

FOLDERS = ("model", "scoring", "scripts")
FILES = (str(LOCK), "model/defaults.env")
#: The settings that the stages on a node read; nothing else travels.
TRAVELLING = (
    *("MODEL_NAME", "EXPERIMENT_NAME", "BUILD_BUILDID", "BUILD_URI", "WORKSPACE_NAME"),
    *("HOLDOUT_FRACTION", "GATE_MARGIN", "CHAMPION", "DATA_SHIFT"),
    *("DATASET_NAME", "DATASTORE_NAME"),
)
#: Lineage, which makes no run another one.
ASIDE = {"BUILD_BUILDID", "BUILD_URI"}


def code_files(root: Path) -> list[Path]:
    """The files of the code, relative to `root`, in order."""
    found = [Path(name) for name in FILES if (root / name).is_file()]
    for folder in FOLDERS:
        for path in (root / folder).rglob("*"):
            relative = path.relative_to(root)
            hidden = any(part.startswith(".") or part == "__pycache__" for part in relative.parts)
            if path.is_file() and not hidden and path.suffix != ".pyc" and relative not in found:
                found.append(relative)
    return sorted(found)


def code_hash(root: Path) -> str:
    """One hash of the names and contents of the code."""
    digest = hashlib.sha256()
    for path in code_files(root):
        content = hashlib.sha256((root / path).read_bytes()).hexdigest()
        digest.update(f"{content}  {path.as_posix()}\n".encode())
    return digest.hexdigest()


@contextmanager
def code_copy(root: Path) -> Iterator[Path]:
    """A folder with the code, for the time of the submission."""
    with tempfile.TemporaryDirectory(prefix="slipway-code-") as scratch:
        folder = Path(scratch) / "code"
        for path in code_files(root):
            target = folder / path
            target.parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(root / path, target)
        yield folder


def variables(root: Path, settings: Settings) -> dict[str, str]:
    """The environment variables of a run: the settings it reads, and the commit."""
    found = {
        name: _text(value) for name in TRAVELLING if (value := getattr(settings, name)) is not None
    }
    return {
        **found,
        "PLATFORM": "azure",
        "SLIPWAY_GIT": json.dumps(git_state(root)),
        "MLFLOW_DISABLE_TELEMETRY": "true",
        "MLFLOW_LOGGING_LEVEL": "ERROR",
        "PYTHONUNBUFFERED": "1",
        "PYTHONDONTWRITEBYTECODE": "1",
        "NO_COLOR": "1",
    }


def inputs_hash(root: Path, settings: Settings, more: Mapping[str, Any]) -> str:
    """What a training run depends on: code, settings and what else the caller names."""
    text = json.dumps(
        {
            "code": code_hash(root),
            "settings": {
                name: _text(getattr(settings, name)) for name in TRAVELLING if name not in ASIDE
            },
            **more,
        },
        sort_keys=True,
    )
    return hashlib.sha256(text.encode()).hexdigest()


def run_configuration(environment: Any, cluster: str, variables: Mapping[str, str]) -> Any:
    """The SDK's configuration of a run on the cluster."""
    from azureml.core.runconfig import DockerConfiguration, RunConfiguration

    configuration = RunConfiguration()
    configuration.target = cluster
    configuration.environment = environment
    configuration.environment_variables = dict(variables)
    configuration.docker = DockerConfiguration(use_docker=True)
    return configuration


def job_command(stage: str, *arguments: Any) -> list[Any]:
    """The command of a node for a stage."""
    return ["python", "-m", "scripts.platforms.azure.job", stage, *arguments]


def encoded(params: str) -> str:
    """PARAMS for such a command: it goes through a shell, where blanks and quotes would mean something."""
    return quote(params, safe="=")


def _text(value: Any) -> str:
    return str(value).lower() if isinstance(value, bool) else str(value)
