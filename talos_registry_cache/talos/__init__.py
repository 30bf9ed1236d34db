"""What talosctl needs, in plain Python: versions, command lines, patches, running it."""
