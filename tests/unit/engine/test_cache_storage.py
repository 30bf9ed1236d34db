"""The storage of a cache: its damages, confirmed by a second reading, and its summary."""

import hashlib
import tarfile
from base64 import b64encode
from collections.abc import Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass, field
from io import BytesIO
from types import SimpleNamespace
from typing import Any

import pytest

from talos_registry_cache.engine import cache_storage, volume
from talos_registry_cache.engine.cache_storage import InVolume
from talos_registry_cache.registry import layout
from talos_registry_cache.registry.layout import Blob, Kind, Link, Storage, Tag
from talos_registry_cache.registry.manifests import digest_of

DIGEST, OTHER = (f"sha256:{letter * 64}" for letter in "ab")
SOUND, CHANGED = Blob(7, DIGEST), Blob(7, OTHER)
FOLDER = layout.link_file(Kind.LAYER, "team/app", DIGEST).removesuffix("/link")
LINK = Link(Kind.LAYER, "team/app", "", DIGEST, DIGEST, FOLDER)
NEW = Link(Kind.LAYER, "team/new", "", OTHER, OTHER, "elsewhere")
EMPTY_LINK = Link(Kind.LAYER, "team/app", "", DIGEST, None, FOLDER)


def stored(blob: Blob | None, link: Link | None = LINK) -> Storage:
    return Storage({DIGEST: blob} if blob else {}, (link,) if link else ())


@dataclass
class Changing:
    """A storage that has changed when it is read again."""

    later: Storage
    removed: list[str] = field(default_factory=list)

    def read_again(self, folders: Collection[str]) -> Storage:
        assert FOLDER in folders
        return self.later

    def remove(self, folders: Sequence[str]) -> None:
        self.removed += folders


def confirmed(before: Storage, later: Storage) -> list[str]:
    held: Any = Changing(later)
    suspects = list(layout.damages(before))
    assert suspects
    found = cache_storage.confirmed(held, suspects)
    assert cache_storage.remove_damaged(held, suspects) == found
    assert held.removed == [folder for damage in found for folder in damage.folders]
    return [damage.problem for damage in found]


@pytest.mark.parametrize(
    ("before", "later"),
    [
        (stored(None), stored(SOUND)),
        (stored(None), stored(None, None)),
        (stored(SOUND, EMPTY_LINK), stored(SOUND)),
        (stored(CHANGED), stored(SOUND)),
        # A new damage, which the first reading did not find.
        (stored(None), Storage({DIGEST: SOUND}, (LINK, NEW))),
    ],
    ids=["written after its link", "no longer linked", "link half written", "half written", "new"],
)
def test_a_suspect_that_is_sound_in_the_second_reading_is_not_damaged(
    before: Storage, later: Storage
) -> None:
    assert confirmed(before, later) == []


def test_content_that_is_damaged_in_both_readings_is_damaged() -> None:
    for storage, problem in (
        (stored(None), "its content is missing"),
        (stored(CHANGED), f"its content has the digest {OTHER}"),
        (stored(SOUND, EMPTY_LINK), "its link contains no digest"),
    ):
        assert confirmed(storage, storage) == [problem]
    nothing: Any = None
    assert cache_storage.confirmed(nothing, []) == [], "nothing is read again without suspects"


# The summary of a volume

MANIFEST, LAYER = b'{"layers": []}', b"a layer"


def digest(content: bytes) -> str:
    return f"sha256:{hashlib.sha256(content).hexdigest()}"


class FakeVolume:
    """A volume with an image, whose container may print less than it should."""

    def __init__(self, lost: str) -> None:
        self.lost = lost
        self.read: list[str] = []
        self.sizes, self.files = "", {}
        for kind, content in ((Kind.REVISION, MANIFEST), (Kind.LAYER, LAYER)):
            path = f"{layout.blob_folder(digest(content))}/data"
            self.files[path] = content
            self.files[layout.link_file(kind, "app", digest(content))] = digest(content).encode()
            self.sizes += f"{len(content)} {path.removeprefix(f'{layout.V2}/')}\n"

    @contextmanager
    def tar(self, folder: str = "") -> Iterator[BytesIO]:
        self.read.append(folder)
        yield BytesIO(self.packed(folder or "."))

    def ask(self, command: Sequence[str]) -> str:
        assert command[-1] == cache_storage.SUMMARY
        sizes = "" if self.lost == "sizes" else self.sizes
        if self.lost == "layer":
            sizes = "".join(sizes.splitlines(keepends=True)[:1])
        folder = layout.blob_folder(digest(MANIFEST))
        manifests = b64encode(self.packed(layout.BLOBS, folder)).decode()
        return f"{sizes}{cache_storage.MANIFESTS}{'' if self.lost == 'manifest' else manifests}"

    def packed(self, root: str, below: str = "") -> bytes:
        """A tar of the files below a folder; their names begin with the root's own name."""
        packed = BytesIO()
        with tarfile.open(fileobj=packed, mode="w") as target:
            for path, content in self.files.items():
                start = "" if root == "." else root
                if path.startswith(below or start):
                    name = f"{root.rpartition('/')[2]}/{path.removeprefix(start).lstrip('/')}"
                    entry = tarfile.TarInfo(name)
                    entry.size = len(content)
                    target.addfile(entry, BytesIO(content))
        return packed.getvalue()


@pytest.mark.parametrize("lost", ["", "manifest", "layer", "sizes"])
def test_a_volume_is_read_as_a_whole_if_its_summary_is_not_complete(
    monkeypatch: pytest.MonkeyPatch, lost: str
) -> None:
    fake = FakeVolume(lost)
    for reading in ("at_hand", "mounted"):
        monkeypatch.setattr(volume, reading, lambda *_: nullcontext(fake))
    engine: Any = None
    held = InVolume(engine, "volume", "image")

    summary = held.read(trusting=True)

    assert fake.read == [layout.REPOSITORIES, *([""] if lost else [])]
    assert summary == held.read()
    assert summary.blobs.keys() == {digest(MANIFEST), digest(LAYER)}
    assert len(summary.links) == 2


def test_only_manifests_that_a_storage_lacks_are_added() -> None:
    same, moved, new = (("team/app", tag) for tag in ("same", "moved", "new"))
    contents = {same: b"1", moved: b"2", new: b"3"}
    added: list[Mapping[Tag, bytes]] = []
    held: Any = SimpleNamespace(
        digests=lambda _: {same: digest_of(b"1"), moved: digest_of(b"0")}, add=added.append
    )

    cache_storage.add_lacking(held, contents)
    cache_storage.add_lacking(held, {same: b"1"})

    assert added == [{moved: b"2", new: b"3"}]
