"""Every setting, declared once and typed: environment over `.env` over `model/defaults.env`.

`.env.example` is the same list for people and for make; a test holds the two equal. An empty value
counts as unset and falls through to the layer below.
"""

from __future__ import annotations

import hashlib
import os
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, Literal

from dotenv.parser import parse_stream
from pydantic import AfterValidator, BaseModel, ConfigDict, Field, SecretStr, ValidationError

from scripts import console
from scripts.errors import UsageError

Port = Annotated[int, Field(ge=1024, le=65535)]
Seconds = Annotated[float, Field(gt=0, le=86400)]
Name = Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9_.-]{0,127}$")]
AzureName = Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9-]{0,62}$")]
Guid = Annotated[str, Field(pattern=r"^[0-9a-fA-F]{8}(-[0-9a-fA-F]{4}){3}-[0-9a-fA-F]{12}$")]


def _sendable(key: SecretStr) -> SecretStr:
    """A key goes into an HTTP header as it is."""
    if not all("!" <= character <= "~" for character in key.get_secret_value()):
        raise ValueError("printable ASCII without spaces")
    return key


def _plain_address(url: SecretStr) -> SecretStr:
    """Credentials may stand in an address, which is why it is a secret; they are not taken there."""
    if not re.fullmatch(r"https?://[^@?#\s]+", url.get_secret_value()):
        raise ValueError("an address without credentials")
    return url


#: What a value should be, where the pattern alone would not tell a person.
EXPECTED = {
    "MODEL_NAME": "letters, digits and . _ -, at most 128",
    "EXPERIMENT_NAME": "letters, digits and . _ -, at most 128",
    "BASE_NAME": "1 to 10 letters and digits, a letter first",
    "LOCATION": "a region's short name, like centralus",
    "RESOURCE_GROUP": "1 to 90 letters, digits and . _ ( ) -, not ending in a dot",
    "WORKSPACE_NAME": "3 to 33 letters, digits, _ and -, a letter or digit first",
    "AML_COMPUTE_CLUSTER_CPU_SKU": "the name of a size, like STANDARD_DS2_V2",
    "AML_COMPUTE_CLUSTER_NAME": "2 to 16 letters, digits and -, a letter first",
    "IMAGE_NAME": "lower-case letters and digits, with . _ / - between them",
    "SUBSCRIPTION_ID": "a GUID",
    "TENANT_ID": "a GUID",
    "SP_APP_ID": "a GUID",
    **dict.fromkeys(
        ("DATASET_NAME", "DATASTORE_NAME", "TRAINING_PIPELINE_NAME", "AML_ENV_NAME"),
        "letters, digits and . _ -, at most 128",
    ),
    **dict.fromkeys(
        (
            *("ACI_DEPLOYMENT_NAME", "AKS_COMPUTE_NAME", "AKS_DEPLOYMENT_NAME"),
            *("WEBAPP_DEPLOYMENT_NAME", "TLS_CERT_NAME"),
        ),
        "letters, digits and -, at most 63",
    ),
    "LOAD_DURATION": "whole seconds, 1 to 3600",
    "SCORING_KEY": "printable ASCII without spaces",
    "OTEL_EXPORTER_OTLP_ENDPOINT": "an address like http://collector:4318, without credentials",
}


class Settings(BaseModel):
    """The settings in force; attribute names are the names of the variables."""

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)

    # General
    PLATFORM: Literal["local", "azure"] = "local"
    RUNNER: Literal["auto", "container", "here", "venv"] = "auto"
    MODEL_NAME: Name | None = None
    EXPERIMENT_NAME: Name | None = None
    DATA_PATH: str | None = None
    BUILD_BUILDID: str | None = None
    BUILD_URI: str | None = None
    LOCK_WAIT: Annotated[int, Field(ge=0, le=86400)] = 600
    BASE_IMAGE: str | None = None
    EXTRA_CA: str | None = None

    # Data and gate
    DATA_SHIFT: Literal["warn", "fail"] = "warn"
    HOLDOUT_FRACTION: Annotated[float, Field(ge=0.05, le=0.5)] = 0.2
    GATE_MARGIN: Annotated[float, Field(ge=0)] = 0.0
    CHAMPION: Literal["none"] | None = None

    # Image
    IMAGE_NAME: Annotated[str, Field(pattern=r"^[a-z0-9]+([._/-][a-z0-9]+)*$")] | None = None
    RUNTIME: Literal["auto", "linear", "onnx", "sklearn"] = "auto"

    # Service
    SCORING_PORT: Port | None = None
    SCORING_KEY: Annotated[SecretStr, AfterValidator(_sendable)] | None = None
    MAX_BODY_BYTES: Annotated[int, Field(ge=1024, le=1 << 30)] = 10_485_760
    MAX_ROWS: Annotated[int, Field(ge=1, le=10_000_000)] = 100_000
    REQUEST_TIMEOUT: Seconds = 30.0
    BODY_TIMEOUT: Seconds = 10.0
    QUEUE_SIZE: Annotated[int, Field(ge=1, le=10_000)] = 64
    QUEUE_SECONDS: Seconds = 0.4
    GRACE_SECONDS: Seconds = 10.0
    WORKERS: Annotated[int, Field(ge=1, le=64)] | None = None

    # Telemetry of the service
    APPLICATIONINSIGHTS_CONNECTION_STRING: SecretStr | None = None
    OTEL_EXPORTER_OTLP_ENDPOINT: Annotated[SecretStr, AfterValidator(_plain_address)] | None = None
    OTEL_EXPORTER_OTLP_HEADERS: SecretStr | None = None
    OTEL_TRACES_SAMPLER_ARG: Annotated[float, Field(ge=0, le=1)] = 1.0

    # Load test
    LOAD_USERS: Annotated[int, Field(ge=1, le=10_000)] = 10
    LOAD_DURATION: Annotated[int, Field(ge=1, le=3600)] = 10
    LOAD_P95_MS: Annotated[float, Field(gt=0)] = 500.0
    LOAD_ERROR_RATE: Annotated[float, Field(ge=0, le=1)] = 0.0

    # MLflow's page
    MLFLOW_PORT: Port | None = None

    # Azure: where
    SUBSCRIPTION_ID: Guid | None = None
    TENANT_ID: Guid | None = None
    SP_APP_ID: Guid | None = None
    SP_APP_SECRET: SecretStr | None = None
    SIGN_IN: Literal["auto", "secret", "federated", "identity", "device"] = "auto"
    BASE_NAME: Annotated[str, Field(pattern=r"^[A-Za-z][A-Za-z0-9]{0,9}$")] | None = None
    LOCATION: Annotated[str, Field(pattern=r"^[a-z0-9]+$")] = "centralus"
    RESOURCE_GROUP: Annotated[str, Field(pattern=r"^[\w().-]{0,89}[\w()-]$")] | None = None
    WORKSPACE_NAME: Annotated[str, Field(pattern=r"^[A-Za-z0-9][\w-]{2,32}$")] = "mlops-AML-WS"
    WORKSPACE_SVC_CONNECTION: str = "aml-workspace-connection"
    ROLE_ASSIGNMENTS: bool = True
    PURGE_PROTECTION: bool = False

    # Azure: training
    DATASET_NAME: Name | None = None
    DATASTORE_NAME: Name | None = None
    DATASET_VERSION: str = "latest"
    TRAINING_PIPELINE_NAME: Name | None = None
    AML_ENV_NAME: Name | None = None
    AML_REBUILD_ENVIRONMENT: bool = False
    AML_COMPUTE_CLUSTER_NAME: (
        Annotated[str, Field(pattern=r"^[A-Za-z][A-Za-z0-9-]{1,15}$")] | None
    ) = "train-cluster"
    AML_COMPUTE_CLUSTER_CPU_SKU: Name = "STANDARD_DS2_V2"
    AML_CLUSTER_MIN_NODES: Annotated[int, Field(ge=0, le=1000)] = 0
    AML_CLUSTER_MAX_NODES: Annotated[int, Field(ge=1, le=1000)] = 4
    AML_CLUSTER_PRIORITY: Literal["lowpriority", "dedicated"] = "lowpriority"
    RUN_EVALUATION: bool = True
    ALLOW_RUN_CANCEL: bool = True
    DISABLE_OLDER_PIPELINES: bool = False

    # Azure: deployment
    DEPLOY_TARGET: Literal["aci", "aks", "webapp"] = "aci"
    ACI_DEPLOYMENT_NAME: AzureName | None = None
    AKS_COMPUTE_NAME: AzureName | None = None
    AKS_DEPLOYMENT_NAME: AzureName | None = None
    WEBAPP_DEPLOYMENT_NAME: AzureName | None = None
    WEBAPP_SKU: Literal["S1", "S2", "S3", "P0v3", "P1v3", "P2v3", "P3v3"] = "P0v3"
    DEPLOY_CPU: Annotated[float, Field(ge=0.1, le=4)] = 1.0
    DEPLOY_MEMORY_GB: Annotated[float, Field(ge=0.25, le=16)] = 1.5
    AKS_MIN_REPLICAS: Annotated[int, Field(ge=1, le=1000)] = 2
    AKS_MAX_REPLICAS: Annotated[int, Field(ge=1, le=1000)] = 5
    TLS_CERT_NAME: AzureName | None = None
    ALLOW_HTTP: bool = False
    LOG_WAIT: Annotated[float, Field(ge=0, le=3600)] = 120.0

    def require(self, name: str) -> str:
        """The value of setting `name`; UsageError if it is unset."""
        value: str | None = getattr(self, name)
        if value is None:
            raise UsageError(
                f"{name} is not set", f"set {name} in .env (what it is: see .env.example)"
            )
        return value


SECRETS = frozenset(
    name for name, field in Settings.model_fields.items() if "SecretStr" in str(field.annotation)
)


#: Tokens and keys that a CI job has beside the settings.
OF_A_JOB = frozenset(
    {"ACTIONS_ID_TOKEN_REQUEST_TOKEN", "SYSTEM_ACCESSTOKEN", "idToken", "servicePrincipalKey"}
)


def without_secrets(environ: Mapping[str, str] = os.environ) -> dict[str, str]:
    """The variables that a child gets which needs no secret of ours."""
    return {name: value for name, value in environ.items() if name not in SECRETS | OF_A_JOB}


def one_edit_apart(left: str, right: str) -> bool:
    """Whether one insertion, deletion, replacement or swap of neighbours turns one into the other."""
    if left == right or abs(len(left) - len(right)) > 1:
        return False
    start = next(
        (i for i, (a, b) in enumerate(zip(left, right, strict=False)) if a != b),
        min(len(left), len(right)),
    )
    a, b = left[start:], right[start:]
    return a[1:] == b[1:] or a[1:] == b or a == b[1:] or (a[:2] == b[1::-1] and a[2:] == b[2:])


def read_env_file(path: Path) -> dict[str, str]:
    """The file's variables as python-dotenv reads them, without interpolation; {} if there is none."""
    try:
        with path.open(encoding="utf-8") as stream:
            bindings = list(parse_stream(stream))
    except FileNotFoundError:
        return {}
    except (UnicodeDecodeError, OSError) as error:
        raise UsageError(
            f"{path.name} cannot be read: {error}", "save it as UTF-8 text that you may read"
        ) from None
    found: dict[str, str] = {}
    for binding in bindings:
        if binding.error:
            raise UsageError(
                f"{path.name} line {binding.original.line} is not NAME=value",
                "mend the line (a quote left open?); .env.example shows the form",
            )
        if binding.key is not None:
            found[binding.key] = binding.value or ""
    return found


def _check_names(names: Mapping[str, str], file: str) -> None:
    known = Settings.model_fields
    for name in names:
        if name in known:
            continue
        near = next((other for other in known if one_edit_apart(name.upper(), other)), None)
        if near or name.upper() in known:
            raise UsageError(
                f"{file} sets {name}, which is no setting", f"write {near or name.upper()}"
            )
        console.warning(f"{file} sets {name}, which is no setting (.env.example lists them)")


def resolve_settings(
    root: Path, environ: Mapping[str, str]
) -> tuple[dict[str, str], dict[str, str]]:
    """The values that are set and, for each, where it was set, the strongest layer winning."""
    layers: dict[str, Mapping[str, str]] = {}
    for file in ("model/defaults.env", ".env"):
        layers[file] = read_env_file(root / file)
        _check_names(layers[file], file)
    layers["the environment"] = environ
    values: dict[str, str] = {}
    origins: dict[str, str] = {}
    for origin, layer in layers.items():
        for name in Settings.model_fields:
            if value := layer.get(name):
                values[name], origins[name] = value, origin
    return values, origins


def load_settings(root: Path, environ: Mapping[str, str] | None = None) -> Settings:
    """Read and check every setting; UsageError names the first wrong ones, their values and the mend."""
    values, origins = resolve_settings(root, os.environ if environ is None else environ)
    try:
        return Settings.model_validate(values)
    except ValidationError as error:
        problems = [_problem(detail, values, origins) for detail in error.errors()]
        # A union (`Port | None`) reports each of its branches: one line a variable is enough.
        first = {line.split("=", 1)[0]: line for line in reversed(problems)}
        lines = list(reversed(first.values()))
        raise UsageError(
            "; ".join(lines), "correct it there; .env.example says what each setting is"
        ) from None


def _problem(detail: Any, values: Mapping[str, str], origins: Mapping[str, str]) -> str:
    name = str(detail["loc"][0])
    shown = "(secret)" if name in SECRETS else values[name]
    should = EXPECTED.get(name) or detail["msg"].removeprefix("Input should be ").removeprefix(
        "String should "
    )
    return f"{name}={shown} (from {origins[name]}) should be {should}"


def clone_id(root: Path) -> str:
    """Ten hex digits that name this clone's container, network and ports."""
    return hashlib.sha256(os.fsencode(root)).hexdigest()[:10]


def default_port(root: Path, *, offset: int = 0) -> int:
    """A port that differs from clone to clone: 20000 to 29999, plus `offset`."""
    return 20000 + int(clone_id(root)[:6], 16) % 10000 + offset
