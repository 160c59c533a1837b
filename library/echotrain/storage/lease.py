"""One writer per folder: a lease that lies in the folder itself, in any store.

The lease is a log of numbered entries. An entry is created only where none of its number exists, which is the one thing that every store
does atomically: of two that take the folder at the same instant, one creates the entry. The last entry says who holds the folder::

    lease/entry-00000007.json    who holds it, or that it was released
    lease/beat-<token>           a counter, which the holder raises while it lives

No entry is ever changed, and the last one is never removed, so that no number comes twice: whoever was held up, and creates an entry
that is not the last, sees the later one and has not taken anything.

Clocks of two machines are never compared. Whoever wants a folder that another machine holds watches the holder's counter by its own clock:
a counter that moves is a holder that lives; one that stood still for ``silence_s`` is taken over. A holder that died on the same machine
is taken over at once. A holder that was taken over finds out before the next thing that it writes: ``Lease.check``, or a
``GuardedStore``, which asks before every write. What it had begun to write at that moment is one request, and is not undone.

A store that ignores conditions (``If-None-Match``) may let two create the same entry; the later one is read back by both, and the other
stops before its first write.
"""

import contextlib
import dataclasses
import json
import logging
import re
import threading
import time
import uuid
from collections.abc import Callable, Iterator
from dataclasses import dataclass

from pydantic import TypeAdapter, ValidationError

from echotrain.errors import EchotrainError, LeaseError, ObjectMissingError
from echotrain.storage.bounded_read import read_at_most, read_json
from echotrain.storage.holder import Process
from echotrain.storage.store import Store

__all__ = ["LONGEST_SILENCE_S", "SILENCE_S", "Lease", "held", "join", "take"]

logger = logging.getLogger(__name__)

SILENCE_S = 60.0
_BEATS_PER_SILENCE = 4
_LOOKS_PER_SILENCE = 20
LONGEST_SILENCE_S = 3600.0
_ENTRY = re.compile(r"lease/entry-(\d{8})\.json")
_LARGEST = 16 << 10
_READS_OF_AN_EMPTY_ENTRY = 20

# Tokens that are held in this process: a lease that this process has, and does not hold, is one that it failed to release.
_held_here: set[str] = set()


@dataclass(frozen=True, kw_only=True)
class _Entry:
    """What one entry of the log says.

    Attributes:
        token: Of the holder, drawn at random; "" where the folder was released.
        nonce: Of the entry, drawn at random: no two entries are alike.
        under: The folder whose holder hands this one out, as a sweep does with the folders of its runs; "" where there is none.
        silence_s: Without a beat, after which another machine may take the folder.
        process: Who the holder is.
    """

    token: str
    nonce: str
    under: str = ""
    silence_s: float = SILENCE_S
    process: Process

    @property
    def is_over(self) -> bool:
        """Whether nobody holds the folder, as far as can be known without waiting."""
        if not self.token or self.process.is_known_dead:
            return True
        return self.process.is_this and self.token not in _held_here


_ENTRIES = TypeAdapter(_Entry)


class Lease:
    """A folder that is held. ``take`` and ``join`` make it; ``held`` also keeps it and gives it back.

    Args:
        store: The folder, unguarded.
        entry: Of the log, by which it was taken.
        is_joined: Whether it is one process's part of a holder's lease, which ends when another process joins.

    Attributes:
        lost: Set by ``held`` once it is known that the folder was taken over.
    """

    def __init__(self, store: Store, entry: _Entry, *, is_joined: bool = False) -> None:
        self._store = store
        self._entry = entry
        self._is_joined = is_joined
        self._beats = 0
        self.lost = threading.Event()

    @property
    def token(self) -> str:
        """What other processes of the same holder ``join`` with."""
        return self._entry.token

    @property
    def silence_s(self) -> float:
        """Seconds without a beat after which another machine may take the folder."""
        return self._entry.silence_s

    def check(self) -> None:
        """Raise where the folder is held no longer.

        Raises:
            LeaseError: It was taken over, or its lease was removed.
            StorageError: The folder does not say.
        """
        _, last = _last(self._store)
        if last is None or not self._is_of(last):
            now = "its lease was removed" if last is None or not last.token else f"it is written by another: {last.process}"
            raise LeaseError(
                self._store.uri, f"was taken over from this process ({now})", "Nothing more is written here; let the other one go on."
            )

    def beat(self) -> None:
        """Show that the holder lives."""
        self._beats += 1
        self._store.write(_beat_key(self.token), str(self._beats).encode())

    def release(self) -> None:
        """Let the next one have the folder at once; nothing happens where it was lost. Never raises: the lease runs out by itself."""
        _held_here.discard(self.token)
        try:
            number, last = _last(self._store)
            if last is not None and self._is_of(last):
                free = _Entry(token="", nonce=uuid.uuid4().hex, process=self._entry.process)
                if _append(self._store, number + 1, free):
                    _prune(self._store, number + 1)
            self._store.delete(_beat_key(self.token))
        except EchotrainError as error:
            logger.warning("the lease of %s was not released (%s); it runs out after %g s", self._store.uri, error, self.silence_s)

    def _is_of(self, entry: _Entry) -> bool:
        mine = self._entry
        return entry.nonce == mine.nonce if self._is_joined else entry.token == mine.token


def take(
    store: Store,
    *,
    silence_s: float = SILENCE_S,
    under: str = "",
    gives_up: Callable[[], bool] = lambda: False,
    clock: Callable[[], float] = time.monotonic,
    sleep: Callable[[float], None] = time.sleep,
) -> Lease:
    """Take a folder, or refuse; a holder on another machine is watched until it shows that it lives, or was silent for long enough.

    Args:
        store: The folder.
        silence_s: Without a beat of ours, after which another machine may take the folder from us.
        under: The folder whose lease the caller has, and whose holder hands this one out: a holder under the same one was another's
            that held it before, or an earlier one of the caller's own, and is taken over at once.
        gives_up: Asked while waiting.
        clock: Seconds of this machine; a test has its own.
        sleep: Likewise.

    Raises:
        LeaseError: Another process writes to the folder; the message says which.
        StorageError: The folder cannot be read or written.
    """
    token = uuid.uuid4().hex
    _held_here.add(token)
    try:
        while True:
            number, last = _last(store)
            is_free = last is None or last.is_over or (bool(under) and last.under == under)
            if last is not None and not is_free and not _outwait(store, number, last, gives_up, clock, sleep):
                continue
            entry = _Entry(token=token, nonce=uuid.uuid4().hex, under=under, silence_s=silence_s, process=Process.this())
            if _append(store, number + 1, entry):
                if last is not None and last.token:
                    logger.info("%s: taken over from %s, which is gone", store.uri, last.process)
                return _begun(Lease(store, entry), store, number + 1)
    except BaseException:
        _held_here.discard(token)
        raise


def join(store: Store, token: str) -> Lease:
    """Write under the lease of a holder, from another of its processes; the one that joined before it may write no more.

    Raises:
        LeaseError: The folder is not held by that holder.
        StorageError: The folder cannot be read or written.
    """
    while True:
        number, last = _last(store)
        if last is None or last.token != token:
            raise LeaseError(
                store.uri, "is no longer held by the driver that sent this worker", "Nothing is written; the other one goes on."
            )
        entry = dataclasses.replace(last, nonce=uuid.uuid4().hex)
        if _append(store, number + 1, entry):
            _prune(store, number + 1)
            return Lease(store, entry, is_joined=True)


@contextlib.contextmanager
def held(
    store: Store,
    *,
    silence_s: float = SILENCE_S,
    under: str = "",
    gives_up: Callable[[], bool] = lambda: False,
    on_lost: Callable[[], None] = lambda: None,
) -> Iterator[Lease]:
    """Hold a folder while the block runs: ``take`` it, beat from a thread, release it at the end, whatever the end is.

    Args:
        store: The folder.
        silence_s: As for ``take``.
        under: As for ``take``.
        gives_up: As for ``take``.
        on_lost: Called once, from the thread, where the folder was taken over.

    Raises:
        LeaseError, StorageError: As ``take``.
    """
    lease = take(store, silence_s=silence_s, under=under, gives_up=gives_up)
    ended = threading.Event()

    def keep() -> None:
        while not ended.wait(lease.silence_s / _BEATS_PER_SILENCE):
            try:
                lease.check()
                lease.beat()
            except LeaseError as error:
                logger.error("%s", error)
                lease.lost.set()
                on_lost()
                return
            except Exception as error:  # A thread that ends would let the folder go to another while this one trains on.
                logger.warning("the lease of %s could not be renewed (%s); trying again", store.uri, error)

    thread = threading.Thread(target=keep, name="lease", daemon=True)
    thread.start()
    try:
        yield lease
    finally:
        ended.set()
        thread.join()
        lease.release()


def _begun(lease: Lease, store: Store, number: int) -> Lease:
    """Show the first sign of a holder and tidy up; give the folder back where that fails."""
    try:
        lease.beat()
        _prune(store, number)
        for info in list(store.list("lease/beat-")):
            if info.key != _beat_key(lease.token):
                store.delete(info.key)
    except BaseException:
        lease.release()
        raise
    return lease


def _outwait(
    store: Store, number: int, last: _Entry, gives_up: Callable[[], bool], clock: Callable[[], float], sleep: Callable[[float], None]
) -> bool:
    """Watch a holder; return True where it was silent for long enough, False where the log has gone on.

    Raises:
        LeaseError: It lives.
    """
    silence_s = min(last.silence_s, LONGEST_SILENCE_S)
    if last.process.is_here:
        raise _taken(store, last)
    logger.warning("%s is held by %s; waiting up to %g s for a sign of it", store.uri, last.process, silence_s)
    seen = _beat(store, last.token)
    deadline = clock() + silence_s
    while clock() < deadline:
        sleep(silence_s / _LOOKS_PER_SILENCE)
        beat = _beat(store, last.token)
        if _last(store)[0] != number:  # Asked second: whoever gives the folder back removes its counter after that.
            return False
        if beat != seen or gives_up():
            raise _taken(store, last)
    return True


def _taken(store: Store, last: _Entry) -> LeaseError:
    return LeaseError(
        store.uri,
        f"is being written by another, {last.process}",
        f"Let it end, or stop it; or choose another name=. One that is gone is taken over after {last.silence_s:g} s without a sign of it.",
    )


def _last(store: Store) -> tuple[int, _Entry | None]:
    """Return the number and the content of the last entry; 0 and None where there is none."""
    for _ in range(_READS_OF_AN_EMPTY_ENTRY):
        numbers = [int(match[1]) for info in store.list("lease/entry-") if (match := _ENTRY.fullmatch(info.key))]
        if not numbers:
            return 0, None
        key = _entry_key(max(numbers))
        try:
            return max(numbers), _ENTRIES.validate_python(read_json(store, key, _LARGEST))
        except ObjectMissingError:
            continue  # Removed since it was listed: there is a later one.
        except (ValueError, ValidationError) as error:
            if store.size(key):
                raise _damaged(store, key) from error
            time.sleep(0.05)  # A file system without hard links takes the name before it fills the file.
    raise _damaged(store, key)


def _damaged(store: Store, key: str) -> LeaseError:
    return LeaseError(f"{store.uri}/{key}", "does not say who holds the folder", "Remove the folder's lease/ where nothing writes to it.")


def _append(store: Store, number: int, entry: _Entry) -> bool:
    """Create an entry; return whether it is the last one now, and this one's."""
    if not store.write(_entry_key(number), json.dumps(dataclasses.asdict(entry)).encode(), only_if_absent=True):
        return False
    last_number, last = _last(store)
    if last_number > number:
        store.delete(_entry_key(number))
    return last_number == number and last == entry


def _prune(store: Store, number: int) -> None:
    """Remove the entries before one."""
    for info in list(store.list("lease/entry-")):
        if info.key < _entry_key(number):
            store.delete(info.key)


def _entry_key(number: int) -> str:
    return f"lease/entry-{number:08d}.json"


def _beat_key(token: str) -> str:
    return f"lease/beat-{token}"


def _beat(store: Store, token: str) -> bytes:
    with contextlib.suppress(ObjectMissingError):
        return read_at_most(store, _beat_key(token), _LARGEST)
    return b""
