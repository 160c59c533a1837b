"""Floor 3: from scanner file to batch."""

__all__: list[str] = []
