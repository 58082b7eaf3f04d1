"""A lock is taken by one, follows no link, and is noticed when it goes."""

import errno
import fcntl
import os

import pytest

from experiments.system import lock
from experiments.system.files import SaveError
from experiments.system.lock import LockedError, hold, holder


def test_a_link_is_not_followed(tmp_path):
    victim = tmp_path / "victim"
    victim.write_text("mine")
    (tmp_path / "out").mkdir()
    for target in (victim, tmp_path / "absent"):
        (tmp_path / "out" / ".lock").symlink_to(target)
        with (
            pytest.raises(LockedError, match=r"\.lock: cannot be used .*symbolic links"),
            hold(tmp_path / "out"),
        ):
            pass
        assert holder(tmp_path / "out") is None
        (tmp_path / "out" / ".lock").unlink()
    assert victim.read_text() == "mine"
    assert not (tmp_path / "absent").exists()


@pytest.mark.parametrize("text", ["mine", "process 1 on \x1b[2J", "\x00", "process x on y"])
def test_a_file_of_the_users_is_no_lock(tmp_path, text):
    (tmp_path / ".lock").write_text(text)
    with pytest.raises(LockedError, match=r"\.lock: is not a study's"), hold(tmp_path):
        pass
    assert (tmp_path / ".lock").read_text() == text


def test_it_is_noticed_when_it_is_removed(tmp_path):
    with hold(tmp_path) as held:
        held.check()
        (tmp_path / ".lock").unlink()
        with pytest.raises(SaveError, match=r"was removed.*\.lock"):
            held.check()
        with hold(tmp_path) as other:
            with pytest.raises(SaveError):
                held.check()
            other.check()
    assert not (tmp_path / ".lock").exists()


def test_who_lost_it_does_not_remove_the_next_ones(tmp_path):
    first, second = hold(tmp_path), hold(tmp_path)
    first.__enter__()
    (tmp_path / ".lock").unlink()
    held = second.__enter__()
    first.__exit__(None, None, None)
    held.check()
    second.__exit__(None, None, None)


@pytest.mark.parametrize("number", [errno.ENOLCK, errno.ENOSYS, errno.EOPNOTSUPP])
def test_a_file_system_without_locks(tmp_path, monkeypatch, number):
    def none(*_):
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(fcntl, "flock", none)
    with (
        pytest.raises(LockedError, match="has no locks .*--no-lock") as refused,
        hold(tmp_path / "out"),
    ):
        pass
    assert "\n" not in str(refused.value)
    assert not (tmp_path / "out" / ".lock").exists()
    assert holder(tmp_path) is None
    lock.unlocked().check()


def test_a_file_in_the_way(tmp_path):
    (tmp_path / "out").write_text("mine")
    with (
        pytest.raises(LockedError, match=r"out: cannot be used \(File exists\)"),
        hold(tmp_path / "out"),
    ):
        pass
    assert (tmp_path / "out").read_text() == "mine"


def test_the_dead_are_named_and_nothing_else(tmp_path):
    (tmp_path / ".lock").write_text("process 12 on node-7.cluster\n")
    with hold(tmp_path) as held:
        assert held.dead == "process 12 on node-7.cluster"
        assert (holder(tmp_path) or "").startswith(f"process {os.getpid()} on ")
