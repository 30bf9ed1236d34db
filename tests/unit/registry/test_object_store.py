import hashlib
import json
import os
from collections.abc import Iterator
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from components.certificate_authority import issue_authority, issue_server
from talos_registry_cache.registry import layout, manifests, object_store
from talos_registry_cache.registry.layout import Blob, Kind, Storage
from talos_registry_cache.registry.object_store import StoreError, opened
from talos_registry_cache.registry.s3_location import S3Credentials, S3Location
from tests.unit.registry.support import fake_s3, folders
from tests.unit.registry.support.fake_s3 import LOCATION, holding
from tests.unit.registry.support.tiny_registry import TinyRegistry, serving


def digest(content: bytes) -> str:
    return f"sha256:{hashlib.sha256(content).hexdigest()}"


REPOSITORIES = ("team/app", "library/tool")
CONTENTS = (b"", b"a layer", b'{"schemaVersion": 2}')
MANIFEST = json.dumps({"schemaVersion": 2, "manifests": [{"digest": digest(b"a layer")}]}).encode()
NAMES = st.from_regex(r"[a-z0-9]([a-z0-9.-]{0,20}[a-z0-9])?", fullmatch=True)


def content_and_links(stored: Storage) -> tuple[object, object, object]:
    """The content of a storage without modification times."""
    links = {(one.folder, one.kind, one.named, one.digest) for one in stored.links}
    uploads = {(one.path, one.size) for one in stored.uploads}
    return stored.blobs, links, uploads


def data(content: bytes) -> str:
    return f"{layout.blob_folder(digest(content))}/data"


FILES = st.dictionaries(
    st.sampled_from(
        [
            *map(data, CONTENTS),
            *(
                layout.link_file(kind, repository, digest(content), "1.0")
                for kind in Kind
                for repository in REPOSITORIES
                for content in CONTENTS
            ),
            *(
                f"{layout.V2}/repositories/{repository}/_uploads/{upload}/{file}"
                for repository in REPOSITORIES
                for upload in ("first", "second")
                for file in ("data", "startedat", "hashstates/sha256/5")
            ),
            "docker/registry/v2/nothing/of/the/kind",
            "scheduler-state.json",
        ]
    ),
    st.sampled_from([*CONTENTS, *(digest(content).encode() for content in CONTENTS)]),
)


@given(FILES)
def test_a_volume_and_an_object_store_with_the_same_files_are_read_alike(
    tmp_path_factory: pytest.TempPathFactory, files: dict[str, bytes]
) -> None:
    root = tmp_path_factory.mktemp("volume")
    for path, content in files.items():
        (root / path).parent.mkdir(parents=True, exist_ok=True)
        (root / path).write_bytes(content)

    in_volume, in_store = folders.read(root), holding(files).read()

    assert content_and_links(in_store) == content_and_links(in_volume)
    assert {(str(one.digest), one.problem) for one in layout.damages(in_store)} == {
        (str(one.digest), one.problem) for one in layout.damages(in_volume)
    }


@given(FILES, st.integers(min_value=1, max_value=2))
def test_only_the_given_folders_are_removed(files: dict[str, bytes], times: int) -> None:
    files = {**files, "a/b/data": b"1", "a/bc/data": b"2", "a/b": b"3"}
    store = holding(files)
    doomed = [
        "a/b",
        layout.blob_folder(digest(b"a layer")),
        f"{layout.V2}/repositories/team/app/_layers",
    ]

    for _ in range(times):
        store.remove(doomed)

    assert fake_s3.paths(store) == {
        path for path in files if not any(path.startswith(f"{folder}/") for folder in doomed)
    }


def test_small_objects_are_written_and_read_and_missing_ones_are_left_out() -> None:
    store = fake_s3.holding({"a": b"old"})

    store.write({"a": "new", "b/c": "text"})

    assert store.texts(["a", "b/c", "missing"]) == {"a": "new", "b/c": "text"}


def test_content_is_passed_on_in_turn_on_request() -> None:
    contents = [bytes([number]) * 3_000_000 for number in range(4)]
    store = holding({data(content): content for content in contents})
    order: list[str] = []
    got: dict[str, bytes] = {}

    def take(name: str, size: int, piece: bytes) -> None:
        assert size == 3_000_000
        if not order or order[-1] != name:
            order.append(name)
        got[name] = got.get(name, b"") + piece

    store.read(take, in_turn=True)

    assert sorted(order) == sorted(map(digest, contents))
    assert got == {digest(content): content for content in contents}


def test_trusting_reads_only_what_may_be_a_manifest() -> None:
    large = bytes(manifests.SIZE_LIMIT + 1)
    store = holding({data(large): large, data(MANIFEST): MANIFEST, data(b"another"): large})
    got: list[str] = []

    stored = store.read(lambda name, *_: got.append(name), trusting=True)

    assert got == [digest(MANIFEST)]
    assert stored.blobs[digest(MANIFEST)].refers_to == (digest(b"a layer"),)
    assert stored.blobs[digest(b"another")].size == len(large)
    assert stored.size == 2 * len(large) + len(MANIFEST)


def test_a_broken_transfer_is_resumed_a_few_times() -> None:
    content = bytes(range(200))
    store = holding({data(content): content})
    client: Any = store.client

    client.breaks_after = 50
    assert store.read().blobs == {digest(content): Blob(200, digest(content))}
    client.breaks_after = 49
    with pytest.raises(StoreError, match=f"cannot read {LOCATION}: "):
        store.read()


def test_an_object_that_is_deleted_meanwhile_is_left_out() -> None:
    store = holding({data(b"a layer"): b"a layer"})
    client: Any = store.client
    client.get_object = lambda **_: (_ for _ in ()).throw(fake_s3.NotFoundError)

    assert store.read().blobs == {}


LOCATIONS = st.builds(
    S3Location,
    bucket=NAMES,
    folder=NAMES.map("{}/docker.io".format),
    region=NAMES,
    endpoint=st.none() | NAMES.map("http://{}:9000".format),
    path_style=st.booleans(),
)


@given(LOCATIONS)
def test_a_location_is_read_back_from_the_environment_of_a_registry(location: S3Location) -> None:
    assert S3Location.of_registry(location.environment("/credentials/s3-keys")) == location
    assert S3Location.of_registry({"REGISTRY_PROXY_TTL": "0"}) is None


# Credentials

EXPLICIT = S3Credentials("access", "s3cret")


@pytest.fixture
def aws(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[pytest.MonkeyPatch]:
    """An environment in which botocore finds nothing."""
    for name in os.environ:
        if name.startswith("AWS_"):
            monkeypatch.delenv(name)
    for name in ("AWS_SHARED_CREDENTIALS_FILE", "AWS_CONFIG_FILE"):
        monkeypatch.setenv(name, str(tmp_path / name))
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")
    object_store._session.cache_clear()
    yield monkeypatch
    object_store._session.cache_clear()


def test_temporary_credentials_of_a_profile_are_found_and_not_shown(
    aws: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    temporary = S3Credentials("access", "s3cret", "t0ken")
    path = tmp_path / "AWS_SHARED_CREDENTIALS_FILE"
    path.write_text(temporary.file.replace("default", "team"))
    aws.setenv("AWS_PROFILE", "team")

    found = object_store.credentials_of_user()

    assert (found, repr(found)) == (temporary, "S3Credentials()")


@pytest.mark.parametrize(
    ("variables", "why"),
    [
        ({}, "allowed: AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, or a profile"),
        ({"AWS_PROFILE": "none"}, "none"),
        ({"AWS_ACCESS_KEY_ID": "access"}, "AWS_SECRET_ACCESS_KEY"),
    ],
)
def test_missing_credentials_are_an_error(
    aws: pytest.MonkeyPatch, variables: dict[str, str], why: str
) -> None:
    for name, value in variables.items():
        aws.setenv(name, value)

    with pytest.raises(StoreError, match=why), opened(LOCATION):
        pass
    with pytest.raises(StoreError, match=why):
        object_store.credentials_of_user()


def test_the_users_ca_is_read_from_aws_ca_bundle(aws: pytest.MonkeyPatch, tmp_path: Path) -> None:
    aws.setenv("AWS_ACCESS_KEY_ID", "access")
    aws.setenv("AWS_SECRET_ACCESS_KEY", "s3cret")
    aws.setenv("AWS_CA_BUNDLE", str(tmp_path / "ca.pem"))

    with pytest.raises(StoreError, match="AWS_CA_BUNDLE"):
        object_store.ca_of_user()
    (tmp_path / "ca.pem").write_text("PEM")
    assert object_store.ca_of_user() == "PEM"


@pytest.mark.parametrize(
    ("endpoint", "path_style", "url"),
    [
        ("http://s:90", True, "http://s:90/bucket"),
        ("http://s:90", False, "http://bucket.s:90"),
        (None, True, "https://s3.eu-west-1.amazonaws.com/bucket"),
        (None, False, "https://bucket.s3.eu-west-1.amazonaws.com"),
    ],
)
def test_requests_go_to_the_endpoint_of_the_location(
    aws: pytest.MonkeyPatch, endpoint: str | None, url: str, *, path_style: bool
) -> None:
    aws.setenv("AWS_ENDPOINT_URL", "http://elsewhere")
    location = S3Location("bucket", "f", "eu-west-1", endpoint, path_style=path_style)

    with opened(location, EXPLICIT) as store:
        params = {"Bucket": location.bucket, "Key": "k"}
        signed = store.client.generate_presigned_url("get_object", Params=params)

    assert signed.startswith(f"{url}/k?")


def test_only_a_store_with_the_ca_of_the_location_is_trusted(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(object_store, "TRIES", 1)
    now = datetime.now(UTC)
    authority = issue_authority("tests", now)
    with serving(TinyRegistry(), issue_server(authority, ["127.0.0.1"], now)) as server:
        # It answers like a registry, which is enough to tell that TLS works.
        url = f"{server.url}/v2/team/app"
        trusted = S3Location("bucket", "f", endpoint=url, ca=authority.certificate)
        away = S3Location("bucket", "f", endpoint="http://127.0.0.1:1")
        for location, why in (
            (trusted, r"\(404\)"),
            (replace(trusted, ca=None), "SSL"),
            (away, r"cannot list s3://bucket/f: .*127\.0\.0\.1:1"),
        ):
            with pytest.raises(StoreError, match=why), opened(location, EXPLICIT) as store:
                store.tags()
