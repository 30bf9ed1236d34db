"""Whether nodes reach the mirrors: a temporary container on another network requests them.

Nodes are containers, on networks of their own, and pull directly from the upstream when a mirror
does not answer. So nobody notices a firewall that drops their packets.
"""

from collections.abc import Collection, Mapping
from ipaddress import AddressValueError, IPv4Address
from typing import Any
from urllib.parse import urlsplit

from docker import DockerClient
from docker.errors import DockerException
from docker.types import LogConfig

from talos_registry_cache.engine import file_owner, temporary_container
from talos_registry_cache.errors import ReportedError

NETWORK = "bridge"
"""The engine's default network: caches and clusters have networks of their own."""
ANSWER_WITHIN_S = 5
CONTAINER_WITHIN_S = 60
NO_ANSWER = f"no answer within {ANSWER_WITHIN_S} s"
# Any HTTP status is an answer: 401 if readers need a password, 400 for HTTP on a port with TLS.
# wget's own option for a time limit crashes in Debian's static busybox.
SCRIPT = f"""
for url; do (
  said=$(busybox timeout {ANSWER_WITHIN_S} busybox wget -q -O /dev/null "$url" 2>&1) && said=answer
  case "$said" in *'server returned error'*) said=answer; esac
  echo "$url $said"
) & done
wait
"""
REFUSED = "refused"
UNKNOWN_NAME = "bad address"


class ReachabilityError(ReportedError):
    """Nodes cannot reach mirrors, or that cannot be tried."""


def is_for_nodes(mirror: str, published: Collection[str]) -> bool:
    """Whether a mirror is meant for containers of this engine.

    It is not if its host is loopback, or an address at which its port is not published.

    Args:
        mirror: the URL of the mirror.
        published: the addresses at which its port is published; an empty one is any address.
    """
    host = urlsplit(mirror).hostname or ""
    try:
        address = IPv4Address(host)
    except AddressValueError:
        return host != "localhost"
    return not address.is_loopback and not {host, "", "0.0.0.0"}.isdisjoint(published)  # noqa: S104


def problems(engine: DockerClient, image: str, mirrors: Mapping[str, str]) -> dict[str, str]:
    """Request mirrors from one temporary container.

    Args:
        engine: the engine.
        image: an image with busybox, such as that of the caches.
        mirrors: the URLs of the mirrors, by registry host.

    Returns:
        What went wrong, by registry host. Mirrors that answer are left out.

    Raises:
        ReachabilityError: the engine cannot run the container, or has no such network.
    """
    requested = {
        registry: f"http://{urlsplit(url).netloc}/v2/" for registry, url in mirrors.items()
    }
    try:
        # With `bridge: none`, the container would be created without a network.
        engine.networks.get(NETWORK)
        said = _request(engine, image, requested.values())
    except (DockerException, OSError) as error:
        raise ReachabilityError(f"cannot try whether nodes reach the caches: {error}") from error
    found = {registry: said.get(url, NO_ANSWER) for registry, url in requested.items()}
    return {registry: answer for registry, answer in found.items() if answer != "answer"}


def explained(problems: Mapping[str, str], mirrors: Mapping[str, str]) -> str:
    """A message for mirrors that cannot be reached: what was tried, and the likely cause."""
    tried = "".join(
        f"\n  {registry} at {mirrors[registry]}: {problem}"
        for registry, problem in problems.items()
    )
    return (
        f"nodes cannot reach these mirrors, as a container on the network {NETWORK} shows:{tried}\n"
        f"{_likely_cause(' '.join(problems.values()))}; "
        "see docs/troubleshooting.md#nodes-cannot-reach-the-caches"
    )


def _likely_cause(problems: str) -> str:
    if UNKNOWN_NAME in problems:
        return "Containers cannot resolve this name: set caches.mirrorHost to an address"
    if REFUSED in problems:
        return (
            "Likely cause: no port is published at this address (caches.publishOn), or a firewall "
            "rejects packets from containers"
        )
    return (
        "Likely cause: a firewall drops packets from containers to this machine, or the engine "
        "runs with `userland-proxy: false`, which isolates its networks from each other"
    )


def _request(engine: DockerClient, image: str, urls: Collection[str]) -> Mapping[str, str]:
    settings: dict[str, Any] = {
        "entrypoint": ["sh", "-c", SCRIPT, "sh"],
        "command": list(urls),
        "network_mode": NETWORK,
        "user": file_owner.user(),
        # The engine's own may be one that logs cannot be read from.
        "log_config": LogConfig(type=LogConfig.types.JSON),
    }
    container = temporary_container.create(engine, image, "reachability", **settings)
    try:
        container.start()
        container.wait(timeout=CONTAINER_WITHIN_S)
        printed = container.logs(stderr=False).decode(errors="replace")
    finally:
        temporary_container.remove(container)
    said = {}
    for line in printed.splitlines():
        url, _, message = line.partition(" ")
        said[url] = message.removeprefix("wget: ") or NO_ANSWER
    return said
