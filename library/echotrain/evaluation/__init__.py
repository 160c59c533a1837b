"""Floor 5: results of an evaluation, their statistics, tables, figures and the report page; submissions to challenges."""

__all__: list[str] = []
