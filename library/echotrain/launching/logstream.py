"""The output of a job's command: the logs of its submitter pods, one after the other, each line once."""

import threading
from collections.abc import Callable

from echotrain.errors import ClusterUnreachableError
from echotrain.launching.client import ApiRefusalError
from echotrain.launching.jobs import Jobs
from echotrain.launching.loglines import LogCursor, Repetition
from echotrain.launching.objects import Observed, is_started, is_terminated, name_of, submission_of, submitter_pods

__all__ = ["LogStream"]

_FIRST_PAUSE_S, _LONGEST_PAUSE_S = 0.2, 10.0


class LogStream:
    """Reads in a thread of its own, from the first line, for as long as it takes.

    Args:
        jobs: Where from.
        show: Takes each line.
        note: Takes what is to be said about the reading itself.
    """

    def __init__(self, jobs: Jobs, show: Callable[[str], None], note: Callable[[str], None]) -> None:
        self._jobs, self._show, self._note = jobs, show, note
        self._changed = threading.Condition()
        self._pods: list[tuple[str, str]] = []
        self._terminated: set[str] = set()
        self._num_read = 0
        self._is_closed = False
        self._submission = ""
        self._repetition = Repetition()
        self._thread = threading.Thread(target=self._run, name="launch-log", daemon=True)

    def see(self, seen: Observed) -> None:
        """Take what is known of the submitter pods now."""
        with self._changed:
            for pod in submitter_pods(seen.pods):
                known = (name_of(pod), submission_of(pod))
                if known not in self._pods and is_started(pod):
                    self._pods.append(known)
                if is_terminated(pod):
                    self._terminated.add(known[0])
            there = {name_of(pod) for pod in seen.pods}
            self._terminated |= {name for name, _ in self._pods if name not in there}
            self._changed.notify_all()
        if self._pods and self._thread.ident is None:
            self._thread.start()

    def drain(self, seconds: float) -> bool:
        """Wait until all that the pods have printed is read; return False where it takes longer."""
        with self._changed:
            return self._changed.wait_for(lambda: self._is_closed or self._num_read == len(self._pods), seconds)

    def close(self) -> None:
        """Read no further."""
        with self._changed:
            self._is_closed = True
            self._changed.notify_all()

    def _run(self) -> None:
        try:
            self._read_all()
        except Exception as error:
            # A thread that ended without a word would leave the output cut short.
            self._note(f"the output cannot be read any further ({error!r}); the job goes on")
            self.close()

    def _read_all(self) -> None:
        while True:
            with self._changed:
                self._changed.wait_for(lambda: self._is_closed or self._num_read < len(self._pods))
                if self._is_closed:
                    return
                name, submission = self._pods[self._num_read]
            if submission == self._submission:
                self._repetition.restart()
            else:
                self._submission, self._repetition = submission, Repetition()
            self._read(name)
            with self._changed:
                self._num_read += 1
                self._changed.notify_all()

    def _read(self, name: str) -> None:
        """Read a pod's log to its end: until a reading that began after the container's end brings nothing new."""
        cursor, pause, is_told = LogCursor(), _FIRST_PAUSE_S, False
        while not self._is_closed:
            was_terminated = name in self._terminated
            try:
                if self._read_once(name, cursor):
                    pause = _FIRST_PAUSE_S
                elif was_terminated:
                    return
            except ApiRefusalError as error:
                # 400 is a container that has not begun yet, 404 a pod that is gone.
                if error.status == 404 or (error.status == 400 and was_terminated):
                    return
                if error.status != 400:
                    self._note(f"the output cannot be read: {error}")
                    return
            except ClusterUnreachableError as error:
                # A short absence is told of by the one who looks after the job; a node's own may be longer.
                if pause == _LONGEST_PAUSE_S and not is_told:
                    is_told = True
                    self._note(f"the output cannot be read for now ({error.limit}); trying again")
            with self._changed:
                self._changed.wait_for(lambda: self._is_closed, pause)
            pause = min(2 * pause, _LONGEST_PAUSE_S)

    def _read_once(self, name: str, cursor: LogCursor) -> bool:
        """Read until the answer ends; return whether it had new lines."""
        is_any_new = False
        for line in self._jobs.log(name, follow=True, since=cursor.reopen()):
            text = cursor.take(line)
            if self._is_closed:
                break
            if text is not None:
                is_any_new = True
                if self._repetition.is_new(text):
                    self._show(text)
        return is_any_new
