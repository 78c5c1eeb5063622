"""Runs and the model registry in MLflow, on SQLite and local files under `build/mlflow`.

The database is created and upgraded under a lock of its own, an upgrade after a copy. The newest
version of a model is its champion; the alias `champion` only shows that in MLflow's page.
"""

from __future__ import annotations

import fcntl
import logging
import os
import shutil
import sqlite3
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar
from urllib.parse import urlsplit
from urllib.request import url2pathname

from scripts import console
from scripts.errors import SlipwayError, UsageError
from scripts.platforms.base import ModelVersion

if TYPE_CHECKING:
    from mlflow import MlflowClient

T = TypeVar("T")

ALIAS = "champion"


def store_folder(root: Path) -> Path:
    """Where MLflow's database and artifacts lie."""
    return root / "build" / "mlflow"


def database(root: Path) -> Path:
    """MLflow's SQLite database."""
    return store_folder(root) / "mlflow.db"


def database_revision(path: Path) -> str | None:
    """The schema revision of MLflow's database, None if there is no database; SlipwayError if broken."""
    if not path.exists():
        return None
    try:
        with sqlite3.connect(f"{path.as_uri()}?mode=ro", uri=True, timeout=5) as connection:
            row = connection.execute("SELECT version_num FROM alembic_version").fetchone()
    except sqlite3.DatabaseError as error:
        raise _broken(path, error) from error
    finally:
        if "connection" in locals():
            connection.close()
    return str(row[0]) if row else None


def _broken(path: Path, error: BaseException) -> SlipwayError:
    if "locked" in str(error):
        return SlipwayError(
            f"MLflow's database {path} is locked by another process",
            "end what holds it (`fuser` shows it) and run the verb again",
        )
    if "full" in str(error):
        return SlipwayError(f"MLflow's database {path}: the disk is full", "make room")
    return SlipwayError(
        f"MLflow's database {path} cannot be read: {error}",
        "put a copy back in its place (mlflow.db.*.bak beside it, or your own), "
        "or start a new registry with `make distclean`",
    )


class MlflowTracking:
    """`Tracking` in MLflow, its store below `root`."""

    def __init__(self, root: Path) -> None:
        self.root = root

    @cached_property
    def _client(self) -> MlflowClient:
        # Nothing is sent to anybody, and no file of git is read behind our back.
        os.environ.setdefault("MLFLOW_DISABLE_TELEMETRY", "true")
        os.environ.setdefault("GIT_PYTHON_REFRESH", "quiet")
        console.step("opening MLflow")
        os.environ.setdefault("MLFLOW_LOGGING_LEVEL", "ERROR")
        logging.getLogger("alembic").setLevel(logging.ERROR)
        with self._locked():
            self._create_or_upgrade()
        from mlflow import MlflowClient

        with self._explained():
            return MlflowClient(tracking_uri=f"sqlite:///{database(self.root)}")

    def _create_or_upgrade(self) -> None:
        """Bring the database to this MLflow's schema: a new one whole or not at all."""
        path = database(self.root)
        found = database_revision(path)
        from mlflow.store.db.utils import _get_latest_schema_revision

        if found == _get_latest_schema_revision():
            return
        work = path.with_name(f".{path.name}.new")
        work.unlink(missing_ok=True)
        if found is not None:
            console.step(f"upgrading MLflow's database from {found}")
            shutil.copy2(path, work)
            shutil.copy2(path, path.with_name(f"{path.name}.{found}.bak"))
        self._migrate(work)
        os.replace(work, path)

    def _migrate(self, path: Path) -> None:
        from mlflow.store.db.utils import _initialize_tables, _upgrade_db
        from sqlalchemy import create_engine

        engine, new = create_engine(f"sqlite:///{path}"), not path.exists()
        try:
            if new:
                _initialize_tables(engine)
            else:
                _upgrade_db(engine)
        except Exception as error:
            raise SlipwayError(
                f"MLflow's database {database(self.root)} cannot be "
                f"{'created' if new else 'upgraded'}: {str(error).splitlines()[0]}",
                "check the disk" if new else "use the lock it was made with; nothing was changed",
            ) from error
        finally:
            engine.dispose()

    @contextmanager
    def _locked(self) -> Iterator[None]:
        """Hold the registry's lock: it goes with the process, however that ends."""
        folder = store_folder(self.root)
        folder.mkdir(parents=True, exist_ok=True)
        with (folder / ".lock").open("w") as stream:
            fcntl.flock(stream, fcntl.LOCK_EX)
            yield

    @contextmanager
    def _explained(self) -> Iterator[None]:
        """Turn what MLflow and SQLite raise into one line with the mend."""
        from mlflow.exceptions import MlflowException
        from sqlalchemy.exc import SQLAlchemyError

        try:
            yield
        except (MlflowException, SQLAlchemyError, sqlite3.Error) as error:
            text = str(error)
            if any(sign in text for sign in ("sqlite3", "database is locked", "malformed")):
                raise _broken(database(self.root), error) from error
            raise SlipwayError(f"MLflow: {text.splitlines()[0]}") from error

    def _call(self, action: Callable[[MlflowClient], T]) -> T:
        client = self._client
        with self._explained():
            return action(client)

    def _experiment(self, name: str) -> str:
        client = self._client
        with self._locked(), self._explained():
            found = client.get_experiment_by_name(name)
            if found is not None:
                return str(found.experiment_id)
            artifacts = store_folder(self.root) / "artifacts" / name
            return str(client.create_experiment(name, artifact_location=artifacts.as_uri()))

    def start_run(self, experiment: str, tags: Mapping[str, str]) -> str:
        experiment_id = self._experiment(experiment)
        run = self._call(lambda client: client.create_run(experiment_id, tags=dict(tags)))
        return str(run.info.run_id)

    def log(
        self,
        run_id: str,
        *,
        parameters: Mapping[str, Any] = {},
        metrics: Mapping[str, float] = {},
    ) -> None:
        import time

        from mlflow.entities import Metric, Param

        stamp = int(time.time() * 1000)
        self._call(
            lambda client: client.log_batch(
                run_id,
                metrics=[Metric(key, value, stamp, 0) for key, value in metrics.items()],
                params=[Param(key, str(value)) for key, value in parameters.items()],
            )
        )

    def log_folder(self, run_id: str, folder: Path, to: str) -> None:
        self._call(lambda client: client.log_artifacts(run_id, str(folder), to))

    def finish_run(self, run_id: str, *, succeeded: bool) -> None:
        status = "FINISHED" if succeeded else "FAILED"
        self._call(lambda client: client.set_terminated(run_id, status))

    def register(
        self,
        name: str,
        run_id: str,
        tags: Mapping[str, str],
        check: Callable[[Sequence[ModelVersion]], None],
    ) -> tuple[ModelVersion, bool]:
        client = self._client
        with self._locked(), self._explained():
            versions = self.versions(name)
            found = next((item for item in versions if item.run_id == run_id), None)
            made = found is None
            if found is None:
                check(versions)
                if not client.search_registered_models(f"name='{name}'"):
                    client.create_registered_model(name)
                source = f"{client.get_run(run_id).info.artifact_uri}/model"
                # The tags go into this call: a version that exists is never half-made.
                created = client.create_model_version(name, source, run_id, tags=dict(tags))
                found = ModelVersion(name, int(created.version), run_id, dict(tags))
            client.set_registered_model_alias(name, ALIAS, str(self.versions(name)[0].version))
        return found, made

    def versions(self, name: str) -> Sequence[ModelVersion]:
        if not database(self.root).exists():
            return []  # nothing was ever registered: no need to open MLflow for that
        found = self._call(lambda client: client.search_model_versions(f"name='{name}'"))
        versions = [
            ModelVersion(name, int(item.version), str(item.run_id), dict(item.tags))
            for item in found
        ]
        return sorted(versions, key=lambda item: item.version, reverse=True)

    def download(self, run_id: str, artifact: str) -> Path:
        uri = str(self._call(lambda client: client.get_run(run_id)).info.artifact_uri)
        # The artifacts are files here: no copy is made of them.
        path = Path(url2pathname(urlsplit(uri).path)) / artifact
        if not path.exists():
            raise UsageError(
                f"MLflow has no {artifact!r} of run {run_id}",
                "its files were removed; set CHAMPION=none to train a new champion",
            )
        return path
