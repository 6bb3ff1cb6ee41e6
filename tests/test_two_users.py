"""Several users of one host: homes that are not ours, folders that others made, sudo."""

from __future__ import annotations

import os
import resource
import shutil
import stat
import subprocess
import sys
import tempfile
from pathlib import Path

import pytest

import awsvault
from tests.conftest import PROGRAM, Cli, arn
from tests.fake_aws import KEY_ID, MFA_SERIAL, SECRET, FakeAws, furnish

KEYS = {"AWS_ACCESS_KEY_ID": KEY_ID, "AWS_SECRET_ACCESS_KEY": SECRET}
TRUE = ("--", "true")
# Each test has users of its own, so that tests at once do not meet in /tmp.
UIDS = {"own": 61001, "foreign": 61002, "taken": 61003, "link": 61004, "real": 61005,
        "config": 61006, "locks": 61007, "sudo": 61008, "memory": 61009, "hidden": 61010,
        "other": 61099}  # fmt: skip


# Another user may be unable to reach the interpreter and the checkout (below /root, say), so he is
# lent the right to read everything; what is tested here is who writes what, and whose it is.
READING = ["--inh-caps=+dac_read_search", "--ambient-caps=+dac_read_search"]
SETPRIV = shutil.which("setpriv")


def become(uid, *options):
    """The start of a command line that goes on as this user."""
    return [SETPRIV, f"--reuid={uid}", f"--regid={uid}", "--clear-groups", *options, "--"]


def can_become():
    if os.geteuid() != 0 or SETPRIV is None:
        return False
    line = [*become(UIDS["other"], *READING), sys.executable, "-c", "pass"]
    return subprocess.run(line, capture_output=True, check=False).returncode == 0


pytestmark = pytest.mark.skipif(not can_become(), reason="becoming another user is root's")


class Product(Cli):
    """The product, run by a user whom each line names."""

    def popen(self, *args, uid=0, **options):
        program = self.program
        if uid:
            self.program = [*become(uid, *READING), *program]
        try:
            return super().popen(*args, **{"cwd": "/", **options})
        finally:
            self.program = program


@pytest.fixture
def world():
    """A folder that everybody can reach."""
    folder = Path(tempfile.mkdtemp(prefix="awsvault-test-"))
    folder.chmod(0o755)
    yield folder
    shutil.rmtree(folder)


@pytest.fixture
def product(world):
    """The product, to be run with a HOME below `world`; `home(uid)` makes one."""
    with FakeAws() as fake:
        cli = Product(world, furnish(fake).url)
        cli.fake = fake
        yield cli
        cli.close()


def home_of(cli, uid, mode=0o700):
    """Make the home of a user, set HOME to it and return it."""
    home = cli.home / f"home-{uid}"
    home.mkdir()
    os.chown(home, uid, uid)
    home.chmod(mode)
    cli.environ["HOME"] = str(home)
    return home


def tree(folder):
    """Every name below a folder, with what a write would change."""
    found = {}
    for path in [folder, *sorted(folder.rglob("*"))]:
        state = path.lstat()
        found[str(path)] = (state.st_mode, state.st_uid, state.st_mtime_ns, state.st_size)
    return found


@pytest.fixture
def fallback():
    """The folder in /tmp where a user's locks go without a home; as it was, afterwards."""
    made = []

    def path_for(uid):
        path = Path(f"/tmp/awsvault-{uid}")
        assert not path.is_symlink()
        assert not path.exists()
        made.append(path)
        return path

    yield path_for
    for path in made:
        if path.is_symlink():
            path.unlink()
        elif path.exists():
            shutil.rmtree(path)


def test_a_home_of_ones_own(product):
    uid = UIDS["own"]
    home = home_of(product, uid)
    product.run("add", "prod", "--env", env=KEYS, check=0, uid=uid)
    product.run("exec", "prod", *TRUE, check=0, uid=uid)
    for path in [home / ".awsvault", *(home / ".awsvault").rglob("*")]:
        assert path.stat().st_uid == uid
        assert stat.S_IMODE(path.stat().st_mode) == (0o700 if path.is_dir() else 0o600)


def test_nothing_is_written_into_a_foreign_home(product, fallback):
    uid = UIDS["foreign"]
    locks = fallback(uid)
    home = home_of(product, 0, mode=0o777)
    (home / ".aws").mkdir(mode=0o777)
    (home / ".aws").chmod(0o777)
    (home / ".aws" / "config").write_text("[profile prod]\nregion = eu-west-1\n")
    before = tree(home)
    for line in (["add", "prod", "--env"], ["exec", "prod", *TRUE], ["list"], ["clear"]):
        done = product.run(*line, env=KEYS, check=1, uid=uid)
        assert "belongs to another user" in done.err
        assert "sudo -H" in done.err
    # With a vault of one's own it works, and still leaves that home alone.
    vault = product.home / "vault"
    vault.mkdir(mode=0o700)
    os.chown(vault, uid, uid)
    named = ["--file-dir", str(vault)]
    product.run("add", "prod", "--env", *named, env=KEYS, check=0, uid=uid)
    done = product.run("exec", "prod", *named, "--", "printenv", "AWS_REGION", check=0, uid=uid)
    assert done.out == "eu-west-1\n"
    done = product.run("add", "new", "--env", *named, env=KEYS, check=1, uid=uid)
    assert "the keys are stored" in done.err
    assert tree(home) == before
    # The locks are in /tmp, for this user alone.
    assert stat.S_IMODE(locks.stat().st_mode) == 0o700
    assert locks.stat().st_uid == uid
    assert {stat.S_IMODE(path.stat().st_mode) for path in locks.iterdir()} == {0o600}
    assert all(path.parent == vault for path in vault.rglob("*"))


@pytest.mark.parametrize("how", ["folder", "open folder", "link"])
def test_a_lock_folder_that_somebody_else_made_is_not_used(product, fallback, how):
    uid = UIDS["link" if how == "link" else "taken"] + (100 if how == "open folder" else 0)
    locks = fallback(uid)
    trap = product.home / "trap"
    trap.mkdir()
    os.chown(trap, UIDS["other"], UIDS["other"])
    trap.chmod(0o777)
    if how == "link":
        locks.symlink_to(trap)
    else:
        locks.mkdir()
        os.chown(locks, UIDS["other"], UIDS["other"])
        locks.chmod(0o777 if how == "open folder" else 0o755)
    vault = product.home / "vault"
    vault.mkdir(mode=0o700)
    os.chown(vault, uid, uid)
    product.environ.update(
        HOME="/nonesuch", AWS_VAULT_FILE_DIR=str(vault), AWS_CONFIG_FILE="/dev/null"
    )
    done = product.run("add", "prod", "--env", "--no-add-config", env=KEYS, check=0, uid=uid)
    assert done.err.count("no folder for lock files") == 1
    product.run("exec", "prod", *TRUE, check=0, uid=uid)
    assert list(trap.iterdir()) == []
    assert list(locks.iterdir()) == []


def test_a_lock_folder_that_is_a_link_of_our_own_is_not_followed(product, fallback):
    uid = UIDS["link"] + 200
    locks = fallback(uid)
    trap = product.home / "trap"
    trap.mkdir(mode=0o700)
    os.chown(trap, uid, uid)
    locks.symlink_to(trap)
    vault = product.home / "vault"
    vault.mkdir(mode=0o700)
    os.chown(vault, uid, uid)
    product.environ.update(
        HOME="/nonesuch", AWS_VAULT_FILE_DIR=str(vault), AWS_CONFIG_FILE="/dev/null"
    )
    product.run("add", "prod", "--env", "--no-add-config", env=KEYS, check=0, uid=uid)
    assert list(trap.iterdir()) == []


def test_root_by_sudo_in_somebodys_home(product):
    home = home_of(product, UIDS["sudo"])
    before = tree(home)
    sudo = {"SUDO_UID": str(UIDS["sudo"]), "SUDO_USER": "someone"}
    for line in (["add", "prod", "--env"], ["exec", "prod", *TRUE], ["list"]):
        done = product.run(*line, env={**KEYS, **sudo}, check=1)
        assert "belongs to another user" in done.err
    assert tree(home) == before


def test_a_login_as_somebody_by_sudo_is_ordinary(product):
    uid = UIDS["sudo"] + 100
    home_of(product, uid)
    env = {**KEYS, "SUDO_UID": "0", "SUDO_USER": "root"}
    product.run("add", "prod", "--env", env=env, check=0, uid=uid)
    product.run("exec", "prod", *TRUE, env=env, check=0, uid=uid)


def test_another_real_user_than_the_effective_one(product):
    home = home_of(product, 0)
    before = tree(home)
    done = product.run(
        "add", "prod", "--env", env=KEYS, check=1,
        preexec_fn=lambda: os.setresuid(UIDS["real"], 0, 0),
    )  # fmt: skip
    assert "another user" in done.err
    assert tree(home) == before


@pytest.mark.parametrize("owner", ["other", "root", "own"])
def test_whose_config_may_say_what_is_run(product, owner):
    uid = UIDS["config"]
    home = home_of(product, uid)
    product.run("add", "prod", "--env", env=KEYS, check=0, uid=uid)
    config = home / ".aws" / "config"
    config.write_text(f"[profile prod]\nmfa_serial = {MFA_SERIAL}\nmfa_process = echo 123456\n")
    os.chown(config, *[{"other": UIDS["other"], "root": 0, "own": uid}[owner]] * 2)
    config.chmod(0o644)
    done = product.run("exec", "prod", *TRUE, uid=uid)
    if owner == "other":
        assert done.code == 2
        assert "mfa_process: not taken from a file that others can have written" in done.err
        assert product.fake.calls == []
    else:
        assert done.code == 0, done.err


def test_what_chooses_no_program_is_read_from_any_config(product):
    uid = UIDS["config"] + 100
    home = home_of(product, uid)
    product.run("add", "prod", "--env", env=KEYS, check=0, uid=uid)
    config = home / ".aws" / "config"
    config.write_text(f"[profile x]\nsource_profile = prod\nrole_arn = {arn('admin')}\n")
    os.chown(config, UIDS["other"], UIDS["other"])
    config.chmod(0o644)
    product.run("exec", "x", *TRUE, check=0, uid=uid)


def test_nobody_else_can_open_a_lock(product, fallback):
    uid = UIDS["locks"]
    home = home_of(product, uid, mode=0o755)
    program = ["/bin/sh", "-c", 'umask 000; exec "$@"', "sh", *product.program]
    product.program = program
    product.run("add", "prod", "--env", env=KEYS, check=0, uid=uid)
    product.run("exec", "prod", *TRUE, check=0, uid=uid)
    files = list((home / ".awsvault" / "locks").iterdir())
    assert files
    for path in files:
        line = [*become(UIDS["other"]), "cat", str(path)]
        tried = subprocess.run(line, capture_output=True, check=False)
        assert b"Permission denied" in tried.stderr


# How often each race is run; AWSVAULT_TEST_ROUNDS=1000 is for a change to World's folders.
ROUNDS = int(os.environ.get("AWSVAULT_TEST_ROUNDS", "4"))
# Exchanges a folder of its user's in /tmp with a link, again and again, until its parent ends.
SWAP = """
import os, sys
place, target = sys.argv[1:]
parent = os.getppid()
while os.getppid() == parent:
    os.rename(place, place + ".away")
    os.symlink(target, place)
    os.unlink(place)
    os.rename(place + ".away", place)
"""


@pytest.fixture
def victim(product, fallback):
    """A user with a vault and without a home, and the folder in /tmp that is his by its name."""

    def made(uid):
        vault = product.home / "vault"
        vault.mkdir(mode=0o700)
        os.chown(vault, uid, uid)
        product.environ.update(HOME="/nonesuch", AWS_VAULT_FILE_DIR=str(vault))
        product.environ.update(AWS_CONFIG_FILE="/dev/null", AWS_REGION="eu-west-1")
        product.run("add", "prod", "--env", "--no-add-config", env=KEYS, check=0, uid=uid)
        place = Path(f"/tmp/awsvault-{uid}")
        shutil.rmtree(place, ignore_errors=True)
        return fallback(uid)

    return made


def give(path, uid, mode):
    """Make a folder of a user's."""
    path.mkdir()
    os.chown(path, uid, uid)
    path.chmod(mode)
    return path


@pytest.mark.parametrize("mode", ["--process", "--server"])
def test_a_folder_for_the_commands_files_that_another_user_made_is_refused(product, victim, mode):
    uid = 61020 + (mode == "--server")
    place = give(victim(uid), UIDS["other"], 0o777)
    line = ["--server"] if mode == "--server" else ["--process", "prod"]
    words = [*line, "prod"] if mode == "--server" else line
    done = product.run("exec", *words, *TRUE, check=1, uid=uid)
    assert "no folder for the command's files can be made" in done.err
    assert f"belongs to user {UIDS['other']}" in done.err
    assert "hint: set HOME to a folder of your own" in done.err
    assert list(place.iterdir()) == []


def test_what_is_swept_is_never_in_a_folder_that_another_user_exchanges(product, victim):
    uid, other = 61022, UIDS["other"]
    place = give(victim(uid), other, 0o777)
    home = home_of(product, uid)
    treasure = give(home / "treasure", uid, 0o700)
    ended = f"1-1.{awsvault.World()._pid_namespace_id()}"
    folder = give(give(treasure / "run", uid, 0o700) / ended, uid, 0o700)
    (folder / "letter").write_text("dear reader")
    os.chown(folder / "letter", uid, uid)
    product.environ["AWS_VAULT_FILE_DIR"] = str(product.home / "vault")
    before = tree(treasure)
    swapper = subprocess.Popen(
        [*become(other, *READING), sys.executable, "-c", SWAP, str(place), str(treasure)]
    )
    try:
        for _ in range(ROUNDS):
            product.run("exec", "--process", "prod", *TRUE, check=0, uid=uid)
    finally:
        swapper.kill()
        swapper.wait()
        away = Path(f"{place}.away")
        if away.exists():
            shutil.rmtree(away)
    assert tree(treasure) == before


def test_a_config_is_trusted_by_what_is_read_not_by_its_path(product):
    uid, other = 61023, UIDS["other"]
    home = home_of(product, uid)
    product.run("add", "prod", "--env", env=KEYS, check=0, uid=uid)
    folder = give(product.home / "shared", other, 0o755)
    pipe = folder / "pipe"
    os.mkfifo(pipe, 0o644)
    os.chown(pipe, other, other)
    link = folder / "config"
    link.symlink_to(pipe)
    mark = home / "mark"
    config = (
        f"[profile prod]\nmfa_serial = {MFA_SERIAL}\nmfa_process = echo >> {mark}; echo 123456\n"
    )
    process = product.popen(
        "exec", "prod", *TRUE, uid=uid, env={"AWS_CONFIG_FILE": str(link)}, stdin=subprocess.DEVNULL
    )
    with pipe.open("w") as stream:  # opens once the victim has opened it
        link.unlink()
        link.symlink_to("/etc/passwd")  # root's, as a check by path would find
        stream.write(config)
    _, errors = process.communicate(timeout=60)
    assert process.returncode == 2
    assert "not taken from a file that others can have written" in errors
    assert not mark.exists()


def test_in_another_users_home_nothing_chooses_a_keystore(product):
    home = home_of(product, UIDS["other"])
    data = give(home / ".awsvault", UIDS["other"], 0o700)
    (data / "state.json").write_text('{"version": 1, "backend": "pass"}')
    give(home / ".password-store", UIDS["other"], 0o700)
    (home / ".password-store" / ".gpg-id").write_text("bob\n")
    before = tree(home)
    for backend in (None, "pass", "file"):
        env = {**KEYS, "AWS_VAULT_BACKEND": backend}
        for line in (["add", "prod", "--env"], ["exec", "prod", *TRUE], ["list"]):
            done = product.run(*line, env=env, check=1)
            assert "belongs to another user" in done.err
    assert tree(home) == before


def test_a_data_folder_that_others_can_write_to_is_refused(product):
    uid = 61025
    home = home_of(product, uid, mode=0o755)
    product.run("add", "prod", "--env", env=KEYS, check=0, uid=uid)
    (home / ".awsvault").chmod(0o777)
    env = {"AWS_VAULT_BACKEND": None}
    done = product.run("exec", "prod", *TRUE, env=env, check=1, uid=uid)
    assert f"folder {home}/.awsvault can be written to by others" in done.err
    assert f"hint: chmod go-w {home}/.awsvault" in done.err


# What only a process without root's capabilities meets; prints where the run folder is, or why not.
PLAIN = """
import awsvault, ctypes, hashlib, importlib.util, json, os, sys
uid, separate = os.getuid(), sys.argv[1] == "separate"
spec = importlib.util.spec_from_file_location("entry", "__main__.py")
entry = importlib.util.module_from_spec(spec)
spec.loader.exec_module(entry)
libc = ctypes.CDLL(None, use_errno=True)
if separate:
    if libc.unshare(0x10000000):  # CLONE_NEWUSER, in which root has no uid
        sys.exit("no user namespaces")
    with open("/proc/self/uid_map", "w") as file:
        file.write(f"{uid} {uid} 1")
os.chdir("/")
# PR_CAP_AMBIENT_CLEAR_ALL, then no capability at all: the next two are of capset(2).
libc.prctl(47, 4, 0, 0, 0)
libc.capset((ctypes.c_uint32 * 2)(0x20080522, 0), (ctypes.c_uint32 * 6)())
world = awsvault.World()
try:
    print(world.make_run_folder())
    if not separate:  # there the entry of the .pyz uses no cache
        os.listdir(entry.walk(world.environ["HOME"])[0])
except awsvault.AwsVaultError as error:
    print(error)
"""


def run_plain(uid, home, mode="plain"):
    """What PLAIN prints when this user runs it."""
    line = [*become(uid, *READING), sys.executable, "-c", PLAIN, mode]
    env = {**os.environ, "HOME": str(home)}
    done = subprocess.run(
        line, capture_output=True, text=True, check=False, cwd=PROGRAM.parent, env=env, timeout=30
    )
    if "no user namespaces" in done.stderr:
        pytest.skip(done.stderr)
    assert done.stderr == ""
    return done.stdout


def test_a_folder_above_home_need_not_be_listed(world):
    """Hosts with many users have /home with mode 0711."""
    (world / "home").mkdir()
    home = give(world / "home" / "own", 61026, 0o700)
    (world / "home").chmod(0o711)
    assert run_plain(61026, home).startswith(f"{home}/.awsvault/run/")


def test_another_user_is_not_taken_for_root_in_a_user_namespace(world, fallback):
    """There both have the same uid, that of nobody."""
    uid, other = 61027, UIDS["other"]
    place, target = fallback(uid), give(world / "target", uid, 0o700)
    give(place, other, 0o755)
    (place / "run").symlink_to(target)
    os.chown(place / "run", other, other, follow_symlinks=False)
    assert f"folder {place} belongs to user" in run_plain(uid, "/nonesuch", "separate")
    assert list(target.iterdir()) == []
    # Folders that are root's by their place are passed.
    home = give(world / "own", uid, 0o700)
    os.chown(world, uid, uid)
    assert run_plain(uid, home, "separate").startswith(f"{home}/.awsvault/run/")


# Prints $1, and notes in a file what a process of the same user can open of its parent.
SPY = """#!/bin/sh
for name in environ maps mem; do
    if true < /proc/$PPID/$name; then echo $name; fi
done > $(dirname $0)/notes/$2 2> /dev/null
printf %s "$1"
"""


@pytest.fixture
def spy(world):
    """Such a program; `spy(name)` is what it noted under this name."""
    path = world / "spy"
    path.write_text(SPY)
    path.chmod(0o755)
    notes = world / "notes"
    notes.mkdir()
    notes.chmod(0o777)

    def noted(name):
        return (notes / name).read_text().split()

    noted.path = path
    return noted


@pytest.mark.parametrize(
    "line", [["exec", "prod"], ["exec", "--server", "prod"], ["exec", "--process", "prod"]]
)
def test_memory_can_t_be_read_until_the_command_starts(product, spy, line):
    uid = UIDS["memory"]
    home = home_of(product, uid)
    (home / ".aws").mkdir()
    (home / ".aws" / "config").write_text(
        f"[profile prod]\nmfa_serial = {MFA_SERIAL}\nmfa_process = exec {spy.path} 123456 mfa\n"
    )
    env = {
        "AWS_VAULT_FILE_PASSPHRASE": None,
        "AWS_VAULT_FILE_PASSPHRASE_COMMAND": f"{spy.path} word passphrase",
    }
    product.run("add", "prod", "--env", env={**KEYS, **env}, check=0, uid=uid)
    assert spy("passphrase") == []
    # The command itself is open to this user's debuggers, as without us.
    command = ["--", "/bin/sh", "-c", f"ulimit -S -c; {spy.path} '' command; true"]
    done = product.run(
        *line, *command, env=env, check=0, uid=uid,
        preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_CORE, (1024, 1024)),
    )  # fmt: skip
    assert (spy("passphrase"), spy("mfa")) == ([], [])
    assert "environ" in spy("command")  # Yama may forbid the rest, as it does to gdb
    assert done.out == "2\n"


# Its child, whose memory is guarded, says who it is and waits.
HIDING = """
import awsvault, os, signal
world = awsvault.World()
report, told = os.pipe()
pid = os.fork()
if pid == 0:
    world.guard_memory()
    os.write(told, str(world.life()).encode())
    signal.pause()
life = awsvault.ProcessIdentity.parse(os.read(report, 100).decode())
hidden = not os.path.exists(f"/proc/{pid}")
before = life.is_alive(world)
os.kill(pid, signal.SIGKILL)
os.waitpid(pid, 0)
print(hidden, before, life.is_alive(world))
"""


def test_a_process_that_proc_hides_is_running():
    """With hidepid=2 a process whose memory is guarded is hidden from its own user, too."""
    mount = 'mount -t proc -o hidepid=2 proc /proc 2> /dev/null && exec "$@"'
    hiding = ["unshare", "--mount", "/bin/sh", "-c", mount, "sh"]
    if subprocess.run([*hiding, "true"], capture_output=True, check=False).returncode:
        pytest.skip("this container mounts no /proc")
    line = [*hiding, *become(UIDS["hidden"], *READING), sys.executable, "-c", HIDING]
    done = subprocess.run(
        line, capture_output=True, text=True, check=False, cwd=PROGRAM.parent, timeout=30
    )
    assert done.stdout == "True True False\n", done.stderr
