"""Clusters created by a real talosctl, whose nodes run a stand-in image."""

import shlex
import shutil
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from docker import DockerClient
from pulumi.automation import CommandError

from talos_registry_cache.review import plan
from talos_registry_cache.review.model import Fate, Operation
from talos_registry_cache.talos import docker_nodes
from talos_registry_cache.talos.errors import TalosError
from tests.integration.support import containerd, docker_cli, host, nodes, private_engine, sessions
from tests.integration.support.polling import PATIENCE, eventually
from tests.integration.support.private_engine import PrivateEngine
from tests.integration.support.stack import CacheStack, stack, upstreams
from tests.integration.support.upstream import IMAGE, Pushed

OLD, NEW = "talosctl-1.11", "talosctl-1.13"
TAGS = ("v1.11.5", "v1.13.0")
REGISTRIES = ("ghcr.io", "docker.io")
STARTED_WITHIN_S = 60
ENGINE_GONE_WITHIN_S = 120

# talosctl 1.11 can be told not to wait for the nodes, which never answer.
QUICK = {
    "talosctl": OLD,
    "extraArguments": ["--wait=false", "--with-init-node", "--skip-kubeconfig"],
}
# talosctl 1.13 always waits, in these tests for ever.
ENDLESS = {"talosctl": NEW, "timeout": "15s"}

NewStack = Callable[[dict[str, Any]], CacheStack]


@dataclass(frozen=True, slots=True)
class Site:
    """A private engine, with an upstream that has an image for nodes to pull."""

    engine: PrivateEngine
    client: DockerClient
    upstream_port: int
    workload: Pushed

    @property
    def upstream_url(self) -> str:
        """The URL of the upstream for containers."""
        return f"http://{host.bridge_gateway(self.client)}:{self.upstream_port}"

    def start_upstream(self) -> None:
        """Start the upstream after the engine was killed, which restarts only caches."""
        filters: dict[str, str | list[str] | bool] = {"publish": str(self.upstream_port)}
        (upstream,) = self.client.containers.list(all=True, filters=filters)
        upstream.start()

    @contextmanager
    def upstream_away(self) -> Iterator[None]:
        """Stop the upstream for a while."""
        (upstream,) = self.client.containers.list(filters={"publish": str(self.upstream_port)})
        upstream.stop(timeout=1)
        try:
            yield
        finally:
            upstream.start()


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    if reason := private_engine.why_impossible():
        pytest.skip(reason)
    with (
        private_engine.running(tmp_path_factory.mktemp("engine")) as engine,
        engine.client() as client,
    ):
        port = host.free_port()
        with nodes.upstream(engine, port, tmp_path_factory.mktemp("node"), *TAGS) as workload:
            yield Site(engine, client, port, workload)


@contextmanager
def _stack(site: Site, folder: Path, clusters: dict[str, Any]) -> Iterator[CacheStack]:
    gateway = host.bridge_gateway(site.client)
    caches = {
        "mirrorHost": gateway,
        "storage": {"onDestroy": "delete"},
        "upstreams": upstreams(site.upstream_url, *REGISTRIES),
    }
    with stack(folder, site.client, caches, engine_host=site.engine.host) as made:
        made.configure(clusters, "clusters")
        try:
            yield made
        finally:
            for name in clusters:
                for node in nodes.of_cluster(site.client, name).values():
                    node.remove(force=True, v=True)
                for network in site.client.networks.list(
                    filters={"label": f"{nodes.CLUSTER_LABEL}={name}"}
                ):
                    network.remove()
            shutil.rmtree(made.clusters_folder, ignore_errors=True)


@pytest.fixture(scope="module")
def up(site: Site, tmp_path_factory: pytest.TempPathFactory) -> Iterator[CacheStack]:
    """A stack with a running cluster."""
    clusters = {"demo": {**QUICK, "workers": 2, "cidr": "10.71.0.0/24"}}
    with _stack(site, tmp_path_factory.mktemp("up"), clusters) as made:
        made.up()
        yield made


@pytest.fixture
def new_stack(site: Site, tmp_path: Path) -> Iterator[NewStack]:
    """Create stacks with caches and clusters, and remove them after the test."""
    with ExitStack() as made:
        yield lambda clusters: made.enter_context(_stack(site, tmp_path, clusters))


def _failed_up(made: CacheStack) -> str:
    with pytest.raises(CommandError) as failure:
        made.up()
    message = str(failure.value)
    assert "Traceback" not in message, message
    return message


# A running cluster


@pytest.mark.modern_engine
def test_the_nodes_are_as_specified(up: CacheStack, site: Site) -> None:
    told = {node["name"]: node for node in up.outputs()["clusters"]["demo"]["nodes"]}

    found = nodes.of_cluster(site.client, "demo")
    assert set(told) == set(found)
    assert sorted(node["role"] for node in told.values()) == ["controlplane", "worker", "worker"]
    assert all(node["address"].startswith("10.71.0.") for node in told.values())
    assert nodes.statuses(site.client, "demo") == {"running"}


@pytest.mark.modern_engine
def test_nodes_pull_through_the_mirrors_in_their_machine_configuration(
    up: CacheStack, site: Site, tmp_path: Path
) -> None:
    for node in nodes.of_cluster(site.client, "demo").values():
        assert nodes.mirrors(node) == up.outputs()["mirrors"]
    mirrors = up.outputs()["clusters"]["demo"]["mirrors"]
    assert mirrors == up.outputs()["mirrors"]
    with containerd.running(tmp_path, site.engine.enter) as runtime:
        assert runtime.pull("docker.io", site.workload, mirrors) == site.workload.digest


def test_the_image_of_the_nodes_came_through_the_cache(up: CacheStack, site: Site) -> None:
    endpoint = up.outputs()["caches"]["ghcr.io"]["endpoint"]
    image = site.client.images.get(f"ghcr.io/{nodes.REPOSITORY}:v1.11.5")
    assert f"{endpoint.removeprefix('http://')}/{nodes.REPOSITORY}:v1.11.5" in image.tags


def test_the_command_line_is_the_guide_s_with_files_of_its_own(up: CacheStack) -> None:
    cluster = up.outputs()["clusters"]["demo"]
    command = cluster["command"]
    assert " cluster create --provisioner docker --registry-mirror " in command
    for registry, url in up.outputs()["mirrors"].items():
        assert f"--registry-mirror {registry}={url}" in command
    for file in ("talosconfig", "kubeconfig"):
        path = Path(cluster[file])
        assert path.stat().st_mode & 0o777 == 0o600
        assert path.is_relative_to(up.clusters_folder)


def test_no_secret_of_the_cluster_is_in_the_state(up: CacheStack) -> None:
    talosconfig = Path(up.outputs()["clusters"]["demo"]["talosconfig"]).read_text()
    keys = [line.split(": ")[1] for line in talosconfig.splitlines() if " key: " in line]
    assert keys
    state = up.export()
    assert not [key for key in keys if key in state]


@pytest.mark.modern_engine
def test_up_again_changes_nothing_and_neither_does_refresh(up: CacheStack) -> None:
    assert set(up.up()) == {"same"}
    assert set(up.refresh()) == {"same"}
    assert set(up.up()) == {"same"}


@pytest.mark.modern_engine
def test_a_changed_cidr_previews_as_a_replacement_and_replaces(up: CacheStack, site: Site) -> None:
    before = {node.id for node in nodes.of_cluster(site.client, "demo").values()}
    up.configure({"demo": {**QUICK, "workers": 2, "cidr": "10.72.0.0/24"}}, "clusters")
    assert up.preview().get("replace") == 1

    assert up.up().get("replace") == 1

    after = nodes.of_cluster(site.client, "demo").values()
    assert before.isdisjoint({node.id for node in after})
    told = up.outputs()["clusters"]["demo"]["nodes"]
    assert all(node["address"].startswith("10.72.0.") for node in told)


def test_another_talosctl_updates_the_cluster_and_replaces_no_node(up: CacheStack) -> None:
    settings = {**QUICK, "workers": 2, "cidr": "10.72.0.0/24"}
    up.configure({"demo": {**settings, "talosctl": NEW, "timeout": "5m"}}, "clusters")

    planned = plan.changes(up.steps())
    shown = up.pulumi("preview", "--diff")

    (cluster,) = [one for one in planned if one.type.endswith(plan.CLUSTER)]
    assert cluster.operation is Operation.UPDATE
    assert [change.path for change in cluster.properties] == ["talosctl"]
    assert "own_flags" not in shown
    up.configure({"demo": {**settings, "timeout": "5m"}}, "clusters")
    assert set(up.preview()) == {"same"}


def _up(made: CacheStack) -> str:
    """Run `pulumi up`; returns what it prints."""
    return made.pulumi("up", "--yes", "--skip-preview")


# Stopped nodes


@pytest.mark.parametrize(("count", "is_refreshed"), [(1, False), (1, True), (3, False)])
def test_up_starts_stopped_nodes_which_lose_nothing(
    up: CacheStack, site: Site, count: int, *, is_refreshed: bool
) -> None:
    before = nodes.kept(site.client, "demo")
    told = up.outputs()["clusters"]["demo"]
    stopped = sorted(before)[-count:]
    nodes.stop(site.client, "demo", *stopped)
    if is_refreshed:
        assert up.refresh().get("update") == 1
    assert "replace" not in up.preview()

    printed = _up(up)

    assert all(f"demo: starting the stopped node {name}" in printed for name in stopped)
    assert nodes.statuses(site.client, "demo") == {"running"}
    assert nodes.kept(site.client, "demo") == before
    assert up.outputs()["clusters"]["demo"] == told
    assert set(up.up()) == {"same"}
    assert set(up.refresh()) == {"same"}


def test_nodes_started_by_hand_leave_nothing_to_do(up: CacheStack, site: Site) -> None:
    before = nodes.kept(site.client, "demo")
    nodes.stop(site.client, "demo", *before)
    up.refresh()
    for node in nodes.of_cluster(site.client, "demo").values():
        node.start()
    up.refresh()

    assert set(up.preview()) == {"same"}
    assert set(up.up()) == {"same"}
    assert nodes.kept(site.client, "demo") == before


def test_a_node_that_does_not_stay_up_is_an_error(site: Site) -> None:
    labels = {"talos.owned": "true", nodes.CLUSTER_LABEL: "brief", "talos.type": "worker"}
    node = site.client.containers.create(
        IMAGE, entrypoint=["sh", "-c", "exit 3"], name="brief-worker-1", labels=labels
    )
    lines: list[str] = []
    try:
        with pytest.raises(TalosError, match="brief-worker-1 was started but did not stay up"):
            docker_nodes.start(site.client, "brief", lines.append)
    finally:
        node.remove(force=True, v=True)
    assert lines == ["starting the stopped node brief-worker-1"]


# Lost nodes


def test_a_lost_node_is_reported_and_the_others_are_kept(up: CacheStack, site: Site) -> None:
    gone = max(nodes.of_cluster(site.client, "demo"))
    nodes.of_cluster(site.client, "demo")[gone].remove(force=True, v=True)
    others = nodes.kept(site.client, "demo")
    warning = f"demo: warning: {gone} is lost"

    assert warning in _up(up)
    assert warning in up.pulumi("refresh", "--yes")
    assert set(up.preview()) == {"same"}
    assert "clusters.demo.onLostNodes to `replace`" in _up(up)

    assert nodes.kept(site.client, "demo") == others
    told = {node["name"]: node["status"] for node in up.outputs()["clusters"]["demo"]["nodes"]}
    assert told == {**dict.fromkeys(others, "running"), gone: "lost"}


def test_lost_nodes_replace_the_cluster_if_set_and_preview_warns_of_data_loss(
    up: CacheStack, site: Site
) -> None:
    settings = {**QUICK, "workers": 2, "cidr": "10.72.0.0/24", "onLostNodes": "replace"}
    up.configure({"demo": settings}, "clusters")
    for name in sorted(nodes.of_cluster(site.client, "demo"))[2:]:
        nodes.of_cluster(site.client, "demo")[name].remove(force=True, v=True)

    assert "DATA LOSS: the whole cluster is replaced" in up.pulumi("preview")
    planned = plan.changes(up.steps())
    (cluster,) = [one for one in planned if one.type.endswith(plan.CLUSTER)]
    assert (cluster.operation, cluster.fate) == (Operation.REPLACE, Fate.LOST)
    assert up.up().get("replace") == 1

    assert len(nodes.of_cluster(site.client, "demo")) == 3
    assert set(up.up()) == {"same"}


def test_a_cluster_without_any_node_is_created_again(up: CacheStack, site: Site) -> None:
    up.configure({"demo": {**QUICK, "workers": 2, "cidr": "10.72.0.0/24"}}, "clusters")
    for node in nodes.of_cluster(site.client, "demo").values():
        node.remove(force=True, v=True)

    up.up()

    assert len(nodes.of_cluster(site.client, "demo")) == 3
    assert set(up.up()) == {"same"}


# Destroy


@pytest.mark.modern_engine
@pytest.mark.parametrize("has_stopped", [False, True])
def test_destroy_leaves_nothing(new_stack: NewStack, site: Site, *, has_stopped: bool) -> None:
    made = new_stack({"gone": {**QUICK, "cidr": "10.73.0.0/24"}})
    made.up()
    folder = made.clusters_folder / "gone"
    assert folder.exists()
    mounted = {
        mount["Name"]
        for node in nodes.of_cluster(site.client, "gone").values()
        for mount in node.attrs["Mounts"]
        if mount["Type"] == "volume"
    }
    if has_stopped:
        nodes.stop(site.client, "gone", *nodes.of_cluster(site.client, "gone"))

    made.destroy()

    assert nodes.left_of(site.client, "gone") == []
    assert mounted.isdisjoint({volume.name for volume in site.client.volumes.list()})
    assert not folder.exists()


def test_destroying_one_of_two_clusters_leaves_the_other_untouched(
    new_stack: NewStack, site: Site
) -> None:
    left = {**QUICK, "cidr": "10.74.0.0/24"}
    made = new_stack({"left": left, "gone": {**QUICK, "cidr": "10.75.0.0/24"}})
    made.up()
    before = {node.id for node in nodes.of_cluster(site.client, "left").values()}
    assert nodes.of_cluster(site.client, "gone")

    made.configure({"left": left}, "clusters")
    made.up()

    assert {node.id for node in nodes.of_cluster(site.client, "left").values()} == before
    assert nodes.left_of(site.client, "gone") == []
    assert (made.clusters_folder / "left" / "talosconfig").exists()


# A failed or interrupted creation


def test_a_creation_that_takes_too_long_is_undone_and_names_its_log(
    new_stack: NewStack, site: Site
) -> None:
    made = new_stack({"stuck": {**ENDLESS, "cidr": "10.76.0.0/24"}})

    message = _failed_up(made)

    log = made.clusters_folder / "stuck.log"
    assert str(log) in message
    assert "create docker" in log.read_text()
    assert nodes.left_of(site.client, "stuck") == []
    assert not (made.clusters_folder / "stuck").exists()

    made.configure({"stuck": {**QUICK, "cidr": "10.76.0.0/24"}}, "clusters")
    made.up()

    assert nodes.of_cluster(site.client, "stuck")


@pytest.mark.modern_engine
def test_a_creation_is_repeated_if_the_engine_cannot_publish_the_ports_of_talosctl(
    new_stack: NewStack, site: Site, tmp_path: Path
) -> None:
    """Talosctl takes the only free port twice, for two services of a node."""
    talosctl = tmp_path / "talosctl"
    has_run = tmp_path / "has-run"
    enter = shlex.join(site.engine.enter)
    talosctl.write_text(f"""#!/bin/sh
if [ "$1" = cluster ]; then
    free="40000 40000"
    if [ -e {has_run} ]; then free="32768 60999"; fi
    touch {has_run}
    {enter} sh -c "echo $free > /proc/sys/net/ipv4/ip_local_port_range"
fi
exec {enter} {OLD} "$@"
""")
    talosctl.chmod(0o755)
    made = new_stack({"ports": {**QUICK, "talosctl": str(talosctl), "cidr": "10.86.0.0/24"}})

    assert "port 40000 is no longer free; creating the cluster again" in _up(made)

    assert nodes.statuses(site.client, "ports") == {"running"}


def test_the_next_up_finishes_one_that_was_killed(
    new_stack: NewStack, site: Site, tmp_path: Path
) -> None:
    made = new_stack({"killed": {**ENDLESS, "timeout": "5m", "cidr": "10.77.0.0/24"}})
    up = made.start_up(tmp_path / "up.log")
    try:
        eventually(
            lambda: bool(nodes.of_cluster(site.client, "killed")),
            within_s=STARTED_WITHIN_S,
            what="the first node",
        )
    finally:
        sessions.kill_group(up.pid)
        up.wait()
        sessions.kill_rest(up.pid)
    made.cancel()
    made.configure({"killed": {**QUICK, "cidr": "10.77.0.0/24"}}, "clusters")

    made.up()

    told = made.outputs()["clusters"]["killed"]["nodes"]
    found = nodes.of_cluster(site.client, "killed").values()
    assert {node["name"] for node in told} == {node.name for node in found}
    assert {node.status for node in found} == {"running"}


# Offline


def test_a_cluster_is_created_offline_once_its_image_is_cached(
    new_stack: NewStack, site: Site
) -> None:
    made = new_stack({"offline": {**QUICK, "cidr": "10.78.0.0/24"}})
    made.up()
    endpoint = made.outputs()["caches"]["docker.io"]["endpoint"]
    docker_cli.pull(endpoint, site.workload, engine_host=site.engine.host)
    made.configure({}, "clusters")
    made.up()
    for tag in site.client.images.get(f"ghcr.io/{nodes.REPOSITORY}:v1.11.5").tags:
        site.client.images.remove(tag, force=True)
    made.configure({"offline": {**QUICK, "cidr": "10.78.0.0/24"}}, "clusters")
    with site.upstream_away():
        made.up()
        assert len(nodes.of_cluster(site.client, "offline")) == 2


# Settings that this machine cannot satisfy


@pytest.mark.parametrize(
    ("cluster", "message"),
    [
        ({"talosctl": "talosctl-not-there"}, "clusters.wrong.talosctl: there is no program"),
        ({"talosctl": NEW, "controlplanes": 3}, "clusters.wrong: talosctl v1.13.0"),
        ({"talosctl": OLD, "provisioner": "firecracker"}, "0.4 to 0.12"),
        ({"talosctl": OLD, "cidr": "172.17.0.0/16"}, "overlaps 172.17.0.0/16 of the engine"),
    ],
)
def test_settings_that_this_machine_cannot_satisfy_are_refused_first(
    new_stack: NewStack, cluster: dict[str, Any], message: str
) -> None:
    made = new_stack({"wrong": cluster})

    assert message in _failed_up(made)

    assert made.belongings().containers == set()


# An engine that is killed; last, because all tests share it


def test_up_brings_back_the_same_nodes_after_the_engine_was_killed(
    new_stack: NewStack, site: Site
) -> None:
    made = new_stack({"back": {**QUICK, "cidr": "10.82.0.0/24"}})
    made.up()
    before = nodes.kept(site.client, "back")

    site.engine.kill()
    site.engine.start()
    site.start_upstream()
    assert nodes.statuses(site.client, "back") == {"exited"}
    made.up()

    assert nodes.statuses(site.client, "back") == {"running"}
    assert nodes.kept(site.client, "back") == before


def test_the_next_up_repairs_one_during_which_the_engine_was_killed(
    new_stack: NewStack, site: Site, tmp_path: Path
) -> None:
    made = new_stack({"orphan": {**ENDLESS, "timeout": "3m", "cidr": "10.81.0.0/24"}})
    output = tmp_path / "up.log"
    up = made.start_up(output)
    try:
        eventually(
            lambda: bool(nodes.of_cluster(site.client, "orphan")),
            within_s=STARTED_WITHIN_S,
            what="the first node",
        )
        site.engine.kill()
        assert up.wait(PATIENCE * ENGINE_GONE_WITHIN_S) != 0
    finally:
        sessions.kill_rest(up.pid)
        site.engine.start()
        site.start_upstream()
    assert "Traceback" not in output.read_text()
    made.cancel()
    made.configure({"orphan": {**QUICK, "cidr": "10.81.0.0/24"}}, "clusters")

    made.up()

    found = nodes.of_cluster(site.client, "orphan").values()
    assert {node.status for node in found} == {"running"}
