"""One verb per file: parse, configure, call."""

__all__: list[str] = []
