"""Rules of the deployed service that need no Azure to be seen."""

from __future__ import annotations

from pathlib import Path

import pytest

from scripts.errors import UsageError
from scripts.platforms.azure.aci import ContainerInstance
from scripts.platforms.azure.az import Az
from scripts.settings import load_settings


@pytest.mark.parametrize(
    ("name", "value", "mend"),
    [("DEPLOY_MEMORY_GB", "0.25", "0.3"), ("DEPLOY_CPU", "0.505", "0.51")],
)
def test_a_size_that_container_instances_has_not(
    tmp_path: Path, name: str, value: str, mend: str
) -> None:
    settings = load_settings(tmp_path, {name: value, "ALLOW_HTTP": "true"})
    with pytest.raises(UsageError, match=f"{name}={value} is no multiple of") as error:
        ContainerInstance(tmp_path, settings, Az(settings))._check()
    assert error.value.mend == f"set {name}={mend}"
