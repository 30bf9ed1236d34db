"""Caches as services of a Docker Swarm."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import pulumi
import pulumi_docker as docker

from talos_registry_cache.engine import file_owner
from talos_registry_cache.engine import labels as label
from talos_registry_cache.engine.volume import STORAGE_FOLDER

from . import front, swarm
from .names import in_names, registry_name, service_name, shared_volume_name
from .placement import (
    CONTAINER_PORT,
    PROBE,
    PROBE_INTERVAL,
    PROBE_RETRIES,
    PROBE_TIMEOUT,
    FrontProcess,
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
# A front outlives a restart of its registry. If the registry stays away for some 10 s, the Swarm
# replaces the front, whose port is closed meanwhile, so that clients use other nodes.
FRONT_RETRIES = 20
# Each task of a registry has a socket of its own, since a registry that stops removes its socket.
# The Swarm fills in the ID.
OWN_SOCKET = f"{front.SHARED_FOLDER}/{{{{.Task.ID}}}}.sock"
# Once a registry is healthy, the front uses it. Sockets of others are of tasks that stop now, or
# that were killed.
LINK = f"""
[ -e /dev/shm/linked ] || {{
  [ -S $REGISTRY_HTTP_ADDR ] && busybox ln -sf $REGISTRY_HTTP_ADDR {front.SOCKET} || exit 1
  for one in {front.SHARED_FOLDER}/*.sock; do
    case $one in $REGISTRY_HTTP_ADDR | {front.SOCKET}) ;; *) busybox rm -f $one ;; esac
  done
  : > /dev/shm/linked
}}"""


@dataclass(frozen=True, slots=True)
class _Service:
    """A service of a cache: its registry, or the front before it.

    Attributes:
        resource: name of the resource.
        name: its name.
        labels: labels of the service.
        image: reference of its image. IDs differ between engines.
        probe: shell command of the health check.
        retries: failures of the health check after which a task is replaced.
        secrets: the private files.
        user: the user that it runs as; None for that of the image.
        mounts: folders, and the volumes to mount there. Nodes create missing ones.
        environment: environment variables.
        command: the program and its arguments, if not the image's own.
        stop_signal: the signal that ends it once running pulls have ended, if not the image's own.
        port: the port at which it is published, if it is.
        extra_hosts: addresses of hosts that it cannot resolve, by host name.
        order: whether a node starts the new task before it stops the running one.
    """

    resource: str
    name: str
    labels: Mapping[str, pulumi.Input[Any]]
    image: str
    probe: str
    secrets: Sequence[docker.ServiceTaskSpecContainerSpecSecretArgs]
    user: str | None
    mounts: Sequence[tuple[str, pulumi.Input[str]]]
    environment: Mapping[str, str] | None = None
    retries: int = PROBE_RETRIES
    command: Sequence[str] | None = None
    stop_signal: str | None = None
    port: int | None = None
    extra_hosts: Mapping[str, str] = field(default_factory=dict)
    order: str = "stop-first"


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
        """Declare a service, or two, and wait until all their nodes run the current version.

        A front has the name and the port of the cache.
        """
        name = f"{self.prefix}-{in_names(process.host)}"
        registry = _registry(name, process)
        if process.front is None:
            labels = {**process.labels, **process.registry_labels}
            # The running cache has the port, so that a node cannot start the new one first.
            public = replace(registry, labels=labels, port=process.upstream.port)
            return self._declare(public, process, parent)
        behind = self._declare(_behind_front(name, process, registry), process, parent)
        before = self._declare(_front(name, process, process.front), process, parent)
        return pulumi.Output.all(before, behind).apply(lambda names: str(names[0]))

    def _declare(
        self, one: _Service, process: Process, parent: pulumi.Resource
    ) -> pulumi.Output[str]:
        """Declare a service; returns its name, once all nodes run its current version."""
        service = docker.Service(
            one.resource,
            name=one.name,
            labels=label.inputs(one.labels),
            task_spec=docker.ServiceTaskSpecArgs(
                container_spec=_container(one),
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
            endpoint_spec=self._published(one.port),
            # One node at a time, so that others can answer.
            update_config=docker.ServiceUpdateConfigArgs(
                parallelism=1,
                order=one.order,
                failure_action="rollback",
                monitor=MONITORED_FOR,
                max_failure_ratio="0",
            ),
            rollback_config=docker.ServiceRollbackConfigArgs(
                parallelism=0, order=one.order, monitor=MONITORED_FOR, max_failure_ratio="0"
            ),
            opts=pulumi.ResourceOptions(
                parent=parent,
                delete_before_replace=True,
                # The provider would update the service, which engines refuse.
                replace_on_changes=["mode.global"],
                hooks=pulumi.ResourceHookBinding(
                    before_create=[swarm.before_service], before_update=[swarm.before_update]
                ),
            ),
        )
        return pulumi.Output.all(service.id, service.name).apply(swarm.converged)

    def _mode(self) -> docker.ServiceModeArgs:
        if self.settings.replicas is None:
            return docker.ServiceModeArgs(global_=True)
        return docker.ServiceModeArgs(
            replicated=docker.ServiceModeReplicatedArgs(replicas=self.settings.replicas)
        )

    def _published(self, port: int | None) -> docker.ServiceEndpointSpecArgs:
        if port is None:
            return docker.ServiceEndpointSpecArgs(mode="dnsrr")
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


def _container(one: _Service) -> docker.ServiceTaskSpecContainerSpecArgs:
    return docker.ServiceTaskSpecContainerSpecArgs(
        image=one.image,
        commands=list(one.command) if one.command else None,
        user=one.user,
        # No labels: the provider would replace the service whenever one changes.
        env=one.environment,
        secrets=one.secrets,
        mounts=[
            docker.ServiceTaskSpecContainerSpecMountArgs(
                type="volume", source=volume, target=folder
            )
            for folder, volume in one.mounts
        ],
        read_only=True,
        cap_drops=["ALL"],
        stop_signal=one.stop_signal,
        hosts=[
            docker.ServiceTaskSpecContainerSpecHostArgs(host=host, ip=address)
            for host, address in sorted(one.extra_hosts.items())
        ]
        or None,
        stop_grace_period=STOPS_WITHIN,
        healthcheck=docker.ServiceTaskSpecContainerSpecHealthcheckArgs(
            tests=["CMD-SHELL", one.probe],
            interval=PROBE_INTERVAL,
            timeout=PROBE_TIMEOUT,
            start_period="0s",
            retries=one.retries,
        ),
    )


def _registry(name: str, process: Process) -> _Service:
    """A registry without a front."""
    return _Service(
        resource=f"{process.host}-service",
        name=service_name(name),
        labels=process.registry_labels,
        image=process.image_reference,
        probe=process.probe,
        secrets=process.files.secrets,
        # A node creates its volume by itself, for the user of the image.
        user=None if process.stored.volumes else file_owner.user(),
        mounts=[(STORAGE_FOLDER, volume) for volume in process.stored.volumes],
        environment={**process.environment, "REGISTRY_HTTP_DRAINTIMEOUT": DRAINS_WITHIN},
        extra_hosts=process.caches.extra_hosts,
    )


def _behind_front(name: str, process: Process, registry: _Service) -> _Service:
    """A registry behind a front. A new one starts before the running one is stopped."""
    return replace(
        registry,
        resource=f"{process.host}-registry",
        name=service_name(registry_name(name)),
        probe=registry.probe + LINK,
        mounts=[(front.SHARED_FOLDER, shared_volume_name(name))],
        environment={**(registry.environment or {}), "REGISTRY_HTTP_ADDR": OWN_SOCKET},
        order="start-first",
    )


def _front(name: str, process: Process, args: FrontProcess) -> _Service:
    return _Service(
        resource=f"{process.host}-service",
        name=service_name(name),
        labels={**process.labels, label.REGISTRY: service_name(registry_name(name))},
        image=args.image_reference,
        probe=PROBE.format(url=front.PROBE_URL),
        retries=FRONT_RETRIES,
        secrets=args.files.secrets,
        user=file_owner.user(),
        mounts=[(front.SHARED_FOLDER, shared_volume_name(name))],
        command=front.COMMAND,
        stop_signal="SIGQUIT",
        port=process.upstream.port,
    )
