"""Checks of the addresses that a registry names in redirects and token realms.

This machine may reach more than the registry does. So a registry cannot send it to the metadata
services of clouds, or to services that listen on this machine only. Other private addresses are
allowed, because company registries have them.
"""

import asyncio
import socket
from ipaddress import IPv4Address, IPv6Address, ip_address, ip_network

import httpx2

from talos_registry_cache.registry.errors import ContentError

NEVER = tuple(
    map(
        ip_network,
        (
            # Link-local; nearly all clouds serve metadata at 169.254.169.254.
            "169.254.0.0/16",
            "fe80::/10",
            # Metadata services that are not link-local: AWS, Alibaba, Azure and Oracle.
            "fd00:ec2::/32",
            "100.100.100.200/32",
            "168.63.129.16/32",
            "192.0.0.192/32",
        ),
    )
)

Address = IPv4Address | IPv6Address


async def check_followed(sender: httpx2.URL, target: httpx2.URL) -> None:
    """Make sure that a client may follow a registry to a URL.

    Args:
        sender: the registry; one on this machine may name other services on this machine.
        target: the URL that it names.

    Raises:
        ContentError: the client may not.
    """
    if target.scheme not in {"http", "https"} or not target.host:
        raise ContentError(
            f"{sender.host} refers to {str(target)!r}; allowed: an http:// or https:// URL"
        )
    if target.host == sender.host:
        return
    found = await _addresses(target.host)
    for address in found:
        if any(address in network for network in NEVER):
            raise ContentError(
                f"{sender.host} refers to {target.host} ({address}); "
                "link-local and metadata addresses are not allowed"
            )
    if any(map(_is_here, found)) and not any(map(_is_here, await _addresses(sender.host))):
        raise ContentError(
            f"{sender.host} refers to {target.host}, which is this machine; that is not allowed"
        )


def _is_here(address: Address) -> bool:
    # Connections to the unspecified address reach this machine too.
    return address.is_loopback or address.is_unspecified


async def _addresses(host: str) -> list[Address]:
    """The addresses of a host; none if its name does not resolve."""
    loop = asyncio.get_running_loop()
    try:
        found = await loop.getaddrinfo(host, None, type=socket.SOCK_STREAM)
    except (OSError, UnicodeError):
        return []
    addresses = [ip_address(str(name[0])) for *_, name in found]
    return [getattr(address, "ipv4_mapped", None) or address for address in addresses]
