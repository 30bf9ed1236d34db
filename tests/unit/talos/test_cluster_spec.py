from typing import Any

import pytest

from talos_registry_cache.talos.cluster_spec import ClusterSpec, Provisioner
from talos_registry_cache.talos.errors import SpecError
from talos_registry_cache.talos.mirror import Mirror


def test_by_default_there_is_one_node_of_each_role() -> None:
    assert ClusterSpec(name="demo").wanted_nodes == {"controlplane": 1, "worker": 1}
    assert ClusterSpec(name="demo", workers=0).wanted_nodes == {"controlplane": 1, "worker": 0}


def test_all_but_docker_nodes_are_virtual_machines() -> None:
    assert [provisioner for provisioner in Provisioner if not provisioner.is_virtual] == ["docker"]


@pytest.mark.parametrize(
    ("wanted", "error"),
    [
        ({"name": "Demo"}, "found the name 'Demo'; allowed: .* small letters"),
        ({"name": "-demo"}, "found the name '-demo'"),
        ({"name": "a/b"}, "found the name 'a/b'"),
        ({"name": "a" * 41}, "allowed: up to 40 small letters"),
        ({"controlplanes": 0}, "found controlplanes 0; allowed: 1 or more"),
        ({"workers": -1}, "found workers -1; allowed: 0 or more"),
        ({"cpus": float("nan")}, "found cpus nan"),
        ({"cpus": float("inf")}, "found cpus inf"),
        ({"memory_mib": 0}, "found memory_mib 0"),
        ({"timeout_s": 0}, "found timeout_s 0; allowed: 1 or more"),
        ({"cidr": "10.5.0.0/33"}, "found cidr '10.5.0.0/33'; allowed: an IPv4 network such as"),
        ({"cidr": "10.5.0.1/24"}, "found cidr '10.5.0.1/24'; allowed: .*has host bits set"),
        ({"cidr": "fd00::/64"}, "found cidr 'fd00::/64'"),
        ({"cidr": "10.5.0.0/30"}, "has room for 1 nodes, and 2 are wanted"),
        ({"talos_version": "latest"}, "found talos_version 'latest'; allowed: a version such as"),
        ({"kubernetes_version": "1"}, "found kubernetes_version '1'"),
        ({"image": "a b"}, "found image 'a b'"),
        ({"mirrors": {"a b": Mirror("http://c")}}, "found the registry 'a b'"),
        (
            {"mirrors": {"quay.io": Mirror("10.5.0.1:5000")}},
            "found the mirror '10.5.0.1:5000' of quay.io",
        ),
        ({"mirrors": {"quay.io": Mirror("http://")}}, "found the mirror 'http://'"),
        ({"mirrors": {"quay.io": Mirror("http://a,b")}}, "found the mirror 'http://a,b'"),
        ({"extra_arguments": ("--state=/tmp",)}, "the argument --state, which is set for you"),
        ({"extra_arguments": ("",)}, "found an empty word"),
    ],
)
def test_what_makes_no_sense_is_an_error(wanted: dict[str, Any], error: str) -> None:
    with pytest.raises(SpecError, match=error):
        ClusterSpec(**{"name": "demo"} | wanted)


def test_all_mistakes_are_told_at_once() -> None:
    with pytest.raises(SpecError, match=r"found workers -1.*found cpus 0"):
        ClusterSpec(name="demo", workers=-1, cpus=0)


def test_credentials_in_a_mirror_are_refused_and_not_shown() -> None:
    with pytest.raises(SpecError, match="credentials in its URL") as error:
        ClusterSpec(name="demo", mirrors={"quay.io": Mirror("http://me:s3cret@10.5.0.1:5000")})

    assert "s3cret" not in str(error.value)


def test_tls_settings_are_refused_where_a_mirror_has_none() -> None:
    arguments = ("--registry-insecure-skip-verify", "quay.io")
    with pytest.raises(SpecError, match="a mirror that has no TLS"):
        ClusterSpec(
            name="demo",
            mirrors={"quay.io": Mirror("http://10.5.0.1:5000")},
            extra_arguments=arguments,
        )
    assert ClusterSpec(
        name="demo", mirrors={"quay.io": Mirror("https://10.5.0.1:5000")}, extra_arguments=arguments
    )


@pytest.mark.parametrize("more", [{"ca": "PEM"}, {"username": "me", "password": "s3cret"}])
def test_a_ca_or_a_password_is_refused_where_a_mirror_has_no_tls(more: dict[str, str]) -> None:
    with pytest.raises(SpecError, match="a CA or a password and no TLS") as error:
        ClusterSpec(name="demo", mirrors={"quay.io": Mirror("http://10.5.0.1:5000", **more)})

    assert "s3cret" not in str(error.value)
    assert ClusterSpec(name="demo", mirrors={"quay.io": Mirror("https://10.5.0.1:5000", **more)})
