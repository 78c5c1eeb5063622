"""The table of faults: what can go wrong on Azure, which verbs it can hit, and what a user then sees.

docs/azure.md ("What can go wrong") shows this table; test_faults.py makes each fault happen to each of its
verbs. In `says` and `mend` "…" stands for any text.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence

from tests.azure.fault import Fault, Hit
from tests.azure.faults_model import MODEL
from tests.azure.faults_place import PLACE
from tests.azure.faults_service import SERVICE

FAULTS: Sequence[Fault] = (*PLACE, *MODEL, *SERVICE)


def pairs() -> Iterator[tuple[Fault, Hit, str]]:
    """Each fault with each verb it hits."""
    for fault in FAULTS:
        for hit in fault.hits:
            for verb in hit.verbs.split():
                yield fault, hit, verb


def holds(text: str, wanted: str) -> bool:
    """Whether the text has what is wanted, "…" being anything within a few lines."""
    pattern = ".*?".join(re.escape(part.strip()) for part in wanted.split("…"))
    return re.search(pattern, text, re.DOTALL) is not None


def page() -> str:
    """The table as docs/azure.md has it."""
    lines = ["| fault | verbs | code | the message | the mend |", "| --- | --- | --- | --- | --- |"]
    for fault in FAULTS:
        named = f"**{fault.name}**: {fault.sentence}"
        for hit in fault.hits:
            verbs = " ".join(f"`{verb}`" for verb in hit.verbs.split())
            verbs = re.sub(r"`deploy-(\w+)`", r"`deploy` (\1)", verbs)
            says = f"`{hit.says}`" if hit.says else ""
            if hit.code == 0:
                says, mend = says or "none", "none: it goes on by itself"
            else:
                mend = hit.mend.replace("|", "\\|")
            lines.append(f"| {named} | {verbs} | {hit.code} | {says} | {mend} |")
            named = ""
    return "\n".join(lines)
