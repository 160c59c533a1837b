"""Floor 3: losses."""

__all__: list[str] = []
