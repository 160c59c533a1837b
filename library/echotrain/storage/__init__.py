"""Floor 2: folders and S3 buckets behind one interface.

``open.open_store`` is the door; ``ranged.RangeReader`` is the quick one for pieces of large objects; ``embedded`` and
``throttled`` are servers for the demo, the tests and the benchmarks.
"""

__all__: list[str] = []
