"""Quantities of Kubernetes as numbers."""

import re
from collections import Counter
from collections.abc import Iterable, Mapping
from decimal import Decimal
from typing import Any

__all__ = ["amount", "pod_requests", "total"]

_UNITS = {"": 1, "m": Decimal("0.001"), "k": 10**3, "M": 10**6, "G": 10**9, "Ki": 2**10, "Mi": 2**20, "Gi": 2**30, "Ti": 2**40}


def amount(quantity: str | int | float) -> Decimal:
    """Return a quantity such as ``500m`` or ``3Gi`` as a number.

    Raises:
        ValueError: It is none.
    """
    found = re.fullmatch(r"([0-9.]+)([A-Za-z]*)", str(quantity))
    if found is None or found[2] not in _UNITS:
        raise ValueError(f"{quantity!r} is no quantity")
    return Decimal(found[1]) * _UNITS[found[2]]


def pod_requests(pod: Mapping[str, Any]) -> dict[str, Decimal]:
    """Return what the containers of a pod request together; what is limited and not requested counts as requested, as it does there."""
    return total({**each["resources"].get("limits", {}), **each["resources"].get("requests", {})} for each in pod["containers"])


def total(requests: Iterable[Mapping[str, Any]]) -> dict[str, Decimal]:
    """Return the sum of requests by resource."""
    found: Counter[str] = Counter()
    for each in requests:
        for name, quantity in each.items():
            found[name] += amount(quantity)
    return dict(found)
