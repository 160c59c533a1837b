"""What is on offer and what was asked for: queue and priority."""

from echotrain.errors import LaunchError
from echotrain.launching.platform import Platform

__all__ = ["choose_priority", "choose_queue"]


def choose_queue(platform: Platform, asked: str) -> str:
    """Return the LocalQueue; "" where Kueue is not used.

    Raises:
        LaunchError: The one asked for is not offered.
    """
    return _choose("--queue", asked, platform.queue, platform.queues, "Kueue is not used here: leave it out.")


def choose_priority(platform: Platform, asked: str) -> str:
    """Return the priority class; "" for none. Errors are those of ``choose_queue``."""
    return _choose("--priority", asked, platform.priority, platform.priorities, "No priorities are set up here: leave it out.")


def _choose(option: str, asked: str, default: str, offered: tuple[str, ...], without: str) -> str:
    if not asked:
        return default
    if asked != default and asked not in offered:
        names = dict.fromkeys(([default] if default else []) + list(offered))
        raise LaunchError(f"{option} {asked}", "is not offered", f"Choose one of {', '.join(names)}." if names else without)
    return asked
