"""The Kubernetes manifests of arm/aks, filled in.

A file is read as YAML first, so no value can become structure: a scalar that is `${NAME}` alone
becomes that value with its type, and one that holds `${NAME}` the text.
"""

from __future__ import annotations

import base64
import re
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from scripts.platforms.azure.key import fingerprint
from scripts.settings import Settings

Manifest = dict[str, Any]

#: In the order in which a cluster wants them: what pods need comes before the pods.
FILES = ("namespace", "secret", "network", "service", "deployment", "disruption", "autoscaler")
_NAME = re.compile(r"\$\{([A-Z_]+)\}")
#: What the address listens on for a port of the pods.
PORTS = {"http": 80, "https": 443}

#: Seconds a pod goes on serving when it was told to leave (`preStop` in deployment.yaml), and what the
#: service needs after GRACE_SECONDS to write its log and send its traces.
DRAIN, ENDING = 5, 10


@dataclass(frozen=True)
class Tls:
    """The certificate chain and its key, in PEM, and the image of the front that ends TLS."""

    image: str
    certificate: str
    key: str = field(repr=False)


@dataclass(frozen=True)
class Wanted:
    """What is to be deployed.

    `labels` are annotations of the pods (`slipway.*`), which a revision keeps; `environment` are the
    service's settings and `secrets` its secrets, by the names of the variables. `still` are ports (of
    PORTS) that pods of an earlier deployment answer at until they are gone. `pods` is the template of
    a deployment that the cluster has already: it stays as it is, with its secrets.
    """

    name: str
    number: int
    namespace: str
    image: str  # <server>/<name>@sha256:...
    host_label: str
    environment: Mapping[str, str]
    labels: Mapping[str, str]
    secrets: Mapping[str, str] = field(repr=False)
    grace_seconds: float = Settings.model_fields["GRACE_SECONDS"].default
    cpu: str = "1"
    memory: str = "1Gi"
    replicas: tuple[int, int] = (2, 5)
    deadline_seconds: int = 300
    tls: Tls | None = None
    still: Collection[str] = ()
    pods: Mapping[str, Any] | None = None


def render(folder: Path, wanted: Wanted) -> list[Manifest]:
    """The manifests in `folder` (arm/aks) for `wanted`, in the order to apply them in."""
    values = _values(wanted)
    found = {name: _read(folder / f"{name}.yaml", values)[0] for name in FILES}
    # `data`, not `stringData`: of that `kubectl apply` would leave what is no more.
    found["secret"]["data"] = {name: _encoded(text) for name, text in wanted.secrets.items()}
    before = [found["namespace"]]
    if wanted.pods is None:
        before += [found["secret"], *_fill_pods(folder, wanted, values, found["deployment"])]
    else:
        found["deployment"]["spec"]["template"] = wanted.pods
    names = sorted({answers_at(found["deployment"]["spec"]["template"]), *wanted.still})
    found["service"]["spec"]["ports"] = [
        {"name": name, "port": PORTS[name], "targetPort": name, "protocol": "TCP"} for name in names
    ]
    found["network"]["spec"]["ingress"][0]["ports"] = [
        {"port": name, "protocol": "TCP"} for name in names
    ]
    return before + [found[name] for name in FILES[2:]]


def answers_at(template: Mapping[str, Any]) -> str:
    """The port of PORTS at which pods of a template take requests."""
    named = [
        port.get("name")
        for each in template["spec"]["containers"]
        for port in each.get("ports", ())
    ]
    return "https" if "https" in named else "http"


def _fill_pods(
    folder: Path, wanted: Wanted, values: Mapping[str, Any], deployment: Manifest
) -> list[Manifest]:
    """Complete the pods of `deployment`; the manifests that they need besides their secret."""
    template = deployment["spec"]["template"]
    # A changed secret is a changed pod: without this the old one would serve on with the old key.
    template["metadata"]["annotations"] = {**wanted.labels, "slipway.secrets": _fingerprint(wanted)}
    pod = template["spec"]
    pod["containers"][0]["env"] = [
        {"name": name, "value": value} for name, value in sorted(wanted.environment.items())
    ]
    if wanted.tls is None:
        return []
    values = {
        **values,
        "TLS_IMAGE": wanted.tls.image,
        "TLS_CERTIFICATE": _encoded(wanted.tls.certificate),
        "TLS_KEY": _encoded(wanted.tls.key),
        "HAPROXY_CFG": (folder / "haproxy.cfg").read_text("utf-8"),
    }
    extra = _read(folder / "tls-container.yaml", values)[0]
    pod["containers"] += extra["containers"]
    pod["volumes"] += extra["volumes"]
    return _read(folder / "tls.yaml", values)


def _values(wanted: Wanted) -> Mapping[str, Any]:
    drain = DRAIN + int(wanted.grace_seconds) + ENDING
    return {
        "NAME": wanted.name,
        "NAMESPACE": wanted.namespace,
        "NUMBER": str(wanted.number),
        "IMAGE": wanted.image,
        "HOST_LABEL": wanted.host_label,
        "CPU": wanted.cpu,
        "MEMORY": wanted.memory,
        "MIN_REPLICAS": wanted.replicas[0],
        "MAX_REPLICAS": wanted.replicas[1],
        "DEADLINE_SECONDS": wanted.deadline_seconds,
        "DRAIN_SECONDS": drain,
        "TERMINATION_SECONDS": drain + 5,
    }


def _encoded(text: str) -> str:
    return base64.b64encode(text.encode()).decode()


def _fingerprint(wanted: Wanted) -> str:
    """That of all that is secret."""
    tls = [wanted.tls.certificate, wanted.tls.key] if wanted.tls else []
    return fingerprint(wanted.image, [sorted(wanted.secrets.items()), tls])


def _read(path: Path, values: Mapping[str, Any]) -> list[Manifest]:
    import yaml

    documents = yaml.safe_load_all(path.read_text("utf-8"))
    return [_fill(document, values) for document in documents]


def _fill(node: Any, values: Mapping[str, Any]) -> Any:
    if isinstance(node, dict):
        return {_fill(key, values): _fill(value, values) for key, value in node.items()}
    if isinstance(node, list):
        return [_fill(item, values) for item in node]
    if not isinstance(node, str):
        return node
    if alone := _NAME.fullmatch(node):
        return values[alone[1]]
    return _NAME.sub(lambda found: str(values[found[1]]), node)


def as_yaml(manifests: Sequence[Manifest]) -> str:
    """One file of all of them, for `kubectl apply -f`."""
    import yaml

    text: str = yaml.safe_dump_all(manifests, sort_keys=False, allow_unicode=True)
    return text
