"""Packing, start-up, the cache and what happens without one."""

from __future__ import annotations

import fcntl
import io
import json
import os
import runpy
import shutil
import signal
import stat
import subprocess
import sys
import tempfile
import time
import zipfile
from pathlib import Path

import pytest

import build_zipapp
from tests.pyz import BUILT, NEW_ENOUGH, PROBE, ROOT, TOO_OLD, build_once, pythons
from tests.terminal import Terminal

NOBODY = 65534
as_root = pytest.mark.skipif(os.geteuid() != 0, reason="needs root, to be two users")
on_linux = pytest.mark.skipif(sys.platform != "linux", reason="Linux only")

USE_LIBRARIES = """
bundle.load_libraries()
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
import botocore.session
session = botocore.session.Session()
client = session.create_client("sts", region_name="eu-west-1", aws_access_key_id="AKIADUMMYEXAMPLE0001",
                               aws_secret_access_key="dummy")
print(len(AESGCM(bytes(32)).encrypt(bytes(12), b"hello", None)), client.meta.endpoint_url)
"""
LIBRARIES_USED = "21 https://sts.eu-west-1.amazonaws.com\n"
SAY = "print('ran', bundle.note)"


class Start:
    """Runs a .pyz with a home of its own and nothing else from outside."""

    def __init__(self, pyz: Path, home: Path, python: str = sys.executable):
        self.pyz, self.home, self.python = pyz, home, python
        self.environ = {"HOME": str(home), "PATH": "/usr/bin:/bin", "TMPDIR": str(home.parent)}

    def argv(self, *args, options=()):
        return [self.python, *options, str(self.pyz), *args]

    def __call__(self, *args, options=(), **keywords):
        """Run it; return (exit status, stdout, stderr)."""
        environ = {**self.environ, **keywords.pop("environ", {})}
        environ = {name: value for name, value in environ.items() if value is not None}
        done = subprocess.run(
            self.argv(*args, options=options),
            env=environ,
            capture_output=True,
            text=True,
            stdin=subprocess.DEVNULL,
            check=False,
            **keywords,
        )
        return done.returncode, done.stdout, done.stderr

    def says(self, code=SAY, **keywords):
        """Run code that must succeed without a word on stderr; return its stdout."""
        status, out, err = self(code, **keywords)
        assert (status, err) == (0, "")
        return out

    @property
    def cache(self):
        return self.home / ".cache" / "awsvault"

    def build_folder(self):
        (folder,) = [p for p in self.cache.iterdir() if len(p.name) == 64]
        return folder

    def tag_folder(self):
        (folder,) = [p for p in self.build_folder().iterdir() if p.is_dir()]
        return folder


@pytest.fixture
def start(probe, tmp_path):
    home = tmp_path / "home"
    home.mkdir()
    return Start(probe, home)


def runs_for_all(python):
    """Tell a Python that is new enough and that nobody, too, can run."""
    code = "import sys; sys.exit(sys.version_info < (3, 9))"
    return (
        os.path.exists(python) and not subprocess.run([python, "-c", code], check=False).returncode
    )


@pytest.fixture
def open_place(probe):
    """A folder that every user may enter, with a copy of the .pyz in it; its Start is a nobody's."""
    python = next(filter(runs_for_all, ("/usr/bin/python3", "/usr/local/bin/python3")), None)
    if python is None:
        pytest.skip("no Python that another user could run")
    folder = Path(tempfile.mkdtemp(dir="/tmp"))
    folder.chmod(0o755)
    shutil.copy(probe, folder / "probe.pyz")
    for name in ("home", "tmp"):
        (folder / name).mkdir()
        os.chown(folder / name, NOBODY, NOBODY)
    start = Start(folder / "probe.pyz", folder / "home", python)
    start.environ["TMPDIR"] = str(folder / "tmp")
    yield start
    shutil.rmtree(folder)


def tree(folder):
    """Every path below a folder with its times and size, to see that nothing was touched."""
    paths = [folder, *sorted(folder.rglob("*"))]
    return [
        (str(p), p.lstat().st_mtime_ns, p.lstat().st_ctime_ns, p.lstat().st_size) for p in paths
    ]


# ---- every Python ------------------------------------------------------------------------------


@pytest.mark.parametrize("version", NEW_ENOUGH)
def test_each_python_unpacks_once_and_then_starts_from_the_cache(probe, tmp_path, version):
    start = Start(probe, tmp_path, pythons()[version])
    assert start.says(USE_LIBRARIES) == LIBRARIES_USED
    before = tree(start.cache)
    assert start.says(USE_LIBRARIES) == LIBRARIES_USED
    assert tree(start.cache) == before
    assert start.says("print(repr(bundle.note), bundle.verify())") == "'' []\n"


@pytest.mark.parametrize("version", NEW_ENOUGH)
def test_the_product_runs_on_each_python(pyz, tmp_path, version):
    start = Start(pyz, tmp_path, pythons()[version])
    status, out, err = start("version", "--json")
    assert (status, err) == (0, "")
    said = json.loads(out)
    assert said["botocore"] == ("1.42.97" if version == "3.9" else said["botocore"])
    assert said["python"].startswith(f"{version}.")
    assert start("version", "--verify")[0] == 0


@pytest.mark.parametrize("version", TOO_OLD)
def test_an_old_python_is_told_which_one_is_needed(probe, tmp_path, version):
    status, out, err = Start(probe, tmp_path, pythons()[version])(SAY)
    lines = err.splitlines()
    assert (status, out, len(lines)) == (1, "", 2)
    assert lines[0] == f"awsvault: error: Python 3.9 or newer is needed, this is {version}"
    assert lines[1].startswith("awsvault: hint: ")


def test_the_file_runs_by_its_shebang_under_any_name(start, tmp_path):
    other = tmp_path / "aws-vault"
    shutil.copy(start.pyz, other)
    path = f"{Path(sys.executable).parent}:/usr/bin:/bin"
    (Path(tmp_path) / "python3").symlink_to(sys.executable)
    done = subprocess.run(
        [other, "print(bundle.path)"],
        env={**start.environ, "PATH": f"{tmp_path}:{path}"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert (done.returncode, done.stdout, done.stderr) == (0, f"{other}\n", "")


# ---- what a start loads ------------------------------------------------------------------------


def test_a_start_from_the_cache_imports_next_to_nothing(start):
    code = "print(*sorted(sys.modules))"
    start.says(code)
    bare = subprocess.run(
        [
            sys.executable,
            "-I",
            "-S",
            "-c",
            "import runpy, pkgutil, sys; print(*sorted(sys.modules))",
        ],
        capture_output=True,
        text=True,
        check=True,
    )
    loaded = set(start.says(code, options=["-I", "-S"]).split()) - set(bare.stdout.split())
    assert loaded <= {"__future__", "awsvault", "build_zipapp", "gc", "runpy", "pkgutil"}


def test_libraries_are_unpacked_when_they_are_asked_for(start):
    start.says()
    assert not (start.tag_folder() / "lib").exists()
    start.says("bundle.load_libraries()")
    assert (start.tag_folder() / "lib" / "cryptography").is_dir()


# Runs while a first start unpacks: the terminal's echo is off, and comes back.
SLOW = """
import os, signal, sys
step = sys.argv.pop()
if step == "signal":
    os.kill(os.getpid(), signal.SIGTERM)
print("asked", flush=True)
print("got", sys.stdin.readline().strip(), flush=True)
"""


@pytest.mark.parametrize("step", ["line", "signal", "interrupt"])
def test_what_is_typed_ahead_while_unpacking_is_not_shown(start, step):
    argv = start.argv(SLOW, step)
    with Terminal(argv, env=start.environ) as terminal:
        if step == "signal":
            assert terminal.wait() == -signal.SIGTERM
        else:
            terminal.expect("asked")
            assert not terminal.echoing()
            terminal.send("typed ahead\r" if step == "line" else "\x03")
            assert terminal.wait() == (0 if step == "line" else 130)
            assert terminal.screen.count("typed ahead") == (step == "line")
        assert terminal.modes_restored()
    with Terminal(argv, env=start.environ) as terminal:
        if step == "line":  # nothing is unpacked any more
            terminal.expect("asked")
            assert terminal.echoing()


def test_pythonpath_is_ignored_and_the_library_stays(start, tmp_path):
    evil = tmp_path / "evil"
    evil.mkdir()
    for name in ("json", "argparse", "cryptography", "fcntl", "zipfile", "hashlib"):
        (evil / f"{name}.py").write_text("print('evil')\n")
    library = os.path.dirname(os.__file__)
    code = "import json, argparse; bundle.load_libraries(); import cryptography, fcntl; print(sys.path)"
    for path in (f"{evil}", f"{evil}:{library}:{library}/lib-dynload", f":{evil}"):
        out = start.says(code, environ={"PYTHONPATH": path}, cwd=evil)
        assert "evil" not in out
        assert str(start.pyz) not in out
        assert library in out


def test_installed_packages_do_not_stand_before_the_vendored_ones(start):
    code = "bundle.load_libraries(); import botocore, cryptography, six; print(botocore.__file__, six.__file__)"
    out = start.says(code)
    assert all(path.startswith(str(start.cache)) for path in out.split())


def test_tracebacks_show_the_lines_of_the_module(start):
    code = "import traceback\ntry:\n    sys.modules['awsvault'].main([], None)\nexcept IndexError:\n    traceback.print_exc(file=sys.stdout)"
    for _ in range(2):
        assert 'exec(argv[0], {"bundle": world.bundle, "sys": sys})' in start.says(code)


# ---- at once, and killed -----------------------------------------------------------------------

# Tells a pipe of each time a process opens the lock, and a file of each rename.
WATCHER = """
import os, sys
def watch(event, args):
    if event == "open" and args[0] == "unpack.lock":
        os.write(int(os.environ["WATCH_PIPE"]), b".")
    if event == "os.rename":
        with open(os.environ["WATCH_LOG"], "a") as log:
            log.write(os.path.basename(args[1]) + "\\n")
sys.addaudithook(watch)
"""


def test_fifty_first_runs_at_once_unpack_once(start, tmp_path):
    (tmp_path / "site").mkdir()
    (tmp_path / "site" / "sitecustomize.py").write_text(WATCHER)
    start.says(
        "bundle.walk(bundle.folder(), make=True)",
        environ={"AWS_VAULT_CACHE_DIR": str(tmp_path / "c")},
    )
    (build,) = (tmp_path / "c").iterdir()
    for path in (p for p in build.iterdir() if p.is_dir()):
        shutil.rmtree(path)
    reader, writer = os.pipe()
    environ = {
        **start.environ,
        "AWS_VAULT_CACHE_DIR": str(tmp_path / "c"),
        "WATCH_PIPE": str(writer),
        "WATCH_LOG": str(tmp_path / "log"),
        "PYTHONPATH": str(tmp_path / "site"),
    }
    with (build / "unpack.lock").open("a") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        processes = [
            subprocess.Popen(
                start.argv(
                    "bundle.load_libraries(); import cryptography; print('ran', bundle.note)"
                ),
                env=environ,
                stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT,
                text=True,
                pass_fds=[writer],
            )
            for _ in range(50)
        ]
        waiting = 0
        while waiting < 50:
            waiting += len(os.read(reader, 50))
    said = {process.communicate()[0] for process in processes}
    os.close(reader)
    os.close(writer)
    assert said == {"ran \n"}
    assert sorted((tmp_path / "log").read_text().split()) == [
        "awsvault.pyc",
        "build_zipapp.pyc",
        "lib",
    ]


@pytest.mark.parametrize("terminal", [True, False])
def test_a_wait_for_unpacking_says_on_a_terminal_for_whom(tmp_path, monkeypatch, terminal):
    folder = os.open(tmp_path, os.O_RDONLY)
    holder, waiter = (build_zipapp.Lock(folder, "unpack.lock") for _ in range(2))
    assert holder.take(0)
    holder.sign()
    said = io.StringIO()
    monkeypatch.setattr(said, "isatty", lambda: terminal, raising=False)
    monkeypatch.setattr(sys, "stderr", said)
    monkeypatch.setattr(build_zipapp, "QUIET_SECONDS", 0.0)
    assert not waiter.take(0.03)
    line = f"awsvault: waiting for process {os.getpid()}, which is unpacking awsvault\n"
    assert said.getvalue() == (line if terminal else "")
    holder.close()
    assert waiter.take(0)
    waiter.close()
    os.close(folder)


# Dies at the n-th change to the cache.
KILLER = """
import os, sys
left = int(os.environ["DIE_AT"])
def watch(event, args):
    global left
    writes = event == "open" and isinstance(args[2], int) and args[2] & (os.O_WRONLY | os.O_RDWR)
    if event in ("os.mkdir", "os.rename") or writes:
        left -= 1
        if left == 0:
            os.kill(os.getpid(), 9)
sys.addaudithook(watch)
"""


@pytest.mark.parametrize("at", range(1, 13))
def test_a_killed_first_start_leaves_nothing_that_is_trusted(start, tmp_path, at):
    (tmp_path / "site").mkdir()
    (tmp_path / "site" / "sitecustomize.py").write_text(KILLER)
    environ = {"DIE_AT": str(at), "PYTHONPATH": str(tmp_path / "site")}
    assert start("pass", environ=environ)[0] in (0, -signal.SIGKILL)
    for _ in range(2):
        assert start.says("print(bundle.note, bundle.verify())") == " []\n"
    assert not [p for p in start.cache.rglob("*") if p.name.startswith(".tmp-")]


@pytest.mark.parametrize("at", [1, 2, 3, 40, 200, 300])
def test_killed_unpacking_of_the_libraries_leaves_nothing_that_is_trusted(start, tmp_path, at):
    (tmp_path / "site").mkdir()
    (tmp_path / "site" / "sitecustomize.py").write_text(KILLER)
    start.says()
    environ = {"DIE_AT": str(at), "PYTHONPATH": str(tmp_path / "site")}
    assert start("bundle.load_libraries()", environ=environ)[0] == -signal.SIGKILL
    assert start.says(USE_LIBRARIES) == LIBRARIES_USED
    assert start.says("print(bundle.note, bundle.verify())") == " []\n"
    assert not [p for p in start.cache.rglob("*") if p.name.startswith(".tmp-")]


def test_the_kills_reach_the_last_step(start, tmp_path):
    (tmp_path / "site").mkdir()
    (tmp_path / "site" / "sitecustomize.py").write_text(KILLER)
    environ = {"PYTHONPATH": str(tmp_path / "site")}
    assert start("pass", environ={**environ, "DIE_AT": "4"})[0] == -signal.SIGKILL
    assert (
        start("bundle.load_libraries()", environ={**environ, "DIE_AT": "100"})[0] == -signal.SIGKILL
    )
    assert start(USE_LIBRARIES, environ={**environ, "DIE_AT": "1000000"})[0] == 0


@pytest.mark.parametrize("damage", [b"", b"\0" * 5000, b"short"])
def test_a_torn_file_in_the_cache_is_made_anew(start, damage):
    start.says()
    module = start.tag_folder() / "awsvault.pyc"
    whole = module.read_bytes()
    module.write_bytes(damage)
    assert start.says() == "ran \n"
    assert module.read_bytes() == whole


# ---- whose folder it may be --------------------------------------------------------------------


def poison(start):
    """Fill the cache, then make its module say so; return the module's path."""
    start.says("bundle.load_libraries()")
    module = start.tag_folder() / "awsvault.pyc"
    evil = build_zipapp.compiled(
        PROBE.replace("exec(", "print('evil') or exec(").encode(), "awsvault.py"
    )
    module.write_bytes(evil)
    assert start.says() == "evil\nran \n"
    return module


def test_what_others_could_have_changed_is_not_run(start):
    module = poison(start)
    for path in (module.parent, module.parent.parent, start.cache, start.home / ".cache"):
        path.chmod(0o770)
        out = start.says()
        assert out.startswith("ran no cache: ") and "evil" not in out
        path.chmod(0o700)
    for mode in (0o640, 0o606, 0o601):
        module.chmod(mode)
        out = start.says()
        assert out.startswith("ran ") and "evil" not in out
        poison(start)


def test_a_second_name_or_a_link_for_the_module_is_not_run(start, tmp_path):
    module = poison(start)
    os.link(module, tmp_path / "second")
    assert start.says() == "ran \n"
    poison(start)
    module.rename(tmp_path / "elsewhere")
    module.symlink_to(tmp_path / "elsewhere")
    assert start.says() == "ran \n"
    assert not module.is_symlink()


@as_root
@pytest.mark.parametrize("depth", [0, 1, 2, 3])
def test_folders_and_files_of_another_user_are_not_used(start, depth):
    module = poison(start)
    foreign = [module, *module.parents][depth]
    os.chown(foreign, NOBODY, NOBODY)
    before = tree(foreign)
    out = start.says(USE_LIBRARIES + SAY)
    assert "evil" not in out
    assert out.startswith(LIBRARIES_USED)
    # A file in a folder of ours is replaced; in a folder of somebody else nothing is touched.
    assert depth == 0 or (tree(foreign) == before and "no cache: " in out)


def test_our_own_link_on_the_way_is_followed(start, tmp_path):
    (tmp_path / "linked").symlink_to(start.home)
    assert start.says(environ={"HOME": str(tmp_path / "linked")}) == "ran \n"
    assert start.cache.is_dir()


@as_root
def test_a_link_of_another_user_is_not_followed(start, tmp_path):
    (start.home / ".cache").symlink_to(tmp_path)
    os.chown(start.home / ".cache", NOBODY, NOBODY, follow_symlinks=False)
    before = tree(tmp_path)
    assert start.says().startswith("ran no cache: ")
    assert [entry for entry in tree(tmp_path) if "awsvault" in entry[0]] == []
    assert [path for path, *_ in tree(tmp_path)] == [path for path, *_ in before]


def test_nothing_is_open_to_others_whatever_the_umask(start):
    for umask in (0o000, 0o022, 0o077):
        start.says(USE_LIBRARIES, umask=umask)
        for path in [start.cache.parent, start.cache, *start.cache.rglob("*")]:
            assert stat.S_IMODE(path.lstat().st_mode) == (0o700 if path.is_dir() else 0o600)
        shutil.rmtree(start.home / ".cache")


@as_root
def test_root_with_anothers_home_writes_nothing_there(open_place):
    home = open_place.home
    before = tree(home)
    out = open_place.says(USE_LIBRARIES + SAY)
    assert out.startswith(LIBRARIES_USED + "ran no cache: ")
    assert tree(home) == before
    assert list(Path(open_place.environ["TMPDIR"]).iterdir()) == []


@as_root
def test_anothers_folder_that_is_swapped_is_never_used(open_place, tmp_path):
    """A process of nobody exchanges a good folder for a poisoned one, as fast as it can."""
    home = open_place.home
    swap = (
        "import os, sys\n"
        "a, b = sys.argv[1], sys.argv[2]\n"
        "print(flush=True)\n"
        "while True:\n"
        "    os.rename(a, a + '.x'); os.rename(b, a); os.rename(a, b); os.rename(a + '.x', a)\n"
    )
    good, evil = home / "good", home / "evil"
    open_place.says(environ={"AWS_VAULT_CACHE_DIR": str(good), "HOME": None}, user=NOBODY)
    shutil.copytree(good, evil)
    for path in evil.rglob("awsvault.pyc"):
        path.write_bytes(b"evil")
    for path in [evil, *evil.rglob("*")]:
        os.chown(path, NOBODY, NOBODY)
    swapper = subprocess.Popen(
        [open_place.python, "-c", swap, str(good), str(evil)], user=NOBODY, stdout=subprocess.PIPE
    )
    try:
        swapper.stdout.readline()
        main = runpy.run_path(str(ROOT / "__main__.py"), run_name="start")
        refused = 0
        for _ in range(1000):
            try:
                main["walk"](str(good), True)
            except OSError:
                refused += 1
        environ = {"AWS_VAULT_CACHE_DIR": str(good), "HOME": None}
        assert all(open_place.says(environ=environ).startswith("ran no cache") for _ in range(10))
    finally:
        swapper.kill()
        swapper.wait()
    assert refused == 1000
    assert not [p for p in home.rglob("*") if p.lstat().st_uid == 0]


@as_root
def test_a_real_uid_that_differs_means_no_cache(open_place):
    os.chown(open_place.home, 0, 0)
    out = open_place.says(preexec_fn=lambda: os.setresuid(NOBODY, 0, 0))
    assert out.startswith("ran no cache: ")
    assert list(open_place.home.iterdir()) == []


# ---- without a cache ---------------------------------------------------------------------------


@as_root
def test_a_home_that_is_read_only(open_place):
    open_place.home.chmod(0o555)
    out = open_place.says(USE_LIBRARIES + SAY, user=NOBODY)
    assert out.startswith(LIBRARIES_USED + "ran no cache: ")
    assert list(Path(open_place.environ["TMPDIR"]).iterdir()) == []


@pytest.mark.parametrize("home", [None, "/nonexistent/home", "relative", ""])
def test_a_home_that_is_missing(start, home):
    out = start.says(USE_LIBRARIES + SAY, environ={"HOME": home}, cwd=start.home)
    assert out.startswith(LIBRARIES_USED + "ran no cache: ")
    assert list(start.home.iterdir()) == []


@pytest.mark.parametrize(
    ("environ", "place"),
    [
        ({"XDG_CACHE_HOME": "{}/xdg"}, "xdg/awsvault"),
        ({"XDG_CACHE_HOME": "relative"}, "home/.cache/awsvault"),
        ({"AWS_VAULT_CACHE_DIR": "{}/named", "XDG_CACHE_HOME": "{}/xdg"}, "named"),
        ({"AWS_VAULT_CACHE_DIR": ""}, "home/.cache/awsvault"),
    ],
)
@on_linux
def test_where_the_cache_is(start, tmp_path, environ, place):
    environ = {name: value.format(tmp_path) for name, value in environ.items()}
    assert start.says(environ=environ, cwd=start.home) == "ran \n"
    assert (tmp_path / place).is_dir()
    assert {p.name for p in tmp_path.iterdir()} == {"home", place.split("/")[0]}


def in_a_mount(start, options, *code):
    """Run code, one start each, with a file system of its own at home; return all output."""
    runs = " && ".join(f"'{sys.executable}' '{start.pyz}' \"$CODE{i}\"" for i in range(len(code)))
    script = f"mount -t tmpfs -o {options} tmpfs '{start.home}' && {runs}"
    environ = {**start.environ, **{f"CODE{i}": text for i, text in enumerate(code)}}
    done = subprocess.run(
        ["unshare", "-m", "sh", "-c", script],
        env=environ,
        capture_output=True,
        text=True,
        check=False,
    )
    if "unshare failed" in done.stderr or "mount:" in done.stderr:
        pytest.skip("no mount namespace here")
    assert (done.returncode, done.stderr) == (0, "")
    return done.stdout


@as_root
@on_linux
def test_a_mount_without_native_code(start):
    where = "import cryptography.hazmat.bindings._rust as rust; print(rust.__file__, bundle.note)"
    out = in_a_mount(start, "noexec,mode=700", USE_LIBRARIES + where, USE_LIBRARIES + where)
    lines = out.splitlines()
    assert lines[0] == lines[2] == LIBRARIES_USED.strip()
    assert lines[1].startswith("/proc/self/fd/") and lines[3].startswith("/proc/self/fd/")


@as_root
@on_linux
@pytest.mark.parametrize("size", ["size=64k", "size=1m", "size=3m", "nr_inodes=3", "nr_inodes=50"])
def test_a_disk_that_fills_up_while_unpacking(start, size):
    left = "import glob; print(glob.glob(bundle.root + '/*/*/.tmp*'))"
    out = in_a_mount(start, f"{size},mode=700", USE_LIBRARIES + left, USE_LIBRARIES + left)
    assert out == (LIBRARIES_USED + "[]\n") * 2


@on_linux
def test_memory_files_are_sealed(start):
    code = USE_LIBRARIES + (
        "import _cffi_backend, fcntl, os\n"
        "fd = int(_cffi_backend.__file__.rpartition('/')[2])\n"
        "print(fcntl.fcntl(fd, fcntl.F_GET_SEALS))\n"
        "try:\n    os.write(fd, b'x')\nexcept PermissionError:\n    print('sealed')\n"
    )
    out = start.says(code, environ={"HOME": None})
    assert out == LIBRARIES_USED + "15\nsealed\n"


def test_without_memory_files_native_code_is_in_the_private_folder(start, tmp_path):
    code = "import os\nif hasattr(os, 'memfd_create'): del os.memfd_create\n" + USE_LIBRARIES
    code += "import _cffi_backend; print(_cffi_backend.__file__, bundle.libraries)"
    out = start.says(code, environ={"HOME": None})
    file, folder = out.splitlines()[1].split()
    assert out.startswith(LIBRARIES_USED)
    assert file == f"{folder}/_cffi_backend.so" and folder.startswith(f"{tmp_path}/awsvault-")
    assert not os.path.exists(folder)


def test_the_private_folder_is_gone_before_another_program_runs(start):
    code = USE_LIBRARIES + (
        "import os\nfolder = bundle.libraries\nassert os.stat(folder).st_mode & 0o777 == 0o700\n"
        "sys.stdout.flush()\nbundle.cleanup()\nos.execv('/bin/ls', ['ls', '-d', folder])\n"
    )
    status, out, err = start(code, environ={"HOME": None})
    assert status != 0 and out == LIBRARIES_USED and "No such file" in err


def test_a_fork_may_load_again_after_the_cleanup(start, tmp_path):
    code = USE_LIBRARIES + (
        "import os\nsys.stdout.flush()\nbundle.cleanup()\nbundle.load_libraries()\n"
        "import cryptography.hazmat.primitives.keywrap, cryptography.x509.ocsp; print('again')\n"
    )
    assert start.says(code, environ={"HOME": None}) == LIBRARIES_USED + "again\n"
    assert not list(tmp_path.glob("awsvault-*"))


def test_private_folders_of_killed_processes_are_swept(start, tmp_path):
    killed = "bundle.load_libraries(); print(bundle.libraries, flush=True); import os; os.kill(os.getpid(), 9)"
    folders = [Path(start(killed, environ={"HOME": None})[1].strip()) for _ in range(3)]
    old = time.time() - 7200
    os.utime(folders[0], (old, old))
    os.utime(folders[1], (old, old))
    held = os.open(folders[1], os.O_RDONLY)
    fcntl.flock(held, fcntl.LOCK_EX)
    start.says("bundle.load_libraries()", environ={"HOME": None})
    assert [folder.exists() for folder in folders] == [False, True, True]
    os.close(held)


def test_no_place_for_anything_is_an_error_in_words(start):
    code = (
        "import builtins, os\nreal = os.mkdir\n"
        "def full(path, *args, **keywords): raise OSError(28, 'No space left on device')\n"
        "os.mkdir = full\n"
        "try:\n    bundle.load_libraries()\nexcept ImportError as error:\n    print(error)\n"
    )
    out = start.says(code, environ={"HOME": None})
    assert out.startswith("the libraries can't be unpacked: ") and "TMPDIR" in out
    assert out.count("\n") == 1


# ---- platforms that the file has nothing for ---------------------------------------------------

ELSEWHERE = "bundle.tag = bundle.tag.replace('-cpython-', '-other-cpython-')\n"


def test_a_platform_without_a_wheel_has_botocore_and_a_clear_error_for_the_rest(probe, tmp_path):
    bare = tmp_path / "bare"
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", bare], check=True)
    (tmp_path / "home").mkdir()
    start = Start(probe, tmp_path / "home", str(bare / "bin" / "python"))
    code = ELSEWHERE + (
        "for _ in range(2):\n"
        "    bundle.load_libraries()\n"
        "    import botocore.session\n"
        "    try:\n        import cryptography\n    except ImportError as error:\n        print(error)\n"
    )
    first, second = start.says(code).splitlines()
    assert first == second
    assert "no cryptography for" in first and "keychain, kwallet, secret-service and pass" in first


def test_a_platform_without_a_wheel_uses_an_installed_cryptography(start):
    code = (
        ELSEWHERE
        + "bundle.load_libraries(); import cryptography, botocore; print(cryptography.__file__, botocore.__file__)"
    )
    cryptography, botocore = start.says(code).split()
    assert cryptography.startswith(sys.prefix)
    assert botocore.startswith(str(start.cache)) and "/lib-pure/" in botocore


# ---- old builds --------------------------------------------------------------------------------


@pytest.fixture
def other_build(tmp_path):
    """A .pyz with another content, hence another build id."""
    module = BUILT / "other.py"
    module.write_text(PROBE + "# another\n")
    return build_once(module)


@pytest.mark.parametrize(
    ("days", "held", "kept"), [(13, False, True), (15, False, False), (15, True, True)]
)
def test_a_build_is_swept_when_nothing_used_it_for_14_days(start, other_build, days, held, kept):
    start.says(USE_LIBRARIES)
    old = start.build_folder()
    then = time.time() - days * 86400
    for name in ("awsvault.pyc", "build_zipapp.pyc"):
        os.utime(start.tag_folder() / name, (then, then))
    lock = os.open(old / "use.lock", os.O_RDONLY)
    if held:
        fcntl.flock(lock, fcntl.LOCK_SH)
    Start(other_build, start.home).says()
    os.close(lock)
    assert old.exists() == kept
    assert len(list(start.cache.iterdir())) == 1 + kept


def test_a_start_keeps_its_build_from_being_swept(start, other_build):
    start.says()
    then = time.time() - 20 * 86400
    os.utime(start.tag_folder() / "awsvault.pyc", (then, then))
    start.says()
    old = start.build_folder()
    Start(other_build, start.home).says()
    assert old.exists()


def test_who_has_loaded_the_libraries_holds_them(start, other_build):
    start.says(USE_LIBRARIES)
    then = time.time() - 20 * 86400
    code = (
        "bundle.load_libraries(); print(flush=True); sys.stdin.readline()\n"
        "import botocore.session, cryptography.x509; print('still there')"
    )
    process = subprocess.Popen(
        start.argv(code),
        env=start.environ,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    process.stdout.readline()
    os.utime(start.tag_folder() / "awsvault.pyc", (then, then))
    Start(other_build, start.home).says()
    assert process.communicate("\n")[0] == "still there\n"


# ---- damage ------------------------------------------------------------------------------------


def damaged(pyz, name, folder):
    """A copy of a .pyz with one byte of an entry changed."""
    copy = folder / "damaged.pyz"
    with zipfile.ZipFile(pyz) as archive:
        info = archive.getinfo(name)
    data = bytearray(pyz.read_bytes())
    data[info.header_offset + 30 + len(name) + info.compress_size // 2] ^= 1
    copy.write_bytes(data)
    return copy


def entry_names(pyz):
    with zipfile.ZipFile(pyz) as archive:
        return archive.namelist()


def test_a_damaged_inner_archive_is_refused_in_words(start, tmp_path):
    inner = [name for name in entry_names(start.pyz) if name.startswith("lib/")]
    used = [name for name in inner if "pure-py39" not in name or sys.version_info < (3, 10)]
    used = [name for name in used if "pure-py310" not in name or sys.version_info >= (3, 10)]
    assert len(used) >= 1
    for name in used:
        bad = Start(damaged(start.pyz, name, tmp_path), start.home)
        code = "try:\n    bundle.load_libraries()\nexcept ImportError as error:\n    print(error)"
        out = bad.says(code)
        assert out.startswith("the libraries can't be unpacked: ") and name in out
        assert not (bad.tag_folder() / "lib").exists()
        assert any(
            name in line
            for line in json.loads(bad.says("import json; print(json.dumps(bundle.verify()))"))
        )


def test_a_damaged_module_is_refused_in_words(start, tmp_path):
    status, out, err = Start(damaged(start.pyz, "awsvault.py", tmp_path), start.home)(SAY)
    assert (status, out) == (1, "")
    assert err.startswith("awsvault: error: ") and "awsvault.py" in err and err.count("\n") == 2


def test_an_entry_exchanged_with_its_checksum_is_refused(start, tmp_path):
    other = tmp_path / "exchanged.pyz"
    with zipfile.ZipFile(start.pyz) as old, zipfile.ZipFile(other, "w") as new:
        for info in old.infolist():
            data = old.read(info)
            new.writestr(
                info.filename,
                data.replace(b"exec(", b"eval(") if info.filename == "awsvault.py" else data,
            )
    status, out, err = Start(other, start.home)("print(1)")
    assert (status, out) == (1, "") and "awsvault.py is not what was packed" in err


def test_verify_runs_from_the_zip_and_finds_what_was_changed(pyz, tmp_path):
    start = Start(pyz, tmp_path)
    assert start("version")[0] == 0
    module = start.tag_folder() / "awsvault.pyc"
    module.write_bytes(build_zipapp.compiled(b"raise SystemExit('evil')", "awsvault.py"))
    assert start("version")[0] == 1
    status, _, err = start("version", "--verify")
    assert status == 1
    assert f"{module}: changed" in err


def test_the_hash_of_the_whole_file_is_told(start):
    assert (
        start.says("print(bundle.sha256())") == build_zipapp.sha256(start.pyz.read_bytes()) + "\n"
    )


def test_verify_compares_every_file_of_the_cache(start):
    start.says(USE_LIBRARIES)
    lib = start.tag_folder() / "lib"
    (lib / "six.pyc").write_bytes((lib / "six.pyc").read_bytes()[:-1] + b"\0")
    (lib / "_cffi_backend.so").unlink()
    (lib / "added.pyc").write_bytes(b"")
    found = json.loads(start.says("import json; print(json.dumps(bundle.verify()))"))
    assert sorted(found) == [
        f"{lib}/_cffi_backend.so: missing",
        f"{lib}/added.pyc: added",
        f"{lib}/six.pyc: changed",
    ]


# ---- the builder -------------------------------------------------------------------------------


def test_the_same_inputs_give_the_same_bytes(probe, tmp_path):
    module = tmp_path / "elsewhere.py"
    module.write_text(PROBE)
    environ = {
        "HOME": str(tmp_path),
        "TZ": "Asia/Tokyo",
        "PYTHONHASHSEED": "7",
        "PATH": os.environ["PATH"],
    }
    argv = [
        sys.executable,
        str(ROOT / "build_zipapp.py"),
        "--target",
        "host",
        "--module",
        str(module),
    ]
    done = subprocess.run(
        [*argv, "--output", "out.pyz"],
        cwd=tmp_path,
        env=environ,
        umask=0o077,
        capture_output=True,
        text=True,
        check=True,
    )
    built = tmp_path / "out.pyz"
    assert built.read_bytes() == probe.read_bytes()
    assert os.access(built, os.X_OK)
    size, digest = done.stdout.splitlines()
    assert f"{built.stat().st_size:,} bytes" in size
    assert build_zipapp.sha256(built.read_bytes()) in digest and "zlib" in digest


def test_the_file_holds_no_bytecode_and_nothing_of_the_building_machine(probe):
    with zipfile.ZipFile(probe) as archive:
        assert not [name for name in archive.namelist() if name.endswith(".pyc")]
        assert archive.namelist()[0] == "LICENSES.txt" or "__main__.py" in archive.namelist()
        assert {info.date_time for info in archive.infolist()} == {(1980, 1, 1, 0, 0, 0)}
        texts = [archive.read(name) for name in ("__main__.py", "manifest.json", "LICENSES.txt")]
        assert not [text for text in texts if str(ROOT).encode() in text]
        licences = archive.read("LICENSES.txt").decode()
    for name in (
        "botocore",
        "cryptography",
        "cffi",
        "urllib3",
        "jmespath",
        "six",
        "python_dateutil",
    ):
        assert f"{name}-" in licences


def test_wheels_are_packed_as_published(probe):
    with zipfile.ZipFile(probe) as archive:
        packed = json.loads(archive.read("manifest.json"))
        lock = (ROOT / "requirements" / "runtime.txt").read_text()
        for name in packed["targets"].values():
            digest = build_zipapp.sha256(archive.read(name))
            assert f"sha256:{digest}" in lock
            assert packed["wheels"][os.path.basename(name)] == digest


def test_one_corrupted_wheel_fails_the_build(probe, tmp_path):
    downloads = tmp_path / "wheels"
    shutil.copytree(ROOT / ".build" / "wheels", downloads)
    wheels = [path for path in downloads.glob("*/*.whl") if "six-" in path.name]
    data = bytearray(wheels[0].read_bytes())
    data[len(data) // 2] ^= 1
    wheels[0].write_bytes(data)
    module = BUILT / "probe.py"
    argv = [sys.executable, "build_zipapp.py", "--target", "host", "--module", str(module)]
    argv += ["--downloads", str(downloads), "--output", str(tmp_path / "out.pyz")]
    done = subprocess.run(argv, cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 1
    assert done.stderr.startswith("build_zipapp: error: ") and "six-" in done.stderr
    assert not (tmp_path / "out.pyz").exists()


def wheel_with(path, name, mode=0o644):
    with zipfile.ZipFile(path, "w") as wheel:
        info = zipfile.ZipInfo(name)
        info.external_attr = (mode if mode > 0o7777 else stat.S_IFREG | mode) << 16
        wheel.writestr(info, b"x")
    return str(path)


@pytest.mark.parametrize(
    ("name", "mode"),
    [
        ("../up.py", 0o644),
        ("package/../../up.py", 0o644),
        ("/etc/up.py", 0o644),
        ("a\\..\\b.py", 0o644),
        ("start.pth", 0o644),
        ("package/start.pth", 0o644),
        ("package/link", stat.S_IFLNK | 0o777),
        ("package/fifo", stat.S_IFIFO | 0o644),
    ],
)
def test_what_could_leave_a_wheels_folder_is_refused(tmp_path, name, mode):
    with pytest.raises(build_zipapp.BuildError):
        build_zipapp.read_wheel(wheel_with(tmp_path / "w.whl", name, mode))


def test_a_plain_wheel_is_read(tmp_path):
    assert build_zipapp.read_wheel(wheel_with(tmp_path / "w.whl", "package/x.py")) == {
        "package/x.py": b"x"
    }


@pytest.mark.parametrize(
    ("marker", "python", "true"),
    [
        ("", "3.9.18", True),
        ("python_full_version < '3.10'", "3.9.18", True),
        ("python_full_version < '3.10'", "3.10.0", False),
        ("python_full_version >= '3.10'", "3.15.0", True),
        ("python_full_version > '3.9'", "3.9.18", True),
        ("python_full_version == '3.10.*'", "3.10.0", True),
        ("python_full_version == '3.10.*'", "3.11.0", False),
        (
            "python_full_version >= '3.10' and platform_python_implementation != 'PyPy'",
            "3.11.0",
            True,
        ),
        ("python_full_version < '3.11' and implementation_name == 'pypy'", "3.9.18", False),
    ],
)
def test_markers_are_evaluated_for_another_python(marker, python, true):
    assert build_zipapp.applies(marker, python) is true


def test_a_marker_or_a_line_that_is_not_understood_fails_the_build():
    with pytest.raises(build_zipapp.BuildError):
        build_zipapp.applies("sys_platform == 'win32' or python_version < '3'", "3.9.18")
    with pytest.raises(build_zipapp.BuildError):
        build_zipapp.read_lock("six==1.17.0\n")
    with pytest.raises(build_zipapp.BuildError):
        build_zipapp.read_lock("six>=1.17.0 --hash=sha256:" + "0" * 64 + "\n")


@pytest.mark.parametrize("name", ["runtime", "dev", "awscli", "awsume"])
def test_locks_pin_by_hash_and_name_no_index(name):
    text = (ROOT / "requirements" / f"{name}.txt").read_text()
    assert "://" not in text and "index" not in text and "--find-links" not in text
    assert len(build_zipapp.read_lock(text)) > 5


def test_prose_is_removed_and_a_member_of_that_name_kept():
    model = {
        "documentation": "text",
        "shapes": {"A": {"members": {"documentation": {"shape": "S"}}}},
    }
    assert build_zipapp.without_prose(model) == {
        "shapes": {"A": {"members": {"documentation": {"shape": "S"}}}}
    }


ENDPOINTS = """
import itertools, json
import botocore.session
from botocore.config import Config

REGIONS = ("us-east-1", "eu-central-1", "us-gov-west-1", "cn-north-1", "ap-southeast-5")
found = {}
session = botocore.session.Session()
for service, region, fips, dual in itertools.product(
    ("sts", "iam", "sso", "sso-oidc"), REGIONS, (False, True), (False, True)
):
    try:
        client = session.create_client(
            service, region, aws_access_key_id="AKIADUMMYEXAMPLE0001", aws_secret_access_key="dummy",
            config=Config(use_fips_endpoint=fips, use_dualstack_endpoint=dual),
        )
        builtins = client._resolve_endpoint_ruleset
        name = {"sts": "GetCallerIdentity", "iam": "GetUser", "sso": "Logout", "sso-oidc": "CreateToken"}
        model = client.meta.service_model.operation_model(name[service])
        url = client._resolve_endpoint_ruleset(model, {}, {"client_region": region, "client_config": client.meta.config})
        found[f"{service} {region} {fips} {dual}"] = [client.meta.endpoint_url, url[0]]
    except Exception as error:
        found[f"{service} {region} {fips} {dual}"] = type(error).__name__
print(json.dumps(found))
"""


def test_trimmed_data_gives_the_same_endpoints_as_the_full_one(start):
    full = subprocess.run(
        [sys.executable, "-c", ENDPOINTS],
        env=start.environ,
        capture_output=True,
        text=True,
        check=True,
    )
    trimmed = json.loads(start.says("bundle.load_libraries()\n" + ENDPOINTS))
    assert trimmed == json.loads(full.stdout)
    assert len({str(value) for value in trimmed.values()}) > 30
