"""Floor 6: the only floor that imports ray."""

__all__: list[str] = []
