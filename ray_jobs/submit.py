"""Turn reconstructions into a challenge submission, checked by the challenge's own rules; or check one that exists."""

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from echotrain.errors import ConfigError, EchotrainError
from echotrain.evaluation.submission import (
    TRACKS,
    Challenge,
    CmrxreconChallenge,
    FastmriChallenge,
    MosaicChallenge,
    Submission,
    check_submission,
    write_submission,
)
from echotrain.log import setup_logging
from echotrain.storage.open import local_path
from echotrain.units import human_bytes

EXAMPLES = """examples:
  python -m ray_jobs.submit fastmri reconstructions/ --like knee_multicoil_test/ --to submission
  python -m ray_jobs.submit mosaic s3://lab/images --like s3://lab/ankle --track ankle --to ankle.zip
  python -m ray_jobs.submit cmrxrecon reconstructions/ --like ValidationSet/ --to Submission.zip
  python -m ray_jobs.submit mosaic ankle.zip --like ankle/ --track ankle --check-only    whoever wrote it

Names, headers and sizes come from the test set. The submission appears when it has passed the check, and not before; what is wrong
with it is listed, file by file.
"""


def main(argv: Sequence[str] | None = None) -> int:
    """Write or check a submission; return 2 where it breaks a rule."""
    parser = argparse.ArgumentParser(
        prog="python -m ray_jobs.submit", description=__doc__, epilog=EXAMPLES, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("challenge", choices=("fastmri", "mosaic", "cmrxrecon"), help="whose format and rules")
    parser.add_argument("source", metavar="SOURCE", help="folder or s3:// prefix of reconstructions; with --check-only, the submission")
    parser.add_argument("--like", required=True, metavar="URI", help="folder or s3:// prefix of the challenge's test set")
    parser.add_argument("--to", metavar="PATH", help="folder for the submission, or name.zip")
    parser.add_argument("--track", choices=tuple(TRACKS), help="track of MosaicMRI, which decides the limit of size")
    parser.add_argument("--check-only", action="store_true", help="check the submission SOURCE and write nothing")
    parser.add_argument("--overwrite", action="store_true", help="replace a submission of the same files")
    options = parser.parse_args(argv)
    setup_logging()
    try:
        done = _run(options)
    except EchotrainError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    files = "1 file" if done.num_files == 1 else f"{done.num_files} files"
    print(f"{done.place}: {files}, {human_bytes(done.num_bytes)}, nothing wrong.")
    return 0


def _run(options: argparse.Namespace) -> Submission:
    challenge = _challenge(options)
    if options.check_only:
        if options.to or options.overwrite:
            raise ConfigError("--check-only", "writes nothing, so --to and --overwrite have no meaning", "Leave them out.")
        return check_submission(challenge, _local(options.source), options.like)
    if not options.to:
        raise ConfigError("no --to", "a submission needs a place", "Give --to FOLDER or --to NAME.zip, or --check-only.")
    return write_submission(challenge, options.source, options.like, _local(options.to), overwrite=options.overwrite)


def _challenge(options: argparse.Namespace) -> Challenge:
    if options.challenge == "mosaic":
        if options.track is None:
            raise ConfigError("no --track", f"MosaicMRI has {', '.join(TRACKS)}", "Name the track of this test set.")
        return MosaicChallenge(track=options.track)
    if options.track is not None:
        raise ConfigError(f"--track {options.track}", "is of MosaicMRI alone", "Leave it out.")
    return FastmriChallenge() if options.challenge == "fastmri" else CmrxreconChallenge()


def _local(uri: str) -> Path:
    path = local_path(uri)
    if path is None:
        raise ConfigError(uri, "is not on this machine", "A submission is written and checked in a folder here, and uploaded by hand.")
    return path.expanduser()


if __name__ == "__main__":
    sys.exit(main())
