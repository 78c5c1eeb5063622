"""What Azure refused, in one line, and what to do about it."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from scripts.errors import SlipwayError
from scripts.platforms.azure.innermost import innermost
from scripts.platforms.azure.names import group, line, names, purge_workspace
from scripts.settings import Settings


class AzureError(SlipwayError):
    """Azure, or az, said no; `code` is Azure's own word for it, "" where it has none."""

    def __init__(self, message: str, mend: str, code: str, kind: Kind, said: str) -> None:
        super().__init__(message, mend)
        self.code, self.said = code, said
        self.exit_code = kind.exit_code
        #: It may succeed when asked again.
        self.passing = kind.passing
        #: Somebody has to sign in anew.
        self.expired = kind.expired
        #: The thing asked for is not there.
        self.missing = kind.missing


@dataclass(frozen=True)
class Kind:
    """A kind of error: `pattern` is looked for in "code: message", `mend` says what to do."""

    pattern: str
    mend: Callable[[str, Settings], str] | str = ""
    exit_code: int = 2
    passing: bool = False
    expired: bool = False
    missing: bool = False


#: Who may give others their roles.
RBAC = "Role Based Access Control Administrator"
#: Who may read and write the service's key.
OFFICER = "Key Vault Secrets Officer"


def assignment(who: str | None, role: str, scope: str) -> str:
    """The command for an Owner that gives `who` a role; where Azure did not say who, it has a place to fill."""
    return f'az role assignment create --assignee {who or "<object id>"} --role "{role}" --scope {scope}'


def _role_for(action: str) -> str:
    """The built-in role that allows an action."""
    roles = (
        ("Microsoft.Authorization/", RBAC),
        ("Microsoft.KeyVault/vaults/secrets", OFFICER),
        ("Microsoft.KeyVault/vaults/certificates", "Key Vault Certificates Officer"),
        ("Microsoft.ContainerRegistry/registries/push", "AcrPush"),
        ("Microsoft.ContainerRegistry/registries/pull", "AcrPull"),
        ("Microsoft.Storage/storageAccounts/blobServices", "Storage Blob Data Contributor"),
        (
            "Microsoft.ContainerService/managedClusters/",
            "Azure Kubernetes Service Contributor Role",
        ),
    )
    return next(
        (role for start, role in roles if action.lower().startswith(start.lower())), "Contributor"
    )


def _assign(line: str, settings: Settings) -> str:
    """The command for an Owner that gives what was missing."""
    client = re.search(r"object id '([^']+)'", line) or re.search(r"oid=([\w-]+)", line)
    action = re.search(r"action '([^']+)'|Action: '([^']+)'", line)
    scope = re.search(r"(?:over|at) scope '([^']+)'|Resource: '([^']+)'", line)
    role = _role_for(next(filter(None, action.groups()), "") if action else "")
    where = (
        next(filter(None, scope.groups()))
        if scope
        else f"/subscriptions/{settings.SUBSCRIPTION_ID}"
    )
    # A resource that is yet to be made can hold no assignment: its group can.
    where = re.sub(r"/providers/Microsoft\.Resources/deployments/.*", "", where)
    where = re.sub(r"(/vaults/[^/]+)/.*", r"\1", where)
    if role in ("Contributor", RBAC):
        where = re.sub(r"^(/subscriptions/[^/]+(/resource[gG]roups/[^/]+)?)/.*", r"\1", where)
    who = client[1] if client else settings.SP_APP_ID
    text = f"let an Owner run: {assignment(who, role, where)}"
    if role == RBAC:
        text += ", or set ROLE_ASSIGNMENTS=false"
    if role == OFFICER and settings.ROLE_ASSIGNMENTS:
        # Whoever provisions gets it; a colleague who only deploys may not have.
        text = f"run `make provision`, which gives that role, or {text}"
    return text


def _register(said: str, settings: Settings) -> str:
    spaces = re.findall(r"Microsoft\.[A-Za-z]+", said)
    name = spaces[0] if spaces else "<namespace>"
    return f"run: {line(settings, f'provider register --namespace {name} --wait')}"


def _sku(line: str, settings: Settings) -> str:
    """What az makes with a size is the service; the training cluster is the SDK's."""
    text = f"set another LOCATION than {settings.LOCATION}"
    if not re.search("sku|capacity|allocation", line, re.IGNORECASE):
        return text
    if "serverfarms" in line.lower() or settings.DEPLOY_TARGET == "webapp":
        return f"{text}, or another WEBAPP_SKU than {settings.WEBAPP_SKU}"
    size = f"DEPLOY_CPU={settings.DEPLOY_CPU:g} and DEPLOY_MEMORY_GB={settings.DEPLOY_MEMORY_GB:g}"
    return f"{text}, or less than {size}"


def _deleted(said: str, settings: Settings) -> str:
    """For who may not list deleted vaults: else provision recovers it, or says whose it is."""
    where = f"--name {names(settings).vault} --location {settings.LOCATION}"
    return (
        "set another BASE_NAME, or let somebody with a role on the subscription run: "
        + line(settings, f"keyvault recover {where} --resource-group {group(settings)}")
        + ", or purge instead of recover"
    )


def _name(line: str, settings: Settings) -> str:
    return f"set another BASE_NAME than {settings.BASE_NAME}: such names are unique in all of Azure"


#: What helps where a cluster has no room for the pod that runs a command in it
#: (https://learn.microsoft.com/troubleshoot/azure/azure-kubernetes/connectivity/resolve-az-aks-command-invoke-failures).
ROOM = (
    "run the same verb again; if it stays, give the cluster another node: the command's own pod "
    "(in the namespace aks-command) needs 0.2 CPU and 500 MB"
)


def _policy(said: str, settings: Settings) -> str:
    """Whom to ask, with the assignment where Azure named it."""
    found = re.search(r"(/[^\s\"'\\\\]*)/policyAssignments/([^\s\"'\\\\]+)", said)
    if found is None:
        return "a policy of the subscription forbids it: ask who looks after it"
    exempt = (
        "policy exemption create --name slipway --exemption-category Waiver --policy-assignment "
        f"{found[0]} --resource-group {group(settings)}"
    )
    return "ask who looks after this policy to change it or to exempt the group: " + line(
        settings, exempt
    )


def _plan(said: str, settings: Settings) -> str:
    return (
        "ask for more (https://aka.ms/antquotahelp), or set another WEBAPP_SKU than "
        f"{settings.WEBAPP_SKU}"
    )


#: The first that fits; patterns are regular expressions over "code: message".
KINDS: Sequence[Kind] = (
    Kind(
        r"AADSTS7000215|AADSTS7000222|invalid_client",
        "set the value (not the id) of a valid client secret in SP_APP_SECRET",
        expired=True,  # az keeps the secret that it was given, which may be an old one
    ),
    Kind(
        r"AADSTS700016|AADSTS700027",
        "check SP_APP_ID and TENANT_ID: that tenant has no such application",
    ),
    Kind(
        r"AADSTS90002|AADSTS900023|Unable to get authority configuration",
        "check TENANT_ID: there is no such tenant",
    ),
    Kind(
        r"AADSTS70021\b|AADSTS7002(11|12|13|14)\d?",
        "give the application a federated credential for this CI job's issuer and subject",
    ),
    Kind(
        r"AADSTS700024|AADSTS700082|AADSTS50173|AADSTS70043|AADSTS50078|AADSTS50076|AADSTS70008"
        r"|ExpiredAuthenticationToken|InvalidAuthenticationToken\b|AuthenticationFailed: .*expired"
        r"|az login|does not exist in MSAL token cache|TokenExpired|not logged in",
        "run `make login`",
        expired=True,
    ),
    Kind(r"AADSTS\d+", "run `make login`; the code says what is wrong"),
    Kind(
        r"No subscriptions found|SubscriptionNotFound|InvalidSubscriptionId",
        lambda line, settings: "check SUBSCRIPTION_ID and TENANT_ID, and that the account has a role there: "
        + assignment(
            settings.SP_APP_ID, "Contributor", f"/subscriptions/{settings.SUBSCRIPTION_ID}"
        ),
    ),
    Kind(
        r"ReadOnlyDisabledSubscription|DisabledSubscription",
        "enable the subscription, or set another SUBSCRIPTION_ID",
    ),
    Kind(r"(SubscriptionNotRegistered|MissingSubscriptionRegistration)", _register),
    Kind(
        r"AuthorizationFailed|LinkedAuthorizationFailed|ForbiddenByRbac|AuthorizationPermissionMismatch"
        r"|does not have (authorization|permission) to perform|not authorized to perform action",
        _assign,
    ),
    Kind(r"RequestDisallowedByPolicy", _policy),
    Kind(
        r"admission webhook .*denied the request",
        "a policy in the cluster forbids it: ask who looks after it to exempt the namespaces "
        "slipway and aks-command",
    ),
    Kind(
        r"ScopeLocked|ReadOnlyLock|CanNotDelete",
        lambda said, settings: f"remove the lock: {line(settings, 'lock list')}, then az lock delete",
    ),
    Kind(r"IsOverQuotaForSku|MaxNumberOfServerFarms", _plan, exit_code=1),
    Kind(
        r"QuotaExceeded|quota|Max\w+Exceeded|CoreQuota|ExceedingQuota",
        "ask for more at https://aka.ms/ProdportalCRP, remove what is not used, or set another LOCATION",
        exit_code=1,
    ),
    Kind(
        r"LocationNotAvailableForResourceType|SkuNotAvailable|LocationNotAvailable|InvalidSkuForRegion"
        r"|NoRegisteredProviderFound.*location|not available in location|CapacityNotAvailable|ServiceUnavailableInRegion"
        r"|AllocationFailed|ZonalAllocationFailed|OverconstrainedAllocation",
        _sku,
    ),
    Kind(
        r"InvalidResourceGroupLocation|InvalidResourceLocation",
        "set LOCATION to where it is already, or another RESOURCE_GROUP and BASE_NAME",
    ),
    Kind(
        r"Soft-deleted workspace exists",
        lambda line, settings: f"purge it: {purge_workspace(settings)}",
    ),
    Kind(r"already exists in deleted state", _deleted),
    Kind(
        r"StorageAccountAlreadyTaken|StorageAccountAlreadyExists|VaultAlreadyExists|AlreadyInUse"
        r"|already in use|RegistryNameUnavailable|NameUnavailable|DnsRecordInUse|is already taken",
        _name,
    ),
    Kind(
        r"MissingApiVersionParameter|unrecognized arguments|is misspelled or not recognized",
        "this az may be too old: see `az version`",
        exit_code=1,
    ),
    Kind(r"Kubernetes(Performance|Operation)Error", ROOM, exit_code=1, passing=True),
    Kind(
        r"Operation returned an invalid status 'OK'",  # it failed, and az tells no reason
        "run the same verb again",
        exit_code=1,
        passing=True,
    ),
    Kind(
        r"TooManyRequests|\b429\b|Throttl|ServerBusy|ServiceUnavailable|\b50[0234]\b|InternalServerError"
        r"|BadGateway|GatewayTimeout|ServiceTimeout|RetryableError|InternalError|OperationTimedOut"
        r"|Connection (aborted|reset|refused|broken)|ConnectionError|ConnectionResetError|RemoteDisconnected"
        r"|Max retries exceeded|Read timed out|ReadTimeout|Failed to establish a new connection"
        r"|Name or service not known|Temporary failure in name resolution|ServiceRequestError"
        r"|cannot reach|ServiceResponseError|IncompleteRead|EOF occurred|Cannot connect to proxy|ProxyError",
        "run the same verb again; if it stays, see https://azure.status.microsoft and your network or proxy",
        exit_code=1,
        passing=True,
    ),
    Kind(
        r"Cannot swap slots",
        "run the same verb again; if it stays, look at the log: make logs",
        exit_code=1,
    ),
    Kind(
        r"DeploymentActive|AnotherOperationInProgress|OperationPreempted|ConflictingOperation"
        r"|ResourceGroupBeingDeleted"
        r"|InProgress|Conflict: .*(in progress|being)|PreconditionFailed",
        "another call works on the same things: run the same verb again when it has ended",
        exit_code=1,
        passing=True,
    ),
    Kind(
        r"^(InvalidResourceType|InvalidResourceNamespace|NoRegisteredProviderFound)\b",
        "this az, or arm/, asks for what Azure does not know: see `az version`",
        exit_code=1,
    ),
    Kind(
        r"PrincipalNotFound",
        "a new identity is not known everywhere at once: run the same verb again in a minute",
        exit_code=1,
        passing=True,
    ),
    Kind(
        r"^(ResourceNotFound|ResourceGroupNotFound|NotFound|DeploymentNotFound|ParentResourceNotFound"
        r"|SecretNotFound|CertificateNotFound|ClusterNotFound|ComputeNotFound|VaultNotFound|SiteNotFound)"
        r"\b|\b404\b|was not found|could not be found|does not exist|Operation returned an invalid status 'Not Found'",
        "run `make provision`, which makes what is missing",
        exit_code=1,
        missing=True,
    ),
)


def explain(what: str, stderr: str, settings: Settings) -> AzureError:
    """What az said on `stderr` when `what`, a command or a resource, failed."""
    code, message = innermost(stderr)
    line = f"{code}: {message}" if code else message
    fits = (kind for kind in KINDS if re.search(kind.pattern, line, re.IGNORECASE | re.DOTALL))
    kind = next(fits, Kind("", exit_code=1))
    mend = kind.mend if isinstance(kind.mend, str) else kind.mend(f"{line}\n{stderr}", settings)
    # What follows the mend says: which policies, as whole objects, and Key Vault's advice.
    shown = re.split(r"\.? Policy identifiers: | If role assignments, deny assignments", line)[0]
    return AzureError(f"{what}: {shown[:600]}", mend, code, kind, stderr)


def command(arguments: Sequence[str]) -> str:
    """The command without its options."""
    count = next((i for i, word in enumerate(arguments) if word.startswith("-")), len(arguments))
    return " ".join(["az", *arguments[:count]])
