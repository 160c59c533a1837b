"""The key of the pseudonyms on a machine of one's own: drawn once, kept for its owner alone, or refused."""

import os
import stat
from concurrent.futures import ThreadPoolExecutor

import pytest

from echotrain.data.formats.salt import SALT_VARIABLE, draw_salt, kept_salt, salt_path
from echotrain.errors import ConfigError


@pytest.fixture(autouse=True)
def home(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path / "config"))
    monkeypatch.delenv(SALT_VARIABLE, raising=False)
    return tmp_path


def test_a_key_is_drawn_once_and_kept_for_its_owner_alone():
    assert kept_salt() == ""
    salt = draw_salt()
    assert len(salt) == 64
    assert salt == kept_salt() == draw_salt()
    assert stat.S_IMODE(salt_path().stat().st_mode) == 0o600
    assert stat.S_IMODE(salt_path().parent.stat().st_mode) == 0o700
    assert [path.name for path in salt_path().parent.iterdir()] == [salt_path().name]


def test_a_wide_umask_does_not_open_it():
    before = os.umask(0)
    try:
        draw_salt()
    finally:
        os.umask(before)
    assert stat.S_IMODE(salt_path().stat().st_mode) == 0o600


def test_who_draws_at_once_draws_the_same():
    with ThreadPoolExecutor(8) as threads:
        assert len(set(threads.map(lambda _: draw_salt(), range(16)))) == 1


def test_two_users_have_two_keys(home, monkeypatch):
    first = draw_salt()
    monkeypatch.setenv("XDG_CONFIG_HOME", str(home / "another"))
    assert draw_salt() != first


def test_the_environment_comes_first(monkeypatch):
    draw_salt()
    monkeypatch.setenv(SALT_VARIABLE, "mine")
    assert kept_salt() == "mine"


def test_a_relative_configuration_folder_is_ignored_as_its_standard_has_it(home, monkeypatch):
    monkeypatch.setenv("XDG_CONFIG_HOME", "config")
    monkeypatch.setenv("HOME", str(home))
    assert salt_path() == home / ".config" / "echotrain" / "deidentification-salt"


@pytest.mark.parametrize("mode", [0o640, 0o604, 0o620, 0o660, 0o777])
def test_a_key_that_others_may_read_or_write_is_refused(mode):
    draw_salt()
    salt_path().chmod(mode)
    for take in (kept_salt, draw_salt):
        with pytest.raises(ConfigError, match=f"of mode {mode:04o}: must be 0600. Say chmod 600"):
            take()


@pytest.mark.parametrize("target", ["elsewhere", "missing"])
def test_a_link_is_no_key(home, target):
    draw_salt()
    salt_path().rename(home / "elsewhere")
    salt_path().symlink_to(home / target)
    for take in (kept_salt, draw_salt):
        with pytest.raises(ConfigError, match="is a link"):
            take()


def test_a_folder_in_which_others_may_put_a_key_is_refused():
    draw_salt()
    salt_path().parent.chmod(0o770)
    with pytest.raises(ConfigError, match="chmod 700"):
        kept_salt()


def test_a_linked_folder_is_refused(home):
    (home / "theirs").mkdir()
    (home / "config").mkdir()
    (home / "config" / "echotrain").symlink_to(home / "theirs")
    with pytest.raises(ConfigError, match="no link"):
        draw_salt()


@pytest.mark.parametrize("content", ["", "\n", "short"])
def test_an_empty_or_short_key_is_refused(content):
    draw_salt()
    salt_path().write_text(content)
    with pytest.raises(ConfigError, match="at least 16"):
        kept_salt()


def test_neither_a_folder_nor_a_pipe_in_its_place_is_read():
    draw_salt()
    salt_path().unlink()
    os.mkfifo(salt_path(), 0o600)
    with pytest.raises(ConfigError, match="file of this user's own"):
        kept_salt()


def test_a_home_that_cannot_be_written_is_told(home):
    (home / "config").write_text("a file")
    with pytest.raises(ConfigError, match="cannot be"):
        draw_salt()
