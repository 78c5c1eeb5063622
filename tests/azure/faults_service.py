"""What can go wrong with images and with the deployed service."""

from __future__ import annotations

from collections.abc import Sequence

from tests.azure import injuries
from tests.azure.fault import AGAIN, Fault, Hit

SERVICE: Sequence[Fault] = (
    Fault(
        "registry refuses",
        "the account has no role on the registry",
        injuries.registry_denies,
        [
            Hit(
                "image",
                2,
                "",
                'let an Owner run: az role assignment create --assignee … --role "AcrPush" --scope …',
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
        "no quota for the plan",
        "App Service gives the subscription no plan of WEBAPP_SKU",
        injuries.no_plan,
        [
            Hit(
                "deploy-webapp",
                1,
                "SubscriptionIsOverQuotaForSku: Operation cannot be completed … serves on",
                "ask for more (https://aka.ms/antquotahelp), or set another WEBAPP_SKU",
                daily="deploy-webapp",
            )
        ],
    ),
    Fault(
        "cluster may not pull",
        "the cluster's identity has no role on the registry",
        injuries.kubelet_without_role,
        [
            Hit(
                "deploy-aks",
                1,
                "ImagePullBackOff (401 Unauthorized) … serves on",
                "let an Owner allow the cluster to pull: az aks update … --attach-acr …",
                daily="deploy-aks",
            )
        ],
    ),
    Fault(
        "no room on the nodes",
        "no node of the cluster has room for another pod",
        injuries.trouble("no node capacity"),
        [
            Hit(
                "deploy-aks",
                1,
                "nodes are available: … Insufficient cpu … serves on",
                "give the cluster more nodes (az aks scale …) or set a smaller DEPLOY_CPU",
                daily="deploy-aks",
            )
        ],
    ),
    Fault(
        "cluster stopped",
        "somebody stopped the cluster",
        injuries.cluster_stopped,
        [
            Hit(
                "deploy-aks",
                1,
                "the cluster kubernetes is stopped",
                "start it: az aks start --resource-group … --name …",
                daily="deploy-aks",
            )
        ],
    ),
    Fault(
        "command not run",
        "the pod that `az aks command invoke` runs a command in does not start",
        injuries.trouble("command pod does not start"),
        [
            Hit(
                "deploy-aks",
                1,
                "KubernetesPerformanceError: Failed to run command",
                f"{AGAIN}; if it stays, give the cluster another node",
                daily="deploy-aks",
            )
        ],
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
            Hit("deploy", 1, "", "check the network and the proxy, then run the verb again"),
            Hit(
                "smoke load logs rollback",
                1,
                "cannot reach Azure",
                "your network or proxy",
                daily="logs",
            ),
            Hit("status", 0, "cannot be read: az container show: cannot reach", daily="status"),
        ],
    ),
)
