"""Registries: references, manifests, the client, warming, verification, stored content."""
