"""The table of faults: what can go wrong on Azure, which verbs it can hit, and what a user then sees.

docs/azure.md ("What can go wrong") shows this table; test_faults.py makes each fault happen to each of its
verbs. In `says` and `mend` "…" stands for any text.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

from tests.azure import injuries
from tests.azure.bench import Bench


@dataclass(frozen=True)
class Hit:
    """Verbs that a fault hits alike; `code` 0 means that they ride it out, and `says` tells the wait.

    The verbs in `daily` are tested in every CI run, the others by `make test-full`.
    """

    verbs: str
    code: int
    says: str
    mend: str = ""
    daily: str = ""


@dataclass(frozen=True)
class Fault:
    """One fault: `inject` makes it happen until the bench is mended."""

    name: str
    sentence: str
    inject: Callable[[Bench], None]
    hits: Sequence[Hit]


AGAIN = "run the same verb again"
AZURE = "what-if provision destroy"
ML = "train evaluate register publish-pipeline run-pipeline"
BUSY = "Azure is busy or down for the moment: run the verb again later"

FAULTS: Sequence[Fault] = (
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
                "az keyvault purge --name … --location …, or set another BASE_NAME",
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
                "remove the lock: az lock list, then az lock delete",
                daily="destroy",
            )
        ],
    ),
    Fault(
        "storage quota",
        "the region has no room for another storage account",
        injuries.storage_quota,
        [Hit("provision", 1, "MaxStorageAccountsCount", "set another LOCATION", daily="provision")],
    ),
    Fault(
        "no quota for nodes",
        "the family of AML_COMPUTE_CLUSTER_CPU_SKU has a quota of 0",
        injuries.no_nodes,
        [
            Hit(
                "train publish-pipeline",
                1,
                "vCPU quota of 0",
                "choose a SKU or region with quota",
                daily="train",
            )
        ],
    ),
    Fault(
        "run fails",
        "the node stops responding",
        injuries.run_fails,
        [
            Hit(
                "train",
                1,
                "JobNodeLost: the node stopped responding",
                "then run `make train` again",
                daily="train",
            ),
            Hit("run-pipeline", 1, "failed", "then run `make run-pipeline` again"),
        ],
    ),
    Fault(
        "run cancelled",
        "somebody cancels the run in the portal",
        injuries.run_cancelled,
        [
            Hit("train", 1, "was cancelled", "run `make train` again, which starts a new one"),
            Hit(
                "run-pipeline",
                1,
                "was cancelled",
                "run `make run-pipeline` again, which starts a new one",
                daily="run-pipeline",
            ),
        ],
    ),
    Fault(
        "node preempted",
        "a low priority node is taken away while it trains",
        injuries.preempted,
        [Hit("train", 0, "waiting for a node of the cluster", daily="train")],
    ),
    Fault(
        "code refused",
        "the submitted folder is too large",
        injuries.code_refused,
        [
            Hit(
                "train publish-pipeline",
                2,
                "The snapshot exceeds the limit",
                "move large files out of model/",
                daily="publish-pipeline",
            )
        ],
    ),
    Fault(
        "upload broken",
        "the connection breaks in the middle of the upload of the code",
        injuries.upload_broken,
        [Hit("train", 0, "", daily="train")],
    ),
    Fault(
        "download broken",
        "the connection breaks while the trained model is fetched",
        injuries.download_broken,
        [Hit("evaluate", 0, "", daily="evaluate")],
    ),
    Fault(
        "somebody else registers",
        "another machine holds the lease",
        injuries.leased,
        [Hit("register", 0, "another machine is registering wood; waiting", daily="register")],
    ),
    Fault(
        "registry refuses",
        "the account has no role on the registry",
        injuries.registry_denies,
        [
            Hit(
                "image",
                2,
                "",
                "az role assignment create --role AcrPush --assignee … --scope …",
                daily="image",
            )
        ],
    ),
    Fault(
        "push broken",
        "the registry's connection breaks while an image is pushed",
        injuries.push_broken,
        [Hit("image", 1, "the registry kiln42amlcr.azurecr.io", "try again", daily="image")],
    ),
    Fault(
        "build fails",
        "the registry's own build fails (where there is no Docker engine)",
        injuries.build_fails,
        [Hit("image", 1, "building the scoring image … The end of its log:", "", "image")],
    ),
    Fault(
        "no capacity",
        "the region has no room for a container group",
        injuries.no_capacity,
        [
            Hit(
                "deploy rollback",
                1,
                "The requested resource is not available … was put back and serves",
                AGAIN,
                daily="rollback",
            )
        ],
    ),
    Fault(
        "cores used up",
        "the subscription's quota of cores in the region is used up",
        injuries.cores_used_up,
        [Hit("deploy", 1, "quota", "ask for more", daily="deploy")],
    ),
    Fault(
        "image cannot be pulled",
        "the pull of the image fails",
        injuries.cannot_pull,
        [Hit("deploy", 1, "Failed to pull image … was put back and serves", AGAIN, daily="deploy")],
    ),
    Fault(
        "container crashes",
        "the container ends as soon as it starts",
        injuries.crashes,
        [Hit("deploy", 1, "was put back and serves", "mend what the log says", daily="deploy")],
    ),
    Fault(
        "app's image cannot be pulled",
        "the registry does not answer App Service",
        injuries.trouble("web app image cannot be pulled"),
        [Hit("deploy-webapp", 1, "serves on", "run the verb again", daily="deploy-webapp")],
    ),
    Fault(
        "app crashes",
        "the container ends as soon as it starts",
        injuries.trouble("web app crashes"),
        [Hit("deploy-webapp", 1, "serves on", "run the verb again", daily="deploy-webapp")],
    ),
    Fault(
        "slot swap fails",
        "the slot does not answer while it is swapped",
        injuries.trouble("slot swap fails"),
        [Hit("deploy-webapp", 1, "serves on", AGAIN, daily="deploy-webapp")],
    ),
    Fault(
        "rollout does not finish",
        "the new pod ends as soon as it starts",
        injuries.trouble("pod crashes"),
        [Hit("deploy-aks", 1, "serves on", "again", daily="deploy-aks")],
    ),
    Fault(
        "service gone",
        "the service breaks every connection",
        injuries.service_gone,
        [
            Hit("smoke", 1, "does not answer", "`make deploy FORCE=1`", daily="smoke"),
            Hit("load", 1, "", ""),
        ],
    ),
    Fault(
        "service slow",
        "each answer of the service takes a second longer than LOAD_P95_MS allows",
        injuries.service_slow,
        [Hit("load", 3, "LOAD_P95_MS", "mend the service, or set objectives", daily="load")],
    ),
    Fault(
        "Azure gone",
        "ARM breaks every connection; the service itself answers",
        injuries.arm_gone,
        [
            Hit(
                "deploy smoke load logs rollback",
                1,
                "cannot reach Azure",
                "your network or proxy",
                daily="logs",
            ),
            Hit("status", 0, "cannot be read: az container show: cannot reach", daily="status"),
        ],
    ),
    Fault(
        "workspace token refused",
        "Azure ML takes the token no more",
        injuries.workspace_token,
        [
            Hit(
                "train evaluate register",
                1,
                "Azure ML says",
                "run `make login`",
                daily="evaluate",
            )
        ],
    ),
)


def pairs() -> Iterator[tuple[Fault, Hit, str]]:
    """Each fault with each verb it hits."""
    for fault in FAULTS:
        for hit in fault.hits:
            for verb in hit.verbs.split():
                yield fault, hit, verb


def holds(text: str, wanted: str) -> bool:
    """Whether the text has what is wanted, "…" being anything within a few lines."""
    pattern = ".*?".join(re.escape(part.strip()) for part in wanted.split("…"))
    return re.search(pattern, text, re.DOTALL) is not None


def page() -> str:
    """The table as docs/azure.md has it."""
    lines = ["| fault | verbs | code | the message | the mend |", "| --- | --- | --- | --- | --- |"]
    for fault in FAULTS:
        named = f"**{fault.name}**: {fault.sentence}"
        for hit in fault.hits:
            verbs = " ".join(f"`{verb}`" for verb in hit.verbs.split())
            verbs = re.sub(r"`deploy-(\w+)`", r"`deploy` (\1)", verbs)
            says = f"`{hit.says}`" if hit.says else ""
            if hit.code == 0:
                says, mend = says or "none", "none: it goes on by itself"
            else:
                mend = hit.mend.replace("|", "\\|")
            lines.append(f"| {named} | {verbs} | {hit.code} | {says} | {mend} |")
            named = ""
    return "\n".join(lines)
