"""Floor 3: reconstructions to compare with that learn nothing."""

__all__: list[str] = []
