"""What the stand-in answers, and where each answer's form is from."""

from __future__ import annotations

import re

import pytest

from tests.azure.standin.routes import ARM
from tests.azure.standin.standin import StandIn

pytestmark = pytest.mark.azure


def test_every_route_and_type_names_its_source_or_says_that_it_is_assumed(
    shared_standin: StandIn,
) -> None:
    routes, types = shared_standin.routes.all, [*shared_standin.types]
    assert len(routes) > 200
    told = {f"{each.host}{each.path}": each.source for each in routes}
    told |= {each.name: each.source for each in types if each.source != "the tests' own"}
    # A file, a page or a product of which it can be looked up.
    known = re.compile(
        r"assumed|[\w-]+\.(json|yaml|py|md)|https?://|RFC \d+|REST|rest|recording|azure-|az.s client|sdk|msal|kudu|insights"
    )
    assert {name: source for name, source in told.items() if not known.search(source)} == {}
    assert [name for name, source in told.items() if "as above" in source] == []


def test_every_route_of_arm_knows_its_api_versions(shared_standin: StandIn) -> None:
    """But for those that ask the resource's type, and an operation's own address."""
    without = [
        each.path for each in shared_standin.routes.all if each.host == ARM and not each.versions
    ]
    others = [
        path for path in without if "{rest...}" not in path and "operation" not in path.lower()
    ]
    assert others == []
