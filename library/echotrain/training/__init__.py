"""Floor 5: the loop, checkpoints, optimisers."""

__all__: list[str] = []
