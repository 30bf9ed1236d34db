"""Images that nodes cannot pull, from the console of a Talos 1.13.0 node."""

import pytest

from talos_registry_cache.talos import failed_pulls

IMAGE = "registry.k8s.io/etcd:v3.6.9"
BEGIN = (
    '[talos] 2026/11/27 13:39:57 retrying error: failed to pull image "registry.k8s.io/etcd:v3.6.9"'
    ': failed to resolve reference "registry.k8s.io/etcd:v3.6.9": '
)
HEAD = 'Head "http://192.0.2.1:5001/v2/etcd/manifests/v3.6.9?ns=registry.k8s.io": '


@pytest.mark.parametrize(
    ("console", "expected"),
    [
        (
            [f"{BEGIN}failed to do request: {HEAD}dial tcp 192.0.2.1:5001: i/o timeout"],
            {IMAGE: f"{HEAD}dial tcp 192.0.2.1:5001: i/o timeout"},
        ),
        ([f"{BEGIN}{IMAGE}: not found"], {IMAGE: f'failed to resolve reference "{IMAGE}": '
                                                 f"{IMAGE}: not found"}),
        ([f"{BEGIN}failed to do request: {HEAD}context canceled"], {}),
        ([f'failed to pull image "{IMAGE}": 2 error(s) occurred:'], {}),
        (["[talos] 2026/11/27 13:39:57 service[etcd](Running): Health check successful"], {}),
    ],
    ids=["unreachable", "missing", "tried again", "list", "no failure"],
)  # fmt: skip
def test_the_image_and_the_cause_are_found(console: list[str], expected: dict[str, str]) -> None:
    assert failed_pulls.find("\n".join(console)) == expected


def test_the_last_failure_of_an_image_counts() -> None:
    console = "\n".join(f"{BEGIN}failed to do request: {cause}" for cause in ("first", "last"))

    assert failed_pulls.find(console) == {IMAGE: "last"}
