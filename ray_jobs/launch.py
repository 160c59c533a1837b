"""Run a verb as a job on Kubernetes, by the template that the operator's chart published, and follow it to its end."""

import argparse
import datetime as dt
import importlib.metadata
import re
import sys
import time
from collections.abc import Callable, Sequence
from typing import Any

import yaml

from echotrain.errors import EchotrainError, LaunchError
from echotrain.launching.client import KubeClient
from echotrain.launching.display import Display, job_table
from echotrain.launching.follow import Pace, follow
from echotrain.launching.jobs import Jobs
from echotrain.launching.looking import links_of, printed_lines, status_lines
from echotrain.launching.objects import Observed
from echotrain.launching.ordering import Asked, Choices, make_order, storage_of
from echotrain.launching.phase import phase_of
from echotrain.launching.pruning import prunable
from echotrain.launching.template import Template, fill
from echotrain.log import console, setup_logging
from echotrain.redaction import without_credentials
from ray_jobs.launchable import VERBS

EXAMPLES = """verbs: train, sweep, study, evaluate, prepare, report, filter, reconstruct; what is no option above is theirs, as ever.

examples:
  python -m ray_jobs.launch train varnet_mosaic_x8 data.catalog=s3://lab/mosaic workers=4
  python -m ray_jobs.launch train varnet_mosaic_x8 data.catalog=s3://lab/mosaic --queue team-a --priority echotrain-high --detach
  python -m ray_jobs.launch sweep sweeps/mosaic_scaling.yaml data.catalog=s3://lab/mosaic --concurrency 4 --time-limit 12h
  python -m ray_jobs.launch prepare s3://lab/raw --to s3://lab/mosaic --nodes 4
  python -m ray_jobs.launch evaluate s3://lab/runs/varnet_mosaic_x8 --dry-run

  python -m ray_jobs.launch list                      jobs of the namespace
  python -m ray_jobs.launch status NAME               what a job is doing, and where to look at it
  python -m ray_jobs.launch logs NAME [--follow]      what it prints; --follow goes on to its end
  python -m ray_jobs.launch cancel NAME
  python -m ray_jobs.launch prune [--dry-run]         delete what is left of your jobs that ended two weeks ago

A job goes on where the launcher is interrupted (Ctrl-C) or loses the cluster. Exit codes: 0 succeeded, 1 failed, 2 an error that you can
act on, 3 stopped or cancelled, 130 interrupted.
"""


def seconds(text: str) -> int:
    """Return a time such as 90m, 12h or 2d in seconds."""
    found = re.fullmatch(r"(\d+)([smhd])", text)
    if found is None:
        raise argparse.ArgumentTypeError(f"{text!r} is no time such as 90m, 12h or 2d")
    return int(found[1]) * {"s": 1, "m": 60, "h": 3600, "d": 86400}[found[2]]


CONNECTION: dict[str, dict[str, Any]] = {
    "--namespace": {"default": "", "metavar": "NAME", "help": "of the chart's release (default: the context's, else echotrain)"},
    "--context": {"default": "", "metavar": "NAME", "help": "of the kubeconfig (default: the current one)"},
}
OPTIONS: dict[str, dict[str, Any]] = {
    **CONNECTION,
    "--template": {"default": "echotrain-rayjob", "metavar": "NAME", "help": "ConfigMap of the chart (default: %(default)s)"},
    "--group": {"default": "", "metavar": "NAME", "help": "worker group (default: the only one that fits)"},
    "--nodes": {"type": int, "metavar": "N", "help": "pods of the group (default: as many as the workers need)"},
    "--queue": {"default": "", "metavar": "NAME", "help": "Kueue's LocalQueue (default: the operator's)"},
    "--priority": {"default": "", "metavar": "NAME", "help": "one that the operator offers"},
    "--job-name": {"default": "", "metavar": "NAME", "help": "at most 47 characters (default: the recipe's name and some at random)"},
    "--retries": {"type": int, "metavar": "N", "help": "further attempts of a job that fails (default: the operator's)"},
    "--time-limit": {
        "type": seconds,
        "metavar": "TIME",
        "help": "say 90m, 12h or 2d (default and most: the operator's)",
    },
    "--detach": {"action": "store_true", "help": "leave once the job is made"},
    "--dry-run": {"action": "store_true", "help": "print the RayJob, let the cluster check it, and make nothing"},
}
PACE = Pace()
INTERRUPTED = 130
_MODULE = "python -m ray_jobs.launch"
_CANCEL_TIMEOUT_S = 120.0


def main(argv: Sequence[str] | None = None) -> int:
    """Launch a verb, or look after a job; return 0, 1, 2, 3 or 130 as the help says."""
    mine, rest = split(sys.argv[1:] if argv is None else argv)
    setup_logging()
    if not rest or rest[0] in ("-h", "--help"):
        own_parser().print_help()
        return 0
    command, *arguments = rest
    try:
        if command in COMMANDS:
            return COMMANDS[command]([*arguments, *mine])
        if command not in VERBS:
            raise LaunchError(f"{command!r}", "is no verb that can be launched", f"Use one of {', '.join([*VERBS, *COMMANDS])}.")
        if {"-h", "--help"} & set(arguments):
            own_parser().print_help()
            VERBS[command].parser().print_help()
            return 0
        return launch(command, arguments, own_parser().parse_args(mine))
    except EchotrainError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        return INTERRUPTED


def split(argv: Sequence[str]) -> tuple[list[str], list[str]]:
    """Return the launcher's own options, and what is the verb's, unchanged; what follows a bare ``--`` is the verb's."""
    mine: list[str] = []
    rest: list[str] = []
    words = iter(argv)
    for word in words:
        name, equals, _ = word.partition("=")
        if word == "--":
            rest += [word, *words]
        elif name not in OPTIONS:
            rest.append(word)
        else:
            takes_next = not equals and "action" not in OPTIONS[name]
            mine += [word, *([next(words, "")] if takes_next else [])]
    return mine, rest


def own_parser() -> argparse.ArgumentParser:
    """Return the parser of the launcher's own options."""
    commands = "list | status NAME | logs NAME [--follow] | cancel NAME | prune"
    usage = f"{_MODULE} VERB [options] [what the verb takes]\n       {_MODULE} {commands}"
    parser = argparse.ArgumentParser(
        prog=_MODULE,
        usage=usage,
        description=__doc__,
        epilog=EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    for name, settings in OPTIONS.items():
        parser.add_argument(name, **settings)
    return parser


def launch(verb: str, arguments: Sequence[str], options: argparse.Namespace) -> int:
    """Check everything that can be known here, make the job, and follow it."""
    choices = Choices(**{name: getattr(options, name) for name in Choices.__dataclass_fields__})
    asked = VERBS[verb].ask(arguments)
    jobs = connect(options)
    template = jobs.template(options.template, version=importlib.metadata.version("echotrain"))
    if asked.lacks_storage:
        asked = with_storage(verb, asked, template)
    order = make_order(verb, asked, template, choices, jobs.client)
    manifest = fill(template, order)
    if order.queue:
        jobs.check_queue(order.queue)
    for note in asked.notes:
        say(f"note: {note}")
    made = jobs.create(manifest, dry_run=options.dry_run)
    if options.dry_run:
        print(without_credentials(yaml.safe_dump(manifest, sort_keys=False)), end="")
        say("the cluster would take this; nothing was made")
        return 0
    pods = f"{order.pods} pod{'s' * (order.pods != 1)} of group {order.group}" if order.pods else "the head alone"
    queue = f" in queue {order.queue}" if order.queue else ""
    say(f"job {order.name} in namespace {jobs.client.namespace}{queue}, on {pods}", *links_of(Observed(job=made)))
    if options.detach:
        say(*how_to(order.name, options))
        return 0
    return watch(jobs, order.name, options)


def connect(options: argparse.Namespace) -> Jobs:
    """Return the jobs of the namespace and the cluster that are meant."""
    return Jobs(KubeClient(context=options.context, namespace=options.namespace))


def with_storage(verb: str, asked: Asked, template: Template) -> Asked:
    """Ask again, with the operator's storage."""
    setting = f"storage={storage_of(template)}"
    say(f"no storage= was given: added {setting}")
    return VERBS[verb].ask([*asked.arguments, setting])


def watch(jobs: Jobs, name: str, options: argparse.Namespace) -> int:
    """Follow a job to its end; return how it ended."""
    display = Display(console)
    try:
        return follow(jobs, name, display, pace=PACE).exit_code or 0
    except KeyboardInterrupt:
        display.close()
        say("", f"job {name} goes on", *how_to(name, options))
        return INTERRUPTED
    finally:
        display.close()


def list_jobs(arguments: Sequence[str]) -> int:
    """Print the jobs of a namespace."""
    options = command_parser("list", name=False).parse_args(arguments)
    jobs = connect(options)
    found = [Observed(job=job, workloads=jobs.workloads(job)) for job in jobs.launched()]
    print(job_table(found, dt.datetime.now(dt.UTC)) if found else f"no jobs in namespace {jobs.client.namespace}")
    return 0


def show_status(arguments: Sequence[str]) -> int:
    """Print what a job is doing; return how it ended, 0 while it has not."""
    options = command_parser("status").parse_args(arguments)
    jobs = connect(options)
    jobs.get(options.name)
    seen = jobs.observe(options.name)
    for line in status_lines(jobs, seen):
        print(without_credentials(line))
    return phase_of(seen).exit_code or 0


def show_logs(arguments: Sequence[str]) -> int:
    """Print what a job's command prints; with ``--follow`` return how it ended."""
    parser = command_parser("logs")
    parser.add_argument("--follow", action="store_true", help="go on to the job's end, and exit as it does")
    options = parser.parse_args(arguments)
    jobs = connect(options)
    jobs.get(options.name)
    if options.follow:
        return watch(jobs, options.name, options)
    for line in printed_lines(jobs, jobs.observe(options.name)):
        print(without_credentials(line))
    return 0


def cancel(arguments: Sequence[str]) -> int:
    """End a job and take its cluster down; its driver is asked to save a checkpoint first."""
    options = command_parser("cancel").parse_args(arguments)
    jobs = connect(options)
    job = jobs.get(options.name)
    phase = phase_of(jobs.observe(options.name))
    if phase.is_final:
        say(f"job {options.name} is over already ({phase})")
        return 0
    jobs.delete(job)
    say(f"asked for the end of job {options.name}")
    deadline = time.monotonic() + _CANCEL_TIMEOUT_S
    while time.monotonic() < deadline:
        seen = jobs.observe(options.name)
        if seen.job is None or seen.job["metadata"]["uid"] != job["metadata"]["uid"]:
            say("it is gone; the same command, launched again, goes on from its last checkpoint")
            return 0
        jobs.await_change(options.name, seen.version, PACE.starting)
        time.sleep(PACE.least)
    remedy = (
        "Tell the operator: KubeRay does not run, or it cannot ask Ray to stop the job, "
        "since the Secret with Ray's token that the job's cluster names is not there."
    )
    raise LaunchError(f"job {options.name}", f"is not gone after {_CANCEL_TIMEOUT_S:.0f} s", remedy)


def prune(arguments: Sequence[str]) -> int:
    """Delete jobs that ended some time ago, with their logs; what they stored stays."""
    parser = command_parser("prune", name=False)
    older = "that ended longer ago than, say, 90m, 12h or 2d (default: %(default)s)"
    parser.add_argument("--older-than", type=seconds, default="14d", metavar="TIME", help=older)
    parser.add_argument("--all", action="store_true", help="everybody's (default: those of the kubeconfig's user)")
    parser.add_argument("--dry-run", action="store_true", help="list them, and delete nothing")
    options = parser.parse_args(arguments)
    jobs, now = connect(options), dt.datetime.now(dt.UTC)
    before = now - dt.timedelta(seconds=options.older_than)
    found = prunable(jobs.launched(), before=before, user=None if options.all else jobs.client.user)
    if not found:
        say(f"no such jobs in namespace {jobs.client.namespace}")
        return 0
    print(job_table(found, now))
    if options.dry_run:
        say("nothing was deleted")
        return 0
    num_deleted = sum(jobs.delete(seen.job) for seen in found if seen.job is not None)
    say(f"deleted {num_deleted} job{'s' * (num_deleted != 1)}")
    return 0


def command_parser(command: str, *, name: bool = True) -> argparse.ArgumentParser:
    """Return the parser of a command that looks after jobs."""
    doc = (COMMANDS[command].__doc__ or "").strip()
    parser = argparse.ArgumentParser(prog=f"{_MODULE} {command}", description=doc, allow_abbrev=False)
    if name:
        parser.add_argument("name", metavar="NAME", help="of the job; list shows all")
    for flag, settings in CONNECTION.items():
        parser.add_argument(flag, **settings)
    return parser


def how_to(name: str, options: argparse.Namespace) -> list[str]:
    """Return how to come back to a job."""
    where = "".join(f" {flag} {value}" for flag in CONNECTION if (value := getattr(options, flag[2:])))
    return [f"follow it: {_MODULE} logs {name} --follow{where}", f"cancel it: {_MODULE} cancel {name}{where}"]


def say(*lines: str) -> None:
    """Tell a person; what is printed on stdout is for programs too."""
    for line in lines:
        console.print(without_credentials(line), highlight=False, markup=False)


COMMANDS: dict[str, Callable[[Sequence[str]], int]] = {
    "list": list_jobs,
    "status": show_status,
    "logs": show_logs,
    "cancel": cancel,
    "prune": prune,
}


if __name__ == "__main__":
    sys.exit(main())
