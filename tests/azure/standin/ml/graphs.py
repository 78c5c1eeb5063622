"""Graphs of pipelines: their nodes checked, ordered, and each made into what a run executes.

A node has the module's snapshot and the run configuration as JSON; its command line is the module's
`Arguments`: literals, the graph's parameters, and folders of its inputs and outputs.
"""

from __future__ import annotations

import json
import shlex
from dataclasses import dataclass, field

from tests.azure.standin.messages import Json
from tests.azure.standin.ml.workspace import Workspace, new_id, stamp, user_error

#: Assignments of a node's parameter: a value, or the name of a parameter of the graph.
LITERAL, GRAPH_PARAMETER = ("0", "Literal"), ("1", "GraphParameterName")
#: Outputs and inputs that only say which step comes after which.
AFTER = "_run_after_"
#: Where a step finds its inputs and leaves its outputs, seen from its working directory.
PORTS = ".azureml-ports"


@dataclass
class Kept:
    """What the pipeline service keeps of a workspace, each by id."""

    data_types: dict[str, Json] = field(default_factory=dict)
    modules: dict[str, Json] = field(default_factory=dict)
    graphs: dict[str, Json] = field(default_factory=dict)
    interfaces: dict[str, Json] = field(default_factory=dict)
    pipelines: dict[str, Json] = field(default_factory=dict)
    runs: dict[str, Json] = field(default_factory=dict)


def kept(workspace: Workspace) -> Kept:
    found = workspace.rooms.setdefault("pipelines", Kept())
    assert isinstance(found, Kept)
    return found


def module_shown(module: Json) -> Json:
    """A module with its interface as GET shows it."""
    interface = module["StructuredInterface"]

    def parameters(kind: str) -> list[Json]:
        return [
            {
                "Name": each["Name"],
                "DefaultValue": each.get("DefaultValue"),
                "IsOptional": each.get("IsOptional"),
                "Type": each.get("ParameterType"),
                "MinMaxRules": [],
                "EnumRules": [],
            }
            for each in interface.get(kind) or []
        ]

    inputs = [
        {
            "Name": each["Name"],
            "DataTypesIds": each.get("DataTypeIdsList"),
            "IsOptional": each.get("IsOptional"),
        }
        for each in interface.get("Inputs") or []
    ]
    outputs = [
        {"Name": each["Name"], "DataTypeId": each.get("DataTypeId")}
        for each in interface.get("Outputs") or []
    ]
    return {
        "Data": module,
        "Interface": {
            "Parameters": parameters("Parameters"),
            "MetadataParameters": parameters("MetadataParameters"),
            "DataPathParameters": [],
            "DataPathParameterList": [],
            "Ports": {"Inputs": inputs, "Outputs": outputs},
        },
    }


def keep(workspace: Workspace, graph: Json | None, interface: Json | None) -> Json:
    """Check and keep a graph; Refused (400) with what is wrong."""
    if not isinstance(graph, dict) or not graph.get("ModuleNodes"):
        raise user_error(400, "The pipeline has no steps.")
    if graph.get("DatasetNodes") or graph.get("SubGraphNodes"):
        raise user_error(400, "The stand-in knows graphs of modules only.")
    known = kept(workspace)
    names = {each["Name"] for each in (interface or {}).get("Parameters") or []}
    for node in graph["ModuleNodes"]:
        module = known.modules.get(str(node.get("ModuleId")))
        if module is None:
            raise user_error(400, f"Node {node.get('Id')} has an unknown module.")
        for parameter in node.get("ModuleParameters") or []:
            kind, value = str(parameter.get("ValueType")), parameter.get("Value")
            if kind in GRAPH_PARAMETER and value not in names:
                raise user_error(400, f"The graph has no parameter {value}.")
            if kind not in (*LITERAL, *GRAPH_PARAMETER):
                raise user_error(400, f"The parameter type {kind} is not known.")
    made = {
        **graph,
        "Id": new_id(),
        "Etag": new_id(),
        "CreatedDate": stamp(),
        "LastModifiedDate": stamp(),
        "EntityStatus": "Active",
    }
    before = predecessors(made)
    if _rounds(before):
        raise user_error(400, "The graph has a cycle.")
    known.graphs[made["Id"]] = made
    known.interfaces[made["Id"]] = interface or {}
    return made


def predecessors(graph: Json) -> dict[str, set[str]]:
    """The nodes each node comes after."""
    before: dict[str, set[str]] = {node["Id"]: set() for node in graph["ModuleNodes"]}
    for edge in graph.get("Edges") or []:
        source, target = edge["SourceOutputPort"], edge["DestinationInputPort"]
        if target.get("NodeId"):
            if source.get("NodeId") not in before or target["NodeId"] not in before:
                raise user_error(400, "An edge leads to no node.")
            before[target["NodeId"]].add(source["NodeId"])
    return before


def _rounds(before: dict[str, set[str]]) -> bool:
    """Whether some node comes after itself."""
    left = {node: set(nodes) for node, nodes in before.items()}
    while left:
        ready = [node for node, nodes in left.items() if not nodes & left.keys()]
        if not ready:
            return True
        for node in ready:
            del left[node]
    return False


def sources(graph: Json, node_id: str) -> dict[str, tuple[str, str]]:
    """For each input port of a node that brings data: the node and its output port."""
    return {
        edge["DestinationInputPort"]["PortName"]: (
            edge["SourceOutputPort"]["NodeId"],
            edge["SourceOutputPort"]["PortName"],
        )
        for edge in graph.get("Edges") or []
        if edge["DestinationInputPort"].get("NodeId") == node_id
        and not edge["DestinationInputPort"]["PortName"].startswith(AFTER)
    }


def outputs(module: Json) -> list[str]:
    """The output ports of a module that bring data."""
    return [
        each["Name"]
        for each in module["StructuredInterface"].get("Outputs") or []
        if not each["Name"].startswith(AFTER)
    ]


@dataclass(frozen=True)
class Step:
    """What a node executes: its run configuration, snapshot and environment variables."""

    name: str
    configuration: Json
    snapshot_id: str | None
    variables: dict[str, str]


def step(graph: Json, node: Json, module: Json, assignments: Json) -> Step:
    """A node with the values of the graph's parameters."""
    values: dict[str, str | None] = {}
    for each in node.get("ModuleParameters") or []:
        value = each.get("Value")
        is_name = str(each.get("ValueType")) in GRAPH_PARAMETER
        values[each["Name"]] = assignments.get(value) if is_name else value
    interface = module["StructuredInterface"]
    variables = {
        str(each.get("EnvironmentVariableOverride") or each["Name"]): str(values.get(each["Name"]))
        for each in interface.get("Parameters") or []
        if each.get("SetEnvironmentVariable") and values.get(each["Name"]) is not None
    }
    arguments = []
    for argument in interface.get("Arguments") or []:
        kind, value = argument["ValueType"], str(argument["Value"])
        if kind in ("Input", "Output"):
            value = f"{PORTS}/{value}"
            variables[f"AZUREML_DATAREFERENCE_{argument['Value']}"] = value
        elif kind == "Parameter":
            value = str(values.get(value) or "")
        elif kind != "Literal":
            raise user_error(400, f"The stand-in knows no arguments of type {kind}.")
        arguments.append(value)
    configuration = json.loads(node.get("Runconfig") or "{}")
    configuration["target"] = values.get("Target") or configuration.get("target")
    if values.get("Command"):
        configuration["command"] = [str(values["Command"]), *arguments]
    else:
        python = configuration["environment"]["python"].get("interpreterPath") or "python"
        line = [python, str(values.get("Script")), *arguments]
        configuration["script"] = values.get("Script")
        configuration["command"] = shlex.join(line)
    return Step(str(module["Name"]), configuration, module.get("StorageId"), variables)
