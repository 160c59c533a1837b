"""Readers: one module per scanner format."""

__all__: list[str] = []
