"""echotrain: train and study MRI models at cluster scale."""

__all__: list[str] = []
