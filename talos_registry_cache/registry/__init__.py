"""What a registry offers, in plain Python: walk an image, warm a cache with it, prove it."""
