"""Placement: caches run as containers of an engine, or as services of a Docker Swarm."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import pulumi
import pulumi_docker as docker

from .names import in_names
from .private_files import PrivateFile
from .settings import Caches
from .settings.local import Local
from .settings.storage import VolumeStorage
from .settings.upstream import Upstream
from .settings.values import mebibytes
from .storage import Stored

CONTAINER_PORT = 5000
METRICS_PORT = 5001
# `up` waits for the first answer, so the first probes come fast, also after a failure. Once the
# cache is up, a probe takes its time, since each one starts a process. Engines before 25 have one
# interval for both.
PROBE = (
    "wget -q -O /dev/null {url} || {{ busybox rm -f /dev/shm/up; exit 1; }}; "
    "[ ! -e /dev/shm/up ] || sleep 25; : > /dev/shm/up"
)
PROBE_INTERVAL = "500ms"
PROBE_TIMEOUT = "30s"
PROBE_RETRIES = 3


@dataclass(frozen=True, slots=True)
class MountedFiles:
    """Private files as a container or service mounts them.

    Attributes:
        volume: the volume that holds them, on an engine.
        read_once: digest of the files that a registry reads only when it starts, on an engine.
        secrets: the Swarm secrets that hold them.
    """

    volume: pulumi.Input[str] = ""
    read_once: pulumi.Output[str] | None = None
    secrets: Sequence[docker.ServiceTaskSpecContainerSpecSecretArgs] = ()


@dataclass(frozen=True, slots=True)
class FrontProcess:
    """The nginx of a front, or of the wildcard mirror, with the configuration in its files.

    Attributes:
        image: ID of the image.
        image_reference: reference of the image.
        files: the files that it reads when it starts.
    """

    image: pulumi.Input[str]
    image_reference: str
    files: MountedFiles


@dataclass(frozen=True, slots=True)
class Bounds:
    """The bounds of a process's log and memory.

    Attributes:
        caches: settings that all caches of the stack share.
    """

    caches: Caches

    @property
    def log_options(self) -> dict[str, str]:
        """Options of the json-file log driver."""
        logs = self.caches.logs
        return {"max-size": logs.max_size, "max-file": str(logs.max_files)}

    @property
    def memory_mib(self) -> int:
        """Memory limit in MiB."""
        return mebibytes(self.caches.memory_limit)


@dataclass(frozen=True, slots=True)
class Process(Bounds):
    """The registry process of one cache, wherever it runs.

    Attributes:
        host: the registry host that it caches.
        image: ID of the image.
        image_reference: reference of the image.
        environment: environment variables.
        probe: shell command of the health check.
        stored: where cached images are kept.
        files: private files.
        upstream: settings of the upstream, or of the local registry.
        labels: labels of the container or service that clients reach.
        registry_labels: labels of the registry.
        front: the front before it, if there is one.
    """

    host: str
    image: pulumi.Input[str]
    image_reference: str
    environment: Mapping[str, str]
    probe: str
    stored: Stored
    files: MountedFiles
    upstream: Upstream | Local
    labels: Mapping[str, pulumi.Input[Any]]
    registry_labels: Mapping[str, str]
    front: FrontProcess | None = None


class Placement(Protocol):
    """Where caches run."""

    def files(
        self,
        name: str,
        labels: Mapping[str, str],
        files: Mapping[str, PrivateFile],
        parent: pulumi.Resource,
    ) -> MountedFiles:
        """Declare private files.

        Args:
            name: name of the resources.
            labels: labels of the resources.
            files: the files, by name.
            parent: parent of the resources.
        """
        ...

    def volume(self, host: str, settings: VolumeStorage, parent: pulumi.Resource) -> Stored:
        """Declare the volume that a cache stores images in.

        Args:
            host: the registry host of the cache.
            settings: settings of the volume.
            parent: parent of the resource.
        """
        ...

    def run(self, process: Process, parent: pulumi.Resource) -> pulumi.Output[str]:
        """Declare a container or service.

        Args:
            process: the process.
            parent: parent of the resource.

        Returns:
            The name of the container or service, once it answers.
        """
        ...


def volume_name(settings: VolumeStorage, prefix: str, host: str) -> str:
    """The name of a cache's volume.

    Args:
        settings: settings of the volume.
        prefix: prefix of the names of the stack's caches.
        host: the registry host of the cache.
    """
    return f"{settings.volume_prefix or prefix}-{in_names(host)}"
