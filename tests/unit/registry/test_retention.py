"""Pruning removes dropped images, and keeps all content of the others."""

import hashlib
import json
from dataclasses import dataclass, field

import pytest
from hypothesis import given
from hypothesis import strategies as st

from talos_registry_cache.registry import layout, reference, retention
from talos_registry_cache.registry.layout import Blob, Kind, Link, Storage
from talos_registry_cache.registry.retention import StoredImage

BASE, OWN, OTHER, CONFIG = b"base" * 100, b"own" * 10, b"other" * 5, b"{}"


def digest(content: bytes) -> str:
    return f"sha256:{hashlib.sha256(content).hexdigest()}"


@dataclass
class Making:
    """Builds a storage image by image."""

    blobs: dict[str, Blob] = field(default_factory=dict)
    links: list[Link] = field(default_factory=list)

    def image(self, repository: str, tag: str | None, *layers: bytes, asked: int = 0) -> str:
        """Store an image; without a tag, as after a pull by digest."""
        parts = [CONFIG, *layers]
        manifest = json.dumps({"repository": repository, "layers": list(map(digest, layers))})
        name = self._blob(manifest.encode(), tuple(map(digest, parts)))
        for part in parts:
            self._link(Kind.LAYER, repository, self._blob(part), asked=asked)
        self._link(Kind.REVISION, repository, name, asked=asked)
        if tag is not None:
            self._link(Kind.TAG, repository, name, tag, asked=asked)
            self._link(Kind.HISTORY, repository, name, tag, asked=asked)
        return name

    def index(self, repository: str, tag: str, *images: str) -> str:
        """Store an index of images."""
        name = self._blob(json.dumps(images).encode(), images)
        self._link(Kind.REVISION, repository, name)
        self._link(Kind.TAG, repository, name, tag)
        return name

    def loose(self, content: bytes) -> str:
        """Store a blob that nothing refers to."""
        return self._blob(content)

    @property
    def stored(self) -> Storage:
        return Storage(self.blobs, tuple(self.links))

    def _blob(self, content: bytes, refers_to: tuple[str, ...] = ()) -> str:
        self.blobs[digest(content)] = Blob(len(content), digest(content), refers_to)
        return digest(content)

    def _link(
        self, kind: Kind, repository: str, name: str, tag: str = "", *, asked: int = 0
    ) -> None:
        path = layout.link_file(kind, repository, name, tag)
        folder = path.removesuffix("/link").removesuffix("/current")
        named = None if kind is Kind.TAG else name
        self.links.append(Link(kind, repository, tag, named, name, folder, asked))


def left(stored: Storage, *dropped: StoredImage) -> Storage:
    """The storage after pruning."""
    gone = retention.prune(stored, dropped).folders

    def is_gone(path: str) -> bool:
        return any(path == folder or path.startswith(f"{folder}/") for folder in gone)

    return Storage(
        {
            name: blob
            for name, blob in stored.blobs.items()
            if not is_gone(layout.blob_folder(name))
        },
        tuple(link for link in stored.links if not is_gone(link.folder)),
    )


def named(stored: Storage, text: str) -> StoredImage:
    [image] = [image for image in retention.images(stored) if str(image) == text]
    return image


def test_images_are_tags_and_manifests_pulled_by_digest_only() -> None:
    making = Making()
    own = making.image("team/app", None, OWN)
    making.index("team/app", "1", own)
    making.image("team/app", "2", OTHER, asked=5)
    alone = making.image("team/tool", None, OWN, asked=9)

    images = retention.images(making.stored)

    assert [str(image) for image in images] == ["team/app:1", "team/app:2", f"team/tool@{alone}"]
    assert [image.asked for image in images] == [0, 5, 9]
    assert {own, digest(OWN), digest(CONFIG)} < images[0].content


def test_only_content_that_no_other_image_shares_is_removed() -> None:
    making = Making()
    going = making.image("team/app", "1", BASE, OWN)
    staying = making.image("team/app", "2", BASE, OTHER)
    stored = making.stored

    pruning = retention.prune(stored, [named(stored, "team/app:1")])
    rest = left(stored, named(stored, "team/app:1"))

    assert set(pruning.blobs) == {going, digest(OWN)}
    assert pruning.freed == stored.blobs[going].size + len(OWN)
    assert rest.tags == {("team/app", "2"): staying}
    assert list(layout.damages(rest)) == []


def test_an_image_with_two_tags_stays_complete_until_both_are_removed() -> None:
    making = Making()
    for tag in ("1", "2"):
        making.image("team/app", tag, OWN)
    stored = making.stored

    rest = left(stored, named(stored, "team/app:1"))

    assert list(rest.tags) == [("team/app", "2")]
    assert rest.blobs == stored.blobs
    assert left(stored, *retention.images(stored)).blobs == {}


def test_unreferenced_content_is_removed() -> None:
    making = Making()
    making.image("team/app", "1", OWN)
    loose = making.loose(b"left by an upload")

    assert set(retention.prune(making.stored, []).blobs) == {loose}


@pytest.mark.parametrize(
    ("text", "is_wanted"),
    [
        ("docker.io/team/app:1", True),
        ("docker.io/team/app:2", False),
        ("docker.io/team/other:1", False),
        (f"docker.io/team/app@{digest(OWN)}", True),
        (f"docker.io/team/app:2@{digest(OWN)}", True),
        (f"docker.io/team/app@{digest(OTHER)}", False),
    ],
)
def test_a_reference_matches_by_tag_or_digest(text: str, is_wanted: bool) -> None:  # noqa: FBT001
    image = StoredImage("team/app", "1", digest(OWN), 0, frozenset({digest(OWN)}))

    assert retention.wanted(image, [reference.parse(text)]) is is_wanted


def test_the_least_recently_pulled_images_are_removed_down_to_a_size() -> None:
    making = Making()
    for age, tag in enumerate(("old", "named", "new")):
        making.image("team/app", tag, BASE, tag.encode() * 100, asked=age)
    stored = making.stored
    protected = [named(stored, "team/app:named")]

    assert retention.down_to(stored, stored.size, protected) == []
    assert [image.tag for image in retention.down_to(stored, stored.size - 1, protected)] == ["old"]
    assert [image.tag for image in retention.down_to(stored, 0, protected)] == ["old", "new"]


IMAGES = st.lists(
    st.tuples(
        st.sampled_from(["a", "a/b", "c"]),
        st.one_of(st.none(), st.sampled_from(["1", "2"])),
        st.sets(st.integers(0, 5), max_size=3),
        st.booleans(),
    ),
    max_size=8,
)


@given(IMAGES)
def test_kept_images_stay_complete_and_nothing_else_stays(
    wanted: list[tuple[str, str | None, set[int], bool]],
) -> None:
    making = Making()
    tagged: set[tuple[str, str]] = set()
    for repository, tag, layers, _ in wanted:
        if tag is not None and (repository, tag) in tagged:
            continue
        tagged |= {(repository, tag)} if tag else set()
        making.image(repository, tag, *(bytes([layer]) * 50 for layer in sorted(layers)))
    stored = making.stored
    images = retention.images(stored)
    dropped = [image for image, (*_, drop) in zip(images, wanted, strict=False) if drop]

    rest = left(stored, *dropped)

    kept = [image for image in images if image not in dropped]
    assert [str(image) for image in retention.images(rest)] == [str(image) for image in kept]
    assert set(rest.blobs) == set().union(*(image.content for image in kept))
    assert list(layout.damages(rest)) == []


def test_content_written_during_the_readings_is_kept() -> None:
    """The first reading has a link without its content; the second, content without its link."""
    making = Making()
    making.image("team/app", "1", BASE)
    going = making.image("team/app", "old", OWN)
    whole = Storage(dict(making.blobs), tuple(making.links))
    loose = making.loose(b"written just now")
    late = [link for link in whole.links if link.digest == digest(BASE)]
    unseen = {
        name: blob for name, blob in whole.blobs.items() if name != whole.tags["team/app", "1"]
    }
    before = retention.prune(Storage(unseen, whole.links), [named(whole, "team/app:old")])
    after = retention.prune(making.stored, [named(whole, "team/app:old")])
    assert late[0].folder in before.folders
    assert loose in after.blobs

    pruning = retention.agreed(after, before)

    assert [image.tag for image in pruning.images] == ["old"]
    assert set(pruning.blobs) == {going, digest(OWN)}
    assert pruning.freed == whole.blobs[going].size + len(OWN)
    assert late[0].folder not in pruning.folders
    assert layout.blob_folder(loose) not in pruning.folders
