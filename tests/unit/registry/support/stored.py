"""A storage that is built image by image, as `cachectl list` reads it."""

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

from talos_registry_cache.registry import layout, listing, manifests
from talos_registry_cache.registry.layout import Kind, Link, OnPiece, Storage, ignore
from talos_registry_cache.registry.listing import Contents, Listed
from tests.unit.registry.support import images
from tests.unit.registry.support.images import OCI_MANIFEST, Blob, Built


@dataclass
class Stored:
    """A storage that is built image by image."""

    blobs: dict[str, Blob] = field(default_factory=dict)
    links: list[Link] = field(default_factory=list)

    def add(self, built: Built, repository: str, tag: str | None = "1", asked: int = 0) -> str:
        """Store all content of an image."""
        for manifest in built.manifests:
            self.blob(manifest)
            self._link(Kind.REVISION, repository, manifest.digest, "", asked)
        for blob in built.blobs:
            self.blob(blob)
        if tag is not None:
            self._link(Kind.TAG, repository, built.digest, tag, asked)
        return built.digest

    def blob(self, blob: Blob) -> None:
        """Store a blob."""
        self.blobs[blob.digest] = blob

    def lose(self, blob: Blob) -> None:
        """Remove a blob."""
        del self.blobs[blob.digest]

    def read(self, on_piece: OnPiece = ignore, *, trusting: bool = True) -> Storage:
        """Read it as the storage of a cache is read; each blob comes in two pieces."""
        assert trusting
        for digest, blob in self.blobs.items():
            for piece in (blob.content[:3], blob.content[3:]):
                on_piece(digest, len(blob.content), piece)
        return Storage(dict(self._read()), tuple(self.links))

    def listed(self, requests: Mapping[tuple[str, str], int] | None = None) -> list[Listed]:
        """What is said about its images."""
        contents = Contents()
        return list(listing.listed(self.read(contents.take), contents, requests or {}))

    def _read(self) -> Iterator[tuple[str, layout.Blob]]:
        for digest, blob in self.blobs.items():
            refers_to = manifests.digests_in(blob.content)
            subject = manifests.subject_in(blob.content)
            yield digest, layout.Blob(len(blob.content), digest, refers_to, subject)

    def _link(self, kind: Kind, repository: str, digest: str, tag: str, asked: int) -> None:
        path = layout.link_file(kind, repository, digest, tag)
        named = None if kind is Kind.TAG else digest
        self.links.append(Link(kind, repository, tag, named, digest, path, asked))


def artifact(subject: str | None = None, **more: Any) -> Built:
    """A manifest that is not an image."""
    own = Blob(b"{}", "application/vnd.oci.empty.v1+json")
    content = {"schemaVersion": 2, "config": own.entry, "layers": [own.entry], **more}
    if subject:
        content["subject"] = {"mediaType": OCI_MANIFEST, "digest": subject, "size": 2}
    return Built([Blob(json.dumps(content).encode(), OCI_MANIFEST)], [own])


def referrers(*attached: Built) -> Built:
    """An index of referrers."""
    content = {"schemaVersion": 2, "manifests": [one.manifests[0].entry for one in attached]}
    index = Blob(json.dumps(content).encode(), images.OCI_INDEX)
    inner = [manifest for one in attached for manifest in one.manifests]
    return Built([index, *inner], [blob for one in attached for blob in one.blobs])
