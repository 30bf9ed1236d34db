"""Where a registry may send those who ask it: by a redirect, or by naming where to get a token.

Whoever asks stands on a machine that may reach more than the registry does. So nobody is sent to
addresses at which machines of clouds get their credentials, or to services that listen on this
machine only. Other private addresses are allowed: registries of companies have theirs there.
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
            # Link-local; metadata of nearly all clouds is at 169.254.169.254.
            "169.254.0.0/16",
            "fe80::/10",
            # Metadata that is not link-local: of AWS, Alibaba, Azure and Oracle.
            "fd00:ec2::/32",
            "100.100.100.200/32",
            "168.63.129.16/32",
            "192.0.0.192/32",
        ),
    )
)

Address = IPv4Address | IPv6Address


async def check_followed(sender: httpx2.URL, target: httpx2.URL) -> None:
    """Make sure that whoever asks a registry may go where it sends them.

    Args:
        sender: whom they have asked; who listens on this machine may name others that do.
        target: where they are sent.

    Raises:
        ContentError: they may not.
    """
    if target.scheme not in {"http", "https"} or not target.host:
        raise ContentError(
            f"{sender.host} sends to {str(target)!r}; allowed: a URL with http:// or https://"
        )
    if target.host == sender.host:
        return
    found = await _addresses(target.host)
    for address in found:
        if any(address in network for network in NEVER):
            raise ContentError(
                f"{sender.host} sends to {target.host}, which is {address}: "
                "link-local and metadata addresses are not followed"
            )
    if any(map(_is_here, found)) and not any(map(_is_here, await _addresses(sender.host))):
        raise ContentError(
            f"{sender.host} sends to {target.host}, which is this machine: that is not followed"
        )


def _is_here(address: Address) -> bool:
    # What is sent to the unspecified address arrives here too.
    return address.is_loopback or address.is_unspecified


async def _addresses(host: str) -> list[Address]:
    """The addresses of a host; none where it has none, and so cannot be asked."""
    loop = asyncio.get_running_loop()
    try:
        found = await loop.getaddrinfo(host, None, type=socket.SOCK_STREAM)
    except (OSError, UnicodeError):
        return []
    addresses = [ip_address(str(name[0])) for *_, name in found]
    return [getattr(address, "ipv4_mapped", None) or address for address in addresses]
