"""A service that cannot start says why in one line and ends."""

from __future__ import annotations

import json
import socket
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tests.scoring import bundles
from tests.scoring.service import ROOT, Service, environment, server_command


def fail(
    model_dir: Path, settings: dict[str, str] | None = None, arguments: tuple[str, ...] = ()
) -> tuple[int, str]:
    """The exit code and the one line on stderr of a server that must not start."""
    ended = subprocess.run(
        server_command(*arguments),
        cwd=ROOT,
        env=environment(model_dir, settings or {}),
        capture_output=True,
        text=True,
        timeout=30,
    )
    assert ended.stdout == ""
    assert ended.stderr.startswith("error: ")
    assert ended.stderr.count("\n") == 1
    return ended.returncode, ended.stderr


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("MAX_BODY_BYTES", "10MB"),
        ("MAX_BODY_BYTES", "0"),
        ("MAX_ROWS", "-1"),
        ("MAX_ROWS", "1.5"),
        ("QUEUE_SIZE", "many"),
        ("REQUEST_TIMEOUT", "0"),
        ("REQUEST_TIMEOUT", "nan"),
        ("BODY_TIMEOUT", "inf"),
        ("GRACE_SECONDS", "-1"),
        ("SCORING_KEY", "two words"),
    ],
)
def test_a_bad_setting(regressor_dir: Path, name: str, value: str) -> None:
    code, line = fail(regressor_dir, {name: value})
    assert code == 2
    assert name in line
    assert "must be" in line
    assert (value in line) == (name != "SCORING_KEY")


def test_an_empty_setting_counts_as_unset(
    regressor_dir: Path, start: Callable[..., Service]
) -> None:
    names = ("MAX_BODY_BYTES", "MAX_ROWS", "QUEUE_SIZE", "REQUEST_TIMEOUT", "BODY_TIMEOUT")
    service = start(regressor_dir, dict.fromkeys([*names, "GRACE_SECONDS", "SCORING_KEY"], ""))
    assert service.score({"data": [[1, 2, 3]]}).status == 200


def test_azure_ml_names_the_model_too(regressor_dir: Path, start: Callable[..., Service]) -> None:
    for folder in (regressor_dir, regressor_dir.parent):
        settings = {"SCORING_MODEL_DIR": "", "AZUREML_MODEL_DIR": str(folder)}
        assert start(regressor_dir, settings).request("GET", "/").status == 200


def test_no_model(tmp_path: Path) -> None:
    code, line = fail(tmp_path / "none")
    assert code == 2
    assert "SCORING_MODEL_DIR" in line
    assert "none" in line


def changed(model_dir: Path, change: Callable[[dict[str, Any]], Any]) -> Path:
    path = model_dir / "model.json"
    contract = json.loads(path.read_text())
    change(contract)
    path.write_text(json.dumps(contract))
    return model_dir


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda contract: contract.pop("columns"), "columns"),
        (lambda contract: contract.update(columns=[]), "no columns"),
        (lambda contract: contract["columns"].append(contract["columns"][0]), "same name"),
        (lambda contract: contract["columns"][0].update(type="string"), "number columns only"),
        (lambda contract: contract.update(runtime="torch"), "torch"),
        (lambda contract: contract.update(file="../model.onnx"), "plain file name"),
        (lambda contract: contract.update(file="other.onnx"), "other.onnx"),
        (lambda contract: contract.update(kind="classifier"), "without classes"),
        (lambda contract: contract.update(probabilities=True), "no probabilities"),
        (lambda contract: contract.update(inputs="columns"), "no columns"),
        (lambda contract: contract["columns"].pop(), "sample request"),
        (lambda contract: contract["sample"].update(request={"data": [[1]]}), "sample request"),
    ],
)
def test_a_contract_that_does_not_hold_together(
    tmp_path: Path, change: Callable[[dict[str, Any]], Any], words: str
) -> None:
    code, line = fail(changed(bundles.numbers_regressor(tmp_path), change))
    assert code == 1
    assert words in line


@pytest.mark.parametrize("content", [b"", b"{", b"[]", b"\xff", b"[" * 100_000])
def test_a_contract_that_is_none(tmp_path: Path, content: bytes) -> None:
    model_dir = bundles.numbers_regressor(tmp_path)
    (model_dir / "model.json").write_bytes(content)
    code, line = fail(model_dir)
    assert code == 1
    assert "model.json" in line


def test_a_model_that_is_not_the_packaged_one(tmp_path: Path) -> None:
    model_dir = bundles.numbers_regressor(tmp_path)
    model = model_dir / "model.onnx"
    model.write_bytes(model.read_bytes()[:-10])
    code, line = fail(model_dir)
    assert code == 1
    assert "model.onnx" in line
    assert "sha256" in line
    model.unlink()
    assert fail(model_dir)[0] == 1


@pytest.mark.parametrize(("file", "runtime"), [("m.onnx", "onnx"), ("m.joblib", "sklearn")])
def test_a_model_that_cannot_be_loaded(tmp_path: Path, file: str, runtime: str) -> None:
    model_dir = bundles.write_bundle(
        tmp_path,
        b"not a model",
        file,
        kind="regressor",
        columns=bundles.NUMBERS,
        runtime=runtime,
        sample={"request": {"data": [[1, 2, 3]]}, "result": [1]},
    )
    code, line = fail(model_dir)
    assert code == 1
    assert f"cannot load the model {model_dir / file}" in line


def test_a_port_that_is_taken(regressor_dir: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = str(taken.getsockname()[1])
        code, line = fail(regressor_dir, arguments=("--port", port))
    assert code == 2
    assert port in line


@pytest.mark.parametrize(
    "arguments",
    [
        ("--host", "no.such.host.invalid"),
        ("--host", "203.0.113.1"),
        ("--port", "99999"),
        ("--fd", "99"),
        ("--fd", "0"),
        ("--fd", "-1"),
    ],
)
def test_an_address_that_cannot_be(regressor_dir: Path, arguments: tuple[str, str]) -> None:
    code, line = fail(regressor_dir, arguments=arguments)
    assert code == 2
    assert arguments[1] in line


def test_an_inherited_socket_that_does_not_listen(regressor_dir: Path) -> None:
    with socket.socket() as silent:
        silent.set_inheritable(True)
        code, line = fail(regressor_dir, arguments=("--fd", "0"))
    assert code == 2
    assert "not a listening socket" in line
