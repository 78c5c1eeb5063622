"""AKS on the stand-in, by `az aks command invoke`: pods that are containers, rollouts that are real."""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import requests
import trustme

from scripts.platforms.azure.manifests import Tls, Wanted, as_yaml, render
from tests.azure.cli import Cli
from tests.azure.services import Word, push
from tests.azure.standin.access import only
from tests.azure.standin.aks import clusters, make_cluster
from tests.azure.standin.standin import StandIn
from tests.azure.standin.world import APP_OBJECT, SUBSCRIPTION

pytestmark = [pytest.mark.azure, pytest.mark.docker]
GROUP = "Kiln42-AML-RG"
SCOPE = f"/subscriptions/{SUBSCRIPTION}/resourceGroups/{GROUP}"
REGISTRY = "kiln42amlcr"
CLUSTER = "kiln-aks"
HOST = "kiln-scoring.westeurope.cloudapp.azure.com"


class Place:
    """A cluster whose nodes may pull from a registry with two images in it."""

    def __init__(self, standin: StandIn, folder: Path) -> None:
        self.cli = Cli(standin, folder / "home")
        self.folder = folder
        self.world = standin.world
        self.cli.az("group", "create", "-n", GROUP, "-l", "westeurope")
        self.cli.az("acr", "create", "-g", GROUP, "-n", REGISTRY, "--sku", "Standard")
        self.builds = {word: Word(folder / word, word) for word in ("one", "two")}
        self.images = {}
        for word, build in self.builds.items():
            build.run()
            self.images[word] = push(self.cli, REGISTRY, word, build)
        create = f"aks create -g {GROUP} -n {CLUSTER} --node-count 3 --node-vm-size Standard_DS2_v2"
        network = "--network-plugin azure --network-policy azure --no-ssh-key"
        made = self.cli.az(*f"{create} {network} --attach-acr {REGISTRY}".split())
        self.cluster = clusters(self.world)[made["id"].lower()]

    def invoke(self, command: str, *files: Path) -> tuple[int, str]:
        """The exit code and the output of a command in the cluster."""
        given = [word for file in files for word in ("--file", str(file))]
        done = self.cli.az(
            *("aks", "command", "invoke", "-g", GROUP, "-n", CLUSTER, "--command", command), *given
        )
        return done["exitCode"], done["logs"]

    def manifests(self, **changed: Any) -> Path:
        fields: dict[str, Any] = {
            "name": "scoring",
            "number": 1,
            "namespace": "slipway",
            "image": self.images["one"],
            "host_label": "kiln-scoring",
            "environment": {},
            "labels": {"slipway.number": "1"},
            "secrets": {"GREETING": "hello"},
            "grace_seconds": 1,
            "cpu": "500m",
            "memory": "128Mi",
            "deadline_seconds": 60,
            **changed,
        }
        file = self.folder / "all.yaml"
        file.write_text(as_yaml(render(self.world.root / "arm" / "aks", Wanted(**fields))))
        return file

    def ask(self, scheme: str = "http", **options: Any) -> requests.Response:
        proxies = {"http": f"http://127.0.0.1:{self.world.port}"}
        proxies["https"] = proxies["http"]
        return requests.get(f"{scheme}://{HOST}/", proxies=proxies, timeout=20, **options)


ROLL = "kubectl rollout status deployment/scoring -n slipway --timeout=90s"
APPLY = f"kubectl apply -f all.yaml && {ROLL}"


@pytest.fixture(scope="module")
def place(shared_standin: StandIn, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Place]:
    made = Place(shared_standin, tmp_path_factory.mktemp("aks"))
    yield made
    for build in made.builds.values():
        build.remove()


class Asking:
    """Somebody who asks all the time; `wrong` is what was no answer of 200."""

    def __init__(self, place: Place) -> None:
        self.place, self.wrong, self.count = place, list[str](), 0
        self.words: set[str] = set()
        self.over = threading.Event()
        self.thread = threading.Thread(target=self.go)

    def go(self) -> None:
        while not self.over.is_set():
            try:
                answer = self.place.ask()
                self.count += 1
                self.words.add(answer.text.split()[0])
                if answer.status_code != 200:
                    self.wrong.append(f"{answer.status_code} {answer.text}")
            except requests.RequestException as error:
                self.wrong.append(str(error))
            time.sleep(0.02)

    def __enter__(self) -> Asking:
        self.thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.over.set()
        self.thread.join()


def test_the_manifests_make_a_service_that_is_replaced_and_rolled_back_without_a_gap(
    place: Place,
) -> None:
    code, said = place.invoke(APPLY, place.manifests())
    assert code == 0, said
    assert "deployment.apps/scoring created" in said
    assert 'deployment "scoring" successfully rolled out' in said
    assert place.ask().text == "one hello"
    code, said = place.invoke("kubectl get pods,services -n slipway -o json")
    items = json.loads(said)["items"]
    pods = [each for each in items if each["kind"] == "Pod"]
    # The autoscaler's least, though nobody asked for replicas.
    assert len(pods) == 2
    service = next(each for each in items if each["kind"] == "Service")
    assert service["status"]["loadBalancer"]["ingress"][0]["ip"].startswith("20.")

    with Asking(place) as asking:
        changed = place.manifests(image=place.images["two"], labels={"slipway.number": "2"})
        code, said = place.invoke(APPLY, changed)
        assert code == 0, said
        assert "service/scoring unchanged" in said
        assert place.ask().text == "two hello"
        undo = f"kubectl rollout undo deployment/scoring -n slipway && {ROLL}"
        code, said = place.invoke(undo)
        assert code == 0, said
        assert place.ask().text == "one hello"
    assert asking.wrong == []
    assert asking.count > 50
    assert asking.words == {"one", "two"}
    code, said = place.invoke("kubectl get deployment scoring -n slipway -o json")
    template = json.loads(said)["spec"]["template"]
    assert template["metadata"]["annotations"]["slipway.number"] == "1"
    code, said = place.invoke("kubectl logs deployment/scoring -n slipway --tail=5")
    assert "asked / at one" in said
    # What is scaled to nothing stays so, whatever the autoscaler's least is.
    place.invoke("kubectl scale deployment/scoring -n slipway --replicas=0")
    code, said = place.invoke(f"{ROLL} ; kubectl get pods -n slipway -o name --ignore-not-found")
    with pytest.raises(requests.RequestException):
        place.ask().raise_for_status()
    place.invoke("kubectl scale deployment/scoring -n slipway --replicas=2")


@pytest.mark.parametrize(
    ("trouble", "reason"),
    [("cluster cannot pull", "ImagePullBackOff"), ("pod crashes", "CrashLoopBackOff")],
)
def test_a_rollout_that_fails_leaves_the_old_pods(place: Place, trouble: str, reason: str) -> None:
    place.invoke(APPLY, place.manifests())
    place.world.faults.trouble(trouble)
    try:
        bad = place.manifests(labels={"slipway.number": trouble.replace(" ", "-")})
        short = APPLY.replace("90s", "4s")
        code, said = place.invoke(short, bad)
        assert code == 1
        assert "error: timed out waiting for the condition" in said
        assert place.ask().text == "one hello"
        code, said = place.invoke("kubectl get pods -n slipway -o json")
        waiting = [
            (pod["status"]["containerStatuses"][0]["state"].get("waiting") or {}).get("reason")
            for pod in json.loads(said)["items"]
            if "containerStatuses" in pod["status"]
        ]
        assert reason in waiting
    finally:
        place.world.faults.clear()
    code, said = place.invoke(f"kubectl rollout undo deployment/scoring -n slipway && {ROLL}")
    assert code == 0, said


def test_no_room_on_the_nodes(place: Place) -> None:
    place.invoke(APPLY, place.manifests())
    code, said = place.invoke(APPLY.replace("90s", "4s"), place.manifests(cpu="2"))
    assert code == 1
    code, said = place.invoke("kubectl get events -n slipway -o json")
    assert "Insufficient cpu" in said
    assert place.ask().status_code == 200
    assert place.invoke(f"kubectl rollout undo deployment/scoring -n slipway && {ROLL}")[0] == 0


def test_tls_ends_in_the_pod(place: Place, root: Path, tmp_path: Path) -> None:
    authority = trustme.CA()
    authority.cert_pem.write_to_path(str(tmp_path / "ca.pem"))
    issued = authority.issue_cert(HOST)
    chain = b"".join(each.bytes() for each in issued.cert_chain_pems).decode()
    key = issued.private_key_pem.bytes().decode()
    place.cluster.world.rooms["engine"].offered["front.azurecr.io/front:1"] = _front(root)
    tls = Tls("front.azurecr.io/front:1", chain, key)
    code, said = place.invoke(APPLY, place.manifests(tls=tls))
    assert code == 0, said
    answer = place.ask("https", verify=str(tmp_path / "ca.pem"))
    assert answer.text == "one hello"
    assert "max-age" in answer.headers["Strict-Transport-Security"]
    # Nothing listens on port 80 any more, says the proxy.
    assert place.ask().status_code == 502


def _front(root: Path) -> str:
    import subprocess

    name = subprocess.run(
        ["sh", str(root / "docker" / "image.sh"), "front"],
        cwd=root,
        check=True,
        capture_output=True,
        text=True,
    ).stdout.split()[-1]
    shown = subprocess.run(
        ["docker", "image", "inspect", "--format", "{{.Id}}", name],
        check=True,
        capture_output=True,
        text=True,
    )
    return shown.stdout.strip()


def test_what_kubectl_refuses(place: Place) -> None:
    file = place.manifests()
    text = file.read_text()

    def refused(change: Callable[[str], str], says: str) -> None:
        file.write_text(change(text))
        code, said = place.invoke("kubectl apply -f all.yaml", file)
        assert code == 1
        assert says in said

    refused(
        lambda t: t.replace("minReadySeconds", "minRedySeconds"),
        'strict decoding error: unknown field "spec.minRedySeconds"',
    )
    refused(
        lambda t: t.replace("namespace: slipway", "namespace: other"),
        'namespaces "other" not found',
    )
    refused(
        lambda t: t.replace("kind: PodDisruptionBudget", "kind: Budget"),
        'no matches for kind "Budget"',
    )
    assert place.invoke("helm list") == (127, "sh: helm: command not found\n")
    code, said = place.invoke("kubectl get pods nothing -n slipway -o json")
    assert (code, said) == (1, 'Error from server (NotFound): pods "nothing" not found\n')
    code, said = place.invoke("kubectl get deployment nothing --ignore-not-found -o json")
    assert (code, said) == (0, "")
    code, said = place.invoke("kubectl apply --shout -f all.yaml")
    assert "unknown flag: --shout" in said


def test_pods_that_are_not_restricted_are_not_made(place: Place) -> None:
    file = place.manifests(name="loose", host_label="loose-one")
    file.write_text(
        file.read_text().replace("allowPrivilegeEscalation: false", "privileged: false")
    )
    command = "kubectl apply -f all.yaml && kubectl rollout status deployment/loose -n slipway --timeout=2s"
    assert place.invoke(command, file)[0] == 1
    said = place.invoke("kubectl get events -n slipway -o json")[1]
    assert 'violates PodSecurity \\"restricted:latest\\"' in said
    code, said = place.invoke("kubectl delete deployment/loose service/loose -n slipway")
    assert (code, said) == (0, 'deployment.apps "loose" deleted\nservice "loose" deleted\n')


def test_a_command_that_is_not_run(place: Place) -> None:
    cluster = ("-g", GROUP, "-n", CLUSTER)
    place.cli.az("aks", "stop", *cluster)
    assert place.cli.az("aks", "show", *cluster)["powerState"]["code"] == "Stopped"
    invoke = (
        "aks",
        "command",
        "invoke",
        "-g",
        GROUP,
        "-n",
        CLUSTER,
        "--command",
        "kubectl version",
    )
    assert "Power State(Stopped)" in place.cli.az_fails(*invoke)
    place.cli.az("aks", "start", *cluster)
    place.world.faults.trouble("command pod does not start", 1)
    assert "(KubernetesPerformanceError) Failed to run command" in place.cli.az_fails(*invoke)
    place.world.faults.trouble("command invoke fails", 1)
    failed = place.cli.run("az", *invoke, check=False)
    # az finds the state in the answer and tells no reason.
    assert "Operation returned an invalid status 'OK'" in failed.stderr


def test_somebody_without_the_role(place: Place) -> None:
    only(place.world, APP_OBJECT, "Reader")
    try:
        said = place.cli.az_fails(
            *(
                "aks",
                "command",
                "invoke",
                "-g",
                GROUP,
                "-n",
                CLUSTER,
                "--command",
                "kubectl version",
            )
        )
        assert "AuthorizationFailed" in said
        assert "managedClusters/runCommand/action" in said
    finally:
        only(place.world, APP_OBJECT, "Owner")


def test_what_is_refused_of_a_cluster(place: Place) -> None:
    create = ("aks", "create", "-g", GROUP, "-n", "another", "--no-ssh-key")
    assert "not supported in this region" in place.cli.az_fails(*create, "-k", "1.12")
    assert "is not allowed" in place.cli.az_fails(*create, "--node-vm-size", "Standard_NOTHING")
    place.world.faults.trouble("no AKS quota", 1)
    assert "Insufficient regional vcpu quota" in place.cli.az_fails(*create)


def test_nodes_that_may_not_pull(place: Place) -> None:
    other = make_cluster(place.world, SCOPE, "other-aks", nodes=1)
    file = place.manifests(host_label="other-scoring")
    assert clusters(place.world)[other.lower()].nodes == 1
    command = APPLY.replace("90s", "3s") + " ; kubectl get events -n slipway -o json"
    done = place.cli.az(
        *("aks", "command", "invoke", "-g", GROUP, "-n", "other-aks", "--command", command),
        *("--file", str(file)),
    )
    assert "401 Unauthorized" in done["logs"]
