"""The rules of deployments, wherever they run.

Deployments form a stack: `previous` is what a rollback serves again, and a rollback makes a new
deployment whose `previous` is one further down. So after 2, 3 and 4, rollbacks serve 3 and then 2.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from scripts.errors import UsageError
from scripts.platforms.base import Deployment, Release, start_again

#: How many deployments are kept, counting the one that serves.
KEPT = 3


def next_number(history: Sequence[Deployment]) -> int:
    return max((item.number for item in history), default=0) + 1


def previous_of_new(history: Sequence[Deployment], release: Release) -> int | None:
    """What a rollback from a new deployment of `release` would serve.

    That is the latest deployment, unless it was stopped and is only brought back by this one.
    """
    if not history:
        return None
    latest = history[0]
    if not latest.serving and latest.inputs == release.inputs:
        return latest.previous
    return latest.number


def rejected_after_deploy(history: Sequence[Deployment], release: Release) -> int | None:
    """The rejected version that stays rejected while `release` serves: one newer than it."""
    rejected = rejected_version(history, release.model_name)
    return rejected if rejected is not None and release.version < rejected else None


def rejected_version(history: Sequence[Deployment], model_name: str) -> int | None:
    """The version a rollback left behind; neither it nor an older one is deployed by itself."""
    if history and history[0].model_name == model_name:
        return history[0].rejected
    return None


def rejected_after_rollback(current: Deployment, target: Deployment) -> int | None:
    """The newest version left behind; none if only settings are rolled back."""
    if current.model_name != target.model_name:
        return None
    left = [current.rejected] if current.rejected is not None else []
    if current.version > target.version:
        left.append(current.version)
    return max(left, default=None)


def rollback_target(history: Sequence[Deployment]) -> tuple[Deployment, Deployment]:
    """The serving deployment and the one before it; UsageError when there is none."""
    current = next((item for item in history if item.serving), None)
    if current is None:
        raise nothing_deployed(history)
    if current.previous is None:
        raise UsageError(
            f"deployment {current.number} ({current.model_name} version {current.version}) has no"
            " previous deployment to roll back to",
            "deploy a version by its number: `make deploy MODEL_VERSION=<n>`",
        )
    target = next((item for item in history if item.number == current.previous), None)
    if target is None:
        raise UsageError(
            f"deployment {current.previous}, the previous one, is no longer kept",
            "deploy a version by its number: `make deploy MODEL_VERSION=<n>`",
        )
    return current, target


def nothing_deployed(history: Sequence[Deployment]) -> UsageError:
    """The error where something should serve; what once did is not redone by make itself."""
    return UsageError(
        "nothing is deployed",
        (
            f"run `{start_again(history)}`: what was deployed was stopped"
            if history
            else "run `make deploy`"
        ),
    )


def kept(history: Iterable[Deployment]) -> set[int]:
    """The numbers to keep: the last three, and the last three a rollback can reach."""
    by_number = {item.number: item for item in history}
    numbers = set(sorted(by_number, reverse=True)[:KEPT])
    step: int | None = max(by_number, default=None)
    for _ in range(KEPT):
        if step is None or step not in by_number:
            break
        numbers.add(step)
        step = by_number[step].previous
    return numbers
