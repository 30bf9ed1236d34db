"""Pruning removes dropped images, and keeps all content of the others."""

import hashlib
import json
from collections.abc import Iterable
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime

import pytest
from hypothesis import given
from hypothesis import strategies as st

from talos_registry_cache.registry import layout, reference, retention
from talos_registry_cache.registry.layout import Blob, Kind, Link, Storage
from talos_registry_cache.registry.retention import Policy, StoredImage, Untagged
from tests.unit.registry.support import images
from tests.unit.registry.support.stored import Stored, artifact, referrers

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

    def index(self, repository: str, tag: str | None, *images: str) -> str:
        """Store an index of images."""
        name = self._blob(json.dumps(images).encode(), images)
        self._link(Kind.REVISION, repository, name)
        if tag is not None:
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
    assert [image.last_request for image in images] == [0, 5, 9]
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


@pytest.mark.parametrize(
    ("text", "removed"),
    [
        ("docker.io/team/app:1", ["team/app:1"]),
        (f"docker.io/team/app@{digest(OWN)}", ["team/app:1", "team/app:2"]),
        (f"docker.io/team/app:3@{digest(OWN)}", ["team/app:1", "team/app:2"]),
        ("docker.io/team/app:3", []),
        ("docker.io/team/other:1", []),
    ],
)
def test_a_tag_names_itself_and_a_digest_all_of_its_tags(text: str, removed: list[str]) -> None:
    content = frozenset({digest(OWN)})
    images = [StoredImage("team/app", tag, digest(OWN), 0, content) for tag in ("1", "2")]

    found = [str(one) for one in images if retention.names(reference.parse(text), one)]

    assert found == removed


def test_the_least_recently_requested_images_are_removed_down_to_a_size() -> None:
    making = Making()
    for age, tag in enumerate(("old", "named", "new")):
        making.image("team/app", tag, BASE, tag.encode() * 100, asked=age)
    stored = making.stored
    named = [reference.parse("docker.io/team/app:named")]

    def dropped(size: int) -> list[str | None]:
        return [image.tag for image in Policy(named, max_size=size).unwanted(stored)]

    assert dropped(stored.size) == []
    assert dropped(stored.size - 1) == ["old"]
    assert dropped(0) == ["old", "new"]


def test_without_a_limit_all_but_the_protected_images_are_unwanted() -> None:
    making = Making()
    for tag in ("1", "2"):
        making.image("team/app", tag, OWN)
    policy = Policy([reference.parse("docker.io/team/app:2")])

    assert [image.tag for image in policy.unwanted(making.stored)] == ["1"]


# Requests

DIGEST = digest(b"another manifest")


def line(method: str, target: str, status: int = 200, second: int = 0, result: str = "hit") -> str:
    """A line of a front's log."""
    return (
        f"10.5.0.2 - - [27/Nov/2026:18:30:{second:02} +0000] "
        f'"{method} /v2/{target} HTTP/1.1" {status} 5 "-" "containerd" 0.012 {result}'
    )


AT = int(datetime(2026, 11, 27, 18, 30, tzinfo=UTC).timestamp())


def test_the_last_successful_request_for_a_manifest_counts() -> None:
    log = [
        line("GET", "team/app/manifests/1?ns=docker.io", second=9, result="stale"),
        line("HEAD", "team/app/manifests/1", second=5),
        line("GET", f"team/app/manifests/{DIGEST}", second=7),
        line("GET", "team/app/manifests/2", 404),
        line("GET", f"team/app/blobs/{DIGEST}", second=8),
        "2026/11/27 18:30:00 [error] 29#29: GET /v2/team/app/manifests/3 failed",
    ]

    assert retention.last_requests(log) == {
        ("team/app", "1"): AT + 9,
        ("team/app", DIGEST): AT + 7,
    }


def test_an_image_was_requested_by_its_tag_its_digest_or_that_of_a_platform() -> None:
    making = Making()
    platform = making.image("team/app", None, OWN)
    making.index("team/app", "index", platform)
    for tag, layer in (("pulled", BASE), ("looked-up", OTHER)):
        making.image("team/app", tag, layer, asked=1)
    alone = making.image("team/tool", None, OWN)
    requests = {
        ("team/app", "looked-up"): 5,
        ("team/app", platform): 6,
        ("team/tool", alone): 7,
        ("team/tool", "pulled"): 8,
    }

    found = {str(one): one.last_request for one in retention.images(making.stored, requests)}

    assert found == {
        "team/app:pulled": 1,
        "team/app:looked-up": 5,
        "team/app:index": 6,
        f"team/tool@{alone}": 7,
    }


# All cases


IMAGES = st.lists(
    st.tuples(
        st.sampled_from(["a", "a/b", "c"]),
        st.one_of(st.none(), st.sampled_from(["1", "2"])),
        st.sets(st.integers(0, 5), max_size=3),
        st.integers(0, 10),
    ),
    max_size=8,
)


def made(images: Iterable[tuple[str, str | None, set[int], int]]) -> Storage:
    """A storage with images: repository, tag, layers, time of the link."""
    making = Making()
    tagged: set[tuple[str, str]] = set()
    for repository, tag, layers, asked in images:
        if tag is None or (repository, tag) not in tagged:
            tagged |= {(repository, tag)} if tag else set()
            parts = (bytes([layer]) * 50 for layer in sorted(layers))
            making.image(repository, tag, *parts, asked=asked)
    return making.stored


@given(
    IMAGES,
    st.none() | st.integers(0, 10),
    st.none() | st.integers(0, 1500),
    st.sets(st.sampled_from(["a:1", "a/b:2", "c:1"])),
    st.dictionaries(
        st.tuples(st.sampled_from(["a", "c"]), st.sampled_from(["1", "2"])), st.integers(0, 10)
    ),
)
def test_images_in_use_are_kept_complete_and_nothing_else_stays(
    given: list[tuple[str, str | None, set[int], int]],
    unused_since: int | None,
    max_size: int | None,
    protected: set[str],
    requests: dict[tuple[str, str], int],
) -> None:
    stored = made(given)
    declared = [reference.parse(f"registry.test/{text}") for text in protected]

    dropped = Policy(declared, unused_since, max_size).unwanted(stored, requests)

    rest = left(stored, *dropped)
    kept = retention.images(rest, requests)
    assert {str(image) for image in dropped}.isdisjoint(protected)
    assert {*kept, *dropped} == {*retention.images(stored, requests)}
    assert set(rest.blobs) == set().union(*(image.content for image in kept))
    assert list(layout.damages(rest)) == []
    loose = [image for image in kept if str(image) not in protected]
    if unused_since is not None:
        assert all(image.last_request >= unused_since for image in loose)
        if max_size is None:
            assert all(image.last_request < unused_since for image in dropped)
    if max_size is not None:
        assert rest.size <= max_size or not loose
    if unused_since is None and max_size is None:
        assert not loose


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


def tag_of(name: str, suffix: str = ".sig") -> str:
    return name.replace(":", "-") + suffix


def test_attachments_belong_to_their_image_and_are_no_images() -> None:
    made = Making()
    inner = made.image("team/app", None, OWN)
    made.index("team/app", "1", inner)
    signature = made.image("team/app", tag_of(inner), OTHER)

    [image] = retention.images(made.stored)

    assert str(image) == "team/app:1"
    assert image.attachments == {tag_of(inner): signature}
    assert {signature, digest(OTHER)} <= image.content
    gone = left(made.stored, image)
    assert not gone.blobs
    assert not gone.links


def test_attachments_stay_with_a_kept_image_and_go_with_the_last_one() -> None:
    made = Making()
    name = made.image("team/app", "1", OWN)
    made.links.append(replace(link_of(made, "1"), tag="2", folder="tags/2"))
    made.image("team/app", tag_of(name), OTHER)

    kept = left(made.stored, named(made.stored, "team/app:1"))

    assert kept.tags.keys() == {("team/app", "2"), ("team/app", tag_of(name))}
    assert digest(OTHER) in kept.blobs
    assert not left(kept, named(kept, "team/app:2")).blobs


def test_attachments_of_an_image_that_was_pulled_by_digest_belong_to_it() -> None:
    made = Making()
    name = made.image("team/app", None, OWN)
    made.image("team/app", tag_of(name, ""), OTHER)

    assert list(map(str, retention.images(made.stored))) == [f"team/app@{name}"]


def test_attachments_without_their_image_are_images_of_their_own() -> None:
    made = Making()
    tag = tag_of(digest(b"an image that is not stored"))
    made.image("team/app", tag, OTHER)
    # Of itself, and of an image of another repository.
    own = made.image("team/app", tag_of("sha256:" + "0" * 64, ".att"), OWN)
    made.links.append(replace(link_of(made, tag), tag=tag_of(own), digest=own, folder="tags/own"))
    other = made.image("team/other", "1", BASE)
    made.image("team/app", tag_of(other), BASE)

    found = {str(image) for image in retention.images(made.stored)}

    assert {f"team/app:{tag}", f"team/app:{tag_of(other)}", "team/other:1"} <= found


def link_of(made: Making, tag: str) -> Link:
    return next(link for link in made.links if link.kind is Kind.TAG and link.tag == tag)


# Without a tag


def untagged(stored: Stored, *repositories: str) -> set[str]:
    """The images that lose their content as untagged ones."""
    return {str(image) for image in Untagged(repositories).unwanted(stored.read())}


def test_untagged_are_the_images_whose_tag_is_another_image_now() -> None:
    stored = Stored()
    old = stored.add(images.index({"linux/amd64": images.image(images.Blob(b"old"))}), "app", None)
    other = stored.add(images.image(images.Blob(b"other")), "team/app", None)
    stored.add(images.index({"linux/amd64": images.image(images.Blob(b"new"))}), "app")

    assert untagged(stored) == {f"app@{old}", f"team/app@{other}"}
    assert untagged(stored, "app") == {f"app@{old}"}
    assert untagged(stored, "team") == set()


def test_a_platform_that_a_tagged_index_shares_with_an_untagged_one_stays() -> None:
    making = Making()
    shared, old, new = (making.image("app", None, layer) for layer in (BASE, OWN, OTHER))
    before = making.index("app", None, shared, old)
    after = making.index("app", "1", shared, new)
    stored = making.stored

    rest = left(stored, *Untagged().unwanted(stored))

    stays = {after, shared, new, digest(BASE), digest(OTHER), digest(CONFIG)}
    assert set(rest.blobs) == stays == set(stored.blobs) - {before, old, digest(OWN)}
    assert list(layout.damages(rest)) == []


def test_attachments_and_referrers_of_a_tagged_image_stay_and_those_of_others_go() -> None:
    stored = Stored()
    platform = images.image(images.Blob(b"new"))
    new = stored.add(images.index({"linux/amd64": platform}), "app")
    old = stored.add(images.image(images.Blob(b"old")), "app", None)
    kept = [
        stored.add(artifact(kind="signature of new"), "app", tag_of(new)),
        stored.add(referrers(artifact(new, kind="listed")), "app", tag_of(new, "")),
        stored.add(sbom := artifact(new, kind="SBOM"), "app", None),
        stored.add(artifact(platform.digest, kind="SBOM of a platform"), "app", None),
        stored.add(artifact(sbom.digest, kind="signature of an SBOM"), "app", None),
    ]
    gone = [
        stored.add(artifact(kind="signature of old"), "app", tag_of(old)),
        stored.add(attached := artifact(old, kind="SBOM of old"), "app", None),
        stored.add(artifact(attached.digest, kind="its signature"), "app", None),
        stored.add(artifact(new, kind="of an image of another repository"), "other", None),
    ]
    before = stored.read()

    rest = left(before, *Untagged().unwanted(before))

    assert set(kept) <= rest.blobs.keys()
    assert rest.blobs.keys().isdisjoint({*gone, old})
    assert list(layout.damages(rest)) == []


@given(IMAGES)
def test_without_the_untagged_images_the_tagged_ones_are_complete(
    given: list[tuple[str, str | None, set[int], int]],
) -> None:
    stored = made(given)

    rest = left(stored, *Untagged().unwanted(stored))

    assert rest.tags == stored.tags
    assert retention.images(rest) == tuple(one for one in retention.images(stored) if one.tag)
    assert list(layout.damages(rest)) == []
