"""Each contestant's packages in an environment of its own: what a lock says, installed once."""

from __future__ import annotations

import fcntl
import hashlib
import json
import os
import re
import shutil
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from scripts import console
from scripts.errors import SlipwayError
from scripts.settings import Settings

#: Set on some machines for old releases of OpenBLAS; a current numpy is slowed by them.
_BLAS_OVERRIDES = ("OPENBLAS_CORETYPE", "OPENBLAS_L2_SIZE")
#: Else the contestants would not be as they come.
_THREADS = ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS")


@dataclass(frozen=True)
class Environment:
    """An environment with exactly what the lock pins; `packages` are versions by name."""

    path: Path
    packages: dict[str, str]

    @property
    def python(self) -> str:
        return str(self.path / "bin" / "python")

    def script(self, name: str) -> str:
        """The path of a program that a package installed."""
        return str(self.path / "bin" / name)


def plain_environ() -> dict[str, str]:
    """The environment variables every contestant starts from: no setting and no secret of ours."""
    left_out = {*_BLAS_OVERRIDES, *_THREADS, *Settings.model_fields}
    return {
        name: value
        for name, value in os.environ.items()
        if name not in left_out and not name.startswith(("PYTHON", "BENCH_", "OTEL_"))
    }


def install(path: Path, lock: Path) -> Environment:
    """Make the environment `path` what `lock` says, or leave it if it is. Raises SlipwayError.

    A mark holds the lock's sha256 once all is in place, so an interrupted installation is redone.
    """
    text = lock.read_text("utf-8")
    packages = dict(re.findall(r"^([A-Za-z0-9._-]+)==([^ ;\\]+)", text, re.MULTILINE))
    wanted, mark = hashlib.sha256(text.encode()).hexdigest(), path / ".lock"
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.with_suffix(".installing").open("w") as stream:
        fcntl.flock(stream, fcntl.LOCK_EX)
        if not (mark.is_file() and mark.read_text() == wanted and (path / "bin/python").exists()):
            console.step(f"installing {path.name}: {len(packages)} packages, once")
            shutil.rmtree(path, ignore_errors=True)
            _uv("venv", "--python", sys.executable, str(path))
            # Copies: of files linked from one cache, servers would share the memory.
            options = ("--require-hashes", "--compile-bytecode", "--link-mode", "copy")
            _uv("pip", "sync", "--python", str(path / "bin" / "python"), *options, str(lock))
            mark.write_text(wanted)
    return Environment(path, packages)


def _uv(*arguments: str) -> None:
    done = subprocess.run(["uv", *arguments], capture_output=True, text=True, check=False)
    if done.returncode:
        said = " ".join(done.stderr.split())[-400:]
        raise SlipwayError(
            f"uv {arguments[0]} failed: {said}",
            "check the way to the package index (docs/running.md), and run `make bench` again",
        )


def blas(environment: Environment) -> str:
    """The OpenBLAS kernel that numpy runs there, `version architecture`; empty if there is none."""
    import threadpoolctl

    # As a file, not a module: the environment need not have it.
    command = [environment.python, "-P", threadpoolctl.__file__, "-i", "numpy"]
    done = subprocess.run(command, env=plain_environ(), capture_output=True, text=True, check=False)
    try:
        pools: list[dict[str, Any]] = json.loads(done.stdout)
    except ValueError:
        return ""
    found = [pool for pool in pools if pool.get("internal_api") == "openblas"]
    return f"{found[0]['version']} {found[0]['architecture']}" if found else ""
