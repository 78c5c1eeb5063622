"""HTTPS on Kubernetes, ended in the pods with a certificate of the vault."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from tests.azure.certificates import answered_with, imported, self_signed, vault_of
from tests.azure.clusters import attach_cluster
from tests.azure.conftest import AzureClone
from tests.azure.shipping import package, ship

pytestmark = [pytest.mark.azure, pytest.mark.docker, pytest.mark.slow]
NAME = "kiln-tls"


@pytest.fixture(scope="module")
def clone(shared_clone: AzureClone) -> AzureClone:
    """A place with a cluster attached, and version 1 in its registry; the tests tell one story."""
    shared_clone.save(
        DEPLOY_TARGET="aks",
        AKS_COMPUTE_NAME="kube",
        AKS_DEPLOYMENT_NAME="kiln-aks",
        DEPLOY_CPU="0.5",
        DEPLOY_MEMORY_GB="0.5",
        GRACE_SECONDS="1",
        LOG_WAIT="30",
        LOAD_DURATION="1",
        LOAD_USERS="2",
        ALLOW_HTTP="false",
    )
    shared_clone.run("provision")
    place = shared_clone.records["provision"]
    attach_cluster(shared_clone.standin, place["workspace_id"], place["registry_id"], "kube")
    package(shared_clone, 1.0)
    ship(shared_clone)
    return shared_clone


@pytest.fixture(scope="module")
def vault(clone: AzureClone) -> str:
    """The vault; from now on a certificate in it is named."""
    clone.save(TLS_CERT_NAME=NAME)
    return vault_of(clone)


def test_neither_a_certificate_nor_plain_http(clone: AzureClone) -> None:
    printed = clone.run("deploy", code=2)
    assert "TLS_CERT_NAME is not set, and DEPLOY_TARGET=aks has no HTTPS" in printed


def test_the_pods_answer_with_the_vaults_certificate(
    clone: AzureClone, vault: str, tmp_path: Path
) -> None:
    printed = clone.run("deploy", code=2)
    assert f"TLS_CERT_NAME={NAME}: the vault {vault} has no such certificate" in printed
    self_signed(clone, vault, NAME, tmp_path)
    printed = clone.run("deploy", code=2)
    found = re.search(r"names (kiln-aks-\w+\.centralus\.cloudapp\.azure\.com)", printed)
    assert found, printed
    host = found[1]
    pem = self_signed(clone, vault, NAME, tmp_path, host)
    clone.run("deploy")
    assert clone.records["deploy-aks"]["url"] == f"https://{host}"
    assert answered_with(clone, host, 443) == pem
    assert [*clone.standin.world.machines[host]] == [443]
    clone.run("smoke")
    assert clone.records["smoke-aks"]["log"]["request_id"]
    clone.run("load")
    assert clone.records["load-aks"]["failures"] == 0
    assert "serves already" in clone.run("deploy")
    # A renewed one is a new rollout.
    pem = imported(clone, vault, NAME, tmp_path, "pem", host)
    assert "is not trusted" in clone.run("smoke", code=1)
    clone.run("deploy")
    assert clone.records["deploy-aks"]["deployment"] == 2
    assert answered_with(clone, host, 443) == pem
    clone.run("smoke")
