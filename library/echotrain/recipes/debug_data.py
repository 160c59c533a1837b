"""Simulated scans for recipes that need no data of yours, made where they are missing."""

import functools
import logging
from collections.abc import Callable
from pathlib import Path

from echotrain.data.formats.deidentify import PUBLIC_SALT
from echotrain.data.preparing.convert import ConvertConfig
from echotrain.data.simulation.cine import CINE_DATASET, CineConfig, simulate_cine
from echotrain.data.simulation.scans import SimulationConfig, simulate
from echotrain.orchestration.jobs.prepare import PrepareConfig, prepare
from echotrain.orchestration.runtime.cluster import connect
from echotrain.recipes.debug_catalogs import CINE_CATALOG, DEBUG_CATALOG, STUDY_CATALOG

__all__ = ["ensure_cine_data", "ensure_debug_data", "ensure_study_data"]

logger = logging.getLogger(__name__)


def ensure_debug_data(catalog: str = DEBUG_CATALOG) -> None:
    """Simulate and prepare nine tiny scans, unless the catalog is there already."""
    _ensure(catalog, functools.partial(simulate, SimulationConfig(num_patients=9, volumes_per_patient=1, num_slices=4, matrix=32)))


def ensure_study_data(catalog: str = STUDY_CATALOG) -> None:
    """Simulate and prepare two scans each of 60 patients, unless the catalog is there already."""
    _ensure(catalog, functools.partial(simulate, SimulationConfig(num_patients=60, volumes_per_patient=2, num_slices=2, matrix=96)))


def ensure_cine_data(catalog: str = CINE_CATALOG) -> None:
    """Simulate and prepare two tiny examinations of the heart each of nine patients, unless the catalog is there already."""
    config = CineConfig(num_patients=9, per_patient=2, num_slices=2, num_frames=6, matrix=40)
    _ensure(catalog, functools.partial(simulate_cine, config), dataset=CINE_DATASET)


def _ensure(catalog: str, write: Callable[[Path], list[Path]], dataset: str = "") -> None:
    folder = Path(catalog)
    if (folder / "catalog").is_dir():
        return
    scans = folder.parent / "scans"
    logger.info("simulating scans in %s", scans)
    write(scans)
    connect()
    prepare(PrepareConfig(source=str(scans), to=str(folder), salt=PUBLIC_SALT, convert=ConvertConfig(dataset=dataset)))
