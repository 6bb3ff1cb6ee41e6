"""Runs a command line again and again, dying at one door of World later each time.

usage: python -m tests.dying TEMPLATE SCRATCH ARGUMENT...

TEMPLATE is a home that every run starts from, copied to SCRATCH/home. The run is a forked child; in
run N the process ends, as by kill -9, just before it goes through its N-th door (half-way through
it, where the door is a write). What stands in the home afterwards is told as one line of JSON:
{"door", "items": {name: data or error}, "config", "left"}. The last line is the run that did not die.
"""

from __future__ import annotations

import itertools
import json
import os
import shutil
import sys
from pathlib import Path

import awsvault

DIED, DONE = 137, 0


class DyingWorld(awsvault.World):
    """A World whose process ends at the N-th door; `tell` is a descriptor that hears which."""

    def __init__(self, last, tell):
        super().__init__()
        self.left, self.tell = last, tell

    def go_through(self, name, args):
        if self.left == 0:
            os.write(self.tell, name.encode())
            if name in ("write_file", "_write_all"):
                os.write(args[0], args[1][: len(args[1]) // 2])
            os._exit(DIED)
        self.left -= 1

    def replace_process(self, *_):
        os._exit(DONE)


def watched(name, door):
    def method(self, *args, **options):
        # The constructor's own steps come before there is anything to lose.
        if "tell" in self.__dict__:
            self.go_through(name, args)
        return door(self, *args, **options)

    return method


DOORS = [
    name
    for name, door in vars(awsvault.World).items()
    if callable(door) and not name.startswith("__") and name != "replace_process"
]
for _name in DOORS:
    setattr(DyingWorld, _name, watched(_name, getattr(awsvault.World, _name)))


def run_once(argv, last):
    """The name of the door at which the run died; None if it came to its end."""
    read, write = os.pipe()
    pid = os.fork()
    if pid == 0:
        code = awsvault.main(argv, DyingWorld(last, write))
        os._exit(code)
    os.close(write)
    with os.fdopen(read) as stream:
        door = stream.read()
    status = os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
    if not door and status != DONE:
        raise SystemExit(f"the run that should have succeeded ended with {status}")
    return door or None


def state(home):
    """What is in a home: every item opened, the config, and what else stands among the items."""
    world = awsvault.World()
    secret = awsvault.Secret(os.environ["AWS_VAULT_FILE_PASSPHRASE"])
    folder = home / ".awsvault" / "keys"
    store = awsvault.FileKeystore(
        world, str(folder), awsvault.Passphrase(world, secret), awsvault.MIN_ITERATIONS
    )
    items = {}
    for key in store.keys():
        try:
            items[key] = store.get(key).data.reveal()
        except awsvault.KeystoreError as error:
            items[key] = f"unreadable: {error}"
    config = home / ".aws" / "config"
    names = [path.name for path in folder.glob("*")] if folder.exists() else []
    return {
        "items": items,
        "config": config.read_text() if config.exists() else "",
        "left": sorted({awsvault.unescape_file_name(name) for name in names} - set(items)),
    }


def main(template, scratch, *argv):
    home = Path(scratch) / "home"
    os.environ["HOME"] = str(home)
    __import__("botocore.session")  # once, not in each child
    for last in itertools.count():
        shutil.rmtree(home, ignore_errors=True)
        shutil.copytree(template, home)
        home.chmod(0o700)
        door = run_once(list(argv), last)
        print(json.dumps({"door": door, **state(home)}), flush=True)
        if door is None:
            return


if __name__ == "__main__":
    main(*sys.argv[1:])
