"""Floor 3: metrics by the public definitions."""

__all__: list[str] = []
