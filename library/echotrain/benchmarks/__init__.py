"""Floor 8: measurements, each a ratio in one run against a named baseline."""

__all__: list[str] = []
