"""Floor 3: losses, one value per sample."""

__all__: list[str] = []
