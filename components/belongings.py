"""A stack's existing resources on the engine: whether they are intact, and who owns them.

A program cannot see its own state. So each resource on the engine has two labels: the state that
owns it, and a generation. While a resource is intact, it is declared with its existing labels, so
that nothing changes. Otherwise it is declared with new ones, which replaces it.
See docs/decisions/0019-generation-and-owner.md.
"""

from collections import defaultdict
from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass

import pulumi

from talos_registry_cache.engine import labels as label

from . import state_owner
from .engine import EngineContainer, EngineFacts

MARKS = (label.STATE, label.GENERATION)
RUNNING = ("running", "restarting")


class OwnedByAnotherError(pulumi.RunError):
    """Resources that a stack needs belong to another state."""


@dataclass(frozen=True, slots=True)
class Belonging:
    """A resource on the engine that belongs to another state.

    Attributes:
        kind: `container`, `network` or `volume`.
        name: its name.
        owner: the state that owns it.
    """

    kind: str
    name: str
    owner: str


@dataclass(frozen=True, slots=True)
class Belongings:
    """A stack's resources on the engine.

    Attributes:
        facts: the engine's state.
        owner: this stack's state.
        network: name of the caches' network.
    """

    facts: EngineFacts
    owner: str
    network: str

    def marks_of_network(self) -> Mapping[str, str]:
        """Owner and generation labels of the network."""
        found = self.facts.networks.get(self.network)
        return self._marks(found.labels if found else None)

    def marks_of_cache(self, name: str) -> Mapping[str, str]:
        """Owner and generation labels of a cache's container."""
        found = self.facts.containers.get(name)
        is_sound = found and found.state in RUNNING and self._is_attached(found)
        return self._marks(found.labels if found and is_sound else None)

    def marks_of_writer(self, name: str) -> Mapping[str, str]:
        """Owner and generation labels of a container that only fills a volume."""
        found = self.facts.containers.get(name)
        return self._marks(found.labels if found else None)

    def labels_of_volume(self, name: str, wanted: Mapping[str, str]) -> Mapping[str, str]:
        """The labels of a volume: those it has, if it exists.

        A changed label would replace the volume and lose its content.
        """
        return dict(sorted(self.facts.volumes.get(name, {**wanted, **self._new}).items()))

    def refuse_others(self, names: Collection[str], take_over_from: Collection[str]) -> None:
        """Refuse to touch resources of another state, unless they may be taken over.

        Resources of a state whose folder on this machine is gone may be. Logs what is taken over.

        Args:
            names: the names of the stack's resources on an engine.
            take_over_from: the owners whose resources may be taken over.

        Raises:
            OwnedByAnotherError: there are others; the message names their owners and what to do.
        """
        found: defaultdict[str, list[str]] = defaultdict(list)
        for one in self.of_others(names):
            found[one.owner].append(f"{one.kind} {one.name}")
        refused = {}
        for other, things in found.items():
            if other in take_over_from or state_owner.is_gone(other):
                why = "" if other in take_over_from else ", which is gone"
                pulumi.log.info(f"taken over from {other}{why}: {', '.join(things)}")
            else:
                refused[other] = things
        if refused:
            raise OwnedByAnotherError(self._refusal(refused))

    def _refusal(self, refused: Mapping[str, Collection[str]]) -> str:
        lines = "".join(
            f"\n  {other}: {', '.join(things)}" for other, things in sorted(refused.items())
        )
        return (
            f"another state has a stack {self.facts.stack} on this engine, nothing was changed; "
            f"these resources belong to it:{lines}\n"
            f"this state is {self.owner}. Allowed: destroy that stack, or remove these resources "
            "(docker container, network or volume rm); give this stack its own names and ports "
            "(caches.namePrefix, caches.storage.volumePrefix); or take the resources over "
            f"(caches.takeOverFrom: [{', '.join(sorted(refused))}])"
        )

    def of_others(self, names: Collection[str]) -> Iterator[Belonging]:
        """The resources of these names that belong to another state."""
        containers = {name: self._other(one.labels) for name, one in self.facts.containers.items()}
        found = self.facts.networks.get(self.network)
        networks = {self.network: self._other(found.labels)} if found else {}
        volumes = {
            name: self._other(labels)
            for name, labels in self.facts.volumes.items()
            if not self._is_mounted(name)
        }
        kinds = {"container": containers, "network": networks, "volume": volumes}
        for kind, owners in kinds.items():
            for name, other in sorted(owners.items()):
                if name in names and other:
                    yield Belonging(kind, name, other)

    @property
    def _new(self) -> Mapping[str, str]:
        generation = self.facts.generation
        return {label.STATE: self.owner, label.GENERATION: generation} if generation else {}

    def _marks(self, sound: Mapping[str, str] | None) -> Mapping[str, str]:
        """The labels of an intact resource of this stack, else new ones."""
        if sound is None or not self._is_own(sound):
            return self._new
        return {mark: sound[mark] for mark in MARKS if mark in sound}

    def _is_attached(self, container: EngineContainer) -> bool:
        """Whether a container is on the stack's network, and its volumes exist."""
        network = self.facts.networks.get(self.network)
        return (
            network is not None
            and network.id in container.networks
            and self._is_own(network.labels)
            and self.facts.volumes.keys() >= set(container.volumes)
        )

    def _is_mounted(self, volume: str) -> bool:
        """Whether a container of this stack mounts a volume, whatever its owner."""
        return any(
            volume in container.volumes and self._is_own(container.labels)
            for container in self.facts.containers.values()
        )

    def _is_own(self, labels: Mapping[str, str]) -> bool:
        return labels.get(label.STACK) == self.facts.stack and self._other(labels) is None

    def _other(self, labels: Mapping[str, str]) -> str | None:
        """The owner of a resource of a stack of this name, if it is another state."""
        found = labels.get(label.STATE)
        if found is None or labels.get(label.STACK) != self.facts.stack:
            return None
        return None if state_owner.is_same(found, self.owner) else found
