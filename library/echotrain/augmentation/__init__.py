"""Changes of images that a task asks for: pure functions of tensors and of one random stream per sample."""

__all__: list[str] = []
