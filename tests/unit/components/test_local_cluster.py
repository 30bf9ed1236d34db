import os
import subprocess
import sys
import traceback
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from itertools import pairwise
from pathlib import Path
from typing import Any

import grpc  # type: ignore[import-untyped]
import pytest
import yaml
from docker import DockerClient
from google.protobuf import struct_pb2  # type: ignore[import-untyped]
from pulumi import dynamic
from pulumi.dynamic.config import Config
from pulumi.dynamic.dynamic import serialize_provider
from pulumi.runtime import rpc
from pulumi.runtime.proto import provider_pb2, provider_pb2_grpc

from components import dynamic_provider, local_cluster
from components.dynamic_provider import EngineError
from components.local_cluster import LocalClusterProvider
from talos_registry_cache.talos import docker_nodes
from talos_registry_cache.talos.cluster_files import Places
from talos_registry_cache.talos.cluster_spec import ClusterSpec
from talos_registry_cache.talos.errors import SpecError, TakenError, TalosError
from talos_registry_cache.talos.mirror import Mirror
from talos_registry_cache.talos.versions import VersionError
from tests.unit.talos import fake_docker
from tests.unit.talos.fake_docker import FakeDocker
from tests.unit.talos.fake_talosctl import STEPS, FakeTalosctl

ROOT = Path(__file__).resolve().parents[3]
WITHIN_S = 60.0
MIRRORS = {"docker.io": "http://172.17.0.1:5000"}
KUBECONFIG = {
    "apiVersion": "v1",
    "kind": "Config",
    "clusters": [{"name": "demo", "cluster": {"server": "https://127.0.0.1:32771"}}],
    "contexts": [{"name": "admin@demo", "context": {"cluster": "demo", "user": "admin@demo"}}],
    "users": [{"name": "admin@demo", "user": {"client-key-data": "s3cret"}}],
    "current-context": "admin@demo",
}
OWN = {
    "apiVersion": "v1",
    "kind": "Config",
    "clusters": [{"name": "prod", "cluster": {"server": "https://prod"}}],
    "contexts": [{"name": "prod", "context": {"cluster": "prod", "user": "me"}}],
    "users": [{"name": "me", "user": {"token": "t"}}],
    "current-context": "prod",
}

VIRTUAL_STATE = """\
clusterinfo:
  network: {name: demo, cidrs: [10.5.0.0/24], gatewayaddrs: [10.5.0.1]}
  nodes:
    - {name: demo-worker-1, type: worker, ips: [10.5.0.3]}
    - {name: demo-controlplane-1, type: controlplane, ips: [10.5.0.2]}
"""

ORIGINAL_FORMAT_EXC = traceback.format_exc


@pytest.fixture(autouse=True)
def _as_before(monkeypatch: pytest.MonkeyPatch) -> None:
    """What a provider changes in its own process is put back with each test."""
    monkeypatch.setattr(traceback, "format_exc", traceback.format_exc)
    monkeypatch.setenv("DOCKER_HOST", os.environ["DOCKER_HOST"])


@pytest.fixture(autouse=True, scope="module")
def _nothing_is_left_changed() -> Iterator[None]:
    yield
    assert traceback.format_exc is ORIGINAL_FORMAT_EXC


def through_pulumi(props: Mapping[str, Any]) -> dict[str, Any]:
    """Properties as they are when they have been to Pulumi and back: all numbers are floats."""
    received: dict[str, Any] = rpc.deserialize_properties(struct_of(props))
    return received


def struct_of(props: Mapping[str, Any]) -> Any:
    struct = struct_pb2.Struct()
    struct.update(props)
    return struct


@dataclass
class Bench:
    """An engine, a talosctl, and the provider that has them make a cluster."""

    folder: Path
    engine: FakeDocker
    client: DockerClient
    provider: LocalClusterProvider = field(default_factory=LocalClusterProvider)

    def __post_init__(self) -> None:
        self.talosctl = FakeTalosctl(self.folder, "demo", self.engine.folder)
        self.talosctl.kubeconfig = yaml.safe_dump(KUBECONFIG)
        self.talosctl.does(*STEPS)

    @property
    def places(self) -> Places:
        return Places(self.folder / "stack", "demo")

    @property
    def users(self) -> Path:
        """The kubeconfig of the user."""
        return self.folder / "home" / ".kube" / "config"

    def props(self, spec: Mapping[str, Any] | None = None, **changed: Any) -> dict[str, Any]:
        """The properties of a cluster's resource, as the provider gets them."""
        return through_pulumi(
            {
                "name": "demo",
                "folder": str(self.places.base),
                "spec": {"provisioner": "docker", **(spec or {})},
                "mirrors": MIRRORS,
                "talosctl": self.talosctl.path,
                "timeoutS": 60,
                "mergeKubeconfig": False,
                "onLostNodes": "keep",
                **changed,
            }
        )

    def create(self, spec: Mapping[str, Any] | None = None, **changed: Any) -> dict[str, Any]:
        """Create a cluster; what Pulumi then has in its state."""
        outs = self.provider.create(self.props(spec, **changed)).outs
        assert outs is not None
        return through_pulumi(outs)

    def read(self, state: Mapping[str, Any]) -> dict[str, Any]:
        """Look at a cluster; what Pulumi then has in its state."""
        outs = self.provider.read("demo", state).outs
        assert outs is not None
        return through_pulumi(outs)

    def users_contexts(self) -> list[str]:
        return [one["name"] for one in yaml.safe_load(self.users.read_text())["contexts"]]


@pytest.fixture
def bench(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Bench]:
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    monkeypatch.delenv("KUBECONFIG", raising=False)
    with fake_docker.serving(tmp_path) as (engine, client):
        monkeypatch.setenv("DOCKER_HOST", engine.address)
        yield Bench(tmp_path, engine, client)


# Checking what is wanted


def test_what_talosctl_can_do_is_taken_as_it_is(bench: Bench) -> None:
    news = bench.props({"workers": 2, "cpus": 1.5, "memory_mib": 2048})

    checked = bench.provider.check({}, news)

    assert checked.inputs == news
    assert checked.failures == []


@pytest.mark.parametrize(
    ("spec", "reason"),
    [
        ({"controlplanes": 3}, "has no more than one control plane on docker"),
        ({"provisioner": "firecracker"}, "talosctl v1.13.0 has no firecracker"),
        ({"workers": -1}, "found workers -1; allowed: 0 or more"),
        ({"extra_arguments": ["--state=/"]}, "found the argument --state, which is set for you"),
    ],
)
def test_what_it_cannot_do_is_a_failure_before_anything_is_touched(
    bench: Bench, spec: dict[str, Any], reason: str
) -> None:
    (failure,) = bench.provider.check({}, bench.props(spec)).failures

    assert failure.property == "spec"
    assert reason in failure.reason
    assert not bench.places.base.exists()
    assert bench.talosctl.calls == []


def test_a_talosctl_that_is_not_there_is_a_failure(bench: Bench) -> None:
    (failure,) = bench.provider.check({}, bench.props(talosctl="/not/there")).failures

    assert failure.reason.startswith("there is no program /not/there")


def test_what_is_not_known_yet_is_not_checked(bench: Bench) -> None:
    news = {**bench.props({"workers": -1}), "mirrors": rpc.UNKNOWN}

    checked = bench.provider.check({}, news)

    assert checked.inputs == news
    assert checked.failures == []


# What has changed


def simulated(monkeypatch: pytest.MonkeyPatch) -> None:
    """Have the provider believe in what the state says, without a look at the engine."""
    monkeypatch.setenv(dynamic_provider.SIMULATE, "1")


def differs(bench: Bench, olds: Mapping[str, Any], **changed: Any) -> dynamic.DiffResult:
    return bench.provider.diff("demo", olds, {**bench.props(), **through_pulumi(changed)})


def in_state(bench: Bench, **more: Any) -> dict[str, Any]:
    made: dict[str, Any] = {"nodes": [], "kubernetesEndpoint": "", "command": "c"}
    return {**bench.props(), **made, **more}


def test_nothing_has_changed(bench: Bench) -> None:
    diff = differs(bench, in_state(bench))

    assert diff.changes is False
    assert diff.replaces == []


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("name", "other"),
        ("folder", "/elsewhere"),
        ("spec", {"provisioner": "docker", "workers": 0}),
        ("mirrors", {}),
        ("mirrors", {"docker.io": "http://172.17.0.1:6000"}),
        ("ca", "PEM"),
        ("reader", {"username": "adam", "password": "another"}),
    ],
)
def test_what_reaches_the_nodes_replaces_the_cluster_after_it_is_gone(
    bench: Bench, key: str, value: Any
) -> None:
    diff = differs(bench, in_state(bench), **{key: value})

    assert diff.changes is True
    assert diff.replaces == [key]
    assert diff.delete_before_replace is True


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("talosctl", "/another"),
        ("timeoutS", 120),
        ("mergeKubeconfig", True),
        ("onLostNodes", "replace"),
    ],
)
def test_what_reaches_no_node_is_taken_over(bench: Bench, key: str, value: Any) -> None:
    diff = differs(bench, in_state(bench), **{key: value})

    assert diff.changes is True
    assert diff.replaces == []


def test_every_property_that_goes_in_is_compared(bench: Bench) -> None:
    closed = bench.props(ca="PEM", reader={"username": "adam", "password": "s3cret"})
    assert closed.keys() == local_cluster.REPLACING | local_cluster.HARMLESS


def test_all_that_replaces_it_is_told(bench: Bench) -> None:
    diff = differs(bench, in_state(bench), mirrors={}, folder="/elsewhere", talosctl="/another")

    assert diff.replaces == ["folder", "mirrors"]


# What has become of it on the engine


def test_what_runs_is_as_it_was(bench: Bench, capsys: pytest.CaptureFixture[str]) -> None:
    state = bench.create()
    capsys.readouterr()

    assert differs(bench, state).changes is False
    assert capsys.readouterr().out == ""


@pytest.mark.parametrize("is_refreshed", [False, True])
@pytest.mark.parametrize(
    "stopped", [["demo-worker-1"], ["demo-controlplane-1", "demo-worker-1"]], ids=["one", "all"]
)
def test_nodes_that_have_stopped_are_an_update_and_no_replacement(
    bench: Bench, capsys: pytest.CaptureFixture[str], stopped: list[str], *, is_refreshed: bool
) -> None:
    state = bench.create()
    for name in stopped:
        bench.engine.stop_node(name)
    state = bench.read(state) if is_refreshed else state
    capsys.readouterr()

    diff = differs(bench, state)

    assert (diff.changes, diff.replaces) == (True, [])
    assert capsys.readouterr().out.splitlines() == [
        f"demo: the node {name} has stopped (exited); `pulumi up` starts it" for name in stopped
    ]


def test_problems_that_an_earlier_version_noted_do_not_count(bench: Bench) -> None:
    state = {**bench.create(), "problems": ["demo-worker-1 is exited, not running"]}

    assert differs(bench, state).changes is False


@pytest.mark.parametrize("is_refreshed", [False, True])
def test_a_lost_node_is_told_and_the_others_are_kept(
    bench: Bench, capsys: pytest.CaptureFixture[str], *, is_refreshed: bool
) -> None:
    state = bench.create()
    bench.engine.remove_node("demo-worker-1")
    state = bench.read(state) if is_refreshed else state
    capsys.readouterr()

    diff = differs(bench, state)

    assert (diff.changes, diff.replaces) == (False, [])
    (line,) = capsys.readouterr().out.splitlines()
    assert line.startswith("demo: warning: demo-worker-1 is lost. The other nodes are left")
    assert "set clusters.demo.onLostNodes to `replace`" in line


@pytest.mark.parametrize("is_refreshed", [False, True])
def test_a_lost_node_replaces_the_cluster_where_the_settings_say_so(
    bench: Bench, capsys: pytest.CaptureFixture[str], *, is_refreshed: bool
) -> None:
    state = bench.create(onLostNodes="replace")
    bench.engine.remove_node("demo-worker-1")
    state = bench.read(state) if is_refreshed else state
    capsys.readouterr()

    diff = differs(bench, state, onLostNodes="replace")

    assert (diff.changes, diff.replaces) == (True, ["nodes"])
    assert diff.delete_before_replace is True
    (line,) = capsys.readouterr().out.splitlines()
    assert "demo-worker-1 is lost. DATA LOSS: the whole cluster is replaced" in line
    assert "etcd and the volumes of all nodes" in line


def test_a_node_that_an_earlier_version_has_forgotten_is_told(
    bench: Bench, capsys: pytest.CaptureFixture[str]
) -> None:
    state = bench.create()
    bench.engine.remove_node("demo-worker-1")
    state["nodes"] = [node for node in state["nodes"] if node["name"] != "demo-worker-1"]
    capsys.readouterr()

    assert differs(bench, state).changes is False
    assert "warning: 0 of 1 worker nodes are there" in capsys.readouterr().out


def test_refresh_of_a_state_from_before_there_was_the_setting_keeps_them(bench: Bench) -> None:
    """Refresh has the inputs of the state compared, in which it is not."""
    state = bench.create()
    bench.engine.remove_node("demo-worker-1")
    earlier = {key: value for key, value in state.items() if key != "onLostNodes"}

    assert bench.provider.diff("demo", earlier, earlier).replaces == []


def test_of_a_lost_and_a_stopped_node_the_stopped_one_is_started(bench: Bench) -> None:
    state = bench.create()
    bench.engine.remove_node("demo-worker-1")
    bench.engine.stop_node("demo-controlplane-1")

    diff = differs(bench, state)

    assert (diff.changes, diff.replaces) == (True, [])


def test_one_that_has_lost_all_nodes_has_nothing_more_to_lose(
    bench: Bench, capsys: pytest.CaptureFixture[str]
) -> None:
    state = bench.create()
    for name in ("demo-controlplane-1", "demo-worker-1"):
        bench.engine.remove_node(name)

    assert differs(bench, state).replaces == ["nodes"]
    assert "all of its nodes are lost; it is created again" in capsys.readouterr().out


def test_one_of_which_the_engine_has_nothing_may_be_on_another_engine(
    bench: Bench, capsys: pytest.CaptureFixture[str]
) -> None:
    state = bench.create()
    for path in bench.engine.folder.glob("*/*.json"):
        path.unlink()

    assert differs(bench, state).changes is False
    assert "warning: this engine has nothing of it" in capsys.readouterr().out


def test_a_simulated_one_is_believed_to_be_there(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    simulated(monkeypatch)
    state = bench.create()
    monkeypatch.setenv("DOCKER_HOST", "tcp://127.0.0.1:1")

    assert differs(bench, state).changes is False
    updated = bench.provider.update("demo", state, bench.props(timeoutS=120))
    assert updated.outs == {**state, "timeoutS": 120}


def test_virtual_machines_that_have_stopped_are_told_and_nothing_is_changed(
    bench: Bench, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = bench.places.state / "demo"
    folder.mkdir(parents=True)
    (folder / "state.yaml").write_text(VIRTUAL_STATE)
    bench.places.command.write_text("talosctl cluster create qemu")
    virtual = bench.props({"provisioner": "qemu"}, onLostNodes="replace")

    diff = bench.provider.diff("demo", virtual, virtual)

    assert (diff.changes, diff.replaces) == (False, [])
    assert capsys.readouterr().out.splitlines() == [
        f"demo: warning: the virtual machine {name} has stopped, and talosctl cannot start it "
        "again; the cluster is left as it is"
        for name in ("demo-controlplane-1", "demo-worker-1")
    ]


# Creating one


def test_a_cluster_is_created_and_its_state_tells_of_it(bench: Bench) -> None:
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


def test_no_secret_is_in_the_state(bench: Bench) -> None:
    state = bench.create(mergeKubeconfig=True)

    assert "s3cret" in bench.places.kubeconfig.read_text()
    assert "s3cret" not in str(state)


def test_what_talosctl_prints_is_shown_with_the_name_of_the_cluster(
    bench: Bench, capsys: pytest.CaptureFixture[str]
) -> None:
    bench.create()

    assert capsys.readouterr().out.splitlines()[0] == "demo: creating demo"


def test_numbers_get_to_talosctl_as_they_were_written(bench: Bench) -> None:
    spec = {"workers": 1, "cpus": 1.5, "memory_mib": 2048}
    props = bench.props(spec)
    assert isinstance(props["spec"]["workers"], float), "this is how Pulumi hands them over"

    bench.provider.create(props)

    ((arguments, _),) = bench.talosctl.calls
    words = dict(pairwise(arguments))
    assert words["--workers"] == "1"
    assert words["--cpus-workers"] == "1.5"
    assert words["--memory-workers"] == "2048MiB"


def test_what_is_wanted_is_what_was_written(bench: Bench) -> None:
    spec = {"workers": 0, "disks": ["virtio:10GiB"], "skip_fallback": True}

    assert local_cluster.spec_of(bench.props(spec)) == ClusterSpec(
        name="demo",
        mirrors={host: Mirror(url) for host, url in MIRRORS.items()},
        timeout_s=60,
        workers=0,
        disks=("virtio:10GiB",),
        skip_fallback=True,
    )


def test_nodes_are_let_in_by_mirrors_and_the_password_is_in_one_private_file(
    bench: Bench,
) -> None:
    reader = {"username": "adam", "password": "s3cret"}
    closed = {"docker.io": "https://172.17.0.1:5000"}
    state = bench.create(mirrors=closed, ca="PEM", reader=reader)

    patch = bench.places.patch("mirrors.yaml")
    assert "password: s3cret" in patch.read_text()
    assert "ca: PEM" in patch.read_text()
    assert patch.stat().st_mode & 0o777 == 0o600
    assert "s3cret" not in str({**state, "reader": None})


def test_nodes_are_told_of_the_mirrors(bench: Bench) -> None:
    bench.create()

    assert MIRRORS["docker.io"] in bench.places.patch("mirrors.yaml").read_text()


def test_lists_get_to_talosctl_as_they_were_written(bench: Bench) -> None:
    bench.create({"patches": ["machine: {}", "cluster: {}"], "extra_arguments": ["--debug"]})

    ((arguments, _),) = bench.talosctl.calls
    assert arguments[-1] == "--debug"
    assert bench.places.patch("patch-1.yaml").read_text() == "machine: {}"
    assert bench.places.patch("patch-2.yaml").read_text() == "cluster: {}"


def test_a_cluster_without_workers_has_none(bench: Bench) -> None:
    bench.talosctl.does(*(step for step in STEPS if step != "worker"))

    state = bench.create({"workers": 0})

    assert [node["name"] for node in state["nodes"]] == ["demo-controlplane-1"]


def test_nothing_is_left_of_a_creation_that_fails(bench: Bench) -> None:
    bench.talosctl.does("folder", "network", "controlplane", "fail")

    with pytest.raises(TalosError, match=r"something is wrong\n  full log: .*demo.log"):
        bench.create(mergeKubeconfig=True)

    assert bench.engine.names == []
    assert [path.name for path in bench.places.base.iterdir()] == ["demo.log"]
    assert not bench.users.exists()


def test_a_creation_ends_at_its_timeout(bench: Bench) -> None:
    bench.talosctl.does(*STEPS[:-1], "hang")

    with pytest.raises(TalosError, match=r"was ended after \d+ s"):
        bench.create(timeoutS=1)

    assert bench.engine.names == []


def test_one_that_a_killed_run_has_made_is_found(bench: Bench) -> None:
    first = bench.create()

    assert bench.create() == first
    assert len(bench.talosctl.calls) == 1


# Looking at one


def test_reading_finds_it_as_it_was_made(bench: Bench) -> None:
    state = bench.create()

    assert bench.provider.read("demo", state).id == "demo"
    assert bench.read(state) == state


def test_reading_tells_which_nodes_have_stopped(bench: Bench) -> None:
    state = bench.create()
    bench.engine.stop_node("demo-worker-1")

    found = bench.read(state)

    assert [node["status"] for node in found["nodes"]] == ["running", "exited"]
    assert found["command"] == state["command"]


def test_a_node_that_is_lost_is_told_of_from_then_on(bench: Bench) -> None:
    state = bench.create()
    bench.engine.remove_node("demo-worker-1")

    found = bench.read(state)

    assert [(node["name"], node["status"]) for node in found["nodes"]] == [
        ("demo-controlplane-1", "running"),
        ("demo-worker-1", "lost"),
    ]
    assert bench.read(found) == found


def test_one_that_has_vanished_is_no_more(bench: Bench) -> None:
    state = bench.create()
    for path in bench.engine.folder.glob("*/*.json"):
        path.unlink()

    found = bench.provider.read("demo", state)

    assert (found.id, found.outs) == ("", {})


# Taking a change over


def test_a_change_that_reaches_no_node_runs_nothing(bench: Bench) -> None:
    state = bench.create()

    updated = bench.provider.update("demo", state, bench.props(timeoutS=120, talosctl="/another"))

    assert updated.outs == {**state, "timeoutS": 120, "talosctl": "/another"}
    assert len(bench.talosctl.calls) == 1


def test_after_an_update_nothing_has_changed(bench: Bench) -> None:
    news = bench.props(timeoutS=120)
    updated = bench.provider.update("demo", bench.create(), news)

    assert updated.outs is not None
    assert bench.provider.diff("demo", updated.outs, news).changes is False


@pytest.mark.parametrize("is_refreshed", [False, True])
def test_an_update_starts_what_has_stopped_and_then_nothing_differs(
    bench: Bench,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    *,
    is_refreshed: bool,
) -> None:
    monkeypatch.setattr(docker_nodes, "STAYS_UP_S", 0.1)
    before = bench.create()
    bench.engine.stop_node("demo-worker-1")
    state = bench.read(before) if is_refreshed else before
    capsys.readouterr()

    updated = bench.provider.update("demo", state, bench.props())

    assert updated.outs == before
    assert "demo: starting the stopped node demo-worker-1" in capsys.readouterr().out
    assert bench.engine.removed == []
    assert differs(bench, before).changes is False


# Destroying one


def test_nothing_is_left_of_one_that_is_destroyed(bench: Bench) -> None:
    bench.provider.delete("demo", bench.create())

    assert bench.engine.names == []
    assert list(bench.places.base.iterdir()) == []


def test_nothing_is_left_of_one_that_has_stopped_and_is_destroyed(bench: Bench) -> None:
    state = bench.create()
    for name in ("demo-controlplane-1", "demo-worker-1"):
        bench.engine.stop_node(name)

    bench.provider.delete("demo", bench.read(state))

    assert bench.engine.names == []


def test_containers_are_destroyed_when_talosctl_is_gone(bench: Bench) -> None:
    state = bench.create()
    Path(bench.talosctl.path).unlink()

    bench.provider.delete("demo", state)

    assert bench.engine.names == []


def test_virtual_machines_are_destroyed_by_talosctl(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(os, "geteuid", lambda: 0)
    state = bench.places.state / "demo"
    state.mkdir(parents=True)
    (state / "state.yaml").write_text("clusterinfo: {}")

    bench.provider.delete("demo", bench.props({"provisioner": "qemu"}))

    ((arguments, _),) = bench.talosctl.calls
    assert arguments[:2] == ["cluster", "destroy"]
    assert list(bench.places.base.iterdir()) == []


def test_virtual_machines_are_not_destroyed_without_talosctl(bench: Bench) -> None:
    with pytest.raises(VersionError, match="there is no program /not/there"):
        bench.provider.delete("demo", bench.props({"provisioner": "qemu"}, talosctl="/not/there"))


# The user's own kubeconfig


def test_it_is_left_alone_unless_a_merge_is_wanted(bench: Bench) -> None:
    state = bench.create()
    bench.provider.update("demo", state, bench.props(timeoutS=120))
    bench.provider.delete("demo", state)

    assert not bench.users.exists()


def test_a_merge_adds_the_context_and_destroying_takes_it_out_again(bench: Bench) -> None:
    bench.users.parent.mkdir(parents=True)
    bench.users.write_text(yaml.safe_dump(OWN))

    state = bench.create(mergeKubeconfig=True)
    assert bench.users_contexts() == ["prod", "admin@demo"]

    bench.provider.delete("demo", state)
    assert yaml.safe_load(bench.users.read_text()) == OWN


def test_a_merge_that_is_wanted_later_is_done_then_and_undone_when_it_is_not(bench: Bench) -> None:
    without, wanted = bench.create(), bench.props(mergeKubeconfig=True)

    merged = bench.provider.update("demo", without, wanted)
    assert bench.users_contexts() == ["admin@demo"]

    assert merged.outs is not None
    bench.provider.update("demo", merged.outs, bench.props())
    assert bench.users_contexts() == []


def test_a_merge_stays_as_it_is_when_something_else_is_taken_over(bench: Bench) -> None:
    state = bench.create(mergeKubeconfig=True)
    before = bench.users.read_text()

    bench.provider.update("demo", state, bench.props(mergeKubeconfig=True, timeoutS=120))

    assert bench.users.read_text() == before


def test_the_file_is_the_first_that_kubectl_would_write_to(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    first, second = bench.folder / "first", bench.folder / "second"
    monkeypatch.setenv("KUBECONFIG", f"{first}:{second}")

    bench.create(mergeKubeconfig=True)

    assert "admin@demo" in first.read_text()
    assert not second.exists()
    assert not bench.users.exists()


def test_a_cluster_that_cannot_be_merged_is_removed_again(bench: Bench) -> None:
    """Pulumi takes a creation that fails for none, and would never destroy it."""
    theirs = {**OWN, "contexts": [{"name": "admin@demo", "context": {"cluster": "prod"}}]}
    bench.users.parent.mkdir(parents=True)
    bench.users.write_text(yaml.safe_dump(theirs))

    with pytest.raises(TalosError, match=r"already has admin@demo in its contexts.*removed again"):
        bench.create(mergeKubeconfig=True)

    assert bench.engine.names == []
    assert list(bench.places.base.iterdir()) == []
    assert yaml.safe_load(bench.users.read_text()) == theirs


# The engine


@pytest.fixture
def request_(bench: Bench) -> dynamic.ConfigureRequest:
    config = {"docker:host": bench.engine.address}
    return dynamic.ConfigureRequest(Config(config, "talos-registry-cache"))


def test_the_engine_is_the_one_that_the_docker_provider_talks_to(
    bench: Bench, request_: dynamic.ConfigureRequest, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("DOCKER_HOST", "tcp://127.0.0.1:1")
    bench.provider.configure(request_)

    bench.create()

    ((_, environment),) = bench.talosctl.calls
    assert environment["DOCKER_HOST"] == bench.engine.address


def test_without_a_host_it_is_the_one_of_the_environment(bench: Bench) -> None:
    request = dynamic.ConfigureRequest(Config({}, "talos-registry-cache"))
    bench.provider.configure(request)

    assert os.environ["DOCKER_HOST"] == bench.engine.address


@pytest.mark.parametrize("host", ["tcp://127.0.0.1:1", "nonsense://"])
def test_an_engine_that_does_not_answer_is_an_error(
    bench: Bench, monkeypatch: pytest.MonkeyPatch, host: str
) -> None:
    monkeypatch.setenv("DOCKER_HOST", host)

    with pytest.raises(EngineError, match="the container engine does not answer: "):
        bench.create()

    assert not bench.places.base.exists()


# What Pulumi shows of an error


def shown(bench: Bench, request: dynamic.ConfigureRequest, error: Exception, **how: Any) -> str:
    """What Pulumi would show of an error, once it has the provider."""
    bench.provider.configure(request)
    try:
        raise error  # noqa: TRY301 - it is to have been raised
    except Exception:  # noqa: BLE001 - as Pulumi does
        return traceback.format_exc(**how)


@pytest.mark.parametrize("error", [TalosError("so it is"), SpecError("so"), TakenError("so")])
def test_what_a_person_can_put_right_is_shown_without_a_traceback(
    bench: Bench, request_: dynamic.ConfigureRequest, error: TalosError
) -> None:
    assert shown(bench, request_, error) == str(error)


def test_a_mistake_of_ours_is_shown_with_its_traceback(
    bench: Bench, request_: dynamic.ConfigureRequest
) -> None:
    text = shown(bench, request_, KeyError("ours"))

    assert text.startswith("Traceback (most recent call last):")
    assert text.endswith("KeyError: 'ours'\n")


def test_a_traceback_is_as_long_as_it_was_asked_for(
    bench: Bench, request_: dynamic.ConfigureRequest
) -> None:
    error = ValueError("second")
    error.__cause__ = KeyError("first")

    assert "KeyError" in shown(bench, request_, error)
    assert "KeyError" not in shown(bench, request_, error, chain=False)
    assert "File" not in shown(bench, request_, error, limit=0)


# Within Pulumi


@pytest.fixture
def host(bench: Bench) -> Iterator[provider_pb2_grpc.ResourceProviderStub]:
    """The process in which Pulumi runs providers, as its engine talks to it."""
    config = struct_of({"docker:host": bench.engine.address})
    with subprocess.Popen(
        [sys.executable, "-m", "pulumi.dynamic"], cwd=ROOT, stdout=subprocess.PIPE
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


def sent(bench: Bench, **changed: Any) -> Any:
    """A cluster's properties as the engine sends them, with its provider among them."""
    return struct_of(
        {**bench.props(**changed), "__provider": serialize_provider(LocalClusterProvider())}
    )


def test_the_engine_has_a_cluster_made_and_unmade(
    bench: Bench, host: provider_pb2_grpc.ResourceProviderStub
) -> None:
    news = sent(bench)
    checked = host.Check(provider_pb2.CheckRequest(news=news), timeout=WITHIN_S)
    assert list(checked.failures) == []

    created = host.Create(provider_pb2.CreateRequest(properties=checked.inputs), timeout=WITHIN_S)
    assert created.id == "demo"
    assert bench.engine.names == ["demo-controlplane-1", "demo-worker-1", "net-demo"]
    diff = host.Diff(
        provider_pb2.DiffRequest(id="demo", olds=created.properties, news=news), timeout=WITHIN_S
    )
    assert diff.changes == provider_pb2.DiffResponse.DIFF_NONE

    host.Delete(
        provider_pb2.DeleteRequest(id="demo", properties=created.properties), timeout=WITHIN_S
    )
    assert bench.engine.names == []


def test_the_engine_is_told_what_went_wrong_and_no_traceback(
    bench: Bench, host: provider_pb2_grpc.ResourceProviderStub
) -> None:
    bench.talosctl.does("folder", "fail")

    with pytest.raises(grpc.RpcError) as error:
        host.Create(provider_pb2.CreateRequest(properties=sent(bench)), timeout=WITHIN_S)

    assert error.value.details().startswith("talosctl cluster create docker")
    assert error.value.details().endswith(f"full log: {bench.places.log}")
    assert "Traceback" not in error.value.details()


def test_the_provider_is_the_same_in_every_run_so_that_nothing_is_to_change() -> None:
    assert serialize_provider(LocalClusterProvider()) == serialize_provider(LocalClusterProvider())
