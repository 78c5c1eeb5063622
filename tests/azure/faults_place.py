"""What can go wrong with Azure itself, and with what `provision` makes there."""

from __future__ import annotations

from collections.abc import Sequence

from tests.azure import injuries
from tests.azure.fault import AGAIN, Fault, Hit

AZURE = "what-if provision destroy"
ML = "train evaluate register publish-pipeline run-pipeline"
DENIED = "RequestDisallowedByPolicy: Resource … was disallowed by policy"
EXEMPT = (
    "az policy exemption create --name slipway --exemption-category Waiver --policy-assignment …"
)
BUSY = "Azure is busy or down for the moment: run the verb again later"

PLACE: Sequence[Fault] = (
    Fault(
        "throttled",
        "Azure answers 429 for a moment",
        injuries.throttled,
        [
            Hit(AZURE, 0, "TooManyRequests: …; trying again in", daily="what-if"),
            Hit("train evaluate register", 0, ""),
        ],
    ),
    Fault(
        "throttled for long",
        "Azure answers 429 to whatever is asked",
        injuries.throttled_for_long,
        [
            Hit("provision destroy", 1, "TooManyRequests", AGAIN),
            Hit("evaluate", 1, "(429)", BUSY, daily="evaluate"),
            Hit("train register publish-pipeline", 1, "(429)", BUSY),
        ],
    ),
    Fault(
        "down",
        "Azure answers 503",
        injuries.down,
        [
            Hit("what-if provision destroy", 1, "ServiceUnavailable", AGAIN, daily="destroy"),
            Hit(ML, 1, "(503)", BUSY),
        ],
    ),
    Fault(
        "slow",
        "each answer takes two seconds longer",
        injuries.slow,
        [Hit("login what-if", 0, "", daily="login"), Hit("evaluate", 0, "")],
    ),
    Fault(
        "token expired",
        "a token that az kept is no longer taken",
        injuries.token_expired,
        [Hit("what-if provision destroy", 0, "signing in to Azure", daily="provision")],
    ),
    Fault(
        "login expired",
        "a person's login has ended, and no one is there to sign in",
        injuries.login_expired,
        [Hit("what-if provision destroy", 2, "AADSTS50173", "run `make login`", daily="what-if")],
    ),
    Fault(
        "wrong secret",
        "SP_APP_SECRET is not the application's",
        injuries.wrong_secret,
        [
            Hit(
                "login what-if provision",
                2,
                "AADSTS7000215: Invalid client secret",
                "set the value (not the id) of a valid client secret in SP_APP_SECRET",
                daily="login",
            )
        ],
    ),
    Fault(
        "secret expired",
        "SP_APP_SECRET is too old",
        injuries.secret_expired,
        [
            Hit(
                "login what-if",
                2,
                "AADSTS7000222: The provided client secret keys",
                "set the value (not the id) of a valid client secret in SP_APP_SECRET",
                daily="login",
            )
        ],
    ),
    Fault(
        "network gone",
        "every connection breaks",
        injuries.network_gone,
        [
            Hit("login what-if provision destroy", 1, "", "your network or proxy", daily="what-if"),
            Hit(ML, 1, "", "check the network and the proxy, then run the verb again"),
        ],
    ),
    Fault(
        "connection broken",
        "a connection breaks now and then",
        injuries.connection_broken,
        [Hit("what-if provision", 0, ""), Hit("train evaluate register", 0, "", daily="register")],
    ),
    Fault(
        "conflict",
        "another deployment is at work in the resource group",
        injuries.conflict,
        [
            Hit(
                "provision",
                0,
                "another provision is at work in this group: waiting for it",
                daily="provision",
            )
        ],
    ),
    Fault(
        "half-way",
        "a deployment fails when half of it is made",
        injuries.half_way,
        [
            Hit(
                "provision",
                1,
                "InternalServerError: Encountered internal server error",
                AGAIN,
                daily="provision",
            )
        ],
    ),
    Fault(
        "role missing",
        "the account may only read",
        injuries.role_missing,
        [
            Hit(
                "what-if provision destroy",
                2,
                "AuthorizationFailed",
                'let an Owner run: az role assignment create --assignee … --role "Contributor"',
            ),
            Hit(
                "doctor",
                2,
                "",
                'az role assignment create --assignee … --role "Contributor"',
                daily="doctor",
            ),
        ],
    ),
    Fault(
        "roles cannot be assigned",
        "the account is Contributor and no more",
        injuries.contributor,
        [
            Hit(
                "provision",
                2,
                "Microsoft.Authorization/roleAssignments/write",
                "let an Owner run: az role assignment create … or set ROLE_ASSIGNMENTS=false",
            ),
            Hit("doctor", 2, "", "ROLE_ASSIGNMENTS=false", daily="doctor"),
        ],
    ),
    Fault(
        "provider not registered",
        "the subscription never used Azure ML",
        injuries.unregistered,
        [
            Hit(
                "provision doctor",
                2,
                "Microsoft.MachineLearningServices",
                "az provider register --namespace Microsoft.MachineLearningServices --wait",
                daily="doctor",
            )
        ],
    ),
    Fault(
        "name taken",
        "another customer has the storage account's name",
        injuries.name_taken,
        [Hit("provision doctor", 2, "already taken", "set another BASE_NAME", daily="doctor")],
    ),
    Fault(
        "deleted vault in the way",
        "a soft-deleted vault of another group has the name",
        injuries.deleted_vault,
        [
            Hit(
                "provision doctor",
                2,
                "deleted",
                "az keyvault purge --name … --location … --subscription …, or set another BASE_NAME",
                daily="doctor",
            )
        ],
    ),
    Fault(
        "deleted workspace in the way",
        "a soft-deleted workspace has the name",
        injuries.deleted_workspace,
        [
            Hit(
                "provision",
                2,
                "Soft-deleted workspace exists",
                "purge it: az rest --method delete --url",
                daily="provision",
            )
        ],
    ),
    Fault(
        "locked",
        "somebody locked the resource group",
        injuries.locked,
        [
            Hit(
                "destroy",
                2,
                "ScopeLocked",
                "remove the lock: az lock list --subscription …, then az lock delete",
                daily="destroy",
            )
        ],
    ),
    Fault(
        "policy denies",
        "a policy of the company's denies types of resources",
        injuries.policy_denies,
        [
            Hit("provision", 2, DENIED, EXEMPT, daily="provision"),
            Hit("deploy deploy-webapp", 2, f"{DENIED}; … serves on", EXEMPT, daily="deploy"),
        ],
    ),
    Fault(
        "storage quota",
        "the region has no room for another storage account",
        injuries.storage_quota,
        [Hit("provision", 1, "MaxStorageAccountsCount", "set another LOCATION", daily="provision")],
    ),
)
