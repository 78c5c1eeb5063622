"""`make ui` with MLflow's real server."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import urllib.request
from pathlib import Path

import pytest

from scripts import ui
from scripts.platforms.local import page
from scripts.platforms.local.tracking import MlflowTracking
from tests.scripts.standin import Clone


@pytest.mark.slow
def test_a_run_and_its_plots_are_shown_until_ctrl_c(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, root: Path
) -> None:
    Clone(tmp_path, monkeypatch)
    plots = tmp_path / "plots"
    plots.mkdir()
    (plots / "residuals.png").write_bytes(b"\x89PNG and so on")
    tracking = MlflowTracking(tmp_path)
    run_id = tracking.start_run("kiln", {})
    tracking.log_folder(run_id, plots, "plots")
    tracking.finish_run(run_id, succeeded=True)

    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    process = subprocess.Popen(
        [sys.executable, "-m", "scripts.ui"],
        cwd=root,
        env={**os.environ, "MLFLOW_PORT": str(port), "PYTHONUNBUFFERED": "1"},
        stdout=subprocess.PIPE,
        text=True,
    )
    with process:
        assert process.stdout
        url = f"http://127.0.0.1:{port}"
        try:
            assert any(url in line for line in process.stdout)
            address = f"{url}/get-artifact?path=plots/residuals.png&run_uuid={run_id}"
            with urllib.request.urlopen(address, timeout=20) as answer:
                assert answer.read() == b"\x89PNG and so on"
            process.send_signal(signal.SIGINT)
            assert process.wait(20) == 0
        finally:
            process.kill()
    with socket.socket() as gone:
        assert gone.connect_ex(("127.0.0.1", port)) != 0


def test_a_taken_port_is_a_usage_error_naming_the_setting(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    clone = Clone(tmp_path, monkeypatch)
    clone.monkeypatch.setattr(page, "refuse_unopened", lambda context: None)
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        monkeypatch.setenv("MLFLOW_PORT", str(port))
        assert ui.main() == 2
    assert f"MLFLOW_PORT={port} cannot be used: Address already in use" in capsys.readouterr().err


def test_no_run_yet_is_a_usage_error(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    Clone(tmp_path, monkeypatch)
    assert ui.main() == 2
    assert "run `make train` first" in capsys.readouterr().err
