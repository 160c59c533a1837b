"""Building blocks of networks, real-valued unless they say otherwise."""

__all__: list[str] = []
