"""One local cluster: created, looked at, destroyed."""

import os
import shutil
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from docker import DockerClient

from talos_registry_cache.talos import command_line, docker_nodes, nodes, process, virtual_machines
from talos_registry_cache.talos.cluster_files import Places, make_private, write_private
from talos_registry_cache.talos.cluster_spec import ClusterSpec, Provisioner
from talos_registry_cache.talos.command_line import Invocation
from talos_registry_cache.talos.errors import CommandError, TakenError, TalosError
from talos_registry_cache.talos.nodes import Found, Node
from talos_registry_cache.talos.process import Runner
from talos_registry_cache.talos.versions import Talosctl

# talosctl itself waits 20 minutes for a cluster to become ready, after it has pulled the image.
CREATED_WITHIN_S = 30 * 60.0
DESTROYED_WITHIN_S = 5 * 60.0

# What a talosconfig is that has nothing in it; an empty file would be none.
EMPTY_TALOSCONFIG = 'context: ""\ncontexts: {}\n'


@dataclass(frozen=True, slots=True)
class Observed:
    """A cluster as it is.

    Attributes:
        nodes: its nodes, by name.
        kubernetes_endpoint: URL of Kubernetes' API on this machine; None where there is none.
        command: the command line that created it, to paste into a shell; None if that failed.
        problems: what it lacks, in words; nothing for one that is whole, although it may have
            stopped.
    """

    nodes: tuple[Node, ...]
    kubernetes_endpoint: str | None
    command: str | None
    problems: tuple[str, ...]

    @property
    def stopped(self) -> tuple[Node, ...]:
        """Its nodes that are there and do not run."""
        return tuple(node for node in self.nodes if not node.runs)


def create(
    spec: ClusterSpec,
    talosctl: Talosctl,
    places: Places,
    *,
    engine: DockerClient,
    runner: Runner,
) -> Observed:
    """Create a cluster, and wait until talosctl calls it ready.

    If it is there already, by the same command line and whole, no more is done than to start its
    nodes. Whatever else a run of ours has left of it is removed first. If it fails or is
    interrupted, nothing of it is left but the log.

    Args:
        spec: what is wanted.
        talosctl: who creates it.
        places: where its files are kept.
        engine: the engine of docker nodes.
        runner: runs talosctl.

    Raises:
        UnsupportedError: this version of talosctl cannot do what is wanted.
        TakenError: there is a cluster of this name that is not from here.
        CommandError: talosctl failed or took too long; the message names the log.
        TalosError: sudo needs a password, a file cannot be written, the engine does not answer.
    """
    invocation = command_line.create(spec, talosctl, places)
    found = read(spec, places, engine=engine)
    if found is not None and not found.problems and _was_made_by(invocation, places):
        return start(spec, places, engine=engine, runner=runner) or found
    if found is not None and not places.folder.exists():
        raise TakenError(
            f"there is a cluster {spec.name} already, and not from here; remove it "
            f"(talosctl cluster destroy --name {spec.name}) or choose another name"
        )
    _check_root(invocation)
    _remove(spec.provisioner, places, talosctl=talosctl, engine=engine, runner=runner)
    try:
        _prepare(invocation, places)
        within_s = spec.timeout_s or CREATED_WITHIN_S
        _run(invocation, places, runner, log=places.log, within_s=within_s)
        _finish(invocation, places)
        return _whole(spec, places, engine)
    except BaseException as error:
        _undo(error, spec, talosctl, places, engine=engine, runner=runner)
        raise


def read(spec: ClusterSpec, places: Places, *, engine: DockerClient) -> Observed | None:
    """Look at a cluster; None where there is nothing of it.

    Args:
        spec: what was wanted, for saying what is missing.
        places: where its files are kept.
        engine: the engine of docker nodes.

    Raises:
        TalosError: the engine does not answer, or talosctl's notes cannot be read.
    """
    found = _find(spec, places, engine)
    if found is None:
        return None
    command = places.command.read_text().rstrip("\n") if places.command.exists() else None
    unfinished = () if command is not None else ("its creation did not finish",)
    return Observed(
        nodes=tuple(found.nodes),
        kubernetes_endpoint=found.kubernetes_endpoint,
        command=command,
        problems=(*unfinished, *nodes.problems(found.nodes, spec.wanted_nodes)),
    )


def start(
    spec: ClusterSpec, places: Places, *, engine: DockerClient, runner: Runner
) -> Observed | None:
    """Start the nodes of a cluster that have stopped; how it is then, None where it is gone.

    Virtual machines are left as they are: talosctl has no command that starts them.

    Args:
        spec: what was wanted.
        places: where its files are kept.
        engine: the engine of docker nodes.
        runner: shows which nodes are started.

    Raises:
        TalosError: a node does not start or does not stay up, or the engine does not answer.
    """
    found = read(spec, places, engine=engine)
    if found is None or not found.stopped or spec.provisioner.is_virtual:
        return found
    docker_nodes.start(engine, spec.name, runner.on_line)
    return read(spec, places, engine=engine)


def destroy(
    spec: ClusterSpec,
    places: Places,
    *,
    talosctl: Talosctl | None,
    engine: DockerClient,
    runner: Runner,
) -> None:
    """Destroy a cluster with all of its files, whatever is left of it.

    Args:
        spec: what was wanted.
        places: where its files are kept.
        talosctl: destroys virtual machines; docker nodes are removed without it.
        engine: the engine of docker nodes.
        runner: runs talosctl.

    Raises:
        TalosError: something of it cannot be removed; the message says what.
    """
    if spec.provisioner.is_virtual and talosctl is not None:
        _check_root(command_line.destroy(spec.provisioner, talosctl, places))
    _remove(spec.provisioner, places, talosctl=talosctl, engine=engine, runner=runner)
    places.log.unlink(missing_ok=True)
    places.destroy_log.unlink(missing_ok=True)


def _find(spec: ClusterSpec, places: Places, engine: DockerClient) -> Found | None:
    if spec.provisioner is Provisioner.DOCKER:
        return docker_nodes.find(engine, spec.name)
    return virtual_machines.find(places)


def _was_made_by(invocation: Invocation, places: Places) -> bool:
    files = {name: _text(places.patch(name)) for name in invocation.files}
    return files == dict(invocation.files) and _text(places.command) == _noted(invocation)


def _noted(invocation: Invocation) -> str:
    return f"{invocation.line(is_root=_is_root())}\n"


def _text(path: Path) -> str | None:
    try:
        # As it is: read as text, its line ends would all become the same.
        return path.read_bytes().decode()
    except FileNotFoundError:
        return None


def _is_root() -> bool:
    return os.geteuid() == 0


def _check_root(invocation: Invocation) -> None:
    if invocation.needs_root and virtual_machines.sudo_refuses():
        raise TalosError(
            "virtual machines need root, and sudo would ask for a password: run "
            f"`sudo --validate` and try again, or run it yourself:\n"
            f"  {invocation.line(is_root=False)}"
        )


def _prepare(invocation: Invocation, places: Places) -> None:
    try:
        make_private(places.base)
        make_private(places.folder)
        places.state.mkdir(mode=0o700)
        # Made by us, these stay ours and closed to others, also when root writes to them.
        write_private(places.talosconfig, EMPTY_TALOSCONFIG)
        write_private(places.kubeconfig, "")
        for name, content in invocation.files.items():
            write_private(places.patch(name), content)
    except OSError as error:
        raise TalosError(f"cannot keep the cluster's files: {error}") from error


def _run(
    invocation: Invocation, places: Places, runner: Runner, *, log: Path, within_s: float
) -> None:
    runner.run(
        invocation.argv(is_root=_is_root()),
        env=_environment(invocation),
        log=log,
        pid_file=places.pid,
        within_s=within_s,
    )


def _environment(invocation: Invocation) -> Mapping[str, str]:
    """Ours, without Pulumi's own, among which may be the passphrase of the stack."""
    ours = {name: value for name, value in os.environ.items() if not name.startswith("PULUMI_")}
    return {**ours, **invocation.env}


def _finish(invocation: Invocation, places: Places) -> None:
    try:
        write_private(places.command, _noted(invocation))
    except OSError as error:
        raise TalosError(f"cannot keep the cluster's files: {error}") from error


def _whole(spec: ClusterSpec, places: Places, engine: DockerClient) -> Observed:
    """The cluster that was created just now."""
    observed = read(spec, places, engine=engine)
    if observed is None or observed.problems or observed.stopped:
        lacks = (*observed.problems, *nodes.not_running(observed.nodes)) if observed else ()
        wrong = "; ".join(lacks) or "there is none"
        raise TalosError(
            f"talosctl created the cluster {spec.name}, but {wrong}\n  full log: {places.log}"
        )
    return observed


def _remove(
    provisioner: Provisioner,
    places: Places,
    *,
    talosctl: Talosctl | None,
    engine: DockerClient,
    runner: Runner,
) -> None:
    """Remove all of a cluster but its log."""
    process.end_orphan(places.pid, str(places.state), grace_s=runner.grace_s)
    if provisioner is Provisioner.DOCKER:
        docker_nodes.remove(engine, places.name)
    elif places.state.exists():
        _remove_virtual(provisioner, places, talosctl, runner)
    try:
        shutil.rmtree(places.folder)
    except (FileNotFoundError, NotADirectoryError):
        return
    except OSError as error:
        raise TalosError(f"cannot remove {places.folder}: {error}") from error


def _remove_virtual(
    provisioner: Provisioner, places: Places, talosctl: Talosctl | None, runner: Runner
) -> None:
    is_noted = (places.state / places.name / virtual_machines.STATE_FILE).exists()
    if is_noted and talosctl is None:
        raise TalosError(f"destroying the virtual machines of {places.name} needs talosctl")
    if is_noted and talosctl is not None:
        invocation = command_line.destroy(provisioner, talosctl, places)
        try:
            log = places.destroy_log
            _run(invocation, places, runner, log=log, within_s=DESTROYED_WITHIN_S)
            log.unlink()
        except CommandError as error:
            runner.on_line(f"removing by hand what is left, since {error}")
    virtual_machines.remove_remains(places)


def _undo(
    error: BaseException,
    spec: ClusterSpec,
    talosctl: Talosctl,
    places: Places,
    *,
    engine: DockerClient,
    runner: Runner,
) -> None:
    """Remove what a failed creation has left."""
    try:
        _remove(spec.provisioner, places, talosctl=talosctl, engine=engine, runner=runner)
    except TalosError as left:
        note = f"  what is left of it could not be removed, the next run tries again: {left}"
        if isinstance(error, TalosError):
            raise TalosError(f"{error}\n{note}") from error
        error.add_note(note)
