"""The verbs as the table of faults calls them: what must be there before, and what must hold after."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from tests.azure.bench import Bench
from tests.azure.clusters import attach_cluster
from tests.azure.ml_clone import model_versions

Environ = Mapping[str, str]


def nothing(bench: Bench) -> None:
    """Nothing to hold."""


@dataclass(frozen=True)
class Scene:
    """A verb: `ready` makes what is before it and says what the call is given; `unharmed` asserts
    after a call that failed, `done` after one that succeeded."""

    ready: Callable[[Bench], Environ]
    unharmed: Callable[[Bench], None] = nothing
    done: Callable[[Bench], None] = nothing
    #: Its name in the record, where it leaves one.
    record: str | None = None
    #: The verb's own name, where the scene is one of several.
    module: str | None = None


# What Azure must have


def _empty(bench: Bench) -> None:
    if not bench.has("empty"):
        bench.clone.run("login")
        bench.keep("empty")
    bench.restore("empty")


def _provisioned(bench: Bench) -> None:
    if not bench.has("provisioned"):
        _empty(bench)
        bench.clone.run("provision")
        bench.keep("provisioned")
    bench.restore("provisioned")


def _login(bench: Bench) -> Environ:
    _empty(bench)
    bench.sign_out()
    return {}


def _on_nothing(bench: Bench) -> Environ:
    _empty(bench)
    return {}


def _on_a_place(bench: Bench) -> Environ:
    _provisioned(bench)
    return {}


def _to_destroy(bench: Bench) -> Environ:
    _provisioned(bench)
    return {"CONFIRM": group(bench)}


def group(bench: Bench) -> str:
    return f"{bench.settings['BASE_NAME']}-AML-RG"


def _as_kept(state: str) -> Callable[[Bench], None]:
    """Asserts that Azure holds what it held, neither more nor less."""

    def check(bench: Bench) -> None:
        held = bench._kept[state][1]["resources"]
        assert _without_deployments(bench.world.resources) == _without_deployments(held)

    return check


def _without_deployments(resources: Mapping[str, Any]) -> dict[str, Any]:
    return {
        key: value for key, value in resources.items() if "/roleassignments/" not in key.lower()
    }


def _in_good_state(bench: Bench) -> None:
    """Whatever is there was made whole; a deployment that failed is only a note of that."""
    for resource in bench.world.resources.values():
        if resource["type"] == "Microsoft.Resources/deployments":
            continue
        state = (resource.get("properties") or {}).get("provisioningState", "Succeeded")
        assert state == "Succeeded", resource


def _place(bench: Bench) -> None:
    _in_good_state(bench)
    kept = bench.records["provision"]
    for name in ("workspace_id", "registry_id", "storage_id", "vault_id", "identity_id"):
        assert kept[name].lower() in bench.world.resources, name


def _gone(bench: Bench) -> None:
    held = [key for key in bench.world.resources if f"/{group(bench).lower()}" in key]
    assert not held
    assert not bench.world.deleted


# The model


def _trained(bench: Bench) -> None:
    if not bench.has("fresh"):
        bench.clone.run("data")
        bench.keep("fresh")
        bench.clone.run("train")
        bench.keep("trained")
        bench.clone.run("evaluate")
        bench.keep("judged")


def _to_train(bench: Bench) -> Environ:
    _trained(bench)
    bench.restore("fresh")
    return {"PARAMS": f"alpha={next(bench.numbers)}"}


def _to_evaluate(bench: Bench) -> Environ:
    _trained(bench)
    bench.restore("trained")
    return {}


def _to_register(bench: Bench) -> Environ:
    _trained(bench)
    bench.restore("judged")
    return {}


def _to_publish(bench: Bench) -> Environ:
    _trained(bench)
    bench.restore("trained")
    return {"BUILD_BUILDID": str(next(bench.numbers))}


def _to_run(bench: Bench) -> Environ:
    _trained(bench)
    if not bench.has("published"):
        bench.restore("fresh")
        bench.clone.run("publish_pipeline", BUILD_BUILDID="1")
        bench.keep("published")
    bench.restore("published")
    return {"BUILD_BUILDID": "1"}


def _none_registered(bench: Bench) -> None:
    assert model_versions(bench.clone) == []


def _registered_once(bench: Bench) -> None:
    (version,) = model_versions(bench.clone)
    assert version["kvTags"]["run_id"] == bench.records["train"]["run_id"]
    assert bench.records["register"]["version"] == int(version["version"])


def _run_is_whole(bench: Bench) -> None:
    """The record's run has ended, and what it left can be read."""
    runs = next(iter(bench.world.rooms["ml"]._kept.values())).runs
    assert runs[bench.records["train"]["run_id"]]["status"] == "Completed"


# What serves. Containers are not gone back to: each call goes on from where the one before left them.

#: Runs are processes of this environment, so no image of theirs is pushed.
NO_TOOLBOX = """

AzureImages.push_toolbox = lambda self: "none.azurecr.io/slipway/toolbox@sha256:" + "5" * 64
"""
#: Pods are up within seconds here; one that will not be is given up sooner than on Azure.
SHORT_ROLLOUT = """

ROLLOUT = 80
"""


def _packaged(bench: Bench) -> None:
    """Versions 1 and 2 in the registry of the models, and version 1 in that of the images."""
    if bench.has("packaged"):
        return
    for name, more in (("images.py", NO_TOOLBOX), ("aks.py", SHORT_ROLLOUT)):
        module = bench.clone.path / "scripts" / "platforms" / "azure" / name
        module.write_text(module.read_text() + more)
    bench.world.docker = False
    for verb in ("provision", "data"):
        bench.clone.run(verb)
    for alpha in ("1", "2"):
        for verb in ("train", "evaluate", "register"):
            bench.clone.run(verb, CHAMPION="none", PARAMS=f"alpha={alpha}")
    bench.world.docker = True
    bench.clone.run("image", MODEL_VERSION="1")
    bench.keep("packaged")


def _to_package(bench: Bench) -> Environ:
    """A label that no image has yet makes the registry's image another one."""
    _packaged(bench)
    return {"MODEL_VERSION": "2", "IMAGE_NAME": f"wood-{next(bench.numbers)}"}


def _serving(bench: Bench) -> None:
    """Version 1 has a deployment that answers."""
    _packaged(bench)
    if not bench.has("serving"):
        bench.clone.run("deploy")
        bench.keep("serving")


def _ask(bench: Bench) -> Environ:
    _serving(bench)
    return {}


def _to_deploy(bench: Bench) -> Environ:
    """Other settings of the service ask for another deployment, of a version rolled back before too."""
    _serving(bench)
    return {"MAX_ROWS": str(1000 + next(bench.numbers)), "FORCE": "1"}


#: Where else it can be deployed.
TARGETS: Mapping[str, Environ] = {
    "webapp": {"DEPLOY_TARGET": "webapp", "WEBAPP_DEPLOYMENT_NAME": "kiln42-web"},
    "aks": {
        "DEPLOY_TARGET": "aks",
        "AKS_COMPUTE_NAME": "kube",
        "AKS_DEPLOYMENT_NAME": "kiln-aks",
        "DEPLOY_CPU": "0.5",
        "DEPLOY_MEMORY_GB": "0.5",
    },
}


def _to_deploy_to(target: str) -> Callable[[Bench], Environ]:
    def ready(bench: Bench) -> Environ:
        _packaged(bench)
        if not bench.has(target):
            if target == "aks":
                place = bench.records["provision"]
                ids = (place["workspace_id"], place["registry_id"])
                attach_cluster(bench.clone.standin, *ids, "kube")
            bench.clone.run("deploy", **TARGETS[target])
            bench.keep(target)
        return {**TARGETS[target], "MAX_ROWS": str(1000 + next(bench.numbers))}

    return ready


def _answers_at(target: str) -> Callable[[Bench], None]:
    def check(bench: Bench) -> None:
        assert f"healthy, {target} " in (told := bench.clone.run("status", **TARGETS[target])), told
        assert "unhealthy" not in told

    return check


def _to_roll_back(bench: Bench) -> Environ:
    """There is one before."""
    bench.clone.run("deploy", **_to_deploy(bench))
    return {}


def _answers(bench: Bench) -> None:
    """The service answers, whichever deployment that is."""
    assert ", aci " in (told := bench.clone.run("status")), told
    assert "healthy" in told
    assert "unhealthy" not in told


def _loaded(bench: Bench) -> None:
    assert bench.records["load-aci"]["failures"] == 0


SCENES: Mapping[str, Scene] = {
    "login": Scene(_login, _as_kept("empty")),
    "doctor": Scene(_on_nothing, _as_kept("empty")),
    "what-if": Scene(_on_a_place, _as_kept("provisioned"), _as_kept("provisioned")),
    "provision": Scene(_on_nothing, _in_good_state, _place, "provision"),
    "destroy": Scene(_to_destroy, nothing, _gone),
    "train": Scene(_to_train, _none_registered, _run_is_whole, "train"),
    "evaluate": Scene(_to_evaluate, _none_registered, record="evaluate"),
    "register": Scene(_to_register, _none_registered, _registered_once, "register"),
    "publish-pipeline": Scene(_to_publish, record="publish-pipeline"),
    "run-pipeline": Scene(_to_run, record="run-pipeline"),
    "image": Scene(_to_package, record="image"),
    "deploy": Scene(_to_deploy, _answers, _answers),
    "deploy-webapp": Scene(
        _to_deploy_to("webapp"), _answers_at("webapp"), _answers_at("webapp"), module="deploy"
    ),
    "deploy-aks": Scene(
        _to_deploy_to("aks"), _answers_at("aks"), _answers_at("aks"), module="deploy"
    ),
    "smoke": Scene(_ask, _answers, record="smoke-aci"),
    "load": Scene(_ask, _answers, _loaded, "load-aci"),
    "status": Scene(_ask, _answers),
    "logs": Scene(_ask, _answers),
    "rollback": Scene(_to_roll_back, _answers, _answers),
}
#: What a workspace made by hand is enough for.
IN_A_WORKSPACE = ("train", "evaluate", "register", "publish-pipeline", "run-pipeline")
#: What needs images and containers.
WITH_CONTAINERS = (
    *("image", "deploy", "deploy-webapp", "deploy-aks"),
    *("smoke", "load", "status", "logs", "rollback"),
)
