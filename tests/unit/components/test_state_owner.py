import json
import socket
from pathlib import Path

import pytest

from components import state_owner
from tests.unit.components import stack_graph


@pytest.fixture(autouse=True)
def _machine(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(socket, "gethostname", lambda: "Laptop.lan")
    monkeypatch.setenv("PULUMI_HOME", str(tmp_path))
    monkeypatch.setenv("HOME", "/home/ann")
    monkeypatch.delenv("PULUMI_BACKEND_URL", raising=False)


def of_this_program() -> str:
    found: list[str] = []
    stack_graph.run(lambda: found.append(state_owner.of_this_program()))
    return found[0].replace(f"#{stack_graph.ORGANIZATION}/{stack_graph.PROJECT}", "#…")


@pytest.mark.parametrize(
    ("backend", "found"),
    [
        ("file:///home/ann/caches/.state", "file://Laptop.lan/home/ann/caches/.state#…"),
        ("file:///home/ann/my%20caches/", "file://Laptop.lan/home/ann/my%20caches#…"),
        ("file://~", "file://Laptop.lan/home/ann#…"),
        ("file://~/caches/../state", "file://Laptop.lan/home/ann/state#…"),
        ("https://api.pulumi.com", "https://api.pulumi.com#…"),
        ("s3://states/caches?region=eu-1&profile=ann", "s3://states/caches#…"),
        ("postgres://ann:hunter2@db.test:5432/states", "postgres://db.test:5432/states#…"),
    ],
)
def test_the_owner_is_the_backend_url_without_secrets(
    backend: str, found: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PULUMI_BACKEND_URL", backend)

    assert of_this_program() == found


def test_a_relative_backend_folder_is_resolved(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("PULUMI_BACKEND_URL", "file://./state")

    assert of_this_program() == f"file://Laptop.lan{tmp_path}/state#…"


def test_the_backend_is_the_one_of_pulumi_login(tmp_path: Path) -> None:
    file = tmp_path / "credentials.json"
    file.write_text(json.dumps({"current": "s3://states", "accessTokens": {}}))

    assert of_this_program() == "s3://states#…"


@pytest.mark.parametrize("text", [None, "", "{", "[]", "{}", '{"current": ""}', '{"current": 1}'])
def test_the_backend_is_the_cloud_by_default(text: str | None, tmp_path: Path) -> None:
    if text is not None:
        (tmp_path / "credentials.json").write_text(text)

    assert of_this_program() == "https://api.pulumi.com#…"


CLOUD = "https://api.pulumi.com#ann/caches"
FILES = "file://Laptop.lan/home/ann/.state#o/p"


@pytest.mark.parametrize(
    ("one", "other", "is_same"),
    [
        (FILES, FILES, True),
        (CLOUD, CLOUD, True),
        (CLOUD, f"{CLOUD}s", False),
        (FILES, "file://renamed.lan/home/ann/.state#o/p", True),
        (FILES, "file://Laptop.lan/home/bob/.state#o/p", False),
        (FILES, "file://Laptop.lan/home/ann/.state#o/q", False),
        (FILES, "https://Laptop.lan/home/ann/.state#o/p", False),
    ],
)
def test_owners_in_files_are_compared_by_folder(one: str, other: str, *, is_same: bool) -> None:
    assert state_owner.is_same(one, other) is is_same


def test_a_state_is_gone_only_if_its_local_folder_does_not_exist(
    tmp_path: Path,
) -> None:
    there = tmp_path / "my states"
    there.mkdir()
    url = f"file://Laptop.lan{tmp_path}/my%20states#o/p"
    assert not state_owner.is_gone(url)
    there.rmdir()

    assert state_owner.is_gone(url)
    assert not state_owner.is_gone(url.replace("Laptop", "another"))
    assert not state_owner.is_gone("https://api.pulumi.com#o/p")
