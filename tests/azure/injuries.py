"""How each fault of the table is made to happen, until the bench is mended."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

from tests.azure.bench import Bench
from tests.azure.standin import policy, providers, storage, taken, vaults
from tests.azure.standin.access import ASSIGNMENT
from tests.azure.standin.aks import clusters
from tests.azure.standin.arm import LOCK
from tests.azure.standin.deployments import HALF
from tests.azure.standin.faults import Fault, Faults
from tests.azure.standin.messages import Answer, Refused, Request
from tests.azure.standin.ml import jobs, snapshots
from tests.azure.standin.ml.compute import COMPUTES, NO_QUOTA
from tests.azure.standin.resources import of_type
from tests.azure.standin.world import SUBSCRIPTION

#: All of ARM and of the workspace's services; blobs and sign-in are other hosts.
AZURE = r"https://(management\.azure\.com|[\w-]+\.(api|experiments)\.azureml\.(ms|net))/"
EVER = 1_000_000

BUSY = Refused(
    429, "TooManyRequests", "The request is being throttled.", headers={"Retry-After": "1"}
)
DOWN = Refused(503, "ServiceUnavailable", "The service is temporarily unavailable.")
EXPIRED = Refused(
    401,
    "ExpiredAuthenticationToken",
    "The access token expiry UTC time is earlier than current UTC time.",
)


def throttled(bench: Bench) -> None:
    # az itself asks four times before it gives up.
    bench.faults.add(Fault(AZURE, BUSY, times=5))


def throttled_for_long(bench: Bench) -> None:
    bench.faults.add(Fault(AZURE, BUSY, times=EVER))


def down(bench: Bench) -> None:
    bench.faults.add(Fault(AZURE, DOWN, times=EVER))


def slow(bench: Bench) -> None:
    bench.faults.add(Fault("https://", delay=2.0, times=EVER))


def token_expired(bench: Bench) -> None:
    bench.faults.add(Fault(r"https://management\.azure\.com/", EXPIRED, times=1))


def login_expired(bench: Bench) -> None:
    """A person signed in, and the login was then revoked."""
    bench.sign_in_as_person()
    bench.forget_tokens()
    bench.faults.trouble("refresh token revoked")


def wrong_secret(bench: Bench) -> None:
    bench.sign_out()
    bench.set(SP_APP_SECRET="not-the-secret-at-all")


def secret_expired(bench: Bench) -> None:
    bench.sign_out()
    bench.faults.trouble("secret expired")


def network_gone(bench: Bench) -> None:
    bench.faults.add(Fault("https://", breaks=True, times=EVER))


def connection_broken(bench: Bench) -> None:
    for _ in range(3):
        bench.faults.add(Fault("GET " + AZURE, breaks=True, times=1))


def conflict(bench: Bench) -> None:
    # az cannot read this answer, so what is at work is asked for.
    message = "Unable to edit or replace deployment 'slipway': previous deployment is still active."
    busy = Refused(409, "DeploymentActive", message)
    active = {"name": "slipway", "properties": {"provisioningState": "Running"}}
    bench.faults.add(Fault("PUT .*/deployments/slipway", busy, times=1))
    bench.faults.add(Fault("GET .*/deployments/slipway", Answer(200, active), times=1))


def half_way(bench: Bench) -> None:
    bench.faults.trouble(HALF)


def role_missing(bench: Bench) -> None:
    bench.may_only("Reader")


def contributor(bench: Bench) -> None:
    bench.may_only("Contributor")


def unregistered(bench: Bench) -> None:
    name = "microsoft.machinelearningservices"
    providers.unregistered(bench.world).add(name)
    bench.undo.append(lambda: providers.unregistered(bench.world).discard(name))


def name_taken(bench: Bench) -> None:
    kind, name = "Microsoft.Storage/storageAccounts", f"{base(bench).lower()}amlsa"
    taken.take(bench.world, kind, name)
    bench.undo.append(lambda: taken.release(bench.world, kind, name))


def deleted_vault(bench: Bench) -> None:
    """As another group's vault left it."""
    name = f"{base(bench)}-AML-KV"
    group = f"/subscriptions/{SUBSCRIPTION}/resourceGroups/another"
    vault = f"{group}/providers/Microsoft.KeyVault/vaults/{name}"
    vaults.leave_deleted(bench.world, vault, "westeurope", {})
    key = f"vault/{name.lower()}"
    bench.undo.append(lambda: bench.world.deleted.pop(key, None))


def deleted_workspace(bench: Bench) -> None:
    name = bench.settings["WORKSPACE_NAME"]
    group = f"/subscriptions/{SUBSCRIPTION}/resourceGroups/{base(bench)}-AML-RG"
    made = f"{group}/providers/Microsoft.MachineLearningServices/workspaces/{name}"
    key = f"workspace/{made.lower()}"
    bench.world.deleted[key] = {"id": made, "name": name, "properties": {}}
    bench.undo.append(lambda: bench.world.deleted.pop(key, None))


def locked(bench: Bench) -> None:
    group = f"/subscriptions/{SUBSCRIPTION}/resourceGroups/{base(bench)}-AML-RG"
    made = f"{group}/providers/{LOCK}/keep"
    properties = {"level": "CanNotDelete"}
    lock = {"id": made, "name": "keep", "type": LOCK, "properties": properties}
    bench.world.resources[made.lower()] = lock
    bench.undo.append(lambda: bench.world.resources.pop(made.lower(), None))


def policy_denies(bench: Bench) -> None:
    types = policy.denied(bench.world)
    types.update(
        {
            "microsoft.storage/storageaccounts",
            "microsoft.containerinstance/containergroups",
            "microsoft.web/sites/slots",
        }
    )
    bench.undo.append(types.clear)


def storage_quota(bench: Bench) -> None:
    bench.faults.trouble(storage.QUOTA)


def no_nodes(bench: Bench) -> None:
    bench.faults.trouble(NO_QUOTA)
    name = f"cluster-{next(bench.numbers)}"
    bench.set(AML_COMPUTE_CLUSTER_NAME=name, AML_CLUSTER_MIN_NODES="1")


def no_node_for_a_run(bench: Bench) -> None:
    """No cluster gets a node, new or not; it is asked why sooner than at work."""
    no_nodes(bench)
    bench.set(AML_CLUSTER_MIN_NODES="0")
    for compute in of_type(bench.world, COMPUTES):
        compute["_no_quota"] = True
        bench.undo.append(partial(compute.pop, "_no_quota"))
    module = bench.clone.path / "scripts" / "platforms" / "azure" / "streaming.py"
    code = module.read_text()
    module.write_text(code.replace("QUEUED = 60.0", "QUEUED = 2.0"))
    bench.undo.append(lambda: module.write_text(code))


def run_fails(bench: Bench) -> None:
    bench.faults.trouble(jobs.FAILS, 1)


def run_cancelled(bench: Bench) -> None:
    bench.faults.trouble(jobs.CANCELLED, 1)


def preempted(bench: Bench) -> None:
    bench.faults.trouble(jobs.PREEMPTED, 1)


def changed_code(bench: Bench) -> None:
    """What is submitted was not uploaded before."""
    file = bench.clone.path / "model" / f"note_{next(bench.numbers)}.py"
    file.write_text('"""Nothing."""\n')
    bench.undo.append(file.unlink)


def code_refused(bench: Bench) -> None:
    changed_code(bench)
    bench.faults.trouble(snapshots.LARGE)


def upload_broken(bench: Bench) -> None:
    changed_code(bench)
    where = r"(PUT|POST) https://([\w-]+\.blob\.core\.windows\.net|.*/content/|.*/snapshots)"
    bench.faults.add(Fault(where, breaks=True, times=2))


def download_broken(bench: Bench) -> None:
    where = r"GET https://[\w-]+\.blob\.core\.windows\.net"
    bench.faults.add(Fault(where, breaks=True, times=1))


def lease_held(faults: Faults) -> None:
    """Another machine holds whatever lease is asked for, for a moment."""
    body = (
        "<?xml version='1.0' encoding='utf-8'?><Error><Code>LeaseAlreadyPresent</Code>"
        "<Message>There is already a lease present.</Message></Error>"
    )
    held = Answer(
        409, body, {"x-ms-error-code": "LeaseAlreadyPresent", "Content-Type": "application/xml"}
    )
    faults.add(Fault("PUT .*/leases/.*comp=lease", held, times=2))


def leased(bench: Bench) -> None:
    lease_held(bench.faults)


def registry_denies(bench: Bench) -> None:
    bench.faults.trouble("registry denies")


def push_broken(bench: Bench) -> None:
    bench.faults.add(
        Fault(r"(POST|PUT|PATCH) https://\w+\.azurecr\.io/v2", breaks=True, times=EVER)
    )


def build_fails(bench: Bench) -> None:
    bench.around["SLIPWAY_ENGINE"] = "none"
    bench.undo.append(bench.around.clear)
    bench.faults.trouble("acr build fails")


@dataclass
class After(Fault):
    """Lets `times` requests pass, and calls when the next one comes."""

    call: Callable[[], None] = lambda: None

    def hit(self, request: Request) -> bool:
        if re.search(self.pattern, f"{request.method} {request.url}"):
            self.hits += 1
            if self.hits == self.times + 1:
                self.call()
        return False


def until_put_back(faults: Faults, trouble: str, tries: int) -> None:
    """What is new meets trouble, as often as it is tried; what it replaced does not."""
    faults.trouble(trouble)
    over = partial(faults.trouble, trouble, 0)
    faults.add(After("PUT .*/deployments/slipway-kiln-aci$", times=tries, call=over))


def no_capacity(bench: Bench) -> None:
    until_put_back(bench.faults, "aci has no capacity", tries=4)


def cores_used_up(bench: Bench) -> None:
    bench.faults.trouble("aci quota exceeded", 1)


def cannot_pull(bench: Bench) -> None:
    until_put_back(bench.faults, "aci cannot pull", tries=4)


def crashes(bench: Bench) -> None:
    until_put_back(bench.faults, "aci container crashes", tries=1)


def no_plan(bench: Bench) -> None:
    bench.faults.trouble("no App Service quota")
    bench.around["WEBAPP_SKU"] = "P1v3"
    bench.undo.append(bench.around.clear)


def kubelet_without_role(bench: Bench) -> None:
    kubelets = {cluster.kubelet.object_id for cluster in clusters(bench.world).values()}
    held = {
        key: value
        for key, value in bench.world.resources.items()
        if value["type"] == ASSIGNMENT and value["properties"]["principalId"] in kubelets
    }
    assert held
    for key in held:
        del bench.world.resources[key]
    bench.undo.append(lambda: bench.world.resources.update(held))


def cluster_stopped(bench: Bench) -> None:
    """Its pods run on, which no verb that fails can see."""
    for cluster in clusters(bench.world).values():
        cluster.stopped = True

    def start() -> None:
        for cluster in clusters(bench.world).values():
            cluster.stopped = False

    bench.undo.append(start)


def trouble(name: str) -> Callable[[Bench], None]:
    """A trouble of the stand-in's, by its name."""
    return lambda bench: bench.faults.trouble(name)


def service_gone(bench: Bench) -> None:
    bench.faults.add(Fault(r"POST https://[\w.-]+\.azurecontainer\.io", breaks=True, times=EVER))


def service_slow(bench: Bench) -> None:
    bench.faults.add(Fault(r"POST https://[\w.-]+\.azurecontainer\.io", delay=6.0, times=EVER))


def arm_gone(bench: Bench) -> None:
    bench.faults.add(Fault(r"https://management\.azure\.com/", breaks=True, times=EVER))


def workspace_token(bench: Bench) -> None:
    bench.faults.add(Fault(r"https://[\w-]+\.api\.azureml\.ms/", EXPIRED, times=EVER))


def base(bench: Bench) -> str:
    return bench.settings["BASE_NAME"]
