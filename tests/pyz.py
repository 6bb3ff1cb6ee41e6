"""The packed program, built once for all test processes, and the Pythons that must run it."""

from __future__ import annotations

import fcntl
import functools
import glob
import hashlib
import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
BUILT = ROOT / ".build" / "pyz"
SOURCES = ("build_zipapp.py", "__main__.py", "requirements/runtime.txt")

# Stands for awsvault.py where a test asks about the start itself: runs the code it is given.
PROBE = '''"""Runs what it is told."""
import sys


class World:
    def __init__(self, bundle=None):
        self.bundle = bundle


def main(argv, world):
    exec(argv[0], {"bundle": world.bundle, "sys": sys})
    sys.stdout.flush()
    return 0
'''


def build_pyz(module: Path, *more: str, output: Path, target: str = "host") -> str:
    """Run the builder; return what it printed."""
    argv = [sys.executable, "build_zipapp.py", "--module", str(module), "--output", str(output)]
    argv += ["--target", target] * bool(target) + [*more]
    done = subprocess.run(argv, cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout


def build_once(module: Path, target: str = "host") -> Path:
    """Return a .pyz of this module, built unless one of the same sources is; "" for all targets."""
    digest = hashlib.sha256()
    for path in (module, *(ROOT / name for name in SOURCES)):
        digest.update(path.read_bytes())
    name = module.stem if target else f"{module.stem}_everywhere"
    output = BUILT / f"{name}-{digest.hexdigest()[:16]}.pyz"
    BUILT.mkdir(parents=True, exist_ok=True)
    with (BUILT / "lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not output.exists():
            for old in BUILT.glob(f"{name}-*.pyz"):
                old.unlink()
            build_pyz(module, output=output, target=target)
    return output


@pytest.fixture(scope="session")
def pyz():
    """The path of an awsvault.pyz for this machine."""
    return build_once(ROOT / "awsvault.py")


@pytest.fixture(scope="session")
def probe():
    """The path of a .pyz that runs the code in its first argument, with `bundle` in it."""
    BUILT.mkdir(parents=True, exist_ok=True)
    module = BUILT / "probe.py"
    with (BUILT / "lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not module.exists() or module.read_text() != PROBE:
            module.write_text(PROBE)
    return build_once(module)


@functools.lru_cache
def pythons() -> dict[str, str]:
    """Return version -> full path of every Python that this machine really has, old ones too."""
    folders = os.environ.get("PATH", "").split(os.pathsep)
    shims = [os.path.dirname(folder) for folder in folders if os.path.basename(folder) == "shims"]
    patterns = [
        f"{root}/versions/*/bin/python" for root in (os.path.expanduser("~/.pyenv"), *shims)
    ]
    found = {}
    for pattern in (*patterns, "/usr/bin/python3*", "/usr/local/bin/python3*"):
        for path in sorted(glob.glob(pattern)):
            if path.endswith("config"):
                continue
            code = "import sys; print('%d.%d' % sys.version_info[:2])"
            done = subprocess.run([path, "-c", code], capture_output=True, text=True, check=False)
            if done.returncode == 0:
                found.setdefault(done.stdout.strip(), path)
    found.setdefault(f"{sys.version_info[0]}.{sys.version_info[1]}", sys.executable)
    return found


def version_key(version: str) -> tuple[int, ...]:
    """Order versions as numbers."""
    return tuple(map(int, version.split(".")))


NEW_ENOUGH = [v for v in sorted(pythons(), key=version_key) if version_key(v) >= (3, 9)]
TOO_OLD = [v for v in sorted(pythons(), key=version_key) if version_key(v) < (3, 9)]
