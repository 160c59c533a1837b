"""One writer per folder: of two only one wins, whoever is gone is followed, and whoever was followed writes no more."""

import contextlib
import dataclasses
import json
import os
import subprocess
import sys
import threading
from concurrent.futures import ThreadPoolExecutor

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from interleaved import Turns

from echotrain.errors import LeaseError, ObjectMissingError, StorageError
from echotrain.storage import holder
from echotrain.storage import lease as leases
from echotrain.storage.bucket_store import BucketStore
from echotrain.storage.guarded import GuardedStore
from echotrain.storage.holder import Process
from echotrain.storage.lease import held, join, take
from echotrain.storage.local import LocalStore
from echotrain.storage.retry import RetryPolicy
from echotrain.storage.store import ObjectInfo
from tests.fake_buckets import fake_buckets


class Memory:
    """Objects in memory: hypothesis plays many races."""

    uri = "memory"

    def __init__(self):
        self.objects = {}

    def read(self, key, *, at_most=None):
        if key not in self.objects:
            raise ObjectMissingError(key, "does not exist", "")
        return self.objects[key]

    def write(self, key, data, *, only_if_absent=False):
        if only_if_absent and key in self.objects:
            return False
        self.objects[key] = data
        return True

    def size(self, key):
        return len(self.objects[key]) if key in self.objects else None

    def list(self, prefix=""):
        return iter([ObjectInfo(key, len(data)) for key, data in sorted(self.objects.items()) if key.startswith(prefix)])

    def delete(self, key):
        self.objects.pop(key, None)


class Time:
    """A clock that only sleeping moves, and what happens while one sleeps."""

    def __init__(self, *happens):
        self.now, self.happens = 0.0, list(happens)

    def __call__(self):
        return self.now

    def sleep(self, seconds):
        self.now += seconds
        if self.happens:
            self.happens.pop(0)()


@pytest.fixture
def store(tmp_path):
    return LocalStore(tmp_path / "run")


def entries(store):
    return [info.key for info in store.list("lease/entry-")]


def move_to_another_machine(store, **changes):
    """Let the last entry be that of a process elsewhere."""
    key = entries(store)[-1]
    entry = json.loads(store.read(key))
    entry["process"] |= {"host": "elsewhere", "machine": "another", **changes}
    store.write(key, json.dumps(entry).encode())


def test_a_folder_that_is_held_is_refused_with_who_holds_it(store):
    with held(store), pytest.raises(LeaseError, match=rf"run: is being written by another, process {os.getpid()} on \S+, since 2.*UTC"):
        take(store)


def test_of_takers_at_once_exactly_one_has_the_folder_and_the_next_follows_it_in_every_kind_of_store(any_store):
    at_once = threading.Barrier(6)

    def attempt(_):
        at_once.wait()
        with contextlib.suppress(LeaseError):
            return take(any_store)

    with ThreadPoolExecutor(6) as threads:
        for _ in range(3):
            (lease,) = filter(None, threads.map(attempt, range(6)))
            lease.check()
            lease.release()
    assert len(entries(any_store)) == 1


def test_a_folder_that_was_given_back_is_taken_at_once_also_after_an_error(store):
    with pytest.raises(ValueError, match="broken"), held(store):
        raise ValueError("broken")
    take(store).release()
    with held(store):
        pass
    assert len(entries(store)) == 1
    assert not list(store.list("lease/beat"))


HOLD_FOR_EVER = """
import sys, time
from pathlib import Path
from echotrain.storage.lease import take
from echotrain.storage.local import LocalStore
from echotrain.storage.retry import RetryPolicy
take(LocalStore(Path(sys.argv[1])))
print("held", flush=True)
time.sleep(600)
"""


def test_a_holder_that_was_killed_on_this_machine_is_followed_at_once(store):
    with subprocess.Popen([sys.executable, "-c", HOLD_FOR_EVER, store.uri], stdout=subprocess.PIPE, text=True) as other:
        assert other.stdout.readline() == "held\n"
        with pytest.raises(LeaseError, match=f"process {other.pid} on"):
            take(store)
        other.kill()
        os.waitid(os.P_PID, other.pid, os.WEXITED | os.WNOWAIT)  # Dead, and not yet waited for: a process that is no more than a number.
        take(store, clock=Time(), sleep=None).release()


@pytest.mark.parametrize(
    ("changes", "is_dead"),
    [({}, False), ({"pid": 2**22 + 1}, True), ({"started": "0"}, True), ({"machine": "another", "pid": 2**22 + 1}, False)],
)
def test_a_process_is_known_to_be_dead_only_by_its_own_machine_and_its_own_start(changes, is_dead):
    assert dataclasses.replace(Process.this(), **changes).is_known_dead is is_dead


def test_a_process_that_another_user_hides_is_not_known_to_be_dead(monkeypatch):
    other = dataclasses.replace(Process.this(), pid=os.getppid())
    monkeypatch.setattr(holder, "_state_and_start", lambda pid: ("", ""))
    assert not other.is_known_dead
    monkeypatch.setattr(os, "kill", lambda pid, number: (_ for _ in ()).throw(PermissionError))
    assert not other.is_known_dead
    monkeypatch.setattr(os, "kill", lambda pid, number: (_ for _ in ()).throw(ProcessLookupError))
    assert other.is_known_dead


def test_a_holder_elsewhere_is_followed_after_a_silence_of_its_own_length_and_not_before(store):
    take(store, silence_s=30.0)
    move_to_another_machine(store)
    time = Time()
    lease = take(store, silence_s=1.0, clock=time, sleep=time.sleep)
    assert 30.0 <= time.now < 33.0
    lease.check()
    lease.release()


def test_a_holder_elsewhere_that_gives_a_sign_is_let_be(store):
    first = take(store, silence_s=30.0)
    move_to_another_machine(store)
    time = Time(*[lambda: None] * 5, first.beat)
    with pytest.raises(LeaseError, match="on elsewhere"):
        take(store, clock=time, sleep=time.sleep)
    assert time.now < 30.0
    first.check()


def test_a_folder_that_is_given_back_while_one_waits_is_taken(store):
    first = take(store, silence_s=30.0)
    move_to_another_machine(store)
    time = Time(lambda: None, first.release)
    take(store, clock=time, sleep=time.sleep).check()
    assert time.now < 30.0


def test_one_that_waits_can_be_asked_to_stop(store):
    take(store)
    move_to_another_machine(store)
    time = Time()
    with pytest.raises(LeaseError):
        take(store, clock=time, sleep=time.sleep, gives_up=lambda: True)
    assert time.now < 10.0


def test_a_clock_that_is_wrong_by_years_changes_nothing(store):
    first = take(store)
    move_to_another_machine(store, since="1999-01-01 00:00:00 UTC")
    time = Time(first.beat)
    with pytest.raises(LeaseError, match="since 1999"):
        take(store, clock=time, sleep=time.sleep)


@pytest.mark.parametrize("change", [lambda s, p: s.write("x", b"2"), lambda s, p: s.upload(p, "x"), lambda s, p: s.delete("x")])
def test_a_holder_that_was_followed_changes_nothing_more(store, tmp_path, change):
    (tmp_path / "file").write_bytes(b"2")
    first = take(store, under="sweep")
    guarded = GuardedStore(store, first)
    assert guarded.write("x", b"1")
    take(store, under="sweep")
    with pytest.raises(LeaseError, match=r"taken over.*written by another: process"):
        change(guarded, tmp_path / "file")
    assert store.read("x") == guarded.read("x") == b"1"
    first.release()  # Of what is no longer its own it releases nothing.
    with pytest.raises(LeaseError):
        take(store)


@pytest.mark.parametrize("change", [lambda s, p: s.write("x", b"2"), lambda s, p: s.upload(p, "x"), lambda s, p: s.delete("x")])
def test_a_holder_that_is_followed_between_two_tries_does_not_try_again(tmp_path, monkeypatch, change):
    (tmp_path / "file").write_bytes(b"2")
    with fake_buckets("gs", monkeypatch) as fake:
        store = BucketStore("gs://bucket/run", retry=RetryPolicy(attempts=3, first_delay_s=0.01))
        guarded = GuardedStore(store, first := take(store, under="sweep"))
        assert guarded.write("x", b"1")
        retries = []

        def follow(seconds):
            retries.append(seconds)
            take(store, under="sweep")

        monkeypatch.setattr("echotrain.storage.retry.time.sleep", follow)
        check = first.check

        def then_fail():
            check()
            fake.failures[:] = [503] if not retries else []

        monkeypatch.setattr(first, "check", then_fail)
        with pytest.raises(LeaseError, match="taken over"):
            change(guarded, tmp_path / "file")
        assert len(retries) == 1
        assert fake.objects["bucket/run/x"] == b"1"


def test_one_whose_first_sign_fails_gives_the_folder_back(store, monkeypatch):
    monkeypatch.setattr(leases.Lease, "beat", lambda self: (_ for _ in ()).throw(StorageError("lease", "failed 5 times", "")))
    with pytest.raises(StorageError, match="failed 5 times"):
        take(store)
    monkeypatch.undo()
    take(store).check()


def test_the_holder_beats_on_whatever_goes_wrong(store, monkeypatch):
    beats, beat = [], leases.Lease.beat
    enough = threading.Event()

    def sometimes(self):
        beats.append(len(beats))
        if len(beats) == 2:
            raise KeyError("NextContinuationToken")
        if len(beats) > 3:
            enough.set()
        beat(self)

    monkeypatch.setattr(leases.Lease, "beat", sometimes)
    with held(store, silence_s=0.2) as lease:
        assert enough.wait(10)
        assert not lease.lost.is_set()


def test_a_lease_that_was_removed_by_hand_is_lost(store):
    with held(store) as lease:
        store.delete(entries(store)[0])
        with pytest.raises(LeaseError, match="its lease was removed"):
            lease.check()


def test_a_holder_hands_its_lease_from_process_to_process_and_the_one_before_writes_no_more(store):
    with held(store) as lease:
        first = join(store, lease.token)
        first.check()
        second = join(store, lease.token)
        second.check()
        lease.check()
        with pytest.raises(LeaseError, match="taken over"):
            first.check()
        assert len(entries(store)) == 1
    with pytest.raises(LeaseError, match="taken over"):
        second.check()
    with pytest.raises(LeaseError, match="no longer held"):
        join(store, lease.token)


def test_runs_of_one_sweep_follow_each_other_at_once_and_others_do_not_come_between(store):
    take(store, under="lab/sweep")
    move_to_another_machine(store)
    take(store, under="lab/sweep", clock=Time(), sleep=None)
    for other in ("", "lab/other"):
        with pytest.raises(LeaseError):
            take(store, under=other)


def test_the_holder_beats_and_hears_that_it_was_followed(store):
    lost = threading.Event()
    with held(store, silence_s=0.2, under="sweep", on_lost=lost.set) as lease:
        key = f"lease/beat-{lease.token}"
        seen, changed = store.read(key), threading.Event()
        for _ in range(100):
            if changed.wait(0.05) or store.read(key) != seen:
                break
        else:
            pytest.fail("no beat in five seconds")
        take(store, under="sweep")
        assert lost.wait(10)


def test_an_entry_that_is_no_entry_is_told_with_the_way_out(store):
    take(store)
    store.write(entries(store)[0], b"{}")
    with pytest.raises(LeaseError, match=r"does not say who.*Remove the folder's lease/"):
        take(store)


class Failing(Memory):
    """Fails at one operation, before or after it is done."""

    def __init__(self, at, is_done):
        super().__init__()
        self.left, self.is_done = at, is_done

    def __getattribute__(self, name):
        found = super().__getattribute__(name)
        if name not in ("read", "write", "size", "list", "delete"):
            return found

        def call(*arguments, **options):
            self.left -= 1
            if self.left == 0 and not self.is_done:
                raise StorageError("memory", "is away", "Try again.")
            result = found(*arguments, **options)
            if self.left == 0:
                raise StorageError("memory", "was away", "Try again.")
            return result

        return call


@given(at=st.integers(1, 40), is_done=st.booleans())
def test_a_store_that_fails_at_any_moment_locks_nobody_out(at, is_done):
    store = Failing(at, is_done)
    for _ in range(3):
        with contextlib.suppress(StorageError):
            lease = take(store)
            try:
                join(store, lease.token).check()
            finally:  # Whoever has a lease gives it back, also where nobody could join.
                lease.release()
    lease = take(store)
    lease.check()
    lease.release()


class Careless(Memory):
    """Looks whether there is an object, then writes: two at the same instant both do."""

    def write(self, key, data, *, only_if_absent=False):
        self.objects[key] = data
        return True


class CarelessView:
    """What a player sees of a careless store: the look and the write are two turns."""

    def __init__(self, gated):
        self.gated = gated

    def __getattr__(self, name):
        return getattr(self.gated, name)

    def write(self, key, data, *, only_if_absent=False):
        if only_if_absent and self.gated.size(key) is not None:
            return False
        return self.gated.write(key, data)


class HeldUp(Memory):
    """Something happens just before, or just after, the first entry is created."""

    def __init__(self, *, before=lambda: None, after=lambda: None):
        super().__init__()
        self.before, self.after = before, after

    def write(self, key, data, *, only_if_absent=False):
        before, after = (self.before, self.after) if only_if_absent else (lambda: None, lambda: None)
        if only_if_absent:
            self.before = self.after = lambda: None
        before()
        is_new = super().write(key, data, only_if_absent=only_if_absent)
        after()
        return is_new


def test_one_that_was_held_up_while_others_came_and_went_does_not_take_the_place_of_a_removed_entry():
    others = []

    def come_and_go():
        for _ in range(3):
            others.append(take(store))
            others[-1].release()
        others.append(take(store))

    store = HeldUp(before=come_and_go)
    with pytest.raises(LeaseError, match="is being written by another"):
        take(store)
    others[-1].check()
    assert len([key for key in store.objects if "entry" in key]) == 1
    others[-1].release()


def test_one_whose_entry_was_overwritten_by_a_store_that_ignores_conditions_has_not_taken_the_folder():
    others = []

    def overwrite():
        entry = dict(store.objects)
        store.objects.clear()
        others.append(take(store))
        assert entry.keys() <= store.objects.keys()

    store = HeldUp(after=overwrite)
    with pytest.raises(LeaseError, match="is being written by another"):
        take(store)
    others[-1].check()
    others[-1].release()


def still_theirs(store, taken):
    found = []
    for lease in taken:
        try:
            leases.Lease(store, lease._entry).check()
            found.append(lease)
        except LeaseError:
            pass
    return found


schedules = st.lists(st.integers(0, 5), max_size=80)


@given(schedule=schedules, num_players=st.integers(2, 4))
@settings(max_examples=150)
def test_of_takers_at_the_same_instant_exactly_one_wins(schedule, num_players):
    store, taken, refused = Memory(), [], []

    def player(gate):
        try:
            taken.append(take(gate(store)))
        except LeaseError as error:
            refused.append(error)

    Turns(schedule).play([player] * num_players, after_each=lambda: None)
    assert len(taken) == 1
    assert len(refused) == num_players - 1
    taken[0].release()


@given(schedule=schedules, num_players=st.integers(2, 4), is_careless=st.booleans(), releases=st.tuples(*[st.booleans()] * 4))
@settings(max_examples=200)
def test_whatever_the_order_of_taking_following_and_giving_back_there_is_never_more_than_one_holder(
    schedule, num_players, is_careless, releases
):
    store = Careless() if is_careless else Memory()
    taken = []

    def player_of(number):
        def player(gate):
            view = CarelessView(gate(store)) if is_careless else gate(store)
            lease = take(view, under="sweep")
            taken.append(lease)
            if releases[number]:
                lease.release()

        return player

    def at_most_one():
        assert len(still_theirs(store, list(taken))) <= 1

    Turns(schedule).play([player_of(number) for number in range(num_players)], after_each=at_most_one)
    assert len(taken) == num_players
    # Whatever is left behind, the next one can have the folder.
    last = take(store, under="sweep")
    assert still_theirs(store, [*taken, last]) == [last]
    last.release()
