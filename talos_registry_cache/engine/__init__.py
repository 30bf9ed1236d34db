"""The container engine: cache processes, volumes, temporary containers, labels and locks."""
