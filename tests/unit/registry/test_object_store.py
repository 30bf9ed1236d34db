import hashlib
import json
from pathlib import Path

import obstore
import pytest
from hypothesis import given
from hypothesis import strategies as st
from obstore.store import MemoryStore

from talos_registry_cache.registry import layout, manifests, object_store
from talos_registry_cache.registry.layout import Kind, Storage, Upload
from talos_registry_cache.registry.object_store import StoreError, opened
from talos_registry_cache.registry.s3_location import Keys, Place, place_in
from tests.unit.registry.support import folders


def digest(content: bytes) -> str:
    return f"sha256:{hashlib.sha256(content).hexdigest()}"


REPOSITORIES = ("team/app", "library/tool")
CONTENTS = (b"", b"a layer", b'{"schemaVersion": 2}')
MANIFEST = json.dumps({"schemaVersion": 2, "manifests": [{"digest": digest(b"a layer")}]}).encode()
NAMES = st.from_regex(r"[a-z0-9]([a-z0-9.-]{0,20}[a-z0-9])?", fullmatch=True)


def written(files: dict[str, bytes]) -> MemoryStore:
    store = MemoryStore()
    for path, content in files.items():
        obstore.put(store, path, content)
    return store


def content_and_links(stored: Storage) -> tuple[object, object, object]:
    """What is stored, but for the times."""
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
def test_the_same_files_read_the_same_in_a_volume_and_in_an_object_store(
    tmp_path_factory: pytest.TempPathFactory, files: dict[str, bytes]
) -> None:
    root = tmp_path_factory.mktemp("volume")
    for path, content in files.items():
        (root / path).parent.mkdir(parents=True, exist_ok=True)
        (root / path).write_bytes(content)

    in_volume, in_store = folders.read(root), object_store.read(written(files))

    assert content_and_links(in_store) == content_and_links(in_volume)
    assert {(str(one.digest), one.problem) for one in layout.damages(in_store)} == {
        (str(one.digest), one.problem) for one in layout.damages(in_volume)
    }


@given(FILES, st.integers(min_value=1, max_value=2))
def test_what_is_removed_is_gone_and_all_else_stays(files: dict[str, bytes], times: int) -> None:
    store = written(files)
    doomed = [
        layout.blob_folder(digest(b"a layer")),
        f"{layout.V2}/repositories/team/app/_layers",
    ]

    for _ in range(times):
        object_store.remove(store, doomed)

    left = {one["path"] for page in obstore.list(store) for one in page}
    assert left == {
        path for path in files if not any(path.startswith(f"{folder}/") for folder in doomed)
    }


def test_a_folder_whose_name_begins_likewise_is_not_removed() -> None:
    store = written({"a/b/data": b"1", "a/bc/data": b"2", "a/b": b"3"})

    object_store.remove(store, ["a/b"])

    assert [one["path"] for page in obstore.list(store) for one in page] == ["a/b", "a/bc/data"]


def test_content_is_handed_on_in_turn_where_that_is_asked_for() -> None:
    contents = [bytes([number]) * 3_000_000 for number in range(4)]
    store = written({data(content): content for content in contents})
    order: list[str] = []
    got: dict[str, bytes] = {}

    def take(name: str, size: int, piece: bytes) -> None:
        assert size == 3_000_000
        if not order or order[-1] != name:
            order.append(name)
        got[name] = got.get(name, b"") + piece

    object_store.read(store, take, in_turn=True)

    assert sorted(order) == sorted(map(digest, contents))
    assert got == {digest(content): content for content in contents}


def test_only_what_may_be_a_manifest_is_read_where_names_are_trusted() -> None:
    large = bytes(manifests.SIZE_LIMIT + 1)
    store = written({data(content): content for content in (large, MANIFEST)})
    obstore.put(store, data(b"another"), large)
    got: list[str] = []

    stored = object_store.read(store, lambda name, *_: got.append(name), trusting=True)

    assert got == [digest(MANIFEST)]
    assert stored.blobs[digest(MANIFEST)].refers_to == (digest(b"a layer"),)
    assert stored.blobs[digest(b"another")].size == len(large)
    assert stored.size == 2 * len(large) + len(MANIFEST)


def test_tags_and_sizes_are_known_from_names_alone() -> None:
    files = {
        layout.link_file(Kind.TAG, "team/app", digest(b""), tag): b"unread" for tag in ("1", "2")
    }
    store = written({**files, data(b"a layer"): b"a layer"})

    assert object_store.tags(store) == [("team/app", "1"), ("team/app", "2")]
    assert object_store.size(store) == 2 * 6 + 7


def test_uploads_are_left_behind_once_nothing_was_written_for_long() -> None:
    folder = f"{layout.V2}/repositories/team/app/_uploads"
    old, new = Upload(f"{folder}/old", 10, 1000), Upload(f"{folder}/new", 10, 2000)

    assert layout.left_behind(Storage({}, (), (old, new)), 1500) == (old,)


PLACES = st.builds(
    Place,
    bucket=NAMES,
    folder=NAMES.map(lambda name: f"{name}/docker.io"),
    region=NAMES,
    endpoint=st.none() | NAMES.map(lambda name: f"http://{name}:9000"),
    path_style=st.booleans(),
)


@given(PLACES)
def test_a_place_is_found_again_in_the_environment_of_its_registry(place: Place) -> None:
    assert place_in(place.environment("/credentials/s3-keys")) == place


def test_a_registry_on_a_volume_is_in_no_place() -> None:
    assert place_in({"REGISTRY_PROXY_TTL": "0"}) is None


@pytest.mark.parametrize(
    ("place", "url"),
    [
        (Place("b", "f", endpoint="http://store:9000/"), "http://store:9000/b"),
        (Place("b", "f", endpoint="http://store:9000", path_style=False), "http://b.store:9000"),
        (Place("b", "f", "eu-west-1", path_style=False), "https://b.s3.eu-west-1.amazonaws.com"),
        (Place("b", "f", "eu-west-1"), "https://s3.eu-west-1.amazonaws.com/b"),
    ],
)
def test_the_bucket_is_in_the_path_or_in_the_host_name(place: Place, url: str) -> None:
    assert place.url == url
    assert str(place) == "s3://b/f"


def test_keys_are_not_shown() -> None:
    keys = Keys("AKIA", "s3cret")

    assert repr(keys) == "Keys()"
    assert "aws_secret_access_key = s3cret\n" in keys.file


def test_a_store_that_is_away_is_an_error_that_says_so(tmp_path: Path) -> None:
    del tmp_path
    place = Place("b", "f", endpoint="http://127.0.0.1:1")

    with pytest.raises(StoreError, match="cannot list the object store: "):
        object_store.tags(opened(place, Keys("access", "s3cret")))
