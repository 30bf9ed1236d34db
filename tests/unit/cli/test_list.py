"""cachectl list, of storages in memory."""

import json
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from types import SimpleNamespace
from typing import Any

import pytest
from typer.testing import CliRunner, Result

from talos_registry_cache.cli import caches, stack
from talos_registry_cache.cli.__main__ import app
from talos_registry_cache.cli.errors import UsageError
from talos_registry_cache.cli.stack import Stack
from talos_registry_cache.registry import reference
from tests.unit.registry.support import images
from tests.unit.registry.support.images import Blob
from tests.unit.registry.support.stored import Stored, artifact

AT = int(time.mktime((2026, 11, 28, 5, 31, 0, 0, 0, -1)))
List = Callable[..., Result]


@pytest.fixture
def storages(monkeypatch: pytest.MonkeyPatch) -> Mapping[str, Stored]:
    """The storages of a stack with two caches; those of docker.io have a signed image."""
    hub, quay = Stored(), Stored()
    image = images.index({"linux/amd64": images.image(Blob(b"layer" * 1000))})
    digest = hub.add(image, "team/app", asked=AT)
    hub.add(artifact(), "team/app", f"{digest.replace(':', '-')}.sig")
    hub.add(images.image(Blob(b"other")), "team/alone", None)
    quay.add(artifact(), "team/lost", f"{digest.replace(':', '-')}.sig")
    made = {"docker.io": hub, "quay.io": quay}
    found = {host: SimpleNamespace(registry=host, has_front=False) for host in made}

    @contextmanager
    def opened(_: str | None) -> Iterator[Stack]:
        engine: Any = None
        stubs: Any = found
        yield Stack("team", stubs, engine)

    monkeypatch.setattr(stack, "opened", opened)
    monkeypatch.setattr(caches, "storage_of", lambda _, cache: made[cache.registry])
    return made


@pytest.fixture
def listed(storages: Mapping[str, Stored]) -> List:
    assert storages
    return lambda *arguments: CliRunner().invoke(app, ["list", *arguments])


def test_the_table_has_a_line_for_each_image(listed: List) -> None:
    lines = [line.strip() for line in listed("docker.io").stdout.splitlines() if line.strip()]

    assert lines[0].split() == [
        "image", "digest", "platforms", "size", "last", "request", "attachments",
    ]  # fmt: skip
    assert len(lines) == 4
    assert lines[2].startswith("docker.io/team/alone@sha256:")
    assert lines[3].startswith("docker.io/team/app:1 ")
    assert lines[3].endswith("2026-11-28 05:31   1 signature")
    assert "   linux/amd64   " in lines[3]


def test_json_has_the_images_of_each_cache(listed: List, storages: Mapping[str, Stored]) -> None:
    result = json.loads(listed("--json").stdout)

    assert list(result) == ["docker.io", "quay.io"]
    _, app_image = result["docker.io"]
    assert app_image["image"] == "docker.io/team/app:1"
    assert app_image["digest"] in storages["docker.io"].blobs
    assert app_image["platforms"] == ["linux/amd64"]
    assert (app_image["lastRequest"], app_image["attachments"]) == (AT, {"signature": 1})
    [orphan] = result["quay.io"]
    assert orphan["subject"] == app_image["digest"]


def test_references_are_sorted_and_are_images(listed: List) -> None:
    lines = listed("--format", "references").stdout.splitlines()

    assert [line.partition("@")[0] for line in lines] == [
        "docker.io/team/alone",
        "docker.io/team/app:1",
    ]
    assert [str(reference.parse(line)) for line in lines] == lines


def test_an_empty_cache_is_no_error(listed: List, storages: Mapping[str, Stored]) -> None:
    storages["quay.io"].links.clear()

    done = listed("quay.io")

    assert (done.exit_code, done.stdout, done.stderr) == (0, "", "the caches are empty\n")


def test_wrong_usage_is_refused(listed: List) -> None:
    for arguments in (["--json", "--format", "references"], ["gcr.io"]):
        assert isinstance(listed(*arguments).exception, UsageError)
    assert listed("--format", "yaml").exit_code == 2
