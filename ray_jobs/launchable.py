"""The verbs that run as jobs on Kubernetes: what each one's command line asks of a cluster, known without running it."""

import argparse
import os
import shutil
import subprocess
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import Literal

from echotrain.config import keys, override, parse_assignment, to_dict
from echotrain.data.formats.deidentify import SALT_VARIABLE
from echotrain.errors import ConfigError, LaunchError
from echotrain.launching.ordering import Asked
from echotrain.launching.sizing import Need
from echotrain.orchestration.jobs.espirit import EspiritSettings
from echotrain.recipes.registry import RECIPES
from echotrain.similarity.embedders import EMBEDDERS
from echotrain.training.experiment import Experiment
from echotrain.training.swept import check_sweep
from ray_jobs import evaluate, filter, prepare, reconstruct, report, study, sweep, train

ROOT = Path(__file__).resolve().parents[1]
_DEVICES: dict[str, Literal["gpu", "cuda", "cpu"]] = {"auto": "gpu", "cuda": "cuda", "cpu": "cpu"}
_WEIGHTS = ("autoencoder", "init")


def ask_train(arguments: Sequence[str]) -> Asked:
    """Ask for what ``train`` needs."""
    options = train.parser().parse_intermixed_args(arguments)
    if options.list or options.show or options.recipe is None:
        raise _needs_no_cluster("train")
    experiment = train.read(options)
    return Asked(
        words=experiment.name,
        arguments=arguments,
        need=_need_of(experiment, 1),
        places=_places_of(experiment),
        lacks_storage=_lacks_storage(options.settings),
        wandb=experiment.wandb,
    )


def ask_sweep(arguments: Sequence[str]) -> Asked:
    """Ask for what ``sweep`` needs: every trial is checked."""
    options = sweep.parser().parse_intermixed_args(arguments)
    if options.show:
        raise _needs_no_cluster("sweep")
    spec, base = sweep.read_experiment(options.file, options.settings, seed=options.seed)
    places = {name: place for trial in check_sweep(spec, base, seed=options.seed) for name, place in _places_of(trial).items()}
    there = _in_image(options.file)
    return Asked(
        words=f"sweep {spec.name}",
        arguments=[there if Path(word) == options.file else word for word in arguments],
        need=_need_of(base, options.concurrency),
        places=places,
        lacks_storage=_lacks_storage([*spec.settings, *options.settings]),
        wandb=base.wandb,
        notes=(f"{there} differs from what is committed: the image may have another one",) if _is_changed(options.file) else (),
    )


def ask_study(arguments: Sequence[str]) -> Asked:
    """Ask for what ``study`` needs."""
    options = study.parser().parse_intermixed_args(arguments)
    if options.list or options.show or options.study is None:
        raise _needs_no_cluster("study")
    asked = study.read(options)
    named = [place for section in asked.sections if (place := getattr(section, "embedder_weights", ""))]
    weights = {"embedder_weights=": named[0]} if named else {}
    return Asked(
        words=f"study {asked.name}",
        arguments=arguments,
        need=_need_of(asked.base, options.concurrency),
        places={**_places_of(asked.base), **weights},
        lacks_storage=_lacks_storage(options.settings),
        wandb=asked.base.wandb,
    )


def ask_evaluate(arguments: Sequence[str]) -> Asked:
    """Ask for what ``evaluate`` needs; whether a setting's value suits the run is known only where the run is."""
    options = evaluate.parser().parse_intermixed_args(arguments)
    evaluate.read(options)
    is_espirit = options.run == evaluate.ESPIRIT
    if is_espirit:
        override(EspiritSettings(), options.settings)
    else:
        _check_paths(options.settings)
    run = {} if is_espirit else {"RUN ": options.run}
    return Asked(
        words=f"evaluate {_last_part(options.run)}",
        arguments=arguments,
        need=Need(workers=options.workers, device="cpu" if is_espirit else "gpu"),
        places={**run, **_catalog_in(options.settings), **({"--to ": options.to} if options.to else {})},
    )


def ask_prepare(arguments: Sequence[str]) -> Asked:
    """Ask for what ``prepare`` needs."""
    options = prepare.parser().parse_intermixed_args(arguments)
    prepare.read(options)
    given = prepare.given_split(options)
    listed = {f"--split-from {given.kind}=": given.uri} if given is not None and given.uri else {}
    key_file = {"--key-file ": options.key_file} if options.key_file else {}
    is_salted = bool(os.environ.get(SALT_VARIABLE))
    return Asked(
        words=f"prepare {_last_part(options.to)}",
        arguments=arguments,
        need=Need(workers=options.workers, device="cpu"),
        places={"SOURCE ": options.source, "--to ": options.to, **listed, **key_file},
        needs_salt=True,
        notes=(f"{SALT_VARIABLE} of this machine is not passed on: pods take it from the operator's Secret",) if is_salted else (),
    )


def ask_report(arguments: Sequence[str]) -> Asked:
    """Ask for what ``report`` needs."""
    options = report.parser().parse_intermixed_args(arguments)
    report.read(options)
    uris = {f"URI {number} ": uri for number, uri in enumerate(options.uris, start=1)}
    return Asked(words="report", arguments=arguments, need=Need(device="none"), places={**uris, "--out ": options.out})


def ask_filter(arguments: Sequence[str]) -> Asked:
    """Ask for what ``filter`` needs."""
    config = filter.read(filter.parser().parse_intermixed_args(arguments))
    if config.embedder not in EMBEDDERS:
        raise ConfigError(f"embedder {config.embedder!r}", "is unknown", f"Use one of {', '.join(EMBEDDERS)}.")
    return Asked(
        words=f"filter {config.name}",
        arguments=arguments,
        need=Need(workers=config.workers, device="cpu"),
        places={"CATALOG ": config.catalog, **({"--weights ": config.weights} if config.weights else {})},
    )


def ask_reconstruct(arguments: Sequence[str]) -> Asked:
    """Ask for what ``reconstruct`` needs."""
    options = reconstruct.parser().parse_intermixed_args(arguments)
    reconstruct.read(options)
    _check_paths(options.settings)
    return Asked(
        words=f"reconstruct {_last_part(options.run)}",
        arguments=arguments,
        need=Need(workers=options.workers),
        places={"RUN ": options.run, "SOURCE ": options.source, "--to ": options.to, **_catalog_in(options.settings)},
    )


@dataclass(frozen=True, kw_only=True)
class Verb:
    """A verb that can be launched: its module, and how its command line is understood."""

    module: ModuleType
    ask: Callable[[Sequence[str]], Asked]

    def parser(self) -> argparse.ArgumentParser:
        """Return the verb's own parser."""
        parser: argparse.ArgumentParser = self.module.parser()
        return parser


VERBS = {
    "train": Verb(module=train, ask=ask_train),
    "sweep": Verb(module=sweep, ask=ask_sweep),
    "study": Verb(module=study, ask=ask_study),
    "evaluate": Verb(module=evaluate, ask=ask_evaluate),
    "prepare": Verb(module=prepare, ask=ask_prepare),
    "report": Verb(module=report, ask=ask_report),
    "filter": Verb(module=filter, ask=ask_filter),
    "reconstruct": Verb(module=reconstruct, ask=ask_reconstruct),
}


def _need_of(experiment: Experiment, concurrency: int) -> Need:
    workers = experiment.workers * max(1, concurrency)
    return Need(workers=workers, cpus_per_worker=experiment.cpus_per_worker, device=_DEVICES[experiment.device])


def _places_of(experiment: Experiment) -> dict[str, str]:
    weights = {f"model.{name}=": uri for name in _WEIGHTS if (uri := getattr(experiment.model, name, ""))}
    return {"data.catalog=": experiment.data.catalog, "storage=": experiment.storage, **weights}


def _lacks_storage(settings: Sequence[str]) -> bool:
    return not any(setting.startswith("storage=") for setting in settings)


def _catalog_in(settings: Sequence[str]) -> dict[str, str]:
    values = dict(map(parse_assignment, settings))
    return {"data.catalog=": values["data.catalog"]} if "data.catalog" in values else {}


def _check_paths(settings: Sequence[str]) -> None:
    """Refuse a setting that no experiment has."""
    known = {path for recipe in RECIPES.values() for path in keys(Experiment, to_dict(recipe()))}
    for setting in settings:
        path, _ = parse_assignment(setting)
        if path not in known:
            override(Experiment(), [setting])


def _last_part(uri: str) -> str:
    return uri.rstrip("/").rpartition("/")[2].partition("@")[0]


def _in_image(file: Path) -> str:
    """Return the path of a sweep in the image, whose working directory is the repository's root."""
    path = file.resolve()
    if not path.is_relative_to(ROOT / "sweeps"):
        remedy = f"Put it into {ROOT / 'sweeps'} and have the image built again, or give one that is there."
        raise LaunchError(f"FILE {file}", "is not in sweeps/ of this repository, so the image does not have it", remedy)
    return path.relative_to(ROOT).as_posix()


def _is_changed(file: Path) -> bool:
    """Whether git knows a file to differ from what is committed; False where there is no git."""
    if shutil.which("git") is None:
        return False
    command = ["git", "-C", str(ROOT), "status", "--porcelain", "--", str(file.resolve())]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    return done.returncode == 0 and bool(done.stdout.strip())


def _needs_no_cluster(verb: str) -> LaunchError:
    return LaunchError(f"this {verb}", "has nothing to run: no name, or --list or --show", f"Run python -m ray_jobs.{verb} here.")
