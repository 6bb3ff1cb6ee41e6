"""What the credential server answers, whom it refuses, and when it renews."""

from __future__ import annotations

import contextlib
import datetime
import errno
import json
import os
import queue
import select
import socket
import sys
import threading
import time

import pytest

import awsvault
from awsvault import Credentials, Secret, ServerMode

HOUR = 3600
TOKEN = "dummy-token-for-tests-0123456789"
LINUX = os.path.isdir("/proc/self")
ROLE = "arn:aws:iam::111111111111:role/other"


class FakeWorld(awsvault.World):
    """A world whose clock the test sets, and whose renewing processes the test answers for.

    Whoever waits on a Condition is woken when the clock moves. `advance` and `reply` return when the
    thread that keeps credentials renewed has seen what is new.
    """

    def __init__(self):
        super().__init__()
        self.environ = {}
        self.clock = 1000.0
        self.wall = datetime.datetime(2030, 1, 1, tzinfo=datetime.timezone.utc)
        self.notices, self.renewals, self.limits, self.argv = [], [], [], []
        self.closed = False
        self.seen = threading.Condition()
        self.passes, self.keeper = 0, None
        self.conditions, self.arrived, self.pending = set(), [], []

    def now(self):
        return self.wall

    def monotonic(self):
        return self.clock

    def post_notice(self, fd, text):
        self.notices.append(text)

    def start_thread(self, work):
        def quietly():
            with contextlib.suppress(SystemExit):
                work()

        thread = threading.Thread(target=quietly, name=work.__name__, daemon=True)
        if thread.name == "_renew":
            self.renewals.append(thread)
        thread.start()

    def wait(self, condition, seconds):
        with self.seen:
            self.conditions.add(condition)
            if threading.current_thread().name == "keep_renewed":
                self.keeper = condition
                self.passes += 1
            self.seen.notify_all()
        condition.wait(30)
        if self.closed and threading.current_thread().name == "keep_renewed":
            raise SystemExit

    def run(self, argv, *, stdin, timeout, environ):
        answer = queue.SimpleQueue()
        if self.closed:
            return awsvault.ToolResult(1, Secret(""), "")
        with self.seen:
            self.arrived.append(json.loads(stdin.reveal()))
            self.argv.append(list(argv))
            self.limits.append(timeout)
            self.pending.append((threading.current_thread(), answer))
            self.seen.notify_all()
        got = answer.get()
        if isinstance(got, Exception):
            raise got
        text = got if isinstance(got, str) else json.dumps(got)
        return awsvault.ToolResult(0, Secret(text), "")

    # -- for the test -----------------------------------------------------

    def await_that(self, is_so):
        with self.seen:
            assert self.seen.wait_for(is_so, 30)

    def advance(self, seconds):
        """Move the clock, and let all see it."""
        self.await_that(lambda: self.keeper)
        with self.keeper:
            before = self.passes
            self.clock += seconds
            self.wall += datetime.timedelta(seconds=seconds)
        for condition in list(self.conditions):
            with condition:
                condition.notify_all()
        self.await_that(lambda: self.passes > before)

    @property
    def tasks(self):
        """What the processes that renew were asked for, each of those that have been started."""
        self.await_that(lambda: len(self.arrived) == len(self.renewals))
        return self.arrived

    def await_task(self):
        """Wait for a process that renews and has no answer yet."""
        self.await_that(lambda: self.pending)

    def reply(self, answer):
        """Let the oldest process that runs answer this and end (or fail, with an exception)."""
        self.await_task()
        thread, to = self.pending.pop(0)
        to.put(answer)
        thread.join(30)
        self.advance(0)

    def close(self):
        self.closed = True
        for _, to in self.pending:
            to.put("")
        for condition in list(self.conditions):
            with condition:
                condition.notify_all()


def credentials(world, seconds, name="0001", account="111111111111"):
    end = world.now() + datetime.timedelta(seconds=seconds)
    return Credentials(
        f"ASIADUMMYEXAMPLE{name}", Secret("dummy/secret"), Secret("dummy-token"), end, account
    )


def fetched(world, seconds, name="0002", source=None):
    return awsvault.Renewed(credentials(world, seconds, name), source).members()


def failed(**members):
    return {"failure": {"message": "something failed", **members}}


LINK = awsvault.AssumeRole(
    awsvault.Provider(), awsvault.SessionSlot("", ""), awsvault.Endpoint(),
    datetime.timedelta(hours=1), role_arn="arn:aws:iam::111111111111:role/admin",
)  # fmt: skip


class Served:
    """A server in threads of this process; everything else goes over its port."""

    def __init__(
        self, world, *, life=HOUR, left=HOUR, source=8 * HOUR, links=True, region="eu-west-1",
        command=None, most=awsvault.MAX_CONNECTIONS, **mode,
    ):  # fmt: skip
        self.world = world
        self.port = awsvault.ServerPort()
        self.address = ("127.0.0.1", self.port.number)
        self.host = f"127.0.0.1:{self.port.number}"
        made = credentials(world, source, "SRCE") if source else None
        chain = awsvault.ServedChain(
            "admin", datetime.timedelta(seconds=life), credentials(world, left) if left else None,
            made, (LINK,) if links else (), ("renew",),
            "run awsvault exec admin in another terminal to renew",
        )  # fmt: skip
        self.state = awsvault.ServerState(
            ServerMode(check_peer=LINUX, **mode), command or world.life(), region, Secret(TOKEN),
            (self.host,), (chain,), LINK.replace(role_arn=""),
        )  # fmt: skip
        awsvault.start_serving(world, self.state, self.port.listener, 99, most)
        world.advance(0)

    def close(self):
        with contextlib.suppress(OSError):
            self.port.listener.shutdown(socket.SHUT_RDWR)
        self.world.close()
        self.port.close()

    # -- a client ---------------------------------------------------------

    def connect(self):
        sock = socket.create_connection(self.address, timeout=20)
        return contextlib.closing(sock)

    def raw(self, data, *, sock=None):
        """Send bytes and read to the end of one answer: status, headers, body."""
        if sock is None:
            with self.connect() as sock:
                return self.raw(data, sock=sock)
        sock.sendall(data if isinstance(data, bytes) else data.encode())
        return read_answer(sock)

    def ask(self, path="/", *, method="GET", sock=None, **headers):
        """One request with the right Host; `headers` with underscores for dashes."""
        return self.raw(self.head(path, method=method, **headers), sock=sock)

    def head(self, path="/", *, method="GET", **headers):
        lines = {"Host": self.host, **{k.replace("_", "-"): v for k, v in headers.items()}}
        text = "".join(f"{name}: {value}\r\n" for name, value in lines.items() if value is not None)
        return f"{method} {path} HTTP/1.1\r\n{text}\r\n"

    def container(self, path="/", **headers):
        return self.ask(path, Authorization=TOKEN, **headers)

    def metadata_token(self, seconds="300", **headers):
        status, _, body = self.ask(
            "/latest/api/token",
            method="PUT",
            X_aws_ec2_metadata_token_ttl_seconds=seconds,
            **headers,
        )
        assert status == 200
        return body.decode()

    def metadata(self, path, **headers):
        headers.setdefault("X_aws_ec2_metadata_token", self.metadata_token())
        return self.ask(path, **headers)


def read_answer(sock):
    data = b""
    while b"\r\n\r\n" not in data:
        more = sock.recv(65536)
        assert more, f"closed after {data!r}"
        data += more
    head, _, body = data.partition(b"\r\n\r\n")
    lines = head.decode().split("\r\n")
    headers = {}
    for line in lines[1:]:
        name, _, value = line.partition(":")
        headers[name.lower()] = value.strip()
    while len(body) < int(headers["content-length"]):
        body += sock.recv(65536)
    return int(lines[0].split()[1]), headers, body


@pytest.fixture
def world():
    return FakeWorld()


@pytest.fixture
def make(world):
    """Make a server with other settings; it ends with the test."""
    made = []

    def make_server(**settings):
        made.append(Served(world, **settings))
        return made[-1]

    yield make_server
    for served in made:
        served.close()


@pytest.fixture
def served(make):
    return make()


# ======================================================================
# The container endpoint
# ======================================================================


def test_container_answers_with_the_four_members_that_sdks_insist_on(served):
    status, headers, body = served.container()
    assert status == 200
    assert headers["content-type"] == "application/json"
    assert json.loads(body) == {
        "AccessKeyId": "ASIADUMMYEXAMPLE0001",
        "SecretAccessKey": "dummy/secret",
        "Token": "dummy-token",
        "Expiration": "2030-01-01T01:00:00Z",
        "AccountId": "111111111111",
    }


def test_expiration_is_rounded_down(world):
    world.wall += datetime.timedelta(microseconds=999_999)
    document = json.loads(awsvault.container_document(credentials(world, 60), world.now()))
    assert document["Expiration"] == "2030-01-01T00:01:00Z"


def test_an_answer_comes_in_one_piece(served):
    with served.connect() as sock:
        sock.sendall(served.head(Authorization=TOKEN).encode())
        data = sock.recv(65536)
    head, _, body = data.partition(b"\r\n\r\n")
    assert f"Content-Length: {len(body)}".encode() in head


def test_a_kept_connection_serves_again_and_one_that_asks_for_it_is_closed(served):
    with served.connect() as sock:
        for _ in range(3):
            status, headers, _ = served.container(sock=sock)
            assert (status, headers["connection"]) == (200, "keep-alive")
        status, headers, _ = served.container(sock=sock, Connection="close")
        assert (status, headers["connection"]) == (200, "close")
        assert sock.recv(1) == b""


def test_http_1_0_is_served_and_closed(served):
    with served.connect() as sock:
        text = f"GET / HTTP/1.0\r\nHost: {served.host}\r\nAuthorization: {TOKEN}\r\n\r\n"
        assert served.raw(text, sock=sock)[0] == 200
        assert sock.recv(1) == b""


def test_a_query_and_a_request_in_pieces_are_fine(served):
    with served.connect() as sock:
        text = served.head("/?a=b", Authorization=TOKEN).encode()
        sock.sendall(text[:20])
        assert served.raw(text[20:], sock=sock)[0] == 200


@pytest.mark.parametrize(
    ("path", "headers", "status"),
    [
        ("/", {}, 403),
        ("/", {"Authorization": ""}, 403),
        ("/", {"Authorization": TOKEN + "x"}, 403),
        ("/", {"Authorization": TOKEN[:-1]}, 403),
        ("/", {"Authorization": f"Bearer {TOKEN}"}, 403),
        ("/", {"Authorization": f"  {TOKEN}  "}, 200),
        ("/role-arn/" + ROLE, {}, 403),
        ("/nothing", {"Authorization": TOKEN}, 404),
        ("/role-arn/", {"Authorization": TOKEN}, 400),
        ("/role-arn/arn:aws:iam::1:role/x", {"Authorization": TOKEN}, 400),
        ("/role-arn/arn:aws:iam::111111111111:role/%0a", {"Authorization": TOKEN}, 400),
    ],
)
def test_token_and_paths(served, path, headers, status):
    answer = served.ask(path, **headers)
    assert answer[0] == status
    if status != 200:
        assert list(json.loads(answer[2])) == ["Message"]
        assert b"ASIA" not in answer[2]


@pytest.mark.parametrize(("kind", "path"), [("metadata", "/"), ("container", "/latest/meta-data/")])
def test_only_what_was_asked_for_is_served(make, kind, path):
    served = make(container=kind == "container", metadata=kind == "metadata")
    assert served.container(path)[0] == 404


# ======================================================================
# Instance metadata
# ======================================================================

CREDENTIALS_PATH = "/latest/meta-data/iam/security-credentials/local-credentials"


def test_metadata_credentials(served):
    status, _, body = served.metadata(CREDENTIALS_PATH)
    assert status == 200
    assert json.loads(body) == {
        "Code": "Success",
        "LastUpdated": "2030-01-01T00:00:00Z",
        "Type": "AWS-HMAC",
        "AccessKeyId": "ASIADUMMYEXAMPLE0001",
        "SecretAccessKey": "dummy/secret",
        "Token": "dummy-token",
        "Expiration": "2030-01-01T01:00:00Z",
        "AccountId": "111111111111",
    }


@pytest.mark.parametrize(
    ("path", "body"),
    [
        ("/latest/meta-data/iam/security-credentials/", "local-credentials"),
        ("/latest/meta-data/iam/security-credentials", "local-credentials"),
        ("/latest/meta-data/instance-id", "aws-vault"),
        ("/latest/meta-data/instance-id/", "aws-vault"),
        ("/latest/meta-data/placement/region", "eu-west-1"),
        ("/latest/meta-data/placement/availability-zone/", "eu-west-1a"),
        ("/latest/meta-data/placement/availability-zone", "eu-west-1a"),
    ],
)
def test_metadata_texts(served, path, body):
    status, headers, got = served.metadata(path)
    assert (status, got.decode(), headers["content-type"]) == (200, body, "text/plain")


def test_metadata_documents(served):
    info = json.loads(served.metadata("/latest/meta-data/iam/info")[2])
    assert info["Code"] == "Success"
    identity = json.loads(served.metadata("/latest/dynamic/instance-identity/document")[2])
    assert identity == {"region": "eu-west-1", "accountId": "111111111111"}


def test_a_token_says_how_long_it_lives(served):
    status, headers, body = served.ask(
        "/latest/api/token", method="PUT", X_aws_ec2_metadata_token_ttl_seconds="21600",
        Content_Length="0",
    )  # fmt: skip
    assert (status, headers["x-aws-ec2-metadata-token-ttl-seconds"]) == (200, "21600")
    assert len(body) > 40


@pytest.mark.parametrize("ttl", [None, "", "0", "21601", "-1", "1.5", "abc", "999999999", "²"])
def test_a_missing_or_wrong_ttl_is_the_only_400(served, ttl):
    status, headers, body = served.raw(
        served.head(
            "/latest/api/token", method="PUT", X_aws_ec2_metadata_token_ttl_seconds=ttl
        ).encode()
    )
    assert (status, headers["content-length"], body) == (400, "0", b"")


def test_a_token_is_needed_must_be_ours_and_ends(served, world):
    for headers in ({"X_aws_ec2_metadata_token": None}, {"X_aws_ec2_metadata_token": "x-y"},
                    {"X_aws_ec2_metadata_token": ""}):  # fmt: skip
        status, answer_headers, body = served.metadata(CREDENTIALS_PATH, **headers)
        assert (status, answer_headers["content-length"], body) == (401, "0", b"")
    token = served.metadata_token("60")
    world.clock += 59
    assert served.metadata(CREDENTIALS_PATH, X_aws_ec2_metadata_token=token)[0] == 200
    world.clock += 3
    assert served.metadata(CREDENTIALS_PATH, X_aws_ec2_metadata_token=token)[0] == 401
    end, _, seal = token.partition("-")
    forged = f"{int(end, 16) + 1000:x}-{seal}"
    assert served.metadata(CREDENTIALS_PATH, X_aws_ec2_metadata_token=forged)[0] == 401


def test_v1_only_when_asked_for_and_never_with_a_wrong_token(make):
    served = make(imds_v1=True)
    assert served.ask(CREDENTIALS_PATH)[0] == 200
    assert served.ask(CREDENTIALS_PATH, X_aws_ec2_metadata_token="wrong")[0] == 401


@pytest.mark.parametrize(
    ("path", "method", "status"),
    [
        ("/latest/api/token", "GET", 405),
        ("/latest/api/token", "POST", 405),
        (CREDENTIALS_PATH, "PUT", 405),
        (CREDENTIALS_PATH, "OPTIONS", 405),
        (CREDENTIALS_PATH, "HEAD", 405),
        ("/latest/meta-data/nothing", "GET", 404),
        ("/latest/meta-data/iam/security-credentials-extended/", "GET", 404),
    ],
)
def test_metadata_refusals_have_no_body(served, path, method, status):
    token = served.metadata_token()
    got, headers, body = served.ask(path, method=method, X_aws_ec2_metadata_token=token)
    assert (got, headers["content-length"], body) == (status, "0", b"")


def test_no_region_is_not_found(make):
    served = make(region="")
    assert served.metadata("/latest/meta-data/placement/region")[0] == 404
    assert served.metadata("/latest/meta-data/placement/availability-zone/")[0] == 404


# ======================================================================
# Refusals, by raw sockets
# ======================================================================


@pytest.mark.parametrize("path", ["/", CREDENTIALS_PATH])
@pytest.mark.parametrize(
    "headers",
    [
        {"Origin": "http://example.com"},
        {"Origin": "null"},
        {"Referer": "http://127.0.0.1/"},
        {"Sec_Fetch_Site": "same-origin"},
        {"Sec_Fetch_Mode": "navigate"},
        {"X_Forwarded_For": "127.0.0.1"},
        {"Forwarded": "for=127.0.0.1"},
        {"Via": "1.1 proxy"},
        {"Host": "evil.example"},
        {"Host": "localhost"},
        {"Host": "127.0.0.1"},
        {"Host": "127.0.0.1:1"},
        {"Host": "169.254.169.254"},
        {"Host": ""},
        {"Host": None},
    ],
)
def test_browsers_proxies_and_other_hosts_are_refused(served, path, headers):
    token = served.metadata_token()
    sent = {"Authorization": TOKEN, "X_aws_ec2_metadata_token": token, **headers}
    status, _, body = served.ask(path, **sent)
    assert status == 403
    assert b"ASIA" not in body


@pytest.mark.parametrize(
    "method", ["POST", "PUT", "DELETE", "HEAD", "OPTIONS", "PATCH", "TRACE", "CONNECT"]
)
def test_only_get(served, method):
    status, headers, _ = served.ask(method=method, Authorization=TOKEN)
    assert (status, headers["allow"]) == (405, "GET")
    assert not [name for name in headers if name.startswith("access-control")]


MALFORMED = {
    "two requests at once": "{good}{good}",
    "a body": "{start}Content-Length: 5\r\n\r\nhello",
    "a length without a body": "{start}Content-Length: 5\r\n\r\n",
    "chunked": "{start}Transfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
    "chunked, nothing more": "{start}Transfer-Encoding: chunked\r\n\r\n",
    "length and chunked": "{start}Content-Length: 0\r\nTransfer-Encoding: chunked\r\n\r\n",
    "two lengths": "{start}Content-Length: 0\r\nContent-Length: 0\r\n\r\n",
    "a signed length": "{start}Content-Length: +0\r\n\r\n",
    "two hosts": "{start}Host: evil.example\r\n\r\n",
    "two tokens": "{start}Authorization: x\r\n\r\n",
    "a blank before the colon": "{start}X-A : b\r\n\r\n",
    "a folded header": "{start}X-A: b\r\n c\r\n\r\n",
    "no colon": "{start}X-A\r\n\r\n",
    "an empty name": "{start}: b\r\n\r\n",
    "a null byte": "{start}X-A: \0b\r\n\r\n",
    "a carriage return in a value": "{start}X-A: b\rX-B: c\r\n\r\n",
    "bare line feeds": "GET / HTTP/1.1\nHost: {host}\nAuthorization: {token}\n\n",
    "a bare line feed between headers": "{start}X-A: b\nX-B: c\r\n\r\n",
    "an absolute target": "GET http://{host}/ HTTP/1.1\r\nHost: {host}\r\n\r\n",
    "a star": "OPTIONS * HTTP/1.1\r\nHost: {host}\r\n\r\n",
    "no version": "GET /\r\nHost: {host}\r\n\r\n",
    "version 2": "GET / HTTP/2.0\r\nHost: {host}\r\n\r\n",
    "version 0.9 with blanks": "GET  / HTTP/1.1\r\nHost: {host}\r\n\r\n",
    "a blank in the target": "GET /a b HTTP/1.1\r\nHost: {host}\r\n\r\n",
    "a leading empty line": "\r\n{good}",
    "TLS": "\x16\x03\x01\x02\0\x01\0\r\n\r\n",
    "HTTP/2": "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
}


@pytest.mark.parametrize("name", MALFORMED)
def test_what_two_readers_could_read_in_two_ways_is_refused(served, name):
    good = served.head(Authorization=TOKEN)
    text = MALFORMED[name].format(good=good, start=good[:-2], host=served.host, token=TOKEN)
    with served.connect() as sock:
        status, headers, body = served.raw(text, sock=sock)
        assert (status, headers["connection"]) == (400, "close")
        assert b"ASIA" not in body
        assert sock.recv(100) == b"", "a second answer came"


@pytest.mark.parametrize(
    ("text", "status"),
    [
        ("{start}X-A: " + "a" * 20_000 + "\r\n\r\n", 431),
        ("{start}X-A: " + "a" * 200_000, 431),
        ("{start}" + "".join(f"X-{n}: a\r\n" for n in range(100)) + "\r\n", 431),
        ("GET /" + "a" * 5000 + " HTTP/1.1\r\nHost: {host}\r\n\r\n", 414),
        ("GET /" + "a" * 200_000, 414),
        ("{start}Expect: 100-continue\r\n\r\n", 417),
    ],
)
def test_sizes_are_bounded(served, text, status):
    start = served.head(Authorization=TOKEN)[:-2]
    assert served.raw(text.format(start=start, host=served.host))[0] == status


def test_a_slow_client_is_given_up_and_holds_nobody_up(served, monkeypatch):
    monkeypatch.setattr(awsvault, "HEAD_SECONDS", 0.3)
    with served.connect() as slow, served.connect() as silent:
        slow.sendall(b"GET / HTTP/1.1\r\nHo")
        assert served.container()[0] == 200
        assert read_answer(slow)[0] == 408
        assert silent.recv(1) == b""


def test_a_client_that_sends_byte_by_byte_has_no_more_time(make, monkeypatch):
    monkeypatch.setattr(awsvault, "HEAD_SECONDS", 0.3)
    served = make()
    served.world.monotonic = time.monotonic
    with served.connect() as slow:
        for byte in served.head(X_A="a" * 1000).encode():
            slow.sendall(bytes([byte]))
            if select.select([slow], [], [], 0.01)[0]:
                break
        assert read_answer(slow)[0] == 408


def test_an_idle_kept_connection_is_closed_later(served, monkeypatch):
    with served.connect() as sock:
        served.container(sock=sock)
        monkeypatch.setattr(awsvault, "IDLE_SECONDS", 0.2)
        assert served.container(sock=sock)[0] == 200
        assert sock.recv(1) == b""
    assert served.container()[0] == 200


def wait_until_open(socks, most):
    """Wait until at most so many connections are still open."""
    deadline = time.monotonic() + 20
    while len(socks) - len(select.select(socks, [], [], 0)[0]) > most:
        assert time.monotonic() < deadline


def test_connections_are_bounded_and_a_crowd_keeps_nobody_out(served):
    with contextlib.ExitStack() as stack:
        crowd = [
            stack.enter_context(served.connect()) for _ in range(awsvault.MAX_CONNECTIONS + 40)
        ]
        assert served.container()[0] == 200
        wait_until_open(crowd, awsvault.MAX_CONNECTIONS)
        assert len(crowd) > awsvault.MAX_CONNECTIONS


def test_a_crowd_of_kept_connections_makes_room_for_new_ones(served):
    with contextlib.ExitStack() as stack:
        for _ in range(awsvault.MAX_CONNECTIONS * 2):
            assert served.container(sock=stack.enter_context(served.connect()))[0] == 200


def test_kept_connections_that_are_in_use_outlive_idle_ones(make):
    served = make(most=8)
    with contextlib.ExitStack() as stack:
        busy = stack.enter_context(served.connect())
        for number in range(30):
            served.world.clock += 1
            assert served.container(sock=busy)[0] == 200
            served.world.clock += 1
            sock = stack.enter_context(served.connect())
            assert served.container(sock=sock)[0] == 200, number


def test_a_client_that_never_takes_its_answers_is_cut_off(served):
    with served.connect() as greedy:
        greedy.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        request = served.head("/nothing", Authorization=TOKEN).encode()

        def never_read():
            for _ in range(200_000):
                greedy.sendall(request)

        with pytest.raises(OSError):
            never_read()
    assert served.container()[0] == 200


def test_a_client_that_goes_away_while_it_waits_is_forgotten(make, world):
    served = make(left=0, lazy=True, metadata=False)
    with served.connect() as sock:
        sock.sendall(served.head(Authorization=TOKEN).encode())
        world.await_task()
    world.reply(fetched(world, HOUR))
    assert served.container()[0] == 200


@pytest.mark.parametrize("late", [False, True], ids=["answered in time", "not in time"])
def test_a_client_that_says_nothing_more_gets_its_answer(make, world, late):
    served = make(left=0, lazy=True, metadata=False)
    with served.connect() as sock:
        sock.sendall(served.head(Authorization=TOKEN).encode())
        sock.shutdown(socket.SHUT_WR)
        world.await_task()
        if late:
            world.advance(awsvault.CONTAINER.wait + 0.1)
        else:
            world.reply(fetched(world, HOUR))
        assert read_answer(sock)[0] == (503 if late else 200)
        assert sock.recv(1) == b""


def test_others_flood_cuts_no_kept_connection(served, monkeypatch):
    if not LINUX:
        pytest.skip("only Linux tells who asks")
    theirs = set()
    allows = awsvault.PeerCheck.allows
    monkeypatch.setattr(
        awsvault.PeerCheck, "allows", lambda self, peer: peer not in theirs and allows(self, peer)
    )
    with contextlib.ExitStack() as stack:
        kept = stack.enter_context(served.connect())
        assert served.container(sock=kept)[0] == 200
        crowd = []
        for _ in range(awsvault.MAX_CONNECTIONS * 2):
            client = stack.enter_context(socket.socket())
            client.bind(("127.0.0.1", 0))
            theirs.add(client.getsockname())
            client.connect(served.address)
            crowd.append(client)
        assert served.container(sock=kept)[0] == 200
        wait_until_open(crowd, awsvault.MAX_CONNECTIONS // 2)


# ======================================================================
# Who asks
# ======================================================================

linux = pytest.mark.skipif(not LINUX, reason="only Linux tells who asks")
as_root = pytest.mark.skipif(os.geteuid() != 0, reason="only root can be somebody else")

ASK = """
import os, socket, sys
if int(sys.argv[1]):
    os.setgid(65534); os.setuid(int(sys.argv[1]))
family, address = (socket.AF_INET6, "::ffff:127.0.0.1") if sys.argv[2] == "6" else (socket.AF_INET, "127.0.0.1")
sock = socket.socket(family)
sock.connect((address, int(sys.argv[3])))
sock.sendall(sys.argv[4].encode())
print(sock.recv(4096).split()[1].decode())
"""


def ask_as(served, uid, family, request):
    import subprocess
    import sys

    line = [
        sys.executable,
        "-I",
        "-S",
        "-c",
        ASK,
        str(uid),
        family,
        str(served.port.number),
        request,
    ]
    return subprocess.run(
        line, capture_output=True, text=True, timeout=60, check=True
    ).stdout.strip()


@linux
@as_root
@pytest.mark.parametrize("family", ["4", "6"])
@pytest.mark.parametrize("uid", [65534, 12345])
def test_another_user_is_refused_on_both_protocols(served, family, uid):
    container = served.head(Authorization=TOKEN)
    metadata = served.head(CREDENTIALS_PATH, X_aws_ec2_metadata_token=served.metadata_token())
    for request in (container, metadata):
        assert ask_as(served, uid, family, request) == "403"
        assert ask_as(served, 0, family, request) == "200"


@linux
@as_root
def test_metadata_for_any_user_leaves_the_container_endpoint_closed(make):
    served = make(imds_any_user=True)
    metadata = served.head(CREDENTIALS_PATH, X_aws_ec2_metadata_token=served.metadata_token())
    assert ask_as(served, 65534, "4", metadata) == "200"
    assert ask_as(served, 65534, "4", served.head(Authorization=TOKEN)) == "403"


@linux
def test_a_closed_socket_is_nobodys(served):
    sock = socket.create_connection(served.address)
    peer = sock.getsockname()
    check = awsvault.PeerCheck(served.world, "127.0.0.1", served.port.number)
    with check.netlink:
        assert check.owner(peer)[0] == os.getuid()
        sock.close()
        assert check.owner(peer) is None
        assert check.owner(("127.0.0.1", 1)) is None
        assert not check.allows(("127.0.0.1", 1))


@linux
def test_strict_peer_serves_descendants_only(make):
    request = {"family": "4"}
    served = make(strict_peer=True)
    assert ask_as(served, 0, request["family"], served.head(Authorization=TOKEN)) == "200"
    # The same number with another start time is another process: the number was used again.
    served = make(strict_peer=True, command=awsvault.ProcessIdentity(os.getpid(), "1"))
    assert ask_as(served, 0, request["family"], served.head(Authorization=TOKEN)) == "403"
    # A process that is not in the family.
    unrelated = os.getppid()
    parent = awsvault.ProcessIdentity(unrelated, served.world.process_stat(unrelated)[1])
    assert awsvault.descends(served.world, os.getpid(), parent)
    assert not awsvault.descends(served.world, unrelated, served.state.command)


# ======================================================================
# Renewal
# ======================================================================


def held(served):
    """The end of the id of the key that is served."""
    return json.loads(served.container()[2])["AccessKeyId"][-4:]


def test_renewed_when_sixteen_minutes_remain_from_the_source_session(make, world):
    served = make()
    world.advance(HOUR - 16 * 60 - 1)
    assert world.tasks == []
    world.advance(2)
    assert [{"source", "links"} <= set(task) for task in world.tasks] == [True]
    assert world.tasks[0]["source"]["access_key_id"] == "ASIADUMMYEXAMPLESRCE"
    assert world.tasks[0]["links"] == [LINK.members()]
    assert (world.argv, world.limits) == ([["renew"]], [awsvault.RENEWAL_SECONDS])
    world.reply(fetched(world, HOUR))
    assert held(served) == "0002"


def test_a_short_life_is_renewed_after_two_thirds(make, world):
    make(life=900, left=900)
    world.advance(599)
    assert world.tasks == []
    world.advance(2)
    assert len(world.tasks) == 1


def test_never_twice_within_a_minute(make, world):
    make(left=HOUR)
    world.advance(HOUR - 900)
    world.reply(failed())
    for _ in range(5):
        world.advance(10)
    assert len(world.tasks) == 1
    world.advance(11)
    assert len(world.tasks) == 2


def test_credentials_that_live_seconds_are_still_renewed_once_a_minute_only(make, world):
    served = make(left=10)
    world.reply(fetched(world, 10))
    world.advance(20)
    assert served.container()[0] == 503
    assert len(world.tasks) == 1
    world.advance(41)
    assert len(world.tasks) == 2


def test_stale_but_valid_is_served_while_renewal_runs_or_fails(make, world):
    served = make(left=901)
    assert served.container()[0] == 200
    world.advance(200)
    world.await_task()
    assert {held(served) for _ in range(20)} == {"0001"}
    world.reply(failed(never=True))
    world.advance(500)
    assert served.container()[0] == 200


@pytest.mark.parametrize(
    ("failure", "status", "said"),
    [
        ({}, 503, "something failed"),
        ({"needs_user": True}, 503, "run awsvault exec admin in another terminal to renew"),
        ({"never": True}, 403, "something failed"),
        ({"restart": True, "needs_user": True}, 403, "restart the command to renew"),
    ],
)
def test_5xx_means_not_now_and_4xx_never(make, world, failure, status, said):
    served = make(left=0)
    with served.connect() as sock:
        sock.sendall(served.head(Authorization=TOKEN).encode())
        world.reply(failed(**failure))
        got, _, body = read_answer(sock)
    assert got == status
    assert json.loads(body)["Message"].endswith(said)
    token = served.metadata_token()
    assert served.ask(CREDENTIALS_PATH, X_aws_ec2_metadata_token=token)[0] == status


def test_the_last_second_is_never_handed_out(make, world):
    served = make(left=1.5)
    assert served.container()[0] == 200
    world.reply(failed())
    world.advance(0.6)
    assert served.container()[0] == 503


def test_over_metadata_little_is_not_handed_out_while_more_can_be_had(make, world):
    served = make(left=599)
    token = served.metadata_token()
    with served.connect() as sock:
        sock.sendall(served.head(CREDENTIALS_PATH, X_aws_ec2_metadata_token=token).encode())
        world.reply(fetched(world, HOUR))
        assert json.loads(read_answer(sock)[2])["AccessKeyId"].endswith("0002")
    assert len(world.tasks) == 1


def test_over_metadata_little_is_handed_out_when_there_is_no_more(make, world):
    served = make(left=599)
    world.reply(failed())
    assert json.loads(served.metadata(CREDENTIALS_PATH)[2])["AccessKeyId"].endswith("0001")


@pytest.mark.parametrize("kind", ["container", "metadata"])
def test_a_request_waits_no_longer_than_its_sdk(make, world, kind):
    served = make(left=0)
    headers = {"Authorization": TOKEN}
    if kind == "metadata":
        headers = {"X_aws_ec2_metadata_token": served.metadata_token()}
    with served.connect() as sock:
        path = "/" if kind == "container" else CREDENTIALS_PATH
        sock.sendall(served.head(path, **headers).encode())
        world.await_task()
        world.advance((1.5 if kind == "container" else 0.8) + 0.1)
        assert read_answer(sock)[0] == 503
    world.reply(fetched(world, HOUR))
    assert served.container()[0] == 200


def test_lazy_fetches_once_for_thirty_first_requests(make, world):
    served = make(left=0, lazy=True, metadata=False)
    served.ask("/nothing")
    world.advance(HOUR)
    assert world.tasks == []
    with contextlib.ExitStack() as stack:
        socks = [stack.enter_context(served.connect()) for _ in range(30)]
        for sock in socks:
            sock.sendall(served.head(Authorization=TOKEN).encode())
        world.reply(fetched(world, HOUR))
        assert {read_answer(sock)[0] for sock in socks} == {200}
    assert len(world.tasks) == 1


def test_when_the_source_session_has_ended_the_vault_is_asked(make, world):
    make(source=HOUR)
    world.advance(HOUR - 30)
    assert world.tasks == [{"quiet": False, "held_until": "2030-01-01T01:00:00Z"}]
    world.reply(fetched(world, HOUR, source=credentials(world, 8 * HOUR, "SRC2")))
    world.advance(HOUR - 900)
    assert world.tasks[1]["source"]["access_key_id"] == "ASIADUMMYEXAMPLESRC2"


def test_a_source_session_that_aws_does_not_know_any_more_is_not_used_again(make, world):
    make()
    world.advance(HOUR - 900)
    world.reply(failed(expired=True))
    world.advance(61)
    assert "source" not in world.tasks[1]


def test_a_profile_without_a_role_is_served_the_session_itself(make, world):
    make(links=False, life=8 * HOUR, left=8 * HOUR)
    world.advance(8 * HOUR - 900)
    assert world.tasks == [{"quiet": False, "held_until": "2030-01-01T08:00:00Z"}]


def test_a_cancelled_prompt_is_not_opened_again_and_a_later_session_is_adopted(make, world):
    served = make(source=0)
    world.advance(HOUR - 900)
    world.reply(failed(needs_user=True, asked=True))
    world.advance(61)
    assert [task["quiet"] for task in world.tasks] == [False, True]
    world.reply(fetched(world, HOUR, "ADPT"))
    assert held(served) == "ADPT"
    world.advance(HOUR - 900)
    assert world.tasks[2]["quiet"] is False


def test_the_person_is_told_once(make, world):
    make(source=0)
    for _ in range(3):
        world.advance(HOUR - 900)
        world.reply(failed(needs_user=True))
    assert world.notices == [
        "the session of 'admin' can't be renewed without you: run awsvault exec admin in another terminal to renew"
    ]


def test_a_vault_that_does_not_open_alone_is_not_tried_again(make, world):
    served = make(source=0)
    world.advance(HOUR - 900)
    world.reply(failed(needs_user=True, restart=True))
    world.advance(600)
    assert served.container()[0] == 200
    world.advance(600)
    assert served.container()[0] == 403
    assert len(world.tasks) == 1
    assert world.notices == [
        "the session of 'admin' can't be renewed: restart the command to renew"
    ]


def test_trouble_with_aws_is_told_when_little_is_left(make, world):
    make()
    world.advance(HOUR - 900)
    world.reply(failed())
    assert world.notices == []
    world.advance(700)
    assert world.notices == ["the session of 'admin' can't be renewed for now: something failed"]


@pytest.mark.parametrize(
    ("answer", "said"),
    [
        ("", "the process that renews died"),
        ("no JSON", "the process that renews died"),
        ("{}", "credentials without an end can't be served"),
        ('{"current": null}', "credentials without an end can't be served"),
        ('{"failure": {"x": 1}}', "the process that renews died"),
        (awsvault.ToolTimeout("it did not end"), "AWS did not answer in time"),
        (awsvault.ToolError("can't run it"), "can't run it"),
        (RuntimeError("a bug"), "the renewal failed"),
    ],
)
@pytest.mark.filterwarnings("ignore::pytest.PytestUnhandledThreadExceptionWarning")
def test_a_process_that_dies_or_talks_nonsense_changes_nothing(make, world, answer, said):
    served = make()
    world.advance(HOUR - 900)
    world.reply(answer)
    assert held(served) == "0001"
    world.advance(880)
    assert world.notices == [f"the session of 'admin' can't be renewed for now: {said}"]


def test_credentials_that_have_ended_are_not_taken(make, world):
    served = make(left=0)
    with served.connect() as sock:
        sock.sendall(served.head(Authorization=TOKEN).encode())
        world.reply(fetched(world, -1))
        status, _, body = read_answer(sock)
    assert (status, json.loads(body)["Message"]) == (503, "the new credentials have ended already")


def test_a_thread_that_can_t_be_started_is_said(make, world, monkeypatch):
    served = make(left=0)
    with served.connect() as sock:
        assert served.ask("/nothing", sock=sock)[0] == 403  # it has a thread by now
        monkeypatch.setattr(world, "start_thread", refuse_thread)
        status, _, body = served.container(sock=sock)
    assert (status, json.loads(body)["Message"]) == (503, "can't start a thread: no more")


def refuse_thread(_work):
    raise OSError(errno.EAGAIN, "no more")


def test_a_client_waits_for_a_thread_where_there_can_be_no_more(served, world, monkeypatch):
    with served.connect() as first, served.connect() as second:
        assert served.container(sock=first)[0] == 200
        monkeypatch.setattr(world, "start_thread", refuse_thread)
        second.sendall(served.head(Authorization=TOKEN).encode())
        assert served.container(sock=first, Connection="close")[0] == 200
        first.close()
        assert read_answer(second)[0] == 200


# ======================================================================
# /role-arn/
# ======================================================================


def test_a_role_is_fetched_once_for_twenty_requests_and_kept(make, world):
    served = make()
    path = "/role-arn/" + ROLE.replace("/", "%2F")
    with contextlib.ExitStack() as stack:
        socks = [stack.enter_context(served.connect()) for _ in range(20)]
        for sock in socks:
            sock.sendall(served.head(path, Authorization=TOKEN).encode())
        world.reply(fetched(world, HOUR, "ROLE"))
        answers = [json.loads(read_answer(sock)[2])["AccessKeyId"] for sock in socks]
    assert set(answers) == {"ASIADUMMYEXAMPLEROLE"}
    assert served.container("/role-arn/" + ROLE)[0] == 200
    assert len(world.tasks) == 1
    assert world.tasks[0]["links"] == [LINK.replace(role_arn=ROLE).members()]
    assert world.tasks[0]["source"]["access_key_id"] == "ASIADUMMYEXAMPLE0001"


def test_a_refused_role_is_403_and_the_profiles_own_credentials_go_on(make, world):
    served = make()
    with served.connect() as sock:
        sock.sendall(served.head("/role-arn/" + ROLE, Authorization=TOKEN).encode())
        world.reply(failed(never=True))
        assert read_answer(sock)[0] == 403
    assert served.container()[0] == 200


def test_a_role_is_fetched_anew_when_it_is_asked_for_near_its_end(make, world):
    served = make(left=8 * HOUR, life=8 * HOUR, links=False)
    with served.connect() as sock:
        sock.sendall(served.head("/role-arn/" + ROLE, Authorization=TOKEN).encode())
        world.reply(fetched(world, HOUR, "ROLE"))
        assert read_answer(sock)[0] == 200
    world.advance(HOUR - 900)
    assert len(world.tasks) == 1
    assert served.container("/role-arn/" + ROLE)[0] == 200
    assert len(world.tasks) == 2


def test_roles_are_bounded(make, world):
    served = make()
    for number in range(awsvault.MAX_ROLE_ARNS + 5):
        with served.connect() as sock:
            path = f"/role-arn/{ROLE}{number}"
            sock.sendall(served.head(path, Authorization=TOKEN).encode())
            world.reply(fetched(world, HOUR, "ROLE"))
            assert read_answer(sock)[0] == 200
    made = len(world.tasks)
    assert served.container(f"/role-arn/{ROLE}{number}")[0] == 200  # is kept
    assert len(world.tasks) == made
    with served.connect() as sock:
        sock.sendall(served.head(f"/role-arn/{ROLE}0", Authorization=TOKEN).encode())
        world.reply(fetched(world, HOUR, "ROLE"))  # the oldest was forgotten
        assert read_answer(sock)[0] == 200


def test_no_more_than_so_many_roles_are_fetched_at_once(make, world):
    served = make()
    with contextlib.ExitStack() as stack:
        for number in range(awsvault.MAX_ROLE_ARNS):
            sock = stack.enter_context(served.connect())
            sock.sendall(served.head(f"/role-arn/{ROLE}{number}", Authorization=TOKEN).encode())
        world.await_that(lambda: len(world.pending) == awsvault.MAX_ROLE_RENEWALS)
        deadline = time.monotonic() + 20
        while len(world.renewals) < awsvault.MAX_ROLE_ARNS:
            assert time.monotonic() < deadline
        status, _, body = served.container(f"/role-arn/{ROLE}-more")
        assert (status, json.loads(body)["Message"]) == (503, "too many roles at once")
        assert len(world.pending) == awsvault.MAX_ROLE_RENEWALS
        assert served.container()[0] == 200


def test_without_valid_credentials_no_role_is_fetched_from_them(make, world):
    served = make(left=0)
    assert served.container("/role-arn/" + ROLE)[0] == 503
    assert [task.get("links") for task in world.tasks] == [[LINK.members()]]


# ======================================================================
# The port, the state, the modes
# ======================================================================


def through_a_pipe(value):
    text = (
        Secret(awsvault.go_json(value.members())).reveal_bytes().decode("utf-8", "surrogateescape")
    )
    return type(value).from_members(awsvault.parse_json_object(text))


def test_state_survives_the_pipe(make):
    state = make().state.replace(folder="/home/jos\udce9/.awsvault/run/x")
    assert through_a_pipe(state) == state
    assert "dummy/secret" not in repr(state)


def test_role_survives_the_pipe():
    role = awsvault.AssumeRole(
        awsvault.StoredKeys(""), awsvault.SessionSlot("x", "y"),
        awsvault.Endpoint("eu-west-1", "http://127.0.0.1:1", fips=True), datetime.timedelta(hours=1),
        role_arn=ROLE, role_session_name="me", external_id="x", session_tags=(("a", "b"),),
        transitive_tags=("a",), source_identity="jon",
    )  # fmt: skip
    task = awsvault.RenewTask(False, links=(awsvault.unfiled(role),))
    assert through_a_pipe(task) == task


NO_FLAGS = dict.fromkeys(awsvault.SERVER_FLAGS, False)


@pytest.mark.parametrize(
    ("flags", "container", "metadata"),
    [
        ({"server": True}, True, True),
        ({"ecs_server": True}, True, False),
        ({"ec2_server": True}, False, True),
        ({"server": True, "lazy": True}, True, False),
        ({"ecs_server": True, "ec2_server": True}, True, True),
    ],
)
@linux
def test_what_flags_serve(world, flags, container, metadata):
    mode = awsvault.server_mode(world, no_session=False, **{**NO_FLAGS, **flags})
    assert (mode.container, mode.metadata, mode.check_peer) == (container, metadata, True)


@pytest.mark.parametrize(
    ("flags", "no_session", "words"),
    [
        ({"lazy": True}, False, "--lazy is about a server"),
        ({"imds_v1": True}, False, "--imds-v1 is about a server"),
        ({"strict_peer": True}, False, "--strict-peer is about a server"),
        ({"server": True}, True, "--server needs a session to renew from"),
        ({"ec2_server": True, "lazy": True}, False, "--lazy can't be with instance metadata"),
        ({"ecs_server": True, "imds_v1": True}, False, "--imds-v1 is about instance metadata"),
        ({"ecs_server": True, "imds_any_user": True}, False, "--imds-any-user is about instance"),
    ],
)
def test_what_flags_can_not_be_together(world, flags, no_session, words):
    with pytest.raises(awsvault.UsageError, match=words):
        awsvault.server_mode(world, no_session=no_session, **{**NO_FLAGS, **flags})


def test_what_can_t_be_with_lazy_is_not_advised(world):
    flags = {**NO_FLAGS, "server": True, "lazy": True, "link_local": True}
    with pytest.raises(awsvault.UsageError) as error:
        awsvault.server_mode(world, no_session=False, **flags)
    assert error.value.hint == "use --ec2-server without --lazy"


def test_json_starts_nothing(cli):
    result = cli.run("exec", "--json", "--server", "prod")
    assert result.code == 2
    assert (
        "--json prints credentials and starts nothing, so --server can't be with it" in result.err
    )


def test_where_nobody_tells_who_asks_metadata_needs_a_word(world, monkeypatch, capfd):
    monkeypatch.setattr(awsvault, "can_see_peers", lambda world: False)

    def mode(**flags):
        return awsvault.server_mode(world, no_session=False, **{**NO_FLAGS, **flags})

    with pytest.raises(awsvault.UsageError, match="does not tell who asks"):
        mode(ec2_server=True)
    with pytest.raises(awsvault.UsageError, match="--strict-peer"):
        mode(ecs_server=True, strict_peer=True)
    assert mode(ec2_server=True, imds_any_user=True).metadata
    assert not mode(server=True).metadata
    assert "only the container endpoint is served" in capfd.readouterr().err
    assert not mode(ecs_server=True).check_peer


@linux
@pytest.mark.parametrize("option", ["SO_REUSEADDR", "SO_REUSEPORT", None])
@pytest.mark.parametrize("address", ["127.0.0.1", "0.0.0.0"])
def test_the_port_stays_reserved_when_the_server_is_gone(option, address):
    port = awsvault.ServerPort()
    try:
        port.listener.close()
        with pytest.raises(ConnectionRefusedError):
            socket.create_connection(("127.0.0.1", port.number), timeout=5)
        with socket.socket() as thief:
            if option:
                thief.setsockopt(socket.SOL_SOCKET, getattr(socket, option), 1)
            with pytest.raises(OSError):
                thief.bind((address, port.number))
    finally:
        port.close()


def test_no_port_is_one_clear_error(monkeypatch):
    def refuse(*_):
        raise OSError(98, "Address already in use")

    monkeypatch.setattr(socket.socket, "bind", refuse)
    monkeypatch.setattr(sys, "platform", "linux")
    with pytest.raises(awsvault.AwsVaultError, match="no local port for the server"):
        awsvault.can_see_peers(awsvault.World())
    with pytest.raises(
        awsvault.AwsVaultError, match="no local port for the server: address already"
    ):
        awsvault.ServerPort()


# ======================================================================
# The chain of a server
# ======================================================================

KEYS = awsvault.ProfileConfig("prod")
MFA, OTHER_MFA = "arn:aws:iam::111111111111:mfa/jon", "arn:aws:iam::111111111111:mfa/ann"


def role(name, source, **settings):
    return awsvault.ProfileConfig(
        name, source=source, role_arn=f"arn:aws:iam::111111111111:role/{name}", **settings
    )


@pytest.mark.parametrize(
    ("target", "words"),
    [
        (KEYS, "stored prod > session prod 8h0m0s"),
        (KEYS.replace(mfa_serial=MFA), "stored prod > session prod 8h0m0s (mfa jon)"),
        (role("admin", KEYS), "stored prod > session prod 8h0m0s > role admin 1h0m0s"),
        (
            role("admin", KEYS, mfa_serial=MFA),
            "stored prod > session prod 8h0m0s (mfa jon) > role admin 1h0m0s",
        ),
        (
            role("admin", KEYS.replace(mfa_serial=MFA)),
            "stored prod > session prod 8h0m0s > role admin 1h0m0s",
        ),
        (
            role("admin", KEYS, role_duration=awsvault.Duration(datetime.timedelta(hours=4))),
            "stored prod > session prod 8h0m0s > role admin 1h0m0s",
        ),
        (
            role("deep", role("admin", KEYS), mfa_serial=MFA),
            "stored prod > session prod 8h0m0s (mfa jon) > role admin 1h0m0s > role deep 1h0m0s",
        ),
    ],
)
def test_a_server_starts_from_a_session(target, words):
    plan = awsvault.plan_chain(target, ["prod"], always_session=True)
    assert plan.provider.describe() == words


def test_two_devices_in_one_chain_are_refused():
    target = role("deep", role("admin", KEYS, mfa_serial=MFA), mfa_serial=OTHER_MFA)
    with pytest.raises(awsvault.ConfigError, match="two MFA devices"):
        awsvault.plan_chain(target, ["prod"], always_session=True)


def test_a_server_uses_the_session_that_exec_made_where_it_is_the_same():
    keys = KEYS.replace(mfa_serial=MFA)
    target = role("admin", keys, mfa_serial=MFA)
    for profile in (keys, target):
        session, _ = awsvault.split_chain(
            awsvault.plan_chain(profile, ["prod"], always_session=True).provider
        )
        usual, _ = awsvault.split_chain(awsvault.plan_chain(profile, ["prod"]).provider)
        assert session.slot == usual.slot


def test_a_session_that_aws_vault_would_not_make_is_not_filed_as_its_own():
    session, _ = awsvault.split_chain(
        awsvault.plan_chain(
            role("admin", KEYS, mfa_serial=MFA), ["prod"], always_session=True
        ).provider
    )
    assert session.slot.type.startswith("awsvault.")


def test_time_is_the_monotonic_clock():
    assert abs(awsvault.World().monotonic() - time.monotonic()) < 60
