"""What the version before left behind; see ``tests/of_2d0091e/README.md``."""

import json
import shutil
from pathlib import Path
from typing import Any

from echotrain.config import override
from echotrain.recipes.registry import RECIPES
from echotrain.training.experiment import Experiment

LEFT = Path(__file__).parent / "of_2d0091e"
TRUTH: dict[str, Any] = json.loads((LEFT / "truth.json").read_text())


def copy_of(name: str, folder: Path) -> Path:
    """Return a copy of a folder that was left behind, to be written to."""
    return Path(shutil.copytree(LEFT / name, folder / name))


def experiment_before(storage: Path, *settings: str) -> Experiment:
    """Return the experiment of the run and of the sweep, by settings as they were given then."""
    tiny = ("model.num_cascades=1", "model.chans=2", "model.pools=1", "model.sens_chans=2", "model.sens_pools=1")
    data = (f"data.catalog={LEFT / 'catalog'}", f"data.anatomies={json.dumps(TRUTH['anatomies'])}")
    rest = ("batch_size=3", "epochs=2", "log_every=1", "optim.lr=1e-3", "ema_decay=0.5", "wandb.enabled=false", "name=run")
    return override(RECIPES["varnet_mosaic_x4_debug"](), [f"storage={storage}", *data, *rest, *tiny, *settings])
