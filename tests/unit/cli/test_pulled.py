"""Requests are added up for each image and client."""

from dataclasses import replace
from datetime import UTC, datetime, timedelta

import pytest

from talos_registry_cache.cli.pulled import FAILED, Pulls
from talos_registry_cache.registry.pull_log import Kind, Pull, Result

AT = datetime(2026, 11, 27, 18, 30, tzinfo=UTC)
DIGEST = "sha256:" + "ab" * 32


def manifest(reference: str = "1", repository: str = "app", client: str = "10.5.0.2") -> Pull:
    return Pull(
        AT, client, "GET", Kind.MANIFEST, repository, reference, "docker.io", 200, 1000, 1.0,
        Result.HIT, "containerd",
    )  # fmt: skip


def blob(**changes: object) -> Pull:
    return replace(replace(manifest(DIGEST), kind=Kind.BLOB), **changes)  # type: ignore[arg-type]


def added(*pulls: Pull) -> Pulls:
    made = Pulls()
    for pull in pulls:
        made.add("docker.io", pull)
    return made


def sizes(pulls: Pulls) -> dict[tuple[str, str], int]:
    return {(image, client): pulled.size for image, client, pulled in pulls.images()}


def test_a_blob_counts_for_the_image_that_its_client_asked_for_last() -> None:
    pulls = added(
        manifest("1"), blob(), manifest("2"), blob(), blob(),
        manifest("1", client="10.5.0.3"), blob(client="10.5.0.3"),
        blob(repository="tool"),
    )  # fmt: skip

    assert sizes(pulls) == {
        ("docker.io/app:1", "10.5.0.2"): 2000,
        ("docker.io/app:2", "10.5.0.2"): 3000,
        ("docker.io/app:1", "10.5.0.3"): 2000,
        ("docker.io/tool", "10.5.0.2"): 1000,
    }
    assert pulls.total.size == 8000


def test_the_manifest_of_a_platform_counts_for_the_tag() -> None:
    assert sizes(added(manifest("1"), manifest(DIGEST), blob())) == {
        ("docker.io/app:1", "10.5.0.2"): 3000
    }


def test_an_image_by_digest_has_a_short_name() -> None:
    assert sizes(added(manifest(DIGEST), blob())) == {
        ("docker.io/app@sha256:abababababab", "10.5.0.2"): 2000
    }


def test_requests_are_counted_by_result_and_errors_as_failed() -> None:
    missing = blob(status=404, size=0)
    pulls = added(manifest(), *(blob(result=result) for result in Result), missing)

    ((_, _, pulled),) = pulls.images()

    assert pulled.requests == pulls.total.requests
    assert pulled.requests == {"hit": 2, "shared": 1, "stale": 1, "miss": 1, "-": 1, FAILED: 1}


@pytest.mark.parametrize("ignored", [blob(status=401), blob(kind=Kind.OTHER)])
def test_logins_and_other_requests_do_not_count(ignored: Pull) -> None:
    pulls = added(ignored)

    assert (list(pulls.images()), pulls.total.size, pulls.total.rate) == ([], 0, 0)


def test_the_rate_is_that_of_the_whole_pull() -> None:
    later = blob(time=AT + timedelta(seconds=4), size=9000)

    assert added(manifest(), later).total.rate == 10_000 / 5


def test_the_image_that_was_pulled_last_is_the_first() -> None:
    pulls = added(manifest("1"), manifest("2"), manifest("1"))

    assert [image for image, _, _ in pulls.images()] == ["docker.io/app:1", "docker.io/app:2"]
