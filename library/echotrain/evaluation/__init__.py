"""Floor 5: volumes, statistics, tables, figures, report."""

__all__: list[str] = []
