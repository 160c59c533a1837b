"""A catalog as a LightningDataModule: ``trainer.fit(module, datamodule=CatalogDataModule("s3://lab/knee"))``.

Importing this imports Lightning, under the name by which the program knows it: ``pytorch_lightning`` and ``lightning.pytorch`` hold classes
of their own, and a trainer of one takes no module of the other.
"""

import importlib
import sys
from typing import Any

from echotrain.data.catalog.store import load_catalog
from echotrain.data.config import StreamConfig
from echotrain.data.samples.data_config import DataConfig
from echotrain.data.torch_dataset import CatalogDataset, CatalogLoader, settings_of
from echotrain.errors import ResourceError

__all__ = ["CatalogDataModule"]

_NAMES = ("pytorch_lightning", "lightning.pytorch")


def _lightning() -> Any:
    """Import Lightning: what the program has imported already, else what is installed."""
    for name in sorted(_NAMES, key=lambda name: name not in sys.modules):
        try:
            return importlib.import_module(name)
        except ModuleNotFoundError as error:
            if error.name not in (name, name.partition(".")[0]):
                raise
    raise ResourceError("Lightning", "is not installed", "pip install 'echotrain[lightning]', or iterate over a CatalogDataset yourself.")


class CatalogDataModule(_lightning().LightningDataModule):  # type: ignore[misc]
    """A catalog's splits for a Lightning trainer, resumed to the batch from its checkpoints; epochs are the trainer's.

    From the end of an epoch a run goes on on any number of ranks, from within one on as many, as Lightning counts each rank's batches. An
    epoch that ``limit_train_batches`` or ``max_steps`` has cut short was left within.

    Args:
        data: Folder, ``s3://bucket/prefix`` or settings, as of ``CatalogDataset``.
        batch_size: Of a rank, in training; held-out slices come one by one, as matrix sizes differ.
        seed: Of order and masks in training.
        config: Threads, prefetch, retries.

    Raises:
        CatalogError: There is no such catalog.
        ConfigError: ``config`` says what only a run of echotrain follows.
    """

    def __init__(self, data: DataConfig | str, *, batch_size: int = 1, seed: int = 0, config: StreamConfig | None = None) -> None:
        super().__init__()
        if config is not None:
            config.check_own_loop()
        self._data = settings_of(data)
        self._batch_size, self._seed, self._config = batch_size, seed, config
        self._catalog = load_catalog(self._data.catalog, trusted=self._data.trusted)
        self._made: list[CatalogDataset] = []

    def train_dataloader(self) -> CatalogLoader:
        """Return the batches to train on."""
        return self._loader("train", self._batch_size)

    def val_dataloader(self) -> CatalogLoader:
        """Return the validation slices."""
        return self._loader("val", 1)

    def test_dataloader(self) -> CatalogLoader:
        """Return the test slices."""
        return self._loader("test", 1)

    def teardown(self, stage: str) -> None:
        """End threads and connections."""
        for dataset in self._made:
            dataset.close()
        self._made.clear()

    def _loader(self, split: str, batch_size: int) -> CatalogLoader:
        dataset = CatalogDataset(self._data, split=split, seed=self._seed, config=self._config, catalog=self._catalog)
        self._made.append(dataset)
        return CatalogLoader(dataset, batch_size)
