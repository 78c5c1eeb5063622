"""azureml-sdk against the stand-in: experiments, runs, metrics, artifacts, models, datastores, secrets."""

from __future__ import annotations

import pytest

from tests.azure.ml_place import STORAGE_ID, WS_ID
from tests.azure.mlclient import ClientError, MlClient
from tests.azure.standin.access import grant
from tests.azure.standin.directory import access_token, directory
from tests.azure.standin.routes import ARM
from tests.azure.standin.standin import StandIn

pytestmark = pytest.mark.azure


def test_a_run_keeps_metrics_tags_and_files(ml: MlClient) -> None:
    found = ml.do(
        """
from azureml.core import Experiment, Run
experiment = Experiment(ws, "grades")
run = experiment.start_logging(snapshot_directory=None, outputs=None)
run.log("mse", 3.5)
run.log_list("curve", [1.0, 2.0])
run.log("loss", 0.2); run.log("loss", 0.1)
run.tag("BuildId", "7")
run.add_properties({"lineage": "abc"})
open("plot.txt", "w").write("a plot")
os.makedirs("model", exist_ok=True)
open("model/model.bin", "w").write("weights")
open("model/model.json", "w").write("{}")
run.upload_file("outputs/plot.txt", "plot.txt")
run.upload_folder("model", "model")
run.complete()
again = Run.get(ws, run.id)
again.download_file("outputs/plot.txt", "back.txt")
again.download_files(prefix="model", output_directory="back")
result = {"status": again.get_status(), "metrics": again.get_metrics(), "tags": again.get_tags(),
          "properties": again.get_properties().get("lineage"), "files": sorted(again.get_file_names()),
          "back": open("back.txt").read(), "model": open("back/model/model.bin").read(),
          "listed": [r.id for r in experiment.get_runs(tags={"BuildId": "7"})] == [run.id],
          "none": [r.id for r in experiment.get_runs(tags={"BuildId": "8"})]}
"""
    )
    assert found["status"] == "Completed"
    assert found["metrics"] == {"mse": 3.5, "curve": [1.0, 2.0], "loss": [0.2, 0.1]}
    assert found["tags"]["BuildId"] == "7"
    assert found["properties"] == "abc"
    assert found["files"] == ["model/model.bin", "model/model.json", "outputs/plot.txt"]
    assert (found["back"], found["model"]) == ("a plot", "weights")
    assert found["listed"]
    assert found["none"] == []


def test_children_failures_and_what_is_not_there(ml: MlClient) -> None:
    found = ml.do(
        """
parent = experiment.start_logging(snapshot_directory=None, outputs=None)
child = parent.child_run("step")
child.fail("it broke")
result = {"children": [c.id for c in parent.get_children()] == [child.id], "parent": child.parent.id == parent.id,
          "status": child.get_status(), "error": child.get_details()["error"]["error"]["message"]}
parent.cancel()
result["cancelled"] = parent.get_status()
"""
    )
    assert found["children"]
    assert found["parent"]
    assert found["status"] == "Failed"
    assert "it broke" in found["error"]
    assert found["cancelled"] == "Canceled"
    with pytest.raises(ClientError, match="nothing was not found"):
        ml.do('Run.get(ws, "nothing")')
    with pytest.raises(ClientError, match=r"no/file.* was not found"):
        ml.do('parent.download_file("no/file", "x")')


def test_models_are_versions_found_by_name_tags_and_run(ml: MlClient) -> None:
    found = ml.do(
        """
from azureml.core import Model
first = run.register_model("diabetes", model_path="model", tags={"run_id": run.id, "BuildId": "7"})
second = run.register_model("diabetes", model_path="model", tags={"run_id": run.id})
second.add_tags({"stage": "production"})
result = {"versions": [m.version for m in Model.list(ws, name="diabetes")],
          "latest": [m.version for m in Model.list(ws, name="diabetes", latest=True)],
          "tagged": [m.version for m in Model.list(ws, name="diabetes", tags=[["BuildId", "7"]])],
          "by_name": Model(ws, name="diabetes").version, "tags": Model(ws, id="diabetes:2").tags,
          "run": [m.version for m in Model.list(ws, run_id=run.id)],
          "path": second.download("got", exist_ok=True)}
import pathlib
result["content"] = pathlib.Path(result["path"], "model.bin").read_text()
second.delete()
third = Model.register(ws, "plot.txt", "diabetes", tags={"a": "b"}, properties={"fixed": "1"})
result["third"] = third.version
"""
    )
    assert found["versions"] == [2, 1]
    assert found["latest"] == [2]
    assert found["tagged"] == [1]
    assert found["by_name"] == 2
    assert found["tags"]["stage"] == "production"
    assert found["run"] == [2, 1]
    assert found["content"] == "weights"
    assert found["third"] == 3
    with pytest.raises(ClientError, match="WebserviceException"):
        ml.do('Model(ws, name="nobody")')


def test_datastore_is_real_storage(ml: MlClient, ml_standin: StandIn) -> None:
    found = ml.do(
        """
store = ws.get_default_datastore()
open("rows.csv", "w").write("a,b\\n1,2\\n")
store.upload_files(["rows.csv"], target_path="slipway/data/1", overwrite=True, show_progress=False)
store.download("down", prefix="slipway/data/1", overwrite=True, show_progress=False)
result = {"name": store.name, "back": open("down/slipway/data/1/rows.csv").read(), "all": sorted(ws.datastores),
          "account": store.account_name}
"""
    )
    assert found["back"] == "a,b\n1,2\n"
    assert found["name"] == "workspaceblobstore"
    assert found["all"] == ["workspaceartifactstore", "workspaceblobstore", "workspacefilestore"]
    # A wrong signature is refused by the storage itself.
    with pytest.raises(ClientError, match="403"):
        ml.do(
            """
import requests
requests.get(f"https://{store.account_name}.blob.core.windows.net/{store.container_name}/x?sv=2019-02-02&sr=b"
             "&sp=r&se=2099-01-01T00:00:00Z&sig=AAAA").raise_for_status()
"""
        )


def test_secrets(ml: MlClient) -> None:
    found = ml.do(
        """
vault = ws.get_default_keyvault()
vault.set_secret("token", "hidden")
result = [vault.get_secret("token"), vault.list_secrets()[0]["name"], vault.get_secrets(["token", "other"])]
"""
    )
    assert found == ["hidden", "token", {"token": "hidden", "other": None}]


def test_a_reader_reads_and_no_more(ml: MlClient, ml_standin: StandIn) -> None:
    world = ml_standin.world
    reader = directory(world).add_identity("reader", f"{WS_ID}/reader")
    token, _ = access_token(world, reader, f"https://{ARM}/")
    ask = f"""
import requests
url = ws.service_context._get_run_history_url() + "/history/v1.0" + ws.service_context._get_workspace_scope()
headers = {{"Authorization": "Bearer " + {token!r}}}
result = [requests.get(url + "/experiments/grades", headers=headers).status_code,
          requests.post(url + "/experiments/mine", headers=headers).status_code]
"""
    assert ml.do(ask) == [403, 403]
    grant(world, reader.object_id, "Reader", WS_ID)
    assert ml.do(ask) == [200, 403]
    grant(world, reader.object_id, "AzureML Data Scientist", WS_ID)
    assert ml.do(ask) == [200, 200]


def test_a_storage_account_without_keys_refuses_them(ml: MlClient, ml_standin: StandIn) -> None:
    properties = ml_standin.world.resources[STORAGE_ID.lower()]["properties"]
    properties["allowSharedKeyAccess"] = False
    try:
        with pytest.raises(ClientError, match="KeyBasedAuthenticationNotPermitted"):
            ml.do('store.upload_files(["rows.csv"], target_path="x", show_progress=False)')
    finally:
        del properties["allowSharedKeyAccess"]


def test_without_a_token_nothing_is_answered(ml: MlClient) -> None:
    found = ml.do(
        """
url = ws.service_context._get_run_history_url() + "/history/v1.0" + ws.service_context._get_workspace_scope()
result = [requests.get(url + "/experiments/grades", headers=h).status_code
          for h in ({}, {"Authorization": "Bearer"}, auth.get_authentication_header())]
"""
    )
    assert found == [401, 401, 200]
