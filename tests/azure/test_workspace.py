"""What is asked of the workspace while Azure has its troubles."""

from __future__ import annotations

import pytest
import requests

from scripts.errors import SlipwayError
from scripts.platforms.azure.workspace import enduring, explained, status_of


def failing(status: int, times: int) -> list[requests.HTTPError]:
    answer = requests.Response()
    answer.status_code = status
    return [requests.HTTPError("no answer now", response=answer) for _ in range(times)]


@pytest.mark.parametrize(
    ("status", "times", "seen"), [(503, 3, True), (429, 4, False), (404, 1, False)]
)
def test_a_run_is_not_given_up_for_a_fault_that_passes(status: int, times: int, seen: bool) -> None:
    faults = failing(status, times)

    def look() -> str:
        with explained("run 7"):
            if faults:
                raise faults.pop()
        return "Running"

    if seen:
        assert enduring(look, (0.0,) * 3) == "Running"
    else:
        with pytest.raises(SlipwayError, match=f"run 7: .*{status}"):
            enduring(look, (0.0,) * 3)


@pytest.mark.parametrize(
    ("status", "mend"), [(401, "make login"), (403, "role"), (429, "later"), (503, "later")]
)
@pytest.mark.parametrize("doing", ["retrieving", "registering"])
def test_a_plain_exception_of_the_sdk_has_its_status_and_mend(
    status: int, mend: str, doing: str
) -> None:
    body = '{"error": {"code": "UserError", "message": "no luck"}}'
    error = Exception(f"Error {doing} the environment definition. Code: {status}\n: {body}")
    assert status_of(error) == status
    with pytest.raises(SlipwayError) as raised, explained("environment kiln"):
        raise error
    assert raised.value.message == f"environment kiln: Azure ML says: no luck ({status})"
    assert mend in raised.value.mend
    # A mistake of ours stays one.
    with pytest.raises(Exception, match=r"^Code: 503$"), explained("environment kiln"):
        raise Exception("Code: 503")
