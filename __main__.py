"""The entry of awsvault.pyz: finds the compiled code in the cache and runs it.

Compiled anew at every start, so it is short: all that can be cached or is rare is in
build_zipapp.py, another entry of the zip. It parses on Python 2.7 and 3.6, hence the type
comments, to say which Python is needed.
"""

import sys

# Filled in by build_zipapp.py: a hash of all that the file holds, and "name sha256" of each entry.
BUILD_ID = ""
PINS = ""

if sys.version_info < (3, 9):
    sys.stderr.write(
        "awsvault: error: Python 3.9 or newer is needed, this is %d.%d\n"
        "awsvault: hint: name a newer one, as in: python3.11 %s\n"
        % (sys.version_info[0], sys.version_info[1], sys.argv[0])
    )
    sys.exit(1)
if sys.platform == "win32":
    sys.exit("awsvault: error: it runs on Linux, on macOS and in WSL, not on Windows itself")

_signal = __import__("_signal")

# Ctrl-C in the first milliseconds ends this process, without a traceback.
if _signal.getsignal(_signal.SIGINT) is _signal.default_int_handler:
    _signal.signal(_signal.SIGINT, _signal.SIG_DFL)

import gc
import marshal
import os
from importlib.util import MAGIC_NUMBER, find_spec

TYPE_CHECKING = False
if TYPE_CHECKING:
    from types import CodeType
    from typing import Any, List, Mapping, Optional, Tuple

    Environ = Mapping[str, str]

# Most of what a start makes is kept, so looking for garbage is a millisecond lost.
if hasattr(gc, "set_threshold"):  # PyPy has none
    gc.set_threshold(50000, 20, 20)

FOLDER = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
# To pass through, where O_RDONLY needs the right to list: a /home of mode 0711 has none for users.
PASS = FOLDER | getattr(os, "O_PATH", 0)
FILE = os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC
MODULES = ("build_zipapp", "awsvault")
# What a Python may lack, and the package that it is built with; "" is part of Python itself.
PARTS = dict.fromkeys("json argparse hashlib zipfile fcntl resource select _socket".split(), "")
PARTS.update(zlib="zlib1g-dev", _ssl="libssl-dev", _ctypes="libffi-dev")


def target():
    # type: () -> str
    """Name the platform as the table of targets in build_zipapp.py does: system, machine, libc."""
    name = sys.platform + "-" + os.uname().machine + ("" if sys.maxsize > 2**32 else "-32bit")
    if sys.platform != "linux":
        return name
    try:
        return name + "-" + (os.confstr("CS_GNU_LIBC_VERSION") or "musl").split()[0]
    except (ValueError, OSError):
        return name + "-musl"


def cache_tag():
    # type: () -> str
    """Name the folder of what only this platform, this Python and this bytecode can use."""
    abi = str(sys.implementation.cache_tag) + getattr(sys, "abiflags", "")
    return target() + "-" + abi + "-" + MAGIC_NUMBER[:2].hex()


def cache_root(environ):
    # type: (Environ) -> str
    """Where the cache is, "" if there is to be none: sudo, a home that is not ours, no home."""
    home = environ.get("HOME", "")
    named = environ.get("AWS_VAULT_CACHE_DIR", "")
    try:
        if os.getuid() != os.geteuid() or (home and os.stat(home).st_uid != os.geteuid()):
            return ""
    except OSError:
        return ""
    if named or not home:
        return named if named.startswith("/") else ""
    if sys.platform == "darwin":
        return home + "/Library/Caches/awsvault"
    cache = environ.get("XDG_CACHE_HOME", "")
    return (cache if cache.startswith("/") else home + "/.cache") + "/awsvault"


def enter(parent, name, make=False):
    # type: (Optional[int], str, bool) -> int
    """Open a folder that only we and root can change; with `make`, create it if it is missing.

    OSError if there is none, or if it is a link or somebody else could write to it.
    """
    if make:
        try:
            os.mkdir(name, 0o700, dir_fd=parent)
        except FileExistsError:
            pass
    fd = os.open(name, PASS, dir_fd=parent)
    found = os.fstat(fd)
    # A sticky folder, such as /tmp, lets nobody rename or remove what is ours.
    if found.st_uid in (0, os.geteuid()) and (not found.st_mode & 0o022 or found.st_mode & 0o1000):
        return fd
    os.close(fd)
    raise PermissionError(1, "others could change it", name)


def read_link(parent, name):
    # type: (int, str) -> str
    """Read a link that root or we have put where nobody else could, such as a linked /home."""
    link = os.stat(name, dir_fd=parent, follow_symlinks=False)
    if link.st_uid not in (0, os.geteuid()) or os.fstat(parent).st_mode & 0o022:
        raise PermissionError(1, "others could change it", name)
    return os.readlink(name, dir_fd=parent)


def walk(path, make=False):
    # type: (str, bool) -> Tuple[int, str]
    """Open an absolute path folder by folder; return the descriptor and the path without links."""
    names, done, links = path.split("/")[::-1], [], 0  # type: List[str], List[str], int
    fd = enter(None, "/")
    while names:
        name, outer = names.pop(), fd
        try:
            if name in ("", "."):
                continue
            try:
                fd = enter(outer, name, make)
                done.append(name)
            except OSError as failed:
                links += 1
                # What a link is here: ENOTDIR or, in two numbers, ELOOP.
                if failed.errno not in (20, 40, 62) or links > 16:
                    raise
                text = read_link(outer, name)
                names += text.split("/")[::-1]
                if text.startswith("/"):
                    fd, done = enter(None, "/"), []
        except OSError as error:
            os.close(outer)
            error.filename = "/" + "/".join(done + [name])
            raise
        if fd != outer:
            os.close(outer)
    try:
        return os.open(".", FOLDER, dir_fd=fd), "/" + "/".join(done)
    finally:
        os.close(fd)


def read_own(folder, name):
    # type: (int, str) -> bytes
    """Read a file that is ours, private and has no second name; OSError for any other."""
    fd = os.open(name, FILE, dir_fd=folder)
    try:
        found = os.fstat(fd)
        # 0o100000 is a regular file; no bit for group or others may be set.
        private = found.st_mode & 0o170077 == 0o100000 and found.st_nlink == 1
        if not private or found.st_uid != os.geteuid():
            raise PermissionError(1, "not a private file of ours", name)
        return os.read(fd, found.st_size)
    finally:
        os.close(fd)


def cached_codes(root):
    # type: (str) -> List[CodeType]
    """Return the code of MODULES from the cache, [] if it must be made or may not be used."""
    if not root:
        return []
    try:
        fd = walk(root + "/" + BUILD_ID + "/" + cache_tag())[0]
        try:
            files = [read_own(fd, name + ".pyc") for name in MODULES]
            return [marshal.loads(memoryview(data)[16:]) for data in files]
        finally:
            os.close(fd)
    except (OSError, ValueError, EOFError, TypeError):
        return []


def missing(name):
    # type: (str) -> int
    """Say which module this Python lacks and what has it; the exit status."""
    hint = "install all of it (Debian and Ubuntu: apt-get install python3)"
    if PARTS.get(name):
        hint = "install one that was built with %s" % PARTS[name]
    sys.stderr.write(
        "awsvault: error: the Python %s has no module %s\n"
        "awsvault: hint: %s, or name another one, as in: python3.11 %s\n"
        % (sys.executable, name.lstrip("_"), hint, sys.argv[0])
    )
    return 1


def start(spec):
    # type: (Any) -> int
    """Run the packed program, given the spec of this module; its exit status."""
    loader = spec.loader
    # What is to be verified can't be its own witness.
    witness = "version" in sys.argv and "--verify" in sys.argv
    codes = [] if witness else cached_codes(cache_root(os.environ))
    # A start from the cache shows by itself that this Python has them: it unpacked there.
    for name in () if codes else PARTS:
        if find_spec(name) is None:
            return missing(name)
    runner = type(sys)("build_zipapp")
    # Python 3.15 warns of a __loader__ without its __spec__.
    runner.__dict__.update(__file__="<awsvault.pyz>/build_zipapp.py", __loader__=loader)
    runner.__spec__ = type(spec)("build_zipapp", loader)
    sys.modules["build_zipapp"] = runner
    exec(codes[0] if codes else loader.get_code("build_zipapp"), runner.__dict__)
    bundle = runner.Bundle(sys.modules[__name__], loader, os.environ)
    return runner.run(bundle, codes[1] if codes else None, witness)  # type: ignore[no-any-return]


if __name__ == "__main__":
    try:
        if _signal.getsignal(_signal.SIGINT) == _signal.SIG_DFL:
            _signal.signal(_signal.SIGINT, _signal.default_int_handler)
        # Not packed, the folder of the sources itself was given to Python.
        status = start(__spec__) if BUILD_ID else __import__("awsvault").main()
        # All output is written unbuffered, so Python need not take itself apart: 5 ms.
        os._exit(status)
    except KeyboardInterrupt:
        os._exit(130)
    except ImportError as error:
        sys.exit(missing(str(error.name or error)))
