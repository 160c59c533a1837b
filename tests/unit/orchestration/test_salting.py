"""Which key prepare makes pseudonyms with: on one's own machine, on a cluster, and for a catalog that exists."""

import pytest

from echotrain.data.catalog.rows import SCHEMA, Catalog
from echotrain.data.formats.deidentify import PUBLIC_SALT, SALT_VARIABLE, Deidentifier
from echotrain.data.formats.salt import kept_salt, salt_path
from echotrain.errors import ConfigError
from echotrain.orchestration.jobs.prepare import PrepareConfig, prepare
from echotrain.orchestration.jobs.salting import choose_salt, naming_salt, salt_check, scheme_notes

SECRET = "a key that is long enough to be one"
CLUSTERS = {
    "RAY_ADDRESS": "ray://head:10001",
    "KUBERNETES_SERVICE_HOST": "10.0.0.1",
    "RAY_JOB_CONFIG_JSON_ENV_VAR": "{}",
}


@pytest.fixture(autouse=True)
def laptop(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path / "config"))
    for name in (SALT_VARIABLE, *CLUSTERS):
        monkeypatch.delenv(name, raising=False)
    return tmp_path


def catalog_of(salt: str) -> Catalog:
    return Catalog(SCHEMA.empty_table(), "s3://lab/knees", 1, {"salt_check": salt_check(Deidentifier(salt))})


def test_a_laptop_draws_a_key_says_where_and_takes_it_the_next_time(laptop):
    salt, (note,) = choose_salt("", None, str(laptop / "to"))
    assert str(salt_path()) in note
    assert salt not in note
    assert choose_salt("", None, str(laptop / "other")) == (salt, ())
    assert choose_salt("", catalog_of(salt), str(laptop / "to")) == (salt, ())


@pytest.mark.parametrize("variable", CLUSTERS)
def test_a_cluster_asks_for_the_key_before_anything_is_read_and_draws_none(laptop, monkeypatch, variable):
    monkeypatch.setenv(variable, CLUSTERS[variable])
    with pytest.raises(ConfigError, match=f"no {SALT_VARIABLE}.*existingSecret"):
        prepare(PrepareConfig(source=str(laptop / "there is no such folder"), to=str(laptop / "to")))
    assert not salt_path().exists()
    monkeypatch.setenv(SALT_VARIABLE, SECRET)
    assert choose_salt("", None, "s3://lab/knees") == (SECRET, ())


def test_a_cluster_of_this_machines_own_is_a_laptop(monkeypatch, laptop):
    monkeypatch.setenv("RAY_ADDRESS", "local")
    assert choose_salt("", None, str(laptop / "to"))[0] == kept_salt()


def test_a_catalog_whose_key_is_not_here_is_refused_and_none_is_drawn():
    with pytest.raises(ConfigError, match=r"made with a key.*Bring that key"):
        choose_salt("", catalog_of(SECRET), "s3://lab/knees")
    assert not salt_path().exists()


@pytest.mark.parametrize("given", [True, False])
def test_a_catalog_of_another_key_is_refused(monkeypatch, given):
    monkeypatch.setenv(SALT_VARIABLE, "another key than the catalog's")
    with pytest.raises(ConfigError, match="is not the one that s3://lab/knees was made with"):
        choose_salt("a third key, for this call" if given else "", catalog_of(SECRET), "s3://lab/knees")


@pytest.mark.parametrize("variable", ["", SECRET])
def test_a_catalog_of_the_public_key_goes_on_with_it_and_says_so(monkeypatch, variable):
    if variable:
        monkeypatch.setenv(SALT_VARIABLE, variable)
    salt, (note,) = choose_salt("", catalog_of(PUBLIC_SALT), "s3://lab/knees")
    assert salt == PUBLIC_SALT
    assert "goes on with it" in note
    assert ("is not used" in note) == bool(variable)


def test_no_new_catalog_is_made_with_the_public_key_unless_the_caller_insists(monkeypatch):
    monkeypatch.setenv(SALT_VARIABLE, PUBLIC_SALT)
    with pytest.raises(ConfigError, match="is the public key"):
        choose_salt("", None, "s3://lab/knees")
    assert choose_salt(PUBLIC_SALT, None, "s3://lab/knees") == (PUBLIC_SALT, ())
    assert choose_salt(PUBLIC_SALT, catalog_of(PUBLIC_SALT), "s3://lab/knees") == (PUBLIC_SALT, ())


@pytest.mark.parametrize(("key", "base"), [("peppercorn", None), ("pepper", catalog_of("pepper"))])
def test_a_key_that_can_be_guessed_is_told_and_an_old_catalog_goes_on_with_it(monkeypatch, key, base):
    monkeypatch.setenv(SALT_VARIABLE, key)
    salt, (note,) = choose_salt("", base, "s3://lab/knees")
    assert salt == key
    assert f"{len(key)} characters" in note
    assert "pepper" not in note


@pytest.mark.parametrize(("key", "limit"), [("pepper", "at least 8"), ("1234567\n", "at least 8"), (" \n", "holds no key")])
def test_no_new_catalog_is_made_with_a_key_that_is_hardly_one(monkeypatch, key, limit):
    monkeypatch.setenv(SALT_VARIABLE, key)
    with pytest.raises(ConfigError, match=limit):
        choose_salt("", None, "s3://lab/knees")


def test_blanks_around_the_key_are_no_part_of_it(monkeypatch):
    monkeypatch.setenv(SALT_VARIABLE, f" {SECRET}\n")
    assert choose_salt("", None, "s3://lab/knees") == (SECRET, ())
    assert kept_salt() == naming_salt() == SECRET
    monkeypatch.setenv("KUBERNETES_SERVICE_HOST", "10.0.0.1")
    assert naming_salt() == SECRET


def test_the_key_never_lies_in_the_catalog(laptop):
    with pytest.raises(ConfigError, match="would lie in the catalog"):
        choose_salt("", None, str(laptop / "config"))


def test_names_of_reconstructions_are_the_same_the_next_time_and_need_the_key_on_a_cluster(monkeypatch):
    assert naming_salt() == naming_salt() == kept_salt()
    monkeypatch.setenv("KUBERNETES_SERVICE_HOST", "10.0.0.1")
    assert naming_salt() == "", "the key of a pod's own folder would be another one tomorrow"
    monkeypatch.setenv(SALT_VARIABLE, SECRET)
    assert naming_salt() == SECRET


def test_a_catalog_of_an_earlier_scheme_goes_on_and_it_is_told_which_scans_keep_it(monkeypatch):
    monkeypatch.setenv("ECHOTRAIN_DEID_SALT", "a secret of some length")
    key = Deidentifier("a secret of some length")
    scans = [{"source": "source-1"}, {"source": "source-2"}]
    old = Catalog(SCHEMA.empty_table(), "s3://lab/knees", 1, {"salt_check": salt_check(key, 2), "scans": scans})
    assert choose_salt("", old, "s3://lab/knees")[0] == "a secret of some length"
    assert scheme_notes(old, key, {"source-1", "source-2", "source-3"}) == ()
    (note,) = scheme_notes(old, key, {"source-2", "source-3"})
    assert note.startswith("1 scans that are not in this source keep pseudonyms")
    new = Catalog(SCHEMA.empty_table(), "s3://lab/knees", 1, {"salt_check": salt_check(key), "scans": scans})
    assert scheme_notes(new, key, {"source-3"}) == scheme_notes(None, key, set()) == ()
    public = Catalog(SCHEMA.empty_table(), "s3://lab/knees", 1, {"salt_check": salt_check(Deidentifier(PUBLIC_SALT), 2)})
    assert choose_salt("", public, "s3://lab/knees")[0] == PUBLIC_SALT
    with pytest.raises(ConfigError, match="is not the one"):
        choose_salt("another secret of length", old, "s3://lab/knees")
