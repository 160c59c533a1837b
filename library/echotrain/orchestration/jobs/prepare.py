"""The prepare job: from scanner files to shards and a catalog, one Ray Data task per scan.

Every scan is curated, de-identified, encoded and written by one task, which leaves a record behind when it is done. The
driver joins the records, splits patients, and commits the catalog last, in one write. A killed job therefore leaves
records that the next run finds and skips, and no half catalog.
"""

import dataclasses
import logging
import time
import uuid
from collections.abc import Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from echotrain.config import to_dict
from echotrain.data.catalog.containment import trust_setting
from echotrain.data.catalog.rows import Catalog
from echotrain.data.catalog.store import commit_version, load_catalog
from echotrain.data.formats import Deidentifier, ReadLimits
from echotrain.data.formats.sources import ScanSource, find_sources, local_copy, opened_in_place, scans_root
from echotrain.data.preparing.assemble import Assembly, LeftOut, assemble
from echotrain.data.preparing.convert import ConvertConfig, ScanRecord, read_record, reason_of, scan_key
from echotrain.data.preparing.convert_images import convert_source
from echotrain.data.preparing.curate import Rejection
from echotrain.data.preparing.key_file import KeyEntry, check_key_file, identify, write_key_file
from echotrain.data.splits.given import GivenSplit, GivenSplitConfig, find_given_split, with_parts
from echotrain.data.splits.made import SplitConfig
from echotrain.errors import CatalogError, ConfigError, ScanError
from echotrain.log import console, track
from echotrain.orchestration.jobs.salting import check_salt, choose_salt, salt_check, scheme_notes
from echotrain.orchestration.runtime.cluster import DriverEnvironment, connect
from echotrain.orchestration.runtime.mapping import Result, map_items
from echotrain.storage.open import absolute_uri, local_path, open_store
from echotrain.storage.store import Store

__all__ = ["PrepareConfig", "PrepareReport", "prepare"]

logger = logging.getLogger(__name__)

_COMMIT_ATTEMPTS = 5
_MAX_ATTEMPTS = 3
_READ_THREADS = 16
_LOG_INTERVAL_S = 15.0


@dataclass(frozen=True, kw_only=True)
class PrepareConfig:
    """What to prepare, and how.

    Attributes:
        source: Folder, S3 prefix or single file of scans.
        to: Folder or S3 prefix for shards and catalog.
        convert: What decides the bytes.
        split: How patients are split, where no split is given.
        given_split: Where a split of others is written, which is kept as it is; None makes one here.
        workers: Scans converted at a time; 0 takes every CPU.
        salt: Secret key of the pseudonyms, the same for every run into one catalog; "" takes what ``salting.choose_salt`` finds.
        key_file: Where who is who is written, as CSV; "" for nowhere.
        limits: Memory limits on what a file may declare.
    """

    source: str
    to: str
    convert: ConvertConfig = field(default_factory=ConvertConfig)
    split: SplitConfig = field(default_factory=SplitConfig)
    given_split: GivenSplitConfig | None = None
    workers: int = 0
    salt: str = field(default="", repr=False)
    key_file: str = ""
    limits: ReadLimits = field(default_factory=ReadLimits)

    def __post_init__(self) -> None:
        if self.workers < 0:
            raise ConfigError(f"workers={self.workers}", "must be at least 1, or 0 for every CPU", "Leave it out.")
        if self.given_split is not None and self.split != SplitConfig():
            raise ConfigError(f"split={self.split}", "has no effect where the split is given", "Leave out --split, or --split-from.")
        if self.convert.payload == "raw" and local_path(self.source) is not None and local_path(self.to) is None:
            raise ConfigError(
                f"payload=raw from the folder {self.source} to {self.to}",
                "leaves the bytes in a folder that workers elsewhere cannot read",
                "Upload the scans to S3 and prepare them from there, or use payload=packed.",
            )


@dataclass(frozen=True, kw_only=True)
class PrepareReport:
    """What a run did.

    Attributes:
        catalog: The catalog that now is the newest.
        is_new: Whether this run committed it; False where nothing had changed.
        num_scans: Scans found in the source.
        num_resumed: Those that an earlier run had finished.
        left_out: What is not in the catalog, of all runs.
        scans: What is, of all runs: an entry for each scan, with its kept slices and what was found in it.
        paths: Source URI by its pseudonym, for this machine's console only.
        notes: What whoever prepares should know of the whole, a sentence each.
    """

    catalog: Catalog
    is_new: bool
    num_scans: int
    num_resumed: int
    left_out: list[LeftOut]
    scans: list[dict[str, Any]]
    paths: Mapping[str, str]
    notes: tuple[str, ...] = ()


def prepare(config: PrepareConfig) -> PrepareReport:
    """Prepare every scan of a source; finished ones of an earlier or killed run are not done again.

    Raises:
        ConfigError: A setting or the source is wrong, or the pseudonyms have no key.
        CatalogError: No scan could be used, or the existing catalog is damaged.
        StorageError: A store failed after bounded retries; the same command resumes.
    """
    store = open_store(absolute_uri(config.to))
    key_file = check_key_file(config.key_file, store.uri) if config.key_file else None
    base = _newest(store)
    salt, notes = choose_salt(config.salt, base, store.uri)
    sources = find_sources(config.source, with_images=True)
    deidentifier = Deidentifier(salt, safe_names=config.convert.safe_names, root=scans_root(config.source))
    given = None if config.given_split is None else find_given_split(config.given_split, _places(config.source, sources), deidentifier)
    keys = {source.uri: scan_key(deidentifier, source.uri, source.size, source.version, config.convert) for source in sources}
    notes += scheme_notes(base, deidentifier, {deidentifier.pseudonym("source", source.uri) for source in sources})
    unsplit = _unsplit(sources, keys, given, deidentifier)
    done = _finished(store, (key for key in keys.values() if key not in unsplit))
    todo = [source for source in sources if keys[source.uri] not in done and keys[source.uri] not in unsplit]
    for leftover in list(store.list("attempts/")):
        store.delete(leftover.key)
    logger.info("%d scans found, %d of them prepared before", len(sources), len(done))
    records = unsplit | done
    for record in track(_convert_all(todo, keys, store.uri, config, deidentifier), "Preparing scans", total=len(todo)):
        records[record.key] = record
    of_sources = {source.uri: records[keys[source.uri]].volumes for source in sources}
    ordered = [record for volumes in of_sources.values() for record in volumes]
    if given is not None:
        given = with_parts(given, {deidentifier.pseudonym("source", uri): names for uri, names in _names(of_sources)})
    catalog, assembly = _commit(store, ordered, base, config, given, deidentifier)
    if key_file is not None:
        notes += _write_key(key_file, sources, catalog, assembly, config.limits, deidentifier)
    return PrepareReport(
        catalog=catalog,
        is_new=assembly.is_changed,
        num_scans=len(sources),
        num_resumed=len(done),
        left_out=assembly.left_out,
        scans=assembly.scans,
        paths={name: uri for uri, names in _names(of_sources) for name in (deidentifier.pseudonym("source", uri), *names)},
        notes=(*notes, *assembly.notes, *_trust_note(catalog)),
    )


def _names(of_sources: Mapping[str, Iterable[ScanRecord]]) -> list[tuple[str, list[str]]]:
    """Return the pseudonyms of each source's volumes."""
    return [(uri, [record.source for record in records]) for uri, records in of_sources.items()]


def _places(uri: str, sources: Iterable[ScanSource]) -> dict[str, str]:
    """Return the path below the source by URI, of every scan."""
    root = scans_root(uri)
    return {source.uri: source.uri.removeprefix(root) for source in sources}


def _unsplit(
    sources: Iterable[ScanSource], keys: Mapping[str, str], given: GivenSplit | None, deidentifier: Deidentifier
) -> dict[str, ScanRecord]:
    """Return records of the scans that are known beforehand to have no split: they are not even read."""
    reasons = {} if given is None else given.left_out
    named = ((source, deidentifier.pseudonym("source", source.uri)) for source in sources)
    return {
        keys[source.uri]: ScanRecord(
            key=keys[source.uri],
            source=name,
            name=deidentifier.pseudonym("unsplit", source.uri),
            rejections=[Rejection(None, reasons[name])],
        )
        for source, name in named
        if name in reasons
    }


def _trust_note(catalog: Catalog) -> tuple[str, ...]:
    """Say what readers must be told of a catalog whose bytes lie elsewhere."""
    setting = trust_setting(catalog.table, catalog.root)
    return (f"Its bytes stay where the scans are, so whoever reads it says that they trust that place: {setting}",) if setting else ()


@dataclass(frozen=True, kw_only=True)
class _Task:
    """What every task needs; travels as an argument, because the dashboard shows runtime environments to everybody."""

    store_uri: str
    config: ConvertConfig
    limits: ReadLimits
    deidentifier: Deidentifier
    environment: DriverEnvironment


def _convert_all(
    sources: list[ScanSource], keys: Mapping[str, str], store_uri: str, config: PrepareConfig, deidentifier: Deidentifier
) -> Iterator[ScanRecord]:
    """Yield the record of every scan as it is finished, in any order."""
    if not sources:
        return
    connect()
    task = _Task(
        store_uri=store_uri,
        config=config.convert,
        limits=config.limits,
        deidentifier=deidentifier,
        environment=DriverEnvironment.here(),
    )
    items = [{**dataclasses.asdict(source), "key": keys[source.uri]} for source in sources]
    logged = time.monotonic()
    results = map_items(items, _convert_item, task, num_cpus=1, concurrency=config.workers or None)
    for number, result in enumerate(results, start=1):
        if not console.is_terminal and time.monotonic() - logged > _LOG_INTERVAL_S:
            logged = time.monotonic()
            logger.info("%d of %d scans prepared", number, len(items))
        yield ScanRecord.from_values(result.values)


def _convert_item(item: dict[str, Any], task: _Task) -> Result:
    """Convert one scan, in a worker process."""
    task.environment.apply()
    source = ScanSource(uri=item["uri"], size=item["size"], version=item["version"], members=tuple(item["members"]))
    return Result(_convert_counted(source, item["key"], open_store(task.store_uri), task).to_values())


def _convert_counted(source: ScanSource, key: str, store: Store, task: _Task) -> ScanRecord:
    """Convert one scan, unless it has taken its process down too often: Ray Data itself would try for ever."""
    prefix = f"attempts/{key}-"
    attempts = [found.key for found in store.list(prefix)]
    try:
        if len(attempts) >= _MAX_ATTEMPTS:
            reason = f"the process that read it died {len(attempts)} times (out of memory, or a damaged file)"
            return _without_rows(source, key, task.deidentifier, reason)
        attempts.append(f"{prefix}{uuid.uuid4().hex[:8]}")
        store.write(attempts[-1], b"")
        # Headers are small, and a scan is large.
        with (opened_in_place if task.config.index_only and not source.members else local_copy)(source) as path:
            return convert_source(
                path, uri=source.uri, key=key, store=store, config=task.config, deidentifier=task.deidentifier, limits=task.limits
            )
    except ScanError as error:
        return _without_rows(source, key, task.deidentifier, reason_of(error, source.name))
    finally:
        for attempt in attempts:
            store.delete(attempt)


def _without_rows(source: ScanSource, key: str, deidentifier: Deidentifier, reason: str) -> ScanRecord:
    name = deidentifier.pseudonym("unreadable", source.uri)
    return ScanRecord(key=key, source=deidentifier.pseudonym("source", source.uri), name=name, rejections=[Rejection(None, reason)])


def _finished(store: Store, keys: Iterable[str]) -> dict[str, ScanRecord]:
    """Read the records of finished scans."""
    with ThreadPoolExecutor(_READ_THREADS) as threads:
        records = threads.map(lambda key: read_record(store, key), keys)
        return {record.key: record for record in records if record is not None}


def _commit(
    store: Store,
    records: list[ScanRecord],
    base: Catalog | None,
    config: PrepareConfig,
    given: GivenSplit | None,
    deidentifier: Deidentifier,
) -> tuple[Catalog, Assembly]:
    """Assemble and commit; where another job committed in between, assemble again on top of what it wrote."""
    settings = {"convert": to_dict(config.convert), "split": to_dict(config.split) if given is None else None}
    for _ in range(_COMMIT_ATTEMPTS):
        assembly = assemble(records, base, config.split, given)
        if base is not None and not assembly.is_changed:
            return base, assembly
        manifest = {"settings": settings, "salt_check": salt_check(deidentifier), **assembly.manifest()}
        catalog = commit_version(store, assembly.table, manifest, 1 if base is None else base.version + 1)
        if catalog is not None:
            return catalog, assembly
        base = load_catalog(store.uri, reads_payload=False)
        check_salt(base, deidentifier)
    raise CatalogError(store.uri, "is being written by other prepare jobs", "Run again when they are done.")


def _newest(store: Store) -> Catalog | None:
    return load_catalog(store.uri, reads_payload=False) if any(found.key.endswith(".json") for found in store.list("catalog/")) else None


def _write_key(
    path: Path, sources: Sequence[ScanSource], catalog: Catalog, assembly: Assembly, limits: ReadLimits, deidentifier: Deidentifier
) -> tuple[str, ...]:
    """Write who is who of every scan of the source, whenever it was prepared; read here, so that no name travels through the cluster."""
    columns = (catalog.table[name].to_pylist() for name in ("dataset", "volume", "patient"))
    patients = {(dataset, volume): patient for dataset, volume, patient in zip(*columns, strict=True)}
    names = {scan["source"]: (scan["dataset"], scan["volume"]) for scan in assembly.scans}
    entries = []
    with ThreadPoolExecutor(_READ_THREADS) as threads:
        identities = threads.map(lambda source: identify(source, limits), sources)
        for source, identity in track(zip(sources, identities, strict=True), "Writing who is who", total=len(sources)):
            dataset, volume = names.get(deidentifier.pseudonym("source", source.uri), ("", ""))
            entry = KeyEntry(source=source.uri, patient_id=identity.patient_id, patient_name=identity.patient_name)
            entries.append(dataclasses.replace(entry, patient=patients.get((dataset, volume), ""), dataset=dataset, volume=volume))
    write_key_file(path, entries)
    unknown = sum(not (entry.patient_id or entry.patient_name) for entry in entries)
    told = (f"{unknown} of {len(entries)} scans name nobody, or could not be read; the key file has their paths alone.",) if unknown else ()
    return (f"Who is who of {len(entries)} scans is in {path}; keep it apart from the catalog.", *told)
