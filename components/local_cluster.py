"""LocalCluster: the dynamic resource behind `TalosCluster`, over `talos_registry_cache.talos`."""

import functools
import os
from collections.abc import Callable, Mapping
from enum import Enum
from pathlib import Path
from typing import Any

import pulumi
from docker import DockerClient
from pulumi import dynamic

from talos_registry_cache.talos import cluster, command_line, kubeconfig, versions
from talos_registry_cache.talos.cluster import Observed
from talos_registry_cache.talos.cluster_files import Places
from talos_registry_cache.talos.cluster_spec import ClusterSpec, Provisioner
from talos_registry_cache.talos.errors import TalosError
from talos_registry_cache.talos.mirror import Mirror
from talos_registry_cache.talos.process import Runner

from . import dynamic_provider
from .trust import Trust

# Changes of these reach no node: they count from the next creation on, or are made in place.
HARMLESS = frozenset({"talosctl", "timeoutS", "mergeKubeconfig", "onLostNodes"})
REPLACING = frozenset({"name", "folder", "spec", "mirrors", "ca", "reader"})

# Pulumi hands all numbers over as floating point.
_WHOLE_NUMBERS = frozenset({"controlplanes", "workers", "memory_mib"})

_SIMULATED = Observed(nodes=(), kubernetes_endpoint=None, command=None, problems=())

Properties = Mapping[str, Any]


class Drift(Enum):
    """How a cluster differs from the one in the state."""

    NONE = "in nothing that is to be changed"
    STOPPED = "nodes are to be started"
    LOST = "nodes are lost, and it is to be replaced"


class LocalCluster(dynamic.Resource, module="clusters", name="LocalCluster"):
    """A cluster that talosctl makes and unmakes, as it is in Pulumi's state.

    No secret is but the password for its mirrors: talosconfig and kubeconfig are files, of which
    only the paths are known here.
    """

    nodes: pulumi.Output[list[Mapping[str, Any]]]
    """Name, role, address, status and published ports of each node."""

    kubernetesEndpoint: pulumi.Output[str]  # noqa: N815 - the name of the property
    """URL of its Kubernetes API on this machine; empty where it has none."""

    command: pulumi.Output[str]
    """The command line that created it, to paste into a shell."""

    def __init__(
        self,
        name: str,
        *,
        folder: Path,
        spec: Properties,
        mirrors: pulumi.Input[Mapping[str, str]],
        trust: Trust,
        talosctl: str,
        timeout_s: float,
        merge_kubeconfig: bool,
        on_lost_nodes: str,
        opts: pulumi.ResourceOptions | None = None,
    ) -> None:
        """Declare a cluster.

        Args:
            name: its name.
            folder: the folder of the stack's clusters, an absolute path.
            spec: what is wanted of it: the fields of `ClusterSpec` that are set.
            mirrors: the URL of each mirror, by registry host.
            trust: what lets its nodes in there.
            talosctl: the program, by its path or its name on PATH.
            timeout_s: seconds that its creation may take.
            merge_kubeconfig: whether its context is to be in the user's own kubeconfig as well.
            on_lost_nodes: what is done if some of its nodes no longer exist: keep or replace.
            opts: options of the resource.
        """
        inputs = {
            "name": name,
            "folder": str(folder),
            "spec": spec,
            "mirrors": mirrors,
            **trust.inputs(),
            "talosctl": talosctl,
            "timeoutS": timeout_s,
            "mergeKubeconfig": merge_kubeconfig,
            "onLostNodes": on_lost_nodes,
        }
        outputs = dict.fromkeys(("nodes", "kubernetesEndpoint", "command"))
        super().__init__(LocalClusterProvider(), name, {**inputs, **outputs}, opts)


class LocalClusterProvider(dynamic.ResourceProvider):
    """Creates, finds and destroys clusters; it holds nothing, since it is pickled."""

    serialize_as_secret_always = False

    def configure(self, req: dynamic.ConfigureRequest) -> None:
        """Prepare the provider's process."""
        dynamic_provider.prepare(req, TalosError)

    def check(self, _olds: Properties, news: Properties) -> dynamic.CheckResult:
        """Refuse what this talosctl cannot do, before anything is touched."""
        failures = []
        if pulumi.runtime.rpc.UNKNOWN not in news.values():
            try:
                talosctl = find_talosctl(news["talosctl"])
                if talosctl:
                    command_line.create(spec_of(news), talosctl, places_of(news))
            except TalosError as error:
                failures = [dynamic.CheckFailure("spec", str(error))]
        return dynamic.CheckResult(dict(news), failures)

    def diff(self, _id: str, olds: Properties, news: Properties) -> dynamic.DiffResult:
        """What has changed: in the properties, or on the engine since.

        What reaches the nodes replaces the cluster. Nodes that have stopped are an update, which
        starts them. The engine is asked here, not by refresh alone, so that a plain `up` after a
        reboot brings the nodes back.
        """
        changed = [key for key in (*REPLACING, *HARMLESS) if olds.get(key) != news.get(key)]
        replaces = [key for key in changed if key in REPLACING]
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
        """Create a cluster and wait for it; nothing is left of one that fails but its log."""
        if dynamic_provider.is_simulated():
            return dynamic.CreateResult(props["name"], {**props, **_outputs(_SIMULATED, props)})
        with dynamic_provider.engine() as engine:
            observed = cluster.create(
                spec_of(props),
                versions.find(props["talosctl"]),
                places_of(props),
                engine=engine,
                runner=_runner(props),
            )
            try:
                _merge(props)
            except TalosError as error:
                _destroy(props, engine)
                raise TalosError(f"{error}; the cluster was removed again") from error
        return dynamic.CreateResult(props["name"], {**props, **_outputs(observed, props)})

    def read(self, id_: str, props: Properties) -> dynamic.ReadResult:
        """Look at a cluster: one that has vanished is no more, and nodes that are lost are told."""
        observed = _observed(props)
        if observed is None:
            return dynamic.ReadResult("", {})
        return dynamic.ReadResult(id_, {**props, **_outputs(observed, props)})

    def update(self, _id: str, olds: Properties, news: Properties) -> dynamic.UpdateResult:
        """Take over a change that reaches no node, and start the nodes that have stopped."""
        if olds["mergeKubeconfig"] and not news["mergeKubeconfig"]:
            _unmerge(olds)
        _merge(news)
        kept = {key: olds.get(key) for key in ("nodes", "kubernetesEndpoint", "command")}
        if not dynamic_provider.is_simulated():
            with dynamic_provider.engine() as engine:
                observed = cluster.start(
                    spec_of(olds), places_of(olds), engine=engine, runner=_runner(olds)
                )
            kept = _outputs(observed, olds) if observed else kept
        return dynamic.UpdateResult({**news, **kept})

    def delete(self, _id: str, props: Properties) -> None:
        """Destroy a cluster with all of its files, whatever is left of it."""
        _unmerge(props)
        with dynamic_provider.engine() as engine:
            _destroy(props, engine)


@functools.cache
def find_talosctl(program: str) -> versions.Talosctl | None:
    """Find talosctl, as `versions.find` does; None where a simulated cluster does without.

    It is asked once, however many clusters and image sets there are.

    Raises:
        VersionError: there is none, or none that can be used.
    """
    try:
        return versions.find(program)
    except versions.VersionError:
        if dynamic_provider.is_simulated():
            return None
        raise


def spec_of(props: Properties) -> ClusterSpec:
    """What is wanted of a cluster, from the properties of its resource.

    Raises:
        SpecError: it makes no sense.
    """
    return ClusterSpec(
        **spec_arguments(props["spec"]),
        name=props["name"],
        mirrors=mirrors_with(props["mirrors"], props.get("ca"), props.get("reader")),
        timeout_s=props["timeoutS"],
    )


def mirrors_with(
    urls: Mapping[str, str], ca: str | None, reader: Mapping[str, str] | None
) -> Mapping[str, Mirror]:
    """Mirrors by registry host, each with what lets nodes in there."""
    return {host: Mirror(url, ca, **(reader or {})) for host, url in urls.items()}


def spec_arguments(spec: Properties) -> dict[str, Any]:
    """The arguments of `ClusterSpec`, from what Pulumi has made of them on the way."""
    arguments = {key: _native(key, value) for key, value in spec.items()}
    return arguments | {"provisioner": Provisioner(spec["provisioner"])}


def places_of(props: Properties) -> Places:
    """Where the files of a cluster are, from the properties of its resource."""
    return Places(Path(props["folder"]), props["name"])


def _native(key: str, value: Any) -> Any:
    if isinstance(value, list):
        return tuple(value)
    return int(value) if key in _WHOLE_NUMBERS else value


def _observed(props: Properties) -> Observed | None:
    with dynamic_provider.engine() as engine:
        return cluster.read(spec_of(props), places_of(props), engine=engine)


def _drift(olds: Properties, news: Properties) -> Drift:
    """How a cluster has come to differ from what is in the state; what matters of it is told."""
    tell = _runner(olds).on_line
    observed = _observed(olds)
    if observed is None:
        # It may be on another engine, with its client configurations still here.
        tell(
            "warning: this engine has nothing of it; if it was removed, "
            "`pulumi refresh` and `pulumi up` create it again"
        )
        return Drift.NONE
    if not observed.nodes:
        tell("all of its nodes are lost; it is created again")
        return Drift.LOST
    gone = tuple(f"{node['name']} is lost" for node in _lost(observed, olds))
    if lacks := "; ".join(gone or observed.problems):
        setting = f"clusters.{olds['name']}.onLostNodes"
        if news.get("onLostNodes") == "replace":
            tell(
                f"warning: {lacks}. DATA LOSS: the whole cluster is replaced, with etcd and the "
                f"volumes of all nodes, as {setting} is `replace`"
            )
            return Drift.LOST
        tell(
            f"warning: {lacks}. The other nodes are left as they are. To replace the whole "
            f"cluster, and lose etcd and the volumes of all nodes, set {setting} to `replace`"
        )
    return _stopped(observed, is_virtual=spec_of(olds).provisioner.is_virtual, tell=tell)


def _stopped(observed: Observed, *, is_virtual: bool, tell: Callable[[str], None]) -> Drift:
    """Whether nodes are to be started; those that cannot be are told."""
    for node in observed.stopped:
        if is_virtual:
            tell(
                f"warning: the virtual machine {node.name} has stopped, and talosctl cannot start "
                "it again; the cluster is left as it is"
            )
        else:
            tell(f"the node {node.name} has stopped ({node.status}); `pulumi up` starts it")
    return Drift.STOPPED if observed.stopped and not is_virtual else Drift.NONE


def _lost(observed: Observed, props: Properties) -> list[Mapping[str, Any]]:
    """The nodes of the state that no longer exist, marked so."""
    there = {node.name for node in observed.nodes}
    known = props.get("nodes") or ()
    return [{**node, "status": "lost"} for node in known if node["name"] not in there]


def _outputs(observed: Observed, props: Properties) -> dict[str, Any]:
    """What is told of a cluster, its lost nodes included."""
    nodes = [
        {
            "name": node.name,
            "role": node.role,
            "address": node.address,
            "status": node.status,
            "ports": dict(node.ports),
        }
        for node in observed.nodes
    ]
    return {
        "nodes": [*nodes, *_lost(observed, props)],
        "kubernetesEndpoint": observed.kubernetes_endpoint or "",
        "command": observed.command or "",
    }


def _runner(props: Properties) -> Runner:
    name = props["name"]
    # What a provider prints, Pulumi shows.
    return Runner(lambda line: print(f"{name}: {line}", flush=True))  # noqa: T201


def _destroy(props: Properties, engine: DockerClient) -> None:
    spec = spec_of(props)
    cluster.destroy(
        spec,
        places_of(props),
        # Containers are removed without it, and it may be gone by now.
        talosctl=versions.find(props["talosctl"]) if spec.provisioner.is_virtual else None,
        engine=engine,
        runner=_runner(props),
    )


def _merge(props: Properties) -> None:
    if props["mergeKubeconfig"]:
        kubeconfig.merge(places_of(props).kubeconfig, _users_kubeconfig())


def _unmerge(props: Properties) -> None:
    if props["mergeKubeconfig"]:
        kubeconfig.remove(_users_kubeconfig(), props["name"])


def _users_kubeconfig() -> Path:
    """The file that kubectl would write to: the first of KUBECONFIG, else the usual one."""
    first = os.environ.get("KUBECONFIG", "").split(os.pathsep)[0]
    return Path(first) if first else Path.home() / ".kube" / "config"
