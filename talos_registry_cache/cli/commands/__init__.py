"""The commands of cachectl, one a file; each says what it does in its own help."""
