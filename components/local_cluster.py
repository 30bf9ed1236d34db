"""LocalCluster: the dynamic resource of `TalosCluster`, around `talos_registry_cache.talos`."""

import os
import re
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, fields
from enum import Enum
from pathlib import Path
from typing import Any

import pulumi
from pulumi import dynamic
from pulumi.output import contains_unknowns

from talos_registry_cache.engine import lock
from talos_registry_cache.talos import kubeconfig, versions
from talos_registry_cache.talos.cluster import ClusterOperations, Observed
from talos_registry_cache.talos.cluster_files import ClusterFiles
from talos_registry_cache.talos.cluster_spec import ClusterSpec, Provisioner
from talos_registry_cache.talos.command_line import Invocation
from talos_registry_cache.talos.errors import TalosError
from talos_registry_cache.talos.process import Runner
from talos_registry_cache.talos.waiting import Wait

from . import apart, dynamic_provider
from .settings import Cluster
from .trust import Trust

# A change of these properties does not reach the nodes, and updates the resource in place.
HARMLESS = frozenset({"talosctl", "mergeKubeconfig", "onLostNodes", "wait"})
REPLACING = frozenset({"name", "folder", "spec", "mirrors", "ca", "reader"})

CERTIFICATE = re.compile(r"-----BEGIN CERTIFICATE-----.*?-----END CERTIFICATE-----", re.DOTALL)

# Not a part of `spec`: these are properties of their own, and the timeout does not reach the nodes.
_NOT_IN_SPEC = frozenset({"name", "mirrors", "timeout_s"})

# The planned run of talosctl. It follows from the other properties and from the installed talosctl,
# whose upgrade must not replace a cluster, so `diff` ignores it. Two underscores at the beginning
# keep it out of the differences that Pulumi and the pull-request preview show.
PLAN = "__plan"

_SIMULATED = Observed(nodes=(), kubernetes_endpoint=None, command=None, problems=())

Properties = Mapping[str, Any]


class Drift(Enum):
    """How a cluster differs from its state in Pulumi."""

    NONE = "nothing to change"
    STOPPED = "nodes have to be started"
    LOST = "nodes are lost, and the cluster has to be replaced"


class LocalCluster(dynamic.Resource, module="clusters", name="LocalCluster"):
    """A cluster that talosctl creates and destroys.

    Its only secret in the state is the password for the mirrors. Of talosconfig and kubeconfig, the
    state has the paths.
    """

    nodes: pulumi.Output[list[Mapping[str, Any]]]
    """Name, role, address, status and published ports of each node."""

    kubernetesEndpoint: pulumi.Output[str]  # noqa: N815 - the name of the property
    """URL of the Kubernetes API on this machine; empty if there is none."""

    command: pulumi.Output[str]
    """The command line that created the cluster, to paste into a shell."""

    def __init__(
        self,
        name: str,
        *,
        settings: Cluster,
        folder: Path,
        mirrors: pulumi.Input[Mapping[str, str]],
        trust: Trust,
        plan: pulumi.Input[Invocation | None],
        opts: pulumi.ResourceOptions | None = None,
    ) -> None:
        """Declare a cluster.

        Args:
            name: name of the cluster.
            settings: its settings.
            folder: the folder of the stack's clusters, an absolute path.
            mirrors: the URL of each mirror, by registry host.
            trust: the CA and the reader of the mirrors.
            plan: the run of talosctl that creates it; None for a simulated cluster.
            opts: options of the resource.
        """
        inputs = {
            "name": name,
            "folder": str(folder),
            "spec": spec_properties(settings.spec(name)),
            "mirrors": mirrors,
            **trust.inputs(),
            "talosctl": settings.talosctl,
            "mergeKubeconfig": settings.merge_kubeconfig,
            "onLostNodes": settings.on_lost_nodes,
            "wait": settings.wait,
            PLAN: pulumi.Output.from_input(plan).apply(lambda known: known and asdict(known)),
        }
        outputs = dict.fromkeys(("nodes", "kubernetesEndpoint", "command"))
        super().__init__(LocalClusterProvider(), name, {**inputs, **outputs}, opts)


class LocalClusterProvider(dynamic.ResourceProvider):
    """Creates, reads, starts and destroys clusters. It is pickled, and has no attributes."""

    serialize_as_secret_always = False

    def configure(self, req: dynamic.ConfigureRequest) -> None:
        """Prepare the provider's process."""
        dynamic_provider.prepare(req)

    def diff(self, _id: str, olds: Properties, news: Properties) -> dynamic.DiffResult:
        """Compare the properties, and the cluster on the engine with its state.

        A change that reaches the nodes replaces the cluster, except that running nodes can be told
        of the next CA of their mirrors. Stopped nodes are an update, which starts them. The engine
        is asked here, not only by refresh, so that a plain `up` after a reboot starts the nodes.
        """
        changed = [key for key in (*REPLACING, *HARMLESS) if olds.get(key) != news.get(key)]
        replaces = [key for key in changed if key in REPLACING]
        if "ca" in replaces and _is_succession(olds.get("ca"), news.get("ca")):
            replaces.remove("ca")
        drift = Drift.NONE
        if not replaces and not dynamic_provider.is_simulated():
            drift = _drift(olds, news)
        if drift is Drift.LOST:
            replaces.append("nodes")
        return dynamic.DiffResult(
            changes=bool(changed) or drift is not Drift.NONE,
            replaces=sorted(replaces),
            delete_before_replace=True,
        )

    def create(self, props: Properties) -> dynamic.CreateResult:
        """Run the planned talosctl and wait as the settings say; a failure leaves only its log."""
        if dynamic_provider.is_simulated():
            return dynamic.CreateResult(props["name"], {**props, **_outputs(_SIMULATED, props)})
        outputs = apart.run(_created, props)
        return dynamic.CreateResult(props["name"], {**props, **outputs})

    def read(self, id_: str, props: Properties) -> dynamic.ReadResult:
        """Update the nodes in the state; a cluster that no longer exists is removed from it."""
        with _operations(props) as cluster:
            observed = cluster.read()
        if observed is None:
            return dynamic.ReadResult("", {})
        return dynamic.ReadResult(id_, {**props, **_outputs(observed, props)})

    def update(self, _id: str, olds: Properties, news: Properties) -> dynamic.UpdateResult:
        """Apply changes that do not replace the cluster, and start stopped nodes."""
        if olds["mergeKubeconfig"] and not news["mergeKubeconfig"]:
            _unmerge(olds)
        _merge(news)
        kept = {key: olds.get(key) for key in ("nodes", "kubernetesEndpoint", "command")}
        if not dynamic_provider.is_simulated():
            with _operations(olds) as cluster:
                observed = cluster.start()
                cluster.trust(_plan(news))
            kept = _outputs(observed, olds) if observed else kept
        return dynamic.UpdateResult({**news, **kept})

    def delete(self, _id: str, props: Properties) -> None:
        """Destroy the cluster with all of its files, complete or not."""
        _unmerge(props)
        with _operations(props) as cluster, _alone(cluster):
            cluster.destroy(_talosctl(props))


def _created(props: Properties) -> dict[str, Any]:
    """Create the cluster, and return its outputs.

    Raises:
        TalosError: it cannot be created, or Ctrl-C has interrupted this.
    """
    try:
        with _operations(props) as cluster, _alone(cluster):
            observed = cluster.create(_plan(props), _talosctl(props))
            try:
                _merge(props)
            except TalosError as error:
                cluster.destroy(_talosctl(props))
                raise TalosError(f"{error}; the cluster was removed again") from error
    except KeyboardInterrupt as interrupt:
        left = getattr(interrupt, "__notes__", ["  everything but its log was removed again"])
        text = f"the creation of the cluster {props['name']} was interrupted"
        raise TalosError("\n".join((text, *left))) from None
    return _outputs(observed, props)


def _is_succession(old: str | None, new: Any) -> bool:
    """Whether a CA of the mirrors is kept, so that nodes with the old ones can still use them.

    In a preview, the CAs are unknown while the stack introduces the next one.
    """
    if old is None or new is None:
        return False
    if contains_unknowns(new):
        return True
    return not set(CERTIFICATE.findall(old)).isdisjoint(CERTIFICATE.findall(new))


@contextmanager
def _alone(cluster: ClusterOperations) -> Iterator[None]:
    """Wait for an earlier run that was interrupted and still undoes its creation."""
    waiting = "waiting for an earlier run that still works on this cluster"
    name = str(cluster.files.folder)
    with lock.held(cluster.engine, name, lambda: cluster.runner.on_line(waiting)):
        yield


def spec_properties(spec: ClusterSpec) -> dict[str, Any]:
    """The fields of a specification that replace the cluster when they change.

    Unset fields are left out, so that one that a later version adds replaces no cluster.
    """
    values = {field: getattr(spec, field.name) for field in fields(spec)}
    return {
        field.name: list(value) if isinstance(value, tuple) else value
        for field, value in values.items()
        if field.name not in _NOT_IN_SPEC and (value or value != field.default)
    }


@contextmanager
def _operations(props: Properties) -> Iterator[ClusterOperations]:
    """The operations on the cluster with these properties.

    Raises:
        EngineError: the engine does not answer.
    """
    spec = props["spec"]
    counts = {"controlplane": "controlplanes", "worker": "workers"}
    with dynamic_provider.engine() as engine:
        yield ClusterOperations(
            files=_files(props),
            provisioner=_provisioner(props),
            # Pulumi turns all numbers into floats.
            node_counts={role: int(spec[key]) for role, key in counts.items()},
            engine=engine,
            runner=Runner(_shown_for(props)),
            wait=Wait(props["wait"]),
        )


def _plan(props: Properties) -> Invocation:
    found: dict[str, Any] = {
        key: tuple(value) if isinstance(value, list) else value
        for key, value in props[PLAN].items()
    }
    return Invocation(**found)


def _files(props: Properties) -> ClusterFiles:
    return ClusterFiles(Path(props["folder"]), props["name"])


def _provisioner(props: Properties) -> Provisioner:
    return Provisioner(props["spec"]["provisioner"])


def _talosctl(props: Properties) -> versions.Talosctl | None:
    """The installed talosctl, to destroy virtual machines; containers are removed without it."""
    return versions.find(props["talosctl"]) if _provisioner(props).is_virtual else None


def _shown_for(props: Properties) -> Callable[[str], None]:
    """Pulumi shows what a provider prints; lines begin with the cluster's name."""
    name = props["name"]
    return lambda line: print(f"{name}: {line}", flush=True)  # noqa: T201 - see above


def _drift(olds: Properties, news: Properties) -> Drift:
    """Compare a cluster with its state, and print what the user should know."""
    show = _shown_for(olds)
    with _operations(olds) as cluster:
        observed = cluster.read()
    if observed is None:
        # It may be on another engine, and its client configurations still exist here.
        show(
            "warning: this engine has nothing of the cluster; if it was removed, "
            "`pulumi refresh` and `pulumi up` create it again"
        )
        return Drift.NONE
    if not observed.nodes:
        show("all nodes are lost; the cluster is created again")
        return Drift.LOST
    lost = tuple(f"{node['name']} is lost" for node in _lost(observed, olds))
    if problem := "; ".join(lost or observed.problems):
        setting = f"clusters.{olds['name']}.onLostNodes"
        if news["onLostNodes"] == "replace":
            show(
                f"warning: {problem}. DATA LOSS: the whole cluster is replaced, with etcd and the "
                f"volumes of all nodes, because {setting} is `replace`"
            )
            return Drift.LOST
        show(
            f"warning: {problem}. The other nodes are kept. To replace the whole cluster, and lose "
            f"etcd and the volumes of all nodes, set {setting} to `replace`"
        )
    return _stopped(observed, is_virtual=_provisioner(olds).is_virtual, show=show)


def _stopped(observed: Observed, *, is_virtual: bool, show: Callable[[str], None]) -> Drift:
    """Whether nodes have to be started."""
    for node in observed.stopped:
        if is_virtual:
            show(
                f"warning: the virtual machine {node.name} has stopped, and talosctl cannot start "
                "it again; the cluster is left unchanged"
            )
        else:
            show(f"the node {node.name} has stopped ({node.status}); `pulumi up` starts it")
    return Drift.STOPPED if observed.stopped and not is_virtual else Drift.NONE


def _lost(observed: Observed, props: Properties) -> list[Mapping[str, Any]]:
    """Nodes in the state that no longer exist, with the status `lost`."""
    existing = {node.name for node in observed.nodes}
    known = props.get("nodes") or ()
    return [{**node, "status": "lost"} for node in known if node["name"] not in existing]


def _outputs(observed: Observed, props: Properties) -> dict[str, Any]:
    """The outputs of a cluster, with its lost nodes."""
    return {
        "nodes": [*(asdict(node) for node in observed.nodes), *_lost(observed, props)],
        "kubernetesEndpoint": observed.kubernetes_endpoint or "",
        "command": observed.command or "",
    }


def _merge(props: Properties) -> None:
    if props["mergeKubeconfig"]:
        kubeconfig.merge(_files(props).kubeconfig, _users_kubeconfig())


def _unmerge(props: Properties) -> None:
    if props["mergeKubeconfig"]:
        kubeconfig.remove(_users_kubeconfig(), props["name"])


def _users_kubeconfig() -> Path:
    """The file that kubectl writes to: the first of KUBECONFIG, or the default."""
    first = os.environ.get("KUBECONFIG", "").split(os.pathsep)[0]
    return Path(first) if first else Path.home() / ".kube" / "config"
