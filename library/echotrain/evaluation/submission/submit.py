"""Write a challenge submission from reconstructions, and check one by the challenge's rules."""

import logging
import math
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

from echotrain.data.formats.sources import ScanSource
from echotrain.errors import ConfigError, ScanError, SubmissionError
from echotrain.evaluation.submission.challenge import Challenge, ExpectedFile, Problem
from echotrain.evaluation.submission.output import ZIP_ENDING, Output, check_destination, new_output
from echotrain.evaluation.submission.package import Package, open_package
from echotrain.evaluation.submission.reconstructions import RECONSTRUCTION_ENDINGS, find_files, opened_images
from echotrain.log import track
from echotrain.storage.open import local_path
from echotrain.units import human_bytes

__all__ = ["Submission", "check_submission", "find_problems", "write_submission"]

logger = logging.getLogger(__name__)

# A file may be four times its float32 images, and this much on top: a header, and a format's own.
_SPARE_BYTES = 64 << 20


@dataclass(frozen=True, kw_only=True)
class Submission:
    """A submission without problems.

    Attributes:
        place: Folder or zip.
        num_files: Files in it.
        num_bytes: Bytes of all of them, or of the zip where that is larger.
    """

    place: Path
    num_files: int
    num_bytes: int


def write_submission(challenge: Challenge, reconstructions: str, like: str, to: Path, *, overwrite: bool = False) -> Submission:
    """Write a submission, check it, and only then give it its name: it appears whole and right, or not at all.

    Args:
        challenge: Whose rules.
        reconstructions: Folder or S3 prefix that ``ray_jobs.reconstruct`` wrote.
        like: Folder or S3 prefix of the challenge's test set: names, headers and sizes are taken from it.
        to: A folder, or a zip where the name ends in ``.zip``.
        overwrite: Replace a submission of the same files.

    Raises:
        ConfigError: A place is missing, taken, or among the inputs.
        ScanError: A test file is damaged.
        SubmissionError: A reconstruction is missing or does not fit, or the result breaks a rule; all of it is listed.
        StorageError: A store failed, or the disk is full.
    """
    if challenge.is_zip and to.suffix.lower() != ZIP_ENDING:
        raise ConfigError(f"--to {to}", f"{challenge.title} takes a zip", f"Name it {to.name}{ZIP_ENDING}.")
    _check_place(to, reconstructions, like)
    expected = challenge.expect(like)
    paths = frozenset(file.path for file in expected)
    check_destination(to, paths, overwrite=overwrite)
    sources = _matched(challenge, expected, reconstructions, to)
    with new_output(to, overwrite=overwrite) as output:
        _fill(output, challenge, expected, sources)
        problems = find_problems(challenge, output.place, expected)
        if problems:
            raise _refused(f"{to} (not written)", challenge, problems)
        with open_package(output.place, paths) as package:
            num_bytes = package.num_bytes
    return Submission(place=to, num_files=len(expected), num_bytes=num_bytes)


def check_submission(challenge: Challenge, submission: Path, like: str) -> Submission:
    """Check a submission, whoever wrote it.

    Args:
        challenge: Whose rules.
        submission: Folder or zip.
        like: Folder or S3 prefix of the challenge's test set.

    Raises:
        ConfigError: There is no test set.
        ScanError: A test file is damaged.
        SubmissionError: It breaks a rule; every problem is listed.
    """
    expected = challenge.expect(like)
    problems = find_problems(challenge, submission, expected)
    if problems:
        raise _refused(str(submission), challenge, problems)
    with open_package(submission, frozenset(file.path for file in expected)) as package:
        return Submission(place=submission, num_files=len(package.files), num_bytes=package.num_bytes)


def find_problems(challenge: Challenge, submission: Path, expected: Sequence[ExpectedFile]) -> list[Problem]:
    """Return everything that is wrong with a submission, file by file.

    Args:
        challenge: Whose rules.
        submission: Folder or zip.
        expected: What it should hold.

    Raises:
        SubmissionError: It is neither a folder nor a zip that can be opened.
    """
    wanted = {file.path: file for file in expected}
    with open_package(submission, wanted.keys()) as package:
        problems = [*package.problems, *_size_problems(challenge, package)]
        there = package.files.keys() | {problem.file for problem in package.problems}
        problems += [
            Problem(file=path, what="is not of the test set", expected="exactly the test set's names")
            for path in package.files.keys() - wanted
        ]
        problems += [Problem(file=path, what="is missing", expected="exactly the test set's names") for path in wanted.keys() - there]
        for path in track(sorted(wanted.keys() & package.files.keys()), "Checking the submission"):
            problems += _file_problems(challenge, wanted[path], package)
    return sorted(problems, key=lambda problem: problem.file)


def _size_problems(challenge: Challenge, package: Package) -> list[Problem]:
    limit = challenge.max_bytes
    if limit is None or package.num_bytes <= limit:
        return []
    what = f"have {package.num_bytes:,} bytes ({human_bytes(package.num_bytes)})"
    return [Problem(file="all files together", what=what, expected=f"at most {limit:,} bytes ({limit >> 20} MiB)")]


def _file_problems(challenge: Challenge, expected: ExpectedFile, package: Package) -> list[Problem]:
    size, limit = package.files[expected.path], 16 * math.prod(expected.shape) + _SPARE_BYTES
    if size > limit:
        return [Problem(file=expected.path, what=f"has {human_bytes(size)}", expected=f"at most {human_bytes(limit)} for {expected.shape}")]
    problems: list[Problem] = []
    try:
        with package.opened(expected.path) as path:
            problems.extend(challenge.check(expected, path))
    except ScanError as error:
        problems.append(_unreadable(expected.path, error))
    return problems


def _matched(challenge: Challenge, expected: Sequence[ExpectedFile], reconstructions: str, to: Path) -> list[ScanSource]:
    """Return the reconstruction of each expected file, or tell of all that are missing or do not fit."""
    found = find_files(reconstructions, RECONSTRUCTION_ENDINGS, "reconstructions")
    matched, problems = [], []
    for file in track(expected, "Matching reconstructions"):
        name = next((name for name in file.names if name in found), None)
        if name is None:
            problems.append(Problem(file=file.path, what="has no reconstruction", expected=f"{' or '.join(dict.fromkeys(file.names))}"))
            continue
        try:
            with opened_images(found[name]) as images:
                misfit = challenge.misfit(file, images)
                if misfit:
                    problems.append(Problem(file=file.path, what=f"has a reconstruction of shape {images.shape}", expected=misfit))
        except ScanError as error:
            problems.append(_unreadable(file.path, error))
        matched.append(found[name])
    if problems:
        raise _refused(f"{to} (not written)", challenge, problems)
    _warn_of_others(found.keys() - {name for file in expected for name in file.names})
    return matched


def _unreadable(path: str, error: ScanError) -> Problem:
    """Return why a file could not be read; its name is not said twice."""
    return Problem(file=path, what=error.value.removeprefix(f"{PurePosixPath(path).name}: "), expected=error.limit)


def _fill(output: Output, challenge: Challenge, expected: Sequence[ExpectedFile], sources: Sequence[ScanSource]) -> None:
    pairs = list(zip(expected, sources, strict=True))
    for file, source in track(pairs, "Writing the submission"):
        with opened_images(source) as images, output.adding(file.path) as path:
            challenge.write(file, images, path)
    output.finish()


def _warn_of_others(names: Collection[str]) -> None:
    if names:
        shown = ", ".join(sorted(names)[:3])
        logger.warning(
            "%d reconstructions are not of the test set and are left out: %s%s", len(names), shown, ", …" if len(names) > 3 else ""
        )


def _check_place(to: Path, *inputs: str) -> None:
    """Refuse a destination that is one of the inputs, lies in one, or holds one."""
    for uri in inputs:
        path = local_path(uri)
        if path is None:
            continue
        place, source = PurePosixPath(to.resolve()), PurePosixPath(path.expanduser().resolve())
        if place == source or place in source.parents or source in place.parents:
            raise ConfigError(f"--to {to}", f"lies in {uri}, or holds it", "Choose another place for the submission.")


def _refused(place: str, challenge: Challenge, problems: Sequence[Problem]) -> SubmissionError:
    lines = "".join(f"\n  {problem}" for problem in problems)
    count = f"{len(problems)} problems" if len(problems) > 1 else "1 problem"
    return SubmissionError(place, f"has {count} by the rules of {challenge.title}", f"Correct each of them:{lines}")
