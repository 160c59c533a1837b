"""How a recipe is cut to seconds on a laptop."""

import dataclasses

from echotrain.recipes.debug_catalogs import DEBUG_CATALOG
from echotrain.training.experiment import Experiment, ModelConfig

__all__ = ["cut_to_seconds"]


def cut_to_seconds(experiment: Experiment, model: ModelConfig) -> Experiment:
    """Keep the task, the mask and the way of training; shrink the network, the run and the place."""
    return dataclasses.replace(
        experiment,
        name=f"{experiment.name}_debug",
        data=dataclasses.replace(experiment.data, catalog=DEBUG_CATALOG),
        model=model,
        epochs=1,
        batch_size=2,
        workers=1,
        device="cpu",
        log_every=5,
        wandb=dataclasses.replace(experiment.wandb, enabled=False),
    )
