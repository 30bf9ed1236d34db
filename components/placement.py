"""Where the process of a cache runs: in a container of an engine, or as a service of a Swarm."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import pulumi
import pulumi_docker as docker

from talos_registry_cache.engine import file_owner
from talos_registry_cache.engine import labels as label

from . import engine, health, storage_owner, swarm
from .belongings import Belongings
from .names import in_names, service_name
from .private_files import (
    FOLDER,
    FilesInSwarm,
    FilesInSwarmArgs,
    FilesInVolume,
    FilesInVolumeArgs,
    PrivateFile,
)
from .settings.placement import SwarmPlacement
from .storage import FOLDER_OF_VOLUME, Stored

CONTAINER_PORT = 5000
METRICS_PORT = 5001
HEALTHY_WITHIN_S = 60
PROBE_INTERVAL = "500ms"
PROBE_TIMEOUT = "30s"
PROBE_RETRIES = 3
MIB = 1 << 20
# What is being pulled when a node's cache is replaced has this long to end.
DRAINS_WITHIN = "55s"
STOPS_WITHIN = "1m"
# How long a new task is watched for failing before the next node's turn.
MONITORED_FOR = "2s"


@dataclass(frozen=True, slots=True)
class Process:
    """The process of a cache.

    Attributes:
        name: name of its container or service.
        image: ID of its image.
        image_reference: the image as the settings name it.
        environment: its environment variables.
        stored: where it keeps what it has cached.
        port: the port at which it is reached.
        probe: shell command that ends well while it answers.
        log_max_size, log_max_files: bounds of its log.
        memory_limit_mib: memory limit in MiB.
        labels: its labels.
    """

    name: str
    image: pulumi.Input[str]
    image_reference: str
    environment: Mapping[str, str]
    stored: Stored
    port: int
    probe: str
    log_max_size: str
    log_max_files: int
    memory_limit_mib: int
    labels: Mapping[str, pulumi.Input[Any]]

    @property
    def variables(self) -> list[str]:
        """Its environment variables, each as `NAME=value`."""
        return [f"{name}={value}" for name, value in sorted(self.environment.items())]

    @property
    def log_options(self) -> dict[str, str]:
        """The bounds of its log, as engines take them."""
        return {"max-size": self.log_max_size, "max-file": str(self.log_max_files)}


@dataclass(frozen=True, slots=True)
class MountedFiles:
    """Private files as a process mounts them.

    Attributes:
        volume: the volume that they are in, on an engine.
        read_once: a digest there of those that a registry reads when it starts only.
        secrets: the secrets that they are, on a Swarm.
    """

    volume: pulumi.Input[str] = ""
    read_once: pulumi.Output[str] | None = None
    secrets: Sequence[docker.ServiceTaskSpecContainerSpecSecretArgs] = ()


class Placement(Protocol):
    """A place where processes of caches run."""

    def files(
        self,
        name: str,
        labels: Mapping[str, str],
        files: Mapping[str, PrivateFile],
        parent: pulumi.Resource,
    ) -> MountedFiles:
        """Declare private files.

        Args:
            name: name of their resources.
            labels: the labels of these.
            files: the files, by name.
            parent: the resource that they belong to.
        """
        ...

    def run(
        self, name: str, process: Process, files: MountedFiles, parent: pulumi.Resource
    ) -> pulumi.Output[str]:
        """Declare a process.

        Args:
            name: name of the cache's resources.
            process: the process.
            files: its private files.
            parent: the resource that they belong to.

        Returns:
            the name of the container or service, once it answers.
        """
        ...


@dataclass(frozen=True, slots=True)
class OnEngine:
    """Containers of the engine that Pulumi talks to.

    Attributes:
        prefix: what the names of volumes with private files begin with.
        network: name of the network of the stack's caches.
        publish_on: addresses of this machine on which ports are open.
        writer_image: ID of the image of the containers that fill volumes.
        belongings: what is there already.
        network_hooks: what is done around the making of the network.
    """

    prefix: str
    network: str
    publish_on: Sequence[str]
    writer_image: pulumi.Input[str]
    belongings: Belongings
    network_hooks: engine.NetworkHooks

    def files(
        self,
        name: str,
        labels: Mapping[str, str],
        files: Mapping[str, PrivateFile],
        parent: pulumi.Resource,
    ) -> MountedFiles:
        """Declare a volume that holds them."""
        volume = f"{self.prefix}-{in_names(name)}"
        args = FilesInVolumeArgs(
            volume=volume,
            image=self.writer_image,
            labels={**labels, **self.belongings.marks_of_writer(volume)},
            volume_labels=self.belongings.labels_of_volume(volume, labels),
            files=files,
        )
        made = FilesInVolume(name, args, pulumi.ResourceOptions(parent=parent))
        return MountedFiles(volume=made.volume, read_once=made.read_once)

    def run(
        self, name: str, process: Process, files: MountedFiles, parent: pulumi.Resource
    ) -> pulumi.Output[str]:
        """Declare a container."""
        labels = {**process.labels, **self.belongings.marks_of_cache(process.name)}
        return docker.Container(
            f"{name}-container",
            name=process.name,
            image=process.image,
            # Whatever user the image names: all that use a volume have to be the same one.
            user=file_owner.user(),
            # Another label makes another container, which reads its files anew.
            labels=label.inputs(
                {**labels, **({label.FILES: files.read_once} if files.read_once else {})}
            ),
            restart="always",
            envs=process.variables,
            networks_advanced=[docker.ContainerNetworksAdvancedArgs(name=self.network)],
            ports=[
                docker.ContainerPortArgs(internal=CONTAINER_PORT, external=process.port, ip=address)
                for address in self._addresses(process.name)
            ],
            volumes=[
                *(
                    docker.ContainerVolumeArgs(volume_name=volume, container_path=FOLDER_OF_VOLUME)
                    for volume in process.stored.volumes
                ),
                docker.ContainerVolumeArgs(
                    volume_name=files.volume, container_path=FOLDER, read_only=True
                ),
            ],
            read_only=True,
            capabilities=docker.ContainerCapabilitiesArgs(drops=["ALL"]),
            security_opts=["no-new-privileges"],
            memory=process.memory_limit_mib,
            # Left out, the engine's own value would show as a change after every refresh.
            memory_swap=2 * process.memory_limit_mib,
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
                # The provider may take a changed health check for an update, and not apply it.
                replace_on_changes=["healthcheck"],
                hooks=pulumi.ResourceHookBinding(
                    before_create=[
                        engine.before_container,
                        self.network_hooks.before_container,
                        storage_owner.before_container,
                        health.before_container,
                    ]
                ),
            ),
        ).name

    def _addresses(self, container: str) -> Sequence[str]:
        """The wanted addresses, in the engine's order if it has just these.

        The provider compares them one by one with what the engine said, and engines differ: 20.10
        turns the order in which it was asked around, later ones sort. Any other order than the
        engine's would replace the container at every `up`.
        """
        published = self.belongings.facts.published.get(container, [])
        wanted = sorted(self.publish_on)
        return published if sorted(published) == wanted else wanted


@dataclass(frozen=True, slots=True)
class OnSwarm:
    """Services of a Docker Swarm.

    Attributes:
        prefix: what the names of secrets begin with.
        settings: which nodes run them, and how they are published.
        network: ID of the network of the stack's caches.
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
        """Declare secrets that hold them."""
        args = FilesInSwarmArgs(f"{self.prefix}-{in_names(name)}", labels, files)
        made = FilesInSwarm(name, args, pulumi.ResourceOptions(parent=parent))
        return MountedFiles(secrets=made.secrets)

    def run(
        self, name: str, process: Process, files: MountedFiles, parent: pulumi.Resource
    ) -> pulumi.Output[str]:
        """Declare a service, and wait until all of its nodes run it as it is now."""
        service = docker.Service(
            f"{name}-service",
            name=service_name(process.name),
            labels=label.inputs(process.labels),
            task_spec=docker.ServiceTaskSpecArgs(
                container_spec=self._container(process, files),
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
                        memory_bytes=process.memory_limit_mib * MIB
                    )
                ),
                restart_policy=docker.ServiceTaskSpecRestartPolicyArgs(
                    condition="any",
                    delay="1s",
                    # Left out, the engine's own value would show as a change at every `up`.
                    window="0s",
                ),
            ),
            mode=self._mode(),
            endpoint_spec=self._published(process.port),
            # One node after the other, so that there is always one to ask: no node can start a
            # second cache beside the first, which has the port.
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

    def _container(
        self, process: Process, files: MountedFiles
    ) -> docker.ServiceTaskSpecContainerSpecArgs:
        return docker.ServiceTaskSpecContainerSpecArgs(
            # By name: an ID is one engine's own.
            image=process.image_reference,
            # A node makes its volume by itself, for the user of the image.
            user=None if process.stored.volumes else file_owner.user(),
            # No labels: the provider would replace the service when one changes.
            env={**process.environment, "REGISTRY_HTTP_DRAINTIMEOUT": DRAINS_WITHIN},
            secrets=files.secrets,
            mounts=[
                docker.ServiceTaskSpecContainerSpecMountArgs(
                    type="volume", source=volume, target=FOLDER_OF_VOLUME
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
