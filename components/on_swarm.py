"""Caches as services of a Docker Swarm."""

from collections.abc import Mapping
from dataclasses import dataclass

import pulumi
import pulumi_docker as docker

from talos_registry_cache.engine import file_owner
from talos_registry_cache.engine import labels as label
from talos_registry_cache.engine.volume import STORAGE_FOLDER

from . import swarm
from .names import in_names, service_name
from .placement import (
    CONTAINER_PORT,
    PROBE_INTERVAL,
    PROBE_RETRIES,
    PROBE_TIMEOUT,
    MountedFiles,
    Process,
    volume_name,
)
from .private_files import FilesInSwarm, PrivateFile
from .settings.placement import SwarmPlacement
from .settings.storage import VolumeStorage
from .storage import Stored

MIB = 1 << 20
# Time for running pulls to end when a node's cache is replaced.
DRAINS_WITHIN = "55s"
STOPS_WITHIN = "1m"
# How long a new task must not fail before the next node is updated.
MONITORED_FOR = "2s"


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
