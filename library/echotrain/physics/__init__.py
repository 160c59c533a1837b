"""Floor 2: MRI physics: FFT, coils, crops, masks, operators."""

__all__: list[str] = []
