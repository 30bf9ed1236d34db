"""nginx itself accepts the configurations of fronts and the wildcard mirror, in a container."""

from collections.abc import Callable, Iterator, Sequence
from datetime import UTC, datetime
from pathlib import Path

import docker
import pytest
from docker import DockerClient

from components import front, local, wildcard
from components.access import SERVER_FILE
from components.certificate_authority import issue_authority, issue_server
from components.private_files import FOLDER, PrivateFile
from components.settings.front import DEFAULT_IMAGE
from components.settings.local import Local
from talos_registry_cache.engine import file_owner, registry_image, temporary_container
from talos_registry_cache.engine.volume import STORAGE_FOLDER
from toolchain import front_image

pytestmark = pytest.mark.timeout(300)

NOW = datetime.now(UTC)
SERVER = issue_server(issue_authority("talos-registry-cache tests", NOW), ["127.0.0.1"], NOW)
WORK_OF_FRONT = {front.SHARED_FOLDER: "mode=1777"}

Check = Callable[..., tuple[int, str]]


@pytest.fixture(scope="module")
def engine() -> Iterator[DockerClient]:
    client = docker.from_env()
    try:
        yield client
    finally:
        client.close()


@pytest.fixture
def check(engine: DockerClient, tmp_path: Path) -> Check:
    """A function that lets nginx check a configuration; returns its exit code and output."""
    credentials, storage = tmp_path / "credentials", tmp_path / "storage"
    for folder in (credentials, storage):
        folder.mkdir()
        folder.chmod(0o755)

    def checked(configuration: str, command: Sequence[str] = front.COMMAND) -> tuple[int, str]:
        (credentials / front.CONFIGURATION_FILE).write_text(configuration)
        container = temporary_container.create(
            engine,
            registry_image.on_engine(engine, DEFAULT_IMAGE),
            "a check of nginx's configuration",
            user=file_owner.user(),
            entrypoint=[*command, "-t"],
            network_mode="none",
            tmpfs=WORK_OF_FRONT,
            volumes={
                str(credentials): {"bind": FOLDER, "mode": "ro"},
                str(storage): {"bind": STORAGE_FOLDER, "mode": "ro"},
            },
        )
        try:
            container.start()
            code = container.wait()["StatusCode"]
            return code, container.logs().decode()
        finally:
            temporary_container.remove(container)

    return checked


@pytest.fixture
def certificate(tmp_path: Path, check: Check) -> None:  # noqa: ARG001
    """The certificate, the key and a CA, beside the configuration."""
    (tmp_path / "credentials" / SERVER_FILE).write_text(SERVER.certificate + SERVER.key)
    (tmp_path / "credentials" / wildcard.AUTHORITY_FILE).write_text(SERVER.certificate)


@pytest.mark.parametrize("tls", [True, False])
@pytest.mark.parametrize("readers", [True, False])
@pytest.mark.parametrize("tag_freshness_s", [0, 60])
@pytest.mark.usefixtures("certificate")
def test_nginx_accepts_each_configuration(
    check: Check, *, tls: bool, readers: bool, tag_freshness_s: int
) -> None:
    code, printed = check(
        front.configuration(tls=tls, readers=readers, tag_freshness_s=tag_freshness_s)
    )

    assert code == 0, printed
    assert "[warn]" not in printed


def test_nginx_accepts_pinned_tags_of_any_name(check: Check) -> None:
    long = "/".join(["a" * 60] * 4)
    tags = ("1.0", "v1", "V1", "_" * 128, "sha256-" + "0" * 64 + ".sig")
    pins = {
        (repository, tag): f"sha256:{'b' * 64}" for repository in ("team/app", long) for tag in tags
    }

    code, printed = check(
        front.configuration(tls=False, readers=True, tag_freshness_s=60, pins=pins)
    )

    assert code == 0, printed
    assert "[warn]" not in printed


@pytest.mark.parametrize(("tls", "verifies"), [(False, False), (True, False), (True, True)])
@pytest.mark.parametrize("readers", [True, False])
@pytest.mark.usefixtures("certificate")
def test_nginx_accepts_each_configuration_of_the_wildcard_mirror(
    check: Check, *, tls: bool, verifies: bool, readers: bool
) -> None:
    longest = f"{'a' * 60}.{'b' * 60}.{'c' * 60}.{'d' * 60}:5000"
    caches = {host: f"caches-{host.replace(':', '_')}" for host in ("docker.io", longest)}

    code, printed = check(
        wildcard.configuration(caches, tls=tls, verifies=verifies, readers=readers),
        wildcard.COMMAND,
    )

    assert code == 0, printed
    assert "[warn]" not in printed


@pytest.mark.parametrize("tls", [True, False])
@pytest.mark.usefixtures("certificate")
def test_nginx_accepts_the_configuration_for_images_of_ones_own(check: Check, *, tls: bool) -> None:
    server_files = {SERVER_FILE: PrivateFile(SERVER.certificate + SERVER.key)} if tls else {}
    files = local.files(Local(port=5010), server_files, readers=True)

    code, printed = check(str(files[front.CONFIGURATION_FILE].content))

    assert code == 0, printed
    assert "[warn]" not in printed


def test_this_check_can_fail(check: Check) -> None:
    configuration = front.configuration(tls=False, readers=False, tag_freshness_s=60)

    code, printed = check(configuration.replace("sendfile on;", "sendfile perhaps;"))

    assert code == 1
    assert 'invalid value "perhaps"' in printed


def test_the_toolchain_prepares_the_default_image() -> None:
    assert front_image.REFERENCE == DEFAULT_IMAGE
