"""The image verb: what it packages, what it reuses, what its record says."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from cyclonedx.schema import SchemaVersion
from cyclonedx.validation.json import JsonStrictValidator

from tests import records_schema, rooms

if TYPE_CHECKING:
    from docker import DockerClient
    from docker.models.containers import Container

    from tests.scripts.conftest import Workspace

#: What a hardened deployment runs the image with.
HARDENED = {
    "read_only": True,
    "cap_drop": ["ALL"],
    "security_opt": ["no-new-privileges"],
    "network_mode": "none",
}

ASK = """
import sys, urllib.request
request = urllib.request.Request("http://127.0.0.1:5001/score", sys.argv[1].encode(),
                                 {"Content-Type": "application/json"})
print(urllib.request.urlopen(request, timeout=10).read().decode())
"""


#: What the image's own Python and the notes of its Debian packages say is there.
INSIDE = r"""
import json, pathlib, re
from importlib.metadata import distributions

def plain(name):
    return re.sub(r"[-_.]+", "-", name).lower()

def field(name, text):
    return re.search(rf"^{name}: (.*)$", text, re.MULTILINE)[1]

notes = [path.read_text() for path in pathlib.Path("/var/lib/dpkg/status.d").iterdir()]
print(json.dumps({
    "pypi": [(plain(each.name), each.version) for each in distributions()],
    "deb": [(field("Package", note), field("Version", note)) for note in notes],
}))
"""


@pytest.fixture
def packaging(workspace: Workspace, root: Path) -> Workspace:
    """A workspace in which the packaging finds its Dockerfile and the service."""
    for name in ("scoring", "make"):
        (workspace.folder / name).symlink_to(root / name)
    shutil.copytree(root / "docker", workspace.folder / "docker", dirs_exist_ok=True)
    return workspace


def register(workspace: Workspace, **environ: str) -> None:
    for verb in ("data", "train", "evaluate", "register"):
        assert workspace.run(verb, **environ) == 0, verb


def bundles(workspace: Workspace) -> list[str]:
    folder = workspace.folder / "build" / "bundles"
    return sorted(path.name for path in folder.iterdir() if path.name[0] != ".")


def test_the_champion_is_packaged(packaging: Workspace) -> None:
    register(packaging)

    assert packaging.run("image") == 0

    record: Any = packaging.record("image")
    records_schema.validate("image", record)
    assert (record["model_name"], record["version"]) == ("wood", 1)
    assert (record["runtime"], record["dtype"], record["rejected"]) == ("linear", "float64", [])
    assert (record["engine"], record["image"]) == ("none", None)
    assert "once a Docker engine is reachable" in record["message"]
    model = json.loads((packaging.folder / record["bundle"] / "model" / "model.json").read_text())
    assert model["lineage"]["run_id"] == packaging.record("register")["run_id"]
    assert model["lineage"]["data_sha256"] == packaging.record("data")["sha256"]
    assert model["lineage"]["metrics"]["mae"] > 0


def test_a_classifier_of_strings_and_gaps_is_packaged(packaging: Workspace) -> None:
    rooms.weather_room(packaging.folder)
    register(packaging)

    assert packaging.run("image") == 0

    record: Any = packaging.record("image")
    records_schema.validate("image", record)
    model = json.loads((packaging.folder / record["bundle"] / "model" / "model.json").read_text())
    assert [column["name"] for column in model["columns"]] == ["sky", "pressure", "wind"]
    assert model["classes"] == ["no", "yes"]
    assert {"unseen_category", "missing_value"} <= set(record["parity"]["cases"])


def test_what_is_packaged_is_not_packaged_again(
    packaging: Workspace, capsys: pytest.CaptureFixture[str]
) -> None:
    register(packaging)
    assert packaging.run("image") == 0
    first: Any = packaging.record("image")
    # Neither a candidate that was kept out nor other data nor lost records make another bundle.
    for verb in ("train", "evaluate", "register"):
        assert packaging.run(verb, PARAMS="alpha=100000") == 0
    rooms.wood(seed=8).to_csv(packaging.folder / "data" / "wood.csv", index=False)
    shutil.rmtree(packaging.folder / "build" / "local")
    # Nor does a service that cannot tell what it serves.
    service = packaging.folder / "build" / "service"
    service.mkdir()
    (service / "state.json").write_text("{")
    capsys.readouterr()

    assert packaging.run("image") == 0

    assert "packaged already" in capsys.readouterr().out
    second: Any = packaging.record("image")
    for volatile in ("time", "duration_seconds"):
        del first[volatile], second[volatile]
    assert second == first


def test_an_older_version_can_be_packaged(packaging: Workspace) -> None:
    register(packaging, PARAMS="alpha=1000")
    register(packaging, PARAMS="alpha=0.1")

    assert packaging.run("image") == 0
    assert packaging.record("image")["version"] == 2
    assert packaging.run("image", MODEL_VERSION="1") == 0
    assert packaging.record("image")["version"] == 1
    assert len(bundles(packaging)) == 2


@pytest.mark.parametrize("wanted", ["3", "one", "-1"])
def test_an_unknown_version_names_those_there_are(packaging: Workspace, wanted: str) -> None:
    register(packaging)

    assert packaging.run("image", MODEL_VERSION=wanted) == 2

    failed: Any = packaging.record("image.failed")
    records_schema.validate("image", failed)
    assert failed["message"] == f"MODEL_VERSION={wanted}: wood has no such version"
    assert failed["mend"] == "choose one of 1"


def test_nothing_registered_is_said(packaging: Workspace) -> None:
    assert packaging.run("image") == 2

    assert packaging.record("image.failed")["mend"] == "run `make register` first"


def test_a_runtime_that_cannot_be_had_fails_with_every_reason(packaging: Workspace) -> None:
    contract, estimator = rooms.REGRESSOR_CONTRACT, rooms.REGRESSOR_ESTIMATOR
    estimator = estimator.replace(
        "return Ridge(**parameters)",
        """return make_pipeline(
        FunctionTransformer(lambda values: values * 2), Ridge(**parameters))""",
    )
    estimator = """from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import FunctionTransformer
""" + estimator  # fmt: skip
    rooms.write_room(packaging.folder, contract=contract, estimator=estimator)
    register(packaging)

    assert packaging.run("image", RUNTIME="onnx") == 1

    failed: Any = packaging.record("image.failed")
    records_schema.validate("image", failed)
    assert [each["dtype"] for each in failed["rejected"]] == ["float64", "float32"]
    assert bundles(packaging) == []
    # Not demanded, it goes on with scikit-learn.
    assert packaging.run("image") == 0
    assert packaging.record("image")["runtime"] == "sklearn"


def test_a_version_of_other_columns_is_named(packaging: Workspace) -> None:
    register(packaging)
    frame = rooms.wood().rename(columns={"girth": "width"})
    contract = rooms.REGRESSOR_CONTRACT.replace("girth", "width")
    rooms.write_room(packaging.folder, contract=contract, frame=frame)

    assert packaging.run("image") == 2

    message = packaging.record("image.failed")["message"]
    assert message == "version 1 takes columns that wood.csv does not have: girth"


def test_killed_at_any_time_it_is_done_by_the_next_call(packaging: Workspace, root: Path) -> None:
    register(packaging)
    folder = packaging.folder / "build" / "bundles"
    process = subprocess.Popen(
        [sys.executable, "-m", "scripts.image"],
        cwd=packaging.folder,
        # A conversion takes long enough to be met half-way.
        env={**os.environ, "PYTHONPATH": str(root), "RUNTIME": "onnx"},
        stdout=subprocess.DEVNULL,
    )
    deadline = time.monotonic() + 60
    while not list(folder.glob(".new-*")) and process.poll() is None:
        assert time.monotonic() < deadline
        time.sleep(0.01)
    process.send_signal(signal.SIGKILL)
    assert process.wait() == -signal.SIGKILL
    assert len(bundles(packaging)) <= 1

    assert packaging.run("image", RUNTIME="onnx") == 0

    assert bundles(packaging) == [packaging.record("image")["inputs"]]
    assert not list(folder.glob(".new-*"))


@pytest.fixture
def docker_client(packaging: Workspace) -> Iterator[DockerClient]:
    """The engine; whatever the workspace built there is removed in the end."""
    import docker

    from scripts.settings import clone_id

    client = docker.from_env()
    yield client
    label = {"label": f"slipway.clone={clone_id(packaging.folder)}"}
    for container in client.containers.list(all=True, filters=label):
        container.remove(force=True)
    for image in client.images.list(filters=label):
        client.images.remove(image.id, force=True)
    client.close()


def started(client: DockerClient, reference: str, clone: str) -> Container:
    container = client.containers.run(
        reference, detach=True, labels={"slipway.clone": clone}, **HARDENED
    )
    deadline = time.monotonic() + 30
    while container.attrs["State"].get("Health", {}).get("Status") != "healthy":
        assert time.monotonic() < deadline, container.logs().decode()
        time.sleep(0.2)
        container.reload()
    return container


def answers_its_sample(packaging: Workspace, client: DockerClient) -> None:
    """Run the recorded image as a deployment does, and ask it from within."""
    record: Any = packaging.record("image")
    model = json.loads((packaging.folder / record["bundle"] / "model" / "model.json").read_text())
    sample = model["sample"]
    clone = record["image"]["labels"]["slipway.clone"]
    container = started(client, record["image"]["id"], clone)
    code, output = container.exec_run(
        ["/opt/venv/bin/python", "-c", ASK, json.dumps(sample["request"])]
    )
    assert code == 0, output.decode()
    assert json.loads(output)["result"] == pytest.approx(sample["result"], rel=sample["tolerance"])


def _bill(packaging: Workspace) -> Any:
    """The bill of materials that the record names; it is valid."""
    text = (packaging.folder / packaging.record("image")["sbom"]).read_text()
    assert JsonStrictValidator(SchemaVersion.V1_6).validate_str(text) is None
    return json.loads(text)


def test_without_an_engine_the_bill_of_materials_is_the_bundles(packaging: Workspace) -> None:
    register(packaging)
    assert packaging.run("image") == 0

    whole = _bill(packaging)["metadata"]["component"]

    assert packaging.record("image")["sbom"] == "build/local/image.cdx.json"
    assert whole["bom-ref"] == f"bundle:{packaging.record('image')['inputs']}"


@pytest.mark.docker
def test_the_bill_of_materials_lists_what_is_in_the_image(
    packaging: Workspace, docker_client: DockerClient
) -> None:
    register(packaging)
    assert packaging.run("image", SLIPWAY_ENGINE="docker") == 0
    record: Any = packaging.record("image")
    bill = _bill(packaging)

    inside = docker_client.containers.run(
        record["image"]["id"], ["-c", INSIDE], entrypoint="/opt/venv/bin/python", remove=True
    )

    assert bill["metadata"]["component"]["version"] == record["image"]["id"]
    listed = {
        kind: {
            (each["name"], each["version"])
            for each in bill["components"]
            if each.get("purl", "").startswith(f"pkg:{kind}/")
        }
        for kind in ("pypi", "deb")
    }
    found = json.loads(inside)
    assert listed["pypi"] == {tuple(each) for each in found["pypi"]}
    assert listed["deb"] == {tuple(each) for each in found["deb"]}
    assert {"libc6", "libssl3", "python3.11-minimal"} <= {name for name, _ in listed["deb"]}
    # No container stays, and reading it anew changes nothing.
    label = {"label": f"slipway.clone={record['image']['labels']['slipway.clone']}"}
    assert docker_client.containers.list(all=True, filters=label) == []
    assert packaging.run("image", SLIPWAY_ENGINE="docker") == 0
    assert _bill(packaging) == bill


@pytest.mark.docker
def test_the_image_serves_hardened_and_is_reused(
    packaging: Workspace, docker_client: DockerClient, capsys: pytest.CaptureFixture[str]
) -> None:
    register(packaging)

    assert packaging.run("image", SLIPWAY_ENGINE="docker") == 0

    record: Any = packaging.record("image")
    records_schema.validate("image", record)
    image = record["image"]
    assert record["engine"] == "docker"
    assert image["size_bytes"] < 350e6
    inspected = docker_client.images.get(image["reference"])
    assert inspected.id == image["id"]
    config = inspected.attrs["Config"]
    assert config["User"] not in ("", "0", "root")
    assert config["Healthcheck"]["Test"]
    assert config["Labels"] == image["labels"]
    assert image["labels"] | {"slipway.clone": ""} == {
        "org.opencontainers.image.title": "wood",
        "org.opencontainers.image.version": "1",
        "org.opencontainers.image.revision": packaging.record("train")["git"]["commit"] or "",
        "slipway.clone": "",
        "slipway.data-sha256": packaging.record("data")["sha256"],
        "slipway.inputs": record["inputs"],
        "slipway.model": "wood",
        "slipway.model-sha256": record["model_sha256"],
        "slipway.role": "scoring",
    }
    answers_its_sample(packaging, docker_client)

    # Without its bundle the same one is made again, and the image found by its labels.
    shutil.rmtree(packaging.folder / "build" / "bundles")
    capsys.readouterr()
    assert packaging.run("image", SLIPWAY_ENGINE="docker") == 0
    assert "its image is here already" in capsys.readouterr().out
    assert packaging.record("image")["image"] == image


@pytest.mark.docker
def test_an_image_for_scikit_learn_holds_the_models_own_code(
    packaging: Workspace, docker_client: DockerClient
) -> None:
    estimator = rooms.REGRESSOR_ESTIMATOR.replace("return Ridge", "return Rounded")
    estimator += """
class Rounded(Ridge):
    def predict(self, X):
        return super().predict(X).round(1)
"""
    rooms.write_room(packaging.folder, estimator=estimator)
    register(packaging)

    assert packaging.run("image", SLIPWAY_ENGINE="docker") == 0

    assert packaging.record("image")["runtime"] == "sklearn"
    answers_its_sample(packaging, docker_client)


@pytest.mark.docker
def test_a_build_that_fails_is_explained(
    packaging: Workspace, docker_client: DockerClient, capsys: pytest.CaptureFixture[str]
) -> None:
    register(packaging)
    (packaging.folder / "docker" / "locks" / "scoring-linear.txt").write_text(
        "orjson==3.0.0 --hash=sha256:" + "0" * 64 + "\n"
    )

    assert packaging.run("image", SLIPWAY_ENGINE="docker") == 1

    failed: Any = packaging.record("image.failed")
    records_schema.validate("image", failed)
    assert "building the scoring image failed" in failed["message"]
    assert "build/docker/scoring.log" in failed["message"]
    assert (packaging.folder / "build" / "docker" / "scoring.log").is_file()
    printed = capsys.readouterr()
    assert "orjson" in printed.out
    assert "Traceback" not in printed.out + printed.err
