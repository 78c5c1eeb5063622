"""`kubectl`, as `az aks command invoke` runs it: the commands a release needs, on one cluster.

Source: kubernetes.io/docs/reference/kubectl; its messages are those of kubectl 1.33. What it does not
know it refuses as a shell or kubectl would.
"""

from __future__ import annotations

import copy
import json
import re
import shlex
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import yaml

from tests.azure.standin.aks.cluster import LAST, Cluster, stamp
from tests.azure.standin.aks.fields import KINDS, Invalid, kind_named
from tests.azure.standin.aks.rollout import REVISION, without_hash
from tests.azure.standin.messages import Json

#: Options by command that take a value; `--x` alone is a flag.
VALUES = {"-n", "--namespace", "-f", "--filename", "-o", "--output", "-l", "--selector", "-c"} | {
    *("--container", "--tail", "--timeout", "--to-revision", "--replicas", "--for", "--since"),
    *("--field-selector", "--sort-by", "--dry-run", "--revision", "--grace-period", "--cascade"),
}
FLAGS = {
    *("--overwrite", "--ignore-not-found", "--previous", "-p", "--all-containers", "--prefix"),
    *("--server-side", "--wait", "--timestamps", "--watch", "--force-conflicts", "--now"),
}
LONG = {
    "-n": "--namespace",
    "-f": "--filename",
    "-o": "--output",
    "-l": "--selector",
    "-c": "--container",
    "-p": "--previous",
}


@dataclass
class Call:
    """One kubectl command taken apart."""

    cluster: Cluster
    files: Mapping[str, bytes]
    words: list[str]
    options: dict[str, list[str]] = field(default_factory=dict)

    @property
    def namespace(self) -> str:
        return self.option("--namespace") or "default"

    def option(self, name: str) -> str:
        return self.options.get(name, [""])[-1]

    def has(self, name: str) -> bool:
        return self.option(name) not in ("", "false")

    @property
    def labels(self) -> dict[str, str]:
        """What -l asks for: only equality is known, and `!=`, which `unlike` has."""
        text = self.option("--selector")
        found = {}
        for part in filter(None, text.split(",")):
            if "!=" in part:
                continue
            match = re.fullmatch(r"([\w./-]+)==?([\w.-]*)", part)
            if match is None:
                raise Invalid(f'error: unable to parse requirement: "{part}"')
            found[match[1]] = match[2]
        return found

    def unlike(self, made: Json) -> bool:
        """Whether -l rules an object out with `!=`; one without the label is as good as another value.

        Source: kubernetes.io, "Labels and Selectors", equality-based requirement.
        """
        has = made["metadata"].get("labels") or {}
        pairs = (part.split("!=") for part in self.option("--selector").split(",") if "!=" in part)
        return any(has.get(name) == value for name, value in pairs)

    def seconds(self, name: str, otherwise: float) -> float:
        text = self.option(name)
        if not text:
            return otherwise
        found = re.fullmatch(r"(?:(\d+)m)?(?:(\d+)s)?", text)
        if found is None or not found[0]:
            raise Invalid(f'error: invalid argument "{text}" for "{name}" flag: invalid duration')
        return int(found[1] or 0) * 60.0 + int(found[2] or 0)

    def documents(self) -> list[tuple[str, Any]]:
        """The manifests of the files given, each with its file's name."""
        found: list[tuple[str, Any]] = []
        for name in self.options.get("--filename", []):
            content = self.files.get(name.removeprefix("./"))
            if content is None:
                raise Invalid(f'error: the path "{name}" does not exist')
            try:
                parts = [each for each in yaml.safe_load_all(content) if each is not None]
            except yaml.YAMLError as error:
                raise Invalid(
                    f"error: error parsing {name}: error converting YAML to JSON: {error}"
                ) from None
            found += [(name, each) for each in parts]
        if not found:
            raise Invalid("error: must specify one of -f and -k")
        return found

    def target(self, words: list[str]) -> tuple[str, str]:
        """Kind and name of `deployment/x` or `deployment x`."""
        if words and "/" in words[0]:
            kind, _, name = words[0].partition("/")
            return kind_named(kind), name
        if len(words) < 2:
            raise Invalid("error: resource name may not be empty")
        return kind_named(words[0]), words[1]


def run(cluster: Cluster, command: str, files: Mapping[str, bytes]) -> tuple[int, str]:
    """A command line of kubectl commands joined by && or ;; the exit code and what was printed."""
    printed: list[str] = []
    code = 0
    try:
        lexer = shlex.shlex(command, posix=True, punctuation_chars=";&|<>()")
        lexer.whitespace_split = True
        tokens = list(lexer)
    except ValueError as error:
        return 2, f"sh: syntax error: {error}\n"
    parts: list[tuple[str, list[str]]] = [(";", [])]
    for token in tokens:
        if token in (";", "&&"):
            parts.append((token, []))
        elif re.fullmatch(r"[;&|<>()]+", token):
            return 2, f"sh: the stand-in's shell knows no {token!r}\n"
        else:
            parts[-1][1].append(token)
    for joined, words in parts:
        if not words or (joined == "&&" and code):
            continue
        code, text = _one(cluster, words, files)
        printed.append(text)
    return code, "".join(printed)


def _one(cluster: Cluster, words: list[str], files: Mapping[str, bytes]) -> tuple[int, str]:
    if words[0] != "kubectl":
        return 127, f"sh: {words[0]}: command not found\n"
    said: list[str] = []
    try:
        call = _parse(cluster, words[1:], files)
        verb = call.words[0] if call.words else ""
        action = VERBS.get(verb)
        if action is None:
            raise Invalid(f'error: unknown command "{verb}" for "kubectl"')
        call.words.pop(0)
        action(call, said.append)
        return 0, "".join(line + "\n" for line in said)
    except Invalid as wrong:
        prefix = f"Error from server ({wrong.reason}): " if wrong.reason else ""
        return 1, "".join(line + "\n" for line in [*said, prefix + str(wrong)])


def _parse(cluster: Cluster, words: list[str], files: Mapping[str, bytes]) -> Call:
    call = Call(cluster, files, [])
    rest = iter(words)
    for word in rest:
        name, equals, value = word.partition("=")
        if not word.startswith("-") or word == "-":
            call.words.append(word)
            continue
        if name in VALUES:
            if not equals:
                value = next(rest, "")
        elif name in FLAGS:
            value = value or "true"
        else:
            raise Invalid(f"error: unknown flag: {name}\nSee 'kubectl --help' for usage.")
        call.options.setdefault(LONG.get(name, name), []).append(value)
    return call


Say = Callable[[str], None]


def _apply(call: Call, say: Say) -> None:
    dry = call.option("--dry-run")
    if dry not in ("", "none", "server"):
        raise Invalid(f"error: the stand-in knows no --dry-run={dry}")
    failed: list[Invalid] = []
    for name, document in call.documents():
        try:
            made, what = call.cluster.apply(document, call.namespace, dry=bool(dry))
        except Invalid as wrong:
            text = str(wrong)
            if wrong.reason:
                text = f'error when creating "{name}": {text}'
            elif "no matches for kind" in text:
                text = f'error: resource mapping not found for name: "" namespace: "" from "{name}": {text}'
            failed.append(Invalid(text, wrong.reason))
            continue
        resource = KINDS[made["kind"]][2]
        ending = " (server dry run)" if dry else ""
        say(f"{resource}/{made['metadata']['name']} {what}{ending}")
    if failed:
        for each in failed[:-1]:
            say((f"Error from server ({each.reason}): " if each.reason else "") + str(each))
        raise failed[-1]


def _get(call: Call, say: Say) -> None:
    if not call.words:
        raise Invalid("error: You must specify the type of resource to get.")
    found: list[Json] = []
    single = False
    names = call.words[1:]
    for each in call.words[0].split(","):
        kind, _, name = each.partition("/")
        wanted = [name] if name else names
        single = len(wanted) == 1 and "," not in call.words[0]
        if wanted:
            for one in wanted:
                try:
                    found.append(call.cluster.get(kind_named(kind), call.namespace, one))
                except Invalid as missing:
                    if missing.reason != "NotFound" or not call.has("--ignore-not-found"):
                        raise
        else:
            found += call.cluster.of(kind_named(kind), call.namespace, call.labels)
    shown = [_public(each) for each in found]
    if not shown and call.has("--ignore-not-found"):
        return
    output = call.option("--output")
    if output in ("json", "yaml"):
        whole: Json = shown[0] if single and shown else {"apiVersion": "v1", "kind": "List"}
        if not single:
            whole |= {"items": shown, "metadata": {"resourceVersion": ""}}
        say(json.dumps(whole, indent=4) if output == "json" else yaml.safe_dump(whole).rstrip())
    elif output == "name":
        for one_shown in shown:
            say(f"{KINDS[one_shown['kind']][2]}/{one_shown['metadata']['name']}")
    elif output in ("", "wide"):
        if not shown:
            say(f"No resources found in {call.namespace} namespace.")
            return
        say("NAME")
        for one_shown in shown:
            say(str(one_shown["metadata"]["name"]))
    else:
        raise Invalid(f'error: unable to match a printer suitable for the output format "{output}"')


def _public(made: Json) -> Json:
    given = copy.deepcopy(made)
    return {"apiVersion": given.pop("apiVersion"), "kind": given.pop("kind"), **given}


def _delete(call: Call, say: Say) -> None:
    wanted: list[tuple[str, str, str]] = []
    if "--filename" in call.options:
        for _, document in call.documents():
            metadata = document["metadata"]
            namespace = metadata.get("namespace", call.namespace)
            wanted.append((document["kind"], namespace, metadata["name"]))
    elif call.labels:
        for each in call.words[0].split(","):
            kind = kind_named(each)
            found = list(call.cluster.of(kind, call.namespace, call.labels))
            wanted += [
                (kind, call.namespace, made["metadata"]["name"])
                for made in found
                if not call.unlike(made)
            ]
    else:
        first = call.words[:1]
        names = call.words if first and "/" in first[0] else call.words[1:]
        if not names:
            raise Invalid("error: resource(s) were provided, but no name was specified")
        for name in names:
            kind, one = call.target([name] if "/" in name else [first[0], name])
            wanted.append((kind, call.namespace, one))
    for kind, namespace, name in wanted:
        try:
            call.cluster.remove(kind, namespace, name)
        except Invalid as missing:
            if missing.reason != "NotFound" or not call.has("--ignore-not-found"):
                raise
            continue
        say(f'{KINDS[kind][2]} "{name}" deleted')


def _annotate(call: Call, say: Say) -> None:
    _mark(call, say, "annotations", "annotated")


def _label(call: Call, say: Say) -> None:
    _mark(call, say, "labels", "labeled")


def _mark(call: Call, say: Say, where: str, done: str) -> None:
    pairs = [word for word in call.words if "=" in word or word.endswith("-")]
    kind, name = call.target([word for word in call.words if word not in pairs])
    with call.cluster.lock:
        made = call.cluster.get(kind, call.namespace, name)
        has = made["metadata"].setdefault(where, {})
        for pair in pairs:
            key, equals, value = pair.partition("=")
            if not equals:
                has.pop(key.removesuffix("-"), None)
                continue
            if key in has and has[key] != value and not call.has("--overwrite"):
                raise Invalid(
                    f"error: --overwrite is false but found the following declared {where[:-1]}(s): "
                    f"'{key}' already has a value ({has[key]})"
                )
            has[key] = value
        call.cluster.put(made)
    say(f"{KINDS[kind][2]}/{name} {done}")


def _create(call: Call, say: Say) -> None:
    if call.words[:1] != ["namespace"] or len(call.words) != 2:
        raise Invalid(f'error: unknown command "create {" ".join(call.words)}" for "kubectl"')
    name = call.words[1]
    if ("Namespace", "", name) in call.cluster.objects:
        raise Invalid(f'namespaces "{name}" already exists', "AlreadyExists")
    document = {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": name}}
    call.cluster.apply(document, "")
    say(f"namespace/{name} created")


def _scale(call: Call, say: Say) -> None:
    kind, name = call.target(call.words)
    if not re.fullmatch(r"\d+", call.option("--replicas")):
        raise Invalid("error: the --replicas=COUNT flag is required, and COUNT must be at least 0")
    with call.cluster.lock:
        made = call.cluster.get(kind, call.namespace, name)
        made["spec"]["replicas"] = int(call.option("--replicas"))
        call.cluster.put(made)
    say(f"{KINDS[kind][2]}/{name} scaled")


def _rollout(call: Call, say: Say) -> None:
    verb = call.words.pop(0) if call.words else ""
    actions = {"status": _status, "undo": _undo, "history": _history, "restart": _restart}
    if verb not in actions:
        raise Invalid(f'error: unknown command "rollout {verb}"')
    kind, name = call.target(call.words)
    if kind != "Deployment":
        raise Invalid(f"error: the stand-in rolls out deployments only, no {kind}")
    call.cluster.get(kind, call.namespace, name)
    actions[verb](call, say, name)


def _status(call: Call, say: Say, name: str) -> None:
    end = time.monotonic() + call.seconds("--timeout", 3600)
    last = ""
    while not call.cluster.closed.is_set():
        with call.cluster.lock:
            made = call.cluster.get("Deployment", call.namespace, name)
            text = _progress(name, made)
        if text is None:
            say(f'deployment "{name}" successfully rolled out')
            return
        if text != last:
            say(text)
            last = text
        if time.monotonic() > end:
            raise Invalid("error: timed out waiting for the condition")
        call.cluster.closed.wait(0.1)


def _progress(name: str, made: Json) -> str | None:
    """What is not done yet; None when all is. Source: kubectl's polymorphichelpers."""
    status = made.get("status") or {}
    if status.get("observedGeneration", 0) < made["metadata"].get("generation", 1):
        return "Waiting for deployment spec update to be observed..."
    for each in status.get("conditions") or []:
        if each["type"] == "Progressing" and each["reason"] == "ProgressDeadlineExceeded":
            raise Invalid(f'error: deployment "{name}" exceeded its progress deadline')
    wanted, updated = made["spec"]["replicas"], status["updatedReplicas"]
    waiting = f'Waiting for deployment "{name}" rollout to finish: '
    if updated < wanted:
        return f"{waiting}{updated} out of {wanted} new replicas have been updated..."
    if status["replicas"] > updated:
        return f"{waiting}{status['replicas'] - updated} old replicas are pending termination..."
    if status["availableReplicas"] < updated:
        return (
            f"{waiting}{status['availableReplicas']} of {updated} updated replicas are available..."
        )
    return None


def _revisions(call: Call, name: str) -> dict[int, Json]:
    uid = call.cluster.get("Deployment", call.namespace, name)["metadata"]["uid"]
    found = [
        each
        for each in call.cluster.of("ReplicaSet", call.namespace)
        if each["metadata"]["ownerReferences"][0]["uid"] == uid
    ]
    return {int(each["metadata"]["annotations"][REVISION]): each for each in found}


def _undo(call: Call, say: Say, name: str) -> None:
    with call.cluster.lock:
        revisions = _revisions(call, name)
        made = call.cluster.get("Deployment", call.namespace, name)
        asked = int(call.option("--to-revision") or 0)
        present = int(made["metadata"]["annotations"].get(REVISION, 0))
        earlier = sorted(number for number in revisions if number != present)
        if asked and asked not in revisions:
            raise Invalid(f"error: unable to find specified revision {asked} in history")
        if not asked and not earlier:
            raise Invalid(f'error: no rollout history found for deployment "{name}"')
        target = revisions[asked or earlier[-1]]
        template = without_hash(target["spec"]["template"])
        if made["spec"]["template"] == template:
            say(
                f"deployment.apps/{name} skipped rollback (current template already matches revision {asked})"
            )
            return
        made["spec"]["template"] = template
        made["metadata"]["generation"] = made["metadata"].get("generation", 1) + 1
        call.cluster.put(made)
    say(f"deployment.apps/{name} rolled back")


def _history(call: Call, say: Say, name: str) -> None:
    say(f"deployment.apps/{name} ")
    say("REVISION  CHANGE-CAUSE")
    for number in sorted(_revisions(call, name)):
        say(f"{number:<10}<none>")


def _restart(call: Call, say: Say, name: str) -> None:
    with call.cluster.lock:
        made = call.cluster.get("Deployment", call.namespace, name)
        template = made["spec"]["template"]
        annotations = template.setdefault("metadata", {}).setdefault("annotations", {})
        annotations["kubectl.kubernetes.io/restartedAt"] = stamp()
        made["metadata"]["generation"] = made["metadata"].get("generation", 1) + 1
        call.cluster.put(made)
    say(f"deployment.apps/{name} restarted")


def _logs(call: Call, say: Say) -> None:
    tail: int | str = "all"
    if call.option("--tail") not in ("", "-1"):
        tail = int(call.option("--tail"))
    if call.labels:
        pods = [key for key, pod in call.cluster.pods.items() if _matches(call, pod.made)]
        if not call.option("--tail"):
            tail = 10  # kubectl's own with a selector
    else:
        pods = _named_pods(call, say)
    for key in pods:
        pod = call.cluster.pods[key]
        names = [container["name"] for container in pod.spec["containers"]]
        wanted = call.option("--container") or names[0]
        if wanted not in names:
            raise Invalid(f"container {wanted} is not valid for pod {pod.name}", "BadRequest")
        for name in names if call.has("--all-containers") else [wanted]:
            status = (pod.made["status"].get("containerStatuses") or [{}])[0]
            waiting = (status.get("state") or {}).get("waiting")
            if waiting and not pod.boxes and not pod.previous:
                raise Invalid(
                    f'container "{name}" in pod "{pod.name}" is waiting to start: {waiting["reason"]}',
                    "BadRequest",
                )
            text = pod.logs(name, tail, previous=call.has("--previous"))
            prefix = f"[pod/{pod.name}/{name}] " if call.has("--prefix") else ""
            for line in text.splitlines():
                say(prefix + line)


def _matches(call: Call, made: Json) -> bool:
    metadata = made["metadata"]
    labels: dict[str, str] = metadata["labels"]
    return str(metadata["namespace"]) == call.namespace and call.labels.items() <= labels.items()


def _named_pods(call: Call, say: Say) -> list[tuple[str, str, str]]:
    word = call.words[0] if call.words else ""
    kind, slash, name = word.partition("/")
    if not slash:
        kind, name = "pod", word
    found = call.cluster.get(kind_named(kind), call.namespace, name)
    if found["kind"] == "Pod":
        return [("Pod", call.namespace, name)]
    if found["kind"] != "Deployment":
        raise Invalid(f"error: cannot get the logs from {found['kind']}: selector is not known")
    selector = found["spec"]["selector"]["matchLabels"]
    pods = [
        key
        for key, pod in call.cluster.pods.items()
        if key[1] == call.namespace and selector.items() <= pod.made["metadata"]["labels"].items()
    ]
    if not pods:
        raise Invalid(f"error: timed out waiting for the condition: no pod of {word}")
    # Ready ones first, as kubectl sorts them.
    pods.sort(key=lambda key: not call.cluster.pods[key].ready)
    if len(pods) > 1:
        say(f"Found {len(pods)} pods, using pod/{pods[0][2]}")
    return pods[:1]


def _version(call: Call, say: Say) -> None:
    version = {"major": "1", "minor": "33", "gitVersion": "v1.33.5", "platform": "linux/amd64"}
    if call.option("--output") == "json":
        say(json.dumps({"clientVersion": version, "serverVersion": version}, indent=2))
    else:
        say("Client Version: v1.33.5\nServer Version: v1.33.5")


VERBS: dict[str, Callable[[Call, Say], None]] = {
    "apply": _apply,
    "get": _get,
    "delete": _delete,
    "annotate": _annotate,
    "label": _label,
    "create": _create,
    "scale": _scale,
    "rollout": _rollout,
    "logs": _logs,
    "version": _version,
}
__all__ = ["LAST", "run"]
