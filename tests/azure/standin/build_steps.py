"""The steps of a build in a registry, done by the real Docker: build, push, cmd.

Source of a task's form: https://learn.microsoft.com/azure/container-registry/container-registry-tasks-reference-yaml
"""

from __future__ import annotations

import os
import re
import shlex
import shutil
import subprocess
import tempfile
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import yaml

from tests.azure.standin import containers
from tests.azure.standin.messages import Json
from tests.azure.standin.registry import Registry
from tests.azure.standin.registry_tokens import access_token
from tests.azure.standin.world import World

VERSIONS = ("v1.0.0", "v1.1.0")
TASK = {"version", "stepTimeout", "workingDirectory", "env", "steps"}
STEP = {"id", "build", "push", "cmd", "env", "timeout", "workingDirectory", "when"}
STEP |= {"disableWorkingDirectoryOverride", "cache"}
#: Options of docker build with a value, and without, that a step may have.
VALUED = {"--build-arg", "--file", "-f", "--label", "--platform", "--tag", "-t", "--target"}
PLAIN = {"--no-cache", "--pull"}
#: What the network here needs of a build, as docker/build.sh passes it on.
NETWORK = (
    "PIP_INDEX_URL",
    "PIP_EXTRA_INDEX_URL",
    "PIP_TRUSTED_HOST",
    "UV_DEFAULT_INDEX",
    "UV_INDEX_URL",
)


class StepFailed(Exception):
    """A step ended badly; the text is the log's last line of it."""


@dataclass
class Bench:
    """Where a run's steps are done. `say` adds a line to the log, `alive` ends what is too late."""

    world: World
    registry: Registry
    run_id: str
    folder: Path
    say: Callable[[str], None]
    watch: Callable[[subprocess.Popen[bytes]], None]
    values: Mapping[str, str] = field(default_factory=dict)
    #: The images that were built, by full name.
    built: dict[str, str] = field(default_factory=dict)
    pushed: list[Json] = field(default_factory=list)
    #: Names of images that were lent to the engine for this run.
    lent: list[str] = field(default_factory=list)

    def build(self, options: Sequence[str], environment: Mapping[str, str]) -> None:
        """`docker build` with these options, of which the last is the context."""
        names, kept, context = _taken_apart(options)
        if not self.world.docker:
            raise StepFailed("stand-in: no Docker engine: nothing is built here")
        for reference in self._references(kept, context):
            self._lend(reference)
        buildkit = environment.get("DOCKER_BUILDKIT", "0") == "1"
        with tempfile.TemporaryDirectory(prefix="slipway-standin-") as scratch:
            kept += ["--iidfile", f"{scratch}/id"]
            if buildkit:
                kept += ["--progress=plain", *_network(Path(scratch))]
            self._docker(
                ["build", *kept, context],
                {**environment, "DOCKER_BUILDKIT": "1" if buildkit else "0"},
                _client(buildkit),
            )
            made = (Path(scratch) / "id").read_text().strip()
        self.built |= dict.fromkeys(names, made)

    def push(self, name: str) -> None:
        """Copy an image into the registry."""
        host, _, rest = name.partition("/")
        if name not in self.built:
            raise StepFailed(
                f"An image does not exist locally with the tag: {name.rpartition(':')[0]}"
            )
        if host != self.registry.host:
            raise StepFailed(f"denied: this run may push to {self.registry.host} only")
        repository, _, tag = rest.partition(":")
        self.say(f"Pushing image: {name}, attempt 1")
        actions = {"type": "repository", "name": repository, "actions": ["pull", "push"]}
        token = access_token(self.registry, "", [actions])
        with tempfile.NamedTemporaryFile("r") as digest:
            self._run(
                [
                    *("skopeo", "copy", "--quiet", "--dest-tls-verify=false"),
                    *("--dest-registry-token", token, "--digestfile", digest.name),
                    f"docker-daemon:{self.built[name]}",
                    f"docker://127.0.0.1:{self.registry.port}/{repository}:{tag or 'latest'}",
                ],
                {},
            )
            pushed = digest.read().strip()
        self.say(f"{tag or 'latest'}: digest: {pushed}")
        self.say(f"Successfully pushed image: {name}")
        self.pushed.append(
            {
                "registry": self.registry.host,
                "repository": repository,
                "tag": tag or "latest",
                "digest": pushed,
            }
        )

    def command(self, words: Sequence[str], environment: Mapping[str, str]) -> None:
        """`docker run` of an image with a command."""
        image = self.built.get(words[0]) or self._pull(words[0])
        options = [item for pair in environment.items() for item in ("--env", "=".join(pair))]
        label = f"{containers.LABEL}={self.world.folder}"
        self._docker(["run", "--rm", "--label", label, *options, image, *words[1:]], {}, "docker")

    def give_back(self) -> None:
        """Take the names back that were lent to the engine."""
        for name in self.lent:
            subprocess.run(["docker", "rmi", "--no-prune", name], capture_output=True)

    def _docker(self, words: Sequence[str], environment: Mapping[str, str], client: str) -> None:
        self._run([client, *words], environment)

    def _run(self, words: Sequence[str], environment: Mapping[str, str]) -> None:
        """Run a program in the source's folder, its output into the log."""
        with subprocess.Popen(
            words,
            cwd=self.folder,
            env={**os.environ, **environment},
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        ) as process:
            self.watch(process)
            assert process.stdout is not None
            for line in process.stdout:
                self.say(line.decode("utf-8", "replace").rstrip())
        if process.returncode:
            raise StepFailed(f"exit status {process.returncode}")

    def _references(self, options: Sequence[str], context: str) -> set[str]:
        """Images of this registry that a build may start from: in FROM lines and build arguments."""
        place = Path(context) / "Dockerfile"
        for at, option in enumerate(options):
            if option in ("-f", "--file"):
                place = Path(options[at + 1])
        found = {option.partition("=")[2] for option in options if "=" in option}
        file = self.folder / place
        if file.is_file():
            found |= set(re.findall(r"^FROM\s+(?:--\S+\s+)*(\S+)", file.read_text(), re.M | re.I))
        return {each for each in found if each.startswith(self.registry.host + "/")}

    def _lend(self, name: str) -> None:
        subprocess.run(["docker", "tag", self._pull(name), name], capture_output=True, check=True)
        self.lent.append(name)

    def _pull(self, name: str) -> str:
        """The id of an image of this registry, which its own runs may read."""
        try:
            _, repository, _ = containers.parse(name)
            actions = {"type": "repository", "name": repository, "actions": ["pull"]}
            return containers.fetch(self.world, name, access_token(self.registry, "", [actions]))
        except containers.PullFailed as error:
            raise StepFailed(str(error)) from None


def _taken_apart(options: Sequence[str]) -> tuple[list[str], list[str], str]:
    """Names, the other options, and the context of a build."""
    names: list[str] = []
    kept: list[str] = []
    rest: list[str] = []
    words = iter(options)
    for word in words:
        option, equals, value = word.partition("=")
        if option in VALUED:
            given = value if equals else next(words, "")
            if option in ("-t", "--tag"):
                names.append(given)
            else:
                kept += [option, given]
        elif option in PLAIN:
            kept.append(word)
        elif word.startswith("-"):
            raise StepFailed(f"unknown flag: {option}")
        else:
            rest.append(word)
    if len(rest) != 1:
        raise StepFailed('"docker build" requires exactly 1 argument.')
    return names, kept, rest[0]


def _client(buildkit: bool) -> str:
    """A Docker client, for BuildKit one that can (see docker/build.sh)."""
    for folder in os.environ["PATH"].split(":"):
        client = shutil.which("docker", path=folder)
        if client is None:
            continue
        said = subprocess.run([client, "--version"], capture_output=True, text=True).stdout
        old = int((re.search(r"version (\d+)", said) or ["", "99"])[1]) < 23
        plugin = subprocess.run([client, "buildx", "version"], capture_output=True).returncode == 0
        if not buildkit or old or plugin:
            return client
    raise StepFailed("stand-in: no Docker client here can build with BuildKit")


def _network(scratch: Path) -> list[str]:
    """The network as Azure's agents have it: open. Here it takes this machine's certificates and mirrors."""
    lines = [f"{name}={shlex.quote(os.environ[name])}" for name in NETWORK if os.environ.get(name)]
    (scratch / "network").write_text("".join(f"{line}\n" for line in lines))
    options = ["--secret", f"id=network,src={scratch}/network"]
    authorities = os.environ.get("EXTRA_CA") or os.environ.get("SSL_CERT_FILE", "")
    if authorities and Path(authorities).is_file():
        shutil.copyfile(authorities, scratch / "ca")
        options += ["--secret", f"id=ca,src={scratch}/ca"]
    return options


def perform(bench: Bench, text: str, before: Callable[[str], None]) -> None:
    """Do a task's steps one after another; StepFailed at the first that ends badly."""
    try:
        task = yaml.safe_load(text)
    except yaml.YAMLError as error:
        raise StepFailed(f"failed to unmarshal task before rendering: {error}") from None
    if not isinstance(task, dict) or not task.get("steps"):
        raise StepFailed("failed to unmarshal task: a task has steps")
    version = task.get("version", "v1.0.0")
    _known(task, TASK, "Task")
    if version not in VERSIONS:
        raise StepFailed(f"failed to unmarshal task: unsupported version {version}")
    for number, step in enumerate(task["steps"]):
        _known(step, STEP, "Step")
        kinds = [kind for kind in ("build", "push", "cmd") if kind in step]
        if len(kinds) != 1:
            raise StepFailed("failed to unmarshal task: step must have one of build, push, cmd")
        name = step.get("id") or f"acb_step_{number}"
        before(name)
        environment = dict(
            str(each).split("=", 1) for each in [*(task.get("env") or []), *(step.get("env") or [])]
        )
        try:
            if kinds[0] == "push":
                for image in step["push"]:
                    bench.push(_filled(bench, str(image), version))
            else:
                words = shlex.split(_filled(bench, str(step[kinds[0]]), version))
                act = bench.build if kinds[0] == "build" else bench.command
                act(words, environment)
        except StepFailed as failed:
            raise StepFailed(f"failed to run step ID: {name}: {failed}") from None
        bench.say(f"Step ID: {name} marked as successful")


def _known(given: Json, known: set[str], what: str) -> None:
    for name in given:
        if name not in known:
            raise StepFailed(
                f"failed to unmarshal task: yaml: unmarshal errors: field {name} not found in type "
                f"graph.{what}"
            )


def _filled(bench: Bench, text: str, version: str) -> str:
    """Put in what a task may name; the short forms are there from v1.1.0 on."""
    if version != "v1.0.0":
        text = text.replace("$Registry", bench.registry.host).replace("$ID", bench.run_id)

    def value(match: re.Match[str]) -> str:
        name = match[1]
        known = {"Run.Registry": bench.registry.host, "Run.ID": bench.run_id}
        if name in known:
            return known[name]
        key = name.removeprefix("Values.")
        if key == name or key not in bench.values:
            raise StepFailed(f'map has no entry for key "{key}"')
        return bench.values[key]

    return re.sub(r"\{\{\s*\.([\w.]+)\s*\}\}", value, text)
