"""nginx itself accepts the configuration of the fronts, in a container like theirs."""

from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from pathlib import Path

import docker
import pytest
from docker import DockerClient

from components import front
from components.access import CERTIFICATE_FILE, KEY_FILE
from components.certificate_authority import issue_authority, issue_server
from components.private_files import FOLDER
from components.settings.front import DEFAULT_IMAGE
from talos_registry_cache.engine import file_owner, registry_image, temporary_container
from talos_registry_cache.engine.volume import STORAGE_FOLDER
from toolchain import front_image

pytestmark = pytest.mark.timeout(300)

NOW = datetime.now(UTC)
SERVER = issue_server(issue_authority("talos-registry-cache tests", NOW), ["127.0.0.1"], NOW)
WORK_OF_FRONT = {front.SHARED_FOLDER: "mode=1777"}

Check = Callable[[str], tuple[int, str]]


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

    def checked(configuration: str) -> tuple[int, str]:
        (credentials / front.CONFIGURATION_FILE).write_text(configuration)
        container = temporary_container.create(
            engine,
            registry_image.on_engine(engine, DEFAULT_IMAGE),
            "a check of nginx's configuration",
            user=file_owner.user(),
            entrypoint=[*front.COMMAND, "-t"],
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
    """The certificate and key, beside the configuration."""
    (tmp_path / "credentials" / CERTIFICATE_FILE).write_text(SERVER.certificate)
    (tmp_path / "credentials" / KEY_FILE).write_text(SERVER.key)


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


@pytest.mark.parametrize(
    ("tls", "directive", "wrong", "said"),
    [
        (False, "sendfile on;", "sendfile perhaps;", 'invalid value "perhaps"'),
        (True, "", "", f'cannot load certificate "{FOLDER}/{CERTIFICATE_FILE}"'),
    ],
)
def test_this_check_can_fail(
    check: Check, directive: str, wrong: str, said: str, *, tls: bool
) -> None:
    configuration = front.configuration(tls=tls, readers=False, tag_freshness_s=60)

    code, printed = check(configuration.replace(directive, wrong))

    assert code == 1
    assert said in printed


def test_the_toolchain_prepares_the_default_image() -> None:
    assert front_image.REFERENCE == DEFAULT_IMAGE
