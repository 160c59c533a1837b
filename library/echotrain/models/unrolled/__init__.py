"""Unrolled networks: one loop, any regularizer."""

__all__: list[str] = []
