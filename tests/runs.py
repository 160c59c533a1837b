"""Runs for tests of whoever uses them: a checkpoint of a network as it was initialised."""

from pathlib import Path, PurePosixPath
from typing import Any

import torch

from echotrain.config import to_dict
from echotrain.data.samples.kspace_lines import LinesData
from echotrain.storage.open import open_store
from echotrain.training.checkpoint import CheckpointMeta, CheckpointWriter
from echotrain.training.experiment import Experiment, science


def write_run(uri: Path | str, model: Any, catalog: str = "s3://b/c", **data: Any) -> str:
    """Write a run whose only checkpoint is a network as it was initialised, on data of these settings, and return its URI."""
    experiment = Experiment(name=PurePosixPath(uri).name, data=LinesData(catalog=catalog, **data), model=model)
    store = open_store(str(uri))
    torch.manual_seed(0)
    meta = CheckpointMeta(name="step-000000000", position={}, science=science(experiment), config=to_dict(experiment), catalog={})
    writer = CheckpointWriter(store, keep=1)
    writer.save(meta, {"weights": model.build().state_dict()}, is_best=True)
    writer.close()
    return store.uri
