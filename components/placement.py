"""Placement: caches run as containers of an engine, or as services of a Docker Swarm."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import pulumi
import pulumi_docker as docker

from talos_registry_cache.engine import file_owner
from talos_registry_cache.engine import labels as label
from talos_registry_cache.engine.volume import STORAGE_FOLDER

from . import hooks, swarm
from .belongings import Belongings
from .hooks import NetworkHooks
from .names import in_names, service_name
from .private_files import FOLDER, FilesInSwarm, FilesInVolume, PrivateFile
from .settings import Caches
from .settings.caches import Upstream
from .settings.placement import SwarmPlacement
from .settings.storage import VolumeStorage
from .settings.values import mebibytes
from .storage import WRITABLE, Stored

CONTAINER_PORT = 5000
METRICS_PORT = 5001
HEALTHY_WITHIN_S = 60
PROBE_INTERVAL = "500ms"
PROBE_TIMEOUT = "30s"
PROBE_RETRIES = 3
MIB = 1 << 20
# Time for running pulls to end when a node's cache is replaced.
DRAINS_WITHIN = "55s"
STOPS_WITHIN = "1m"
# How long a new task must not fail before the next node is updated.
MONITORED_FOR = "2s"


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
class Process:
    """The registry process of one cache, wherever it runs.

    Attributes:
        host: the registry host that it caches.
        image: ID of the image.
        image_reference: reference of the image.
        environment: environment variables.
        probe: shell command of the health check.
        stored: where cached images are kept.
        files: private files.
        upstream: settings of the upstream.
        caches: settings that all caches of the stack share.
        labels: labels.
    """

    host: str
    image: pulumi.Input[str]
    image_reference: str
    environment: Mapping[str, str]
    probe: str
    stored: Stored
    files: MountedFiles
    upstream: Upstream
    caches: Caches
    labels: Mapping[str, pulumi.Input[Any]]

    @property
    def log_options(self) -> dict[str, str]:
        """Options of the json-file log driver."""
        logs = self.caches.logs
        return {"max-size": logs.max_size, "max-file": str(logs.max_files)}

    @property
    def memory_mib(self) -> int:
        """Memory limit in MiB."""
        return mebibytes(self.caches.memory_limit)


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


@dataclass(frozen=True, slots=True)
class OnEngine:
    """Containers of the engine that Pulumi talks to.

    Attributes:
        prefix: name of the caches' network, and prefix of all other names.
        publish_on: addresses of this machine on which ports are published.
        writer_image: ID of the image of the containers that fill volumes.
        belongings: what the stack has on the engine.
        network_hooks: hooks of the caches' network.
    """

    prefix: str
    publish_on: Sequence[str]
    writer_image: pulumi.Input[str]
    belongings: Belongings
    network_hooks: NetworkHooks

    def files(
        self,
        name: str,
        labels: Mapping[str, str],
        files: Mapping[str, PrivateFile],
        parent: pulumi.Resource,
    ) -> MountedFiles:
        """Declare a volume that holds the files."""
        volume = f"{self.prefix}-{in_names(name)}"
        made = FilesInVolume(
            name,
            volume=volume,
            image=self.writer_image,
            labels={**labels, **self.belongings.marks_of_writer(volume)},
            volume_labels=self.belongings.labels_of_volume(volume, labels),
            files=files,
            opts=pulumi.ResourceOptions(parent=parent),
        )
        return MountedFiles(volume=made.volume, read_once=made.read_once)

    def volume(self, host: str, settings: VolumeStorage, parent: pulumi.Resource) -> Stored:
        """Declare a volume of the engine."""
        name = volume_name(settings, self.prefix, host)
        labels = self.belongings.labels_of_volume(name, label.of_upstream(pulumi.get_stack(), host))
        volume = docker.Volume(
            f"{host}-storage",
            name=name,
            labels=label.inputs(labels),
            opts=pulumi.ResourceOptions(
                parent=parent,
                retain_on_delete=settings.on_destroy == "keep",
                # An adopted volume may have some, and would be replaced at every `up`.
                ignore_changes=["driverOpts"],
            ),
        )
        return Stored(volume.name, [volume.name], WRITABLE)

    def run(self, process: Process, parent: pulumi.Resource) -> pulumi.Output[str]:
        """Declare a container."""
        files = process.files
        name = f"{self.prefix}-{in_names(process.host)}"
        labels = {**process.labels, **self.belongings.marks_of_cache(name)}
        if files.read_once:
            # A changed label replaces the container, which then reads the files again.
            labels[label.FILES] = files.read_once
        return docker.Container(
            f"{process.host}-container",
            name=name,
            image=process.image,
            # Not the image's own user: all who use a volume must be the same user.
            user=file_owner.user(),
            labels=label.inputs(labels),
            restart="always",
            envs=[f"{key}={value}" for key, value in sorted(process.environment.items())],
            networks_advanced=[docker.ContainerNetworksAdvancedArgs(name=self.prefix)],
            ports=[
                docker.ContainerPortArgs(
                    internal=CONTAINER_PORT, external=process.upstream.port, ip=address
                )
                for address in self._addresses(name)
            ],
            volumes=[
                *(
                    docker.ContainerVolumeArgs(volume_name=volume, container_path=STORAGE_FOLDER)
                    for volume in process.stored.volumes
                ),
                docker.ContainerVolumeArgs(
                    volume_name=files.volume, container_path=FOLDER, read_only=True
                ),
            ],
            read_only=True,
            capabilities=docker.ContainerCapabilitiesArgs(drops=["ALL"]),
            security_opts=["no-new-privileges"],
            memory=process.memory_mib,
            # Without it, the engine's default would show as a change after every refresh.
            memory_swap=2 * process.memory_mib,
            log_driver="json-file",
            log_opts=process.log_options,
            healthcheck=docker.ContainerHealthcheckArgs(
                tests=["CMD-SHELL", process.probe],
                interval=PROBE_INTERVAL,
                timeout=PROBE_TIMEOUT,
                start_period="0s",
                retries=PROBE_RETRIES,
            ),
            wait=True,
            wait_timeout=HEALTHY_WITHIN_S,
            opts=pulumi.ResourceOptions(
                parent=parent,
                delete_before_replace=True,
                # The provider may accept a changed health check and not apply it.
                replace_on_changes=["healthcheck"],
                hooks=pulumi.ResourceHookBinding(
                    before_create=[
                        hooks.make_way,
                        self.network_hooks.before_container,
                        hooks.hand_over_storage,
                        hooks.watch_health,
                    ]
                ),
            ),
        ).name

    def _addresses(self, container: str) -> Sequence[str]:
        """The addresses to publish on, in the engine's order if they are published already.

        The provider compares them in the engine's order, which differs by version: 20.10 reverses
        the requested order, later engines sort. Any other order would replace the container at
        every `up`.
        """
        published = self.belongings.facts.published.get(container, [])
        wanted = sorted(self.publish_on)
        return published if sorted(published) == wanted else wanted


@dataclass(frozen=True, slots=True)
class OnSwarm:
    """Services of a Docker Swarm.

    Attributes:
        prefix: prefix of the names of services, secrets and volumes.
        settings: which nodes run the services, and how they are published.
        network: ID of the caches' network.
    """

    prefix: str
    settings: SwarmPlacement
    network: pulumi.Input[str]

    def files(
        self,
        name: str,
        labels: Mapping[str, str],
        files: Mapping[str, PrivateFile],
        parent: pulumi.Resource,
    ) -> MountedFiles:
        """Declare Swarm secrets that hold the files."""
        made = FilesInSwarm(
            name,
            prefix=f"{self.prefix}-{in_names(name)}",
            labels=labels,
            files=files,
            opts=pulumi.ResourceOptions(parent=parent),
        )
        return MountedFiles(secrets=made.secrets)

    def volume(self, host: str, settings: VolumeStorage, parent: pulumi.Resource) -> Stored:
        """Declare nothing: the node that runs the cache creates the volume if it is missing."""
        del parent
        volume = pulumi.Output.from_input(volume_name(settings, self.prefix, host))
        # No probe: a Swarm kills unhealthy caches, but one with a full disk can still serve.
        return Stored(volume, [volume])

    def run(self, process: Process, parent: pulumi.Resource) -> pulumi.Output[str]:
        """Declare a service, and wait until all its nodes run its current version."""
        service = docker.Service(
            f"{process.host}-service",
            name=service_name(f"{self.prefix}-{in_names(process.host)}"),
            labels=label.inputs(process.labels),
            task_spec=docker.ServiceTaskSpecArgs(
                container_spec=self._container(process),
                log_driver=docker.ServiceTaskSpecLogDriverArgs(
                    name="json-file", options=process.log_options
                ),
                networks_advanceds=[docker.ServiceTaskSpecNetworksAdvancedArgs(id=self.network)],
                placement=docker.ServiceTaskSpecPlacementArgs(
                    constraints=[
                        f"node.labels.{key}=={value}"
                        for key, value in sorted(self.settings.node_labels.items())
                    ],
                    max_replicas=1 if self.settings.replicas else None,
                ),
                resources=docker.ServiceTaskSpecResourcesArgs(
                    limits=docker.ServiceTaskSpecResourcesLimitsArgs(
                        memory_bytes=process.memory_mib * MIB
                    )
                ),
                restart_policy=docker.ServiceTaskSpecRestartPolicyArgs(
                    condition="any",
                    delay="1s",
                    # Without it, the engine's default would show as a change at every `up`.
                    window="0s",
                ),
            ),
            mode=self._mode(),
            endpoint_spec=self._published(process.upstream.port),
            # One node at a time, so that others can answer: the running cache has the port, so that
            # a node cannot start the new one first.
            update_config=docker.ServiceUpdateConfigArgs(
                parallelism=1,
                order="stop-first",
                failure_action="rollback",
                monitor=MONITORED_FOR,
                max_failure_ratio="0",
            ),
            rollback_config=docker.ServiceRollbackConfigArgs(
                parallelism=0, order="stop-first", monitor=MONITORED_FOR, max_failure_ratio="0"
            ),
            opts=pulumi.ResourceOptions(
                parent=parent,
                delete_before_replace=True,
                hooks=pulumi.ResourceHookBinding(before_create=[swarm.before_service]),
            ),
        )
        return pulumi.Output.all(service.id, service.name).apply(swarm.converged)

    def _container(self, process: Process) -> docker.ServiceTaskSpecContainerSpecArgs:
        return docker.ServiceTaskSpecContainerSpecArgs(
            # By name: IDs differ between engines.
            image=process.image_reference,
            # A node creates its volume by itself, for the user of the image.
            user=None if process.stored.volumes else file_owner.user(),
            # No labels: the provider would replace the service whenever one changes.
            env={**process.environment, "REGISTRY_HTTP_DRAINTIMEOUT": DRAINS_WITHIN},
            secrets=process.files.secrets,
            mounts=[
                docker.ServiceTaskSpecContainerSpecMountArgs(
                    type="volume", source=volume, target=STORAGE_FOLDER
                )
                for volume in process.stored.volumes
            ],
            read_only=True,
            cap_drops=["ALL"],
            stop_grace_period=STOPS_WITHIN,
            healthcheck=docker.ServiceTaskSpecContainerSpecHealthcheckArgs(
                tests=["CMD-SHELL", process.probe],
                interval=PROBE_INTERVAL,
                timeout=PROBE_TIMEOUT,
                start_period="0s",
                retries=PROBE_RETRIES,
            ),
        )

    def _mode(self) -> docker.ServiceModeArgs:
        if self.settings.replicas is None:
            return docker.ServiceModeArgs(global_=True)
        return docker.ServiceModeArgs(
            replicated=docker.ServiceModeReplicatedArgs(replicas=self.settings.replicas)
        )

    def _published(self, port: int) -> docker.ServiceEndpointSpecArgs:
        on_nodes = self.settings.publish == "host"
        return docker.ServiceEndpointSpecArgs(
            mode="dnsrr" if on_nodes else "vip",
            ports=[
                docker.ServiceEndpointSpecPortArgs(
                    target_port=CONTAINER_PORT,
                    published_port=port,
                    protocol="tcp",
                    publish_mode="host" if on_nodes else "ingress",
                )
            ],
        )


def volume_name(settings: VolumeStorage, prefix: str, host: str) -> str:
    """The name of a cache's volume.

    Args:
        settings: settings of the volume.
        prefix: prefix of the names of the stack's caches.
        host: the registry host of the cache.
    """
    return f"{settings.volume_prefix or prefix}-{in_names(host)}"
