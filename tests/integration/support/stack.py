"""Stacks of the real program, each with its own project directory and Pulumi state."""

import functools
import json
import os
import re
import secrets
import subprocess
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import yaml
from docker import DockerClient
from pulumi import automation
from pulumi.automation import CommandResult, PulumiCommand
from pulumi.automation.errors import create_command_error
from pulumi.automation.events import EngineEvent, StepEventMetadata

from tests.integration.support import belongings, host, processes
from tests.integration.support.belongings import Belongings

PROJECT = "talos-registry-cache"
ROOT = Path(__file__).resolve().parents[3]
PASSPHRASE = "integration"  # noqa: S105 - protects temporary states
PULUMI_WITHIN_S = 150

# Counts in the summary of an update ("2 created") or a preview ("2 to create").
COUNT = re.compile(r"(\d+) (?:to )?(create|update|delete|replace|unchanged)")
OPERATIONS = {"unchanged": "same"}

Settings = Mapping[str, Any]


class CacheStack:
    """A stack, run by the Automation API on the real engine.

    Attributes:
        name: name of the stack.
        folder: directory of its project file, stack file and Pulumi state.
    """

    def __init__(
        self,
        name: str,
        folder: Path,
        engine: DockerClient,
        engine_host: str,
        *,
        enter: Sequence[str] = (),
        within_s: float = PULUMI_WITHIN_S,
    ) -> None:
        self.name = name
        self.folder = folder
        self._engine = engine
        self._enter = tuple(enter)
        self._within_s = within_s
        self._env = {
            "DOCKER_HOST": engine_host,
            "PULUMI_BACKEND_URL": _new_folder(folder / "state").as_uri(),
            "PULUMI_CONFIG_PASSPHRASE": PASSPHRASE,
        }
        _write_project(folder)
        workspace = automation.LocalWorkspace(
            work_dir=str(folder), env_vars=self._env, pulumi_command=_pulumi(self._enter)
        )
        self._stack = automation.Stack.create(name, workspace)

    @property
    def prefix(self) -> str:
        """The prefix of its container names, unless its settings set another one."""
        return f"registry-{self.name}"

    @property
    def _file(self) -> Path:
        return self.folder / f"Pulumi.{self.name}.yaml"

    @property
    def clusters_folder(self) -> Path:
        """The directory of its clusters' files."""
        return ROOT / ".state" / "clusters" / self.name

    @property
    def state_folder(self) -> Path:
        """The directory of its Pulumi state, with history and backups."""
        return self.folder / "state"

    def settings(self) -> dict[str, Any]:
        """A copy of its settings, to change and pass to `configure`."""
        content = yaml.safe_load(self._file.read_text())
        config = content["config"]
        settings: dict[str, Any] = config.get("caches") or config[f"{PROJECT}:caches"]
        return settings

    def configure(self, settings: Settings, key: str = "caches") -> None:
        """Write the settings of a key into its stack file, as a user would."""
        content = yaml.safe_load(self._file.read_text())
        content.setdefault("config", {})[f"{PROJECT}:{key}"] = dict(settings)
        self._file.write_text(yaml.safe_dump(content, sort_keys=False))

    def use(self, file: Path) -> None:
        """Use the configuration of another stack file."""
        content = yaml.safe_load(self._file.read_text())
        content["config"] = yaml.safe_load(file.read_text())["config"]
        self._file.write_text(yaml.safe_dump(content, sort_keys=False))

    def set_secret(self, path: str, secret: str) -> None:
        """Add an encrypted secret to its stack file, at a path as in `pulumi config set`."""
        self._stack.set_config(path, automation.ConfigValue(secret, secret=True), path=True)

    def set_password(self, registry: str, password: str) -> None:
        """Add the encrypted password of an upstream to its stack file."""
        self.set_secret(f'passwords["{registry}"]', password)

    def up(self) -> Mapping[str, int]:
        """Run `pulumi up`, and return the number of resources by operation.

        Raises:
            automation.CommandError: `up` failed.
        """
        return self._changes("up", "--yes", "--skip-preview")

    def refresh(self) -> Mapping[str, int]:
        """Run `pulumi refresh`, and return the number of resources by operation."""
        return self._changes("refresh", "--yes", "--skip-preview")

    def preview(self) -> Mapping[str, int]:
        """Run `pulumi preview`, and return the number of resources by operation.

        Raises:
            automation.CommandError: the preview failed.
        """
        return self._changes("preview")

    def _changes(self, *command: str) -> Mapping[str, int]:
        # The Automation API would also ask for outputs and history: three commands more.
        summary = self.pulumi(*command, "--color=never").rpartition("\nResources:")[2]
        return {OPERATIONS.get(word, word): int(number) for number, word in COUNT.findall(summary)}

    def plan(self) -> list[dict[str, Any]]:
        """The steps of `up`, from `pulumi preview --json`."""
        steps: list[dict[str, Any]] = json.loads(self.pulumi("preview", "--json"))["steps"]
        return steps

    def steps(self) -> list[StepEventMetadata]:
        """What `up` would do, as the events of a preview."""
        events: list[EngineEvent] = []
        self._stack.preview(color="never", on_event=events.append)
        return [event.resource_pre_event.metadata for event in events if event.resource_pre_event]

    def destroy(self) -> None:
        """Destroy its resources."""
        self.pulumi("destroy", "--yes", "--skip-preview")

    def cancel(self) -> None:
        """Clear the lock of a killed run."""
        self._stack.cancel()

    def mend(self) -> None:
        """Repair the state of a killed run, as in docs/troubleshooting.md."""
        for beside in self.state_folder.rglob("*.json.attrs"):
            if beside.stat().st_size == 0:
                beside.unlink()

    def start_up(self, output: Path) -> subprocess.Popen[bytes]:
        """Start `pulumi up` in its own session, without waiting for it."""
        with output.open("wb") as log:
            return subprocess.Popen(
                [*self._enter, "pulumi", "up", "--yes", "--skip-preview", "--stack", self.name],
                cwd=self.folder,
                env=os.environ | self._env,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                start_new_session=True,
            )

    def pulumi(self, *arguments: str, enter: Sequence[str] = ()) -> str:
        """Run a Pulumi command on the stack.

        Args:
            arguments: the command.
            enter: command prefix that enters another network namespace than that of the stack.

        Raises:
            automation.CommandError: the command failed.
        """
        pulumi = _pulumi(tuple(enter) or self._enter, self._within_s)
        command = [*arguments, "--stack", self.name]
        return pulumi.run(command, str(self.folder), self._env).stdout

    def export(self) -> str:
        """The output of `pulumi stack export`."""
        return self.pulumi("stack", "export")

    def outputs(self) -> Mapping[str, Any]:
        """Its outputs."""
        outputs: dict[str, Any] = json.loads(
            self.pulumi("stack", "output", "--json", "--show-secrets")
        )
        return outputs

    def endpoint(self, registry: str) -> str:
        """The URL of a cache."""
        return str(self.outputs()["caches"][registry]["endpoint"])

    def belongings(self) -> Belongings:
        """Its resources on the engine."""
        return belongings.of_stack(self._engine, self.name)

    def ids(self) -> dict[str, str | None]:
        """The IDs of its containers, by name."""
        return {str(one.name): one.id for one in belongings.containers(self._engine, self.name)}

    def replaced(self, before: Mapping[str, str | None]) -> set[str]:
        """The names of its containers whose ID differs from that in earlier `ids`."""
        after = self.ids()
        return {name for name in {*before, *after} if before.get(name) != after.get(name)}

    def healthy(self) -> set[str]:
        """The registries whose caches are healthy."""
        found = [
            belongings.caches(self._engine, self.name),
            belongings.registries(self._engine, self.name),
        ]
        return {
            host
            for host in found[0]
            if all(belongings.health(one[host]) == "healthy" for one in found)
        }


def upstreams(remote_url: str, *registries: str) -> dict[str, dict[str, Any]]:
    """Settings that cache one upstream under several registry names, each on a free port."""
    return {
        registry: {"port": host.free_port(), "remoteUrl": remote_url} for registry in registries
    }


@contextmanager
def stack(
    folder: Path,
    engine: DockerClient,
    caches: Settings,
    *,
    engine_host: str | None = None,
    name: str | None = None,
    enter: Sequence[str] = (),
    within_s: float = PULUMI_WITHIN_S,
) -> Iterator[CacheStack]:
    """Create a stack that is not up yet, and remove its resources on the engine at the end.

    Args:
        folder: parent of its directory, which has its files and Pulumi state.
        engine: the engine.
        caches: its settings.
        engine_host: address of the engine for Pulumi, if it differs from that of the tests.
        name: its name; a new one if left out.
        enter: command prefix that enters the network namespace of its engine.
        within_s: time limit of each command.
    """
    name = name or f"it-{secrets.token_hex(4)}"
    folder = _new_folder(folder / f"stack-{secrets.token_hex(4)}")
    made = CacheStack(
        name,
        folder,
        engine,
        engine_host or os.environ["DOCKER_HOST"],
        enter=enter,
        within_s=within_s,
    )
    made.configure(caches)
    try:
        yield made
    finally:
        belongings.remove(engine, name)


class _BoundedPulumi(PulumiCommand):
    """The Pulumi CLI with a time limit."""

    enter: tuple[str, ...] = ()
    within_s: float = PULUMI_WITHIN_S

    def run(
        self,
        args: list[str],
        cwd: str,
        additional_env: Mapping[str, str],
        on_output: Callable[[str], Any] | None = None,
        on_error: Callable[[str], Any] | None = None,
    ) -> CommandResult:
        done = processes.finish(
            [*self.enter, self.command, "--non-interactive", *args],
            within_s=self.within_s,
            env={**os.environ, **additional_env, "PULUMI_AUTOMATION_API": "true"},
            cwd=Path(cwd),
        )
        for text, callback in ((done.stdout, on_output), (done.stderr, on_error)):
            for line in text.splitlines():
                if callback:
                    callback(line)
        result = CommandResult(done.stdout.rstrip(), done.stderr.rstrip(), done.returncode)
        if done.returncode != 0:
            raise create_command_error(result)
        return result


@functools.cache
def _pulumi(enter: tuple[str, ...] = (), within_s: float = PULUMI_WITHIN_S) -> PulumiCommand:
    command = _BoundedPulumi()
    command.enter = enter
    command.within_s = within_s
    return command


def _write_project(folder: Path) -> None:
    """Write a project file that runs the program of the repository."""
    project = yaml.safe_load((ROOT / "Pulumi.yaml").read_text())
    project["main"] = str(ROOT)
    (folder / "Pulumi.yaml").write_text(yaml.safe_dump(project))


def _new_folder(folder: Path) -> Path:
    folder.mkdir(parents=True)
    return folder
