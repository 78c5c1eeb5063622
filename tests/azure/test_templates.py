"""Templates: how the stand-in evaluates them, what it refuses, and that those of arm/ are sound."""

from __future__ import annotations

import copy
import json
import os
import re
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest

from tests.azure.standin import jsonc
from tests.azure.standin.functions import FUNCTIONS
from tests.azure.standin.messages import Refused
from tests.azure.standin.templates import make_outputs, make_plan
from tests.azure.standin.world import SUBSCRIPTION, TENANT

GROUP = {
    "id": f"/subscriptions/{SUBSCRIPTION}/resourceGroups/rg",
    "name": "rg",
    "location": "westeurope",
}
ACCOUNT = {
    "id": f"/subscriptions/{SUBSCRIPTION}",
    "subscriptionId": SUBSCRIPTION,
    "tenantId": TENANT,
}
STORAGE = "Microsoft.Storage/storageAccounts"


def template(**changed: Any) -> dict[str, Any]:
    return {
        "$schema": "https://schema.management.azure.com/schemas/2019-04-01/deploymentTemplate.json#",
        "contentVersion": "1.0.0.0",
        "resources": [],
        **changed,
    }


def resource(name: str, **changed: Any) -> dict[str, Any]:
    return {"type": STORAGE, "apiVersion": "2023-05-01", "name": name, **changed}


def plan(made: dict[str, Any], **parameters: Any) -> Any:
    given = {name: {"value": value} for name, value in parameters.items()}
    return make_plan({"template": made, "parameters": given}, GROUP, ACCOUNT)


def value(expression: Any, **changed: Any) -> Any:
    """What an expression comes to, as a variable of a template."""
    return plan(template(variables={"it": expression}, **changed)).scope.variable("it")


@pytest.mark.parametrize(
    ("expression", "wanted"),
    [
        ("[concat('a', 'it''s', '-', resourceGroup().location)]", "ait's-westeurope"),
        ("[concat(createArray('a'), createArray('b'))]", ["a", "b"]),
        ("[createObject('a', createArray('b', 1)).A[1]]", 1),
        ("[format('{0}/{1}/{0}', 'a', 2)]", "a/2/a"),
        ("[if(empty(''), 'yes', variables('no such'))]", "yes"),
        ("[and(true(), not(empty(createArray())))]", False),
        ("[json('{\"a\": [true, null]}').a]", [True, None]),
        ("[subscription().tenantId]", TENANT),
        ("[null()]", None),
        (
            "[resourceId('Microsoft.A/b/c', 'one', 'two')]",
            f"{GROUP['id']}/providers/Microsoft.A/b/one/c/two",
        ),
        (
            "[subscriptionResourceId('Microsoft.Authorization/roleDefinitions', 'x')]",
            f"{ACCOUNT['id']}/providers/Microsoft.Authorization/roleDefinitions/x",
        ),
        ("[[no expression]", "[no expression]"),
        ({"[concat('a', 'b')]": ["[true()]"]}, {"ab": [True]}),
    ],
)
def test_expressions(expression: Any, wanted: Any) -> None:
    assert value(expression) == wanted


def test_guid_is_the_same_every_time_and_another_for_another_text() -> None:
    one = value("[guid('a', 'b')]")
    assert one == value("[guid('a', 'b')]") != value("[guid('a', 'c')]")
    assert re.fullmatch(r"[0-9a-f]{8}-[0-9a-f]{4}-5[0-9a-f]{3}-[0-9a-f]{4}-[0-9a-f]{12}", one)


@pytest.mark.parametrize(
    ("expression", "says"),
    [
        ("[uniqueString('a')]", "The template function 'uniqueString' is not valid"),
        ("[parameters('none')]", "The template parameter 'none' is not found"),
        ("[variables('none')]", "The template variable 'none' is not found"),
        ("[variables('it')]", "refers to itself"),
        ("[reference('a')]", "The template function 'reference' is not expected at this location"),
        ("[guid()]", "function requires 1 or more argument(s) while '0' were provided"),
        ("[concat('a']", "could not be parsed"),
        ("['a']", "could not be parsed"),
        ("[if('true', 'a', 'b')]", "not of the expected type"),
        ("[resourceGroup().nothing]", "The language expression property 'nothing' doesn't exist"),
        ("[createArray('a')[1]]", "index '1' is out of bounds"),
        ("[resourceId('Microsoft.A/b', 'c', 'd')]", "requires '1' resource name argument(s)"),
    ],
)
def test_expressions_that_are_refused(expression: str, says: str) -> None:
    with pytest.raises(Refused) as refused:
        value(expression)
    assert refused.value.code == "InvalidTemplate"
    assert says in refused.value.message


PARAMETERS = {
    "name": {"type": "string", "minLength": 3, "maxLength": 5},
    "size": {"type": "int", "defaultValue": 2, "minValue": 1, "maxValue": 3},
    "tier": {"type": "string", "defaultValue": "a", "allowedValues": ["a", "b"]},
    "key": {"type": "secureString", "defaultValue": "hidden"},
}


@pytest.mark.parametrize(
    ("given", "says"),
    [
        ({}, "The value for the template parameter 'name' is not provided"),
        ({"name": 3}, "Expected 'String'. Actual 'int'"),
        ({"name": "ab"}, "The length '2' is beyond minLength '3'"),
        ({"name": "abcdef"}, "beyond maxLength '5'"),
        ({"name": "abc", "size": 4}, "The value '4' is beyond maxValue '3'"),
        ({"name": "abc", "size": True}, "Expected 'Int'. Actual 'bool'"),
        ({"name": "abc", "tier": "c"}, "is not part of the allowed value(s): 'a,b'"),
        ({"name": "abc", "more": 1}, "do not correspond to any parameters defined"),
    ],
)
def test_parameters_that_are_refused(given: dict[str, Any], says: str) -> None:
    with pytest.raises(Refused, match="Deployment template validation failed") as refused:
        plan(template(parameters=PARAMETERS), **given)
    assert says in refused.value.message


def test_a_secure_parameter_is_never_shown() -> None:
    made = plan(
        template(
            parameters=PARAMETERS,
            outputs={"it": {"type": "secureString", "value": "[parameters('key')]"}},
        ),
        name="abc",
    )
    assert made.parameters["key"] == {"type": "SecureString"}
    assert made.parameters["size"] == {"type": "Int", "value": 2}
    assert make_outputs(made, made.scope) == {"it": {"type": "SecureString"}}


@pytest.mark.parametrize(
    ("changed", "code", "says"),
    [
        ({"resource": []}, "InvalidRequestContent", "Could not find member 'resource'"),
        ({"$schema": "https://example.org"}, "InvalidTemplate", "schema"),
        (
            {"resources": [resource("a", sku_name="x")]},
            "InvalidRequestContent",
            "Could not find member 'sku_name' on object of type 'TemplateResource'",
        ),
        (
            {"resources": [resource("a", copy={"name": "c", "count": 2})]},
            "InvalidRequestContent",
            "Could not find member 'copy'",
        ),
        ({"resources": [resource("a/b")]}, "InvalidTemplate", "incorrect segment lengths"),
        ({"resources": [resource("a"), resource("A")]}, "InvalidTemplate", "multiple times"),
        (
            {"resources": [resource("a", dependsOn=["b"])]},
            "InvalidTemplate",
            "The resource 'b' is not defined in the template",
        ),
        (
            {"resources": [resource("a", dependsOn=["b"]), resource("b", dependsOn=["a"])]},
            "InvalidTemplate",
            "Circular dependency detected",
        ),
        ({"resources": [resource("a", condition="true")]}, "InvalidTemplate", "no boolean"),
        (
            {"resources": [resource("a", properties={"b": "[reference('c').d]"})]},
            "InvalidTemplate",
            "is not defined in the template",
        ),
        (
            {
                "resources": [
                    resource("a", condition="[not(true())]"),
                    resource("b", tags={"of": f"[reference(resourceId('{STORAGE}', 'a')).x]"}),
                ]
            },
            "InvalidTemplate",
            "The template resource 'Microsoft.Storage/storageAccounts/b' reference to",
        ),
        ({"outputs": {"a": {"type": "text", "value": ""}}}, "InvalidTemplate", "no valid type"),
    ],
)
def test_templates_that_are_refused(changed: dict[str, Any], code: str, says: str) -> None:
    with pytest.raises(Refused) as refused:
        plan(template(**changed))
    assert refused.value.code == code
    assert says in refused.value.message


def test_the_order_follows_what_depends_and_what_is_referred_to() -> None:
    made = plan(
        template(
            resources=[
                resource("last", dependsOn=[f"[resourceId('{STORAGE}', 'middle')]"]),
                resource("middle", tags={"of": f"[reference(resourceId('{STORAGE}', 'first')).x]"}),
                resource("never", condition="[not(true())]"),
                resource("first"),
            ]
        )
    )
    names = [each.id.rpartition("/")[2] for each in made.resources]
    assert sorted(names) == ["first", "last", "middle"]
    assert names.index("first") < names.index("middle") < names.index("last")


def test_comments_and_texts_over_lines_are_read_as_az_posts_them() -> None:
    posted = b'{"properties": {"mode": "Incremental", template:{ // a "comment"\n"a": "http://x",\n/* b */ "c": "d\ne"}}}'
    assert jsonc.load(posted)["properties"]["template"] == {"a": "http://x", "c": "d\ne"}
    with pytest.raises(Refused, match="could not be deserialized"):
        jsonc.load(b'{"properties": {template:{"a": }}}')


def templates(root: Path) -> dict[str, Any]:
    return {
        path.name: json.loads(path.read_text("utf-8")) for path in (root / "arm").glob("*.json")
    }


def test_only_the_functions_that_our_templates_use_are_known(root: Path) -> None:
    used = set()
    for made in templates(root).values():
        for text in re.findall(r'"(\[[^"]*\])"', json.dumps(made).replace('\\"', "'")):
            used |= {name.lower() for name in re.findall(r"([A-Za-z]\w*)\(", text)}
    assert used == FUNCTIONS.keys() | {"if"}


def main(root: Path, **parameters: Any) -> Any:
    """arm/main.json with the names that BASE_NAME=Kiln42 gives."""
    names = {
        "storageName": "kiln42amlsa",
        "vaultName": "Kiln42-AML-KV",
        "logsName": "Kiln42-AML-LA",
        "insightsName": "Kiln42-AML-AI",
        "registryName": "kiln42amlcr",
        "workspaceName": "kiln-ws",
        "identityName": "kiln42-id",
        "clusterIdentityName": "kiln42-cl",
    }
    return plan(copy.deepcopy(templates(root)["main.json"]), **names, **parameters)


def test_the_slot_is_filled_without_the_app(root: Path) -> None:
    made = templates(root)["webapp.json"]
    given = {
        **{name: name for name in ("identity", "identityClient", "workspace")},
        "name": "kiln-web",
        "candidate": {"image": "i", "settings": []},
    }
    assert "sites" in types(plan(made, first=True, **given))
    assert "sites" not in types(plan(made, first=False, **given))


def types(made: Any) -> list[str]:
    return sorted({each.type.partition("/")[2] for each in made.resources})


def test_role_assignments_are_a_parameter_and_have_lasting_names(root: Path) -> None:
    with_roles = main(root, operatorId="someone")
    again = main(root, operatorId="someone")
    assignments = [each for each in with_roles.resources if "roleAssignments" in each.type]
    assert len(assignments) == 9
    assert [each.id for each in assignments] == [
        each.id for each in again.resources if "roleAssignments" in each.type
    ]
    assert all(each.body["properties"]["principalType"] for each in assignments)
    # Nobody to give the operator's roles to, nobody to give any.
    assert sum("roleAssignments" in each.type for each in main(root).resources) == 7
    assert "roleAssignments" not in types(main(root, operatorId="a", roleAssignments=False))


def test_an_existing_workspace_gets_identities_and_roles_only(root: Path) -> None:
    made = main(root, existingWorkspace=True, operatorId="someone")
    assert types(made) == ["roleAssignments", "userAssignedIdentities"]
    assert sum("roleAssignments" in each.type for each in made.resources) == 6


def test_what_is_made_is_hardened(root: Path) -> None:
    made = {each.type.rpartition("/")[2]: each.body for each in main(root).resources}
    storage = made["storageAccounts"]["properties"]
    assert (storage["minimumTlsVersion"], storage["supportsHttpsTrafficOnly"]) == ("TLS1_2", True)
    assert storage["allowBlobPublicAccess"] is False
    vault = made["vaults"]["properties"]
    assert vault["enableRbacAuthorization"] is True
    assert vault["enableSoftDelete"] is True
    assert vault["enablePurgeProtection"] is None
    assert made["registries"]["properties"]["adminUserEnabled"] is False
    assert made["registries"]["properties"]["anonymousPullEnabled"] is False
    protected = {each.type: each.body for each in main(root, purgeProtection=True).resources}
    assert protected["Microsoft.KeyVault/vaults"]["properties"]["enablePurgeProtection"] is True


@pytest.mark.azure
def test_checkov_passes_and_each_exception_has_its_reason(root: Path) -> None:
    checkov = shutil.which("checkov")
    if checkov is None:
        pytest.skip("not run: no checkov (docker/locks/checks.txt)")
    done = subprocess.run(
        [checkov, "--directory", "arm", "--framework", "arm", "--output", "json"],
        cwd=root,
        env={**os.environ, "LOG_LEVEL": "ERROR"},
        capture_output=True,
        text=True,
        timeout=300,
    )
    report = json.loads(done.stdout)
    assert done.returncode == 0, report["results"]["failed_checks"]
    assert report["summary"]["parsing_errors"] == 0
    assert report["summary"]["passed"] > 0
    skipped = report["results"]["skipped_checks"]
    assert skipped
    for each in skipped:
        assert len(each["check_result"].get("suppress_comment") or "") > 20, each["check_id"]
