"""The doors to the outside: locks, files that survive a kill, programs, the terminal, the next process."""

from __future__ import annotations

import contextlib
import errno
import functools
import os
import resource
import shutil
import signal
import stat
import subprocess
import sys
from pathlib import Path

import pytest

import awsvault
from awsvault import (
    AwsVaultError,
    Credentials,
    FileKeystore,
    KeystoreError,
    NeedsUser,
    Passphrase,
    Secret,
    SessionSlot,
    ToolError,
    Vault,
    World,
)
from tests.fake_world import DOORS, LASTING, START, FakeWorld, KillingWorld
from tests.terminal import END, Terminal

ROOT = Path(awsvault.__file__).resolve().parent
PASSPHRASE = "correct horse battery staple"


@pytest.fixture
def world(home):
    return FakeWorld(home)


def in_child(work):
    """Fork and run `work()` there; the pid. Its exit status: what it returns, 99 for an exception."""
    pid = os.fork()
    if pid == 0:
        status = 99
        try:
            status = work() or 0
        finally:
            os._exit(status)
    return pid


def ended(pid):
    """The exit status of a child, negative for a signal."""
    _, status = os.waitpid(pid, 0)
    return -os.WTERMSIG(status) if os.WIFSIGNALED(status) else os.WEXITSTATUS(status)


class Pipe:
    """A pipe to wait on: one process says something, the other reads it."""

    def __init__(self):
        self.reader, self.writer = os.pipe()

    def say(self):
        os.write(self.writer, b".")

    def wait(self):
        assert os.read(self.reader, 1) == b"."


# -- locks ------------------------------------------------------------------------


def test_the_lock_is_the_same_in_every_process_and_dies_with_its_holder(world, home):
    held = Pipe()

    def hold():
        with FakeWorld(home, {"XDG_RUNTIME_DIR": "/elsewhere"}).lock("a", "b"):
            held.say()
            signal.pause()

    pid = in_child(hold)
    held.wait()
    with (
        pytest.raises(AwsVaultError, match=f"waiting for process {pid}") as caught,
        world.lock("a", "b", wait=0.1),
    ):
        pass
    assert caught.value.exit_code == 1
    with world.lock("a", "c"), world.lock("ab"):
        pass
    os.kill(pid, signal.SIGKILL)
    assert ended(pid) == -signal.SIGKILL
    with world.lock("a", "b", wait=0.1) as lock:
        assert lock.fd >= 0
    assert lock.fd < 0


def test_the_time_out_names_the_holders_terminal(world, home):
    held = Pipe()

    def hold():
        holder = FakeWorld(home)
        holder.failures["terminal_name"] = lambda: "/dev/pts/7"
        with holder.lock("x"):
            held.say()
            signal.pause()

    pid = in_child(hold)
    held.wait()
    named = f"process {pid} on /dev/pts/7"
    with pytest.raises(AwsVaultError, match=named), world.lock("x", wait=0.1):
        pass
    os.kill(pid, signal.SIGKILL)
    ended(pid)


@pytest.mark.parametrize("terminal", [True, False])
def test_a_wait_says_on_a_terminal_for_whom_and_what(world, home, monkeypatch, terminal):
    held, said = Pipe(), Pipe()
    monkeypatch.setattr(awsvault, "QUIET_WAIT_SECONDS", 0.05)
    monkeypatch.setattr(world, "is_terminal", lambda fd: terminal and fd == 2)

    def hold():
        holder = FakeWorld(home)
        holder.failures["terminal_name"] = lambda: "/dev/pts/7"
        with holder.lock("x"):
            held.say()
            said.wait()

    pid = in_child(hold)
    held.wait()
    inner = awsvault.Lock._flock

    def then_let_go(lock, fd, seconds):
        if seconds > 0.05:
            said.say()
        return inner(lock, fd, seconds)

    monkeypatch.setattr(awsvault.Lock, "_flock", then_let_go)
    with world.lock("x", doing="writing to the vault") as lock:
        assert lock.fd >= 0
    line = f"waiting for process {pid} on /dev/pts/7, which is writing to the vault"
    assert world.said == ([line] if terminal else [])
    assert ended(pid) == 0


def test_a_short_wait_is_silent(world, home, monkeypatch):
    held = Pipe()
    monkeypatch.setattr(awsvault, "QUIET_WAIT_SECONDS", 60.0)
    monkeypatch.setattr(world, "is_terminal", lambda fd: True)
    letting_go = Pipe()

    def hold():
        with FakeWorld(home).lock("x"):
            held.say()
            letting_go.wait()

    pid = in_child(hold)
    held.wait()
    inner = awsvault.Lock._flock

    def then_let_go(lock, fd, seconds):
        letting_go.say()
        return inner(lock, fd, seconds)

    monkeypatch.setattr(awsvault.Lock, "_flock", then_let_go)
    with world.lock("x"):
        assert world.said == []
    assert ended(pid) == 0


def test_every_lock_names_what_its_holder_does(world):
    assert world.lock("x").doing == "making this session"
    mfa = awsvault.Mfa("arn:aws:iam::111111111111:mfa/jon", "")
    device = awsvault.MfaCodes(world, None, "").lock(mfa)
    assert device.doing == "using the MFA device arn:aws:iam::111111111111:mfa/jon"


def test_many_processes_take_turns(world, home):
    counter = home / "counter"
    counter.write_text("0")

    def count():
        for _ in range(20):
            with FakeWorld(home).lock("counter"):
                counter.write_text(str(int(counter.read_text()) + 1))

    pids = [in_child(count) for _ in range(6)]
    assert [ended(pid) for pid in pids] == [0] * 6
    assert counter.read_text() == "120"


def test_a_lock_file_that_a_cleaner_replaced_makes_no_two_owners(world, monkeypatch):
    inner, replaced = awsvault.Lock._try, []

    def try_after_the_cleaner(lock, fd):
        if not replaced:
            replaced.append(os.fstat(fd).st_ino)
            path = os.path.join(lock.world.lock_folder(), lock.name)
            os.rename(path, path + ".old")  # keeps the inode's number from being used again
            if len(replaced) == 1:
                Path(path).touch(0o600)
        return inner(lock, fd)

    monkeypatch.setattr(awsvault.Lock, "_try", try_after_the_cleaner)
    with world.lock("x") as lock:
        named = os.stat(os.path.join(world.lock_folder(), lock.name))
        assert os.fstat(lock.fd).st_ino == named.st_ino != replaced[0]


def test_a_lock_file_that_is_gone_is_made_again(world, monkeypatch):
    inner, removed = awsvault.Lock._try, []

    def try_after_the_cleaner(lock, fd):
        if not removed:
            removed.append(True)
            os.unlink(os.path.join(lock.world.lock_folder(), lock.name))
        return inner(lock, fd)

    monkeypatch.setattr(awsvault.Lock, "_try", try_after_the_cleaner)
    with world.lock("x") as lock:
        assert os.path.exists(os.path.join(world.lock_folder(), lock.name))


def test_lock_files_are_ours_alone_and_stay(world, home):
    before = os.umask(0)
    try:
        with world.lock("x"):
            pass
    finally:
        os.umask(before)
    (path,) = (home / ".awsvault" / "locks").iterdir()
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert len(path.name) == 32


def test_a_lock_file_of_somebody_else_is_refused(world):
    folder = world.lock_folder()
    world.failures["uid"] = lambda: os.geteuid() + 1
    world._lock_folder = folder
    with pytest.raises(AwsVaultError, match="belongs to another user"), world.lock("x"):
        pass


def test_a_link_in_a_lock_files_place_is_not_followed(world, home):
    (home / "victim").write_text("precious")
    name = world.lock("x").name
    os.symlink(home / "victim", os.path.join(world.lock_folder(), name))
    with pytest.raises(OSError, match="symbolic links"), world.lock("x"):
        pass
    assert (home / "victim").read_text() == "precious"


def test_the_descriptor_is_closed_in_programs(world):
    with world.lock("x") as lock:
        assert not os.get_inheritable(lock.fd)


@pytest.mark.parametrize(
    ("what", "error", "shared"),
    [
        (
            "AWS refused",
            awsvault.AwsError("AssumeRole: AccessDenied", "a hint", "AccessDenied"),
            True,
        ),
        ("usage", awsvault.UsageError("bad"), True),
        ("a very long refusal", AwsVaultError("x" * 20_000), True),
        ("nobody could be asked", NeedsUser("no terminal"), False),
        ("Ctrl-C", KeyboardInterrupt(), False),
        ("a signal", awsvault.Ended(15), False),
        ("a bug", ValueError("x"), False),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_a_refusal_is_shared_with_those_who_waited(world, home, monkeypatch, what, error, shared):
    held, waiting = Pipe(), Pipe()

    def be_refused():
        with contextlib.suppress(BaseException), FakeWorld(home).lock("x", shared_refusals=True):
            held.say()
            waiting.wait()
            raise error

    pid = in_child(be_refused)
    held.wait()
    inner = awsvault.Lock._wait

    def wait_and_say_so(lock, fd):
        waiting.say()
        inner(lock, fd)

    monkeypatch.setattr(awsvault.Lock, "_wait", wait_and_say_so)
    if shared:
        with pytest.raises(AwsVaultError) as caught, world.lock("x", shared_refusals=True):
            pass
        assert error.message.startswith(caught.value.message)
        assert len(caught.value.message) >= min(len(error.message), 1000)
        assert (caught.value.hint, caught.value.exit_code) == (error.hint, error.exit_code)
    else:
        with world.lock("x", shared_refusals=True) as lock:
            assert lock.fd >= 0
    assert ended(pid) == 0
    # Whoever comes later was not waiting then, and tries for itself.
    with world.lock("x", shared_refusals=True) as lock:
        assert lock.fd >= 0


@pytest.mark.parametrize(
    "text",
    [
        "",
        "{",
        "[]",
        '{"pid": "x"}',
        "\xff" * 5000,
        '{"refusals": 3}\n{"old": 1}',
        '{"refusals": Infinity}',
        '{"refusals": 1e999}',
        '{"exit_code": -1}',
        '{"exit_code": 256}',
        '{"message": 5}',
        '{"message": "\\ud800"}',
        '{"pid": ' + "9" * 5000 + "}",
    ],
)
def test_an_odd_lock_file_is_no_obstacle_and_no_refusal(world, text):
    name = world.lock("x").name
    Path(world.lock_folder(), name).write_text(text)
    with world.lock("x", shared_refusals=True) as lock:
        assert lock.info.pid == os.getpid()


def test_without_a_home_of_our_own_locks_go_elsewhere(world, tmp_path, monkeypatch):
    (tmp_path / "file").write_text("")
    good = tmp_path / "run"
    monkeypatch.setattr(
        world,
        "_lock_folder_candidates",
        lambda: iter([str(tmp_path / "file" / "locks"), str(good)]),
    )
    assert world.lock_folder() == str(good)
    assert stat.S_IMODE(good.stat().st_mode) == 0o700


def test_where_locking_is_impossible_it_is_said_once_and_goes_on(world, tmp_path, monkeypatch):
    (tmp_path / "file").write_text("")
    monkeypatch.setattr(
        world, "_lock_folder_candidates", lambda: iter([str(tmp_path / "file" / "locks")])
    )
    for _ in range(2):
        with world.lock("x") as lock:
            assert lock.fd < 0
    assert len(world.said) == 1
    assert "lock files" in world.said[0]


# -- folders and files -----------------------------------------------------------------


def test_a_home_that_is_not_ours_is_read_not_written(world, home):
    assert world.own_home() == str(home)
    world.failures["uid"] = lambda: os.geteuid() + 1
    assert world.home() == str(home)
    with pytest.raises(AwsVaultError, match="belongs to another user"):
        world.own_home()


@pytest.mark.parametrize("environ", [{"HOME": ""}, {"HOME": None}])
def test_without_home_the_user_database_is_asked(home, environ):
    world = FakeWorld(home)
    world.environ = {name: value for name, value in environ.items() if value is not None}
    assert world.home() == os.path.expanduser(
        f"~{__import__('pwd').getpwuid(os.geteuid()).pw_name}"
    )
    world.failures["uid"] = lambda: 4_000_000_000
    with pytest.raises(AwsVaultError, match="HOME is not set"):
        world.home()


def test_a_home_that_is_missing_is_an_error_that_says_so(world, home):
    world.environ["HOME"] = str(home / "gone")
    with pytest.raises(AwsVaultError, match="no such file"):
        world.own_home()


def test_a_file_is_read_whole_or_not_at_all(world, home):
    (home / "file").write_bytes(b"x" * 100)
    assert world.read_file(str(home / "file"), 100) == b"x" * 100
    with pytest.raises(OSError, match="too large") as caught:
        world.read_file(str(home / "file"), 99)
    assert caught.value.errno == errno.EFBIG
    os.mkfifo(home / "fifo")
    assert world.read_file(str(home / "fifo"), 100) == b""


def test_a_signal_while_a_program_is_started_ends_that_one_too(world, monkeypatch):
    started = []
    inner = world._start_tool

    def start(*arguments):
        started.append(inner(*arguments))
        os.kill(os.getpid(), signal.SIGTERM)
        return started[0]

    monkeypatch.setattr(world, "_start_tool", start)
    with pytest.raises(awsvault.Ended, match="signal 15"):
        world.run(["sleep", "1000"])
    assert started[0].returncode == -signal.SIGKILL


def test_a_signal_while_nothing_can_be_started_is_not_lost(world, monkeypatch):
    def start(*_arguments):
        os.kill(os.getpid(), signal.SIGTERM)
        raise awsvault.ToolMissing("x")

    monkeypatch.setattr(world, "_start_tool", start)
    with pytest.raises(awsvault.Ended):
        world.run(["sleep", "1000"])
    assert signal.getsignal(signal.SIGTERM) == signal.SIG_DFL


def test_a_pipe_is_waited_for(world, home, monkeypatch):
    os.mkfifo(home / "pipe")
    writer = os.open(home / "pipe", os.O_RDWR)
    monkeypatch.setattr(world, "wait_readable", lambda _fds, _timeout: [])
    with pytest.raises(OSError, match="timed out"):
        world.read_file(str(home / "pipe"), 100)

    def write(fds, _timeout):
        os.write(writer, b"late")
        os.close(writer)
        return fds

    monkeypatch.setattr(world, "wait_readable", write)
    assert world.read_file(str(home / "pipe"), 100) == b"late"


def test_a_line_is_read_and_not_a_byte_more(world):
    pipe = Pipe()
    os.write(pipe.writer, b"123456\nthe rest")
    assert world.read_line(pipe.reader).reveal() == "123456"
    assert os.read(pipe.reader, 100) == b"the rest"


def test_an_inherited_descriptor_is_read_and_closed(world, home):
    (home / "secret").write_text("x\ny")
    fd = os.open(home / "secret", os.O_RDONLY)
    assert world.read_descriptor(fd, 100) == b"x\ny"
    with pytest.raises(OSError, match="Bad file descriptor"):
        os.fstat(fd)


def test_appending_begins_a_line_and_keeps_what_a_person_wrote(world, home):
    path = home / "config"
    world.append_file(str(path), b"a\n")
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    path.write_bytes(b"[x]\ny = 1")
    world.append_file(str(path), b"[z]\n")
    assert path.read_bytes() == b"[x]\ny = 1\n[z]\n"


def half_written(world, error):
    def write(fd, data):
        os.write(fd, data[: len(data) // 2])
        raise error

    world.failures["write_file"] = write


def test_nothing_is_left_of_an_append_that_failed(world, home):
    path = home / "config"
    path.write_bytes(b"[x]\ny = 1")
    half_written(world, OSError(errno.ENOSPC, "No space left on device"))
    with pytest.raises(OSError, match="No space"):
        world.append_file(str(path), b"[profile z]\n")
    assert path.read_bytes() == b"[x]\ny = 1"


# What stands at home/a -> why home/a/b is refused, "" if it is used.
PLACES = {
    "nothing yet": (lambda a: None, ""),
    "a folder of ours": (lambda a: a.mkdir(mode=0o700), ""),
    "one that others can only read": (lambda a: a.mkdir(mode=0o755), ""),
    "one that others can write to": (lambda a: (a.mkdir(), a.chmod(0o777)), "written to by others"),
    "one that the group can write to": (lambda a: (a.mkdir(), a.chmod(0o770)), "by others"),
    "a sticky one, as /tmp": (lambda a: (a.mkdir(), a.chmod(0o1777)), ""),
    "a link of ours": (lambda a: ((a.parent / "c").mkdir(), a.symlink_to("c")), ""),
    "a link from /": (lambda a: ((a.parent / "c").mkdir(), a.symlink_to(a.parent / "c")), ""),
    "a link to .. and back": (lambda a: a.symlink_to(f"../{a.parent.name}/./c"), ""),
    "a link to itself": (lambda a: a.symlink_to("a"), "too many levels"),
    "a file": (lambda a: a.write_text("x"), "not a directory"),
}


@pytest.mark.parametrize("place", PLACES)
def test_which_folders_are_on_the_way_to_ours(world, home, place):
    arrange, problem = PLACES[place]
    arrange(home / "a")
    path = home / "a" / "b"
    with contextlib.ExitStack() as stack:
        if problem:
            stack.enter_context(pytest.raises(AwsVaultError, match=f"(?i){problem}"))
        world.private_folder(str(path))
    assert path.is_dir() == (not problem)
    assert problem or stat.S_IMODE(path.stat().st_mode) == 0o700


@pytest.mark.parametrize("mode", [0o777, 0o1777])
def test_a_link_that_others_can_have_made_is_not_followed(world, home, mode):
    (home / "target").mkdir()
    (home / "open").mkdir()
    (home / "open" / "link").symlink_to(home / "target")
    (home / "open").chmod(mode)
    with pytest.raises(AwsVaultError, match=r"others can have made|written to by others"):
        world.private_folder(str(home / "open" / "link" / "x"))
    assert os.listdir(home / "target") == []


def test_what_is_done_in_a_folder_of_ours_goes_by_its_descriptor(world, home):
    folder, place = home / "folder", str(home / "folder" / "file")
    fd = world.folders.open(world.private_folder(str(folder)))
    assert world.folders.open(str(folder)) == fd
    assert not os.get_inheritable(fd)
    folder.rename(home / "moved")
    folder.symlink_to("treasure")
    (home / "treasure").mkdir()
    (home / "treasure" / "file").write_text("x")
    world.write_new(place, b"1")
    assert (home / "moved" / "file").read_bytes() == world.read_own(place, 9) == b"1"
    world.rename(place, str(folder / "new"))
    assert world.list_folder(str(folder)) == ["new"]
    world.delete_file(str(folder / "new"))
    world.remove_run_folder(str(folder))
    assert os.listdir(home / "moved") == []
    assert os.listdir(home / "treasure") == ["file"]


def test_a_link_in_a_folder_of_ours_is_neither_read_nor_written_through(world, home):
    (home / "letter").write_text("x")
    (home / "link").symlink_to("letter")
    for work in (
        lambda path: world.read_own(path, 9),
        lambda path: world.write_new(path, b"y"),
        lambda path: os.close(world.open_own(path, os.O_RDWR | os.O_CREAT)),
    ):
        with pytest.raises(OSError, match=r"symbolic links|exists"):
            work(str(home / "link"))
    world.delete_file(str(home / "link"))
    assert (home / "letter").read_text() == "x"


def test_a_folder_that_was_removed_is_made_again_and_few_are_kept_open(world, home):
    before = len(os.listdir("/dev/fd"))
    for _ in range(2):
        for name in "abcdef":
            world.private_folder(str(home / name))
            os.rmdir(home / name)
    assert len(os.listdir("/dev/fd")) <= before + awsvault.MAX_OPEN_FOLDERS
    with pytest.raises(FileNotFoundError):
        world.folders.open(str(home / "f"))


def test_folders_are_closed_with_their_world(home):
    before = len(os.listdir("/dev/fd"))
    for _ in range(3):
        FakeWorld(home).private_folder(str(home / "a"))
    assert len(os.listdir("/dev/fd")) <= before


def test_where_the_first_place_is_taken_the_command_s_files_go_to_the_next(world, home):
    taken = home / "taken"
    taken.mkdir()
    taken.chmod(0o777)
    places = [str(taken / "locks"), str(home / "awsvault-0")]
    world._lock_folder_candidates = lambda: iter(places)
    path = world.make_run_folder()
    assert os.path.dirname(path) == str(home / "awsvault-0" / "run")
    del places[1]
    with pytest.raises(AwsVaultError, match="no folder for the command's files") as caught:
        world.make_run_folder()
    assert "HOME" in caught.value.hint
    assert os.listdir(taken) == []


def test_a_file_is_trusted_by_its_descriptor(world, home):
    path = home / "config"
    for mode, safe in ((0o600, True), (0o644, True), (0o646, False)):
        path.write_text("x")
        path.chmod(mode)
        assert world.read_trusted(str(path), 9) == (b"x", safe)
    owner = home.stat().st_uid
    path.chmod(0o600)
    world.failures["uid"] = lambda: owner + 1
    assert world.read_trusted(str(path), 9) == (b"x", owner == 0)


def test_left_over_files_are_swept_when_they_are_old(world, home):
    scratch = home / "scratch"
    scratch.mkdir()
    for name, age in (
        (".awsvault-tmp-old", 3601),
        (".awsvault-tmp-new", 3599),
        ("not-ours", 99999),
    ):
        (scratch / name).write_text("x")
        os.utime(scratch / name, (START.timestamp() - age,) * 2)
    world.write_atomic(str(home / "file"), b"x", str(scratch))
    assert sorted(os.listdir(scratch)) == [".awsvault-tmp-new", "not-ours"]


# -- a writer killed at every door, a full disk -------------------------------------------


def open_vault(world, count=8192):
    folder = os.path.join(world.environ["HOME"], ".awsvault", "keys")
    return Vault(FileKeystore(world, folder, Passphrase(world, Secret(PASSPHRASE)), count), world)


CONFIG = "[profile prod]\nregion = eu-west-1"
FILE_VAULT = {"AWS_VAULT_FILE_PASSPHRASE": PASSPHRASE, "AWS_VAULT_FILE_ITERATIONS": "8192"}
OLD, NEW = "dummy/old".ljust(40, "0"), "dummy/new".ljust(40, "0")
SESSION = Credentials("ASIADUMMYEXAMPLE0001", Secret("s"), Secret("t"), START.replace(year=2037))
SLOT = SessionSlot("sts.GetSessionToken", "prod")


def add(*words):
    def run(world):
        world.environ = {
            **world.environ,
            "AWS_ACCESS_KEY_ID": "AKIADUMMYEXAMPLE0009",
            "AWS_SECRET_ACCESS_KEY": NEW,
        }
        return awsvault.main(["add", "--env", *words], world)

    return run


def store_session(world):
    open_vault(world).store_session(
        SLOT, SESSION.replace(access_key_id="ASIADUMMYEXAMPLE0002"), "f"
    )


def seal_anew(world):
    open_vault(world, 10_000).credentials("prod")


WRITERS = {
    "add of a new profile": (add("new"), {"new"}),
    "add over another key": (add("prod"), {"prod", "session"}),
    "remove": (lambda world: awsvault.main(["remove", "-f", "prod"], world), {"prod", "session"}),
    "clear": (lambda world: awsvault.main(["clear"], world), {"session"}),
    "a session stored": (store_session, {"session"}),
    "a weak item sealed anew": (
        seal_anew,
        set(),
    ),
}


def furnish(home):
    shutil.rmtree(home, ignore_errors=True)
    home.mkdir(mode=0o700)
    (home / ".aws").mkdir(mode=0o700)
    (home / ".aws" / "config").write_text(CONFIG)
    vault = open_vault(FakeWorld(home))
    for name in ("prod", "other"):
        vault.store_credentials(name, Credentials("AKIADUMMYEXAMPLE0001", Secret(OLD)))
    vault.store_session(SLOT, SESSION, "f")


def check(home, may_change):
    """Every stored item is readable, and only what was being changed is other than before, or gone."""
    vault = open_vault(FakeWorld(home))
    for key in vault.keystore.keys():
        assert vault.keystore.get(key)
    found = {name: vault.credentials(name).secret_access_key.reveal() for name in vault.profiles()}
    assert found["other"] == OLD
    assert found.get("prod") == OLD or ("prod" in may_change and found.get("prod") in (NEW, None))
    assert found.get("new") in (None, NEW)
    assert set(found) <= {"prod", "other", "new"}
    assert vault.sessions() or "session" in may_change
    assert (home / ".aws" / "config").read_text().startswith(CONFIG)
    assert all(
        name in ("prod", "other", "new") or "," in name
        for name in os.listdir(home / ".awsvault" / "keys")
    )


@pytest.mark.parametrize("writer", WRITERS)
def test_a_writer_killed_at_any_door_leaves_every_item_readable(home, writer):
    act, may_change = WRITERS[writer]
    environ = {"HOME": str(home), **FILE_VAULT}
    fatal, status = 0, -signal.SIGKILL
    while status == -signal.SIGKILL:
        fatal += 1
        furnish(home)

        def work():
            null = os.open(os.devnull, os.O_RDWR)
            os.dup2(null, 1)
            return act(KillingWorld(dict(environ), fatal))  # noqa: B023

        status = ended(in_child(work))
        check(home, may_change)
        assert fatal < 2000
    assert status == 0
    assert fatal > 4, f"the doors were counted: {fatal}"
    # What was left behind hinders nobody.
    assert add("new")(FakeWorld(home, environ)) == 0
    check(home, may_change)


def tree(folder):
    """What stands below a folder: name -> what a reader finds there."""
    found = {}
    for path in sorted(folder.rglob("*")):
        status = path.lstat()
        content = path.read_bytes() if stat.S_ISREG(status.st_mode) else None
        found[str(path)] = (status.st_mode, status.st_ino, content)
    return found


class WatchedWorld(KillingWorld):
    """A KillingWorld in which nobody dies, and every door that is not LASTING is looked behind."""

    def __init__(self, environ, home):
        super().__init__(environ, 0)
        self.watched, self.entered = home, set()


def watched(name):
    inner = getattr(KillingWorld, name)

    @functools.wraps(inner)
    def door(self, *args, **kwargs):
        if "entered" not in vars(self):
            return inner(self, *args, **kwargs)
        self.entered.add(name)
        steps, before = self.count, tree(self.watched)
        result = inner(self, *args, **kwargs)
        assert self.count != steps or tree(self.watched) == before, name
        return result

    return door


for _name in set(DOORS) - LASTING:
    setattr(WatchedWorld, _name, watched(_name))


@pytest.mark.parametrize("writer", WRITERS)
def test_nothing_lasting_is_done_at_other_doors(home, writer):
    act, _may_change = WRITERS[writer]
    furnish(home)
    world = WatchedWorld({"HOME": str(home), **FILE_VAULT}, home)
    assert not act(world)
    assert len(world.entered) > 3
    assert set(DOORS) >= LASTING


@pytest.mark.parametrize("door", ["create_file", "write_file", "sync_file", "rename"])
@pytest.mark.parametrize(
    "error", [errno.ENOSPC, errno.EROFS, errno.EDQUOT, errno.EIO], ids=os.strerror
)
def test_a_disk_that_is_full_or_broken_loses_nothing(home, door, error):
    furnish(home)
    world = FakeWorld(
        home, {"AWS_VAULT_FILE_PASSPHRASE": PASSPHRASE, "AWS_VAULT_FILE_ITERATIONS": "8192"}
    )
    if door == "write_file":
        half_written(world, OSError(error, os.strerror(error)))
    else:
        world.failures[door] = OSError(error, os.strerror(error))
    assert add("prod")(world) == 1
    assert world.said[0].startswith("error: can't write ")
    assert os.strerror(error).lower() in world.said[0]
    check(home, set())
    assert os.listdir(home / ".awsvault" / "tmp") == []


def test_a_limit_on_the_size_of_files_is_an_error_like_a_full_disk(home):
    furnish(home)
    said = home / "said"

    def work():
        resource.setrlimit(resource.RLIMIT_FSIZE, (64, 64))
        world = FakeWorld(
            home, {"AWS_VAULT_FILE_PASSPHRASE": PASSPHRASE, "AWS_VAULT_FILE_ITERATIONS": "8192"}
        )
        status = add("prod")(world)
        said.write_text(world.said[0][:60])
        return status

    assert ended(in_child(work)) == 1
    assert said.read_text().startswith("error: can't write ")
    check(home, set())


def test_a_session_that_cannot_be_kept_is_used_all_the_same(home):
    furnish(home)
    world = FakeWorld(home)
    world.failures["create_file"] = OSError(errno.ENOSPC, "No space left on device")
    with pytest.raises(KeystoreError, match="no space left"):
        store_session(world)


def test_a_full_disk_for_the_config_is_said_and_the_key_is_kept(home):
    furnish(home)
    world = FakeWorld(
        home, {"AWS_VAULT_FILE_PASSPHRASE": PASSPHRASE, "AWS_VAULT_FILE_ITERATIONS": "8192"}
    )
    world.failures["append_file"] = OSError(errno.ENOSPC, "No space left on device")
    assert add("new")(world) == 1
    assert "the keys are stored" in world.said[0]
    assert open_vault(FakeWorld(home)).credentials("new").secret_access_key == Secret(NEW)


@pytest.mark.parametrize(("fd", "path", "code"), [(1, "/dev/full", 1), (2, "/dev/full", 0)])
def test_output_to_a_full_disk(cli, fd, path, code):
    stream = {1: "stdout", 2: "stderr"}[fd]
    with open(path, "w") as full:
        assert cli.popen("list", **{stream: full}).wait(60) == code


def test_a_reader_that_goes_away_ends_it_as_sigpipe_would(cli):
    reader, writer = os.pipe()
    os.close(reader)
    process = cli.popen("list", stdout=writer)
    os.close(writer)
    assert process.wait(60) == 141
    assert process.stderr.read() == ""


# -- programs ---------------------------------------------------------------------------


def test_a_program_gets_its_secret_by_standard_input(world):
    result = world.run(["cat"], stdin=Secret(b"a\0b\xff"))
    assert (result.status, result.output, result.errors) == (0, Secret(b"a\0b\xff"), "")
    assert "output=Secret(...)" in repr(result)


def test_a_program_without_input_gets_none(world):
    assert world.run(["cat"]).output == Secret("")
    result = world.run(["sh", "-c", "echo oops >&2; exit 3"])
    assert (result.status, result.errors) == (3, "oops\n")


def test_a_program_that_takes_too_long_is_killed(world, home):
    script = 'echo $$ > "$HOME/pid"; exec sleep 600'
    with pytest.raises(ToolError, match="did not end within"):
        world.run(["sh", "-c", script], timeout=0.5)
    with pytest.raises(ProcessLookupError):
        os.kill(int((home / "pid").read_text()), 0)


@pytest.mark.parametrize(
    "program", ["no-such-program-anywhere", "/no/such/program", "/etc/passwd", "/"]
)
def test_a_program_that_cannot_be_started_is_named(world, program):
    with pytest.raises(ToolError, match=f"can't run {program}: "):
        world.run([program])


@pytest.mark.parametrize(
    ("name", "status", "says"),
    [
        ("no-such-command", 127, "not found on PATH"),
        ("./missing", 127, "no such file"),
        ("/no/such", 127, "no such file"),
        ("./plain", 126, "not executable"),
        ("plain", 126, "not executable"),
        ("./folder", 126, "a folder"),
        ("/", 126, "a folder"),
    ],
)
def test_a_command_that_cannot_be_found(world, home, monkeypatch, name, status, says):
    (home / "plain").write_text("x")
    (home / "folder").mkdir()
    monkeypatch.chdir(home)
    world.environ["PATH"] = f"/nowhere:{home}"
    with pytest.raises(AwsVaultError, match=says) as caught:
        world.find_program(name)
    assert caught.value.exit_code == status


def test_a_command_is_found_as_execvp_finds_it(world, home, monkeypatch):
    for folder in ("a", "b"):
        (home / folder).mkdir()
        (home / folder / "tool").write_text("x")
    (home / "b" / "tool").chmod(0o755)
    monkeypatch.chdir(home)
    world.environ["PATH"] = f"{home}/a:{home}/b"
    assert world.find_program("tool") == f"{home}/b/tool"
    assert world.find_program("b/tool") == "b/tool"
    world.environ["PATH"] = f":{home}/a"
    (home / "tool").symlink_to(home / "b" / "tool")
    assert world.find_program("tool") == "./tool"


def test_the_command_gets_its_signals_and_its_core_limit_back(world, home):
    hard = resource.getrlimit(resource.RLIMIT_CORE)[1]

    def work():
        out = os.open(home / "out", os.O_WRONLY | os.O_CREAT)
        os.dup2(out, 1)
        resource.setrlimit(resource.RLIMIT_CORE, (0 if hard == 0 else 1024, hard))
        world.guard_memory()
        assert resource.getrlimit(resource.RLIMIT_CORE)[0] == 0
        script = "ulimit -c; grep SigIgn /proc/self/status; echo $0 $A"
        World.replace_process(
            world, "/bin/sh", ["name", "-c", script], {"A": "b", "PATH": "/usr/bin:/bin"}
        )

    assert ended(in_child(work)) == 0
    core, ignored, name, *_ = (home / "out").read_text().splitlines()
    assert core in (("0",) if hard == 0 else ("1", "2"))  # in blocks of 1024 or 512 bytes
    sigpipe_and_sigxfsz = (1 << (signal.SIGPIPE - 1)) | (1 << (signal.SIGXFSZ - 1))
    assert int(ignored.split()[1], 16) & sigpipe_and_sigxfsz == 0
    assert name == "name b"


@pytest.mark.parametrize(
    ("text", "status"), [("#!/no/such/interpreter\n", 127), ("no first line\n", 126)]
)
def test_a_command_that_the_kernel_refuses(world, home, text, status):
    path = home / "script"
    path.write_text(text)
    path.chmod(0o755)

    def work():
        try:
            World.replace_process(world, str(path), ["script"], {})
        except AwsVaultError as error:
            return error.exit_code if "script" in error.message and error.hint else 1

    assert ended(in_child(work)) == status


def test_libraries_see_nothing_of_the_persons_aws_settings(home, monkeypatch):
    monkeypatch.setenv("AWS_PROFILE", "outside")
    world = FakeWorld(
        home,
        {
            "AWS_PROFILE": "x",
            "BOTO_CONFIG": "x",
            "_AWS_X": "x",
            "HTTPS_PROXY": "proxy",
            "NO_PROXY": "x",
        },
    )
    before = dict(os.environ)
    seen = {}

    def fail_inside():
        with world.library_environment():
            seen.update(os.environ)
            raise KeyError

    with pytest.raises(KeyError):
        fail_inside()
    names = {name for name in seen if name.startswith(("AWS", "BOTO", "_AWS"))}
    assert names == {"AWS_CONFIG_FILE", "AWS_SHARED_CREDENTIALS_FILE", "AWS_EC2_METADATA_DISABLED"}
    assert seen["HTTPS_PROXY"] == "proxy"
    assert dict(os.environ) == before


# -- the terminal --------------------------------------------------------------------------


def asking(home, call, **streams):
    """A program on a pseudo terminal that prints what `call` of a World returns."""
    code = f"""
import sys; sys.path.insert(0, {str(ROOT)!r})
import awsvault
world = awsvault.World()
try:
    print("got", repr(world.{call}.reveal()), flush=True)
except awsvault.AwsVaultError as error:
    print("error", error.exit_code, error.message, error.hint, flush=True)
except awsvault.Ended as end:
    print("error", end.exit_code, end, flush=True)
except KeyboardInterrupt:
    print("interrupted", flush=True)
"""
    return Terminal(
        [sys.executable, "-c", code], env={"HOME": str(home), "PATH": "/usr/bin:/bin"}, **streams
    )


def test_a_question_is_asked_and_answered(home):
    with asking(home, "ask('MFA code for jon', instead='x')") as terminal:
        terminal.expect("MFA code for jon: ")
        assert terminal.echoing()
        terminal.send_line("123456")
        terminal.expect("got '123456'")
        assert terminal.wait() == 0
        assert terminal.modes_restored()


def test_a_hidden_answer_is_not_shown(home):
    with asking(home, "ask('Passphrase', hidden=True, instead='x')") as terminal:
        terminal.expect("Passphrase: ")
        assert not terminal.echoing()
        terminal.send_line("hidden words")
        terminal.expect("got ")
        assert terminal.wait() == 0
        assert terminal.screen.count("hidden words") == 1, "only the test's own print shows it"
        assert terminal.screen.startswith("Passphrase: \ngot")
        assert terminal.modes_restored()


@pytest.mark.parametrize("hidden", [True, False])
@pytest.mark.parametrize(
    ("act", "says"),
    [
        (lambda terminal: terminal.interrupt(), "interrupted"),
        (lambda terminal: terminal.send(END), "error 1 the question was left unanswered"),
        (lambda terminal: os.kill(terminal.pid, signal.SIGTERM), "error 143 ended by signal 15"),
        (lambda terminal: os.kill(terminal.pid, signal.SIGHUP), "error 129 ended by signal 1"),
        (lambda terminal: os.kill(terminal.pid, signal.SIGQUIT), "error 131 ended by signal 3"),
    ],
    ids=["Ctrl-C", "Ctrl-D", "SIGTERM", "SIGHUP", "SIGQUIT"],
)
def test_the_terminal_is_as_it_was_whatever_ends_the_question(home, act, says, hidden):
    with asking(home, f"ask('Passphrase', hidden={hidden}, instead='x')") as terminal:
        terminal.expect("Passphrase: ")
        act(terminal)
        terminal.expect(says)
        assert terminal.wait() == 0
        assert terminal.modes_restored()


def test_a_question_has_a_time_limit(home):
    with asking(home, "ask('Passphrase', hidden=True, timeout=0.2, instead='x')") as terminal:
        terminal.expect("error 1 nobody answered within")
        assert terminal.wait() == 0
        assert terminal.modes_restored()


def test_a_question_leaves_standard_input_and_output_alone(home):
    with asking(
        home,
        "ask('Passphrase', hidden=True, instead='x')",
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
    ) as terminal:
        terminal.process.stdin.write(b"not this\n")
        terminal.process.stdin.flush()
        terminal.expect("Passphrase: ")
        terminal.send_line("this")
        assert terminal.process.stdout.readline() == b"got 'this'\n"
        assert terminal.wait() == 0


def test_without_a_terminal_exit_3_names_what_would_do(home):
    done = subprocess.run(
        [sys.executable, "-c", f"import sys; sys.path.insert(0, {str(ROOT)!r}); import awsvault; awsvault.World().ask('Code', instead='give --mfa-token')"],
        capture_output=True, text=True, start_new_session=True, env={"HOME": str(home)},
    )  # fmt: skip
    assert "NeedsUser: Code: there is no terminal to ask on" in done.stderr
    world = World()
    world.may_ask = False
    with pytest.raises(NeedsUser, match="--no-input forbids asking") as caught:
        world.ask("Code", instead="give --mfa-token")
    assert (caught.value.exit_code, caught.value.hint) == (3, "give --mfa-token")
    assert not world.can_ask()


# -- the end of main ---------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("error", "status", "says"),
    [
        (KeyboardInterrupt(), 130, ["error: interrupted"]),
        (
            ValueError("dummy/secret"),
            70,
            [
                "error: a bug in awsvault: ValueError",
                "hint: run it with --debug and report what it prints",
            ],
        ),
        (
            OSError(errno.EIO, "Input/output error", "/a\nb"),
            1,
            ["error: /a\\x0ab: input/output error"],
        ),
        (BrokenPipeError(), 141, []),
        (AwsVaultError("what", "do this", 5), 5, ["error: what", "hint: do this"]),
    ],
    ids=lambda value: type(value).__name__ if isinstance(value, BaseException) else "",
)
def test_every_error_is_one_line_a_hint_and_an_exit_code(world, error, status, says):
    world.failures["out"] = error
    assert awsvault.main(["list"], world) == status
    assert world.said == says


# -- what the system refuses ------------------------------------------------------------------------


def test_a_reader_that_is_slow_on_a_non_blocking_pipe_gets_all(world):
    """Node.js makes the pipe that it shares with us non-blocking; it takes 65,536 bytes at once."""
    reader, writer = os.pipe()
    os.set_blocking(writer, False)
    data = bytes(range(256)) * 4096
    with open(reader, "rb") as pipe:
        pid = in_child(lambda: world._write_all(writer, data))
        os.close(writer)
        assert pipe.read() == data
    assert ended(pid) == 0


@pytest.mark.parametrize("refused", ["fork", "open", "pipe"])
def test_a_process_that_can_t_be_started_leaves_no_descriptor(world, monkeypatch, refused):
    real, calls = getattr(os, refused), []

    def refuse(*args):
        calls.append(args)
        if refused == "pipe" and len(calls) == 1:
            return real(*args)
        raise OSError(errno.EMFILE, "too many")

    before = sorted(os.listdir("/proc/self/fd"))
    monkeypatch.setattr(os, refused, refuse)
    with pytest.raises(OSError, match="too many"):
        world.spawn_detached("it", ["/bin/true"], Secret(""), {})
    monkeypatch.undo()
    assert sorted(os.listdir("/proc/self/fd")) == before


@pytest.mark.parametrize("error", [PermissionError(1, "no"), ValueError("not allowed")])
@pytest.mark.parametrize("door", ["getrlimit", "setrlimit"])
def test_limits_that_can_t_be_set_are_left(world, monkeypatch, door, error):
    def refuse(*_):
        raise error

    before = [resource.getrlimit(kind) for kind in (resource.RLIMIT_CORE, resource.RLIMIT_NOFILE)]
    monkeypatch.setattr(resource, door, refuse)
    world.guard_memory()
    world.allow_descriptors(100_000)
    monkeypatch.undo()
    assert world.core_limit is None
    assert before == [
        resource.getrlimit(kind) for kind in (resource.RLIMIT_CORE, resource.RLIMIT_NOFILE)
    ]


@pytest.mark.parametrize("ignored", [False, True])
def test_ctrl_c_in_the_first_milliseconds_shows_no_traceback(home, ignored):
    """The first thing that __main__.py calls gets it; where it is ignored (nohup), the program runs."""
    code = f"""
import os, runpy, signal, sys, types
if {ignored}:
    signal.signal(signal.SIGINT, signal.SIG_IGN)
early = types.ModuleType("gc")
early.set_threshold = lambda *_: os.kill(os.getpid(), signal.SIGINT)
sys.modules["gc"], sys.argv[1:] = early, ["version"]
sys.path.insert(0, {str(ROOT)!r})
runpy.run_path({str(ROOT / "__main__.py")!r}, run_name="__main__")
"""
    done = subprocess.run(
        [sys.executable, "-c", code], env={"HOME": str(home)}, capture_output=True, text=True
    )
    assert done.stderr == ""
    assert done.returncode == (0 if ignored else -signal.SIGINT)
    assert bool(done.stdout) == ignored


def test_ctrl_c_after_the_first_milliseconds_is_said(home):
    code = f"""
import os, runpy, signal, sys
sys.path.insert(0, {str(ROOT)!r})
import awsvault
awsvault.run_line = lambda *_: os.kill(os.getpid(), signal.SIGINT)
runpy.run_path({str(ROOT / "__main__.py")!r}, run_name="__main__")
"""
    done = subprocess.run(
        [sys.executable, "-c", code], env={"HOME": str(home)}, capture_output=True, text=True
    )
    assert (done.returncode, done.stderr) == (130, "awsvault: error: interrupted\n")


def test_no_path_is_not_the_working_folder(tmp_path, monkeypatch):
    """Some server has no folder to remove; abspath("") is the folder where it was started."""
    (tmp_path / "file").write_text("x")
    tmp_path.chmod(0o700)
    monkeypatch.chdir(tmp_path)
    world = awsvault.World()
    world.remove_run_folder("")
    world.remove_leftovers([""])
    assert world.list_folder("") == []
    with pytest.raises(FileNotFoundError):
        world.read_own("", 10)
    assert (tmp_path / "file").exists()


# -- signals that end it --------------------------------------------------------------------------

LOST = """
import os, signal, sys, time
import awsvault

class Late:
    def __del__(self):
        os.kill(os.getpid(), int(sys.argv[1]))

try:
    with awsvault.RaisedSignals():
        Late()
        time.sleep(30)
except (awsvault.Ended, KeyboardInterrupt) as end:
    print(type(end).__name__)
"""


@pytest.mark.parametrize(
    ("number", "raised"), [(signal.SIGTERM, "Ended"), (signal.SIGINT, "KeyboardInterrupt")]
)
def test_a_signal_is_not_lost_where_python_drops_exceptions(number, raised):
    done = subprocess.run(
        [sys.executable, "-c", LOST, str(int(number))],
        cwd=ROOT, capture_output=True, text=True, timeout=20, check=True,
    )  # fmt: skip
    assert (done.stdout, done.stderr) == (f"{raised}\n", "")
