"""A Talos cluster of virtual machines that pulls from caches at the gateway of its network.

That is the address of the Talos guide, which has a cluster of firecracker, the predecessor of qemu.
"""

import os
import re
import stat
from pathlib import Path

import pytest
from pulumi.automation import CommandError

from tests.integration.support import belongings, kubernetes, processes
from tests.integration.support.kubernetes import Site
from tests.integration.support.stack import ROOT, CacheStack
from toolchain import kubernetes_images, talos_vm

NAME = "machines"
CIDR, GATEWAY = "10.6.0.0/24", "10.6.0.1"

pytestmark = [
    pytest.mark.timeout(2 * kubernetes.UP_WITHIN_S),
    pytest.mark.skipif(talos_vm.why_impossible() != "", reason=talos_vm.why_impossible()),
]

CLUSTER = {
    **kubernetes.CLUSTER,
    "workers": 0,
    "memory": "2g",
    "timeout": "4m",
    "configPatches": [
        *kubernetes.CLUSTER["configPatches"],
        # No time server can be reached.
        {"machine": {"time": {"disabled": True}}},
    ],
    "extraArguments": ["--presets", "disk-image"],
}
# The images that a node pulls before the API server knows it.
PULLED_FIRST = [
    image
    for image in kubernetes_images.images()
    if image.program not in (kubernetes_images.PROXY, kubernetes_images.COREDNS)
]
# Makes QEMU and its firmware appear installed, to the commands that follow.
AS_IF_INSTALLED = """
set -e
mount --make-rprivate /
mount -t overlay overlay -o "lowerdir=$0:/usr" /usr
if [ -e "$1" ]; then mount --bind "$1" /dev/kvm; fi
shift
exec "$@"
"""


@pytest.fixture
def enter(site: Site, tmp_path: Path) -> tuple[str, ...]:
    """The command prefix with QEMU, and with the gateway's address before the cluster exists."""
    processes.run(*site.engine.enter, "ip", "address", "add", f"{GATEWAY}/32", "dev", "lo")
    no_kvm = tmp_path / "no-kvm"
    if not re.search(r"\b(vmx|svm)\b", Path("/proc/cpuinfo").read_text()):
        # This KVM cannot run the kernel. It cannot be opened as a socket, so QEMU emulates.
        os.mknod(no_kvm, stat.S_IFSOCK)
    home = f"HOME={talos_vm.HOME}"
    in_mounts = ("unshare", "--mount", "sh", "-c", AS_IF_INSTALLED, str(talos_vm.USR), str(no_kvm))
    return ("env", home, *in_mounts)


def failure_of_up(caches: CacheStack) -> str:
    """Run `pulumi up`, and return how it failed; empty if it did not."""
    try:
        caches.up()
    except CommandError as error:
        return str(error)
    return ""


def test_virtual_machines_pull_from_caches_at_the_gateway_of_their_network(
    site: Site, enter: tuple[str, ...], tmp_path: Path
) -> None:
    with kubernetes.stack(site, tmp_path, enter, mirrorHost=GATEWAY) as caches:
        caches.configure({NAME: {**CLUSTER, "provisioner": "qemu", "cidr": CIDR}}, "clusters")

        if failure := failure_of_up(caches):
            # An emulated processor is too slow for the API server.
            assert "waiting for all k8s nodes" in failure
            assert [path.name for path in caches.clusters_folder.iterdir()] == [f"{NAME}.log"]
        logs = belongings.caches(site.client, caches.name)
        for image in PULLED_FIRST:
            registry, _, rest = image.name.partition("/")
            asked = f"/v2/{rest.replace(':', '/manifests/')}?ns={registry}"
            assert asked in logs[registry].logs().decode(), asked
        for folder in (ROOT, caches.folder):
            assert not (folder / "controlplane.yaml").exists()
