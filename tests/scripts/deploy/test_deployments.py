"""The rules of the stack of deployments."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from scripts.errors import UsageError
from scripts.platforms import deployments
from scripts.platforms.base import Deployment, Release


def deployment(number: int, version: int, **fields: Any) -> Deployment:
    values: dict[str, Any] = {
        "model_name": "adder",
        "inputs": f"inputs{version}",
        "image_id": None,
        "kind": "process",
        "url": "",
        "inner_url": None,
        "previous": None,
        "rejected": None,
        "serving": False,
        "healthy": False,
        "started": "",
        **fields,
    }
    return Deployment(number=number, version=version, **values)


def release(version: int, name: str = "adder") -> Release:
    return Release(name, version, f"inputs{version}", Path(), None)


def test_numbers_go_on_from_the_highest() -> None:
    assert deployments.next_number([]) == 1
    assert deployments.next_number([deployment(7, 2), deployment(5, 1)]) == 8


def test_a_new_deployment_stands_on_the_latest() -> None:
    assert deployments.previous_of_new([], release(1)) is None
    history = [deployment(2, 2, serving=True, previous=1), deployment(1, 1)]
    assert deployments.previous_of_new(history, release(3)) == 2
    assert deployments.previous_of_new(history, release(2)) == 2, "other settings, or FORCE=1"


def test_one_that_is_brought_back_stands_where_it_stood() -> None:
    stopped = [deployment(2, 2, previous=1), deployment(1, 1)]
    assert deployments.previous_of_new(stopped, release(2)) == 1
    assert deployments.previous_of_new(stopped, release(3)) == 2


@pytest.mark.parametrize(
    ("rejected", "deployed", "stays"), [(None, 3, None), (4, 5, None), (4, 4, None), (4, 3, 4)]
)
def test_a_newer_version_clears_the_rejected_one(
    rejected: int | None, deployed: int, stays: int | None
) -> None:
    history = [deployment(5, 2, rejected=rejected)]
    assert deployments.rejected_after_deploy(history, release(deployed)) == stays


def test_another_model_has_nothing_to_do_with_it() -> None:
    history = [deployment(5, 2, rejected=4)]
    assert deployments.rejected_after_deploy(history, release(1, "other")) is None


@pytest.mark.parametrize(
    ("current", "rejected", "target", "expected"),
    [(4, None, 3, 4), (3, 4, 2, 4), (3, None, 3, None), (2, None, 3, None)],
)
def test_the_newest_version_left_behind_is_rejected(
    current: int, rejected: int | None, target: int, expected: int | None
) -> None:
    found = deployments.rejected_after_rollback(
        deployment(9, current, rejected=rejected), deployment(8, target)
    )
    assert found == expected


def test_a_rollback_needs_something_that_serves_and_something_before_it() -> None:
    with pytest.raises(UsageError, match="nothing is deployed"):
        deployments.rollback_target([deployment(1, 1)])
    with pytest.raises(UsageError, match="no previous deployment"):
        deployments.rollback_target([deployment(1, 1, serving=True)])
    with pytest.raises(UsageError, match=r"deployment 4, .*no longer"):
        deployments.rollback_target([deployment(5, 1, serving=True, previous=4)])


def test_what_starts_again_after_a_rollback_is_not_what_was_rolled_back() -> None:
    with pytest.raises(UsageError) as stopped:
        deployments.rollback_target([deployment(1, 1)])
    assert "`make deploy FORCE=1`" in stopped.value.mend
    with pytest.raises(UsageError) as stopped:
        deployments.rollback_target([deployment(3, 1, rejected=2), deployment(2, 2)])
    assert "`make deploy MODEL_VERSION=1`" in stopped.value.mend


def test_what_a_rollback_can_reach_is_kept() -> None:
    history = [
        deployment(6, 2, previous=1),
        deployment(5, 3, previous=2),
        deployment(4, 4, previous=3),
        deployment(3, 3, previous=2),
        deployment(2, 2, previous=1),
        deployment(1, 1),
    ]
    assert deployments.kept(history) == {6, 5, 4, 1}
    assert deployments.kept(history[2:]) == {4, 3, 2}
    assert deployments.kept([]) == set()
