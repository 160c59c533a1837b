"""Jobs on Kubernetes: the operator's template filled in, the RayJob made and followed."""

__all__: list[str] = []
