"""Floor 3: metrics by the public definitions, per volume."""

__all__: list[str] = []
