"""The scoring stage: what is in the image, and what of the builder is not."""

from __future__ import annotations

import io
import json
import subprocess
import tarfile
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from .conftest import ROOT, Clone

pytestmark = pytest.mark.docker

SERVER = """
import http.server, sys

class Answer(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        self.send_response(200)
        self.end_headers()

assert sys.argv[1:] == ["--host", "0.0.0.0", "--port", "5001"]
http.server.HTTPServer(("0.0.0.0", 5001), Answer).serve_forever()
"""
SENTINEL = "not-for-the-image"


def _docker(*command: str) -> str:
    done = subprocess.run(["docker", *command], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return done.stdout


class Build:
    """A bundle nobody else could read, built in a network with secrets."""

    def __init__(self, folder: Path) -> None:
        self.clone = Clone(folder / "my clone")
        self.name = f"slipway-{self.clone.id}-test:1"
        bundle = self.clone.path / "bundle"
        for path, text in {
            "scoring/__init__.py": "",
            "scoring/server.py": SERVER,
            "model/model.json": "{}",
            "code/model/__init__.py": "here = True\n",
        }.items():
            (bundle / path).parent.mkdir(parents=True, exist_ok=True)
            (bundle / path).write_text(text)
        for name, source in {
            "Dockerfile": "Dockerfile",
            "fetch.sh": "fetch.sh",
            "requirements.txt": "locks/scoring.txt",
        }.items():
            (bundle / name).write_text((ROOT / "docker" / source).read_text())
        for path in bundle.rglob("*"):
            path.chmod(0o700 if path.is_dir() else 0o600)

    def run(self, *options: str) -> str:
        env = self.clone.environment(PIP_TRUSTED_HOST=f"{SENTINEL}.example")
        # The bundle of whoever runs the tests, and a line of our own that no tool minds.
        own = next((env[key] for key in ("EXTRA_CA", "SSL_CERT_FILE") if env.get(key)), None)
        extra = self.clone.path / "extra.pem"
        extra.write_text(f"# {SENTINEL}\n" + (Path(own).read_text() if own else ""))
        env["EXTRA_CA"] = str(extra)
        self.clone.call("docker/build.sh", "scoring", "bundle", self.name, *options, **env)
        return self.name

    def remove(self) -> None:
        subprocess.run(["docker", "image", "rm", "--force", self.name], capture_output=True)


@pytest.fixture(scope="module")
def image(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    build = Build(tmp_path_factory.mktemp("scoring"))
    yield build.run()
    build.remove()


@pytest.fixture(scope="module")
def files(image: str) -> dict[str, tarfile.TarInfo]:
    container = _docker("create", image).strip()
    try:
        exported = subprocess.run(["docker", "export", container], capture_output=True, check=True)
    finally:
        _docker("rm", container)
    with tarfile.open(fileobj=io.BytesIO(exported.stdout)) as archive:
        return {member.name: member for member in archive.getmembers()}


def test_nothing_in_it_installs_compiles_or_opens_a_shell(
    files: dict[str, tarfile.TarInfo],
) -> None:
    programs = {
        name.rsplit("/", 1)[-1] for name in files if "/bin/" in f"/{name}" and files[name].isfile()
    }
    assert {"python3.11"} <= programs
    assert not programs & {
        "sh",
        "bash",
        "dash",
        "apt",
        "apt-get",
        "dpkg",
        "perl",
        "gcc",
        "cc",
        "ld",
    }
    assert not [name for name in programs if name.startswith(("pip", "uv-", "easy_install"))]
    packages = {
        name.split("site-packages/")[1].split("/")[0] for name in files if "site-packages/" in name
    }
    assert not packages & {"pip", "setuptools", "sklearn", "joblib", "pandas"}
    assert not [name for name, member in files.items() if member.isfile() and member.mode & 0o6000]


def test_what_nobody_runs_is_not_in_it(files: dict[str, tarfile.TarInfo]) -> None:
    locked = [name for name in files if name.startswith("opt/venv/")]
    assert locked
    assert not [name for name in locked if name.endswith((".h", ".cpp", ".pyx", ".pyi", ".a"))]
    assert not [name for name in locked if "/tests/" in name]
    programs = [name for name in locked if name.startswith("opt/venv/bin/")]
    assert {name.rsplit("/", 1)[-1] for name in programs} == {"python", "python3", "python3.11"}


TELEMETRY = """
from azure.identity import DefaultAzureCredential, ManagedIdentityCredential
from azure.monitor.opentelemetry.exporter import AzureMonitorLogExporter, AzureMonitorTraceExporter
from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter

DefaultAzureCredential()
to = "InstrumentationKey=00000000-0000-0000-0000-000000000000;IngestionEndpoint=https://127.0.0.1:9/"
for exporter in (AzureMonitorLogExporter, AzureMonitorTraceExporter):
    # There is no disk to keep anything on meanwhile.
    exporter(connection_string=to, disable_offline_storage=True)
OTLPSpanExporter("http://127.0.0.1:9/v1/traces")
print("ready")
"""


def test_telemetry_finds_its_libraries_without_a_disk(image: str) -> None:
    run = ["run", "--rm", "--read-only", "--cap-drop", "ALL", "--network", "none"]
    command = ["--entrypoint", "/opt/venv/bin/python", image, "-c", TELEMETRY]
    assert _docker(*run, *command).splitlines()[-1] == "ready"


def test_scanners_find_what_it_is_made_of(files: dict[str, tarfile.TarInfo]) -> None:
    assert "usr/lib/os-release" in files
    assert {"libc6", "libssl3", "python3.11-minimal"} <= {
        name.rsplit("/", 1)[-1] for name in files if name.startswith("var/lib/dpkg/status.d/")
    }
    assert [name for name in files if "numpy-" in name and name.endswith("dist-info/METADATA")]


def test_bytecode_is_compiled(files: dict[str, tarfile.TarInfo]) -> None:
    assert "app/scoring/__pycache__/server.cpython-311.pyc" in files
    assert "usr/lib/python3.11/asyncio/__pycache__/streams.cpython-311.pyc" in files
    assert [name for name in files if name.endswith("numpy/__pycache__/__init__.cpython-311.pyc")]


def test_it_is_small_and_runs_as_nobody(image: str) -> None:
    facts = json.loads(_docker("image", "inspect", image))[0]
    assert facts["Size"] < 260e6
    assert facts["Config"]["User"] == "10001:10001"
    assert facts["Config"]["Healthcheck"]
    assert "5001/tcp" in facts["Config"]["ExposedPorts"]
    assert facts["Architecture"] == "amd64"


def test_it_becomes_healthy_without_rights_and_without_a_disk(image: str) -> None:
    container = _docker(
        *("run", "--detach", "--read-only", "--cap-drop", "ALL"),
        *("--security-opt", "no-new-privileges", image),
    ).strip()
    try:
        deadline = time.monotonic() + 60
        while (
            state := _docker("inspect", "--format", "{{.State.Health.Status}}", container)
        ) != "healthy\n":
            assert state == "starting\n"
            assert time.monotonic() < deadline, _docker("logs", container)
            time.sleep(0.5)
        probe = "import os, model; print(os.getuid(), model.here, os.access('/app', os.W_OK))"
        told = _docker("exec", container, "/opt/venv/bin/python", "-c", probe)
        assert told == "10001 True False\n"
    finally:
        _docker("rm", "--force", container)


def test_the_history_tells_nothing_of_the_builders_network(image: str) -> None:
    assert SENTINEL not in _docker("history", "--no-trunc", image)
    assert SENTINEL not in _docker("image", "inspect", image)


@pytest.mark.slow
def test_no_layer_holds_anything_of_the_builders_network(tmp_path: Path) -> None:
    build = Build(tmp_path)
    try:
        image = build.run("--no-cache")
        command = ["docker", "save", image]
        saved = subprocess.run(command, capture_output=True, check=True).stdout
    finally:
        build.remove()
    with tarfile.open(fileobj=io.BytesIO(saved)) as layers:
        for member in layers.getmembers():
            stored = layers.extractfile(member) if member.isfile() else None
            assert stored is None or SENTINEL.encode() not in stored.read(), member.name
