"""Real nodes whose cache stops while they boot, or cannot be reached."""

import os
import re
import shutil
import signal
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import pytest
from docker.models.containers import Container
from pulumi.automation import CommandError

from talos_registry_cache.talos import node_runtime
from tests.integration.support import belongings, kubernetes, nodes, processes
from tests.integration.support.kubernetes import CLUSTER, Registries, Site
from tests.integration.support.polling import eventually
from tests.integration.support.stack import CacheStack
from toolchain import debian, kubernetes_images

API_SERVER, ETCD, KUBELET = (
    next(one.name for one in kubernetes_images.images() if one.program is program)
    for program in (kubernetes_images.APISERVER, kubernetes_images.ETCD, kubernetes_images.KUBELET)
)
# Reserved for documentation (RFC 5737).
NOBODY = "192.0.2.1"
CONFIGURATION = "/etc/cri/conf.d/cri.toml"
NODES_WITHIN_S = 60
WAITS_S = 20

pytestmark = pytest.mark.timeout(3 * kubernetes.UP_WITHIN_S)


@pytest.fixture
def registries(site: Site, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Registries]:
    with kubernetes.registries(site, tmp_path_factory.mktemp("registries")) as made:
        yield made


@pytest.fixture
def caches(site: Site, tmp_path: Path) -> Iterator[CacheStack]:
    with kubernetes.warm_stack(site, tmp_path) as made:
        yield made


def test_nodes_pull_from_the_registry_itself_after_its_cache_has_stopped(
    site: Site, caches: CacheStack, registries: Registries
) -> None:
    _declare(caches, "fallback", registries, skipFallback=False)

    with _booting(site, caches, "fallback") as up:
        _cache(site, caches).stop(timeout=1)
        code = up.wait(kubernetes.UP_WITHIN_S)

    assert code == 0, _printed(caches)
    assert registries.asked_for(API_SERVER)
    assert caches.up()["replace"] == 1, "the cache runs again"


def test_nodes_wait_for_a_stopped_cache_if_they_must_not_use_the_registry_itself(
    site: Site, caches: CacheStack, registries: Registries
) -> None:
    _declare(caches, "closed", registries, skipFallback=True)

    with _booting(site, caches, "closed") as up:
        cache = _cache(site, caches)
        cache.stop(timeout=1)
        with pytest.raises(subprocess.TimeoutExpired):
            up.wait(WAITS_S)
        cache.start()
        code = up.wait(kubernetes.UP_WITHIN_S)

    assert code == 0, _printed(caches)
    assert not registries.asked_for(API_SERVER)


def test_images_that_nodes_cannot_pull_from_an_unreachable_mirror_are_named(
    site: Site, caches: CacheStack
) -> None:
    unreachable = {"mirrorHost": NOBODY, "skipFallback": True, "timeout": "100s", "workers": 0}
    caches.configure({"far": {**CLUSTER, **unreachable}}, "clusters")

    with pytest.raises(CommandError) as failure:
        caches.up()

    shown, _, error = str(failure.value).partition("Diagnostics:")
    for image in (ETCD, KUBELET):
        told = f'far-controlplane-1 cannot pull {image}: Head "http://{NOBODY}:'
        assert told in shown, "while talosctl waits"
        assert told in error
    assert nodes.left_of(site.client, "far") == []


def test_a_node_whose_container_runtime_missed_its_credentials_is_restarted(
    site: Site, tmp_path: Path
) -> None:
    with kubernetes.stack(site, tmp_path, tls={"kind": "own"}) as caches:
        caches.set_secret("readers.nodes", "a-password")
        caches.configure({"early": {**CLUSTER, "workers": 0}}, "clusters")

        with _booting(site, caches, "early") as up:
            (node,) = nodes.of_cluster(site.client, "early").values()
            _restart_runtime_without_credentials(node)
            code = up.wait(kubernetes.UP_WITHIN_S)

        printed = _printed(caches)
        assert code == 0, printed
        assert "restarting early-controlplane-1" in printed


def _restart_runtime_without_credentials(node: Container) -> None:
    """Leave the runtime of a node as Talos does if it starts the runtime too early."""
    node.reload()
    pid = node.attrs["State"]["Pid"]
    root = Path(f"/proc/{pid}/root")
    configuration = root / CONFIGURATION.lstrip("/")
    log = root / node_runtime.LOG.lstrip("/")

    def started() -> list[str]:
        lines = log.read_text().splitlines() if log.exists() else []
        return [line for line in lines if '"starting containerd"' in line]

    eventually(
        lambda: configuration.exists() and "username" in configuration.read_text() and started(),
        within_s=NODES_WITHIN_S,
        what="the runtime runs",
    )
    # A node has no shell, and its configuration is read-only.
    anonymous = re.sub(r"(?m)^\s*(username|password) =.*$", "", configuration.read_text())
    (root / "var" / "anonymous").write_text(anonymous)
    shutil.copy(debian.busybox(), root / "var" / "busybox")
    enter = ("nsenter", f"--target={pid}", "--mount", "/var/busybox")
    processes.run(*enter, "mount", "--bind", "/var/anonymous", CONFIGURATION)
    before = started()
    (runtime,) = _runtimes(pid)
    os.kill(runtime, signal.SIGKILL)
    eventually(
        lambda: started() not in ([], before),
        within_s=NODES_WITHIN_S,
        what="the runtime is started again",
    )
    processes.run(*enter, "umount", CONFIGURATION)


def _runtimes(node: int) -> Iterator[int]:
    """The container runtimes of a node. `docker top` does not show them."""
    mounts = Path(f"/proc/{node}/ns/mnt").readlink()
    for folder in Path("/proc").glob("[0-9]*"):
        with suppress(OSError):
            is_runtime = b"/etc/cri/containerd.toml" in (folder / "cmdline").read_bytes()
            if is_runtime and (folder / "ns" / "mnt").readlink() == mounts:
                yield int(folder.name)


def _declare(caches: CacheStack, name: str, registries: Registries, **settings: object) -> None:
    patches = [*CLUSTER["configPatches"], registries.patch]
    caches.configure({name: {**CLUSTER, "configPatches": patches, **settings}}, "clusters")


@contextmanager
def _booting(site: Site, caches: CacheStack, cluster: str) -> Iterator["subprocess.Popen[bytes]"]:
    """Run `pulumi up` until a node of the cluster runs, and go on."""
    up = caches.start_up(caches.folder / "up.log")
    try:
        eventually(
            lambda: nodes.of_cluster(site.client, cluster) or up.poll() is not None,
            within_s=NODES_WITHIN_S,
            what="a node runs",
        )
        yield up
    finally:
        up.terminate()
        up.wait()


def _cache(site: Site, caches: CacheStack) -> Container:
    return belongings.caches(site.client, caches.name)["registry.k8s.io"]


def _printed(caches: CacheStack) -> str:
    return (caches.folder / "up.log").read_text()
