"""Reading the state of a node, from what talosctl 1.13.0 printed for real nodes."""

import json
from pathlib import Path

import pytest

from talos_registry_cache.talos.errors import TalosError
from talos_registry_cache.talos.node_state import NodeState, TalosApi
from tests.unit.talos import programs

KUBELET, ETCD, TOOL = (f"sha256:{digit * 64}" for digit in "abc")
SYSTEM = f"""\
NODE       IMAGE                                     DIGEST      SIZE    LABELS   CREATED
10.5.0.2   ghcr.io/siderolabs/kubelet:v1.36.0        {KUBELET}   33 MB            2026-11-27
10.5.0.2   ghcr.io/siderolabs/kubelet@{KUBELET}      {KUBELET}   33 MB            2026-11-27
10.5.0.2   {KUBELET}                                 {KUBELET}   33 MB            2026-11-27
10.5.0.2   registry.k8s.io/etcd:v3.6.9               {ETCD}      11 MB            2026-11-27
"""
CRI = f"""\
NODE       IMAGE                    DIGEST   SIZE    LABELS                            CREATED
10.5.0.2   quay.io/tool@{TOOL}      {TOOL}   34 MB   io.cri-containerd.image=managed   2026-11-27
"""
STATE = NodeState(
    talos="v1.13.0",
    kubernetes="v1.36.0",
    is_ready=True,
    images={
        "ghcr.io/siderolabs/kubelet:v1.36.0": KUBELET,
        "registry.k8s.io/etcd:v3.6.9": ETCD,
        f"quay.io/tool@{TOOL}": TOOL,
    },
)


def fake_talosctl(folder: Path, *, kubelet: str, ready: str, version: str = "v1.13.0") -> str:
    """A talosctl that knows one node, 10.5.0.2."""
    tag = json.dumps({"version": {"tag": version}})
    (folder / "system").write_text(SYSTEM)
    (folder / "cri").write_text(CRI)
    script = f"""
case "$*" in
  "version --client") printf '\\tTag: v1.13.0\\n' ;;
  *"--nodes 10.5.0.9") echo 'rpc error: code = Unavailable' >&2; exit 1 ;;
  version*) echo '{tag}' ;;
  "get kubeletspec "*) echo '{kubelet}' ;;
  "get nodestatus "*) echo '{ready}' ;;
  *"--namespace system "*) cat {folder}/system ;;
  *) cat {folder}/cri ;;
esac"""
    return programs.shell(folder / "talosctl", script)


def spec(**values: object) -> str:
    """Resources as talosctl prints them."""
    return json.dumps({"node": "10.5.0.2", "spec": values}, indent=4)


RUNNING = spec(image="ghcr.io/siderolabs/kubelet:v1.36.0")


def test_versions_readiness_and_images_of_a_node(tmp_path: Path) -> None:
    other = spec(nodeReady=False, nodename="other")
    program = fake_talosctl(tmp_path, kubelet=RUNNING, ready=other + spec(nodeReady=True))

    assert TalosApi(program, tmp_path / "talosconfig").read("10.5.0.2") == STATE


def test_a_node_that_boots_has_no_kubelet_and_is_not_ready(tmp_path: Path) -> None:
    program = fake_talosctl(tmp_path, kubelet="", ready="")

    state = TalosApi(program, tmp_path / "talosconfig").read("10.5.0.2")

    assert (state.kubernetes, state.is_ready) == (None, False)


@pytest.mark.parametrize(
    ("address", "kubelet", "error"),
    [
        ("10.5.0.9", RUNNING, "talosctl version failed with exit code 1: rpc error"),
        ("10.5.0.2", "kubelet: none", "something unknown about 10.5.0.2"),
        ("10.5.0.2", spec(version=1), "something unknown about 10.5.0.2"),
    ],
)
def test_a_node_that_does_not_answer_as_expected_is_an_error(
    tmp_path: Path, address: str, kubelet: str, error: str
) -> None:
    program = fake_talosctl(tmp_path, kubelet=kubelet, ready=spec(nodeReady=True))

    with pytest.raises(TalosError, match=error):
        TalosApi(program, tmp_path / "talosconfig").read(address)
