"""MosaicMRI (arXiv:2604.11762): its sections, their words, and how it groups anatomies."""

__all__: list[str] = []
