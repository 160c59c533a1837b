"""The run of a sweep that came out best."""

from echotrain.errors import ConfigError
from echotrain.storage.open import open_store
from echotrain.sweeps.spec import Metric
from echotrain.sweeps.table import ranked
from echotrain.sweeps.trial import SweepFolder

__all__ = ["best_run"]


def best_run(uri: str) -> str:
    """Return the URI of the run of a sweep's best trial; of a folder that is no sweep's, its own.

    Raises:
        ConfigError: No trial has a score.
        PayloadError: What the sweep remembers is damaged.
    """
    folder = SweepFolder(open_store(uri))
    description = folder.description()
    if description is None:
        return folder.uri
    # A sweep that an older version began without a metric of its own went by SSIM.
    named = description["searched"]["metric"] or description.get("compared_by")
    metric = Metric(**named) if named else Metric(name="score", goal="maximize")
    trials = [trial for trial in folder.trials() if trial.state != "failed" and trial.score(metric) is not None]
    if not trials:
        raise ConfigError(folder.uri, "is a sweep of which no trial has a score", "Wait for its first validation, or name a training run.")
    return ranked(trials, metric)[0].run
