"""Which patients train, validate and test: splits that are made here, and splits that others made."""
