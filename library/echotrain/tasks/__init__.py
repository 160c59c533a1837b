"""Floor 4: what one step means."""

__all__: list[str] = []
