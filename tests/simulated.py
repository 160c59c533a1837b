"""Prepared catalogs of simulated scans, made without Ray."""

from collections.abc import Sequence
from pathlib import Path

import pyarrow as pa

from echotrain.data.catalog.store import commit_catalog
from echotrain.data.formats import Deidentifier
from echotrain.data.preparing.assemble import assemble
from echotrain.data.preparing.convert import ConvertConfig, convert_scan, scan_key
from echotrain.data.simulation.cine import CINE_DATASET, CineConfig, simulate_cine
from echotrain.data.simulation.scans import SimulationConfig, simulate
from echotrain.data.splits.made import SplitConfig
from echotrain.storage.open import open_store


def write_simulated_catalog(
    folder: Path, *, to: str = "", num_train: int = 5, num_val: int = 2, num_slices: int = 4, matrix: int = 32
) -> str:
    """Simulate into a folder, convert and commit; return the catalog's URI.

    The last ``num_val`` patients are the validation split; where there are none, the patients are split as ``prepare`` does it.
    """
    simulation = SimulationConfig(num_patients=num_train + num_val, volumes_per_patient=1, num_slices=num_slices, matrix=matrix)
    return _write(simulate(simulation, folder / "scans"), to or str(folder / "prepared"), ConvertConfig(), num_train, num_val)


def write_cine_catalog(
    folder: Path,
    *,
    to: str = "",
    num_train: int = 4,
    num_val: int = 2,
    convert: ConvertConfig | None = None,
    **settings: int | tuple[str, ...],
) -> str:
    """Simulate hearts into a folder, convert and commit, as ``write_simulated_catalog`` does; return the catalog's URI.

    Args:
        folder: Where.
        to: Of the catalog; "" is below the folder.
        num_train, num_val: Patients, of three centres in turn.
        convert: How; the default packs slices whole.
        settings: Of ``CineConfig``; small ones by default.
    """
    small = {"per_patient": 1, "num_slices": 2, "num_frames": 5, "matrix": 32}
    files = simulate_cine(CineConfig(**{"num_patients": num_train + num_val, **small, **settings}), folder / "scans")
    return _write(files, to or str(folder / "prepared"), convert or ConvertConfig(dataset=CINE_DATASET), num_train, num_val)


def _write(files: Sequence[Path], to: str, config: ConvertConfig, num_train: int, num_val: int) -> str:
    store = open_store(to)
    deidentifier = Deidentifier()
    records = [
        convert_scan(
            path,
            uri=str(path),
            key=scan_key(deidentifier, str(path), path.stat().st_size, "1", config),
            store=store,
            config=config,
            deidentifier=deidentifier,
        )
        for path in files
    ]
    table = assemble(records, None, SplitConfig()).table
    if not num_val:
        commit_catalog(store, table, {})
        return store.uri
    patients = sorted(set(table["patient"].to_pylist()))
    split = {patient: "val" if index >= num_train else "train" for index, patient in enumerate(patients)}
    column = pa.array([split[patient] for patient in table["patient"].to_pylist()])
    table = table.set_column(table.schema.get_field_index("split"), "split", column)
    commit_catalog(store, table, {})
    return store.uri
