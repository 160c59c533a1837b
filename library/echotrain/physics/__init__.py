"""Floor 2: MRI physics in pure torch: FFT, coils, masks, operators."""

__all__: list[str] = []
