"""Rows: what there is, where it lies, whom it belongs to, and which of it a run sees."""
