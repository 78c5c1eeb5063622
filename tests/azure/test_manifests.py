"""The manifests of arm/aks as a cluster and checkov see them: filled in, with TLS and without."""

from __future__ import annotations

import base64
import os
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest
import yaml

from scripts.platforms.azure.manifests import Tls, Wanted, as_yaml, render

#: The Kubernetes versions AKS offers, oldest and newest; `sleep` before a pod ends came with 1.30.
VERSIONS = ("1.30", "1.34")
DIGEST = "sha256:" + "a" * 64


def wanted(**changed: Any) -> Wanted:
    fields: dict[str, Any] = {
        "name": "diabetes",
        "number": 3,
        "namespace": "slipway",
        "image": f"kilnamlcr.azurecr.io/diabetes@{DIGEST}",
        "host_label": "diabetes-kiln",
        "environment": {"MAX_ROWS": "100", "GRACE_SECONDS": "12.5"},
        "labels": {"slipway.number": "3", "slipway.version": "7"},
        "secrets": {"SCORING_KEY": "s3cret: {key}"},
        "grace_seconds": 12.5,
        **changed,
    }
    return Wanted(**fields)


TLS = Tls(f"kilnamlcr.azurecr.io/front@{DIGEST}", "-----CERT\nabc\n", "-----KEY\nabc\n")


@pytest.fixture(params=[None, TLS], ids=["http", "tls"])
def manifests(request: pytest.FixtureRequest, root: Path) -> list[dict[str, Any]]:
    return render(root / "arm" / "aks", wanted(tls=request.param))


#: With the tools of docker/locks/checks.txt, which stand on PATH where Azure is tested.
pytestmark = pytest.mark.azure


def of(manifests: list[dict[str, Any]], kind: str) -> dict[str, Any]:
    return next(each for each in manifests if each["kind"] == kind)


def opened(manifests: list[dict[str, Any]]) -> list[tuple[str, int]]:
    """The ports of the service, which are those that the network lets in."""
    ports = of(manifests, "Service")["spec"]["ports"]
    [rule] = of(manifests, "NetworkPolicy")["spec"]["ingress"]
    assert rule["ports"] == [{"port": p["targetPort"], "protocol": "TCP"} for p in ports]
    return [(port["targetPort"], port["port"]) for port in ports]


def tool(name: str) -> str:
    found = shutil.which(name)
    if found is None:
        pytest.skip(f"not run: no {name}")
    return found


@pytest.mark.parametrize("version", VERSIONS)
def test_kubernetes_schemas_accept_them(
    manifests: list[dict[str, Any]], tmp_path: Path, version: str
) -> None:
    file = tmp_path / "all.yaml"
    file.write_text(as_yaml(manifests))
    done = subprocess.run(
        [tool("kubernetes-validate"), "--strict", "-k", version, file],
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert done.stdout.count("passed") == len(manifests)


def test_checkov_finds_nothing_that_is_not_justified(
    manifests: list[dict[str, Any]], tmp_path: Path
) -> None:
    file = tmp_path / "all.yaml"
    file.write_text(as_yaml(manifests))
    done = subprocess.run(
        [tool("checkov"), "-f", file, "--framework", "kubernetes", "--compact", "--quiet"],
        capture_output=True,
        text=True,
        env={**os.environ, "BC_SKIP_MAPPING": "TRUE"},
    )
    assert done.returncode == 0, done.stdout
    assert "Failed checks: 0, Skipped checks: 1" in done.stdout


def test_a_pod_leaves_only_after_its_requests_were_answered(
    manifests: list[dict[str, Any]],
) -> None:
    pod = of(manifests, "Deployment")["spec"]["template"]["spec"]
    for container in pod["containers"]:
        drain = container["lifecycle"]["preStop"]["sleep"]["seconds"]
        assert pod["terminationGracePeriodSeconds"] > drain
    first = pod["containers"][0]["lifecycle"]["preStop"]["sleep"]["seconds"]
    assert pod["terminationGracePeriodSeconds"] > first + 12.5


def test_a_changed_secret_changes_the_pods_and_is_not_in_them(root: Path) -> None:
    folder = root / "arm" / "aks"
    one, two = (
        of(render(folder, wanted(secrets={"SCORING_KEY": key})), "Deployment") for key in "ab"
    )
    assert one["spec"]["template"] != two["spec"]["template"]
    text = as_yaml([of(render(folder, wanted()), "Deployment")])
    assert "s3cret" not in text
    assert base64.b64encode(b"s3cret: {key}").decode() not in text
    assert "s3cret: {key}" not in repr(wanted())


def test_a_value_never_becomes_structure(root: Path) -> None:
    odd = "a: b\n- ${NAME} #\"'"
    manifests = render(root / "arm" / "aks", wanted(secrets={"SCORING_KEY": odd}))
    secret = of(list(yaml.safe_load_all(as_yaml(manifests))), "Secret")
    assert base64.b64decode(secret["data"]["SCORING_KEY"]).decode() == odd


def test_with_tls_only_https_is_open(root: Path) -> None:
    folder = root / "arm" / "aks"
    assert opened(render(folder, wanted(tls=TLS))) == [("https", 443)]
    # But for pods that are still to be replaced.
    both = render(folder, wanted(tls=TLS, still=["http"]))
    assert opened(both) == [("http", 80), ("https", 443)]


def test_pods_that_the_cluster_has_stay_as_they_are(root: Path) -> None:
    folder = root / "arm" / "aks"
    pods = of(render(folder, wanted()), "Deployment")["spec"]["template"]
    manifests = render(folder, wanted(image="another", secrets={"SCORING_KEY": "b"}, pods=pods))
    assert of(manifests, "Deployment")["spec"]["template"] == pods
    assert not [each for each in manifests if each["kind"] in ("Secret", "ConfigMap")]
    assert opened(manifests) == [("http", 80)]
