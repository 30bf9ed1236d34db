from dataclasses import replace
from typing import Any

import pytest

from talos_registry_cache.endpoint import Endpoint
from talos_registry_cache.talos.cluster_spec import ClusterSpec
from talos_registry_cache.talos.errors import SpecError

OPEN = {"quay.io": Endpoint("http://10.5.0.1:5000")}
TLS = {"quay.io": Endpoint("https://10.5.0.1:5000")}


def with_mirror(url: str, **access: str) -> ClusterSpec:
    return ClusterSpec(name="demo", mirrors={"quay.io": Endpoint(url, **access)})


@pytest.mark.parametrize("name", ["Demo", "-demo", "demo-", "a/b", "", "a" * 41])
def test_names_that_cannot_be_part_of_a_hostname_are_refused(name: str) -> None:
    with pytest.raises(SpecError, match=r"found the name .* allowed: up to 40 lowercase letters"):
        ClusterSpec(name=name)


@pytest.mark.parametrize(
    ("wanted", "error"),
    [
        ({"cidr": "10.5.0.0/30"}, "found 2 nodes; allowed: up to 1"),
        ({"cidr": "10.5.0.0/29", "workers": 5}, "found 6 nodes; allowed: up to 5"),
        ({"workers": 300}, r"up to 253, which fit into the cidr 10\.5\.0\.0/24"),
        ({"mirrors": {"a b": Endpoint("http://c")}}, "found the registry 'a b'"),
        ({"extra_arguments": ("--state=/tmp",)}, "the argument --state, which is set for you"),
        *(
            ({"mirrors": {"quay.io": Endpoint(url)}}, "found the mirror .* of quay.io; allowed")
            for url in ("10.5.0.1:5000", "http://", "http://a,b", "ftp://a")
        ),
    ],
)
def test_clusters_that_no_talosctl_can_create_are_refused(
    wanted: dict[str, Any], error: str
) -> None:
    with pytest.raises(SpecError, match=error):
        ClusterSpec(**{"name": "demo"} | wanted)


def test_all_mistakes_are_reported_together() -> None:
    with pytest.raises(SpecError, match=r"found 301 nodes.*found the argument --name"):
        ClusterSpec(name="demo", workers=300, extra_arguments=("--name=other",))


def test_credentials_in_the_url_of_a_mirror_are_refused_and_hidden() -> None:
    with pytest.raises(SpecError, match="has credentials") as error:
        with_mirror("http://me:s3cret@10.5.0.1:5000")

    assert "s3cret" not in str(error.value)


@pytest.mark.parametrize("access", [{"ca": "PEM"}, {"username": "me", "password": "s3cret"}])
def test_mirrors_with_a_ca_or_password_need_tls(access: dict[str, str]) -> None:
    with pytest.raises(SpecError, match="a CA or password but no TLS") as error:
        with_mirror("http://10.5.0.1:5000", **access)

    assert "s3cret" not in str(error.value)
    assert with_mirror("https://10.5.0.1:5000", **access).has_closed_mirrors


def test_skipping_verification_needs_mirrors_with_tls() -> None:
    arguments = ("--registry-insecure-skip-verify", "quay.io")
    spec = ClusterSpec(name="demo", mirrors=TLS, extra_arguments=arguments)

    with pytest.raises(SpecError, match="with a mirror without TLS"):
        replace(spec, mirrors=OPEN)
