"""Sweeps as W&B writes them: what varies, how it is searched, and what each trial is called. Knows nothing of Ray."""

__all__: list[str] = []
