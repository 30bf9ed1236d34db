"""Damages count only after a second reading, since caches write while their storage is read."""

from collections.abc import Collection, Sequence
from dataclasses import dataclass, field
from typing import Any

import pytest

from talos_registry_cache.engine import cache_storage
from talos_registry_cache.registry import layout
from talos_registry_cache.registry.layout import Blob, Kind, Link, Storage

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
