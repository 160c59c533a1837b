"""Latent bridge matching: a U-Net told where on the bridge it is, and the space that the bridge lies in."""

__all__: list[str] = []
