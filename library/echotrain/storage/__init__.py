"""Floor 2: folders and S3 buckets behind one interface."""

__all__: list[str] = []
