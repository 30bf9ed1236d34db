"""cachectl nodes, with a fake engine and a fake talosctl."""

import json
import os
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner, Result

from talos_registry_cache.cli import stack
from talos_registry_cache.cli.__main__ import app
from talos_registry_cache.cli.commands import logs
from talos_registry_cache.cli.errors import ExitCode, UsageError
from talos_registry_cache.cli.node_requests import Request, is_from_caches, served
from tests.unit.talos import fake_docker
from tests.unit.talos.fake_docker import FakeDocker
from tests.unit.talos.test_node_state import ETCD, KUBELET, RUNNING, fake_talosctl, spec

GATEWAY = "172.18.0.1"
# Lines of the caches of a real cluster.
LOG = f"""\
time="2026-11-27T14:03:03Z" level=info msg="response completed" http.request.uri="/v2/etcd/manifests/v3.6.9?ns=registry.k8s.io"
{GATEWAY} - - [27/Nov/2026:14:03:03 +0000] "HEAD /v2/etcd/manifests/v3.6.9?ns=registry.k8s.io HTTP/1.1" 200 0 "" "containerd/2.2.2+unknown"
{GATEWAY} - nodes [27/Nov/2026:14:03:04 +0000] "GET /v2/siderolabs/kubelet/manifests/{KUBELET}?ns=ghcr.io HTTP/1.1" 200 517 "" "containerd/2.2.2+unknown"
{GATEWAY} - - [27/Nov/2026:14:03:05 +0000] "GET /v2/siderolabs/kubelet/blobs/{KUBELET}?ns=ghcr.io HTTP/1.1" 200 517 "" "containerd/2.2.2+unknown"
{GATEWAY} - - [27/Nov/2026:14:03:06 +0000] "GET /v2/missing/manifests/1?ns=ghcr.io HTTP/1.1" 404 157 "" "containerd/v2.2.3"
127.0.0.1 - - [27/Nov/2026:14:03:07 +0000] "GET /v2/warmed/manifests/1 HTTP/1.1" 200 517 "" "python-httpx2/2.16.2"
"""  # noqa: E501 - lines of a log
OF_ETCD = Request(
    datetime(2026, 11, 27, 14, 3, 3, tzinfo=UTC), GATEWAY, "registry.k8s.io", "etcd", "v3.6.9"
)
OF_KUBELET = Request(
    datetime(2026, 11, 27, 14, 3, 4, tzinfo=UTC), GATEWAY, "ghcr.io", "siderolabs/kubelet", KUBELET
)


def test_requests_of_nodes_that_a_cache_has_served() -> None:
    assert list(served(LOG.splitlines())) == [OF_ETCD, OF_KUBELET]


def test_requests_of_nodes_that_a_front_has_served() -> None:
    line = (
        f"{GATEWAY} - - [27/Nov/2026:14:03:03 +0000] "
        '"HEAD /v2/etcd/manifests/v3.6.9{} HTTP/1.1" {} 0 "-" "containerd/2.2.2" 0.001 hit'
    )
    log = [line.format("?ns=registry.k8s.io", status) for status in (200, 404)]

    assert list(served([*log, line.format("", 200)])) == [OF_ETCD]


@pytest.mark.parametrize(
    ("image", "digest", "client", "expected"),
    [
        ("registry.k8s.io/etcd:v3.6.9", ETCD, GATEWAY, True),
        ("registry.k8s.io/etcd:v3.6.9", ETCD, "10.5.0.2", True),
        ("registry.k8s.io/etcd:v3.6.9", ETCD, "10.5.0.3", False),
        ("registry.k8s.io/etcd:v3.6.8", ETCD, GATEWAY, False),
        ("ghcr.io/etcd:v3.6.9", ETCD, GATEWAY, False),
        ("Not/An/Image", ETCD, GATEWAY, False),
    ],
)
def test_an_image_is_from_the_caches_if_no_other_node_asked_for_it(
    image: str,
    digest: str,
    client: str,
    expected: bool,  # noqa: FBT001 - a parameter
) -> None:
    asked = [OF_ETCD._replace(client=client)]

    assert is_from_caches(image, digest, asked, {"10.5.0.3"}) is expected


@pytest.mark.parametrize(
    "image", ["ghcr.io/siderolabs/kubelet:v1", f"ghcr.io/siderolabs/kubelet@{KUBELET}"]
)
def test_a_request_by_digest_counts_for_the_tag_as_well(image: str) -> None:
    assert is_from_caches(image, KUBELET, [OF_KUBELET], ())


# The command


@pytest.fixture
def engine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[FakeDocker]:
    """An engine with the cluster `demo`, whose caches have served two of its three images."""
    fake_talosctl(tmp_path, kubelet=RUNNING, ready=spec(nodeReady=True))
    monkeypatch.setenv("PATH", f"{tmp_path}:{os.environ['PATH']}")
    monkeypatch.chdir(tmp_path)
    files = tmp_path / ".state" / "clusters" / "dev" / "demo"
    files.mkdir(parents=True)
    (files / "talosconfig").touch()
    with fake_docker.serving(tmp_path) as (made, client):
        made.add_node("demo", "demo-controlplane-1", type_="controlplane", address="10.5.0.2")

        @contextmanager
        def opened(_: str | None) -> Iterator[stack.Stack]:
            caches: Any = {"all": None}
            yield stack.Stack("dev", caches, client)

        monkeypatch.setattr(stack, "opened", opened)
        monkeypatch.setattr(logs, "streams", lambda *_: [iter([LOG.encode()])])
        yield made


def run(*arguments: str) -> Result:
    return CliRunner().invoke(app, ["nodes", *arguments])


@pytest.mark.usefixtures("engine")
def test_a_ready_node_is_shown_with_its_versions_and_images() -> None:
    ended = run("demo", "--verbose")

    row, *images = [line.split() for line in ended.stdout.splitlines() if "demo-" in line]
    assert row == [
        "demo-controlplane-1", "controlplane", "10.5.0.2", "running", "v1.13.0", "v1.36.0", "yes",
        "2", "of", "3", "images",
    ]  # fmt: skip
    assert [image[2:] for image in images] == [["cache"], ["not", "in", "the", "logs"], ["cache"]]
    assert ended.exit_code == ExitCode.OK


def test_requests_from_before_the_creation_of_a_node_do_not_count(engine: FakeDocker) -> None:
    engine.remove_all()
    created = "2026-11-27T14:03:04.987654321Z"
    engine.add_node("demo", "demo-worker-1", address="10.5.0.2", created=created)

    (node,) = json.loads(run("--json").stdout)["demo"].values()

    assert [image for image, is_cached in node["fromCaches"].items() if is_cached] == [
        "ghcr.io/siderolabs/kubelet:v1.36.0"
    ]


def test_stopped_and_silent_nodes_are_named_and_the_others_are_shown(engine: FakeDocker) -> None:
    engine.add_node("demo", "demo-worker-1", address="", status="exited")
    engine.add_node("demo", "demo-worker-2", address="10.5.0.9")

    ended = run("--json")

    described = json.loads(ended.stdout)["demo"]
    assert described["demo-controlplane-1"]["ready"] is True
    assert described["demo-controlplane-1"]["trouble"] is None
    assert described["demo-worker-1"]["trouble"] == "it is exited"
    assert "Unavailable" in described["demo-worker-2"]["trouble"]
    assert described["demo-worker-2"]["fromCaches"] is None
    assert ended.exit_code == ExitCode.NOT_ALL_THERE
    assert "demo-worker-1: it is exited" in run().stderr


@pytest.mark.usefixtures("engine")
def test_the_talosctl_that_created_the_cluster_is_used(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("PATH", "/usr/bin:/bin")
    moved = Path("talosctl").rename(tmp_path / "talosctl 1.13")
    command = f"KUBECONFIG=k '{moved}' cluster create docker --name demo\n"
    Path(".state/clusters/dev/demo/command").write_text(command)

    assert run("demo").exit_code == ExitCode.OK


@pytest.mark.usefixtures("engine")
def test_nodes_are_shown_without_talosctl(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", "/nowhere")
    Path("talosctl").unlink()

    ended = run()

    assert "10.5.0.2" in ended.stdout
    assert "there is no program talosctl" in ended.stderr
    assert ended.exit_code == ExitCode.NOT_ALL_THERE


def test_a_cluster_that_the_engine_does_not_have_is_named(engine: FakeDocker) -> None:
    engine.remove_all()

    ended = run()

    assert "demo: the engine has no nodes of it" in ended.stderr
    assert ended.exit_code == ExitCode.NOT_ALL_THERE


@pytest.mark.usefixtures("engine")
@pytest.mark.parametrize("arguments", [("other",), ("--folder", "elsewhere")])
def test_a_cluster_without_files_is_wrong_usage(arguments: tuple[str, ...]) -> None:
    assert isinstance(run(*arguments).exception, UsageError)
