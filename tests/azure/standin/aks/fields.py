"""Which fields the kinds have that the cluster knows, and what the API server refuses of them.

Source: the Kubernetes API reference, v1.33 (also the schemas of kubernetes-validate, which
tests/azure/test_manifests.py holds our own manifests against). Strict decoding, as `kubectl apply`
asks for it by default.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Any

from tests.azure.standin.messages import Json

TEXT, NUMBER, FLAG, ANY = "string", "integer", "boolean", "any"
#: An integer or a string like 25%.
EITHER = "int-or-string"
MAP = "map of strings"


@dataclass(frozen=True)
class Needed:
    """A field that must be there."""

    shape: Any


class Invalid(Exception):
    """What the API server says; `reason` as in `Error from server (Reason)`, "" for none."""

    def __init__(self, message: str, reason: str = "") -> None:
        super().__init__(message)
        self.reason = reason


METADATA = {
    "name": TEXT,
    "namespace": TEXT,
    "labels": MAP,
    "annotations": MAP,
    "creationTimestamp": ANY,
    "uid": ANY,
    "resourceVersion": ANY,
    "generation": ANY,
    "managedFields": ANY,
    "ownerReferences": ANY,
}
SELECTOR = {"matchLabels": MAP, "matchExpressions": [ANY]}
KEY = {"name": TEXT, "key": Needed(TEXT), "optional": FLAG}
HTTP_GET = {
    "path": TEXT,
    "port": Needed(EITHER),
    "scheme": TEXT,
    "host": TEXT,
    "httpHeaders": [{"name": Needed(TEXT), "value": Needed(TEXT)}],
}
HANDLER = {
    "httpGet": HTTP_GET,
    "tcpSocket": {"port": Needed(EITHER), "host": TEXT},
    "exec": {"command": [TEXT]},
}
PROBE = {
    **HANDLER,
    "initialDelaySeconds": NUMBER,
    "periodSeconds": NUMBER,
    "timeoutSeconds": NUMBER,
    "successThreshold": NUMBER,
    "failureThreshold": NUMBER,
    "terminationGracePeriodSeconds": NUMBER,
}
HOOK = {**HANDLER, "sleep": {"seconds": Needed(NUMBER)}}
SECURITY = {
    "allowPrivilegeEscalation": FLAG,
    "capabilities": {"add": [TEXT], "drop": [TEXT]},
    "privileged": FLAG,
    "procMount": TEXT,
    "readOnlyRootFilesystem": FLAG,
    "runAsGroup": NUMBER,
    "runAsNonRoot": FLAG,
    "runAsUser": NUMBER,
    "seccompProfile": {"type": Needed(TEXT), "localhostProfile": TEXT},
}
CONTAINER = {
    "name": Needed(TEXT),
    "image": TEXT,
    "imagePullPolicy": TEXT,
    "command": [TEXT],
    "args": [TEXT],
    "workingDir": TEXT,
    "ports": [
        {
            "name": TEXT,
            "containerPort": Needed(NUMBER),
            "protocol": TEXT,
            "hostPort": NUMBER,
            "hostIP": TEXT,
        }
    ],
    "env": [
        {
            "name": Needed(TEXT),
            "value": TEXT,
            "valueFrom": {"secretKeyRef": KEY, "configMapKeyRef": KEY, "fieldRef": ANY},
        }
    ],
    "envFrom": [
        {
            "prefix": TEXT,
            "secretRef": {"name": TEXT, "optional": FLAG},
            "configMapRef": {"name": TEXT, "optional": FLAG},
        }
    ],
    "resources": {"requests": ANY, "limits": ANY, "claims": ANY},
    "securityContext": SECURITY,
    "startupProbe": PROBE,
    "readinessProbe": PROBE,
    "livenessProbe": PROBE,
    "lifecycle": {"preStop": HOOK, "postStart": HOOK, "stopSignal": TEXT},
    "volumeMounts": [
        {
            "name": Needed(TEXT),
            "mountPath": Needed(TEXT),
            "readOnly": FLAG,
            "subPath": TEXT,
        }
    ],
    "terminationMessagePath": TEXT,
    "terminationMessagePolicy": TEXT,
}
ITEM = {"key": Needed(TEXT), "path": Needed(TEXT), "mode": NUMBER}
POD = {
    "automountServiceAccountToken": FLAG,
    "containers": Needed([CONTAINER]),
    "dnsPolicy": TEXT,
    "enableServiceLinks": FLAG,
    "imagePullSecrets": [{"name": TEXT}],
    "nodeSelector": MAP,
    "restartPolicy": TEXT,
    "schedulerName": TEXT,
    "securityContext": {
        "fsGroup": NUMBER,
        "fsGroupChangePolicy": TEXT,
        "runAsGroup": NUMBER,
        "runAsNonRoot": FLAG,
        "runAsUser": NUMBER,
        "seccompProfile": SECURITY["seccompProfile"],
        "supplementalGroups": [NUMBER],
    },
    "serviceAccountName": TEXT,
    "terminationGracePeriodSeconds": NUMBER,
    "tolerations": ANY,
    "affinity": ANY,
    "topologySpreadConstraints": [
        {
            "maxSkew": Needed(NUMBER),
            "topologyKey": Needed(TEXT),
            "whenUnsatisfiable": Needed(TEXT),
            "labelSelector": SELECTOR,
            "minDomains": NUMBER,
        }
    ],
    "volumes": [
        {
            "name": Needed(TEXT),
            "emptyDir": {"medium": TEXT, "sizeLimit": EITHER},
            "secret": {
                "secretName": TEXT,
                "items": [ITEM],
                "defaultMode": NUMBER,
                "optional": FLAG,
            },
            "configMap": {"name": TEXT, "items": [ITEM], "defaultMode": NUMBER, "optional": FLAG},
        }
    ],
}
PORT = {
    "name": TEXT,
    "port": Needed(NUMBER),
    "targetPort": EITHER,
    "protocol": TEXT,
    "appProtocol": TEXT,
    "nodePort": NUMBER,
}
RULE_PORTS = [{"port": EITHER, "protocol": TEXT, "endPort": NUMBER}]
PEERS = [{"podSelector": SELECTOR, "namespaceSelector": SELECTOR, "ipBlock": ANY}]
#: By kind: its API version, whether it lies in a namespace, its plural with group, and its fields.
KINDS: dict[str, tuple[str, bool, str, Any]] = {
    "Namespace": ("v1", False, "namespace", {"spec": ANY}),
    "Secret": (
        "v1",
        True,
        "secret",
        {"type": TEXT, "data": MAP, "stringData": MAP, "immutable": FLAG},
    ),
    "ConfigMap": ("v1", True, "configmap", {"data": MAP, "binaryData": MAP, "immutable": FLAG}),
    "Service": (
        "v1",
        True,
        "service",
        {
            "spec": {
                "type": TEXT,
                "selector": MAP,
                "ports": [PORT],
                "externalTrafficPolicy": TEXT,
                "internalTrafficPolicy": TEXT,
                "loadBalancerSourceRanges": [TEXT],
                "sessionAffinity": TEXT,
                "clusterIP": TEXT,
                "clusterIPs": [TEXT],
                "ipFamilies": [TEXT],
                "ipFamilyPolicy": TEXT,
                "allocateLoadBalancerNodePorts": FLAG,
                "healthCheckNodePort": NUMBER,
            }
        },
    ),
    "Deployment": (
        "apps/v1",
        True,
        "deployment.apps",
        {
            "spec": Needed(
                {
                    "replicas": NUMBER,
                    "revisionHistoryLimit": NUMBER,
                    "progressDeadlineSeconds": NUMBER,
                    "minReadySeconds": NUMBER,
                    "paused": FLAG,
                    "selector": Needed(SELECTOR),
                    "strategy": {
                        "type": TEXT,
                        "rollingUpdate": {"maxUnavailable": EITHER, "maxSurge": EITHER},
                    },
                    "template": Needed({"metadata": METADATA, "spec": Needed(POD)}),
                }
            )
        },
    ),
    "HorizontalPodAutoscaler": (
        "autoscaling/v2",
        True,
        "horizontalpodautoscaler.autoscaling",
        {
            "spec": Needed(
                {
                    "scaleTargetRef": Needed(
                        {"apiVersion": TEXT, "kind": Needed(TEXT), "name": Needed(TEXT)}
                    ),
                    "minReplicas": NUMBER,
                    "maxReplicas": Needed(NUMBER),
                    "metrics": [
                        {
                            "type": Needed(TEXT),
                            "resource": {
                                "name": Needed(TEXT),
                                "target": Needed(
                                    {
                                        "type": Needed(TEXT),
                                        "averageUtilization": NUMBER,
                                        "averageValue": EITHER,
                                        "value": EITHER,
                                    }
                                ),
                            },
                        }
                    ],
                    "behavior": {
                        "scaleUp": {
                            "stabilizationWindowSeconds": NUMBER,
                            "selectPolicy": TEXT,
                            "policies": [ANY],
                        },
                        "scaleDown": {
                            "stabilizationWindowSeconds": NUMBER,
                            "selectPolicy": TEXT,
                            "policies": [ANY],
                        },
                    },
                }
            )
        },
    ),
    "PodDisruptionBudget": (
        "policy/v1",
        True,
        "poddisruptionbudget.policy",
        {
            "spec": {
                "selector": SELECTOR,
                "minAvailable": EITHER,
                "maxUnavailable": EITHER,
                "unhealthyPodEvictionPolicy": TEXT,
            }
        },
    ),
    "NetworkPolicy": (
        "networking.k8s.io/v1",
        True,
        "networkpolicy.networking.k8s.io",
        {
            "spec": {
                "podSelector": SELECTOR,
                "policyTypes": [TEXT],
                "ingress": [{"ports": RULE_PORTS, "from": PEERS}],
                "egress": [{"ports": RULE_PORTS, "to": PEERS}],
            }
        },
    ),
    # Made by the cluster itself; nobody applies them here.
    "ReplicaSet": ("apps/v1", True, "replicaset.apps", None),
    "Pod": ("v1", True, "pod", None),
    "Event": ("v1", True, "event", None),
    "Node": ("v1", False, "node", None),
}
SHORT = {
    "ns": "namespace",
    "cm": "configmap",
    "svc": "service",
    "deploy": "deployment",
    "hpa": "horizontalpodautoscaler",
    "pdb": "poddisruptionbudget",
    "netpol": "networkpolicy",
    "rs": "replicaset",
    "po": "pod",
    "ev": "event",
    "no": "node",
}


def kind_named(text: str) -> str:
    """The kind a user means by `deploy`, `deployments`, `deployment.apps` and so on."""
    name = text.lower()
    name = SHORT.get(name, name)
    for kind, (_, _, resource, _) in KINDS.items():
        plain = resource.partition(".")[0]
        plural = plain[:-1] + "ies" if plain.endswith("y") else plain + "s"
        group = resource.partition(".")[2]
        if name in (plain, plural, resource, f"{plural}.{group}"):
            return kind
    raise Invalid(f'error: the server doesn\'t have a resource type "{text}"')


def decode(document: Any) -> Json:
    """A manifest as the API server takes it; Invalid with what it would say."""
    if not isinstance(document, dict) or "kind" not in document or "apiVersion" not in document:
        raise Invalid("error validating data: [apiVersion not set, kind not set]", "BadRequest")
    kind, version = str(document["kind"]), str(document["apiVersion"])
    known = KINDS.get(kind)
    if known is None or known[0] != version or known[3] is None:
        raise Invalid(
            f'no matches for kind "{kind}" in version "{version}"\nensure CRDs are installed first'
        )
    shape = {"apiVersion": TEXT, "kind": TEXT, "metadata": METADATA, "status": ANY, **known[3]}
    unknown: list[str] = []
    wrong: list[str] = []
    _walk(document, shape, "", unknown, wrong)
    if unknown or wrong:
        said = [f'unknown field "{path}"' for path in unknown] + wrong
        raise Invalid(
            f"{kind} in version \"{version.rpartition('/')[2]}\" cannot be handled as a {kind}: strict "
            f"decoding error: {', '.join(said)}",
            "BadRequest",
        )
    name = str((document.get("metadata") or {}).get("name", ""))
    if not re.fullmatch(r"[a-z0-9]([a-z0-9.-]{0,251}[a-z0-9])?", name):
        raise Invalid(
            f'The {kind} "{name}" is invalid: metadata.name: Invalid value: "{name}": a lowercase RFC 1123 '
            "subdomain must consist of lower case alphanumeric characters, '-' or '.', and must start and "
            "end with an alphanumeric character"
        )
    return document


def _walk(value: Any, shape: Any, path: str, unknown: list[str], wrong: list[str]) -> None:
    if isinstance(shape, Needed):
        shape = shape.shape
    if value is None or shape == ANY:
        return
    if isinstance(shape, dict):
        if not isinstance(value, dict):
            wrong.append(f"{path}: expected an object")
            return
        for name, each in value.items():
            if name not in shape:
                unknown.append(f"{path}.{name}".lstrip("."))
            else:
                _walk(each, shape[name], f"{path}.{name}", unknown, wrong)
        for name, inner in shape.items():
            if isinstance(inner, Needed) and value.get(name) is None:
                wrong.append(f"{path}.{name}".lstrip(".") + ": Required value")
    elif isinstance(shape, list):
        if not isinstance(value, list):
            wrong.append(f"{path}: expected a list")
            return
        for at, each in enumerate(value):
            _walk(each, shape[0], f"{path}[{at}]", unknown, wrong)
    elif shape == MAP:
        for name, each in value.items() if isinstance(value, dict) else [("", None)]:
            if not isinstance(each, str):
                wrong.append(f"{path}.{name}: expected a string, got {each!r}")
    elif not _fits(value, shape):
        wrong.append(f"{path.lstrip('.')}: expected {shape}, got {value!r}")


def _fits(value: Any, shape: str) -> bool:
    if isinstance(value, bool):
        return shape == FLAG
    if isinstance(value, int):
        return shape in (NUMBER, EITHER)
    return isinstance(value, str) and shape in (TEXT, EITHER)


_UNITS = {"Ki": 2**10, "Mi": 2**20, "Gi": 2**30, "k": 10**3, "M": 10**6, "G": 10**9, "": 1}


def quantity(text: object) -> float:
    """A Kubernetes quantity as a number: 500m is 0.5, 64Mi is 67108864."""
    found = re.fullmatch(r"([0-9.]+)(m|Ki|Mi|Gi|k|M|G|)", str(text))
    if found is None:
        raise Invalid(
            "quantities must match the regular expression "
            "'^([+-]?[0-9.]+)([eEinumkKMGTP]*[-+]?[0-9]*)$'",
            "BadRequest",
        )
    return float(found[1]) / 1000 if found[2] == "m" else float(found[1]) * _UNITS[found[2]]
