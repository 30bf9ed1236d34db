"""Engines other than Docker Engine on its socket: they work, or are refused in one line."""

import os
from collections.abc import Iterator, Mapping
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path

import pytest
from docker import DockerClient
from pulumi.automation import CommandError

from tests.integration.support import (
    belongings,
    docker_cli,
    host,
    network,
    private_engine,
    processes,
    unprivileged,
)
from tests.integration.support.cachectl import Cachectl
from tests.integration.support.private_engine import PrivateEngine
from tests.integration.support.stack import CacheStack, stack, upstreams
from tests.integration.support.upstream import FRONT_IMAGE, IMAGE
from toolchain import other_engines
from toolchain.report import SetupError

TLS_PORT = 2376
SETTINGS = {"upstreams": {"docker.io": {"port": 5000}}}


def assert_refused(made: CacheStack, folder: Path, problem: str) -> None:
    """Assert that Pulumi and cachectl refuse the engine of DOCKER_HOST in one line."""
    for command in (made.preview, made.up):
        with pytest.raises(CommandError) as failure:
            command()
        assert f"error: {problem}" in str(failure.value)
        assert "Traceback" not in str(failure.value)
    shown = Cachectl(made.name, folder)("status")
    assert (shown.code, shown.err.count("\n")) == (1, 1)
    assert shown.err.startswith(f"cachectl: {problem}")


def environment_of(*tools: other_engines.Tools) -> Mapping[str, str]:
    """The environment in which programs run; skips where there are no packages of them."""
    try:
        return other_engines.environment(*tools)
    except SetupError as error:
        pytest.skip(str(error))


# Podman


@pytest.fixture(params=["rootful", "rootless"])
def podman(request: pytest.FixtureRequest) -> Iterator[str]:
    """The address of a Podman service."""
    if reason := unprivileged.why_impossible():
        pytest.skip(reason)
    environment = environment_of(other_engines.PODMAN, other_engines.ROOTLESS)
    with unprivileged.folder() as folder:
        prefix = unprivileged.command(folder) if request.param == "rootless" else ()
        socket = folder / "podman.sock"
        service: list[str | Path] = [
            *prefix, "podman", "--root", folder / "storage", "--runroot", folder / "run",
            "--tmpdir", folder / "tmp", "--storage-driver", "vfs", "--cgroup-manager", "cgroupfs",
            "system", "service", "--time", "0", f"unix://{socket}",
        ]  # fmt: skip
        log = folder.parent / "podman.log"
        with unprivileged.serving(socket, service, environment, log) as address:
            yield address


def test_podman_is_refused_before_anything_is_created(
    podman: str, engine: DockerClient, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("DOCKER_HOST", podman)
    with stack(tmp_path, engine, SETTINGS) as made:
        assert_refused(made, tmp_path, "found Podman ")

        with closing(DockerClient(podman)) as client:
            assert client.api.volumes()["Volumes"] == []
            assert belongings.of_stack(client, made.name) == belongings.NOTHING


# Rootless Docker


@pytest.fixture(scope="module")
def rootless() -> Iterator[str]:
    """The address of a rootless engine with the images of caches."""
    if reason := (
        private_engine.why_impossible() or network.why_impossible() or unprivileged.why_impossible()
    ):
        pytest.skip(reason)
    environment = environment_of(other_engines.ROOTLESS)
    with unprivileged.folder() as folder:
        socket, config = folder / "docker.sock", folder.parent / "daemon.json"
        config.write_text("{}")
        service: list[str | Path] = [
            *unprivileged.command(folder),
            "rootlesskit", "--state-dir", folder / "rootlesskit", "--net=slirp4netns",
            "--disable-host-loopback", "--port-driver=builtin", "--copy-up=/etc", "--copy-up=/run",
            "sh", "-c", 'rm -rf /run/docker /run/containerd && exec "$@"', "sh",
            "dockerd", "--rootless", "--host", f"unix://{socket}", "--config-file", config,
            "--data-root", folder / "data", "--exec-root", folder / "exec",
            "--pidfile", folder / "docker.pid",
        ]  # fmt: skip
        log = folder.parent / "dockerd.log"
        with unprivileged.serving(socket, service, environment, log) as address:
            archive = folder.parent / "images.tar"
            private_engine.save(archive, IMAGE, FRONT_IMAGE)
            processes.run("docker", "--host", address, "load", "--input", archive)
            yield address


@pytest.mark.modern_engine
def test_a_rootless_engine_needs_two_settings_and_then_its_containers_reach_the_caches(
    rootless: str, tmp_path: Path
) -> None:
    # Nothing is pulled.
    settings = {"upstreams": upstreams("http://192.0.2.1", "docker.io", "quay.io")}
    with (
        network.switch(f"it-{os.getpid()}r") as own_network,
        closing(DockerClient(rootless, timeout=300)) as client,
        stack(tmp_path, client, settings, engine_host=rootless) as made,
    ):
        with pytest.raises(
            CommandError, match=r"mirrorHost: found auto .*mirrorHost and publishOn"
        ):
            made.preview()

        address = own_network.address
        made.configure({**settings, "mirrorHost": address, "publishOn": [address]})
        made.up()

        assert made.up().keys() == {"same"}
        assert made.refresh().keys() == {"same"}
        for url in made.outputs()["mirrors"].values():
            client.containers.run(
                FRONT_IMAGE, ["wget", "-qO-", f"{url}/v2/"], entrypoint="", remove=True
            )


# Engines at tcp://


@dataclass(frozen=True, slots=True)
class Server:
    """An engine with TLS that listens at an address of another machine; a namespace acts as it.

    Attributes:
        engine: the engine.
        address: the address of its machine.
        variables: environment variables for clients, with certificates.
    """

    engine: PrivateEngine
    address: str
    variables: Mapping[str, str]


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """An engine on another machine."""
    if reason := private_engine.why_impossible() or network.why_impossible():
        pytest.skip(reason)
    certificates = tmp_path_factory.mktemp("certificates")
    name = f"it-{os.getpid()}"
    with network.switch(f"{name}s") as switch, network.namespace(name) as namespace:
        address = switch.join(namespace).address
        certificate, key = _certificate(certificates, address)
        options: list[str | Path] = [
            "--host", f"tcp://0.0.0.0:{TLS_PORT}", "--tlsverify", "--tlscacert", certificate,
            "--tlscert", certificate, "--tlskey", key,
        ]  # fmt: skip
        folder = tmp_path_factory.mktemp("server")
        with private_engine.running_in(namespace, folder, options) as engine:
            variables = {"DOCKER_TLS_VERIFY": "1", "DOCKER_CERT_PATH": str(certificates)}
            yield Server(engine, address, variables)


def _certificate(folder: Path, address: str) -> tuple[Path, Path]:
    """Create the certificate of a CA, which is that of server and client as well."""
    authority, key = folder / "ca.pem", folder / "key.pem"
    processes.run(
        "openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-subj", "/CN=engine",
        "-addext", f"subjectAltName=IP:127.0.0.1,IP:{address}", "-days", "2",
        "-out", authority, "-keyout", key,
    )  # fmt: skip
    certificate = folder / "cert.pem"
    certificate.write_bytes(authority.read_bytes())
    return certificate, key


def test_an_engine_of_this_machine_works_at_tcp_with_tls(
    server: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, value in server.variables.items():
        monkeypatch.setenv(name, value)
    # docker-py prefers these to the CA in DOCKER_CERT_PATH.
    monkeypatch.delenv("REQUESTS_CA_BUNDLE", raising=False)
    monkeypatch.delenv("CURL_CA_BUNDLE", raising=False)
    port = host.free_port()
    local = f"tcp://127.0.0.1:{TLS_PORT}"
    with server.engine.client() as client:
        gateway = host.bridge_gateway(client)
        settings = {"upstreams": upstreams(f"http://{gateway}:{port}", "docker.io")}
        with (
            server.engine.upstream(port) as image,
            stack(tmp_path, client, settings, engine_host=local, enter=server.engine.enter) as made,
        ):
            made.up()

            assert made.up().keys() == {"same"}
            pulled = docker_cli.pull(
                made.endpoint("docker.io"), image, engine_host=server.engine.host
            )
            assert pulled == image.digest
            cachectl = Cachectl(made.name, tmp_path, server.engine.enter, engine_host=local)
            assert cachectl("verify").code == 0


@pytest.mark.parametrize("scheme", ["tcp", "ssh"])
def test_an_engine_of_another_machine_is_refused_before_it_is_asked(
    server: Server,
    engine: DockerClient,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    scheme: str,
) -> None:
    there = f"{scheme}://{server.address}" + f":{TLS_PORT}" * (scheme == "tcp")
    for name, value in {**server.variables, "DOCKER_HOST": there}.items():
        monkeypatch.setenv(name, value)
    with stack(tmp_path, engine, SETTINGS) as made:
        assert_refused(made, tmp_path, f"found the container engine {there}, which is on another")
