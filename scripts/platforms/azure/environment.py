"""The Azure ML environment that training runs in: our toolbox image, by its digest."""

from __future__ import annotations

import time
from typing import Any

from scripts import console
from scripts.platforms.azure.workspace import explained, silenced, status_of
from scripts.settings import Settings

DEFAULT_NAME = "slipway-toolbox"


def ensure_environment(workspace: Any, settings: Settings, image: str) -> Any:
    """The environment with `image`, registered anew if it differs or AML_REBUILD_ENVIRONMENT says so."""
    name = settings.AML_ENV_NAME or DEFAULT_NAME
    with explained(f"environment {name}"), silenced():
        from azureml.core import Environment

        try:
            found = Environment.get(workspace, name)
        except Exception as error:
            if status_of(error) != 404:
                raise
            found = None
    if (
        found is not None
        and found.docker.base_image == image
        and not settings.AML_REBUILD_ENVIRONMENT
    ):
        return found
    console.step(f"registering environment {name}")
    with explained(f"environment {name}"), silenced():
        environment = Environment(name)
        environment.docker.base_image = image
        environment.docker.base_dockerfile = None
        # Our image is whole: nothing is to be installed on top.
        environment.python.user_managed_dependencies = True
        environment.python.interpreter_path = "python"
        if settings.AML_REBUILD_ENVIRONMENT:
            # An equal definition would only be given its old version.
            environment.environment_variables = {"SLIPWAY_REBUILT": str(int(time.time()))}
        return environment.register(workspace)
