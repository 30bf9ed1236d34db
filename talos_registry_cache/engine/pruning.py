"""Removes images from the storage of a cache, for `cachectl prune` and for `up`."""

import time
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import dataclass, replace

from docker import DockerClient
from docker.models.containers import Container

from talos_registry_cache.engine import labels, processes
from talos_registry_cache.engine.cache_storage import CacheStorage
from talos_registry_cache.registry import layout, pull_log, retention
from talos_registry_cache.registry.layout import OnPiece, Upload, ignore
from talos_registry_cache.registry.retention import (
    NO_REQUESTS,
    Chosen,
    Policy,
    Pruning,
    Requests,
    Untagged,
)

# Longer than any upload takes.
LEFT_AFTER_S = 24 * 3600


@dataclass(frozen=True, slots=True)
class Pruned:
    """What was or would be removed from a cache.

    Attributes:
        pruning: images and content.
        uploads: incomplete uploads.
    """

    pruning: Pruning
    uploads: tuple[Upload, ...]


NONE = Pruned(Pruning((), {}, ()), ())


@dataclass(frozen=True, slots=True)
class Pruner:
    """Prunes the storage of a cache; the caller holds the lock of the stack.

    Attributes:
        engine: the engine.
        process: the name of the container or service that runs the cache.
        storage: the storage of the cache.
        policy: the images to keep, or to remove; None to remove incomplete uploads only.
        requests: returns the requests in the log of the cache's front.
        on_piece: receives what is read, piece by piece.
    """

    engine: DockerClient
    process: str
    storage: CacheStorage
    policy: Policy | Chosen | Untagged | None
    requests: Callable[[], Requests] = lambda: NO_REQUESTS
    on_piece: OnPiece = ignore

    def plan(self) -> Pruned:
        """What would be removed now."""
        stored = self.storage.read(self.on_piece, trusting=True)
        uploads = layout.left_behind(stored, time.time() - LEFT_AFTER_S)
        if self.policy is None:
            return replace(NONE, uploads=uploads)
        dropped = self.policy.unwanted(stored, self.requests())
        return Pruned(retention.prune(stored, dropped), uploads)

    def prune(self) -> Pruned:
        """Remove images, and return what was removed.

        A container is stopped for that time. A service keeps running, and restarts afterwards.

        Raises:
            ProcessError: there is no such process, or it does not run again.
        """
        is_container = isinstance(processes.find(self.engine, self.process), Container)
        with ExitStack() as until_done:
            if is_container:
                # Before it is read: new content might look unused.
                until_done.enter_context(processes.forgetting(self.engine, self.process))
            planned = self.plan()
            pruning = planned.pruning
            if pruning.folders and not is_container:
                # It keeps running, so only content that is unused in two readings is removed.
                pruning = retention.agreed(self.plan().pruning, pruning)
            if pruning.folders:
                if not is_container:
                    until_done.enter_context(processes.forgetting(self.engine, self.process))
                self.storage.remove(pruning.folders)
            if planned.uploads:
                self.storage.remove_uploads(planned.uploads)
        return Pruned(pruning, planned.uploads)


def requests_in_log(engine: DockerClient, name: str) -> Requests:
    """The last requests in the log of a cache; none if it has no front, or no container.

    Args:
        engine: the engine.
        name: the name of the cache's container, which is that of its front.
    """
    found = engine.containers.list(all=True, filters={"name": f"^/{name}$"})
    if not found or labels.REGISTRY not in found[0].labels:
        return NO_REQUESTS
    log = found[0].logs(stream=True, follow=False, stderr=False)
    return retention.last_requests(pull_log.lines(log))
