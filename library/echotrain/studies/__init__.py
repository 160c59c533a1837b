"""Floor between the jobs and what they stand on: a study is the sections that it names, each registered once."""

__all__: list[str] = []
