"""Caches as containers of an engine."""

from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import pulumi
import pulumi_docker as docker

from talos_registry_cache.engine import file_owner
from talos_registry_cache.engine import labels as label
from talos_registry_cache.engine.volume import STORAGE_FOLDER

from . import front, hooks, local, wildcard
from .belongings import Belongings
from .hooks import NetworkHooks
from .names import in_names, registry_name, shared_volume_name
from .placement import (
    CONTAINER_PORT,
    PROBE,
    PROBE_INTERVAL,
    PROBE_RETRIES,
    PROBE_TIMEOUT,
    Bounds,
    FrontProcess,
    MountedFiles,
    Process,
    volume_name,
)
from .private_files import FOLDER, FilesInVolume, PrivateFile
from .settings.local import Local
from .settings.storage import VolumeStorage
from .storage import WRITABLE, Stored

HEALTHY_WITHIN_S = 60

Labels = Mapping[str, pulumi.Input[Any]]
Mount = tuple[str, pulumi.Input[str]]
"""A folder, and the volume to mount there."""
Hook = Callable[[pulumi.ResourceHookArgs], Awaitable[None]]


@dataclass(frozen=True, slots=True)
class _Container:
    """A container of a cache, its registry or the front before it, or the wildcard mirror.

    Attributes:
        resource: name of the resource.
        name: its name.
        image: ID of its image.
        labels: labels.
        probe: shell command of the health check.
        environment: environment variables.
        command: the program and its arguments, if not the image's own.
        read_once: digest of the files that it reads only when it starts.
        writable: volumes that it may write to.
        read_only: other volumes.
        port: the port of this machine at which it is published, if it is.
        pushes: whether this port is one for pushes on loopback.
        dns: servers for names that are not of its network, instead of this machine's.
        hooks: what else to do before it is created.
        extra_hosts: addresses of hosts that it cannot resolve, by host name.
    """

    resource: str
    name: str
    image: pulumi.Input[str]
    labels: Labels
    probe: str
    environment: Mapping[str, str] = field(default_factory=dict)
    command: Sequence[str] | None = None
    read_once: pulumi.Output[str] | None = None
    writable: Sequence[Mount] = ()
    read_only: Sequence[Mount] = ()
    port: int | None = None
    pushes: bool = False
    dns: Sequence[str] | None = None
    hooks: Sequence[Hook] = ()
    extra_hosts: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class OnEngine:
    """Containers of the engine that Pulumi talks to.

    Attributes:
        prefix: name of the caches' network, and prefix of all other names.
        publish_on: addresses of this machine on which ports are published.
        writer_image: ID of the image of the containers that fill volumes.
        belongings: what the stack has on the engine.
        network_hooks: hooks of the caches' network.
        published: the IDs of the containers that publish a port; grows with each of them.
    """

    prefix: str
    publish_on: Sequence[str]
    writer_image: pulumi.Input[str]
    belongings: Belongings
    network_hooks: NetworkHooks
    published: list[pulumi.Output[str]] = field(default_factory=list)

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
        """Declare a registry, and its front, which has the name and the port of the cache."""
        assert process.front is not None  # noqa: S101 - caches on an engine have fronts
        name = f"{self.prefix}-{in_names(process.host)}"
        shared = (front.SHARED_FOLDER, self._shared_volume(process.host, name, parent))
        registry = self._declare(_registry(registry_name(name), process, shared), process, parent)
        front_of_it = _front(name, process, process.front, shared)
        # A front waits for its registry. Otherwise, fronts could take all of Pulumi's parallel
        # operations, and no registry would start.
        return self._declare(front_of_it, process, parent, after=[registry]).name

    def run_wildcard(
        self,
        process: FrontProcess,
        port: int,
        labels: Labels,
        bounds: Bounds,
        parent: pulumi.Resource,
    ) -> None:
        """Declare the container of the wildcard mirror, published at a port of this machine."""
        container = _Container(
            resource=wildcard.NAME,
            name=f"{self.prefix}-{wildcard.NAME}",
            image=process.image,
            labels=labels,
            probe=PROBE.format(url=wildcard.PROBE_URL),
            command=wildcard.COMMAND,
            read_once=process.files.read_once,
            read_only=[(FOLDER, process.files.volume)],
            port=port,
            # A cache's name may be a domain of somebody else, such as registry-dev-docker.io. No
            # DNS server is asked for it while its container is missing: none listens here.
            dns=["127.0.0.1"],
        )
        self._declare(container, bounds, parent)

    def _shared_volume(
        self, host: str, container: str, parent: pulumi.Resource
    ) -> pulumi.Output[str]:
        """Declare the volume that a front shares with its registry."""
        name = shared_volume_name(container)
        labels = self.belongings.labels_of_volume(name, label.of_upstream(pulumi.get_stack(), host))
        volume = docker.Volume(
            f"{host}-front",
            name=name,
            labels=label.inputs(labels),
            opts=pulumi.ResourceOptions(parent=parent),
        )
        return volume.name

    def _declare(
        self,
        one: _Container,
        bounds: Bounds,
        parent: pulumi.Resource,
        *,
        after: Sequence[pulumi.Resource] = (),
    ) -> docker.Container:
        """Declare a container, which is healthy once it is there."""
        labels = {**one.labels, **self.belongings.marks_of_cache(one.name)}
        if one.read_once:
            # A changed label replaces the container, which then reads the files again.
            labels[label.FILES] = one.read_once
        container = docker.Container(
            one.resource,
            name=one.name,
            image=one.image,
            # Not the image's own user: all who use a volume must be the same user.
            user=file_owner.user(),
            labels=label.inputs(labels),
            restart="always",
            entrypoints=list(one.command) if one.command else None,
            envs=[f"{key}={value}" for key, value in sorted(one.environment.items())],
            networks_advanced=[docker.ContainerNetworksAdvancedArgs(name=self.prefix)],
            dns=one.dns,
            hosts=[
                docker.ContainerHostArgs(host=host, ip=address)
                for host, address in sorted(one.extra_hosts.items())
            ]
            or None,
            ports=self._ports(one),
            volumes=[
                *(
                    docker.ContainerVolumeArgs(volume_name=volume, container_path=folder)
                    for folder, volume in one.writable
                ),
                *(
                    docker.ContainerVolumeArgs(
                        volume_name=volume, container_path=folder, read_only=True
                    )
                    for folder, volume in one.read_only
                ),
            ],
            read_only=True,
            capabilities=docker.ContainerCapabilitiesArgs(drops=["ALL"]),
            security_opts=["no-new-privileges"],
            memory=bounds.memory_mib,
            # Without it, the engine's default would show as a change after every refresh.
            memory_swap=2 * bounds.memory_mib,
            log_driver="json-file",
            log_opts=bounds.log_options,
            healthcheck=docker.ContainerHealthcheckArgs(
                tests=["CMD-SHELL", one.probe],
                interval=PROBE_INTERVAL,
                timeout=PROBE_TIMEOUT,
                start_period="0s",
                retries=PROBE_RETRIES,
            ),
            wait=True,
            wait_timeout=HEALTHY_WITHIN_S,
            opts=pulumi.ResourceOptions(
                parent=parent,
                depends_on=list(after),
                delete_before_replace=True,
                # The provider may accept a changed health check and not apply it.
                replace_on_changes=["healthcheck"],
                hooks=pulumi.ResourceHookBinding(
                    before_create=[
                        hooks.make_way,
                        self.network_hooks.before_container,
                        *one.hooks,
                        hooks.watch_health,
                    ]
                ),
            ),
        )
        hooks.expect(one.resource, container)
        if one.port is not None:
            self.published.append(container.id)
        return container

    def _ports(self, one: _Container) -> Sequence[docker.ContainerPortArgs] | None:
        if one.port is None:
            return None
        addresses = self._addresses(one.name)
        if one.pushes:
            addresses = local.for_nodes(addresses)
        bound = [(CONTAINER_PORT, address) for address in addresses]
        if one.pushes:
            # The provider compares ports by their number in the container.
            bound.append((local.PUSH_PORT, local.ADDRESS))
        return [
            docker.ContainerPortArgs(internal=internal, external=one.port, ip=address)
            for internal, address in bound
        ]

    def _addresses(self, container: str) -> Sequence[str]:
        """The addresses to publish on, in the engine's order if they are published already.

        The provider compares them in the engine's order, which differs by version: 20.10 reverses
        the requested order, later engines sort. Any other order would replace the container at
        every `up`.
        """
        found = self.belongings.facts.published.get(container, [])
        # A port for pushes may have one more.
        published = [address for address in found if address in self.publish_on]
        wanted = sorted(self.publish_on)
        return published if sorted(published) == wanted else wanted


def _registry(name: str, process: Process, shared: Mount) -> _Container:
    storage = [(STORAGE_FOLDER, volume) for volume in process.stored.volumes]
    return _Container(
        resource=f"{process.host}-registry",
        name=name,
        image=process.image,
        labels=process.registry_labels,
        probe=process.probe,
        environment=process.environment,
        read_once=process.files.read_once,
        writable=[*storage, shared],
        read_only=[(FOLDER, process.files.volume)],
        hooks=[hooks.hand_over_storage],
        extra_hosts=process.caches.extra_hosts,
    )


def _front(name: str, process: Process, args: FrontProcess, shared: Mount) -> _Container:
    storage = [(STORAGE_FOLDER, volume) for volume in process.stored.volumes]
    return _Container(
        resource=f"{process.host}-container",
        name=name,
        image=args.image,
        labels={**process.labels, label.REGISTRY: registry_name(name)},
        probe=PROBE.format(url=front.PROBE_URL),
        command=front.COMMAND,
        read_once=args.files.read_once,
        writable=[*storage, shared],
        read_only=[(FOLDER, args.files.volume)],
        port=process.upstream.port,
        pushes=isinstance(process.upstream, Local),
    )
