"""The resources of a stack on a Swarm, found by label."""

import functools

from tests.integration.support import processes
from tests.integration.support.belongings import STACK_LABEL
from tests.integration.support.polling import eventually

KINDS = ("service", "secret", "config", "network")
GONE_WITHIN_S = 60


def of_stack(host: str, stack: str) -> dict[str, list[str]]:
    """The names of all resources of a stack, by kind, on the Swarm of a manager."""
    names = {kind: _names(host, kind, stack) for kind in KINDS}
    return {kind: found for kind, found in names.items() if found}


def remove(host: str, stack: str) -> None:
    """Remove all resources of a stack, in any state."""
    for kind in KINDS:
        eventually(
            functools.partial(_removed, host, kind, stack),
            within_s=GONE_WITHIN_S,
            what=f"each {kind} is gone",
        )


def _removed(host: str, kind: str, stack: str) -> bool:
    if names := _names(host, kind, stack):
        processes.finish(["docker", "--host", host, kind, "rm", *names], within_s=GONE_WITHIN_S)
    return not names


def _names(host: str, kind: str, stack: str) -> list[str]:
    listed = ("ls", "--filter", f"label={STACK_LABEL}={stack}", "--format", "{{.Name}}")
    return processes.run("docker", "--host", host, kind, *listed).split()
