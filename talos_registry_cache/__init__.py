"""Pull-through caches for local Talos clusters, in plain Python: no module here imports Pulumi."""
