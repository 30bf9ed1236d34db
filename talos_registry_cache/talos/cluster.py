"""Operations on one local cluster: create, read, start, destroy."""

import os
import shutil
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path

from docker import DockerClient

from talos_registry_cache.talos import (
    command_line,
    docker_nodes,
    machine_config,
    node_watch,
    nodes,
    process,
    virtual_machines,
    waiting,
)
from talos_registry_cache.talos.cluster_files import ClusterFiles, make_private, write_private
from talos_registry_cache.talos.cluster_spec import Provisioner
from talos_registry_cache.talos.command_line import Invocation
from talos_registry_cache.talos.errors import CommandError, TakenError, TalosError
from talos_registry_cache.talos.node_watch import NodeEndedError
from talos_registry_cache.talos.nodes import Found, Node
from talos_registry_cache.talos.phases import Phases
from talos_registry_cache.talos.process import Runner
from talos_registry_cache.talos.versions import Talosctl
from talos_registry_cache.talos.waiting import Access, Wait

# A talosconfig without contexts; talosctl does not accept an empty file.
EMPTY_TALOSCONFIG = 'context: ""\ncontexts: {}\n'

# What is true when a creation ends, by what it waited for.
_REACHED = {
    Wait.HEALTHY: "ready",
    Wait.API: "the Kubernetes API answers",
    Wait.NONE: "bootstrapped",
}

# The CAs of the mirrors, if nodes were told of other ones after they were created.
TRUST_PATCH = "trust.yaml"

# For how long the engine may work on requests of a talosctl that was ended.
SETTLES_S = 2.0

# talosctl looks for two free ports and closes them again before the engine publishes nodes on them
# (pkg/provision/providers/docker/docker.go). Another program may take one, and both may be equal.
ATTEMPTS = 3


@dataclass(frozen=True, slots=True)
class Observed:
    """The state of a cluster.

    Attributes:
        nodes: its nodes, sorted by name.
        kubernetes_endpoint: URL of the Kubernetes API on this machine, or None.
        command: the command line that created it, to paste into a shell; None if that failed.
        problems: what is missing, one sentence each. A complete cluster has none, even if its
            nodes have stopped.
    """

    nodes: tuple[Node, ...]
    kubernetes_endpoint: str | None
    command: str | None
    problems: tuple[str, ...]

    @property
    def stopped(self) -> tuple[Node, ...]:
        """Nodes that exist but do not run."""
        return tuple(node for node in self.nodes if not node.runs)


@dataclass(frozen=True, slots=True)
class ClusterOperations:
    """Creates, reads, starts and destroys one cluster.

    Attributes:
        files: paths of the cluster's files, and its name.
        provisioner: what creates its nodes.
        node_counts: the number of nodes that it should have, by role.
        engine: the engine of docker nodes.
        runner: runs talosctl, and shows progress.
        wait: what `create` waits for.
    """

    files: ClusterFiles
    provisioner: Provisioner
    node_counts: Mapping[str, int]
    engine: DockerClient
    runner: Runner
    wait: Wait = Wait.HEALTHY

    def create(self, plan: Invocation, talosctl: Talosctl | None = None) -> Observed:
        """Create the cluster, and wait for its boot as far as `wait` says.

        A complete cluster that the same plan has created is kept, and only its nodes are started.
        Remains of an earlier run are removed first. If creation fails or is interrupted, everything
        but the log is removed again. If the engine cannot publish a port that talosctl has found
        free, the creation is repeated.

        Args:
            plan: the run of talosctl that creates it.
            talosctl: as in `destroy`.

        Raises:
            TakenError: another cluster has this name.
            CommandError: talosctl or the wait failed or took too long; the message names the log.
            NodeEndedError: a node ended; the message says why.
            TalosError: sudo needs a password, a file cannot be written, the engine does not answer.
        """
        found = self.read()
        if found is not None and not found.problems and self._was_created_by(plan):
            return self.start() or found
        name = self.files.name
        if found is not None and not self.files.folder.exists():
            raise TakenError(
                f"found a cluster {name} that was not created here; remove it "
                f"(talosctl cluster destroy --name {name}) or choose another name"
            )
        _check_root(plan)
        for _ in range(ATTEMPTS - 1):
            try:
                return self._attempt(plan, talosctl)
            except CommandError as error:
                port = docker_nodes.taken_port(str(error))
                if port is None or any(port in argument for argument in plan.extra_arguments):
                    raise
                self.runner.on_line(f"port {port} is no longer free; creating the cluster again")
        return self._attempt(plan, talosctl)

    def read(self) -> Observed | None:
        """Read the state of the cluster; None if it does not exist.

        Raises:
            TalosError: the engine does not answer, or talosctl's state file cannot be read.
        """
        found = self._find()
        if found is None:
            return None
        command = self.files.command
        line = command.read_text().rstrip("\n") if command.exists() else None
        unfinished = () if line is not None else ("its creation did not finish",)
        return Observed(
            nodes=tuple(found.nodes),
            kubernetes_endpoint=found.kubernetes_endpoint,
            command=line,
            problems=(*unfinished, *nodes.problems(found.nodes, self.node_counts)),
        )

    def start(self) -> Observed | None:
        """Start stopped nodes, and return the state afterwards; None if nothing exists.

        Virtual machines stay stopped: talosctl has no command that starts them.

        Raises:
            TalosError: a node does not start or stay up, or the engine does not answer.
        """
        found = self.read()
        if found is None or not found.stopped or self.provisioner.is_virtual:
            return found
        docker_nodes.start(self.engine, self.files.name, self.runner.on_line)
        return self.read()

    def trust(self, plan: Invocation) -> None:
        """Let running nodes trust the CAs of a plan's mirrors, if they boot with other ones.

        A node in a container boots with the configuration that it was created with, so this has to
        be repeated when it was started.

        Raises:
            CommandError: a node refuses, or does not answer.
        """
        patch = machine_config.trust_patch(plan.files.get(command_line.MIRRORS_PATCH, ""))
        mirrors = _text(self.files.patch(command_line.MIRRORS_PATCH))
        observed = self.read()
        if observed is None or patch == machine_config.trust_patch(mirrors or ""):
            return
        running = [node.address for node in observed.nodes if node.runs]
        file = self.files.patch(TRUST_PATCH)
        _write(file, patch)
        if running:
            waiting.patch(plan.program, self.files, file, running, self.runner.on_line)

    def destroy(self, talosctl: Talosctl | None = None) -> None:
        """Destroy the cluster with all of its files, complete or not.

        Args:
            talosctl: destroys virtual machines; docker nodes are removed without it.

        Raises:
            TalosError: something cannot be removed.
        """
        if self.provisioner.is_virtual and talosctl is not None:
            _check_root(command_line.destroy(self.provisioner, talosctl, self.files))
        self._remove(talosctl)
        self.files.log.unlink(missing_ok=True)
        self.files.destroy_log.unlink(missing_ok=True)

    def _find(self) -> Found | None:
        if self.provisioner is Provisioner.DOCKER:
            return docker_nodes.find(self.engine, self.files.name)
        return virtual_machines.find(self.files)

    def _was_created_by(self, plan: Invocation) -> bool:
        written = {name: _text(self.files.patch(name)) for name in plan.files}
        return written == dict(plan.files) and _text(self.files.command) == _command(plan)

    def _write_files(self, plan: Invocation) -> None:
        files = self.files
        try:
            make_private(files.base)
            make_private(files.folder)
            files.state.mkdir(mode=0o700)
        except OSError as error:
            raise TalosError(f"cannot write the cluster's files: {error}") from error
        # Created here, they stay private and ours even when root writes to them.
        _write(files.talosconfig, EMPTY_TALOSCONFIG)
        _write(files.kubeconfig, "")
        for name, content in plan.files.items():
            _write(files.patch(name), content)

    def _boot(self, plan: Invocation, phases: Phases) -> Observed:
        """Run talosctl, and wait as far as `wait` says, or until a node ends."""
        if self.provisioner.is_virtual:
            return self._booted(plan, phases, lambda: None)
        log, name = self.files.log, self.files.name
        watch = node_watch.Watch(
            self.engine,
            name,
            phases.line,
            has_credentials=any("username:" in text for text in plan.files.values()),
        )
        try:
            return self._booted(plan, phases, watch)
        except TalosError as error:
            found = node_watch.diagnose(self.engine, name, log)
            if found.ended:
                raise NodeEndedError(f"{found.ended}\n  full log: {log}") from error
            if found.hints:
                raise CommandError("\n  ".join((str(error), *found.hints))) from error
            raise

    def _booted(self, plan: Invocation, phases: Phases, check: Callable[[], None]) -> Observed:
        def checked(line: str) -> None:
            check()
            phases.line(line)

        deadline = time.monotonic() + plan.timeout_s
        with waiting.ended_early(self.wait, phases.line) as on_line:
            self._run(plan, self.files.log, replace(self.runner, on_line=on_line), check)
        complete = self._complete()
        if self.wait is not Wait.HEALTHY:
            access = self._access(complete, plan.program)
            access.wait_for(self.wait, deadline, checked)
        return complete

    def _run(
        self,
        plan: Invocation,
        log: Path,
        runner: Runner,
        check: Callable[[], None] = lambda: None,
    ) -> None:
        runner.run(
            plan.argv(is_root=_is_root()),
            env={**_environment(), **plan.env},
            log=log,
            pid_file=self.files.pid,
            within_s=plan.timeout_s,
            check=check,
            # There, talosctl 1.12 and later write the machine configurations of virtual machines,
            # with all keys of the cluster.
            folder=self.files.folder if self.provisioner.is_virtual else None,
        )

    def _attempt(self, plan: Invocation, talosctl: Talosctl | None) -> Observed:
        self._remove(talosctl)
        try:
            return self._create(plan)
        except BaseException as error:
            self._undo(error, talosctl)
            raise

    def _create(self, plan: Invocation) -> Observed:
        phases = Phases(self.runner.on_line)
        self._write_files(plan)
        complete = self._boot(plan, phases)
        command = _command(plan)
        _write(self.files.command, command)
        phases.finish(_REACHED[self.wait])
        return replace(complete, command=command.rstrip("\n"), problems=())

    def _access(self, observed: Observed, talosctl: str) -> Access:
        address = next(node.address for node in observed.nodes if node.role == "controlplane")
        assert observed.kubernetes_endpoint is not None  # noqa: S101 - all nodes run
        return Access(talosctl, self.files, address, observed.kubernetes_endpoint)

    def _complete(self) -> Observed:
        """The cluster that was just created.

        Raises:
            TalosError: it lacks nodes, or some do not run.
        """
        observed = self.read()
        if observed is None:
            missing = ["it does not exist"]
        else:
            found = observed.nodes
            missing = [*nodes.problems(found, self.node_counts), *nodes.not_running(found)]
        if observed is None or missing:
            raise TalosError(
                f"talosctl created the cluster {self.files.name}, but {'; '.join(missing)}\n"
                f"  full log: {self.files.log}"
            )
        return observed

    def _remove(self, talosctl: Talosctl | None, *, is_interrupted: bool = False) -> None:
        """Remove everything but the logs, also what an interrupted talosctl had asked for."""
        files = self.files
        is_ended = process.end_orphan(files.pid, str(files.state), grace_s=self.runner.grace_s)
        if self.provisioner is Provisioner.DOCKER:
            settles_s = SETTLES_S if is_ended or is_interrupted else 0.0
            docker_nodes.remove(self.engine, files.name, settles_s=settles_s)
        elif files.state.exists():
            self._remove_virtual_machines(talosctl)
        try:
            shutil.rmtree(files.folder)
        except (FileNotFoundError, NotADirectoryError):
            return
        except OSError as error:
            raise TalosError(f"cannot remove {files.folder}: {error}") from error

    def _remove_virtual_machines(self, talosctl: Talosctl | None) -> None:
        if virtual_machines.state_file(self.files).exists():
            if talosctl is None:
                raise TalosError(
                    f"destroying the virtual machines of {self.files.name} needs talosctl"
                )
            log = self.files.destroy_log
            try:
                plan = command_line.destroy(self.provisioner, talosctl, self.files)
                self._run(plan, log, self.runner)
                log.unlink()
            except CommandError as error:
                self.runner.on_line(f"removing the remains without talosctl, because {error}")
        virtual_machines.remove_remains(self.files)

    def _undo(self, error: BaseException, talosctl: Talosctl | None) -> None:
        """Remove the remains of a creation that failed with this error."""
        try:
            self._remove(talosctl, is_interrupted=True)
        except TalosError as failure:
            note = f"  remains could not be removed, and the next run tries again: {failure}"
            if isinstance(error, TalosError):
                raise TalosError(f"{error}\n{note}") from error
            error.add_note(note)


def _command(plan: Invocation) -> str:
    return f"{plan.line(is_root=_is_root())}\n"


def _text(path: Path) -> str | None:
    try:
        # Not `read_text`, which makes all line ends the same.
        return path.read_bytes().decode()
    except FileNotFoundError:
        return None


def _write(path: Path, text: str) -> None:
    try:
        write_private(path, text)
    except OSError as error:
        raise TalosError(f"cannot write the cluster's files: {error}") from error


def _is_root() -> bool:
    return os.geteuid() == 0


def _check_root(plan: Invocation) -> None:
    if plan.needs_root and virtual_machines.sudo_refuses():
        raise TalosError(
            "virtual machines need root, and sudo would ask for a password: run "
            "`sudo --validate` and try again, or run this yourself:\n"
            f"  {plan.line(is_root=False)}"
        )


def _environment() -> Mapping[str, str]:
    """The environment of this process without Pulumi's variables, such as the passphrase."""
    return {name: value for name, value in os.environ.items() if not name.startswith("PULUMI_")}
