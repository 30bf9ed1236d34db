"""The addresses to which a registry may refer a client."""

import asyncio

import httpx2
import pytest

from talos_registry_cache.registry.addresses import check_followed
from talos_registry_cache.registry.errors import ContentError

# 192.0.2.0/24 and 198.51.100.0/24 are reserved for documentation.
ELSEWHERE, HERE = "http://192.0.2.1:5000/v2/", "http://127.0.0.1:5000/v2/"


def check(sender: str, target: str) -> None:
    asyncio.run(check_followed(httpx2.URL(sender), httpx2.URL(target)))


@pytest.mark.parametrize(
    ("sender", "target"),
    [
        (ELSEWHERE, "https://198.51.100.1/token"),
        (ELSEWHERE, "http://10.0.0.1:8080/token"),
        (ELSEWHERE, "https://nobody.invalid/token"),
        (HERE, "http://127.0.0.1:5001/token"),
        (HERE, "http://localhost:5001/token"),
        (HERE, "http://[::1]/token"),
        (HERE, "http://192.168.1.1/token"),
    ],
)
def test_other_addresses_are_allowed(sender: str, target: str) -> None:
    check(sender, target)


@pytest.mark.parametrize("sender", [ELSEWHERE, HERE])
@pytest.mark.parametrize(
    "host",
    [
        "169.254.0.1",
        "169.254.169.254:80",
        "[fe80::1]",
        "[fe80::1%lo]",
        "[::ffff:169.254.169.254]",
        "[fd00:ec2::254]",
        "100.100.100.200",
        "168.63.129.16",
        "0xa9fea9fe",
        "2852039166",
        "169.254.43518",
    ],
)
def test_link_local_and_metadata_addresses_are_refused(sender: str, host: str) -> None:
    with pytest.raises(ContentError, match="link-local and metadata addresses are not allowed"):
        check(sender, f"http://{host}/")


@pytest.mark.parametrize("host", ["127.0.0.1", "127.1", "localhost", "[::1]", "0.0.0.0", "[::]"])
def test_a_registry_elsewhere_cannot_refer_to_this_machine(host: str) -> None:
    with pytest.raises(ContentError, match="which is this machine"):
        check(ELSEWHERE, f"http://{host}:5000/")


@pytest.mark.parametrize("target", ["", "/token", "ftp://198.51.100.1/", "file:///etc/passwd"])
def test_other_urls_are_refused(target: str) -> None:
    with pytest.raises(ContentError, match="allowed: an http:// or https:// URL"):
        check(ELSEWHERE, target)
