"""What `make doctor` asks about the places that DEPLOY_TARGET and ACI_DEPLOYMENT_NAME name."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from pathlib import Path

from scripts.checks.finding import Finding, ok, problem
from scripts.platforms.azure import names
from scripts.platforms.azure.aks import Kubernetes
from scripts.platforms.azure.az import Az
from scripts.platforms.azure.ground import without_https
from scripts.platforms.azure.holdings import Holdings
from scripts.settings import Settings

SITES = "Microsoft.Web/sites"
#: What a target is called, without which nothing can be deployed there.
NAMED = {
    "aci": ("ACI_DEPLOYMENT_NAME",),
    "webapp": ("WEBAPP_DEPLOYMENT_NAME",),
    "aks": ("AKS_COMPUTE_NAME", "AKS_DEPLOYMENT_NAME"),
}
Ask = Callable[[], Sequence[Finding]]


def targets(settings: Settings) -> set[str]:
    """What is deployed to: production, and QA before it."""
    return {settings.DEPLOY_TARGET, *(("aci",) if settings.ACI_DEPLOYMENT_NAME else ())}


def questions(root: Path, settings: Settings, az: Az, found: Holdings) -> Iterator[tuple[str, Ask]]:
    """One for each target."""
    wanted = targets(settings)
    yield "azure targets", partial(_named, settings)
    yield "azure https", partial(_https, settings, wanted)
    if "aci" in wanted:
        yield "azure container instances", partial(_instances, settings, az)
    app = settings.WEBAPP_DEPLOYMENT_NAME
    if "webapp" in wanted and app and not found.has(SITES, app):
        yield "azure web app", partial(_app, settings, az, app)
    if "aks" in wanted and settings.AKS_COMPUTE_NAME and found.workspace is not None:
        yield "azure kubernetes", partial(_cluster, root, settings, az)


def _named(settings: Settings) -> list[Finding]:
    """What is not called anything yet."""
    target = settings.DEPLOY_TARGET
    return [
        problem("azure targets", f"DEPLOY_TARGET={target} needs {name}", f"set {name} in .env")
        for name in NAMED[target]
        if not getattr(settings, name)
    ]


def _https(settings: Settings, wanted: set[str]) -> list[Finding]:
    """Where `deploy` would refuse plain HTTP, which Azure's own HTTPS of a web app never is."""
    wrong = [without_https(settings, target) for target in sorted(wanted - {"webapp"})]
    return [problem("azure https", error.message, error.mend) for error in wrong if error]


def _provider(settings: Settings, name: str) -> str:
    return f"{names.ARM}subscriptions/{settings.SUBSCRIPTION_ID}/providers/{name}"


def _instances(settings: Settings, az: Az) -> list[Finding]:
    """Whether a container group may be as large as is asked, which differs between regions.

    Source: REST reference, Container Instances, Location - List Capabilities.
    """
    where = f"{_provider(settings, 'Microsoft.ContainerInstance')}/locations/{settings.LOCATION}"
    url = f"{where}/capabilities?api-version=2023-05-01"
    listed = [
        item["capabilities"]
        for item in az("rest", "--method", "get", "--url", url)["value"]
        if (item["osType"], item["ipAddressType"], item["gpu"]) == ("Linux", "Public", "None")
    ]
    asked = f"{settings.DEPLOY_CPU:g} CPU and {settings.DEPLOY_MEMORY_GB:g} GB"
    if any(
        each["maxCpu"] >= settings.DEPLOY_CPU and each["maxMemoryInGB"] >= settings.DEPLOY_MEMORY_GB
        for each in listed
    ):
        return [ok("azure container instances", f"{settings.LOCATION} has groups of {asked}")]
    most = max(listed, key=lambda each: float(each["maxCpu"]), default=None)
    text = f"{settings.LOCATION} has no groups of {asked}"
    mend = "set another LOCATION"
    if most is not None:
        mend = (
            f"set DEPLOY_CPU to {most['maxCpu']:g} and DEPLOY_MEMORY_GB to "
            f"{most['maxMemoryInGB']:g} at most, or {mend.removeprefix('set ')}"
        )
    return [problem("azure container instances", text, mend)]


def _app(settings: Settings, az: Az, name: str) -> list[Finding]:
    """Whether the app's name, which is a host's, is free in all of Azure."""
    url = f"{_provider(settings, 'Microsoft.Web')}/checknameavailability?api-version=2023-12-01"
    body = json.dumps({"name": name, "type": SITES})
    answer = az("rest", "--method", "post", "--url", url, "--body", body)
    if answer["nameAvailable"]:
        return [ok("azure web app", f"the name {name} is free")]
    why = answer.get("message") or answer.get("reason")
    return [problem("azure web app", f"{name}: {why}", "set another WEBAPP_DEPLOYMENT_NAME")]


def _cluster(root: Path, settings: Settings, az: Az) -> list[Finding]:
    """Whether the cluster is attached to the workspace, is there and runs."""
    group, name, _ = Kubernetes(root, settings, az).cluster
    where = ("--resource-group", group, "--name", name)
    found = az.find("aks", "show", *where, "--query", "{power: powerState.code}")
    if found is None:
        text = f"AKS_COMPUTE_NAME={settings.AKS_COMPUTE_NAME} is the cluster {name} in {group}, which is gone"
        return [problem("azure kubernetes", text, "attach another cluster to the workspace")]
    if found["power"] != "Running":
        text = f"the cluster {name} is {str(found['power']).lower()}"
        return [
            problem("azure kubernetes", text, names.line(settings, f"aks start {' '.join(where)}"))
        ]
    return [ok("azure kubernetes", f"the cluster {name} runs")]
