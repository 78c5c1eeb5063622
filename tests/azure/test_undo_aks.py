"""What a deployment on Kubernetes that fails leaves behind: the real controllers, pods that only pretend."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from scripts.errors import SlipwayError
from scripts.platforms.azure.aks import FILE, Kubernetes
from scripts.platforms.azure.az import Az
from scripts.platforms.azure.certificate import Certificate
from scripts.platforms.azure.deployed import Kept
from scripts.settings import Settings
from tests.azure.standin.aks import kubectl, rollout
from tests.azure.standin.aks.cluster import Cluster
from tests.azure.standin.aks.fields import Invalid
from tests.azure.standin.aks.rollout import Controllers
from tests.azure.standin.directory import Principal
from tests.azure.standin.messages import Json
from tests.azure.standin.world import World, now

pytestmark = pytest.mark.azure  # for PyYAML
NAME, HOST = "kiln", "kiln-1.westeurope.cloudapp.azure.com"
BAD = "registry/image@bad"
SIZES = {
    "DEPLOY_CPU": "1",
    "DEPLOY_MEMORY_GB": "1",
    "GRACE_SECONDS": "1",
    "AKS_MIN_REPLICAS": "2",
    "AKS_MAX_REPLICAS": "3",
}


class Pretended:
    """A pod that is ready at once, unless its image is bad."""

    def __init__(self, cluster: Cluster, made: Json) -> None:
        self.made, self.spec, self.name, self.previous = made, made["spec"], "pod", ""
        self.ready = made["spec"]["containers"][0]["image"] != BAD
        self.leaving = self
        self.gone = self
        self.left = False
        self.boxes: list[Any] = []
        made["status"] = {"containerStatuses": [{"name": "scoring", "state": {}}]}

    def ready_for(self, seconds: float) -> bool:
        return self.ready

    def logs(self, *_: object, **__: object) -> str:
        return ""

    def set(self) -> None:
        self.left = True

    def is_set(self) -> bool:
        return self.left

    def wait(self, seconds: float) -> None:
        pass


class Here(Kubernetes):
    """The service on a cluster of this process."""

    cluster = ("group", "kiln-cluster", "westeurope")

    def __init__(self, root: Path, there: Cluster) -> None:
        settings = Settings(AKS_DEPLOYMENT_NAME=NAME)
        super().__init__(root, settings, Az(settings))
        self.there = there
        self.key, self.times = "one", 1
        self.ground = SimpleNamespace(  # type: ignore[assignment]
            certificate=None,
            label=lambda name: "kiln-1",
            secrets=lambda: {"SCORING_KEY": self.key},
            restore_key=lambda: None,
            images=SimpleNamespace(push_front=lambda: "registry/front@1"),
            place=SimpleNamespace(registry="registry", region="westeurope"),
        )
        self.wrong: str | None = None
        #: What happens while a deployment is being proven.
        self.meanwhile: Callable[[], None] = lambda: None

    def _invoke(
        self, command: str, *, manifest: str | None = None, doing: str | None = None
    ) -> tuple[int, str]:
        files = {FILE: manifest.encode()} if manifest else {}
        command = command.replace("--timeout=240s", "--timeout=1s")
        for _ in range(self.times):  # a command whose answer was lost is given again
            done = kubectl.run(self.there, command, files)
        return done

    def _proven_wrong(self, *_: object) -> str | None:
        self.meanwhile()
        return self.wrong

    def go(self, number: int, image: str = "registry/image@good", **more: Any) -> None:
        kept = Kept(number, "m", number, "i", "id", image, None, None, now(), {**SIZES, **more})
        self._replace(self._look(), kept, {})

    def settle(self) -> Mapping[str, Any]:
        """The deployment, once all its pods are those it wants."""
        assert kubectl.run(self.there, self._status.replace("240s", "9s"), {})[0] == 0
        return self.there.get("Deployment", "slipway", NAME)

    @property
    def number(self) -> str:
        return str(self.settle()["spec"]["template"]["metadata"]["labels"]["slipway.number"])

    @property
    def ports(self) -> list[int]:
        service = self.there.get("Service", "slipway", NAME)
        return [port["port"] for port in service["spec"]["ports"]]

    def held(self, kind: str = "Secret") -> list[str]:
        return [each["metadata"]["name"] for each in self.there.of(kind, "slipway")]


@pytest.fixture
def here(root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Here]:
    monkeypatch.setattr(rollout, "Pod", Pretended)
    world = World(tmp_path, docker=False, root=root)
    cluster = Cluster(world, "/cluster", "westeurope", Principal("", "", ""))
    controllers = Controllers(cluster)
    service = Here(root, cluster)
    service.go(1)
    yield service
    controllers.close()
    world.close()


def deny(monkeypatch: pytest.MonkeyPatch, cluster: Cluster) -> None:
    """An admission webhook that refuses deployments."""
    real = cluster.apply

    def apply(document: Any, namespace: str, *, dry: bool = False) -> tuple[Json, str]:
        if document["kind"] == "Deployment":
            raise Invalid('admission webhook "policy" denied the request', "Forbidden")
        return real(document, namespace, dry=dry)

    monkeypatch.setattr(cluster, "apply", apply)


def test_what_was_never_stored_is_not_undone_to_the_one_before(
    here: Here, monkeypatch: pytest.MonkeyPatch
) -> None:
    here.go(2)
    deny(monkeypatch, here.there)
    with pytest.raises(SlipwayError, match=r"denied the request.*deployment 2 .* serves on"):
        here.go(3)
    assert here.number == "2"


def test_what_a_cut_short_call_left_is_not_what_is_undone_to(here: Here) -> None:
    here.meanwhile = _cut
    with pytest.raises(KeyboardInterrupt):
        here.go(2)
    assert here.number == "2"
    here.meanwhile = lambda: None
    with pytest.raises(SlipwayError, match=r"deployment 1 .* serves on"):
        here.go(3, BAD)
    assert here.number == "1"
    state = here._look().state
    assert (state.last, state.proven, state.pending) == (3, 1, False)


def _cut() -> None:
    raise KeyboardInterrupt


def test_an_undo_that_is_done_twice(here: Here) -> None:
    here.times, here.wrong = 2, "answers wrong"
    with pytest.raises(SlipwayError, match=r"deployment 1 .* serves on"):
        here.go(2)
    assert here.number == "1"


def test_an_undo_that_fails_is_told(here: Here, monkeypatch: pytest.MonkeyPatch) -> None:
    here.wrong, here.meanwhile = "answers wrong", lambda: deny(monkeypatch, here.there)
    with pytest.raises(SlipwayError, match=r"could not be undone: .*denied the request"):
        here.go(2)


def test_a_certificate_and_a_key_that_come_with_a_failure_go_with_it(here: Here) -> None:
    assert here.ports == [80]
    seen: list[list[int]] = []
    here.wrong, here.meanwhile = "answers wrong", lambda: seen.append(here.ports)
    here.key = "two"
    here.ground.certificate = Certificate(  # type: ignore[misc]
        "tls", (HOST,), *(None, None), "chain", "key"  # type: ignore[arg-type]
    )
    with pytest.raises(SlipwayError, match=r"deployment 1 .* serves on"):
        here.go(2)
    # The pods of before were served while the new ones came, and are so again.
    assert seen == [[80, 443]]
    assert here.ports == [80]
    assert here.number == "1"
    assert here._look().url == f"http://{HOST}"
    assert here.there.data("Secret", "slipway", f"{NAME}-1") == {"SCORING_KEY": "one"}
    pods = here.settle()["spec"]["template"]["spec"]["containers"]
    assert [each["name"] for each in pods] == ["scoring"]
    assert pods[0]["envFrom"] == [{"secretRef": {"name": f"{NAME}-1"}}]

    here.wrong = None
    here.go(3)
    assert (here.number, here.ports) == ("3", [443])
    assert here._look().url == f"https://{HOST}"
    # Of the secrets only those are left that are in use.
    assert here.held() == [f"{NAME}-3", f"{NAME}-tls-3"]
    assert here.held("ConfigMap") == [f"{NAME}-tls-3"]


def test_sizes_are_those_of_before_again(here: Here) -> None:
    with pytest.raises(SlipwayError, match=r"deployment 1 .* serves on"):
        here.go(2, BAD, AKS_MIN_REPLICAS="3")
    scaler = here.there.get("HorizontalPodAutoscaler", "slipway", NAME)
    assert scaler["spec"]["minReplicas"] == 2


def test_pods_that_the_cluster_forgot_are_made_anew(here: Here) -> None:
    kept = here._look()
    forgotten = replace(kept, detail=replace(kept.detail, templates={}))
    new = replace(kept.state.kept[0], number=2, image=BAD)
    with pytest.raises(SlipwayError, match=r"deployment 1 .* serves on"):
        here._replace(forgotten, new, {})
    assert here.number == "1"
