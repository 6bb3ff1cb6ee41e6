"""Pack awsvault.py and all it needs into one portable file, and unpack that file where it runs.

The one module that knows the layout of awsvault.pyz; it is an entry of it, too, and what it has of
a start runs from the cache. The zip's entries:

    __main__.py          stored, so that a start needs no zlib; knows the hash of every other entry
    awsvault.py          the module's source
    build_zipapp.py      this file
    manifest.json        what was packed: versions, wheels and their published hashes
    LICENSES.txt         the licences of all that is vendored
    lib/pure-pyXY.zip    one for each generation of Python: botocore, its data trimmed, and urllib3
    lib/cffi-TARGET.zip  _cffi_backend alone, one for each Python
    lib/cryptography-*.whl  one for each target, as published

There is no bytecode in it, no date and no path of the building machine, so the same inputs and the
same zlib give the same bytes. The cache that it is unpacked to, all of it private to its owner:

    ROOT/BUILDID/unpack.lock, use.lock    held while unpacking; shared by whoever uses lib/
    ROOT/BUILDID/TAG/build_zipapp.pyc, awsvault.pyc
    ROOT/BUILDID/TAG/lib/                 everything vendored, compiled, put in place as a whole

usage: build_zipapp.py [--target NAME]... [--output FILE] [--module FILE] [--downloads FOLDER]
       build_zipapp.py --show [--output FILE]
"""

from __future__ import annotations

import marshal
import os
import sys
from importlib.util import MAGIC_NUMBER

TYPE_CHECKING = False
if TYPE_CHECKING:
    import hashlib
    import io
    import json
    import re
    import shutil
    import stat
    import time
    import warnings
    import zipfile
    import zlib
    from collections.abc import Callable, Iterator
    from types import CodeType
    from typing import Any, TypeVar

    Made = TypeVar("Made")

# What only packing and unpacking use: a start from the cache imports none of it.
TOOLS = ("hashlib", "io", "json", "re", "shutil", "stat", "time", "warnings", "zipfile", "zlib")

# pip's names for the platforms that a target's wheels may be made for.
TARGETS = {
    "linux-x86_64-glibc": ("manylinux_2_17_x86_64", "manylinux2014_x86_64"),
    "linux-aarch64-glibc": ("manylinux_2_17_aarch64", "manylinux2014_aarch64"),
    "linux-x86_64-musl": ("musllinux_1_2_x86_64",),
    "linux-aarch64-musl": ("musllinux_1_2_aarch64",),
    "darwin-arm64": ("macosx_11_0_arm64",),
}
# The Pythons that a native module is packed for, as full versions, which markers ask for.
PYTHONS = ("3.9.18", "3.10.0", "3.11.0", "3.12.0", "3.13.0", "3.14.0", "3.15.0")
# Pure packages come in two generations, named by the oldest Python that each is for.
GENERATIONS = {"pure-py39": "3.9.18", "pure-py310": "3.10.0"}
NATIVE = ("cryptography", "cffi")
# cffi's compiler is not needed to load what others have compiled with it.
LEFT_OUT = ("pycparser",)
SERVICES = ("sts", "iam", "sso", "sso-oidc", "signin")
# The names that endpoints.json has for these services.
ENDPOINT_PREFIXES = ("sts", "iam", "portal.sso", "sso", "oidc", "signin")
MAX_BYTES = 30_000_000
UNUSED_DAYS = 14
LOCK_SECONDS = 60
QUIET_SECONDS = 1.0
STALE_SECONDS = 3600

# What a start reads from the cache, and compiles from the zip where there is none.
MODULES = ("build_zipapp", "awsvault")

BACKENDS_WITHOUT = "keychain, kwallet, secret-service and pass work without it"


class BuildError(Exception):
    """What makes a build fail, in words."""


def import_tools() -> None:
    """Import TOOLS into this module, which names them as if it had imported them above."""
    for name in TOOLS:
        globals()[name] = __import__(name)


# ======================================================================
# The start
# ======================================================================
# Every start runs this section, so it does little and imports next to nothing.


class Bundle:
    """The .pyz that runs: where it is, what it holds, and the libraries in it."""

    def __init__(self, start: Any, loader: Any, environ: Any) -> None:
        """Take the module `__main__`, its loader and the environment."""
        self.start, self.loader, self.environ = start, loader, environ
        self.path: str = os.path.abspath(loader.archive)
        self.build_id: str = start.BUILD_ID
        self.pins: dict[str, str] = dict(line.split() for line in start.PINS.splitlines())
        self.root: str = start.cache_root(environ)
        self.tag: str = start.cache_tag()
        # Why there is no cache, in words; "" if there is one.
        self.note = "" if self.root else "no cache: there is no home folder of our own"
        self.libraries = ""
        self.use_lock = -1

    def walk(self, path: str, *, make: bool = False) -> tuple[int, str]:
        """Open a folder that only we and root can change; OSError if it is none."""
        opened: tuple[int, str] = self.start.walk(path, make)
        return opened

    def folder(self, name: str = "") -> str:
        """Return the path of our folder in the cache, or of one in it."""
        return os.path.join(self.root, self.build_id, self.tag, name)

    def load_libraries(self) -> None:
        """Make cryptography and botocore importable; unpack them first if that is yet to be done.

        ImportError, with a line for the user, when they can't be unpacked anywhere.
        """
        if not (self.libraries and os.path.isdir(self.libraries)):
            self.libraries = self.cached_libraries()
        if not self.libraries:
            import_tools()
            SILENCE.begin()
            self.libraries = unpack_libraries(self)
        add_path(self.libraries)

    def cached_libraries(self, name: str = "lib", *, any_mount: bool = False) -> str:
        """Return the cached folder, locked against removal while we live; "" if it can't be used.

        Native code can't be loaded from every mount: such a one is refused unless `any_mount`.
        """
        if not self.root:
            return ""
        import fcntl

        lock = fd = -1
        try:
            fd, path = self.walk(f"{self.root}/{self.build_id}")
            lock = os.open("use.lock", os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC, dir_fd=fd)
            try:
                fcntl.flock(lock, fcntl.LOCK_SH)
            except OSError:
                # A file system without locks: then it can't be swept under one, either.
                pass
            path = f"{path}/{self.tag}/{name}"
            os.close(self.walk(path)[0])
            # Between the two it may have been swept.
            named = os.stat(f"{self.root}/{self.build_id}/use.lock")
            if os.path.samestat(os.fstat(lock), named) and (any_mount or not forbids_code(path)):
                # Open until we end; whoever is exec'd does not inherit it.
                self.use_lock, lock = lock, self.use_lock
                return path
        except OSError:
            pass
        finally:
            for opened in (fd, lock):
                if opened >= 0:
                    os.close(opened)
        return ""

    def manifest(self) -> dict[str, Any]:
        """Return the version of each vendored package by its name, and hashes of what is inside."""
        import_tools()
        return manifest(self)

    def verify(self) -> list[str]:
        """Hash the whole file, compile it again and compare the cache; what is wrong, in words."""
        import_tools()
        return verify(self)

    def sha256(self) -> str:
        """Return the hash of the whole file, as SHA256SUMS has it."""
        import_tools()
        with open(self.path, "rb") as file:
            return sha256(file.read())

    def get_source(self, name: str) -> str:
        """Return the module's source, for the lines of a traceback."""
        source: str = self.loader.get_source(name)
        return source

    def cleanup(self) -> None:
        """Remove the private folder, if one was made, and show again what is typed; to be called
        before execve and at exit."""
        SILENCE.end()
        if PRIVATE.owner == os.getpid():
            remove_private()


class Private:
    """The private folder of a process that has no cache; `owner` is 0 while there is none."""

    def __init__(self) -> None:
        self.path = ""
        self.lock = -1
        self.owner = 0


PRIVATE = Private()


class Silence:
    """A terminal that does not show what is typed ahead while a first run unpacks: a passphrase.

    It lasts until the command starts or the program ends, since the question comes later.
    """

    def __init__(self) -> None:
        self.fd = -1
        self.owner = 0
        self.modes: list[Any] = []

    def begin(self) -> None:
        """Turn echo off, if there is a terminal and this process is in its foreground."""
        if self.owner:
            return
        try:
            self.fd = os.open("/dev/tty", os.O_RDWR | os.O_NOCTTY | os.O_CLOEXEC)
        except OSError:
            return
        import signal
        import termios

        # To change it from the background would stop us.
        if os.tcgetpgrp(self.fd) != os.getpgrp():
            os.close(self.fd)
            return
        self.owner = os.getpid()
        self.modes = termios.tcgetattr(self.fd)
        for number in (signal.SIGTERM, signal.SIGHUP, signal.SIGQUIT):
            if signal.getsignal(number) == signal.SIG_DFL:
                signal.signal(number, self.end_by)
        quiet = [*self.modes[:3], self.modes[3] & ~termios.ECHO, *self.modes[4:]]
        termios.tcsetattr(self.fd, termios.TCSADRAIN, quiet)

    def end_by(self, number: int, _frame: Any) -> None:
        """Leave the terminal as it was when a signal ends this process."""
        self.end()
        signal = sys.modules["signal"]
        signal.signal(number, signal.SIG_DFL)
        os.kill(os.getpid(), number)

    def end(self) -> None:
        """Let the terminal be as it was, in the process that changed it."""
        if self.owner == os.getpid():
            import termios

            termios.tcsetattr(self.fd, termios.TCSADRAIN, self.modes)
            os.close(self.fd)
            self.owner = 0


SILENCE = Silence()


def run(bundle: Bundle, code: CodeType | None, witness: bool) -> int:
    """Make the module `awsvault` and run its main; its exit status.

    Its code is what the cache has, or comes from the zip: always for a `witness` against the cache.
    """
    clean_path()
    if code is None:
        import_tools()
        SILENCE.begin()
        try:
            code = compile_module(bundle) if witness else unpack_module(bundle)
        except OSError as error:
            sys.stderr.write(f"awsvault: error: {error}\nawsvault: hint: copy the file again\n")
            return 1
        finally:
            if code is None:
                SILENCE.end()
    else:
        note_use(bundle.folder("awsvault.pyc"))
    module: Any = type(sys)("awsvault")
    module.__dict__.update(__file__="<awsvault.pyz>/awsvault.py", __loader__=bundle)
    module.__spec__ = type(bundle.start.__spec__)("awsvault", bundle)
    sys.modules["awsvault"] = module
    try:
        exec(code, module.__dict__)
        status: int = module.main(sys.argv[1:], module.World(bundle=bundle))
        return status
    finally:
        bundle.cleanup()


def note_use(path: str) -> None:
    """Keep a file's time at the day it was last used; sweep() looks at it."""
    import time

    try:
        if os.stat(path).st_mtime < time.time() - 86400:
            os.utime(path)
    except OSError:
        pass


def clean_path() -> None:
    """Take the zip and PYTHONPATH off the front of sys.path; the standard library stays."""
    library = os.path.dirname(os.__file__)
    archive = f"python{sys.version_info[0]}{sys.version_info[1]}.zip"
    firsts = [i for i, entry in enumerate(sys.path) if os.path.basename(entry) == archive]
    cut = firsts[-1] if firsts else 1
    # PYTHONPATH may name the library itself, and site has then removed the second of the two.
    kept = (library, os.path.join(library, "lib-dynload"))
    sys.path[:cut] = [entry for entry in sys.path[:cut] if entry in kept]


def add_path(folder: str) -> None:
    """Put a folder behind the standard library and before what is installed."""
    library = os.path.dirname(os.__file__)
    ours = (library, os.path.join(library, "lib-dynload"))
    places = [i for i, entry in enumerate(sys.path) if entry in ours]
    if folder not in sys.path:
        sys.path.insert(places[-1] + 1 if places else 0, folder)


def forbids_code(path: str) -> bool:
    """Tell whether native code can't be loaded from there."""
    return bool(os.statvfs(path).f_flag & getattr(os, "ST_NOEXEC", 8))


# ======================================================================
# Reading the zip, where it runs
# ======================================================================
# Nothing is used before its hash has been compared with the one that `__main__` knows.


def sha256(data: bytes) -> str:
    """Return the hash as lower-case hex."""
    return hashlib.sha256(data).hexdigest()


def entry(bundle: Bundle, name: str) -> bytes:
    """Return an entry of the running .pyz; OSError if it is not what was packed."""
    try:
        with zipfile.ZipFile(bundle.path) as archive:
            data = archive.read(name)
    except (KeyError, zipfile.BadZipFile, zlib.error) as error:
        raise OSError(f"{bundle.path}: {name} can't be read: {error}") from None
    if sha256(data) != bundle.pins.get(name):
        raise OSError(f"{bundle.path}: {name} is not what was packed")
    return data


def native_names(bundle: Bundle) -> tuple[str, str] | None:
    """Return the entries with cryptography and cffi for this platform, None if there are none."""
    target = bundle.tag.partition("-cpython-")[0]
    native = f"lib/cffi-{target}.zip"
    wheels = json.loads(entry(bundle, "manifest.json"))["targets"]
    free_threaded = "t" in getattr(sys, "abiflags", "")
    # Earlier ones have a bug that cryptography's modules run into.
    if target not in wheels or free_threaded or sys.version_info < (3, 9, 2):
        return None
    return (wheels[target], native) if cffi_member(bundle, native) else None


def cffi_member(bundle: Bundle, native: str) -> str:
    """Return the name of this Python's _cffi_backend in its inner archive, "" if it has none."""
    prefix = f"_cffi_backend.cpython-{sys.version_info[0]}{sys.version_info[1]}-"
    with zipfile.ZipFile(io.BytesIO(entry(bundle, native))) as archive:
        return next((name for name in archive.namelist() if name.startswith(prefix)), "")


def generation() -> str:
    """Name the generation of pure packages that this Python can use."""
    return "pure-py39" if sys.version_info < (3, 10) else "pure-py310"


def library_files(bundle: Bundle) -> Iterator[tuple[str, bytes]]:
    """Yield path and content of every file that lib/ is made of, sources as sources.

    Without native modules for this platform, only the pure packages.
    """
    with zipfile.ZipFile(io.BytesIO(entry(bundle, f"lib/{generation()}.zip"))) as archive:
        for name in archive.namelist():
            yield name, archive.read(name)
    names = native_names(bundle)
    if names is None:
        return
    wheel, native = names
    with zipfile.ZipFile(io.BytesIO(entry(bundle, native))) as archive:
        # A musl Python may look for the suffix of glibc; the plain one is looked for by each.
        yield "_cffi_backend.so", archive.read(cffi_member(bundle, native))
    with zipfile.ZipFile(io.BytesIO(entry(bundle, wheel))) as archive:
        for name in archive.namelist():
            # musl's wheels bring the libraries that theirs need, found by RPATH beside them.
            library = name.startswith("cryptography.libs/") and is_native(name)
            if library or (name.startswith("cryptography/") and name.endswith((".py", ".so"))):
                yield name, archive.read(name)


def is_native(path: str) -> bool:
    """Return True for a native module or a library that one needs (`libgcc_s-1a2b.so.1`)."""
    return ".so" in os.path.basename(path)


def compiled(source: bytes, name: str) -> bytes:
    """Return the content of a .pyc that is never compared with its source."""
    code = compile_quietly(source, name)
    return MAGIC_NUMBER + b"\1\0\0\0" + hashlib.sha256(source).digest()[:8] + marshal.dumps(code)


def compile_quietly(source: bytes, name: str) -> CodeType:
    """Compile without the warnings, which are for the authors; the name is no path of anybody."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return compile(source, f"<awsvault.pyz>/{name}", "exec", dont_inherit=True, optimize=0)


def compile_module(bundle: Bundle) -> CodeType:
    """Compile the module from the zip, as on every start without a cache."""
    return compile_quietly(entry(bundle, "awsvault.py"), "awsvault.py")


# ======================================================================
# Unpacking into the cache
# ======================================================================


class Lock:
    """An flock file in a folder that is open; where locking is impossible, nothing is locked."""

    def __init__(self, folder: int, name: str) -> None:
        flags = os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC
        self.folder, self.name = folder, name
        self.fd = os.open(name, flags, 0o600, dir_fd=folder)

    def take(self, seconds: float) -> bool:
        """Lock, waiting so long at most. False if the lock is held, or its file is no more."""
        import errno
        import fcntl

        began, said = time.monotonic(), False
        while True:
            try:
                fcntl.flock(self.fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
                break
            except OSError as error:
                if error.errno not in (errno.EWOULDBLOCK, errno.EINTR):
                    break
            waited = time.monotonic() - began
            if waited >= seconds:
                return False
            if waited >= QUIET_SECONDS and not said:
                said = True
                self.say_who_holds_it()
            time.sleep(0.01)
        try:
            named = os.stat(self.name, dir_fd=self.folder, follow_symlinks=False)
        except OSError:
            return False
        return os.path.samestat(named, os.fstat(self.fd))

    def sign(self) -> None:
        """Write this process's id into the file, for those who wait."""
        try:
            os.pwrite(self.fd, b"%-10d" % os.getpid(), 0)
        except OSError:
            # On a full disk the lock itself still holds.
            return

    def say_who_holds_it(self) -> None:
        """Say on a terminal which process is waited for."""
        if sys.stderr and sys.stderr.isatty():
            pid = os.pread(self.fd, 10, 0).decode("ascii", "replace").strip()
            who = f"process {pid}" if pid.isdecimal() else "another process"
            sys.stderr.write(f"awsvault: waiting for {who}, which is unpacking awsvault\n")

    def close(self) -> None:
        """Unlock; the file stays."""
        os.close(self.fd)


def write_file(path: str, data: bytes) -> None:
    """Write a new file that only we can read, and see it on the disk."""
    flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
    try:
        with open(os.open(path, flags, 0o600), "wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
    except OSError:
        # On a full disk, half a file would be in the way of the next try.
        if os.path.exists(path):
            os.unlink(path)
        raise


def sync_folder(path: str) -> None:
    """See a rename on the disk, where folders can be synced."""
    fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        os.fsync(fd)
    except OSError:
        pass
    finally:
        os.close(fd)


def remove_leftovers(folder: str) -> None:
    """Remove what a killed process has left; to be called under the lock only."""
    for name in os.listdir(folder):
        if name.startswith(".tmp-"):
            path = os.path.join(folder, name)
            if os.path.isdir(path) and not os.path.islink(path):
                shutil.rmtree(path, ignore_errors=True)
            else:
                os.unlink(path)


def under_lock(bundle: Bundle, work: Callable[[str], Made]) -> Made:
    """Return work(folder of our tag), done by one process at a time in a private umask.

    OSError if there is no cache that we may use, the lock can't be had, or the disk is full.
    """
    if not bundle.root:
        raise OSError(bundle.note)
    umask = os.umask(0o077)
    try:
        for _ in range(3):
            build, path = bundle.walk(f"{bundle.root}/{bundle.build_id}", make=True)
            lock = Lock(build, "unpack.lock")
            try:
                if lock.take(LOCK_SECONDS):
                    lock.sign()
                    Lock(build, "use.lock").close()
                    folder, path = bundle.walk(f"{path}/{bundle.tag}", make=True)
                    os.close(folder)
                    return work(path)
            finally:
                lock.close()
                os.close(build)
        raise OSError("its lock is held, or its folder is being removed")
    finally:
        os.umask(umask)


def unpack_module(bundle: Bundle) -> CodeType:
    """Return the module's code after seeing it into the cache, if that can be; then sweep.

    OSError if the file itself is damaged.
    """
    made = {name: compiled(entry(bundle, f"{name}.py"), f"{name}.py") for name in MODULES}
    try:
        under_lock(bundle, lambda folder: put_modules(bundle, folder, made))
        sweep(bundle)
    except OSError as error:
        bundle.note = f"no cache: {error}"
    code: CodeType = marshal.loads(made["awsvault"][16:])
    return code


def put_modules(bundle: Bundle, folder: str, made: dict[str, bytes]) -> None:
    """Make the modules' files in our folder of the cache, unless another process just has."""
    if bundle.start.cached_codes(bundle.root):
        return
    remove_leftovers(folder)
    # The last one is the one that a start reads last.
    for name, data in made.items():
        temporary = os.path.join(folder, f".tmp-{os.getpid()}")
        write_file(temporary, data)
        os.replace(temporary, os.path.join(folder, f"{name}.pyc"))
    sync_folder(folder)


def put_library(bundle: Bundle, folder: str, name: str) -> None:
    """Make lib/ in our folder of the cache, unless it is there, under another name until whole."""
    final = os.path.join(folder, name)
    if os.path.isdir(final):
        return
    remove_leftovers(folder)
    temporary = os.path.join(folder, f".tmp-{os.getpid()}")
    try:
        write_tree(temporary, compiled_files(bundle))
        os.rename(temporary, final)
    finally:
        shutil.rmtree(temporary, ignore_errors=True)
    sync_folder(folder)


def compiled_files(bundle: Bundle) -> Iterator[tuple[str, bytes]]:
    """Yield what the cached lib/ is made of: sources as sourceless .pyc, all else as it is."""
    for name, data in library_files(bundle):
        if name.endswith(".py"):
            yield f"{name}c", compiled(data, name)
        else:
            yield name, data


def write_tree(folder: str, files: Iterator[tuple[str, bytes]]) -> None:
    """Write files, by relative paths, into a new private folder."""
    made = {folder}
    os.mkdir(folder, 0o700)
    for name, data in files:
        path = os.path.join(folder, name)
        for parent in missing_parents(os.path.dirname(path), made):
            os.mkdir(parent, 0o700)
            made.add(parent)
        write_file(path, data)


def missing_parents(path: str, made: set[str]) -> list[str]:
    """Return the folders that are yet to be made for `path` to be one, outermost first."""
    missing = []
    while path not in made:
        missing.append(path)
        path = os.path.dirname(path)
    return missing[::-1]


def sweep(bundle: Bundle) -> None:
    """Remove the builds that nothing has used for 14 days and no process holds."""
    root = bundle.walk(bundle.root)
    try:
        for name in os.listdir(root[1]):
            path = os.path.join(root[1], name)
            if name.startswith(".swept-"):
                shutil.rmtree(path, ignore_errors=True)
            elif re.fullmatch("[0-9a-f]{64}", name) and name != bundle.build_id:
                try:
                    sweep_build(bundle, path)
                except OSError:
                    continue
    finally:
        os.close(root[0])


def sweep_build(bundle: Bundle, path: str) -> None:
    """Remove one build, renamed first: who waits for its lock sees that its file is gone."""
    if time.time() - last_used(path) < UNUSED_DAYS * 86400:
        return
    fd = bundle.walk(path)[0]
    locks = []
    try:
        locks = [Lock(fd, "unpack.lock"), Lock(fd, "use.lock")]
        if all(lock.take(0) for lock in locks):
            root, name = os.path.split(path)
            gone = os.path.join(root, f".swept-{name}-{os.getpid()}")
            os.rename(path, gone)
            shutil.rmtree(gone, ignore_errors=True)
    finally:
        for lock in locks:
            lock.close()
        os.close(fd)


def last_used(path: str) -> float:
    """Return when a build was used, to a day: note_use() sees to it."""
    times = [os.stat(path).st_mtime]
    for tag in os.listdir(path):
        module = os.path.join(path, tag, "awsvault.pyc")
        if os.path.exists(module):
            times.append(os.stat(module).st_mtime)
    return max(times[1:] or times)


# ======================================================================
# The libraries, with a cache or without
# ======================================================================


class MemoryNatives:
    """Finds native modules in sealed memory files: no disk, and no mount that forbids code."""

    def __init__(self) -> None:
        self.paths: dict[str, str] = {}
        self.musl = False

    def find_spec(self, name: str, *_: Any) -> Any:
        """Return the spec of a module that was added, None for all others."""
        if name not in self.paths:
            return None
        import importlib.machinery
        import importlib.util

        loader = importlib.machinery.ExtensionFileLoader(name, self.paths[name])
        return importlib.util.spec_from_file_location(name, self.paths[name], loader=loader)

    def add(self, path: str, data: bytes) -> bool:
        """Take a native module, by its path in lib/. False where there are no memory files.

        On musl there are none for us: a module's RPATH begins at $ORIGIN, which they do not have.
        """
        if self.musl:
            return False
        name = path.partition(".")[0].replace("/", ".")
        try:
            self.paths[name] = self.paths.get(name) or memory_file(name, data)
        except (OSError, AttributeError):
            return False
        if self not in sys.meta_path:
            sys.meta_path.insert(0, self)
        return True


class MissingCryptography:
    """Stands last on sys.meta_path where the file has no cryptography and none is installed."""

    def __init__(self, tag: str) -> None:
        self.tag = tag

    def find_spec(self, name: str, *_: Any) -> Any:
        """Raise ImportError in words for cryptography, return None for all else."""
        if name == "cryptography":
            raise ImportError(
                f"this file has no cryptography for {self.tag}, and none is installed "
                f"({BACKENDS_WITHOUT})"
            )
        return None


NATIVES = MemoryNatives()


def memory_file(name: str, data: bytes) -> str:
    """Return the path of a sealed memory file; it stays open, since its number is its name.

    Unsealed, another process of the same user could rewrite the code in it.
    """
    import fcntl

    flags = os.MFD_CLOEXEC | os.MFD_ALLOW_SEALING
    try:
        # Newer kernels may refuse code in a memory file that does not ask for it (MFD_EXEC).
        fd = os.memfd_create(name, flags | 0x10)
    except OSError:
        fd = os.memfd_create(name, flags)
    with open(fd, "wb", closefd=False) as file:
        file.write(data)
    seals = fcntl.F_SEAL_SEAL | fcntl.F_SEAL_SHRINK | fcntl.F_SEAL_GROW | fcntl.F_SEAL_WRITE
    fcntl.fcntl(fd, fcntl.F_ADD_SEALS, seals)
    path = f"/proc/self/fd/{fd}"
    os.stat(path)
    return path


def unpack_libraries(bundle: Bundle) -> str:
    """Return the folder that makes the libraries importable, unpacked now if need be.

    The cache's, locked against removal; else a private one. ImportError, in words, for neither.
    """
    try:
        complete = native_names(bundle) is not None
        NATIVES.musl = "-musl-" in bundle.tag
        if not complete and not any(isinstance(f, MissingCryptography) for f in sys.meta_path):
            sys.meta_path.append(MissingCryptography(bundle.tag))
        return cached_library(bundle, "lib" if complete else "lib-pure") or private_library(bundle)
    except OSError as error:
        raise ImportError(f"the libraries can't be unpacked: {error}") from None


def cached_library(bundle: Bundle, name: str) -> str:
    """Return the cached folder of that name, made if need be, "" if the cache can't be used."""
    try:
        under_lock(bundle, lambda folder: put_library(bundle, folder, name))
    except OSError as error:
        bundle.note = bundle.note or str(error)
        return ""
    path = bundle.cached_libraries(name, any_mount=True)
    if path and forbids_code(path):
        return path if all(NATIVES.add(*native) for native in native_files(path)) else ""
    return path


def native_files(folder: str) -> Iterator[tuple[str, bytes]]:
    """Yield the native modules of an unpacked folder."""
    for parent, _, names in os.walk(folder):
        for name in names:
            if is_native(name):
                path = os.path.join(parent, name)
                with open(path, "rb") as file:
                    yield os.path.relpath(path, folder), file.read()


def private_library(bundle: Bundle) -> str:
    """Return a private folder with the libraries' sources, to be removed by remove_private().

    OSError if there is no place for one.
    """
    # Python would compile these sources to where PYTHONPYCACHEPREFIX says, or beside them.
    sys.dont_write_bytecode = True
    if PRIVATE.path and not os.path.isdir(PRIVATE.path):
        # Removed by the process that we are a fork of; its modules know it by this path.
        fill_private(bundle, PRIVATE.path)
        return PRIVATE.path
    trouble = "no folder for temporary files"
    for base in private_places(bundle):
        name = f"awsvault-{os.geteuid()}-{os.getpid()}-{os.urandom(8).hex()}"
        try:
            sweep_private(base)
            fill_private(bundle, os.path.join(base, name))
            return PRIVATE.path
        except OSError as error:
            trouble = str(error)
            bundle.cleanup()
    raise OSError(f"{trouble}; set TMPDIR to a folder with 20 MB of room, not mounted noexec")


def private_places(bundle: Bundle) -> Iterator[str]:
    """Yield the folders for temporary files in which nobody else can put his own in our place."""
    named = (bundle.environ.get("TMPDIR"), "/tmp", bundle.environ.get("XDG_RUNTIME_DIR"))
    for base in (*named, "/dev/shm", "/var/tmp"):
        try:
            if base and base.startswith("/"):
                fd, path = bundle.walk(base)
                os.close(fd)
                yield path
        except OSError:
            continue


def fill_private(bundle: Bundle, folder: str) -> None:
    """Make the private folder, locked while we live; native code goes to memory where it can."""
    import fcntl

    os.mkdir(folder, 0o700)
    PRIVATE.path, PRIVATE.owner = folder, os.getpid()
    PRIVATE.lock = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    fcntl.flock(PRIVATE.lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    for name, data in library_files(bundle):
        if is_native(name) and NATIVES.add(name, data):
            continue
        if is_native(name) and forbids_code(folder):
            raise OSError(f"{folder}: native code can't be loaded from there")
        path = os.path.join(folder, name)
        os.makedirs(os.path.dirname(path), 0o700, exist_ok=True)
        with open(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "wb") as file:
            file.write(data)


def remove_private() -> None:
    """Remove the private folder that this process has made."""
    shutil.rmtree(PRIVATE.path, ignore_errors=True)
    PRIVATE.owner = 0
    if PRIVATE.lock >= 0:
        os.close(PRIVATE.lock)
        PRIVATE.lock = -1


def sweep_private(base: str) -> None:
    """Remove private folders of ours whose process was killed: an hour old, their lock free."""
    import fcntl

    for name in os.listdir(base):
        if not name.startswith(f"awsvault-{os.geteuid()}-"):
            continue
        path = os.path.join(base, name)
        try:
            fd = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC)
        except OSError:
            continue
        try:
            found = os.fstat(fd)
            if found.st_uid == os.geteuid() and found.st_mtime < time.time() - STALE_SECONDS:
                fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
                shutil.rmtree(path, ignore_errors=True)
        except OSError:
            pass
        finally:
            os.close(fd)


# ======================================================================
# What is inside, and whether it is intact
# ======================================================================


def manifest(bundle: Bundle) -> dict[str, Any]:
    """Return name -> version of what this Python gets, and `build_id`, `module_sha256`, `zlib`."""
    packed = json.loads(entry(bundle, "manifest.json"))
    return {
        **packed["versions"][generation()],
        "build_id": bundle.build_id,
        "module_sha256": packed["module_sha256"],
        "targets": sorted(packed["targets"]),
        "zlib": packed["zlib"],
    }


def verify(bundle: Bundle) -> list[str]:
    """Hash every entry, compile again and compare the cache; return what is wrong, in words."""
    try:
        return [*verify_file(bundle), *verify_cache(bundle)]
    except (OSError, zipfile.BadZipFile) as error:
        return [str(error)]


def verify_file(bundle: Bundle) -> Iterator[str]:
    """Yield each entry that is not what was packed, is missing or was added."""
    with zipfile.ZipFile(bundle.path) as archive:
        names = archive.namelist()
        for name in sorted({*bundle.pins} ^ {*names} - {"__main__.py"}):
            yield f"{name}: {'missing' if name in bundle.pins else 'added'}"
        for name in bundle.pins:
            if name in names and sha256(archive.read(name)) != bundle.pins[name]:
                yield f"{name}: not what was packed"
        main = archive.read("__main__.py").decode()
    if sealed(blank(main), bundle.pins) != main:
        yield "__main__.py: not what was packed"


def verify_cache(bundle: Bundle) -> Iterator[str]:
    """Yield each file of the cache that is not what its source compiles to."""
    folder = os.path.join(bundle.root, bundle.build_id, bundle.tag)
    if not bundle.root or not os.path.isdir(folder):
        return
    expected = {f"{m}.pyc": compiled(entry(bundle, f"{m}.py"), f"{m}.py") for m in MODULES}
    for name in ("lib", "lib-pure"):
        if os.path.isdir(os.path.join(folder, name)):
            expected.update((f"{name}/{path}", data) for path, data in compiled_files(bundle))
    for parent, _, names in os.walk(folder):
        for name in names:
            path = os.path.join(parent, name)
            with open(path, "rb") as file:
                wanted = expected.pop(os.path.relpath(path, folder), None)
                if wanted is None or not same_content(file.read(), wanted):
                    yield f"{path}: {'added' if wanted is None else 'changed'}"
    # A module that is not there is made at the next start; --verify itself unpacks lib/ alone.
    for name in expected:
        if "/" in name:
            yield f"{os.path.join(folder, name)}: missing"


def same_content(found: bytes, wanted: bytes) -> bool:
    """Compare two files; of bytecode the code objects, since marshal may write one in two ways."""
    if found == wanted:
        return True
    try:
        both = wanted[:4] == MAGIC_NUMBER and found[:16] == wanted[:16]
        return both and bool(marshal.loads(found[16:]) == marshal.loads(wanted[16:]))
    except (ValueError, EOFError, TypeError):
        return False


def blank(main: str) -> str:
    """Return `__main__` without what was filled in."""
    main = re.sub(r'(?m)^BUILD_ID = "[0-9a-f]*"$', 'BUILD_ID = ""', main, count=1)
    return re.sub(r'(?ms)^PINS = """\\\n.*?"""$', 'PINS = ""', main, count=1)


def sealed(main: str, pins: dict[str, str]) -> str:
    """Fill in a blank `__main__`: the hash of each entry, and of those hashes and itself."""
    lines = "".join(f"{name} {pins[name]}\n" for name in sorted(pins))
    build_id = sha256((main + lines).encode())
    main = main.replace('\nBUILD_ID = ""\n', f'\nBUILD_ID = "{build_id}"\n', 1)
    return main.replace('\nPINS = ""\n', f'\nPINS = """\\\n{lines}"""\n', 1)


# ======================================================================
# Packing: wheels
# ======================================================================


class Requirement:
    """One line of a lock: a package at one version, where it applies, and its wheels' hashes."""

    def __init__(self, name: str, version: str, marker: str, hashes: set[str]) -> None:
        self.name, self.version, self.marker, self.hashes = name, version, marker, hashes

    def line(self) -> str:
        """Return it as pip reads it, without its marker, which pip would take for this Python."""
        return " ".join([f"{self.name}=={self.version}", *sorted(self.hashes)])


def read_lock(text: str) -> list[Requirement]:
    """Parse a lock written by `uv pip compile --generate-hashes`; BuildError for anything else."""
    requirements = []
    for line in text.replace("\\\n", " ").splitlines():
        words, _, marker = re.sub(r" +--hash=\S+", "", line).strip().partition(" ; ")
        name, _, version = words.partition("==")
        hashes = set(re.findall(r"--hash=sha256:[0-9a-f]{64}", line))
        if not words or words.startswith("#"):
            continue
        if not re.fullmatch(r"[\w.-]+", name) or not version or not hashes:
            raise BuildError(f"not a pinned requirement with hashes: {line[:80]}")
        requirements.append(Requirement(name, version, marker.strip(), hashes))
    return requirements


def applies(marker: str, python: str) -> bool:
    """Evaluate a marker for a full version of CPython; BuildError for one that we do not know."""
    known = {"platform_python_implementation": "CPython", "implementation_name": "cpython"}
    for part in filter(None, marker.split(" and ")):
        match = re.fullmatch(r"(\w+) (==|!=|<|<=|>|>=) '([^']+)'", part.strip())
        if match and match[1] == "python_full_version":
            true = compare_versions(python, match[2], match[3])
        elif match and match[1] in known and match[2] in ("==", "!="):
            true = (known[match[1]] == match[3]) == (match[2] == "==")
        else:
            raise BuildError(f"a marker that is not understood: {part}")
        if not true:
            return False
    return True


def compare_versions(left: str, operator: str, right: str) -> bool:
    """Compare versions of Python as markers do; `3.10.*` is a prefix."""
    if right.endswith(".*"):
        return f"{left}.".startswith(right[:-1]) == (operator == "==")
    a, b = ([*map(int, version.split(".")), 0, 0][:3] for version in (left, right))
    table = {"<": a < b, "<=": a <= b, ">": a > b, ">=": a >= b, "==": a == b, "!=": a != b}
    return table[operator]


class Downloads:
    """The wheels of the lock, downloaded once into a folder and hashed at each use."""

    def __init__(self, folder: str, requirements: list[Requirement]) -> None:
        self.folder, self.requirements = folder, requirements

    def pinned(self, python: str) -> list[Requirement]:
        """Return what the lock asks for on one Python."""
        return [r for r in self.requirements if applies(r.marker, python)]

    def wheels(self, names: list[str], platforms: tuple[str, ...], python: str) -> list[str]:
        """Return the paths of these packages' wheels for one Python and platform, hash-checked."""
        wanted = [r for r in self.pinned(python) if r.name in names]
        text = "".join(f"{r.line()}\n" for r in wanted)
        key = sha256(repr((text, platforms, python)).encode())[:16]
        folder = os.path.join(self.folder, key)
        if not os.path.isdir(folder):
            self.fetch(text, platforms, python, folder)
        paths = [os.path.join(folder, name) for name in sorted(os.listdir(folder))]
        for requirement in wanted:
            check_wheel(requirement, paths)
        return [path for path in paths if path.endswith(".whl")]

    def fetch(self, text: str, platforms: tuple[str, ...], python: str, folder: str) -> None:
        """Have pip download exactly the pinned wheels; whoever is first puts them in place."""
        import subprocess
        import tempfile

        os.makedirs(self.folder, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=self.folder) as temporary:
            lock, wheels = os.path.join(temporary, "lock.txt"), os.path.join(temporary, "wheels")
            with open(lock, "w", encoding="utf-8") as file:
                file.write(text)
            argv = [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps"]
            argv += ["--disable-pip-version-check", "--only-binary=:all:", "--require-hashes"]
            argv += [f"--platform={platform}" for platform in platforms]
            argv += ["--implementation=cp", f"--python-version={python}"]
            argv += ["--requirement", lock, "--dest", wheels]
            done = subprocess.run(argv, capture_output=True, text=True, check=False)
            if done.returncode:
                raise BuildError(f"pip download for Python {python}: {done.stderr.strip()}")
            try:
                os.rename(wheels, folder)
            except OSError:
                if not os.path.isdir(folder):
                    raise


def check_wheel(requirement: Requirement, paths: list[str]) -> None:
    """Raise BuildError unless there is one wheel of the requirement, and it has a pinned hash."""
    prefix = f"{requirement.name.replace('-', '_')}-{requirement.version}-".lower()
    found = [path for path in paths if os.path.basename(path).lower().startswith(prefix)]
    if len(found) != 1 or not found[0].endswith(".whl"):
        raise BuildError(f"{requirement.name} {requirement.version}: {len(found)} wheels, not one")
    with open(found[0], "rb") as file:
        if f"--hash=sha256:{sha256(file.read())}" not in requirement.hashes:
            raise BuildError(f"{found[0]}: not the wheel that is pinned; remove it to try again")


def read_wheel(path: str) -> dict[str, bytes]:
    """Return a wheel's files. BuildError for what could leave its folder or run by being there."""
    files: dict[str, bytes] = {}
    with zipfile.ZipFile(path) as wheel:
        for info in wheel.infolist():
            name = info.filename
            if name.startswith("/") or "\\" in name or ".." in name.split("/"):
                raise BuildError(f"{path}: {name!r} is outside of it")
            if stat.S_IFMT(info.external_attr >> 16) not in (0, stat.S_IFREG, stat.S_IFDIR):
                raise BuildError(f"{path}: {name} is a link")
            if name.endswith(".pth") or name in files:
                raise BuildError(f"{path}: {name} is not taken from a wheel")
            if not info.is_dir():
                files[name] = wheel.read(info)
    return files


# ======================================================================
# Packing: what is taken from them
# ======================================================================


def pure_files(files: dict[str, bytes]) -> dict[str, bytes]:
    """Return what a pure package needs at run time, botocore's data trimmed to our services."""
    kept = {}
    for name, data in files.items():
        if name.startswith("botocore/data/"):
            kept.update(botocore_data(name, data))
        elif name.endswith((".py", ".pem", ".json")) and not re.match(r"[^/]+\.\w+(-info)?/", name):
            kept[name] = data
    return kept


def botocore_data(name: str, data: bytes) -> dict[str, bytes]:
    """Return one of botocore's data files without prose and unzipped, nothing if not needed."""
    import gzip

    service, _, rest = name[len("botocore/data/") :].partition("/")
    if rest and (service not in SERVICES or "examples" in rest):
        return {}
    if name.endswith(".gz"):
        name, data = name[: -len(".gz")], gzip.decompress(data)
    content = without_prose(json.loads(data))
    if service == "endpoints.json":
        for partition in content["partitions"]:
            services = partition["services"]
            partition["services"] = {p: services[p] for p in services if p in ENDPOINT_PREFIXES}
    return {name: json.dumps(content, separators=(",", ":")).encode()}


def without_prose(content: Any) -> Any:
    """Return a service model without its documentation; a member of that name is kept."""
    if isinstance(content, list):
        return [without_prose(value) for value in content]
    if not isinstance(content, dict):
        return content
    prose = [k for k, v in content.items() if k == "documentation" and isinstance(v, str)]
    return {k: without_prose(v) for k, v in content.items() if k not in prose}


def licences(wheel: str, files: dict[str, bytes]) -> str:
    """Return the licence files of a wheel, each under a heading."""
    pattern = r"[^/]+\.dist-info/(licenses/)?(.*/)?(LICEN[CS]E|COPYING|NOTICE)[^/]*"
    return "".join(
        f"{'=' * 70}\n{os.path.basename(wheel)}: {name}\n{'=' * 70}\n"
        + files[name].decode("utf-8", "replace")
        + "\n"
        for name in sorted(files)
        if re.fullmatch(pattern, name)
    )


class Packer:
    """Gathers the entries of the zip, the versions and the licences, from the wheels."""

    def __init__(self, downloads: Downloads, targets: list[str]) -> None:
        self.downloads, self.targets = downloads, targets
        self.entries: dict[str, bytes] = {}
        self.texts: dict[str, str] = {}
        self.wheels: dict[str, str] = {}
        self.cryptography: dict[str, str] = {}

    def read(self, path: str) -> dict[str, bytes]:
        """Read a wheel and note its hash and licences."""
        files = read_wheel(path)
        with open(path, "rb") as file:
            self.wheels[os.path.basename(path)] = sha256(file.read())
        name = os.path.basename(path).split("-")[0]
        text = licences(path, files)
        # Wheels of one package differ in platform, not in licence.
        self.texts.setdefault(name, text)
        return files

    def fetch_all(self) -> None:
        """Download what is missing, several at once: pip spends its time waiting."""
        from concurrent.futures import ThreadPoolExecutor

        jobs = [self.pure_job(python) for python in GENERATIONS.values()]
        jobs += [self.native_job(t, python) for t in self.targets for python in PYTHONS]
        with ThreadPoolExecutor(4) as pool:
            for done in [pool.submit(self.downloads.wheels, *job) for job in jobs]:
                done.result()

    def pure_job(self, python: str) -> tuple[list[str], tuple[str, ...], str]:
        """Return what to download for a generation of pure packages."""
        left_out = (*NATIVE, *LEFT_OUT)
        names = [r.name for r in self.downloads.pinned(python) if r.name not in left_out]
        return names, TARGETS["linux-x86_64-glibc"], python

    def native_job(self, target: str, python: str) -> tuple[list[str], tuple[str, ...], str]:
        """Return what to download for a target and one Python: one cryptography serves them all."""
        return [*NATIVE] if python == PYTHONS[0] else ["cffi"], TARGETS[target], python

    def pack_pure(self) -> None:
        """Add an inner archive for each generation."""
        for name, python in GENERATIONS.items():
            files: dict[str, bytes] = {}
            for path in self.downloads.wheels(*self.pure_job(python)):
                files.update(pure_files(self.read(path)))
            self.entries[f"lib/{name}.zip"] = zipped(files)

    def pack_native(self, target: str) -> None:
        """Add a target's cryptography as published, and its _cffi_backend for each Python."""
        backends: dict[str, bytes] = {}
        for python in PYTHONS:
            for path in self.downloads.wheels(*self.native_job(target, python)):
                files = self.read(path)
                if os.path.basename(path).startswith("cryptography-"):
                    self.cryptography[target] = f"lib/{os.path.basename(path)}"
                    with open(path, "rb") as file:
                        self.entries[self.cryptography[target]] = file.read()
                else:
                    backends.update((n, files[n]) for n in files if n.startswith("_cffi_backend."))
        if len(backends) != len(PYTHONS):
            raise BuildError(f"{target}: _cffi_backend for {len(backends)} Pythons")
        self.entries[f"lib/cffi-{target}.zip"] = zipped(backends)

    def versions(self, python: str) -> dict[str, str]:
        """Return name -> version of what is vendored for one Python."""
        pinned = self.downloads.pinned(python)
        return {r.name: r.version for r in pinned if r.name not in LEFT_OUT}

    def manifest(self, module: bytes) -> bytes:
        """Return the manifest, as JSON."""
        content = {
            "versions": {name: self.versions(python) for name, python in GENERATIONS.items()},
            "targets": self.cryptography,
            "pythons": PYTHONS,
            "wheels": self.wheels,
            "module_sha256": sha256(module),
            "zlib": zlib.ZLIB_RUNTIME_VERSION,
        }
        return json.dumps(content, indent=1, sort_keys=True).encode()


def zipped(files: dict[str, bytes], prefix: bytes = b"") -> bytes:
    """Return a zip of these files, in their sorted order and without dates.

    Zips and wheels in it are stored, and so is `__main__.py`, to start without zlib.
    """
    buffer = io.BytesIO()
    buffer.write(prefix)
    with zipfile.ZipFile(buffer, "w") as archive:
        for name in sorted(files):
            info = zipfile.ZipInfo(name, (1980, 1, 1, 0, 0, 0))
            info.create_system = 3
            info.external_attr = (stat.S_IFREG | 0o644) << 16
            stored = name == "__main__.py" or name.endswith((".zip", ".whl"))
            method = zipfile.ZIP_STORED if stored else zipfile.ZIP_DEFLATED
            archive.writestr(info, files[name], method, 9)
    return buffer.getvalue()


# ======================================================================
# Packing: the command
# ======================================================================


def build(here: str, module: str, targets: list[str], downloads: str) -> bytes:
    """Return the content of a .pyz made of the sources in `here`, for these targets."""
    with open(os.path.join(here, "requirements", "runtime.txt"), encoding="utf-8") as file:
        packer = Packer(Downloads(downloads, read_lock(file.read())), targets)
    packer.fetch_all()
    packer.pack_pure()
    for target in targets:
        packer.pack_native(target)
    entries = packer.entries
    for name, path in (("awsvault.py", module), ("build_zipapp.py", None), ("__main__.py", None)):
        with open(path or os.path.join(here, name), "rb") as file:
            entries[name] = file.read()
    with open(os.path.join(here, "LICENSE"), encoding="utf-8") as file:
        packer.texts[""] = file.read()
    entries["LICENSES.txt"] = "\n".join(packer.texts[n] for n in sorted(packer.texts)).encode()
    entries["manifest.json"] = packer.manifest(entries["awsvault.py"])
    main = entries.pop("__main__.py").decode()
    filled = sealed(main, {name: sha256(data) for name, data in entries.items()})
    return zipped({**entries, "__main__.py": filled.encode()}, b"#!/usr/bin/env python3\n")


def host_target(here: str) -> list[str]:
    """Return the target that this machine is, as `__main__` names it; none if we have none."""
    import runpy

    name = runpy.run_path(os.path.join(here, "__main__.py"), run_name="template")["target"]()
    return [name] if name in TARGETS else []


def write_output(path: str, data: bytes) -> None:
    """Put the finished file in place, executable."""
    os.makedirs(os.path.dirname(os.path.abspath(path)), exist_ok=True)
    temporary = f"{path}.{os.getpid()}"
    with open(temporary, "wb") as file:
        file.write(data)
    os.chmod(temporary, 0o755)
    os.replace(temporary, path)


def show(path: str) -> None:
    """Print size, hash, targets and zlib of a finished file."""
    with open(path, "rb") as file, zipfile.ZipFile(file) as archive:
        packed = json.loads(archive.read("manifest.json"))
        file.seek(0)
        data = file.read()
    print(f"{path}: {len(data):,} bytes, for {', '.join(packed['targets']) or 'no target'}")
    print(f"sha256 {sha256(data)}, zlib {packed['zlib']}")


def main(argv: list[str] | None = None) -> int:
    """Build what the arguments say; print size, hash and the zlib that was used."""
    import argparse

    here = os.path.dirname(os.path.abspath(__file__))
    parser = argparse.ArgumentParser(prog="build_zipapp.py", allow_abbrev=False)
    parser.add_argument("--target", action="append", choices=[*TARGETS, "host"], default=[])
    parser.add_argument("--output", default="dist/awsvault.pyz")
    parser.add_argument("--module", default=os.path.join(here, "awsvault.py"))
    parser.add_argument("--downloads", default=os.path.join(here, ".build", "wheels"))
    parser.add_argument("--show", action="store_true", help="say what OUTPUT is, and build nothing")
    options = parser.parse_args(argv)
    wanted = {t for t in options.target if t != "host"}
    if "host" in options.target:
        wanted.update(host_target(here))
    targets = sorted(wanted) if options.target else [*TARGETS]
    try:
        if not options.show:
            data = build(here, options.module, targets, options.downloads)
            if len(data) > MAX_BYTES:
                raise BuildError(f"{len(data):,} bytes are more than {MAX_BYTES:,}")
            write_output(options.output, data)
        show(options.output)
    except (BuildError, OSError, zipfile.BadZipFile) as error:
        print(f"build_zipapp: error: {error}", file=sys.stderr)
        return 1
    return 0


if not __file__.startswith("<awsvault.pyz>"):
    import_tools()
if __name__ == "__main__":
    sys.exit(main())
