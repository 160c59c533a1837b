"""Masked autoencoders: transformers' ViTMAE, and its encoder by itself."""

__all__: list[str] = []
