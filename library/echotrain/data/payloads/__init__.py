"""The bytes of slices in shards."""
