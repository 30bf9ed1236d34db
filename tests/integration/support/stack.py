"""Stacks of the real program, each with a project folder and a state of its own."""

import functools
import json
import os
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

from tests.integration.support import belongings, host, processes
from tests.integration.support.belongings import Belongings

PROJECT = "talos-registry-cache"
ROOT = Path(__file__).resolve().parents[3]
PASSPHRASE = "integration"  # noqa: S105 - protects states that are thrown away
PULUMI_WITHIN_S = 150

Settings = Mapping[str, Any]


class CacheStack:
    """One stack, driven by the Automation API against the real engine.

    Attributes:
        name: its name.
        folder: where its project file, stack file and state are.
    """

    def __init__(self, name: str, folder: Path, engine: DockerClient, engine_host: str) -> None:
        self.name = name
        self.folder = folder
        self._engine = engine
        self._env = {
            "DOCKER_HOST": engine_host,
            "PULUMI_BACKEND_URL": _new_folder(folder / "state").as_uri(),
            "PULUMI_CONFIG_PASSPHRASE": PASSPHRASE,
        }
        _write_project(folder)
        workspace = automation.LocalWorkspace(
            work_dir=str(folder), env_vars=self._env, pulumi_command=_pulumi()
        )
        self._stack = automation.Stack.create(name, workspace)

    @property
    def prefix(self) -> str:
        """What the names of its containers begin with, unless its settings say otherwise."""
        return f"registry-{self.name}"

    @property
    def _file(self) -> Path:
        return self.folder / f"Pulumi.{self.name}.yaml"

    @property
    def clusters_folder(self) -> Path:
        """Where the files of its clusters are."""
        return ROOT / ".state" / "clusters" / self.name

    @property
    def state_folder(self) -> Path:
        """Where Pulumi keeps its state, with the history and backups."""
        return self.folder / "state"

    def settings(self) -> dict[str, Any]:
        """A copy of its settings, to change and to configure it with."""
        content = yaml.safe_load(self._file.read_text())
        config = content["config"]
        settings: dict[str, Any] = config.get("caches") or config[f"{PROJECT}:caches"]
        return settings

    def configure(self, settings: Settings, key: str = "caches") -> None:
        """Write the settings of a key into its stack file, as a person would."""
        content = yaml.safe_load(self._file.read_text())
        content.setdefault("config", {})[f"{PROJECT}:{key}"] = dict(settings)
        self._file.write_text(yaml.safe_dump(content, sort_keys=False))

    def use(self, file: Path) -> None:
        """Take the configuration of another stack file."""
        content = yaml.safe_load(self._file.read_text())
        content["config"] = yaml.safe_load(file.read_text())["config"]
        self._file.write_text(yaml.safe_dump(content, sort_keys=False))

    def set_secret(self, path: str, secret: str) -> None:
        """Put a secret into its stack file, encrypted, at a path as the Pulumi CLI takes it."""
        self._stack.set_config(path, automation.ConfigValue(secret, secret=True), path=True)

    def set_password(self, registry: str, password: str) -> None:
        """Put the password of an upstream into its stack file, encrypted."""
        self.set_secret(f'passwords["{registry}"]', password)

    def up(self) -> Mapping[str, int]:
        """Converge it; how many resources had which operation.

        Raises:
            automation.CommandError: it failed.
        """
        return _changes(self._stack.up(color="never").summary)

    def refresh(self) -> Mapping[str, int]:
        """Compare its state with the engine; how many resources had which operation."""
        return _changes(self._stack.refresh(color="never").summary)

    def preview(self) -> Mapping[str, int]:
        """What `up` would do: how many resources would have which operation.

        Raises:
            automation.CommandError: it failed.
        """
        summary = self._stack.preview(color="never").change_summary
        return {str(change): number for change, number in summary.items()}

    def plan(self) -> list[dict[str, Any]]:
        """What `up` would do, step by step as `pulumi preview --json` has it."""
        steps: list[dict[str, Any]] = json.loads(self.pulumi("preview", "--json"))["steps"]
        return steps

    def destroy(self) -> None:
        """Destroy its resources."""
        self._stack.destroy(color="never")

    def cancel(self) -> None:
        """Take away the lock of a run that was killed."""
        self._stack.cancel()

    def mend(self) -> None:
        """Put a state right that a kill has cut off, as docs/troubleshooting.md has it."""
        for beside in self.state_folder.rglob("*.json.attrs"):
            if beside.stat().st_size == 0:
                beside.unlink()

    def start_up(self, output: Path) -> subprocess.Popen[bytes]:
        """Start `pulumi up` and leave it running, in a session of its own."""
        with output.open("wb") as log:
            return subprocess.Popen(
                ["pulumi", "up", "--yes", "--skip-preview", "--stack", self.name],
                cwd=self.folder,
                env=os.environ | self._env,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                start_new_session=True,
            )

    def pulumi(self, *arguments: str, enter: Sequence[str] = ()) -> str:
        """Run any Pulumi command on it.

        Args:
            arguments: the command.
            enter: what a command line begins with that runs where its engine does.

        Raises:
            automation.CommandError: it failed.
        """
        command = [*arguments, "--stack", self.name]
        return _pulumi(tuple(enter)).run(command, str(self.folder), self._env).stdout

    def export(self) -> str:
        """Its state, as `pulumi stack export` prints it."""
        return self.pulumi("stack", "export")

    def outputs(self) -> Mapping[str, Any]:
        """Its outputs."""
        return {name: output.value for name, output in self._stack.outputs().items()}

    def belongings(self) -> Belongings:
        """What it has on the engine."""
        return belongings.of_stack(self._engine, self.name)


def upstreams(remote_url: str, *registries: str) -> dict[str, dict[str, Any]]:
    """Settings of registries that are all cached from one upstream, each on a free port."""
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
) -> Iterator[CacheStack]:
    """A stack that is not up yet; whatever it has on the engine is removed at the end.

    Args:
        folder: where it makes a folder of its own, with its files and its state.
        engine: the engine.
        caches: its settings.
        engine_host: where Pulumi finds the engine, if not where the tests do.
        name: its name, if it is to have one that another stack has.
    """
    name = name or f"it-{secrets.token_hex(4)}"
    folder = _new_folder(folder / f"stack-{secrets.token_hex(4)}")
    made = CacheStack(name, folder, engine, engine_host or os.environ["DOCKER_HOST"])
    made.configure(caches)
    try:
        yield made
    finally:
        belongings.remove(engine, name)


class _BoundedPulumi(PulumiCommand):
    """The Pulumi CLI with a time limit."""

    enter: tuple[str, ...] = ()

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
            within_s=PULUMI_WITHIN_S,
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
def _pulumi(enter: tuple[str, ...] = ()) -> PulumiCommand:
    command = _BoundedPulumi()
    command.enter = enter
    return command


def _write_project(folder: Path) -> None:
    """A project file like the repository's, beside which this stack's own file and state are."""
    project = yaml.safe_load((ROOT / "Pulumi.yaml").read_text())
    project["main"] = str(ROOT)
    (folder / "Pulumi.yaml").write_text(yaml.safe_dump(project))


def _changes(summary: automation.UpdateSummary) -> Mapping[str, int]:
    return {str(change): number for change, number in (summary.resource_changes or {}).items()}


def _new_folder(folder: Path) -> Path:
    folder.mkdir(parents=True)
    return folder
