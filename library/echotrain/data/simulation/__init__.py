"""Parts of the simulator: drawn anatomies, real head volumes, coil sensitivities."""

__all__: list[str] = []
