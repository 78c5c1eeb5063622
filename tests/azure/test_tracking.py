"""Runs and the registry on Azure ML, through azureml-core with az's login."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from tests.azure.conftest import AzureClone
from tests.azure.ml_clone import make_ml_clone
from tests.azure.standin.faults import Fault
from tests.azure.standin.messages import Answer, Refused
from tests.azure.standin.standin import StandIn

pytestmark = pytest.mark.azure

BEGIN = """
import json, sys
from pathlib import Path
from scripts.errors import SlipwayError
from scripts.platforms import connect
from scripts.settings import load_settings

root = Path.cwd()
tracking = connect(root, load_settings(root)).tracking
"""
RUN = """
run_id = tracking.start_run("kiln", {"BuildId": "41"})
tracking.log(run_id, parameters={"alpha": 0.5}, metrics={"holdout_mae": 1.25})
folder = root / "made" / "deep"
folder.mkdir(parents=True, exist_ok=True)
(folder / "model.pkl").write_bytes(b"a model")
(folder.parent / "about.txt").write_text("about")
tracking.log_folder(run_id, folder.parent, "model")
tracking.finish_run(run_id, succeeded=True)
"""


@pytest.fixture(scope="module")
def clone(
    root: Path, tmp_path_factory: pytest.TempPathFactory, shared_standin: StandIn
) -> AzureClone:
    return make_ml_clone(root, tmp_path_factory.mktemp("tracking") / "clone", shared_standin)


def start(clone: AzureClone, code: str) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-c", BEGIN + code],
        cwd=clone.path,
        env=clone.environment(),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def ended(child: subprocess.Popen[str]) -> Any:
    """What the process wrote as its last line, as JSON."""
    out, err = child.communicate(timeout=300)
    assert child.returncode == 0, out + err
    return json.loads(out.splitlines()[-1])


def do(clone: AzureClone, code: str) -> Any:
    return ended(start(clone, code))


def test_a_run_is_logged_registered_and_downloaded(clone: AzureClone) -> None:
    found = do(
        clone,
        RUN
        + """
tags = {"run_id": run_id, "experiment_name": "kiln", "metrics": '{"mae": 1.25}'}
checked = []
version, made = tracking.register("kiln-model", run_id, tags, checked.append)
again, made_again = tracking.register("kiln-model", run_id, {"other": "tags"}, checked.append)
path = tracking.download(run_id, "model")
print(json.dumps({
    "made": [made, made_again],
    "checked": checked,
    "versions": [version.version, again.version],
    "listed": [[v.version, v.run_id, dict(v.tags)] for v in tracking.versions("kiln-model")],
    "run": run_id,
    "files": {str(p.relative_to(path)): p.read_text() for p in path.rglob("*") if p.is_file()},
    "tags": tracking.run(run_id).get_tags(),
    "metrics": tracking.run(run_id).get_metrics(),
    "status": tracking.run(run_id).get_status(),
}))
""",
    )
    assert found["made"] == [True, False]
    assert found["checked"] == [[]]
    assert found["versions"] == [1, 1]
    (listed,) = found["listed"]
    assert listed[:2] == [1, found["run"]]
    assert listed[2] == {
        "run_id": found["run"],
        "experiment_name": "kiln",
        "metrics": '{"mae": 1.25}',
    }
    assert found["files"] == {"about.txt": "about", "deep/model.pkl": "a model"}
    assert found["tags"]["BuildId"] == "41"
    assert found["tags"]["alpha"] == "0.5"
    assert found["metrics"] == {"holdout_mae": 1.25}
    assert found["status"] == "Completed"


def test_two_machines_that_register_at_once_make_one_version(clone: AzureClone) -> None:
    run_id = do(clone, RUN + "print(json.dumps(run_id))")
    register = f"""
version, made = tracking.register("raced", {run_id!r}, {{"run_id": {run_id!r}}}, print)
print(json.dumps([version.version, made]))
"""
    children = [start(clone, register) for _ in range(3)]
    found = [ended(child) for child in children]
    assert [version for version, _ in found] == [1, 1, 1]
    assert sorted(made for _, made in found) == [False, False, True]
    listed = do(clone, "print(json.dumps([v.version for v in tracking.versions('raced')]))")
    assert listed == [1]


def test_who_lost_the_lock_registers_nothing(clone: AzureClone) -> None:
    run_id = do(clone, RUN + "print(json.dumps(run_id))")
    said = do(
        clone,
        f"""
import time
from scripts.platforms.azure import lease
lease.RENEW = 0.1
find = tracking.run
def meanwhile(run_id):
    store = tracking.workspace.get_default_datastore()
    blob = store.blob_service.get_blob_client(store.container_name, "slipway/leases/register-lost")
    from azureml._vendor.azure_storage.blob import BlobLeaseClient
    BlobLeaseClient(blob).break_lease(0)
    time.sleep(3)
    return find(run_id)
tracking.run = meanwhile
try:
    print(json.dumps(str(tracking.register("lost", {run_id!r}, {{}}, print))))
except SlipwayError as error:
    print(json.dumps(error.message))
""",
    )
    assert said.startswith("the lock on registering lost was lost")
    assert do(clone, "print(json.dumps(len(tracking.versions('lost'))))") == 0


@pytest.mark.slow  # the SDK tries for minutes
def test_a_download_that_breaks_leaves_nothing_half(clone: AzureClone) -> None:
    run_id = do(clone, RUN + "print(json.dumps(run_id))")
    faults = clone.standin.world.faults
    faults.add(Fault(r"GET .*blob\.core\.windows\.net.*model\.pkl", Answer(403), times=50))
    try:
        said = do(
            clone,
            f"""
try:
    tracking.download({run_id!r}, "model")
    print(json.dumps("it worked"))
except SlipwayError as error:
    print(json.dumps(error.message))
""",
        )
    finally:
        faults.clear()
    assert said.startswith(f"run {run_id}: Azure ML says:")
    kept = clone.folder / ".cache" / run_id
    assert list(kept.iterdir()) == []
    path = do(clone, f"print(json.dumps(str(tracking.download({run_id!r}, 'model'))))")
    assert (Path(path) / "deep" / "model.pkl").read_bytes() == b"a model"


def test_things_in_the_workspace_are_called_as_the_settings_say(clone: AzureClone) -> None:
    before = dict(clone.settings)
    clone.save(
        DATASET_NAME="kiln-logs", DATASTORE_NAME="workspaceartifactstore", AML_ENV_NAME="kiln-env"
    )
    try:
        found = do(
            clone,
            """
from dataclasses import asdict
from scripts.platforms.azure.data import ensure_data, open_datastore
from scripts.platforms.azure.environment import ensure_environment

settings, workspace = load_settings(root), tracking.workspace
image = "kilncr.azurecr.io/slipway/toolbox@sha256:" + "5" * 64

def environment(**changes):
    made = ensure_environment(workspace, settings.model_copy(update=changes), image)
    return f"{made.name}:{made.version}"

file = root / "data" / "logs.csv"
file.write_text("a,b\\n1,2\\n")
made = ensure_data(workspace, settings, file, "7" * 64)
store = open_datastore(workspace, settings)
blob = store.blob_service.get_blob_client(container=store.container_name, blob=made.path)
refused = []
for name in ("nowhere", "workspacefilestore"):
    try:
        open_datastore(workspace, settings.model_copy(update={"DATASTORE_NAME": name}))
    except SlipwayError as error:
        refused.append([error.exit_code, error.message])
print(json.dumps({
    "environments": [environment(), environment(), environment(AML_REBUILD_ENVIRONMENT=True), environment()],
    "data": [made.name, made.version, made.datastore, blob.exists()],
    "refused": refused,
}))
""",
        )
    finally:
        clone.settings = before
        clone.save()
    assert found["environments"] == ["kiln-env:1", "kiln-env:1", "kiln-env:2", "kiln-env:2"]
    assert found["data"] == ["kiln-logs", 1, "workspaceartifactstore", True]
    assert found["refused"] == [
        [2, "workspace kiln-ws has no datastore nowhere"],
        [2, "datastore workspacefilestore is of type AzureFile, not AzureBlob"],
    ]


@pytest.mark.parametrize(
    ("refusal", "message", "mend"),
    [
        (Refused(403, "AuthorizationFailed", "no rights here"), "no rights here", "role"),
        (Refused(404, "ResourceNotFound", "no such workspace"), "Workspace not found", "provision"),
    ],
)
def test_what_azure_refuses_is_a_line_with_its_mend(
    clone: AzureClone, refusal: Refused, message: str, mend: str
) -> None:
    faults = clone.standin.world.faults
    faults.add(Fault(r"GET https://management\.azure\.com/.*/workspaces/kiln-ws\?", refusal, 30))
    try:
        said = clone.run("data", code=2)
    finally:
        faults.clear()
    (line,) = [line for line in said.splitlines() if line.startswith("error:")]
    assert message in line
    assert "mend:" in said
    assert mend in said.split("mend:")[1]
    assert "Traceback" not in said
