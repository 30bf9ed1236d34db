"""Whether nodes reach their mirrors, tried whenever the containers of the caches have changed."""

from collections.abc import Mapping, Sequence

import pulumi

from talos_registry_cache.engine import reachability
from talos_registry_cache.engine.reachability import ReachabilityError

from . import engine


def declare(
    mirrors: Mapping[str, str],
    image: pulumi.Input[str],
    containers: Sequence[pulumi.Input[str]],
    parent: pulumi.Resource,
) -> None:
    """Declare a record in the state that nodes reach mirrors.

    It is written only if they do, so that `up` fails and the next one tries again. As long as the
    inputs do not change, nothing is tried. Pulumi itself provides the resource, without a plugin.

    Args:
        mirrors: the URLs of the mirrors, by registry host.
        image: the ID of an image with busybox.
        containers: the IDs of the containers that serve the mirrors.
        parent: the parent of the resource.
    """
    pulumi.Stash(
        "reachable",
        input={"mirrors": mirrors, "image": image, "containers": containers},
        opts=pulumi.ResourceOptions(
            parent=parent,
            hooks=pulumi.ResourceHookBinding(before_create=[check], before_update=[check]),
        ),
    )


async def check(arguments: pulumi.ResourceHookArgs) -> None:
    """Try whether nodes reach the mirrors.

    Raises:
        ReachabilityError: they do not reach all of them.
    """
    wanted = (arguments.new_inputs or {})["input"]
    problems = await engine.in_thread(
        reachability.problems, engine.client(), wanted["image"], wanted["mirrors"]
    )
    if problems:
        raise ReachabilityError(reachability.explained(problems, wanted["mirrors"]))
