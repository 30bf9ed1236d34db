"""cachectl: show, fill, verify, repair and carry the caches of a stack."""
