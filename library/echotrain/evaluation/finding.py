"""Finds evaluations and training runs below URIs."""

from collections.abc import Sequence

from echotrain.errors import ObjectMissingError
from echotrain.evaluation.history import HISTORY, History, read_history
from echotrain.evaluation.results import Evaluation
from echotrain.evaluation.stored import SUMMARY, read_evaluation
from echotrain.storage.open import open_store

__all__ = ["find_results"]

# Where evaluations lie in a run's folder: evaluation/, or evaluation-<name>/, or evaluations/<name>/.
BELOW_RUN = "evaluation"


def find_results(uris: Sequence[str]) -> tuple[list[Evaluation], list[History]]:
    """Read what each URI holds: an evaluation, a training run, or a run with evaluations below ``evaluation…/``.

    Raises:
        ObjectMissingError: A URI holds neither.
        PayloadError: What it holds is damaged.
        StorageError: A store failed.
    """
    evaluations: list[Evaluation] = []
    runs: list[History] = []
    for uri in uris:
        store = open_store(uri)
        root = store.uri
        is_run = store.size(HISTORY) is not None
        places = [root] if store.size(SUMMARY) is not None else []
        places += [f"{root}/{info.key.rpartition('/')[0]}" for info in store.list(BELOW_RUN) if info.key.endswith(f"/{SUMMARY}")]
        if not is_run and not places:
            raise ObjectMissingError(
                root, f"holds neither {HISTORY} nor {SUMMARY}", "Name the folder of a training run or of an evaluation."
            )
        if is_run:
            runs.append(read_history(store, name=root.rpartition("/")[2]))
        evaluations += [read_evaluation(open_store(place)) for place in places]
    return evaluations, runs
