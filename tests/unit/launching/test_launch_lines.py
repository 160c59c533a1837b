import datetime as dt

from hypothesis import given
from hypothesis import strategies as st

from echotrain.launching.loglines import LogCursor, Repetition

BEGIN = dt.datetime(2026, 3, 1, 12, tzinfo=dt.UTC)


def stamped(seconds: float, text: str) -> str:
    time = BEGIN + dt.timedelta(seconds=seconds)
    return f"{time:%Y-%m-%dT%H:%M:%S.%f}789Z {text}"


def sent_again(log: list[str], since: str | None) -> list[str]:
    """Return what a kubelet sends: everything from a whole second on."""
    return [line for line in log if since is None or dt.datetime.fromisoformat(line[:26] + "+00:00") >= dt.datetime.fromisoformat(since)]


@given(
    st.lists(st.tuples(st.floats(0, 30), st.sampled_from(["loss 0.1", "loss 0.2", "", " indented"])), max_size=40),
    st.lists(st.integers(0, 40), max_size=5),
    st.randoms(),
)
def test_each_line_is_told_once_wherever_the_stream_is_cut(entries, cuts, random):
    # Two streams of a container may be written a little out of order.
    log = [stamped(seconds, text) for seconds, text in sorted(entries, key=lambda entry: entry[0] + random.random())]
    cursor, told, read = LogCursor(), [], 0
    for cut in [*sorted(cuts), len(log)]:
        available = log[: max(cut, read)]
        told += [text for line in sent_again(available, cursor.reopen()) if (text := cursor.take(line)) is not None]
        read = len(available)
    assert told == [line.partition("Z ")[2] for line in log]


def test_what_a_kubelet_says_without_a_time_is_told_as_it_is():
    assert LogCursor().take("rpc error: code = NotFound") == "rpc error: code = NotFound"


def test_a_log_is_asked_for_again_from_shortly_before_its_newest_line():
    cursor = LogCursor()
    assert cursor.reopen() is None
    cursor.take(stamped(60.5, "a"))
    cursor.take(stamped(59.5, "b"))
    assert cursor.reopen() == "2026-03-01T12:00:55Z"


def test_times_with_any_number_of_digits_are_read():
    cursor = LogCursor()
    assert [cursor.take(f"2026-03-01T12:00:0{second} x") for second in ("1Z", "2.5Z", "3.123456789Z", "4+00:00")] == ["x"] * 4
    assert cursor.reopen() == "2026-03-01T11:59:59Z"


@given(
    st.lists(st.sampled_from("abcde")),
    st.integers(0, 30),
    st.lists(st.sampled_from("xyz"), max_size=3),
    st.lists(st.sampled_from("abcdefg")),
)
def test_a_second_submitter_adds_what_the_first_had_not_told_and_loses_nothing(output, told, preamble, more):
    first, whole = output[:told], output + more
    repetition = Repetition()
    shown = [line for line in first if repetition.is_new(line)]
    assert shown == first
    repetition.restart()
    shown += [line for line in [*preamble, *whole] if repetition.is_new(line)]
    assert shown == first + preamble + whole[len(first) :]
