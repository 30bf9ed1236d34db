"""The container engine: cache processes, volumes, throw-away containers, labels and locks."""
