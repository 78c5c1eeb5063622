"""What can go wrong with training and with the registry of models."""

from __future__ import annotations

from collections.abc import Sequence

from tests.azure import injuries
from tests.azure.fault import Fault, Hit

MODEL: Sequence[Fault] = (
    Fault(
        "no quota for nodes",
        "the cores of AML_COMPUTE_CLUSTER_CPU_SKU have a quota of 0",
        injuries.no_nodes,
        [
            Hit(
                "train publish-pipeline",
                1,
                "vCPU quota of 0",
                "choose a SKU or region with quota",
                daily="train",
            ),
            Hit(
                "doctor",
                2,
                "TotalLowPriorityCores is 0",
                "ask for more in Azure ML studio (Quota), or choose a SKU, priority or region with quota",
                daily="doctor",
            ),
        ],
    ),
    Fault(
        "no quota for a node",
        "the cluster starts nodes when a run comes, and the quota has no room for one",
        injuries.no_node_for_a_run,
        [
            Hit(
                "train run-pipeline",
                1,
                "has no node: Operation results in exceeding quota limits of Core",
                "choose a SKU or region with quota; the next call starts a new run",
                daily="run-pipeline",
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
        "somebody else is at work",
        "another machine holds the lease",
        injuries.leased,
        [
            Hit("register", 0, "another machine is registering wood; waiting", daily="register"),
            Hit("deploy rollback", 0, "another machine is changing kiln-aci; waiting"),
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
