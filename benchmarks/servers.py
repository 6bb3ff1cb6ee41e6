"""The credential server, as ratios to a bare ThreadingHTTPServer that answers the same body.

`python benchmarks/servers.py` prints its table; `make bench` takes the same rows. All clients are
processes of their own that speak through plain sockets, so that a client library's time is not
taken for the server's; the servers take turns within one run.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import socket
import statistics
import subprocess
import sys
import tempfile
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))

from tests.fake_aws import ACCOUNT, KEY_ID, SECRET, FakeAws, furnish  # noqa: E402

ROUNDS = 15
REQUESTS = 200  # in a round, of each kind
CLIENTS = 8
SHOW = "import json, os, sys; print(json.dumps(dict(os.environ)), flush=True); sys.stdin.read()"
CONFIG = f"""\
[profile prod]
region = eu-west-1

[profile admin]
region = eu-west-1
source_profile = prod
role_arn = arn:aws:iam::{ACCOUNT}:role/admin

[profile other]
region = eu-west-1
source_profile = prod
role_arn = arn:aws:iam::{ACCOUNT}:role/admin
"""


class Bare(BaseHTTPRequestHandler):
    """http.server as it comes, less its log and the 40 ms that Nagle adds to its two writes."""

    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True
    body = b""

    def do_GET(self):
        self.send_response(200)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(self.body)))
        self.end_headers()
        self.wfile.write(self.body)

    def log_message(self, *_):
        pass


class Yardstick(ThreadingHTTPServer):
    """With room for eight clients: its own 5 make some of them wait for a second."""

    request_queue_size = 128


def serve_bare(body):
    """Start the yardstick in a process of its own; its port and process id."""
    Bare.body = body
    server = Yardstick(("127.0.0.1", 0), Bare)
    pid = os.fork()
    if pid == 0:
        try:
            server.serve_forever()
        finally:
            os._exit(0)
    server.server_close()
    return server.server_address[1], pid


class Client:
    """One raw client of one server."""

    def __init__(self, port, token):
        self.address = ("127.0.0.1", port)
        self.request = (
            f"GET / HTTP/1.1\r\nHost: 127.0.0.1:{port}\r\nUser-Agent: bench\r\n"
            "Accept: application/json\r\nAccept-Encoding: identity\r\n"
            f"Authorization: {token}\r\n\r\n"
        ).encode()

    def connect(self):
        sock = socket.socket()
        sock.connect(self.address)
        return sock

    def ask(self, sock):
        """One request on an open connection; the body."""
        sock.send(self.request)
        answer = b""
        while True:
            answer += sock.recv(65536)
            head, mark, body = answer.partition(b"\r\n\r\n")
            if mark and len(body) >= int(head.partition(b"Content-Length: ")[2].split(b"\r")[0]):
                return body

    def ask_anew(self):
        sock = self.connect()
        body = self.ask(sock)
        sock.close()
        return body

    def time_new(self):
        """Median seconds of a request on a new connection."""
        return statistics.median(timed(self.ask_anew) for _ in range(REQUESTS))

    def time_kept(self):
        """Median seconds of a request on a kept connection."""
        with contextlib.closing(self.connect()) as sock:
            return statistics.median(timed(lambda: self.ask(sock)) for _ in range(REQUESTS))

    def time_crowd(self):
        """Seconds in which eight processes get their answers, each on new connections."""

        def work():
            for _ in range(REQUESTS):
                self.ask_anew()

        started = time.perf_counter()
        pids = [forked(work) for _ in range(CLIENTS)]
        statuses = [os.waitpid(pid, 0)[1] for pid in pids]
        took = time.perf_counter() - started
        if any(statuses):
            raise RuntimeError("a client of the benchmark failed")
        return took


def forked(work):
    pid = os.fork()
    if pid:
        return pid
    try:
        work()
        os._exit(0)
    finally:
        os._exit(1)


def timed(action):
    started = time.perf_counter()
    action()
    return time.perf_counter() - started


class Person:
    """A home with a vault, and the program as this person runs it."""

    def __init__(self, home, program, url):
        self.program = program
        self.environ = {
            "HOME": str(home),
            "PATH": "/usr/local/bin:/usr/bin:/bin",
            "AWS_VAULT_BACKEND": "file",
            "AWS_VAULT_FILE_ITERATIONS": "8192",
            "AWS_VAULT_FILE_PASSPHRASE": "a passphrase for the benchmark only",
            "AWS_ENDPOINT_URL_STS": url,
        }
        (home / ".aws").mkdir(mode=0o700, parents=True)
        (home / ".aws" / "config").write_text(CONFIG, encoding="utf-8")
        keys = {"AWS_ACCESS_KEY_ID": KEY_ID, "AWS_SECRET_ACCESS_KEY": SECRET}
        self.run("add", "prod", "--env", **keys)

    def run(self, *args, **variables):
        line, environ = [*self.program, *args], {**self.environ, **variables}
        subprocess.run(line, env=environ, check=True, stdout=subprocess.DEVNULL)

    def time_exec(self, profile, *flags):
        return timed(lambda: self.run("exec", *flags, profile, "--", "true"))

    def serve(self):
        """Start `exec --server` with a command that waits; the process and its environment."""
        line = [*self.program, "exec", "--server", "admin", "--", sys.executable, "-c", SHOW]
        process = subprocess.Popen(
            line, env=self.environ, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )
        return process, json.loads(process.stdout.readline())


def resident(port):
    """Kilobytes of the server that listens on a port."""
    wanted = {
        f"socket:[{line.split()[9]}]"
        for line in Path("/proc/net/tcp").read_text(encoding="ascii").splitlines()[1:]
        if line.split()[1].endswith(f":{port:04X}") and line.split()[3] == "0A"
    }
    for folder in Path("/proc").glob("[0-9]*/fd"):
        with contextlib.suppress(OSError):
            if wanted & {os.readlink(path) for path in folder.iterdir()}:
                status = (folder.parent / "status").read_text(encoding="utf-8")
                return int(status.partition("VmRSS:")[2].split()[0])
    return 0


def in_turn(actions, rounds):
    """The median of each action, all of them run once in every round."""
    figures = {name: [] for name in actions}
    for _ in range(rounds):
        for name, action in actions.items():
            figures[name].append(action())
    return {name: statistics.median(values) for name, values in figures.items()}


def measure(program, home, rounds):
    """All rows: what, measured, ratio, goal."""
    with FakeAws() as fake:
        person = Person(home, program, furnish(fake).url)
        process, environ = person.serve()
        port = int(environ["AWS_CONTAINER_CREDENTIALS_FULL_URI"].rpartition(":")[2])
        ours = Client(port, environ["AWS_CONTAINER_AUTHORIZATION_TOKEN"])
        other, pid = serve_bare(ours.ask_anew())
        theirs = Client(other, "token")
        try:
            before = resident(port)
            kinds = ("time_new", "time_kept", "time_crowd")
            found = {
                kind: in_turn(
                    {"ours": getattr(ours, kind), "bare": getattr(theirs, kind)},
                    rounds if kind != "time_crowd" else max(3, rounds // 3),
                )
                for kind in kinds
            }
            after = resident(port)
        finally:
            os.kill(pid, 9)
            os.waitpid(pid, 0)
            process.communicate()
        # Each with a profile of its own, so that neither can push the other's out of the cache.
        kinds = {
            "exec": lambda: person.time_exec("other"),
            "server": lambda: person.time_exec("admin", "--server"),
        }
        in_turn(kinds, 1)
        calls = len(fake.calls)
        starts = in_turn(kinds, rounds)
        if len(fake.calls) != calls:
            raise RuntimeError("a start of the benchmark was not answered from the cache")
    return list(rows_of(found, starts, before, after))


def rows_of(found, starts, before, after):
    for kind, what, goal in (
        ("time_new", "server: request on a new connection", "0.8, reach for 0.47"),
        ("time_kept", "server: request on a kept connection", "1.0, reach for 0.7"),
    ):
        ours, bare = found[kind]["ours"], found[kind]["bare"]
        yield what, f"{ours * 1e6:.0f} us", f"{ours / bare:.2f} of http.server", goal
    ours, bare = found["time_crowd"]["ours"], found["time_crowd"]["bare"]
    rate = CLIENTS * REQUESTS / ours
    yield (
        f"server: {CLIENTS} clients at once", f"{rate:,.0f} requests/s",
        f"{bare / ours:.2f} x http.server's", "1.5 x, reach for 3 x",
    )  # fmt: skip
    yield (
        "`exec --server ROLE -- true`, cached", f"{starts['server'] * 1000:.1f} ms",
        f"{starts['server'] / starts['exec']:.2f} of exec", "1.35",
    )  # fmt: skip
    yield (
        "memory of the server, after all these requests", f"{after / 1000:.1f} MB",
        f"{after - before:+d} kB since its start", "25 MB",
    )  # fmt: skip


def rows(program=None, rounds=ROUNDS):
    """The rows for `make bench`."""
    pyz = ROOT / "dist" / "awsvault.pyz"
    with tempfile.TemporaryDirectory(prefix="awsvault-bench-") as folder:
        home = Path(folder) / "home"
        home.mkdir(mode=0o700)
        return measure(program or [sys.executable, str(pyz)], home, rounds)


def main():
    parser = argparse.ArgumentParser(prog="servers", description=__doc__.splitlines()[0])
    parser.add_argument("--program", help="what to run instead of dist/awsvault.pyz")
    parser.add_argument("--rounds", type=int, default=ROUNDS)
    options = parser.parse_args()
    program = [sys.executable, options.program] if options.program else None
    for row in rows(program, options.rounds):
        print(f"| {' | '.join(row)} |")


if __name__ == "__main__":
    main()
