import errno
import json
import os
import signal
import subprocess
import sys
import time
from base64 import b64encode
from collections.abc import Iterator
from contextlib import closing
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import pytest
import yaml
from docker import DockerClient

from talos_registry_cache.endpoint import Endpoint
from talos_registry_cache.talos import cluster, command_line, docker_nodes, node_watch
from talos_registry_cache.talos.cluster import ClusterOperations, Observed
from talos_registry_cache.talos.cluster_files import ClusterFiles
from talos_registry_cache.talos.cluster_spec import ClusterSpec, Provisioner
from talos_registry_cache.talos.errors import CommandError, TakenError, TalosError
from talos_registry_cache.talos.node_watch import NodeEndedError
from talos_registry_cache.talos.process import Runner
from talos_registry_cache.talos.versions import Version
from talos_registry_cache.talos.waiting import Wait
from tests.unit.components.certificates import AUTHORITY
from tests.unit.talos import fake_docker, programs
from tests.unit.talos.fake_docker import FakeDocker
from tests.unit.talos.fake_talosctl import STEPS, FakeTalosctl

ROOT = Path(__file__).resolve().parents[3]
SPEC = ClusterSpec(name="demo", mirrors={"docker.io": Endpoint("http://172.17.0.1:5000")})
NODES = ("demo-controlplane-1", "demo-worker-1")
WITHIN_S = 60.0


@dataclass
class Bench:
    """An engine, a talosctl, and the operations on a cluster."""

    folder: Path
    engine: FakeDocker
    client: DockerClient
    spec: ClusterSpec = SPEC
    lines: list[str] = field(default_factory=list)
    version: Version = field(default_factory=lambda: Version(1, 13))
    wait: Wait = Wait.HEALTHY

    def __post_init__(self) -> None:
        self.talosctl = FakeTalosctl(self.folder, self.spec.name, self.engine.folder)

    @property
    def files(self) -> ClusterFiles:
        return ClusterFiles(self.folder / "stack", self.spec.name)

    @property
    def cluster(self) -> ClusterOperations:
        return ClusterOperations(
            files=self.files,
            provisioner=self.spec.provisioner,
            node_counts={"controlplane": 1, "worker": 1},
            engine=self.client,
            runner=Runner(self.lines.append, grace_s=5),
            wait=self.wait,
        )

    def create(self) -> Observed:
        talosctl = self.talosctl.talosctl(self.version)
        return self.cluster.create(command_line.create(self.spec, talosctl, self.files), talosctl)

    def read(self) -> Observed:
        observed = self.cluster.read()
        assert observed is not None
        return observed

    def destroy(self) -> None:
        self.cluster.destroy(self.talosctl.talosctl(self.version))

    def wants(self, **changed: Any) -> None:
        self.spec = replace(self.spec, **changed)

    @property
    def left(self) -> list[str]:
        """All files and folders of the stack."""
        base = self.files.base
        return sorted(str(path.relative_to(base)) for path in base.rglob("*"))

    def assert_only_the_log_is_left(self) -> None:
        assert self.engine.names == []
        assert self.left == ["demo.log"]


@pytest.fixture
def bench(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Bench]:
    monkeypatch.setattr(cluster, "SETTLES_S", 0.1)
    with fake_docker.serving(tmp_path) as (engine, client):
        yield Bench(tmp_path, engine, client)


def created_once(bench: Bench) -> bool:
    return [arguments[1] for arguments, _ in bench.talosctl.calls] == ["create"]


# Create


def test_a_cluster_is_created_with_private_files_of_its_own(bench: Bench) -> None:
    observed = bench.create()

    controlplane, worker = observed.nodes
    assert (controlplane.name, controlplane.role) == ("demo-controlplane-1", "controlplane")
    assert (worker.role, worker.address, worker.status) == ("worker", "10.5.0.3", "running")
    assert controlplane.ports == {"6443/tcp": "0.0.0.0:32771", "50000/tcp": "0.0.0.0:32772"}
    assert observed.kubernetes_endpoint == "https://127.0.0.1:32771"
    assert observed.problems == ()
    assert "talosctl cluster create docker --config-patch" in str(observed.command)
    assert bench.lines[-1].startswith("ready after")
    names = ("command", "kubeconfig", "mirrors.yaml", "talosconfig")
    assert {path.name for path in bench.files.folder.iterdir()} == {*names, "state"}
    assert {mode(bench.files.folder / name) for name in names} == {0o600}
    assert {mode(folder) for folder in (bench.files.folder, bench.files.base)} == {0o700}
    assert bench.files.kubeconfig.read_text() == "current-context: admin@demo"
    assert bench.files.talosconfig.read_text() == "context: demo"


def mode(path: Path) -> int:
    return path.stat().st_mode & 0o777


def test_talosctl_gets_none_of_pulumi_s_variables(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PULUMI_CONFIG_PASSPHRASE", "s3cret")
    monkeypatch.setenv("KUBECONFIG", "/a:/b")
    bench.create()

    ((_, environment),) = bench.talosctl.calls
    assert "s3cret" not in environment.values()
    assert environment["KUBECONFIG"] == str(bench.files.kubeconfig)
    assert environment["PATH"] == os.environ["PATH"]


@pytest.mark.parametrize(
    ("version", "without"), [(Version(1, 13), ()), (Version(0, 12), ("folder", "state"))]
)
def test_creating_it_again_changes_nothing(
    bench: Bench, version: Version, without: tuple[str, ...]
) -> None:
    """An old talosctl writes no state file."""
    bench.version = version
    bench.talosctl.does(*(step for step in STEPS if step not in without))
    first = bench.create()

    assert bench.create() == first
    assert created_once(bench)


@pytest.mark.parametrize(
    "changed",
    [
        {"kubernetes_version": "1.30.0"},
        {"mirrors": {"docker.io": Endpoint("http://172.17.0.1:6000")}},
        {"patches": ("machine: {sysctls: {a: '1'}}",)},
        {},
    ],
    ids=["flag", "mirror", "patch", "incomplete"],
)
def test_an_incomplete_or_changed_cluster_is_replaced(
    bench: Bench, changed: dict[str, Any]
) -> None:
    bench.create()
    if not changed:
        bench.engine.remove_node("demo-worker-1")
        assert bench.read().problems == ("0 of 1 worker nodes exist",)
    bench.wants(**changed)

    assert bench.create().problems == ()
    assert "demo-controlplane-1 with its volumes" in bench.engine.removed
    assert len(bench.talosctl.calls) == 2


def test_a_foreign_cluster_of_the_same_name_is_left_alone(bench: Bench) -> None:
    bench.engine.add_network("demo")
    bench.engine.add_node("demo", "demo-worker-1")

    with pytest.raises(TakenError, match="found a cluster demo that was not created here"):
        bench.create()
    assert bench.engine.names == ["demo-worker-1", "net-demo"]
    assert not bench.talosctl.calls


# Ports


def taken(port: int, runs: int) -> tuple[str, ...]:
    """Steps of a talosctl whose first runs find a port that the engine cannot publish."""
    return (*STEPS[:2], f"port {port} {runs}", *STEPS[2:])


def test_a_creation_whose_port_was_taken_meanwhile_is_repeated(bench: Bench) -> None:
    bench.talosctl.does(*taken(39323, runs=2))

    assert bench.create().problems == ()

    assert len(bench.talosctl.calls) == 3
    again = "port 39323 is no longer free; creating the cluster again"
    assert bench.lines.count(again) == 2


def test_a_creation_is_not_repeated_for_ever(bench: Bench) -> None:
    bench.talosctl.does(*taken(39323, runs=9))

    with pytest.raises(CommandError, match="39323 failed: port is already allocated"):
        bench.create()

    assert len(bench.talosctl.calls) == 3
    bench.assert_only_the_log_is_left()


def test_a_creation_is_not_repeated_if_the_settings_ask_for_the_port(bench: Bench) -> None:
    bench.wants(extra_arguments=("--exposed-ports=8443:8443/tcp",))
    bench.talosctl.does(*taken(8443, runs=1))

    with pytest.raises(CommandError, match="8443 failed: port is already allocated"):
        bench.create()

    assert created_once(bench)


@pytest.mark.parametrize(
    "error",
    [
        "failed: Bind for 127.0.0.1:39323 failed: port is already allocated",
        "Error starting userland proxy: listen tcp4 127.0.0.1:39323: bind: address already in use",
        "failed to bind host port 127.0.0.1:39323/tcp: address already in use",
    ],
    ids=["container", "program-20.10", "program-29"],
)
def test_a_port_that_the_engine_cannot_publish_is_found_in_its_error(error: str) -> None:
    assert docker_nodes.taken_port(error) == "39323"


def test_another_error_of_the_engine_names_no_port() -> None:
    assert docker_nodes.taken_port("dial tcp 127.0.0.1:39323: connection refused") is None


# Waiting


BOOTSTRAPPED = (*STEPS[:-1], "check", "hang")


def kubeconfig_of(server: str) -> str:
    ca = b64encode(AUTHORITY.certificate.encode()).decode()
    entry = {"name": "demo", "cluster": {"server": server, "certificate-authority-data": ca}}
    return yaml.safe_dump({"clusters": [entry]}, sort_keys=False)


def test_talosctl_is_ended_once_it_has_bootstrapped_a_cluster_that_is_not_waited_for(
    bench: Bench,
) -> None:
    bench.wait = Wait.NONE
    bench.talosctl.kubeconfig = kubeconfig_of("https://10.5.0.2:6443")
    bench.talosctl.does(*BOOTSTRAPPED)

    observed = bench.create()

    assert bench.read() == observed
    assert bench.files.kubeconfig.read_text() == kubeconfig_of("https://127.0.0.1:32771")
    assert mode(bench.files.kubeconfig) == 0o600
    assert bench.lines[-1].startswith("bootstrapped after")
    assert "waiting for the kubeconfig of 10.5.0.2: OK" in bench.files.log.read_text()
    bench.wait = Wait.HEALTHY
    assert bench.create() == observed, "the same plan has created it"


def test_an_api_that_never_answers_is_a_failure_that_leaves_only_the_log(bench: Bench) -> None:
    bench.wait = Wait.API
    bench.talosctl.kubeconfig = kubeconfig_of("https://10.5.0.2:6443")
    bench.wants(timeout_s=3.0)
    bench.talosctl.does(*BOOTSTRAPPED)

    error = (
        r"the Kubernetes API at https://127.0.0.1:32771 took too long: .*\n  full log: .*/demo.log"
    )
    with pytest.raises(CommandError, match=error):
        bench.create()

    bench.assert_only_the_log_is_left()
    assert "waiting for the Kubernetes API" in bench.files.log.read_text()


# Start


@pytest.fixture
def _brief_watch(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(docker_nodes, "STAYS_UP_S", 0.3)
    monkeypatch.setattr(docker_nodes, "POLL_S", 0.02)


@pytest.mark.usefixtures("_brief_watch")
def test_stopped_nodes_are_started_control_planes_first(bench: Bench) -> None:
    before = bench.create()
    bench.engine.add_node("demo", "demo-a-worker-2", address="10.5.0.4")
    for name in NODES:
        bench.engine.stop_node(name)
    bench.engine.stop_node("demo-a-worker-2", "paused")
    bench.lines.clear()

    after = bench.cluster.start()
    bench.cluster.start()

    order = ["demo-controlplane-1", "demo-a-worker-2", "demo-worker-1"]
    assert bench.engine.started == [
        "demo-controlplane-1 (start)",
        "demo-a-worker-2 (unpause)",
        "demo-worker-1 (start)",
    ]
    assert bench.lines == [f"starting the stopped node {name}" for name in order]
    assert after is not None
    assert [node for node in after.nodes if node in before.nodes] == list(before.nodes)
    assert bench.engine.removed == []


@pytest.mark.parametrize(
    ("how", "error"),
    [
        ("refuses", "controlplane-1 cannot be started: .*address already in use"),
        ("ends", r"controlplane-1 .* did not stay up \(exited\); see `docker logs demo-contr"),
    ],
)
@pytest.mark.usefixtures("_brief_watch")
def test_a_node_that_does_not_start_is_an_error_and_the_others_are_started(
    bench: Bench, how: str, error: str
) -> None:
    bench.create()
    for name in NODES:
        bench.engine.stop_node(name)
    bench.engine.refuse("demo-controlplane-1", how)

    with pytest.raises(TalosError, match=error):
        bench.cluster.start()
    assert bench.engine.started[-1] == "demo-worker-1 (start)"


@pytest.mark.usefixtures("_brief_watch")
@pytest.mark.parametrize("status", ["exited", "created", "dead"])
def test_creating_a_stopped_cluster_starts_it(bench: Bench, status: str) -> None:
    first = bench.create()
    bench.engine.stop_node("demo-worker-1", status)

    assert [node.name for node in bench.read().stopped] == ["demo-worker-1"]
    assert bench.create() == first
    assert created_once(bench)
    assert bench.engine.started == ["demo-worker-1 (start)"]


# A creation that fails


@pytest.mark.parametrize("after", range(len(STEPS)))
def test_a_failure_leaves_only_the_log(bench: Bench, after: int) -> None:
    bench.talosctl.does(*STEPS[:after], "fail")
    with pytest.raises(CommandError, match=r"something is wrong\n  full log: .*/demo.log"):
        bench.create()

    bench.assert_only_the_log_is_left()
    assert "something is wrong\n" in bench.files.log.read_text()


@pytest.mark.parametrize(
    ("steps", "error"),
    [
        ((*STEPS, "stop"), "the node demo-worker-1 ended with exit code 1"),
        (
            tuple(step for step in STEPS if step != "worker"),
            "created the cluster demo, but 0 of 1 worker nodes exist",
        ),
    ],
    ids=["stopped", "missing"],
)
def test_a_cluster_without_its_nodes_is_a_failure(
    bench: Bench, steps: tuple[str, ...], error: str
) -> None:
    bench.talosctl.does(*steps)
    with pytest.raises(TalosError, match=error):
        bench.create()

    bench.assert_only_the_log_is_left()


OUT_OF_MEMORY = {"Status": "exited", "ExitCode": 137, "OOMKilled": True}


@pytest.mark.parametrize("ends", ["hang", "fail"])
@pytest.mark.parametrize(
    ("stopped", "logged", "cause"),
    [
        ({}, "exec /sbin/init: exec format error", r"architecture \(arm64\) than .*amd64"),
        ({}, "failed to create cgroup: read-only", "control groups are not delegated"),
        ({}, "mount: operation not permitted", "CAP_SYS_ADMIN"),
        (OUT_OF_MEMORY, "booting", "no memory was left of its 256 MiB; .*`memory`"),
        ({}, "booting", "exit code 1\n  starting"),
    ],
)
def test_a_node_that_ends_fails_the_creation_at_once_with_the_likely_cause(
    bench: Bench, ends: str, stopped: dict[str, Any], logged: str, cause: str
) -> None:
    """Whether talosctl waits for it or fails."""
    bench.engine.nodes_log(f"starting\n{logged}\n")
    bench.talosctl.stopped |= stopped
    bench.talosctl.does(*STEPS[:-2], "stop", ends)

    with pytest.raises(
        NodeEndedError, match=rf"(?s)^the node demo-worker-1 ended .*{cause}.*{logged}.*full log: "
    ):
        bench.create()

    bench.assert_only_the_log_is_left()
    assert logged in bench.files.log.read_text()


def test_a_node_with_too_little_memory_is_named_if_the_creation_fails(bench: Bench) -> None:
    bench.talosctl.does(*STEPS[:-1], "fail")
    with pytest.raises(
        CommandError, match=r"(?s)something is wrong.*demo-\S+ is limited to 256 MiB; .*`memory`"
    ):
        bench.create()


def test_an_image_that_a_node_cannot_pull_is_named_at_once_and_in_the_error(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(node_watch, "LOOK_EVERY_S", 0.0)
    monkeypatch.setattr(node_watch, "READ_LOGS_EVERY_S", 0.0)
    bench.engine.nodes_log('retrying error: failed to pull image "ghcr.io/a:1": no route\n')
    bench.wants(timeout_s=3.0)
    bench.talosctl.does(*STEPS[:-1], "hang")
    told = "demo-controlplane-1 cannot pull ghcr.io/a:1: no route"

    with pytest.raises(CommandError, match=f"(?s)took too long.*{told}"):
        bench.create()

    assert bench.lines.count(told) == 1


IN_JSON = (
    '{"ts":1795884541074.048,"caller":"eviction/eviction_manager.go:381",'
    '"msg":"Eviction manager: attempting to reclaim","v":0,"resourceName":"ephemeral-storage"}'
)
AS_TEXT = (
    "I1128 16:49:01.074048       1 eviction_manager.go:376] "
    '"Eviction manager: attempting to reclaim" resourceName="ephemeral-storage"'
)


@pytest.mark.parametrize("line", [IN_JSON, AS_TEXT], ids=["json", "text"])
def test_a_node_that_is_short_of_disk_space_is_named_at_once_and_in_the_error(
    bench: Bench, monkeypatch: pytest.MonkeyPatch, line: str
) -> None:
    monkeypatch.setattr(node_watch, "LOOK_EVERY_S", 0.0)
    monkeypatch.setattr(node_watch, "READ_LOGS_EVERY_S", 0.0)
    started = '"Eviction manager: starting control loop"'
    bench.engine.put_file("demo-worker-1", "/var/log/kubelet.log", f"{started}\n{line}\n{line}\n")
    bench.wants(timeout_s=3.0)
    bench.talosctl.does(*STEPS[:-1], "hang")
    told = "demo-worker-1 refuses pods, because it is short of disk space. By default, 15% "

    with pytest.raises(CommandError, match=f"(?s)took too long.*{told}"):
        bench.create()

    assert len([line for line in bench.lines if line.startswith(told)]) == 1


@pytest.mark.parametrize(
    ("reader", "restarts"), [(("nodes", "a-password"), 3), ((), 0)], ids=["has some", "has none"]
)
def test_a_node_whose_container_runtime_missed_its_credentials_is_restarted_a_few_times(
    bench: Bench, monkeypatch: pytest.MonkeyPatch, reader: tuple[str, ...], restarts: int
) -> None:
    monkeypatch.setattr(node_watch, "LOOK_EVERY_S", 0.0)
    monkeypatch.setattr(node_watch, "READ_LOGS_EVERY_S", 0.0)
    time = "2026-11-27T14:00:09Z"
    refused = {"time": time, "error": "authorization failed: no basic auth credentials"}
    failed = {"time": time, "error": 'failed to pull image "pause:1": no route'}
    old = {"time": "2026-11-27T13:00:00Z", "error": 'failed to pull image "old:1": gone'}
    log = "\n".join(["no JSON", *map(json.dumps, (old, refused, failed))])
    bench.engine.put_file("demo-worker-1", "/var/log/cri.log", log)
    mirror = Endpoint("https://10.5.0.1:5004", None, *reader)
    bench.wants(timeout_s=3.0, mirrors={"ghcr.io": mirror})
    bench.talosctl.does(*STEPS[:-1], "hang")

    with pytest.raises(CommandError, match="demo-worker-1 cannot pull pause:1: no route"):
        bench.create()

    assert bench.engine.restarted == restarts * ["demo-worker-1"]
    assert not [line for line in bench.lines if "old:1" in line]


def test_remains_of_a_failure_are_reported_and_removed_by_the_next_run(bench: Bench) -> None:
    stuck = bench.engine.folder / "net-demo.stuck"
    stuck.touch()
    bench.talosctl.does("folder", "network", "fail")
    with pytest.raises(
        TalosError, match=r"(?s)something is wrong.*could not be removed.*net-demo has active"
    ):
        bench.create()
    stuck.unlink()
    bench.talosctl.does(*STEPS)

    assert bench.create().problems == ()
    assert "net-demo" in bench.engine.removed


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGKILL])
def test_an_interrupted_run_cleans_up_and_a_killed_one_is_cleaned_up_by_the_next(
    bench: Bench, number: signal.Signals
) -> None:
    bench.talosctl.does(*STEPS[:-1], "hang")
    ours = subprocess.Popen(
        [sys.executable, "-c", CREATE_DEMO, str(bench.folder)], cwd=ROOT, stderr=subprocess.DEVNULL
    )
    deadline = time.monotonic() + WITHIN_S
    while "context: demo" not in _text(bench.files.talosconfig):
        assert time.monotonic() < deadline
        time.sleep(0.02)
    talosctl_pid = int(bench.files.pid.read_text())
    ours.send_signal(number)
    ours.wait(WITHIN_S)

    if number is signal.SIGKILL:
        assert bench.read().problems == ("its creation did not finish",)
        bench.talosctl.does(*STEPS)
        assert bench.create().problems == ()
    else:
        bench.assert_only_the_log_is_left()
    assert not Path(f"/proc/{talosctl_pid}").exists() or ") Z " in _text(
        Path(f"/proc/{talosctl_pid}/stat")
    )


CREATE_DEMO = """
import sys
from pathlib import Path
from docker import DockerClient
from talos_registry_cache.talos import command_line
from talos_registry_cache.talos.cluster import ClusterOperations
from talos_registry_cache.talos.cluster_files import ClusterFiles
from talos_registry_cache.talos.cluster_spec import ClusterSpec, Provisioner
from talos_registry_cache.talos.process import Runner
from talos_registry_cache.talos.versions import Talosctl, Version
folder = Path(sys.argv[1])
files = ClusterFiles(folder / "stack", "demo")
talosctl = Talosctl(str(folder / "talosctl"), Version(1, 13))
engine = DockerClient(base_url=f"unix://{folder}/docker.sock", version="1.43")
ClusterOperations(files, Provisioner.DOCKER, {}, engine, Runner(lambda line: None)).create(
    command_line.create(ClusterSpec(name="demo"), talosctl, files)
)
"""


def _text(path: Path) -> str:
    return path.read_text() if path.exists() else ""


def test_a_cluster_that_vanished_is_found_out_and_can_be_created_again(bench: Bench) -> None:
    bench.create()
    bench.engine.remove_all()

    assert bench.cluster.read() is None
    assert bench.cluster.start() is None
    assert bench.create().problems == ()


def test_an_engine_that_does_not_answer_is_an_error(bench: Bench) -> None:
    client = DockerClient(base_url="tcp://127.0.0.1:1", version="1.43")
    with closing(client), pytest.raises(TalosError, match="the container engine: "):
        replace(bench.cluster, engine=client).read()


# Destroy


def test_destroying_leaves_nothing_and_can_be_repeated(bench: Bench) -> None:
    """Docker nodes are removed even without talosctl and the cluster's files."""
    bench.destroy()
    bench.create()
    bench.destroy()
    bench.engine.add_network("demo")
    bench.engine.add_node("demo", "demo-worker-1")
    bench.cluster.destroy()

    assert bench.engine.names == []
    assert bench.left == []
    assert bench.engine.removed[:2] == [f"{name} with its volumes" for name in NODES]
    assert created_once(bench)


# Errors


def test_a_cluster_whose_files_cannot_be_written_is_an_error(bench: Bench) -> None:
    (bench.folder / "stack").write_text("a file")
    with pytest.raises(TalosError, match=r"cannot write the cluster's files: .*File exists"):
        bench.create()
    assert not bench.talosctl.calls


def test_nothing_is_left_after_the_disk_is_full(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fill(path: Path, text: str) -> None:
        if "mirrors" in path.name:
            raise OSError(errno.ENOSPC, "No space left on device")
        path.write_text(text)

    monkeypatch.setattr(cluster, "write_private", fill)
    with pytest.raises(TalosError, match="No space left on device"):
        bench.create()
    assert bench.left == []


# Virtual machines

STATE_YAML = """\
provisionername: qemu
clusterinfo:
  clustername: demo
  network: {name: demo, cidrs: [10.5.0.0/24], gatewayaddrs: [10.5.0.1], mtu: 1500}
  nodes:
    - {name: demo-worker-1, type: worker, ips: [10.5.0.3]}
    - {name: demo-controlplane-1, type: controlplane, ips: [10.5.0.2]}
  kubernetesendpoint: https://10.5.0.1:6443
"""


@pytest.fixture
def virtual(bench: Bench) -> Bench:
    bench.wants(provisioner=Provisioner.QEMU)
    bench.talosctl.state_yaml = STATE_YAML
    bench.talosctl.does("folder", "state", "talosconfig", "kubeconfig")
    return bench


@pytest.fixture
def state(virtual: Bench) -> Path:
    """The state folder of virtual machines that were created before."""
    folder = virtual.files.state / "demo"
    folder.mkdir(parents=True)
    (folder / "state.yaml").write_text(STATE_YAML)
    return folder


def test_virtual_machines_that_do_not_run_after_create_are_destroyed(virtual: Bench) -> None:
    with pytest.raises(TalosError, match="demo-controlplane-1 is stopped, not running"):
        virtual.create()
    assert [arguments[1] for arguments, _ in virtual.talosctl.calls] == ["create", "destroy"]
    assert virtual.left == ["demo.log"]


def test_talosctl_writes_machine_configurations_into_the_private_folder(
    virtual: Bench, monkeypatch: pytest.MonkeyPatch, tmp_path_factory: pytest.TempPathFactory
) -> None:
    working_directory = tmp_path_factory.mktemp("program")
    monkeypatch.chdir(working_directory)
    virtual.talosctl.does("folder", "configs", "fail")
    with pytest.raises(TalosError):
        virtual.create()

    assert list(working_directory.iterdir()) == []
    assert virtual.left == ["demo.log"]


@pytest.mark.usefixtures("state")
def test_stopped_virtual_machines_stay_stopped(virtual: Bench) -> None:
    observed = virtual.cluster.start()

    assert observed is not None
    assert [node.name for node in observed.stopped] == list(NODES)
    assert virtual.lines == []


def test_running_virtual_machines_are_read_from_the_state_file(virtual: Bench, state: Path) -> None:
    for name in NODES:
        (state / f"{name}.pid").write_text(str(os.getpid()))

    observed = virtual.read()
    assert observed.problems == ("its creation did not finish",)
    assert [(node.address, node.runs) for node in observed.nodes] == [
        ("10.5.0.2", True),
        ("10.5.0.3", True),
    ]
    assert observed.kubernetes_endpoint == "https://10.5.0.1:6443"


def test_virtual_machines_without_a_state_file_are_killed(virtual: Bench, state: Path) -> None:
    (state / "state.yaml").unlink()
    machine = programs.started(programs.shell(virtual.folder / "qemu-launch", "sleep 60"))
    (state / "demo-worker-1.pid").write_text(str(machine.pid))
    (state / "reused.pid").write_text(str(os.getpid()))
    virtual.destroy()

    assert machine.wait(WITHIN_S) == -signal.SIGKILL
    assert virtual.left == []
    assert not virtual.talosctl.calls


@pytest.mark.usefixtures("state")
def test_remains_are_removed_if_talosctl_cannot_destroy_them(virtual: Bench) -> None:
    with pytest.raises(TalosError, match="destroying the virtual machines of demo needs talosctl"):
        virtual.cluster.destroy()
    virtual.talosctl.does("fail", destroying=("fail",))
    virtual.destroy()

    assert virtual.left == []
    assert any("remains without talosctl, because talosctl" in line for line in virtual.lines)


@pytest.fixture
def sudo(virtual: Bench, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The path for a sudo of the test's own, which an unprivileged user finds first."""
    monkeypatch.setenv("PATH", f"{virtual.folder}:{os.environ['PATH']}")
    monkeypatch.setattr(os, "geteuid", lambda: 1000)
    return virtual.folder / "sudo"


def test_sudo_that_would_ask_is_an_error_with_the_line_to_run(virtual: Bench, sudo: Path) -> None:
    programs.shell(sudo, "echo a password is required >&2; exit 1")
    with pytest.raises(TalosError, match="run `sudo --validate` and try again") as error:
        virtual.create()

    assert f"{virtual.folder}/talosctl cluster create qemu" in str(error.value)
    assert not virtual.files.base.exists()


def test_virtual_machines_are_created_through_sudo(virtual: Bench, sudo: Path) -> None:
    record = 'echo "$@" >> "$(dirname "$0")/asked"; while [ "${1#--}" != "$1" ]; do shift; done\n'
    programs.shell(sudo, f'{record}exec "$@"')
    with pytest.raises(TalosError, match="is stopped, not running"):
        virtual.create()

    asked = (virtual.folder / "asked").read_text().splitlines()
    assert asked[0] == "--non-interactive true"
    assert asked[1].startswith(
        "--non-interactive --preserve-env=HOME,KUBECONFIG "
        f"{virtual.folder}/talosctl cluster create qemu"
    )
