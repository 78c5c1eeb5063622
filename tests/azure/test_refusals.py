"""What az prints of an error, and the line a user gets: texts as Azure and az write them."""

from __future__ import annotations

import pytest

from scripts.platforms.azure.az import environment
from scripts.platforms.azure.refusals import explain
from scripts.settings import Settings

SUBSCRIPTION = "22222222-2222-4222-8222-222222222222"
SETTINGS = Settings.model_validate(
    {
        "PLATFORM": "azure",
        "SUBSCRIPTION_ID": SUBSCRIPTION,
        "BASE_NAME": "kiln",
        "LOCATION": "westeurope",
    }
)
GROUP = f"/subscriptions/{SUBSCRIPTION}/resourceGroups/kiln-AML-RG"
POLICY = (
    f"/subscriptions/{SUBSCRIPTION}/providers/Microsoft.Authorization/policyAssignments/35ee869489"
)

FORBIDDEN = (
    "ERROR: (AuthorizationFailed) The client 'app' with object id '333' does not have authorization to "
    "perform action '{action}' over scope '{scope}' or the scope is invalid. If access was recently "
    "granted, please refresh your credentials.\nCode: AuthorizationFailed\nMessage: The client ..."
)
CASES = {
    "wrong secret": (
        "ERROR: AADSTS7000215: Invalid client secret provided. Ensure the secret being sent in the request "
        "is the client secret value, not the client secret ID. Trace ID: 1 Correlation ID: 2 Timestamp: 3\n"
        "The error may be caused by passing a service principal certificate with --password.",
        "AADSTS7000215",
        "SP_APP_SECRET",
        2,
    ),
    "login expired": (
        "ERROR: AADSTS700082: The refresh token has expired due to inactivity.\nRun the command below",
        "AADSTS700082",
        "make login",
        2,
    ),
    "nobody": ("ERROR: Please run 'az login' to setup account.", "", "make login", 2),
    "role": (
        FORBIDDEN.format(
            action="Microsoft.Storage/storageAccounts/write",
            scope=f"{GROUP}/providers/Microsoft.Storage/storageAccounts/kilnamlsa",
        ),
        "AuthorizationFailed",
        f'az role assignment create --assignee 333 --role "Contributor" --scope {GROUP}',
        2,
    ),
    "owner": (
        FORBIDDEN.format(action="Microsoft.Authorization/roleAssignments/write", scope=GROUP),
        "AuthorizationFailed",
        "ROLE_ASSIGNMENTS=false",
        2,
    ),
    "another region": (
        "ERROR: (InvalidResourceLocation) The resource 'kiln-ws' already exists in location 'centralus' in "
        "resource group 'kiln-AML-RG'. A resource with the same name cannot be created in location "
        "'westeurope'. Please select a new resource name.\nCode: InvalidResourceLocation",
        "InvalidResourceLocation",
        "set LOCATION to where it is already",
        2,
    ),
    "vault": (
        "ERROR: (Forbidden) Caller is not authorized to perform action on resource.\r\nIf role assignments, "
        "deny assignments or role definitions were changed recently, please observe propagation time.\r\n"
        "Caller: appid=44;oid=555;iss=https://sts.windows.net/1/\r\n"
        "Action: 'Microsoft.KeyVault/vaults/secrets/getSecret/action'\r\n"
        f"Resource: '{GROUP.lower()}/providers/microsoft.keyvault/vaults/kiln-aml-kv/secrets/scoring-key'\r\n"
        "Assignment: (not found)\r\nDecisionReason: null \r\nVault: kiln-AML-KV;location=westeurope\r\n\n"
        "Code: Forbidden\nMessage: Caller is not authorized to perform action on resource.\r\n"
        'Inner error: {\n    "code": "ForbiddenByRbac"\n}',
        "ForbiddenByRbac: Caller is not authorized to perform action on resource.",
        "run `make provision`, which gives that role, or let an Owner run: az role assignment create "
        '--assignee 555 --role "Key Vault Secrets Officer" '
        f"--scope {GROUP.lower()}/providers/microsoft.keyvault/vaults/kiln-aml-kv",
        2,
    ),
    "provider": (
        "ERROR: (MissingSubscriptionRegistration) The subscription is not registered to use namespace "
        "'Microsoft.MachineLearningServices'. See https://aka.ms/rps-not-found for how to register "
        "subscriptions.\nCode: MissingSubscriptionRegistration",
        "MissingSubscriptionRegistration",
        f"az provider register --namespace Microsoft.MachineLearningServices --wait --subscription {SUBSCRIPTION}",
        2,
    ),
    "preflight": (
        "ERROR: InvalidTemplateDeployment - The template deployment 'slipway' is not valid according to the "
        "validation procedure.\nStorageAccountAlreadyTaken - The storage account named kilnamlsa is already "
        "taken.",
        "StorageAccountAlreadyTaken",
        "set another BASE_NAME than kiln",
        2,
    ),
    "half-way": (
        'ERROR: {"status":"Failed","error":{"code":"DeploymentFailed","target":"x","message":"At least one '
        'resource deployment operation failed.","details":[{"code":"Conflict","message":"{\\"error\\":'
        '{\\"code\\":\\"QuotaExceeded\\",\\"message\\":\\"No cores left.\\"}}"}]}}',
        "QuotaExceeded",
        "LOCATION",
        1,
    ),
    "inner errors": (
        'ERROR: {"code": "InvalidTemplateDeployment", "message": "Not valid."}\n\nInner Errors: \n'
        '{"code": "LocationNotAvailableForResourceType", "message": "The provided location is not available."}',
        "LocationNotAvailableForResourceType",
        "set another LOCATION than westeurope",
        2,
    ),
    "no room for a group": (
        'ERROR: {"code": "SkuNotAvailable", "message": "The requested tier is currently not available."}',
        "SkuNotAvailable",
        "or less than DEPLOY_CPU=1 and DEPLOY_MEMORY_GB=1.5",
        2,
    ),
    "no room for a plan": (
        'ERROR: {"code": "SkuNotAvailable", "message": "The requested tier for resource '
        "'/subscriptions/s/resourceGroups/g/providers/Microsoft.Web/serverFarms/kiln-plan' is currently not "
        'available in location westeurope."}',
        "SkuNotAvailable",
        "another WEBAPP_SKU than P0v3",
        2,
    ),
    "policy on a template": (
        'ERROR: {"code": "InvalidTemplateDeployment", "message": "The template deployment failed because of '
        'policy violation. Please see details for more information."}\n\nInner Errors: \n'
        '{"code": "RequestDisallowedByPolicy", "target": "kilnamlsa", "message": "Resource \'kilnamlsa\' was '
        'disallowed by policy. Policy identifiers: \'[{\\"policyAssignment\\":{\\"name\\":\\"Not allowed\\",'
        f'\\"id\\":\\"{POLICY}\\"}}}}]\'.", "additionalInfo": '
        '[{"type": "PolicyViolation", "info": {"policyDefinitionEffect": "deny"}}]}',
        "RequestDisallowedByPolicy",
        f"--policy-assignment {POLICY} --resource-group kiln-AML-RG",
        2,
    ),
    "policy with a reason": (
        "ERROR: (RequestDisallowedByPolicy) Resource 'kiln-AML-RG' was disallowed by policy. Reasons: 'CostCenter "
        "tag is required.'. See error details for policy resource IDs.\nCode: RequestDisallowedByPolicy\n"
        "Message: Resource 'kiln-AML-RG' was disallowed by policy.\nTarget: kiln-AML-RG\nAdditional "
        f'Information:Type: PolicyViolation\nInfo: {{\n    "policyAssignmentId": "{POLICY}"\n}}',
        "RequestDisallowedByPolicy",
        f"--policy-assignment {POLICY} --resource-group kiln-AML-RG",
        2,
    ),
    "policy in the cluster": (
        "ERROR: (KubernetesOperationError) Failed to run command in managed cluster due to kubernetes failure. "
        'details: admission webhook "validation.gatekeeper.sh" denied the request: no read-only root\n'
        "Code: KubernetesOperationError",
        "KubernetesOperationError",
        "exempt the namespaces slipway and aks-command",
        2,
    ),
    "no room for a command": (
        "ERROR: (KubernetesPerformanceError) Pod is not schedulable: Insufficient resources for the RunCommand "
        "pod. Consider adjusting AutoScaler settings or manually scaling the cluster.\n"
        "Code: KubernetesPerformanceError",
        "KubernetesPerformanceError",
        "give the cluster another node",
        1,
    ),
    "no plan": (
        'ERROR: {"code": "InvalidTemplateDeployment", "message": "Not valid."}\n\nInner Errors: \n'
        '{"code": "ValidationForResourceFailed", "message": "Validation failed for a resource."}\n\nInner '
        'Errors: \n{"code": "SubscriptionIsOverQuotaForSku", "message": "Operation cannot be completed without '
        'additional quota. \\r\\nAdditional details - Location:  \\r\\nCurrent Limit (PremiumV3 VMs): 0"}',
        "SubscriptionIsOverQuotaForSku",
        "set another WEBAPP_SKU than P0v3",
        1,
    ),
    "deleted vault": (
        'ERROR: {"code": "ConflictError", "message": "A vault with the same name already exists in deleted '
        'state. You need to either recover or purge existing key vault."}',
        "ConflictError",
        "az keyvault recover --name kiln-AML-KV --location westeurope --resource-group kiln-AML-RG "
        f"--subscription {SUBSCRIPTION}",
        2,
    ),
    "group on its way out": (
        "ERROR: (ResourceGroupBeingDeleted) The resource group 'kiln-AML-RG' is in deprovisioning state and "
        "cannot perform this operation.\nCode: ResourceGroupBeingDeleted",
        "ResourceGroupBeingDeleted",
        "run the same verb again when it has ended",
        1,
    ),
    "throttled": (
        "ERROR: (TooManyRequests) The request is being throttled.\nCode: TooManyRequests",
        "TooManyRequests",
        "again",
        1,
    ),
    "network": (
        "ERROR: HTTPSConnectionPool(host='management.azure.com', port=443): Max retries exceeded with url: / "
        "(Caused by NameResolutionError: Temporary failure in name resolution)",
        "",
        "network",
        1,
    ),
    "az's own traceback": (
        "ERROR: The command failed with an unexpected error. Here is the traceback:\n"
        "HTTPSConnectionPool(host='login.microsoftonline.com', port=443): Max retries exceeded with url: /x "
        "(Caused by ProxyError('Unable to connect to proxy', RemoteDisconnected('Remote end closed "
        'connection without response\')))\nTraceback (most recent call last):\n  File "a.py", line 1',
        "",
        "network",
        1,
    ),
}
PASSING = (
    *("no room for a command", "group on its way out"),
    *("throttled", "network", "az's own traceback"),
)


@pytest.mark.parametrize("case", CASES)
def test_an_error_is_one_line_with_its_mend(case: str) -> None:
    text, code, mend, exit_code = CASES[case]
    error = explain("az group create", text, SETTINGS)
    assert error.code == code.partition(":")[0]
    assert error.message.startswith(f"az group create: {code}")
    assert "\n" not in error.message
    assert mend in error.mend
    assert "/secrets/" not in error.mend
    assert error.exit_code == exit_code
    assert error.passing == (case in PASSING)
    assert error.expired == (case in ("wrong secret", "login expired", "nobody"))


def test_the_network_is_told_in_a_few_words() -> None:
    error = explain("az login", CASES["az's own traceback"][0], SETTINGS)
    said = "cannot reach login.microsoftonline.com: Remote end closed connection without response"
    assert error.message == f"az login: {said}"


def test_a_policy_is_told_without_the_objects_that_name_it() -> None:
    error = explain("az group create", CASES["policy on a template"][0], SETTINGS)
    said = "RequestDisallowedByPolicy: Resource 'kilnamlsa' was disallowed by policy"
    assert error.message == f"az group create: {said}"


def test_what_is_not_there_can_be_told_from_a_failure() -> None:
    text = "ERROR: (ResourceGroupNotFound) Resource group 'x' could not be found.\nCode: ResourceGroupNotFound"
    assert explain("az group show", text, SETTINGS).missing
    assert not explain("az group show", CASES["role"][0], SETTINGS).missing


def test_az_gets_no_secret_and_no_default_that_changes_a_command() -> None:
    around = {
        "PATH": "/bin",
        "SP_APP_SECRET": "a",
        "SCORING_KEY": "b",
        "AZURE_DEFAULTS_GROUP": "other",
        "AZURE_CORE_OUTPUT": "table",
        "AZURE_CONFIG_DIR": "/home/me/.azure",
        "SYSTEM_ACCESSTOKEN": "c",
        "ACTIONS_ID_TOKEN_REQUEST_TOKEN": "d",
        "PYTHONPATH": "/somewhere",
    }
    got = environment(around)
    assert got["PATH"] == "/bin"
    assert got["AZURE_CONFIG_DIR"] == "/home/me/.azure"
    assert {*around} & {*got} == {"PATH", "AZURE_CONFIG_DIR"}
    assert got["AZURE_CORE_COLLECT_TELEMETRY"] == "no"
