"""Similarity of slices: embeddings, and the neighbours among them."""

__all__: list[str] = []
