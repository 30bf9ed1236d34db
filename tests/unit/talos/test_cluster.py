import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path

import pytest
from docker import DockerClient

from talos_registry_cache.talos import cluster, docker_nodes
from talos_registry_cache.talos.cluster import Observed
from talos_registry_cache.talos.cluster_files import Places
from talos_registry_cache.talos.cluster_spec import ClusterSpec, Provisioner
from talos_registry_cache.talos.errors import CommandError, TakenError, TalosError, UnsupportedError
from talos_registry_cache.talos.mirror import Mirror
from talos_registry_cache.talos.process import Runner
from talos_registry_cache.talos.versions import Version
from tests.unit.talos import fake_docker, programs
from tests.unit.talos.fake_docker import FakeDocker
from tests.unit.talos.fake_talosctl import STEPS, FakeTalosctl

ROOT = Path(__file__).resolve().parents[3]
SPEC = ClusterSpec(name="demo", mirrors={"docker.io": Mirror("http://172.17.0.1:5000")})
WITHIN_S = 60.0


@dataclass
class Bench:
    """An engine, a talosctl, and the folder of a stack."""

    folder: Path
    engine: FakeDocker
    client: DockerClient
    spec: ClusterSpec = SPEC
    lines: list[str] = field(default_factory=list)
    version: Version = field(default_factory=lambda: Version(1, 13))

    def __post_init__(self) -> None:
        self.talosctl = FakeTalosctl(self.folder, self.spec.name, self.engine.folder)

    @property
    def places(self) -> Places:
        return Places(self.folder / "stack", self.spec.name)

    @property
    def runner(self) -> Runner:
        return Runner(self.lines.append, grace_s=5)

    def create(self) -> Observed:
        return cluster.create(
            self.spec,
            self.talosctl.talosctl(self.version),
            self.places,
            engine=self.client,
            runner=self.runner,
        )

    def read(self) -> Observed | None:
        return cluster.read(self.spec, self.places, engine=self.client)

    def start(self) -> Observed | None:
        return cluster.start(self.spec, self.places, engine=self.client, runner=self.runner)

    def destroy(self) -> None:
        cluster.destroy(
            self.spec,
            self.places,
            talosctl=self.talosctl.talosctl(self.version),
            engine=self.client,
            runner=self.runner,
        )

    def wants(self, **changed: object) -> None:
        self.spec = replace(self.spec, **changed)  # type: ignore[arg-type]

    @property
    def left(self) -> list[str]:
        """All files and folders of the stack."""
        return sorted(
            str(path.relative_to(self.places.base)) for path in self.places.base.rglob("*")
        )


@pytest.fixture
def bench(tmp_path: Path) -> Iterator[Bench]:
    with fake_docker.serving(tmp_path) as (engine, client):
        yield Bench(tmp_path, engine, client)


def created_once(bench: Bench) -> bool:
    return [arguments[1] for arguments, _ in bench.talosctl.calls] == ["create"]


# Creating one


def test_a_cluster_is_created_and_told_about(bench: Bench) -> None:
    observed = bench.create()

    controlplane, worker = observed.nodes
    assert (controlplane.name, controlplane.role) == ("demo-controlplane-1", "controlplane")
    assert (worker.role, worker.address, worker.status) == ("worker", "10.5.0.3", "running")
    assert controlplane.ports == {"6443/tcp": "0.0.0.0:32771", "50000/tcp": "0.0.0.0:32772"}
    assert observed.kubernetes_endpoint == "https://127.0.0.1:32771"
    assert observed.problems == ()
    assert observed.command is not None
    assert "talosctl cluster create docker --config-patch" in observed.command
    assert bench.lines[0] == "creating demo"


def test_each_cluster_has_files_of_its_own_that_only_its_owner_can_read(bench: Bench) -> None:
    bench.create()

    assert bench.left == [
        "demo",
        "demo.log",
        "demo/command",
        "demo/kubeconfig",
        "demo/mirrors.yaml",
        "demo/state",
        "demo/state/demo",
        "demo/state/demo/state.yaml",
        "demo/talosconfig",
    ]
    modes = {
        path.stat().st_mode & 0o777 for path in bench.places.folder.iterdir() if path.is_file()
    }
    assert modes == {0o600}
    assert bench.places.folder.stat().st_mode & 0o777 == 0o700
    assert bench.places.base.stat().st_mode & 0o777 == 0o700
    assert bench.places.kubeconfig.read_text() == "current-context: admin@demo"
    assert bench.places.talosconfig.read_text() == "context: demo"


def test_what_is_pulumis_own_does_not_get_to_talosctl(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PULUMI_CONFIG_PASSPHRASE", "s3cret")
    monkeypatch.setenv("KUBECONFIG", "/a:/b")
    bench.create()

    ((_, environment),) = bench.talosctl.calls
    assert "s3cret" not in environment.values()
    assert environment["KUBECONFIG"] == str(bench.places.kubeconfig)
    assert environment["PATH"] == os.environ["PATH"]


def test_creating_it_again_does_nothing(bench: Bench) -> None:
    first = bench.create()

    assert bench.create() == first
    assert created_once(bench)


def test_an_older_talosctl_leaves_no_notes_and_needs_none(bench: Bench) -> None:
    bench.version = Version(0, 12)
    bench.talosctl.does("network", "controlplane", "worker", "talosconfig", "kubeconfig")

    assert bench.create().problems == ()
    assert bench.create().problems == ()
    assert created_once(bench)


@pytest.mark.parametrize(
    "changed",
    [
        {"kubernetes_version": "1.30.0"},
        {"mirrors": {"docker.io": Mirror("http://172.17.0.1:6000")}},
        {"patches": ("machine: {sysctls: {a: '1'}}",)},
    ],
    ids=["flag", "mirror", "patch"],
)
def test_creating_another_one_in_its_place_removes_the_first(
    bench: Bench, changed: dict[str, object]
) -> None:
    bench.create()
    bench.wants(**changed)
    bench.create()

    assert "demo-worker-1 with its volumes" in bench.engine.removed
    assert len(bench.talosctl.calls) == 2


def test_one_that_has_lost_a_node_is_created_anew(bench: Bench) -> None:
    bench.create()
    bench.engine.remove_node("demo-worker-1")

    assert len(bench.create().nodes) == 2
    assert "demo-controlplane-1 with its volumes" in bench.engine.removed


def test_one_of_the_same_name_from_elsewhere_is_left_alone(bench: Bench) -> None:
    bench.engine.add_network("demo")
    bench.engine.add_node("demo", "demo-worker-1")

    with pytest.raises(TakenError, match="a cluster demo already, and not from here; remove it"):
        bench.create()
    assert bench.engine.names == ["demo-worker-1", "net-demo"]
    assert not bench.talosctl.calls


def test_two_clusters_stay_apart(bench: Bench) -> None:
    bench.create()
    other = replace(bench, spec=replace(SPEC, name="other"))
    other.create()
    other.destroy()

    assert bench.read() is not None
    assert bench.create().problems == ()
    assert not any("other" in path for path in bench.left)
    assert not any("other" in name for name in bench.engine.names)


def test_what_talosctl_cannot_do_is_an_error_before_anything_is_touched(bench: Bench) -> None:
    bench.wants(controlplanes=3)
    with pytest.raises(UnsupportedError):
        bench.create()

    assert not bench.places.base.exists()


# Starting one that has stopped


@pytest.fixture
def stays_up_s(monkeypatch: pytest.MonkeyPatch) -> float:
    monkeypatch.setattr(docker_nodes, "STAYS_UP_S", 0.3)
    monkeypatch.setattr(docker_nodes, "POLL_S", 0.02)
    return docker_nodes.STAYS_UP_S


@pytest.mark.usefixtures("stays_up_s")
def test_nodes_that_have_stopped_are_started_the_control_plane_first(bench: Bench) -> None:
    before = bench.create()
    bench.engine.add_node("demo", "demo-a-worker-2", address="10.5.0.4")
    for name in ("demo-a-worker-2", "demo-controlplane-1", "demo-worker-1"):
        bench.engine.stop_node(name)
    bench.lines.clear()

    after = bench.start()

    order = ["demo-controlplane-1", "demo-a-worker-2", "demo-worker-1"]
    assert bench.engine.started == [f"{name} (start)" for name in order]
    assert bench.lines == [f"starting the stopped node {name}" for name in order]
    assert after is not None
    assert [node for node in after.nodes if node in before.nodes] == list(before.nodes)
    assert bench.engine.removed == []


@pytest.mark.usefixtures("stays_up_s")
def test_only_nodes_that_have_stopped_are_started(bench: Bench) -> None:
    bench.create()
    bench.engine.stop_node("demo-worker-1", "paused")
    bench.start()
    bench.start()

    assert bench.engine.started == ["demo-worker-1 (unpause)"]


def test_one_that_is_gone_is_not_started(bench: Bench) -> None:
    assert bench.start() is None


@pytest.mark.usefixtures("stays_up_s")
def test_a_node_that_does_not_stay_up_is_an_error_that_says_where_to_look(bench: Bench) -> None:
    bench.create()
    bench.engine.stop_node("demo-worker-1")
    bench.engine.refuse("demo-worker-1", "ends")

    with pytest.raises(
        TalosError,
        match=r"demo-worker-1 was started and does not stay up \(exited\); see `docker logs demo-",
    ):
        bench.start()


@pytest.mark.usefixtures("stays_up_s")
def test_a_node_that_cannot_be_started_does_not_keep_the_others_down(bench: Bench) -> None:
    bench.create()
    for name in ("demo-controlplane-1", "demo-worker-1"):
        bench.engine.stop_node(name)
    bench.engine.refuse("demo-controlplane-1", "refuses")

    with pytest.raises(
        TalosError, match=r"demo-controlplane-1 cannot be started: .*address already in use"
    ):
        bench.start()
    assert bench.engine.started == ["demo-worker-1 (start)"]


@pytest.mark.usefixtures("stays_up_s")
def test_creating_one_that_has_stopped_starts_it(bench: Bench) -> None:
    first = bench.create()
    bench.engine.stop_node("demo-worker-1")

    assert bench.create() == first
    assert created_once(bench)
    assert bench.engine.started == ["demo-worker-1 (start)"]


def test_a_node_that_ends_while_it_is_created_is_a_failure(bench: Bench) -> None:
    bench.talosctl.does(*STEPS, "stop")
    with pytest.raises(TalosError, match="created the cluster demo, but demo-worker-1 is exited"):
        bench.create()

    assert bench.engine.names == []


# A creation that fails


@pytest.mark.parametrize("after", range(len(STEPS)))
def test_nothing_but_the_log_is_left_of_a_failure(bench: Bench, after: int) -> None:
    bench.talosctl.does(*STEPS[:after], "fail")
    with pytest.raises(CommandError, match=r"something is wrong\n  full log: .*/demo.log"):
        bench.create()

    assert bench.engine.names == []
    assert bench.left == ["demo.log"]
    assert bench.places.log.read_text().endswith("something is wrong\n")


def test_after_a_failure_it_can_be_created(bench: Bench) -> None:
    bench.talosctl.does("folder", "network", "fail")
    with pytest.raises(CommandError):
        bench.create()
    bench.talosctl.does(*STEPS)

    assert bench.create().problems == ()


def test_one_that_never_becomes_ready_is_stopped_at_its_timeout(bench: Bench) -> None:
    bench.talosctl.does(*STEPS[:-1], "hang")
    bench.wants(timeout_s=1)
    with pytest.raises(
        CommandError, match=r"was not done and was ended after \d+ s\n  creating demo"
    ):
        bench.create()

    assert bench.engine.names == []
    assert bench.left == ["demo.log"]


def test_success_without_nodes_is_a_failure(bench: Bench) -> None:
    bench.talosctl.does("folder", "network", "controlplane", "state", "talosconfig", "kubeconfig")
    with pytest.raises(TalosError, match="created the cluster demo, but 0 of 1 worker nodes are"):
        bench.create()

    assert bench.engine.names == []


def test_what_cannot_be_removed_after_a_failure_is_told_with_it(bench: Bench) -> None:
    (bench.engine.folder / "net-demo.stuck").touch()
    bench.talosctl.does("folder", "network", "fail")
    with pytest.raises(TalosError) as error:
        bench.create()

    assert "something is wrong" in str(error.value)
    assert "could not be removed, the next run tries again" in str(error.value)
    assert "net-demo has active endpoints" in str(error.value)


def test_the_next_run_removes_what_could_not_be_removed(bench: Bench) -> None:
    stuck = bench.engine.folder / "net-demo.stuck"
    stuck.touch()
    bench.talosctl.does("folder", "network", "fail")
    with pytest.raises(TalosError):
        bench.create()
    stuck.unlink()
    bench.talosctl.does(*STEPS)

    assert bench.create().problems == ()
    assert "net-demo" in bench.engine.removed


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGKILL])
def test_a_run_that_is_ended_in_the_middle(bench: Bench, number: signal.Signals) -> None:
    """Interrupted, it cleans up; killed, the next one does."""
    bench.talosctl.does(*STEPS[:-1], "hang")
    ours = subprocess.Popen(
        [sys.executable, "-c", CREATE_DEMO, str(bench.folder)], cwd=ROOT, stderr=subprocess.DEVNULL
    )
    deadline = time.monotonic() + WITHIN_S
    while "context: demo" not in _text(bench.places.talosconfig):
        assert time.monotonic() < deadline
        time.sleep(0.02)
    talosctl_pid = int(bench.places.pid.read_text())
    ours.send_signal(number)
    ours.wait(WITHIN_S)

    if number is signal.SIGKILL:
        observed = bench.read()
        assert observed is not None
        assert observed.problems == ("its creation did not finish",)
        bench.talosctl.does(*STEPS)
        assert bench.create().problems == ()
    else:
        assert bench.engine.names == []
        assert bench.left == ["demo.log"]
    assert not Path(f"/proc/{talosctl_pid}").exists() or ") Z " in _text(
        Path(f"/proc/{talosctl_pid}/stat")
    )


CREATE_DEMO = """
import sys
from pathlib import Path
from docker import DockerClient
from talos_registry_cache.talos import cluster
from talos_registry_cache.talos.cluster_spec import ClusterSpec
from talos_registry_cache.talos.mirror import Mirror
from talos_registry_cache.talos.cluster_files import Places
from talos_registry_cache.talos.process import Runner
from talos_registry_cache.talos.versions import Talosctl, Version
folder = Path(sys.argv[1])
cluster.create(
    ClusterSpec(name="demo", mirrors={"docker.io": Mirror("http://172.17.0.1:5000")}),
    Talosctl(str(folder / "talosctl"), Version(1, 13)),
    Places(folder / "stack", "demo"),
    engine=DockerClient(base_url=f"unix://{folder}/docker.sock", version="1.43"),
    runner=Runner(lambda line: None),
)
"""


def _text(path: Path) -> str:
    return path.read_text() if path.exists() else ""


# Looking at one


def test_there_is_none(bench: Bench) -> None:
    assert bench.read() is None


def test_a_node_that_is_missing_is_found(bench: Bench) -> None:
    bench.create()
    bench.engine.remove_node("demo-worker-1")

    observed = bench.read()
    assert observed is not None
    assert observed.problems == ("0 of 1 worker nodes are there",)


@pytest.mark.parametrize("status", ["exited", "created", "paused", "dead"])
def test_a_node_that_has_stopped_is_there_and_nothing_is_wrong(bench: Bench, status: str) -> None:
    bench.create()
    bench.engine.stop_node("demo-worker-1", status)

    observed = bench.read()
    assert observed is not None
    assert [node.name for node in observed.stopped] == ["demo-worker-1"]
    assert observed.problems == ()


def test_a_cluster_that_vanished_is_found(bench: Bench) -> None:
    bench.create()
    for name in bench.engine.names:
        for kind in ("containers", "networks"):
            (bench.engine.folder / kind / f"{name}.json").unlink(missing_ok=True)

    assert bench.read() is None
    assert bench.create().problems == ()


def test_an_engine_that_is_gone_is_an_error(bench: Bench) -> None:
    client = DockerClient(base_url="tcp://127.0.0.1:1", version="1.43")
    with pytest.raises(TalosError, match="the container engine: "):
        cluster.read(SPEC, bench.places, engine=client)
    client.close()


# Destroying one


def test_nothing_is_left_of_one_that_is_destroyed(bench: Bench) -> None:
    bench.create()
    bench.destroy()

    assert bench.engine.names == []
    assert bench.left == []
    assert bench.engine.removed[:2] == [
        "demo-controlplane-1 with its volumes",
        "demo-worker-1 with its volumes",
    ]


def test_destroying_it_again_does_nothing(bench: Bench) -> None:
    bench.destroy()
    bench.create()
    bench.destroy()
    bench.destroy()

    assert created_once(bench)


def test_it_is_destroyed_also_when_its_files_are_gone(bench: Bench) -> None:
    bench.engine.add_network("demo")
    bench.engine.add_node("demo", "demo-worker-1")
    bench.destroy()

    assert bench.engine.names == []


def test_docker_nodes_are_destroyed_without_talosctl(bench: Bench) -> None:
    bench.create()
    cluster.destroy(
        bench.spec, bench.places, talosctl=None, engine=bench.client, runner=bench.runner
    )

    assert bench.engine.names == []
    assert bench.left == []


# Bad input


def test_a_folder_that_cannot_be_written(bench: Bench) -> None:
    (bench.folder / "stack").write_text("a file")
    with pytest.raises(TalosError, match=r"cannot keep the cluster's files: .*File exists"):
        bench.create()
    assert not bench.talosctl.calls


def test_a_talosctl_that_is_gone(bench: Bench) -> None:
    (bench.folder / "talosctl").unlink()
    with pytest.raises(CommandError, match=r"cannot run talosctl cluster create docker: .*No such"):
        bench.create()
    assert "demo" not in bench.left


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


def test_virtual_machines_are_read_from_talosctls_notes(virtual: Bench) -> None:
    with pytest.raises(TalosError, match="demo-controlplane-1 is stopped, not running"):
        virtual.create()
    assert [arguments[1] for arguments, _ in virtual.talosctl.calls] == ["create", "destroy"]
    assert virtual.left == ["demo.log"]


def test_virtual_machines_that_have_stopped_are_left_as_they_are(virtual: Bench) -> None:
    state = virtual.places.state / "demo"
    state.mkdir(parents=True)
    (state / "state.yaml").write_text(STATE_YAML)

    observed = virtual.start()

    assert observed is not None
    assert [node.name for node in observed.stopped] == ["demo-controlplane-1", "demo-worker-1"]
    assert virtual.lines == []


def test_virtual_machines_that_run(virtual: Bench) -> None:
    state = virtual.places.state / "demo"
    state.mkdir(parents=True)
    (state / "state.yaml").write_text(STATE_YAML)
    for name in ("demo-controlplane-1", "demo-worker-1"):
        (state / f"{name}.pid").write_text(str(os.getpid()))

    observed = virtual.read()
    assert observed is not None
    assert observed.problems == ("its creation did not finish",)
    assert [node.address for node in observed.nodes] == ["10.5.0.2", "10.5.0.3"]
    assert observed.kubernetes_endpoint == "https://10.5.0.1:6443"


def test_virtual_machines_that_talosctl_did_not_note_down_are_ended(virtual: Bench) -> None:
    launcher = programs.shell(virtual.folder / "qemu-launch", "sleep 60")
    machine = programs.started(launcher)
    state = virtual.places.state / "demo"
    state.mkdir(parents=True)
    (state / "demo-worker-1.pid").write_text(str(machine.pid))
    (state / "reused.pid").write_text(str(os.getpid()))
    virtual.destroy()

    assert machine.wait(WITHIN_S) == -signal.SIGKILL
    assert virtual.left == []
    assert not virtual.talosctl.calls


def test_when_talosctl_cannot_destroy_them_it_is_done_by_hand(virtual: Bench) -> None:
    state = virtual.places.state / "demo"
    state.mkdir(parents=True)
    (state / "state.yaml").write_text(STATE_YAML)
    virtual.talosctl.does("fail", destroying=("fail",))
    virtual.destroy()

    assert virtual.left == []
    assert any("removing by hand what is left, since talosctl" in line for line in virtual.lines)


def test_sudo_that_would_ask_is_an_error_with_the_line_to_run(
    virtual: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    programs.shell(virtual.folder / "sudo", "echo a password is required >&2; exit 1")
    monkeypatch.setenv("PATH", f"{virtual.folder}:{os.environ['PATH']}")
    monkeypatch.setattr(os, "geteuid", lambda: 1000)
    with pytest.raises(TalosError) as error:
        virtual.create()

    assert "run `sudo --validate` and try again" in str(error.value)
    assert f"{virtual.folder}/talosctl cluster create qemu" in str(error.value)
    assert not virtual.places.base.exists()


def test_virtual_machines_are_made_through_sudo(
    virtual: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    sudo = 'echo "$@" >> "$(dirname "$0")/asked"; while [ "${1#--}" != "$1" ]; do shift; done\n'
    programs.shell(virtual.folder / "sudo", f'{sudo}exec "$@"')
    monkeypatch.setenv("PATH", f"{virtual.folder}:{os.environ['PATH']}")
    monkeypatch.setattr(os, "geteuid", lambda: 1000)
    with pytest.raises(TalosError, match="is stopped, not running"):
        virtual.create()

    asked = (virtual.folder / "asked").read_text().splitlines()
    program = f"{virtual.folder}/talosctl"
    assert asked[0] == "--non-interactive true"
    assert asked[1].startswith(
        f"--non-interactive --preserve-env=HOME,KUBECONFIG {program} cluster create qemu"
    )
    assert virtual.left == ["demo.log"]
