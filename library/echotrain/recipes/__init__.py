"""Floor 7: whole named experiments."""

__all__: list[str] = []
