"""How often each row of a selection comes in an epoch, so that small groups are heard beside large ones."""

import itertools
from dataclasses import dataclass

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from echotrain.data.catalog.columns import codes_of, taken
from echotrain.errors import ConfigError

__all__ = ["BalanceConfig", "balance_weights"]


@dataclass(frozen=True, kw_only=True)
class BalanceConfig:
    """Balanced sampling: a slice of a rare group comes more often, one of a common group less often; an epoch keeps its length.

    Source: Moero ("Branch Learning in MRI", arXiv:2512.20330), eq. 10, whose symbols its text lost; what they stand for is by its words
    and by the public code, which has 0.7, 1 and 8 for ``strength``, ``least`` and ``most``. Deviations: groups are counted in slices, where
    the code counts files; an epoch draws as many slices as there are, where the code repeats whole files and so lengthens it.

    Attributes:
        by: Categories, each of one or several columns of the catalog: ``[[center], [vendor, modality]]``. None balances nothing.
        strength: 0 leaves the data as they are, 1 gives every group of a category the same share.
        least, most: Bounds of a slice's weight before weights are brought to a mean of 1; ``most=0`` sets no upper one.
    """

    by: tuple[tuple[str, ...], ...] = ()
    strength: float = 1.0
    least: float = 0.0
    most: float = 0.0

    def __post_init__(self) -> None:
        if any(not columns for columns in self.by):
            raise ConfigError(f"data.balance.by={[list(columns) for columns in self.by]}", "has an empty category", "Name columns in each.")
        if not 0 <= self.strength <= 1:
            raise ConfigError(f"data.balance.strength={self.strength:g}", "must lie in [0, 1]", "Use 1 for equal shares of all groups.")
        if self.least < 0 or self.most < 0 or (self.most and self.most < max(self.least, np.finfo(float).tiny)):
            bounds = f"data.balance.least={self.least:g}, data.balance.most={self.most:g}"
            raise ConfigError(bounds, "must be bounds from below and above", "Use 0 for none.")


def balance_weights(table: pa.Table, positions: NDArray[np.int64], config: BalanceConfig) -> NDArray[np.float64] | None:
    """Return the weight of every row of a selection for ``epoch_order``; None where nothing is balanced.

    That is ``prod_c (1 + strength (N / (G_c n_g) - 1))`` over the categories ``c``, cut to the bounds: ``N`` rows, ``G_c`` groups in the
    category, ``n_g`` rows in the row's own group.

    Args:
        table: Catalog rows.
        positions: Of the selection.
        config: Categories, strength and bounds.

    Raises:
        ConfigError: A column is not in the catalog.
    """
    if not config.by:
        return None
    unknown = sorted(set(itertools.chain(*config.by)) - set(table.column_names))
    if unknown:
        remedy = f"Use some of {', '.join(table.column_names)}."
        raise ConfigError(f"data.balance.by names {', '.join(unknown)}", "which the catalog has no column of", remedy)
    rows = taken(table, positions, sorted(set(itertools.chain(*config.by))))
    weights = np.ones(len(rows))
    for columns in config.by:
        codes, firsts = codes_of(rows, columns)
        sizes = np.bincount(codes)
        weights *= 1 + config.strength * (len(rows) / (len(firsts) * sizes[codes]) - 1)
    return np.clip(weights, config.least, config.most or None)
