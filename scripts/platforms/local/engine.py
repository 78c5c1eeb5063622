"""The Docker engine of this machine."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

from scripts.errors import SlipwayError, UsageError

if TYPE_CHECKING:
    from docker import DockerClient


@contextmanager
def explained() -> Iterator[None]:
    """Turn what docker-py raises into one line with the mend."""
    import docker.errors
    import requests

    try:
        yield
    except docker.errors.APIError as error:
        raise SlipwayError(
            f"the Docker engine refused: {error.explanation or error}",
            "see `make doctor`; `docker system df` shows what fills its disk",
        ) from error
    except (docker.errors.DockerException, requests.RequestException) as error:
        text = " ".join(str(error).split())[:200]
        raise UsageError(
            f"the Docker engine does not answer: {text}",
            "start Docker (`make doctor` checks it), or use RUNNER=venv",
        ) from error


def connect() -> DockerClient:
    """A client of the engine; UsageError if it does not answer."""
    import docker

    with explained():
        client = docker.from_env(timeout=120)
        client.ping()
    return client
