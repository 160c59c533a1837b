"""Floor 5: results of an evaluation, their statistics, tables, figures and the report page."""

__all__: list[str] = []
