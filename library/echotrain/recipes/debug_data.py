"""Data for the debug recipes: a few simulated scans, made where they are missing."""

import logging
from pathlib import Path

from echotrain.data.simulate import SimulationConfig, simulate
from echotrain.orchestration.cluster import connect
from echotrain.orchestration.prepare import PrepareConfig, prepare

__all__ = ["DEBUG_CATALOG", "ensure_debug_data"]

logger = logging.getLogger(__name__)

# Where the debug recipes look for data, unless data.catalog= says otherwise; relative to the working directory.
DEBUG_CATALOG = "build/debug/prepared"


def ensure_debug_data(catalog: str = DEBUG_CATALOG) -> None:
    """Simulate and prepare nine tiny scans, unless the catalog is there already."""
    folder = Path(catalog)
    if (folder / "catalog").is_dir():
        return
    logger.info("simulating a few scans for the debug recipes in %s", folder.parent)
    scans = folder.parent / "scans"
    simulate(SimulationConfig(num_patients=9, volumes_per_patient=1, num_slices=4, matrix=32), scans)
    connect()
    prepare(PrepareConfig(source=str(scans), to=str(folder)))
