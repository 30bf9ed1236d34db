"""What looks damaged is looked at again: a cache goes on writing while its storage is read."""

from collections.abc import Collection, Sequence
from dataclasses import dataclass, field
from typing import Any

from talos_registry_cache.engine import cache_storage
from talos_registry_cache.registry import layout
from talos_registry_cache.registry.layout import Blob, Kind, Link, Storage

DIGEST, OTHER = (f"sha256:{letter * 64}" for letter in "ab")
SOUND, CHANGED = Blob(7, DIGEST), Blob(7, OTHER)
FOLDER = layout.link_file(Kind.LAYER, "team/app", DIGEST).removesuffix("/link")
LINK = Link(Kind.LAYER, "team/app", "", DIGEST, DIGEST, FOLDER)
EMPTY_LINK = Link(Kind.LAYER, "team/app", "", DIGEST, None, FOLDER)


def stored(blob: Blob | None, link: Link | None = LINK) -> Storage:
    return Storage({DIGEST: blob} if blob else {}, (link,) if link else ())


@dataclass
class Changing:
    """A storage that has something else when it is read again."""

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


def test_content_that_was_written_after_it_was_looked_for_is_not_gone() -> None:
    assert confirmed(stored(None), stored(SOUND)) == []


def test_content_to_which_nothing_leads_any_more_is_not_gone() -> None:
    assert confirmed(stored(None), stored(None, None)) == []


def test_a_link_that_was_being_written_is_not_damaged() -> None:
    assert confirmed(stored(SOUND, EMPTY_LINK), stored(SOUND)) == []


def test_content_that_was_being_written_is_not_damaged() -> None:
    assert confirmed(stored(CHANGED), stored(SOUND)) == []


def test_what_is_damaged_both_times_is_damaged() -> None:
    assert confirmed(stored(None), stored(None)) == ["its content is gone"]
    assert confirmed(stored(CHANGED), stored(CHANGED)) == [f"its content has the digest {OTHER}"]
    assert confirmed(stored(SOUND, EMPTY_LINK), stored(SOUND, EMPTY_LINK)) == [
        "its link holds no digest"
    ]


def test_what_the_second_look_finds_beside_is_no_matter_of_it() -> None:
    other = Link(Kind.LAYER, "team/new", "", OTHER, OTHER, "elsewhere")
    later = Storage({DIGEST: SOUND}, (LINK, other))

    assert confirmed(stored(None), later) == []


def test_nothing_is_read_again_where_nothing_looks_damaged() -> None:
    held: Any = None

    assert cache_storage.confirmed(held, []) == []
