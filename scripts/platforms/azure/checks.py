"""What `make doctor` asks of Azure; every problem with the command that mends it."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path

from scripts.checks.finding import Finding, ok, problem
from scripts.errors import SlipwayError, UsageError
from scripts.platforms.azure import (
    deleted,
    holdings,
    images,
    login,
    names,
    rights,
    sizes,
    targets,
    template,
)
from scripts.platforms.azure.az import Az
from scripts.platforms.azure.holdings import Holdings
from scripts.platforms.azure.names import Names
from scripts.platforms.azure.place import place
from scripts.platforms.azure.targets import Ask
from scripts.settings import Settings

#: The oldest az whose commands are as ours: `acr login --expose-token` gives a refresh token since then.
OLDEST = (2, 74)
#: az processes at a time: each takes a second or more of a core.
TOGETHER = 3

NEEDED: Mapping[str, Sequence[str]] = {
    "Microsoft.MachineLearningServices": ("workspaces",),
    "Microsoft.Storage": ("storageAccounts",),
    "Microsoft.KeyVault": ("vaults",),
    "Microsoft.Insights": ("components",),
    "Microsoft.OperationalInsights": ("workspaces",),
    "Microsoft.ContainerRegistry": ("registries",),
    "Microsoft.ManagedIdentity": ("userAssignedIdentities",),
}
TARGETS: Mapping[str, Mapping[str, Sequence[str]]] = {
    "aci": {"Microsoft.ContainerInstance": ("containerGroups",)},
    "webapp": {"Microsoft.Web": ("sites", "serverFarms")},
    "aks": {"Microsoft.ContainerService": ("managedClusters",)},
}


def findings(root: Path, settings: Settings, az: Az) -> Iterator[Finding]:
    """Everything that a run needs of Azure; what depends on a login waits for it."""
    yield from _version(az)
    yield from images.findings(settings)
    if settings.SUBSCRIPTION_ID is None:
        yield problem("azure login", "SUBSCRIPTION_ID is not set", "set SUBSCRIPTION_ID in .env")
        return
    try:
        az.sign_in()
        az.token(names.ARM)
    except SlipwayError as error:
        yield problem("azure login", error.message, error.mend)
        return
    yield ok("azure login", login.who(settings))
    try:
        wanted = names.names(settings)
    except UsageError as error:
        yield problem("azure names", error.message, error.mend)
        return
    found = holdings.look(settings, az, quiet=True)
    questions: list[tuple[str, Ask]] = [
        ("azure providers", partial(_providers, settings, az)),
        ("azure roles", partial(rights.rights, settings, az, found)),
        ("azure sizes", partial(sizes.findings, settings, az)),
        *_taken(settings, az, found, wanted),
        *targets.questions(root, settings, az, found),
    ]
    if not settings.ROLE_ASSIGNMENTS:
        # The roles of the caller are among them.
        questions.append(("azure role assignments", partial(_assigned, root, settings, az, found)))
    elif found.group is not None:
        questions.append(("azure roles", partial(rights.key_rights, root, settings, az)))
    yield _provisioned(settings, found, wanted)
    with ThreadPoolExecutor(TOGETHER) as pool:
        asked = [(what, pool.submit(ask)) for what, ask in questions]
        for what, answer in asked:
            try:
                yield from answer.result()
            except SlipwayError as error:
                yield problem(what, error.message, error.mend)


def _version(az: Az) -> Iterator[Finding]:
    mend = "install a later Azure CLI, or use RUNNER=venv, which installs it"
    said = az.run(("version",))
    found = re.search(r'"azure-cli": "(\d+)\.(\d+)[^"]*"', said)
    if found is None:
        yield problem("az", "does not tell its version", mend)
    elif (int(found[1]), int(found[2])) < OLDEST:
        yield problem("az", f"is {found[1]}.{found[2]}, {OLDEST[0]}.{OLDEST[1]} is needed", mend)
    else:
        yield ok("az", f"{found[1]}.{found[2]}")


def _provisioned(settings: Settings, found: Holdings, wanted: Names) -> Finding:
    """What is there already."""
    try:
        found.check_owner(wanted)
    except UsageError as error:
        return problem("azure group", error.message, error.mend)
    if region := found.elsewhere(settings.LOCATION):
        return problem(
            "azure group",
            f"LOCATION={settings.LOCATION}, and what was made in {wanted.group} is in {region}",
            f"set LOCATION={region}, or another RESOURCE_GROUP and BASE_NAME",
        )
    if found.group is None:
        return Finding(
            "note", "azure group", f"{wanted.group} is not there; `make provision` makes it"
        )
    missing = [
        getattr(wanted, field)
        for field, kind in template.MADE.items()
        if not found.has(kind, getattr(wanted, field))
    ]
    if found.has_existing_workspace:
        return ok("azure group", f"{wanted.group} has a workspace {wanted.workspace} of its own")
    if missing:
        text = f"{wanted.group} is there; `make provision` makes {', '.join(missing)}"
        return Finding("note", "azure group", text)
    return ok("azure group", f"{wanted.group} has all that provision makes")


def needed(settings: Settings) -> Mapping[str, Sequence[str]]:
    """The resource types by provider that a run will make."""
    types: dict[str, Sequence[str]] = dict(NEEDED)
    for target in sorted(targets.targets(settings)):
        types |= TARGETS[target]
    return types


def _providers(settings: Settings, az: Az) -> list[Finding]:
    """Providers that are registered, and whether the region has their types."""
    wanted = needed(settings)
    fields = "{name: namespace, state: registrationState, types: resourceTypes[].{type: resourceType, where: locations}}"
    # Not filtered here: Azure writes some in lower case, as microsoft.insights.
    listed = az("provider", "list", "--query", f"[].{fields}")
    by_name = {str(item["name"]).lower(): item for item in listed}
    told: list[Finding] = []
    for name, types in wanted.items():
        item = by_name.get(name.lower(), {"state": "NotRegistered", "types": []})
        if item["state"] == "Registering":
            text = f"{name} is being registered"
            told.append(Finding("warning", "azure providers", text, "wait a minute"))
        elif item["state"] != "Registered":
            mend = names.line(settings, f"provider register --namespace {name} --wait")
            told.append(problem("azure providers", f"{name} is not registered", mend))
        for kind in item["types"]:
            regions = {str(region).replace(" ", "").lower() for region in kind["where"] or ()}
            ours = str(kind["type"]).lower() in {each.lower() for each in types}
            if ours and regions and settings.LOCATION not in regions:
                text = f"LOCATION={settings.LOCATION} has no {name}/{kind['type']}"
                mend = f"set LOCATION to one of {', '.join(sorted(regions)[:8])}"
                told.append(problem("azure region", text, mend))
    return told or [
        ok("azure providers", f"{len(wanted)} are registered, and {settings.LOCATION} has them")
    ]


def _taken(settings: Settings, az: Az, found: Holdings, wanted: Names) -> Iterator[tuple[str, Ask]]:
    """The questions about names that all of Azure shares, for what is not there yet."""
    if found.has_existing_workspace:
        return
    command: tuple[str, ...]
    if not found.has(template.STORAGE, wanted.storage):
        command = ("storage", "account", "check-name", "--name", wanted.storage)
        yield "azure names", partial(_free, az, "storage account", wanted.storage, command)
    if not found.has(template.REGISTRIES, wanted.registry):
        command = ("acr", "check-name", "--name", wanted.registry)
        yield "azure names", partial(_free, az, "registry", wanted.registry, command)
    if not found.has(template.VAULTS, wanted.vault):
        yield "azure names", partial(_vault, settings, az, wanted.vault)
    if not found.has(template.WORKSPACES, wanted.workspace):
        yield "azure names", partial(_workspace, settings, az, wanted.workspace)


def _free(az: Az, what: str, name: str, command: Sequence[str]) -> list[Finding]:
    answer = az(*command)
    if answer["nameAvailable"]:
        return [ok("azure names", f"{what} {name} is free")]
    why = answer.get("message") or answer.get("reason")
    return [problem("azure names", f"{what} {name}: {why}", "set another BASE_NAME")]


def _vault(settings: Settings, az: Az, name: str) -> list[Finding]:
    """A vault's name may be held by one that was deleted: ours is recovered, another's is in the way."""
    found = deleted.vault(settings, az)
    if found is None:
        # `az keyvault check-name` asks about managed HSMs only.
        url = f"{names.ARM}subscriptions/{settings.SUBSCRIPTION_ID}/providers/Microsoft.KeyVault"
        body = json.dumps({"name": name, "type": template.VAULTS})
        command = ("rest", "--method", "post", "--url")
        where = f"{url}/checkNameAvailability?api-version=2023-07-01"
        return _free(az, "vault", name, (*command, where, "--body", body))
    why = found.in_the_way(settings)
    if why is None:
        return [
            Finding(
                "note", "azure names", f"vault {name} was deleted; `make provision` recovers it"
            )
        ]
    text = f"a deleted vault {name} {why} still holds the name"
    return [problem("azure names", text, found.mend(settings))]


def _workspace(settings: Settings, az: Az, name: str) -> list[Finding]:
    """A soft-deleted workspace of the name, which the list of all workspaces shows too."""
    ours = names.workspace_id(settings)
    for item in deleted.workspaces(settings, az):
        if str(item["id"]).lower() == ours.lower():
            mend = names.purge_workspace(settings)
            text = f"workspace {name} was deleted and still holds the name"
            return [problem("azure names", text, mend)]
        if str(item["name"]).lower() == name.lower():
            group = str(item["id"]).split("/")[4]
            text = f"there is a workspace {name} in the group {group} too; RESOURCE_GROUP={group} would use it"
            return [Finding("note", "azure names", text)]
    return [ok("azure names", f"workspace {name} is free")]


def _assigned(root: Path, settings: Settings, az: Az, found: Holdings) -> list[Finding]:
    """Whether an Owner has run the commands that provision printed."""
    from scripts.platforms.azure.provisioning import unassigned

    try:
        where = place(root, settings, az)
    except UsageError:
        return [Finding("note", "azure role assignments", "nothing is provisioned yet")]
    who = template.operator(az)
    existing = found.has_existing_workspace
    wanted = list(template.assignments(root, where, who, existing=existing))
    missing = unassigned(az, wanted)
    if not missing:
        return [ok("azure role assignments", f"all {len(wanted)} are made")]
    return [
        problem("azure role assignments", f"{item.role} is missing: {item.why}", item.line)
        for item in missing
    ]
