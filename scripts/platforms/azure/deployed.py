"""What Azure itself remembers of a service's deployments: a few tags of the thing that runs.

`slipway.last` is the highest number given, `slipway.proven` the deployment that answered the sample
right and was let serve; one with a higher number is still to be proven, or was left so by a call that
was cut short. The rest is JSON in pieces, because a tag holds 256 characters.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, field, replace

from scripts.platforms import deployments
from scripts.platforms.base import Deployment, Release

#: Characters of a tag's value (https://learn.microsoft.com/azure/azure-resource-manager/management/tag-resources).
LONGEST = 256
LAST, PROVEN, PIECES, PIECE = "slipway.last", "slipway.proven", "slipway.pieces", "slipway.piece."


@dataclass(frozen=True)
class Kept:
    """One deployment; `image` is by digest, `settings` those it was started with."""

    number: int
    model_name: str
    version: int
    inputs: str
    image_id: str
    image: str
    previous: int | None
    rejected: int | None
    started: str
    settings: Mapping[str, str]
    #: The fingerprint of the secrets it was started with.
    secrets: str = ""

    def deployment(self, kind: str, url: str, *, serving: bool, healthy: bool) -> Deployment:
        """As verbs see it."""
        return Deployment(
            number=self.number,
            model_name=self.model_name,
            version=self.version,
            inputs=self.inputs,
            image_id=self.image_id,
            kind=kind,
            url=url,
            inner_url=None,
            previous=self.previous,
            rejected=self.rejected,
            serving=serving,
            healthy=healthy,
            started=self.started,
        )


@dataclass(frozen=True)
class State:
    """The deployments still known, the newest first."""

    last: int = 0
    proven: int = 0
    kept: tuple[Kept, ...] = field(default=())

    @property
    def history(self) -> tuple[Kept, ...]:
        """Those that were proven; the first of them serves, unless it was stopped."""
        return tuple(each for each in self.kept if each.number <= self.proven)

    @property
    def pending(self) -> bool:
        """Whether a call was cut short before it proved what it had begun."""
        return any(each.number > self.proven for each in self.kept)

    def get(self, number: int) -> Kept | None:
        return next((each for each in self.kept if each.number == number), None)

    def begin(self, new: Kept) -> State:
        """With `new`, still to be proven; what a rollback no longer reaches is forgotten."""
        every = (new, *self.history)
        wanted = deployments.kept(
            each.deployment("", "", serving=False, healthy=False) for each in every
        )
        return State(new.number, self.proven, tuple(e for e in every if e.number in wanted))

    def failed(self) -> State:
        """Without what was still to be proven; its number is never used again."""
        return replace(self, kept=self.history)

    def prove(self, number: int) -> State:
        """With that deployment serving."""
        return replace(self, proven=number)

    def tags(self) -> dict[str, str]:
        """As the thing that runs keeps it."""
        text = json.dumps([asdict(each) for each in self.kept], separators=(",", ":"))
        pieces = [text[start : start + LONGEST] for start in range(0, len(text), LONGEST)]
        return {
            LAST: str(self.last),
            PROVEN: str(self.proven),
            PIECES: str(len(pieces)),
            **{f"{PIECE}{number}": piece for number, piece in enumerate(pieces)},
        }


def read(tags: Mapping[str, str]) -> State | None:
    """The state in `tags`; None where there is none, or it cannot be read."""
    try:
        text = "".join(tags[f"{PIECE}{number}"] for number in range(int(tags[PIECES])))
        kept = tuple(Kept(**each) for each in json.loads(text))
        return State(int(tags[LAST]), int(tags[PROVEN]), kept)
    except (KeyError, ValueError, TypeError):
        return None


def of_release(
    release: Release,
    history: Iterable[Deployment],
    state: State,
    *,
    image: str,
    image_id: str,
    settings: Mapping[str, str],
    started: str,
) -> Kept:
    """The next deployment, of a release."""
    known = list(history)
    return Kept(
        number=state.last + 1,
        model_name=release.model_name,
        version=release.version,
        inputs=release.inputs,
        image_id=image_id,
        image=image,
        previous=deployments.previous_of_new(known, release),
        rejected=deployments.rejected_after_deploy(known, release),
        started=started,
        settings=settings,
    )
