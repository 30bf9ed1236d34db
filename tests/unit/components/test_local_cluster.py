"""The cluster provider, with the properties that the program declares."""

import os
import re
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from itertools import pairwise
from pathlib import Path
from typing import Any

import grpc  # type: ignore[import-untyped]
import pytest
import yaml
from docker import DockerClient
from google.protobuf import empty_pb2, struct_pb2  # type: ignore[import-untyped]
from pulumi.dynamic.dynamic import serialize_provider
from pulumi.output import UNKNOWN
from pulumi.runtime import rpc
from pulumi.runtime.proto import provider_pb2, provider_pb2_grpc

from components import apart, dynamic_provider, local_cluster, settings, talos_cluster
from components.local_cluster import PLAN, LocalClusterProvider
from components.mirrors import Mirrors
from components.talos_cluster import TalosCluster, TalosClusterArgs
from components.trust import Trust
from talos_registry_cache.talos import docker_nodes
from talos_registry_cache.talos.cluster_files import ClusterFiles
from talos_registry_cache.talos.errors import TalosError
from talos_registry_cache.talos.versions import VersionError
from tests.unit.components import stack_graph
from tests.unit.talos import fake_docker
from tests.unit.talos.fake_docker import FakeDocker
from tests.unit.talos.fake_talosctl import STEPS, FakeTalosctl

ROOT = Path(__file__).resolve().parents[3]
WITHIN_S = 60.0
NODES = ("demo-controlplane-1", "demo-worker-1")
MIRRORS = Mirrors(mirrors={"docker.io": "http://172.17.0.1:5000"})
READER = {"username": "adam", "password": "s3cret"}
CLOSED = Mirrors(mirrors={"docker.io": "https://172.17.0.1:5000"}, trust=Trust("PEM", READER))
CA, NEXT_CA = (
    f"-----BEGIN CERTIFICATE-----\n{one}\n-----END CERTIFICATE-----\n" for one in ("MQ==", "Mg==")
)


def closed(ca: str) -> Mirrors:
    """Mirrors with these CAs."""
    return replace(CLOSED, trust=Trust(ca, READER))


def kubeconfig(context: str, cluster: str, user: Mapping[str, str]) -> dict[str, Any]:
    return {
        "apiVersion": "v1",
        "kind": "Config",
        "clusters": [{"name": cluster, "cluster": {"server": f"https://{cluster}"}}],
        "contexts": [{"name": context, "context": {"cluster": cluster, "user": context}}],
        "users": [{"name": context, "user": dict(user)}],
        "current-context": context,
    }


OWN = kubeconfig("prod", "prod", {"token": "t"})

VIRTUAL_STATE = """\
clusterinfo:
  network: {name: demo, cidrs: [10.5.0.0/24], gatewayaddrs: [10.5.0.1]}
  nodes:
    - {name: demo-worker-1, type: worker, ips: [10.5.0.3]}
    - {name: demo-controlplane-1, type: controlplane, ips: [10.5.0.2]}
"""


def through_pulumi(props: Mapping[str, Any]) -> dict[str, Any]:
    """Properties as Pulumi sends them, with floats for numbers."""
    received: dict[str, Any] = rpc.deserialize_properties(struct_of(props))
    return received


def struct_of(props: Mapping[str, Any]) -> Any:
    struct = struct_pb2.Struct()
    struct.update(props)
    return struct


@dataclass
class Bench:
    """An engine, a talosctl and the provider."""

    folder: Path
    engine: FakeDocker
    client: DockerClient
    provider: LocalClusterProvider = field(default_factory=LocalClusterProvider)

    def __post_init__(self) -> None:
        self.talosctl = FakeTalosctl(self.folder, "demo", self.engine.folder)
        created = kubeconfig("admin@demo", "demo", {"client-key-data": "s3cret"})
        self.talosctl.kubeconfig = yaml.safe_dump(created)
        self.talosctl.does(*STEPS)

    @property
    def files(self) -> ClusterFiles:
        return ClusterFiles(self.folder / "stack", "demo")

    @property
    def users(self) -> Path:
        """The user's own kubeconfig."""
        return self.folder / "home" / ".kube" / "config"

    def props(self, mirrors: Mirrors = MIRRORS, **written: Any) -> dict[str, Any]:
        """The properties that the program declares for these settings."""
        written = {"talosctl": self.talosctl.path, "timeout": "60s", **written}
        parsed = settings.parse("dev", {"clusters": {"demo": written}})
        args = TalosClusterArgs(parsed.clusters["demo"], mirrors, self.files.base)
        graph = stack_graph.run(lambda: TalosCluster("demo", args))
        inputs = graph.one(stack_graph.LOCAL_CLUSTER, "demo").inputs
        plain = {
            key: value.value if isinstance(value, stack_graph.Secret) else value
            for key, value in inputs.items()
            if key != "__provider"
        }
        return through_pulumi(plain)

    def create(self, mirrors: Mirrors = MIRRORS, **written: Any) -> dict[str, Any]:
        """Create a cluster; returns its state in Pulumi."""
        outs = self.provider.create(self.props(mirrors, **written)).outs
        assert outs is not None
        return through_pulumi(outs)

    def update(self, state: Mapping[str, Any], news: Mapping[str, Any]) -> dict[str, Any]:
        """Update a cluster; returns its state in Pulumi."""
        outs = self.provider.update("demo", state, news).outs
        assert outs is not None
        return through_pulumi(outs)

    def read(self, state: Mapping[str, Any]) -> dict[str, Any]:
        """Refresh a cluster; returns its state in Pulumi."""
        outs = self.provider.read("demo", state).outs
        assert outs is not None
        return through_pulumi(outs)

    def diff(self, state: Mapping[str, Any], **changed: Any) -> "Diff":
        """Compare a state with the default properties; returns the changes and replacements."""
        diff = self.provider.diff("demo", state, {**self.props(), **through_pulumi(changed)})
        assert diff.delete_before_replace
        return diff.changes, diff.replaces

    def virtual_machines(self) -> None:
        """Write the state of stopped virtual machines."""
        state = self.files.state / "demo"
        state.mkdir(parents=True)
        (state / "state.yaml").write_text(VIRTUAL_STATE)
        self.files.command.write_text("talosctl cluster create qemu")

    def users_contexts(self) -> list[str]:
        return [one["name"] for one in yaml.safe_load(self.users.read_text())["contexts"]]


@pytest.fixture
def bench(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Bench]:
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    monkeypatch.delenv("KUBECONFIG", raising=False)
    # In this process, because it starts sooner.
    monkeypatch.setattr(apart, "run", lambda work, *arguments: work(*arguments))
    with fake_docker.serving(tmp_path) as (engine, client):
        monkeypatch.setenv("DOCKER_HOST", engine.address)
        yield Bench(tmp_path, engine, client)


Shown = Callable[[], list[str]]


@pytest.fixture
def shown(capsys: pytest.CaptureFixture[str]) -> Shown:
    """Returns the lines that Pulumi has shown since the last call."""
    return lambda: str(capsys.readouterr().out).splitlines()


# Diff of the properties

Diff = tuple[bool | None, list[str] | None]
SAME: Diff = (False, [])
UPDATE: Diff = (True, [])


def in_state(bench: Bench) -> dict[str, Any]:
    """The state of a simulated cluster."""
    return {**bench.props(), "nodes": [], "kubernetesEndpoint": "", "command": "c"}


@pytest.mark.parametrize(
    "changed",
    [
        {"folder": "/elsewhere", "name": "other"},
        {"spec": {"workers": 0}},
        {"mirrors": {}},
        {"mirrors": {"docker.io": "http://172.17.0.1:6000"}},
        {"ca": "PEM", "reader": READER},
    ],
)
def test_changes_that_affect_the_nodes_replace_the_cluster(
    bench: Bench, changed: dict[str, Any]
) -> None:
    assert bench.diff(in_state(bench), **changed, talosctl="/another") == (True, [*changed])


@pytest.mark.parametrize(
    ("ca", "diff"),
    [
        (f"{CA}{NEXT_CA}", UPDATE),
        (f"\n{CA}", UPDATE),
        (NEXT_CA, (True, ["ca"])),
        (UNKNOWN, UPDATE),
    ],
)
def test_the_next_ca_of_the_mirrors_replaces_no_cluster(
    bench: Bench, monkeypatch: pytest.MonkeyPatch, ca: Any, diff: Diff
) -> None:
    monkeypatch.setenv(dynamic_provider.SIMULATE, "1")
    state = {**in_state(bench), "ca": CA}

    found = bench.provider.diff("demo", state, {**state, "ca": ca})

    assert (found.changes, found.replaces) == diff


@pytest.mark.parametrize("is_stopped", [False, True])
def test_nodes_are_told_of_the_next_ca_and_told_again_when_they_were_started(
    bench: Bench, *, is_stopped: bool
) -> None:
    state = bench.create(closed(CA))
    news = bench.props(closed(CA + NEXT_CA))
    if is_stopped:
        state = bench.update(state, news)
        bench.engine.stop_node(NODES[1])

    bench.update(state, news)

    (arguments, _), *earlier = reversed(
        [call for call in bench.talosctl.calls if "patch" in call[0]]
    )
    assert len(earlier) == is_stopped
    assert arguments[arguments.index("--nodes") + 1] == "10.5.0.2,10.5.0.3"
    assert arguments[arguments.index("--mode") + 1] == "no-reboot"
    file = Path(arguments[arguments.index("--patch") + 1].removeprefix("@"))
    (document,) = yaml.safe_load_all(file.read_text())
    assert (document["kind"], document["ca"]) == ("RegistryTLSConfig", CA + NEXT_CA)


def test_nodes_that_know_all_cas_are_not_patched(bench: Bench) -> None:
    state, news = bench.create(closed(CA)), bench.props(closed(CA), mergeKubeconfig=True)

    bench.provider.update("demo", state, news)

    assert not [call for call in bench.talosctl.calls if "patch" in call[0]]


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("talosctl", "/another"),
        ("mergeKubeconfig", True),
        ("onLostNodes", "replace"),
        ("wait", "none"),
    ],
)
def test_other_changes_update_the_cluster(
    bench: Bench, monkeypatch: pytest.MonkeyPatch, key: str, value: Any
) -> None:
    monkeypatch.setenv(dynamic_provider.SIMULATE, "1")

    assert bench.diff(in_state(bench), **{key: value}) == UPDATE


def test_a_new_talosctl_version_or_timeout_changes_nothing(bench: Bench) -> None:
    state = bench.create()
    assert bench.props(CLOSED).keys() == local_cluster.REPLACING | local_cluster.HARMLESS | {PLAN}
    bench.talosctl.version = "v1.11.5"
    bench.talosctl.does(*STEPS)
    talos_cluster.find_talosctl.cache_clear()

    news = bench.props(timeout="5m")

    assert news[PLAN]["words"] != state[PLAN]["words"]
    assert bench.diff(state, **{PLAN: news[PLAN]}) == SAME


# Diff against the engine


@pytest.mark.parametrize("is_refreshed", [False, True])
@pytest.mark.parametrize("stopped", [NODES[1:], NODES], ids=["one", "all"])
def test_stopped_nodes_cause_an_update(
    bench: Bench, shown: Shown, stopped: tuple[str, ...], *, is_refreshed: bool
) -> None:
    state = bench.create()
    for name in stopped:
        bench.engine.stop_node(name)
    state = bench.read(state) if is_refreshed else state
    shown()

    assert bench.diff(state) == UPDATE
    assert shown() == [
        f"demo: the node {name} has stopped (exited); `pulumi up` starts it" for name in stopped
    ]


@pytest.mark.parametrize("is_refreshed", [False, True])
@pytest.mark.parametrize(
    ("on_lost_nodes", "diff", "text"),
    [
        ("keep", SAME, "The other nodes are kept. .* set clusters.demo.onLostNodes to `replace`"),
        ("replace", (True, ["nodes"]), "DATA LOSS: the whole cluster is replaced, with etcd"),
    ],
)
def test_lost_nodes_are_reported_and_replace_the_cluster_if_set(
    bench: Bench,
    shown: Shown,
    on_lost_nodes: str,
    diff: Diff,
    text: str,
    *,
    is_refreshed: bool,
) -> None:
    state = bench.create(onLostNodes=on_lost_nodes)
    bench.engine.remove_node("demo-worker-1")
    state = bench.read(state) if is_refreshed else state
    shown()

    assert bench.diff(state, onLostNodes=on_lost_nodes) == diff
    (line,) = shown()
    assert line.startswith("demo: warning: demo-worker-1 is lost. ")
    assert re.search(text, line)


def remove_one_and_stop_the_other(engine: FakeDocker) -> None:
    engine.remove_node("demo-worker-1")
    engine.stop_node("demo-controlplane-1")


@pytest.mark.parametrize(
    ("lose", "diff", "line"),
    [
        (remove_one_and_stop_the_other, UPDATE, ""),
        (
            lambda engine: [engine.remove_node(name) for name in NODES],
            (True, ["nodes"]),
            "demo: all nodes are lost; the cluster is created again",
        ),
        # It may be on another engine.
        (
            FakeDocker.remove_all,
            SAME,
            "demo: warning: this engine has nothing of the cluster",
        ),
    ],
    ids=["one lost, one stopped", "all nodes", "everything"],
)
def test_a_lost_cluster_is_created_again_only_if_the_engine_knows_it(
    bench: Bench, shown: Shown, lose: Callable[[FakeDocker], Any], diff: Diff, line: str
) -> None:
    state = bench.create()
    lose(bench.engine)

    assert bench.diff(state) == diff
    assert any(found.startswith(line) for found in shown())


def test_a_simulated_cluster_is_not_compared_with_the_engine(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(dynamic_provider.SIMULATE, "1")
    state = bench.create()
    monkeypatch.setenv("DOCKER_HOST", "tcp://127.0.0.1:1")

    assert bench.diff(state) == SAME
    updated = bench.provider.update("demo", state, {**state, "talosctl": "/another"})
    assert updated.outs == {**state, "talosctl": "/another"}


def test_stopped_virtual_machines_are_reported_and_kept(bench: Bench, shown: Shown) -> None:
    virtual = bench.props(provisioner="qemu", onLostNodes="replace")
    bench.virtual_machines()

    diff = bench.provider.diff("demo", virtual, virtual)

    assert (diff.changes, diff.replaces) == SAME
    assert shown() == [
        f"demo: warning: the virtual machine {name} has stopped, and talosctl cannot start it "
        "again; the cluster is left unchanged"
        for name in NODES
    ]


# Create


def test_a_cluster_is_created_and_its_state_describes_it(bench: Bench, shown: Shown) -> None:
    created = bench.provider.create(bench.props())

    assert created.id == "demo"
    assert created.outs is not None
    controlplane, worker = created.outs["nodes"]
    assert controlplane == {
        "name": "demo-controlplane-1",
        "role": "controlplane",
        "address": "10.5.0.2",
        "status": "running",
        "ports": {"6443/tcp": "0.0.0.0:32771", "50000/tcp": "0.0.0.0:32772"},
    }
    assert (worker["name"], worker["address"]) == ("demo-worker-1", "10.5.0.3")
    assert created.outs["kubernetesEndpoint"] == "https://127.0.0.1:32771"
    assert f"{bench.talosctl.path} cluster create docker" in created.outs["command"]
    assert {key: created.outs[key] for key in bench.props()} == bench.props()
    assert shown()[-1].startswith("demo: ready after ")


def test_a_cluster_that_is_not_waited_for_has_a_kubeconfig_to_merge(
    bench: Bench, shown: Shown
) -> None:
    bench.talosctl.does(*STEPS[:-1], "check", "hang")

    bench.create(wait="none", mergeKubeconfig=True)

    assert shown()[-1].startswith("demo: bootstrapped after ")
    assert bench.users_contexts() == ["admin@demo"]


def test_talosctl_runs_as_planned(bench: Bench) -> None:
    props = bench.props(
        cpus=1.5, memory="2g", configPatches=["machine: {}", {"a": 1}], extraArguments=["--debug"]
    )
    bench.provider.create(props)

    ((arguments, environment),) = bench.talosctl.calls
    plan = props[PLAN]
    assert arguments == [*plan["words"], *plan["own_flags"], *plan["extra_arguments"]]
    assert environment.items() >= plan["env"].items()
    assert {name: bench.files.patch(name).read_text() for name in plan["files"]} == plan["files"]
    assert plan["files"].keys() == {"mirrors.yaml", "patch-1.yaml", "patch-2.yaml"}
    flags = dict(pairwise(arguments))
    assert (flags["--cpus-workers"], flags["--memory-workers"]) == ("1.5", "2048MiB")


def test_the_password_of_the_mirrors_is_in_one_private_file(bench: Bench) -> None:
    state = bench.create(CLOSED, mergeKubeconfig=True)

    patch = bench.files.patch("mirrors.yaml")
    assert "password: s3cret" in patch.read_text()
    assert patch.stat().st_mode & 0o777 == 0o600
    assert "s3cret" in bench.files.kubeconfig.read_text()
    assert "s3cret" not in str({**state, "reader": None, PLAN: None})


# Read


def test_refresh_finds_running_stopped_and_lost_nodes(bench: Bench, shown: Shown) -> None:
    state = bench.create()
    shown()
    assert bench.read(state) == state
    assert bench.diff(state) == SAME
    assert shown() == []

    bench.engine.stop_node("demo-controlplane-1")
    bench.engine.remove_node("demo-worker-1")
    found = bench.read(state)

    assert {node["name"]: node["status"] for node in found["nodes"]} == {
        "demo-controlplane-1": "exited",
        "demo-worker-1": "lost",
    }
    assert found["command"] == state["command"]
    assert bench.read(found) == found


def test_refresh_removes_a_vanished_cluster_from_the_state(bench: Bench) -> None:
    state = bench.create()
    bench.engine.remove_all()

    found = bench.provider.read("demo", state)

    assert (found.id, found.outs) == ("", {})


# Update


def test_an_update_does_not_run_talosctl(bench: Bench) -> None:
    state = bench.create()
    news = {**bench.props(), "talosctl": "/another"}

    updated = bench.provider.update("demo", state, news)

    assert updated.outs == {**state, "talosctl": "/another"}
    assert bench.diff(updated.outs, talosctl="/another") == SAME
    assert len(bench.talosctl.calls) == 1


@pytest.mark.parametrize("is_refreshed", [False, True])
def test_an_update_starts_stopped_nodes(
    bench: Bench, monkeypatch: pytest.MonkeyPatch, shown: Shown, *, is_refreshed: bool
) -> None:
    monkeypatch.setattr(docker_nodes, "STAYS_UP_S", 0.1)
    before = bench.create()
    bench.engine.stop_node("demo-worker-1")
    state = bench.read(before) if is_refreshed else before

    updated = bench.provider.update("demo", state, bench.props())

    assert updated.outs == before
    assert shown()[-1] == "demo: starting the stopped node demo-worker-1"
    assert bench.engine.removed == []
    assert bench.diff(before) == SAME


# Delete


def test_running_and_stopped_docker_nodes_are_destroyed_without_talosctl(bench: Bench) -> None:
    state = bench.create()
    bench.engine.stop_node("demo-worker-1")
    Path(bench.talosctl.path).unlink()

    bench.provider.delete("demo", bench.read(state))

    assert bench.engine.names == []
    assert list(bench.files.base.iterdir()) == []
    assert not bench.users.exists(), "the user's own kubeconfig is left alone by default"


def test_virtual_machines_are_destroyed_by_the_installed_talosctl(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(os, "geteuid", lambda: 0)
    props = bench.props(provisioner="qemu")
    bench.virtual_machines()

    bench.provider.delete("demo", props)

    ((arguments, _),) = bench.talosctl.calls
    assert arguments[:2] == ["cluster", "destroy"]
    assert list(bench.files.base.iterdir()) == []


def test_virtual_machines_are_not_destroyed_without_talosctl(bench: Bench) -> None:
    props = {**bench.props(provisioner="qemu"), "talosctl": "/not/there"}

    with pytest.raises(VersionError, match="there is no program /not/there"):
        bench.provider.delete("demo", props)


# The user's own kubeconfig


def test_merging_adds_the_context_and_destroying_removes_it(bench: Bench) -> None:
    bench.users.parent.mkdir(parents=True)
    bench.users.write_text(yaml.safe_dump(OWN))

    state = bench.create(mergeKubeconfig=True)
    assert bench.users_contexts() == ["prod", "admin@demo"]

    bench.provider.delete("demo", state)
    assert yaml.safe_load(bench.users.read_text()) == OWN


def test_merging_can_be_switched_on_and_off(bench: Bench) -> None:
    on, off = bench.props(mergeKubeconfig=True), bench.props()

    merged = bench.provider.update("demo", bench.create(), on).outs
    assert merged is not None
    assert bench.users_contexts() == ["admin@demo"]

    bench.provider.update("demo", merged, on)
    assert bench.users_contexts() == ["admin@demo"]

    bench.provider.update("demo", merged, off)
    assert bench.users_contexts() == []


def test_merging_writes_to_the_first_kubeconfig_as_kubectl_does(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    first, second = bench.folder / "first", bench.folder / "second"
    monkeypatch.setenv("KUBECONFIG", f"{first}:{second}")

    bench.create(mergeKubeconfig=True)

    assert "admin@demo" in first.read_text()
    assert not second.exists()
    assert not bench.users.exists()


def test_a_cluster_that_cannot_be_merged_is_removed_again(bench: Bench) -> None:
    """Pulumi drops a resource whose creation fails, and would never destroy it."""
    theirs = kubeconfig("admin@demo", "prod", {})
    bench.users.parent.mkdir(parents=True)
    bench.users.write_text(yaml.safe_dump(theirs))

    with pytest.raises(TalosError, match=r"already has admin@demo in its .*removed again"):
        bench.create(mergeKubeconfig=True)

    assert bench.engine.names == []
    assert list(bench.files.base.iterdir()) == []
    assert yaml.safe_load(bench.users.read_text()) == theirs


# Within Pulumi's provider process


@pytest.fixture
def host(bench: Bench) -> Iterator[provider_pb2_grpc.ResourceProviderStub]:
    """Pulumi's process for dynamic providers, without an engine in its environment."""
    config = struct_of({"docker:host": bench.engine.address})
    with subprocess.Popen(
        [sys.executable, "-m", "pulumi.dynamic"],
        cwd=ROOT,
        env={**os.environ, "DOCKER_HOST": "tcp://127.0.0.1:1"},
        stdout=subprocess.PIPE,
    ) as process:
        assert process.stdout is not None
        try:
            port = int(process.stdout.readline())
            with grpc.insecure_channel(f"127.0.0.1:{port}") as channel:
                stub = provider_pb2_grpc.ResourceProviderStub(channel)
                stub.Configure(provider_pb2.ConfigureRequest(args=config), timeout=WITHIN_S)
                yield stub
        finally:
            process.terminate()


def test_the_provider_works_in_pulumi_s_process_with_the_configured_engine(
    bench: Bench, host: provider_pb2_grpc.ResourceProviderStub
) -> None:
    provider = serialize_provider(LocalClusterProvider())
    news = struct_of({**bench.props(), "__provider": provider})
    checked = host.Check(provider_pb2.CheckRequest(news=news), timeout=WITHIN_S)
    created = host.Create(provider_pb2.CreateRequest(properties=checked.inputs), timeout=WITHIN_S)
    assert created.id == "demo"
    assert bench.engine.names == [*NODES, "net-demo"]
    diff = host.Diff(
        provider_pb2.DiffRequest(id="demo", olds=created.properties, news=news), timeout=WITHIN_S
    )
    assert diff.changes == provider_pb2.DiffResponse.DIFF_NONE

    host.Delete(
        provider_pb2.DeleteRequest(id="demo", properties=created.properties), timeout=WITHIN_S
    )
    assert bench.engine.names == []

    bench.talosctl.does("folder", "fail")
    with pytest.raises(grpc.RpcError) as error:
        host.Create(provider_pb2.CreateRequest(properties=news), timeout=WITHIN_S)
    assert error.value.details().startswith("talosctl cluster create docker")
    assert error.value.details().endswith(f"full log: {bench.files.log}"), "and no traceback"


def test_ctrl_c_stops_talosctl_and_undoes_the_creation(
    bench: Bench, host: provider_pb2_grpc.ResourceProviderStub
) -> None:
    bench.talosctl.does(*STEPS[:-1], "hang")
    provider = serialize_provider(LocalClusterProvider())
    properties = struct_of({**bench.props(), "__provider": provider})
    creation = host.Create.future(
        provider_pb2.CreateRequest(properties=properties), timeout=WITHIN_S
    )
    deadline = time.monotonic() + WITHIN_S
    while NODES[1] not in bench.engine.names:
        assert time.monotonic() < deadline
        time.sleep(0.02)

    host.Cancel(empty_pb2.Empty(), timeout=WITHIN_S)

    said, left = creation.exception().details().splitlines()
    assert said == "the creation of the cluster demo was interrupted"
    assert left == "  everything but its log was removed again"
    assert bench.engine.names == []
    assert list(bench.files.base.iterdir()) == [bench.files.log]
