"""Which key a prepare job makes its pseudonyms with: never one that everybody knows, always the one that its catalog was made with."""

import logging
from collections.abc import Set
from pathlib import Path

from echotrain.data.catalog.rows import Catalog
from echotrain.data.formats.deidentify import PSEUDONYM_SCHEME, PUBLIC_SALT, SALT_VARIABLE, Deidentifier
from echotrain.data.formats.salt import draw_salt, environment_salt, kept_salt, salt_path
from echotrain.errors import ConfigError
from echotrain.orchestration.runtime.cluster import is_on_cluster
from echotrain.storage.open import local_path

__all__ = ["check_salt", "choose_salt", "naming_salt", "salt_check", "scheme_notes"]

logger = logging.getLogger(__name__)

# Under the second scheme a name's pseudonym took in the birth date and the order of words.
_KNOWN_SCHEMES = (PSEUDONYM_SCHEME, 2)
_MIN_CHARACTERS, _FEWEST_CHARACTERS = 16, 8
_ON_CLUSTER = (
    f"Set {SALT_VARIABLE} for the job: on Kubernetes by a Secret that deidentification.existingSecret of the chart names "
    f'(kubectl create secret generic echotrain-deid --from-literal={SALT_VARIABLE}="$(openssl rand -hex 32)"). Keep a copy of it.'
)


def choose_salt(given: str, base: Catalog | None, to: str) -> tuple[str, tuple[str, ...]]:
    """Return the key, and what whoever prepares should know of it.

    Args:
        given: What the caller insists on; "" takes ``ECHOTRAIN_DEID_SALT``, else, on a machine of one's own, the key that is kept
            there, which is drawn where a new catalog finds none.
        base: The catalog so far, or None. One that was made with the public key goes on with it.
        to: URI of the catalog's root.

    Raises:
        ConfigError: There is no key on a cluster or for a catalog that has one, or it is the public one, or blank, or not the
            catalog's, or too short for a new catalog.
    """
    salt = given or environment_salt()
    is_public = base is not None and "salt_check" in base.manifest and _scheme_of(base, Deidentifier(PUBLIC_SALT)) is not None
    if is_public and given in ("", PUBLIC_SALT):
        return PUBLIC_SALT, () if given else (_public_note(bool(salt)),)
    notes: tuple[str, ...] = ()
    if not salt:
        salt, notes = _own_salt(base, to)
    if salt == PUBLIC_SALT and not given:
        raise ConfigError(f"{SALT_VARIABLE}", "is the public key, with which everybody can hash a patient's number", _ON_CLUSTER)
    if not given and base is None and len(salt) < _FEWEST_CHARACTERS:
        limit = f"must have at least {_FEWEST_CHARACTERS}, or patients can be found by trying keys"
        raise ConfigError(f"the key in {SALT_VARIABLE}, of {len(salt)} characters", limit, "openssl rand -hex 32 makes a good one.")
    if not given and len(salt) < _MIN_CHARACTERS:
        notes += (f"The key in {SALT_VARIABLE} has {len(salt)} characters and can be guessed; openssl rand -hex 32 makes a good one.",)
    check_salt(base, Deidentifier(salt))
    return salt, notes


def naming_salt() -> str:
    """Return a key for names that are to be the same the next time, drawn where there is none; "" on a cluster without one.

    Raises:
        ConfigError: The kept key is not to be trusted.
    """
    if is_on_cluster():
        return environment_salt()
    return kept_salt() or _drawn()


def check_salt(base: Catalog | None, deidentifier: Deidentifier) -> None:
    """Refuse a second salt: one patient would get two pseudonyms, and could land in two splits."""
    if base is not None and _scheme_of(base, deidentifier) is None:
        raise ConfigError(
            "the de-identification salt",
            f"is not the one that {base.root} was made with, so patients could not be recognised",
            f"Set {SALT_VARIABLE} to the same value, or prepare into another place.",
        )


def scheme_notes(base: Catalog | None, deidentifier: Deidentifier, sources: Set[str]) -> tuple[str, ...]:
    """Return what whoever adds to a catalog of an earlier way of making pseudonyms should know: ids and splits stay, but some names do not.

    Args:
        base: The catalog so far, or None.
        deidentifier: Makes the pseudonyms.
        sources: Pseudonyms of the scans that are here, and prepared again.
    """
    if base is None or _scheme_of(base, deidentifier) == PSEUDONYM_SCHEME:
        return ()
    absent = sum(scan["source"] not in sources for scan in base.manifest.get("scans", ()))
    if not absent:
        return ()
    return (
        f"{absent} scans that are not in this source keep pseudonyms that an earlier version made. A patient with a number is known again "
        "by it; one whom only a name tells is not, and could come into two splits: prepare all scans together where there are such.",
    )


def salt_check(deidentifier: Deidentifier, scheme: int = PSEUDONYM_SCHEME) -> str:
    """Return what a manifest keeps to know the key and the scheme again; the key cannot be told from it."""
    return deidentifier.pseudonym("salt", "check", str(scheme))


def _scheme_of(base: Catalog, deidentifier: Deidentifier) -> int | None:
    """Return the scheme that a catalog was made with, None where it was made with another key."""
    check = base.manifest.get("salt_check")
    if check is None:
        return PSEUDONYM_SCHEME
    return next((scheme for scheme in _KNOWN_SCHEMES if salt_check(deidentifier, scheme) == check), None)


def _own_salt(base: Catalog | None, to: str) -> tuple[str, tuple[str, ...]]:
    """Return the key of this user's own machine, drawn for a new catalog where there is none."""
    if is_on_cluster():
        raise ConfigError(f"no {SALT_VARIABLE}", "pseudonyms made on a cluster need a secret key that every run shares", _ON_CLUSTER)
    path, root = salt_path(), local_path(to)
    if root is not None and path.resolve().is_relative_to(root.expanduser().resolve()):
        raise ConfigError(f"{path}", f"the key would lie in the catalog {to}", "Prepare into another place.")
    salt = kept_salt()
    if salt:
        logger.info("pseudonyms are made with the key in %s", path)
        return salt, ()
    if base is not None and "salt_check" in base.manifest:
        raise ConfigError(
            f"no {SALT_VARIABLE}, and no {path}",
            f"{base.root} was made with a key, without which its patients cannot be recognised",
            f"Bring that key: set {SALT_VARIABLE}, or copy the file from where the catalog was begun.",
        )
    return _drawn(), (_drawn_note(path),)


def _drawn() -> str:
    salt = draw_salt()
    logger.info("a key for the pseudonyms was drawn and is kept in %s", salt_path())
    return salt


def _drawn_note(path: Path) -> str:
    return (
        f"A key for the pseudonyms was drawn and is kept in {path}: keep a copy of it in a safe place, and never beside the catalog. "
        f"Elsewhere, set {SALT_VARIABLE} to what it holds."
    )


def _public_note(has_salt: bool) -> str:
    unused = f" {SALT_VARIABLE} is not used." if has_salt else ""
    return (
        "This catalog was begun with the public key and goes on with it, so that its patients are recognised: whoever holds a list of "
        f"patient numbers can tell who is who.{unused} Prepare into a new place for pseudonyms of a secret key."
    )
