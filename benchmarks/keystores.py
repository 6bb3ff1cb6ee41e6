"""Speed of the native keystores on their real daemons: set, get, list and a cached exec.

Each keystore runs on a bus and in a home of its own. Times are medians of whole processes that take
turns for exec, and of calls inside one process for the rest. What is not installed is left out.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import statistics
import subprocess
import sys
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))

import awsvault  # noqa: E402
from benchmarks.timing import medians, seconds  # noqa: E402
from tests.desktop import Desktop, make_gpg_key  # noqa: E402
from tests.fake_aws import KEY_ID, SECRET, FakeAws, furnish  # noqa: E402

ROUNDS = 15
PYZ = ROOT / "dist" / "awsvault.pyz"
# Compiled once, as the packed program is; `python awsvault.py` would compile it at every start.
COMPILED = (
    f"import sys; sys.path.insert(0, {str(ROOT)!r}); import awsvault; sys.exit(awsvault.main())"
)
PROGRAM = [sys.executable, str(PYZ)] if PYZ.exists() else [sys.executable, "-c", COMPILED]
NEEDED = {
    "secret-service": ("dbus-daemon", "gnome-keyring-daemon", "secret-tool", "busctl"),
    "kwallet": ("dbus-daemon", "kwalletd5", "kwallet-query", "busctl"),
    "pass": ("pass", "gpg", "gpgconf"),
    "file": (),
}
GOALS = {"secret-service": "1.6"}
CONFIG = "[profile prod]\nregion = eu-west-1\n"


def start(desktop, backend):
    """Start a keystore's daemons and give the environment what it needs."""
    if backend == "secret-service":
        desktop.start_bus()
        desktop.gnome_keyring()
    elif backend == "kwallet":
        desktop.start_bus()
        desktop.kwalletd()
    elif backend == "pass":
        folder = desktop.folder / "gpg"
        key = make_gpg_key(folder, desktop.environ)
        desktop.environ["GNUPGHOME"] = str(folder)
        argv = ["pass", "init", key]
        subprocess.run(argv, env=desktop.environ, check=True, capture_output=True)


def stop(desktop, backend):
    if backend == "pass":
        subprocess.run(["gpgconf", "--kill", "all"], env=desktop.environ, check=False)
    desktop.close()


def prepare(desktop, backend, url):
    """Store a key and a session; return the environment of the product."""
    environ = {
        **desktop.environ,
        "AWS_VAULT_BACKEND": backend,
        "AWS_VAULT_FILE_PASSPHRASE": "correct horse battery staple",
        "AWS_VAULT_FILE_ITERATIONS": "8192",
        "AWS_ENDPOINT_URL_STS": url,
    }
    (desktop.home / ".aws").mkdir(mode=0o700)
    (desktop.home / ".aws" / "config").write_text(CONFIG)
    keys = {"AWS_ACCESS_KEY_ID": KEY_ID, "AWS_SECRET_ACCESS_KEY": SECRET}
    for arguments, more in ((["add", "prod", "--env"], keys), (["exec", "prod", "--", "true"], {})):
        argv = [*PROGRAM, *arguments]
        subprocess.run(argv, env={**environ, **more}, check=True, capture_output=True)
    return environ


def calls(environ, backend):
    """Median seconds of set, get and list in one process, with 15 items of 1 kB."""
    world = awsvault.World()
    world.environ = dict(environ)
    passphrase = awsvault.Secret(environ["AWS_VAULT_FILE_PASSPHRASE"])
    settings = awsvault.StoreSettings(passphrase=passphrase, iterations=8192)
    store = awsvault.BACKENDS[backend](world, settings)
    data = awsvault.Secret("x" * 1000)

    def median(action):
        figures = []
        for number in range(ROUNDS):
            started = time.perf_counter()
            action(f"bench-{number}")
            figures.append(time.perf_counter() - started)
        return statistics.median(figures)

    return {
        "set": median(lambda name: store.set(awsvault.Item(name, data))),
        "get": median(store.get),
        "list": median(lambda _name: store.keys()),
    }


def rows():
    """(what, measured, ratio, goal) of each keystore that can run here; ratios are to `file`."""
    there = [name for name, tools in NEEDED.items() if all(map(shutil.which, tools))]
    with FakeAws() as fake, contextlib.ExitStack() as stack:
        url = furnish(fake).url
        environs = {}
        for backend in there:
            desktop = Desktop()
            stack.callback(stop, desktop, backend)
            start(desktop, backend)
            environs[backend] = prepare(desktop, backend, url)
        true = shutil.which("true")
        argv = [*PROGRAM, "exec", "prod", "--", true]
        cases = {
            backend: lambda environ=environ: seconds(argv, environ)
            for backend, environ in environs.items()
        }
        execs = medians(cases, ROUNDS)
        found = []
        for backend, environ in environs.items():
            ratio = f"{execs[backend] / execs['file']:.2f} of file at 8192"
            goal = GOALS.get(backend, "")
            found.append((f"cached exec, {backend}", ms(execs[backend]), ratio, goal))
            for what, figure in calls(environ, backend).items():
                found.append((f"{what}, {backend}, 15 items", ms(figure), "", ""))
    return found


def ms(figure):
    return f"{figure * 1000:.1f} ms"


def main():
    for row in rows():
        print(" | ".join(row))
    return 0


if __name__ == "__main__":
    os.umask(0o077)
    raise SystemExit(main())
