"""talosctl: versions, command lines, machine configuration, clusters and their nodes."""
