"""The BART toolbox (mrirecon/bart, BSD-3) as a function of arrays: one process per call, on one core."""

import errno
import os
import re
import shutil
import signal
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from echotrain.baselines.cfl import ComplexArray, read_cfl, write_cfl
from echotrain.errors import BartError, ResourceError, ScanError, StorageError, StorageFullError

__all__ = ["Bart", "find_bart"]

_MEMORY_FOLDER = Path("/dev/shm")
_ROOM = 8  # Scratch space, in sizes of the inputs: they, coil maps of the same size per set, and an image.
# BART's loops and its BLAS each start a thread per core, also where a scheduler has given the process one.
_ONE_THREAD = {"OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1"}
_COLORS = re.compile(r"\x1b\[[0-9;]*m")
_REMEDIES: dict[int, str] = {
    signal.SIGKILL: "Most likely memory ran out: give the task more, or run fewer at a time.",
    signal.SIGBUS: "Most likely the scratch folder is full: free /dev/shm or the folder that TMPDIR names.",
}


def find_bart() -> Path:
    """Return the ``bart`` to run: what ``ECHOTRAIN_BART`` names, else that on PATH, else that of ``make bart`` in this environment.

    Raises:
        ResourceError: There is none, or ``ECHOTRAIN_BART`` names none.
    """
    named = os.environ.get("ECHOTRAIN_BART", "")
    if named:
        found = shutil.which(named)
        if found is None:
            remedy = "Let it name BART's executable, or unset it to use the one on PATH."
            raise ResourceError(f"ECHOTRAIN_BART={named}", "is no executable file", remedy)
    else:
        found = shutil.which("bart") or shutil.which(Path(sys.prefix, "bin", "bart"))
    if found is None:
        raise ResourceError(
            "the BART toolbox",
            "is neither on PATH nor in this Python environment",
            "Run make bart, or apt-get install bart, or let ECHOTRAIN_BART name its executable.",
        )
    return Path(found).absolute()


@dataclass(frozen=True, kw_only=True)
class Bart:
    """Runs tools of BART.

    Attributes:
        executable: ``bart``, an absolute path.
        timeout_s: Longest run of one tool, in seconds.
    """

    executable: Path
    timeout_s: float = 1800.0

    def run(self, tool: str, args: Sequence[str], inputs: Sequence[ComplexArray], num_outputs: int = 1) -> list[ComplexArray]:
        """Run ``bart tool *args inputs outputs`` in a scratch folder of its own, in memory where there is room, and return the outputs.

        Args:
            tool: Name of the tool, such as ``pics``.
            args: Its options.
            inputs: complex64, in BART's order of dimensions: readout, two phase encodes, coils, sets of maps, ….
            num_outputs: Arrays that the tool writes; they come without trailing dimensions of size 1.

        Raises:
            ConfigError: An input is not complex64, or empty.
            BartError: The tool failed, was killed, ran out of time, or left no output; its last words are in the message.
            StorageFullError: No space is left for the scratch files.
            StorageError: They cannot be written.
        """
        outputs = [f"out{index}" for index in range(num_outputs)]
        names = [f"in{index}" for index in range(len(inputs))]
        try:
            root = _scratch_root(sum(array.nbytes for array in inputs))
            # Deleting never fails the run: its result has been read, or its own error says more.
            with tempfile.TemporaryDirectory(prefix="echotrain-bart-", dir=root, ignore_cleanup_errors=True) as scratch:
                folder = Path(scratch)
                for name, array in zip(names, inputs, strict=True):
                    write_cfl(folder / name, array)
                self._call([tool, *args, *names, *outputs], folder)
                return [read_cfl(folder / name) for name in outputs]
        except ScanError as error:
            raise BartError(f"bart {tool}", f"left no output that can be read ({error})", "Run it by hand on the same data.") from error
        except OSError as error:
            raise _scratch_error(error) from error

    def _call(self, command: Sequence[str], folder: Path) -> None:
        said = " ".join(["bart", *command])
        try:
            # A session of its own, so that whatever a wrapper script has started ends with it.
            process = subprocess.Popen(
                [self.executable, *command],
                cwd=folder,
                env={**os.environ, **_ONE_THREAD},
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                stderr=subprocess.PIPE,
                start_new_session=True,
            )
        except OSError as error:
            raise BartError(
                str(self.executable), f"cannot be started ({error.strerror})", "Check ECHOTRAIN_BART, or run make bart."
            ) from error
        with process:
            try:
                _, words = process.communicate(timeout=self.timeout_s)
            except subprocess.TimeoutExpired as error:
                remedy = "Raise timeout_s, or use fewer iterations."
                raise BartError(said, f"took longer than timeout_s={self.timeout_s:g}", remedy) from error
            finally:
                if process.returncode is None:
                    os.killpg(process.pid, signal.SIGKILL)
        if process.returncode != 0:
            raise _failure(said, process.returncode, words.decode(errors="replace"))


def _scratch_root(num_bytes: int) -> Path | None:
    """Return the folder in memory where it has ample room, else None: the system's own choice."""
    try:
        has_room = os.access(_MEMORY_FOLDER, os.W_OK) and shutil.disk_usage(_MEMORY_FOLDER).free > _ROOM * num_bytes
    except OSError:
        has_room = False
    return _MEMORY_FOLDER if has_room else None


def _scratch_error(error: OSError) -> StorageError:
    what, remedy = f"BART's scratch files ({error.filename or 'temporary folder'})", "Free space, or let TMPDIR name another folder."
    if error.errno in (errno.ENOSPC, errno.EDQUOT):
        return StorageFullError(what, "no space is left for them", remedy)
    return StorageError(what, str(error), remedy)


def _failure(said: str, status: int, words: str) -> BartError:
    """Name how it ended, and the last line that it wrote to stderr."""
    lines = [line.strip() for line in _COLORS.sub("", words).splitlines() if line.strip()]
    last = lines[-1] if lines else "it said nothing"
    how = f"was ended by signal {-status} ({signal.strsignal(-status)})" if status < 0 else f"ended with status {status}"
    remedy = _REMEDIES.get(-status, "Check the shapes and options of this call; 'bart <tool> -h' lists them.")
    return BartError(said, f"{how}: {last}", remedy)
