"""169.254.169.254 in a network of the test's own: who is served, and that nothing of it stays."""

from __future__ import annotations

import fcntl
import json
import os
import re
import select
import shutil
import signal
import socket
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest

import awsvault
from tests.conftest import PROGRAM

HOUSE = """
set -e
mount -t tmpfs -o mode=755 tmpfs /run
mount -t tmpfs tmpfs /sys
ip link set lo up
echo ready
read -r _end
"""
ADDRESS = awsvault.LINK_LOCAL
WORKS = (
    os.geteuid() == 0 and sys.platform == "linux" and shutil.which("unshare") and shutil.which("ip")
)
inside_a_network = pytest.mark.skipif(
    not WORKS, reason="making a network needs root, unshare and ip"
)


class Network:
    """A network and a /run of its own; `enter` is what goes before a command line to run in it."""

    def __init__(self):
        words = ["unshare", "--net", "--mount", "--propagation", "private", "sh", "-c", HOUSE]
        self.holder = subprocess.Popen(
            words, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )
        assert self.holder.stdout.readline() == "ready\n"
        self.enter = ["nsenter", "--target", str(self.holder.pid), "--net", "--mount", "--"]

    def run(self, *words, **options):
        return subprocess.run(
            [*self.enter, *words], capture_output=True, text=True, timeout=60, **options
        )

    def addresses(self):
        return self.run("ip", "-o", "addr", "show", "to", f"{ADDRESS}/32").stdout.split()[1:4:2]

    def state(self):
        return awsvault_state(self.run("cat", awsvault.LINK_LOCAL_STATE).stdout)

    def close(self):
        self.holder.communicate("\n", timeout=30)


def awsvault_state(text):
    members = json.loads(text)
    return {**members, **{name: int(members[name].split("-")[0]) for name in ("root", "server")}}


def wait_for_end(pid):
    try:
        fd = os.pidfd_open(pid)
    except ProcessLookupError:
        return
    try:
        assert select.select([fd], [], [], 30)[0], f"process {pid} goes on"
    finally:
        os.close(fd)


@pytest.fixture
def network():
    network = Network()
    yield network
    network.close()


@pytest.fixture
def prod(cli, network):
    """The product in the network, its sessions made before: AWS can't be reached from there."""
    cli.config("[profile prod]\nregion = eu-west-1\n")
    cli.add("prod")
    cli.run("exec", "--server", "prod", "--", "true", check=0)
    cli.program = [*network.enter, "env", "-C", str(cli.home), *cli.program]
    return cli


LINKED = ["exec", "--ec2-server", "--link-local", "prod", "--"]
SHOW = f"cat {awsvault.LINK_LOCAL_STATE}; echo; ip -o addr show to {ADDRESS}/32"
INSISTS = """
import os
del os.environ["AWS_EC2_METADATA_SERVICE_ENDPOINT"]
import boto3
session = boto3.Session()
print(session.get_credentials().method, session.get_credentials().access_key)
"""
ASK = f"""
import socket, sys
if len(sys.argv) > 1:
    import os
    os.setgroups([]); os.setgid(int(sys.argv[1])); os.setuid(int(sys.argv[1]))
with socket.socket() as client:
    client.connect(("{ADDRESS}", 80))
    client.sendall(b"GET /stop HTTP/1.1\\r\\nHost: {ADDRESS}\\r\\n\\r\\n")
    try:
        print(client.recv(12).decode() or "closed")
    except ConnectionResetError:
        print("closed")
"""


def python(code, *words):
    return [sys.executable, "-c", code, *words]


@inside_a_network
@pytest.mark.parametrize("proxy", [None, "http://127.0.0.1:9"])
def test_boto3_that_insists_on_the_address(proxy, prod, fake_aws):
    env = {"HTTP_PROXY": proxy, "http_proxy": proxy}
    result = prod.run(*LINKED, *python(INSISTS), env=env, check=0)
    (session,) = fake_aws.sessions.values()
    assert result.out == f"iam-role {session.key_id}\n"


@inside_a_network
@pytest.mark.parametrize("command", [["true"], ["sh", "-c", "kill -9 $$"], ["sh", "-c", "exit 3"]])
def test_a_command_shorter_than_the_start_leaves_nothing(command, prod, network):
    process = prod.popen(*LINKED, "sh", "-c", f'{SHOW}; exec "$@"', "-", *command)
    out, err = process.communicate(timeout=60)
    state = awsvault_state(out.splitlines()[0])
    assert re.search(rf"lo +inet {ADDRESS}/32 ", out), err
    wait_for_end(state["root"])
    wait_for_end(state["server"])
    assert network.addresses() == []
    assert network.run("ls", awsvault.LINK_LOCAL_FOLDER).stdout == ""


@inside_a_network
def test_another_user_is_refused_and_http_stops_nothing(prod):
    script = f'for user in "" 65534 ""; do {sys.executable} -I -c "$0" $user; done'
    result = prod.run(*LINKED, "sh", "-c", script, ASK, check=0)
    mine, other, again = result.out.splitlines()
    assert (mine, other, again) == ("HTTP/1.1 404", "closed", "HTTP/1.1 404")


@inside_a_network
def test_a_caller_that_ignores_its_children_is_no_hindrance(prod, network):
    def ignore():
        signal.signal(signal.SIGCHLD, signal.SIG_IGN)

    result = prod.run(*LINKED, "cat", awsvault.LINK_LOCAL_STATE, preexec_fn=ignore, check=0)
    wait_for_end(awsvault_state(result.out)["root"])
    assert network.addresses() == []


@inside_a_network
def test_amazon_s_own_machines_are_refused(prod, network):
    network.run(
        "sh", "-c", "mkdir -p /sys/class/dmi/id; echo Amazon EC2 > /sys/class/dmi/id/sys_vendor"
    )
    result = prod.run(*LINKED, "echo", "started")
    assert (result.code, result.out) == (1, "")
    assert "this machine is an EC2 instance" in result.err
    assert network.addresses() == []


REAL = f"""
import socket
with socket.create_server(("{ADDRESS}", 80)) as server:
    print("ready", flush=True)
    while True:
        server.accept()[0].close()
"""


@inside_a_network
def test_a_service_that_answers_there_is_not_replaced(prod, network):
    network.run("ip", "addr", "add", f"{ADDRESS}/32", "dev", "lo", check=True)
    with subprocess.Popen(
        [*network.enter, *python(REAL)], stdout=subprocess.PIPE, text=True
    ) as real:
        assert real.stdout.readline() == "ready\n"
        result = prod.run(*LINKED, "echo", "started")
        real.kill()
    assert (result.code, result.out) == (1, "")
    assert f"something answers at {ADDRESS} already" in result.err


@inside_a_network
def test_an_address_that_somebody_left_is_used_and_left(prod, network):
    network.run("ip", "addr", "add", f"{ADDRESS}/24", "dev", "lo", check=True)
    result = prod.run(*LINKED, "cat", awsvault.LINK_LOCAL_STATE, check=0)
    wait_for_end(awsvault_state(result.out)["root"])
    assert network.addresses() == ["lo", f"{ADDRESS}/24"]


@inside_a_network
def test_an_address_of_another_device_is_not_taken(prod, network):
    network.run("ip", "link", "add", "name", "test0", "type", "dummy")
    if network.run("ip", "addr", "add", f"{ADDRESS}/32", "dev", "test0").returncode:
        pytest.skip("no dummy devices in this kernel")
    result = prod.run(*LINKED, "echo", "started")
    assert (result.code, result.out) == (1, "")
    assert "is an address of test0" in result.err


@inside_a_network
def test_what_a_killed_proxy_left_is_swept_at_the_next_start(prod, network):
    first = prod.popen(*LINKED, "sh", "-c", f"cat {awsvault.LINK_LOCAL_STATE}; echo; read -r _end")
    state = awsvault_state(first.stdout.readline())
    os.kill(state["root"], signal.SIGKILL)
    wait_for_end(state["server"])  # it does not outlive the one that cleans up after it
    assert network.addresses() == ["lo", f"{ADDRESS}/32"]
    second = prod.run(*LINKED, "cat", awsvault.LINK_LOCAL_STATE, check=0)
    assert "left there" not in second.err
    wait_for_end(awsvault_state(second.out)["root"])
    assert network.addresses() == []
    first.communicate("\n", timeout=30)


@inside_a_network
def test_one_command_at_a_time_has_it(prod):
    first = prod.popen(*LINKED, "sh", "-c", f"cat {awsvault.LINK_LOCAL_STATE}; echo; read -r _end")
    state = awsvault_state(first.stdout.readline())
    second = prod.run(*LINKED, "echo", "started")
    assert (second.code, second.out) == (1, "")
    assert f"{ADDRESS} serves process {first.pid}" in second.err
    first.communicate("\n", timeout=30)
    wait_for_end(state["root"])


@inside_a_network
@pytest.mark.parametrize("how", ["--stop", "SIGTERM", "SIGINT", "SIGQUIT"])
def test_a_proxy_that_was_started_by_hand_serves_until_it_is_stopped(how, prod, network):
    proxy = prod.popen("proxy")
    assert "serving" in proxy.stderr.readline()
    for _ in range(2):
        assert prod.run(*LINKED, *python(ASK), check=0).out.startswith("HTTP/1.")
    assert prod.run("proxy").code == 1
    assert network.addresses() == ["lo", f"{ADDRESS}/32"]
    if how == "--stop":
        assert prod.run("proxy", "--stop", check=0).out == "The link-local proxy is stopped.\n"
    else:
        os.kill(network.state()["root"], getattr(signal, how))
    _, err = proxy.communicate(timeout=30)
    assert (proxy.returncode, err) == (0, "")
    assert network.addresses() == []
    assert prod.run("proxy", "--stop", check=0).out == "No proxy is running.\n"


@inside_a_network
def test_it_runs_as_the_user_who_called_sudo_and_serves_him_alone(prod, network):
    proxy = prod.popen("proxy", env={"SUDO_UID": "65534", "SUDO_GID": "65534"})
    proxy.stderr.readline()
    with open(f"/proc/{network.state()['server']}/status", encoding="ascii") as file:
        status = file.read()
    assert "Uid:\t65534\t65534\t65534\t65534" in status
    assert "Gid:\t65534\t65534\t65534\t65534" in status
    assert "Groups:\t \n" in status or "Groups:\t\n" in status
    assert "CapEff:\t0000000000000000" in status
    result = prod.run(*LINKED, "echo", "started")
    assert (result.code, result.out) == (1, "")
    assert "serves user 65534" in result.err
    prod.run("proxy", "--stop", check=0)
    proxy.communicate(timeout=30)


@inside_a_network
def test_root_in_a_shell_of_sudo_s_is_root(prod):
    """SUDO_UID names who called sudo, perhaps hours ago; who uses the address is root."""
    env = {"SUDO_UID": "65534", "SUDO_GID": "65534"}
    result = prod.run(*LINKED, *python(ASK), env=env, check=0)
    assert result.out.startswith("HTTP/1.")


@pytest.fixture
def slow_ip(network, tmp_path):
    """Let the program ip go on with `show` and end after `add` when the test has opened a FIFO."""
    path, fifo, real, slow = (
        os.path.realpath(awsvault.address_tool()),
        *(tmp_path / name for name in ("fifo", "real", "slow")),
    )
    os.mkfifo(fifo)
    shutil.copy(path, real)
    slow.write_text(
        f'#!/bin/sh\ncase " $* " in *" show "*) echo >{fifo};; esac\n{real} "$@" || exit\n'
        f'case " $* " in *" add "*) echo >{fifo}; exec sleep 60;; esac\n',
        encoding="utf-8",
    )
    slow.chmod(0o755)
    network.run("mount", "--bind", str(slow), path, check=True)
    yield fifo
    network.run("umount", path)


@inside_a_network
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT, signal.SIGQUIT])
def test_a_signal_while_the_address_is_added_leaves_nothing(number, prod, network, slow_ip):
    proxy = prod.popen("proxy")
    for _ in ("show", "add"):
        slow_ip.read_text(encoding="ascii")
    os.kill(proxy.pid, number)
    proxy.communicate(timeout=30)
    network.run("umount", os.path.realpath(awsvault.address_tool()))
    assert network.addresses() == []
    assert network.run("ls", awsvault.LINK_LOCAL_FOLDER).stdout == ""


@inside_a_network
def test_a_proxy_waits_while_another_starts(prod, network, slow_ip):
    prod.popen("proxy")
    with open(slow_ip, encoding="ascii") as asked:
        asked.readline()
    second = prod.popen("proxy")
    deadline = time.monotonic() + 20
    while f"-> FLOCK  ADVISORY  WRITE {second.pid} " not in Path("/proc/locks").read_text():
        assert second.poll() is None
        assert time.monotonic() < deadline


# -- without a network -----------------------------------------------------------------


class Ordinary(awsvault.World):
    """Somebody who is not root; programs are not run but noted."""

    def __init__(self, status=0, errors=""):
        super().__init__()
        self.ran, self.said = [], []
        self.result = awsvault.ToolResult(status, awsvault.Secret(""), errors)

    def uid(self):
        return 1000

    def say(self, text):
        self.said.append(text)

    def can_ask(self):
        return False

    def run(self, argv, **_options):
        self.ran.append(list(argv))
        return self.result


def test_root_is_needed():
    world = Ordinary()
    assert awsvault.main(["proxy"], world) == 1
    assert world.said == [
        "error: proxy needs root, to add an address",
        "hint: sudo awsvault proxy",
    ]
    assert world.ran == []


def test_sudo_runs_it_isolated_and_asks_nobody_where_nobody_can_be_asked():
    world = Ordinary()
    awsvault.start_proxy(world, awsvault.Life(12, "34"), any_user=False)
    assert world.ran == [
        ["sudo", "-n", "--", sys.executable, "-I", str(PROGRAM), "proxy", "--until", "12-34"]
    ]


def test_why_sudo_failed_is_said():
    world = Ordinary(1, "sudo: a password is required\n")
    with pytest.raises(awsvault.AwsVaultError, match="did not start: sudo: a password is required"):
        awsvault.start_proxy(world, awsvault.Life(12, "34"), any_user=False)


def test_a_client_that_says_nothing_more_gets_what_is_passed_on():
    relay = awsvault.Relay(awsvault.World(), None, None, None)
    relay.free.acquire()
    theirs, ours = socket.socketpair()
    with socket.create_server(("127.0.0.1", 0)) as server, theirs:
        port = server.getsockname()[1]
        passing = threading.Thread(target=relay._pass_on, args=(ours, port))
        passing.start()
        theirs.sendall(b"question")
        theirs.shutdown(socket.SHUT_WR)
        with server.accept()[0] as connection:
            assert b"".join(iter(lambda: connection.recv(100), b"")) == b"question"
            connection.sendall(b"answer")
        assert b"".join(iter(lambda: theirs.recv(100), b"")) == b"answer"
        passing.join(20)
        assert not passing.is_alive()


def test_who_may_look_into_the_folder_can_t_hold_the_proxy_up(tmp_path, monkeypatch):
    folder = tmp_path / "awsvault"
    folder.mkdir()
    monkeypatch.setattr(awsvault, "LINK_LOCAL_FOLDER", str(folder))
    held = os.open(folder, os.O_RDONLY)
    fcntl.flock(held, fcntl.LOCK_EX)
    with awsvault.proxy_lock(awsvault.World()):
        assert (tmp_path / "awsvault.lock").stat().st_mode & 0o777 == 0o600
    os.close(held)


def test_state_that_not_root_wrote_is_nobody_s(tmp_path, monkeypatch):
    path = tmp_path / "link-local.json"
    path.write_bytes(
        awsvault.ProxyState(0, awsvault.Life(1, "1"), awsvault.Life(1, "1"), True).to_json()
    )
    monkeypatch.setattr(awsvault, "LINK_LOCAL_FOLDER", str(tmp_path))
    monkeypatch.setattr(awsvault, "LINK_LOCAL_STATE", str(path))
    world = awsvault.World()
    monkeypatch.setattr(world, "is_root_s", lambda name: name == str(tmp_path))
    assert awsvault.read_proxy_state(world) is None
    monkeypatch.setattr(world, "is_root_s", lambda name: True)
    assert awsvault.read_proxy_state(world).alias is True
    path.write_text("{")
    assert awsvault.read_proxy_state(world) is None


USAGE = [
    (["--link-local"], "--link-local is about a server"),
    (["--link-local", "--ecs-server"], "--link-local is about instance metadata"),
    (["--link-local", "--ec2-server", "--strict-peer"], "can't be with --strict-peer"),
]


@pytest.mark.parametrize(("flags", "said"), USAGE)
def test_flags_that_can_t_be_together(flags, said, cli):
    result = cli.run("exec", *flags, "prod", "--", "true")
    assert result.code == 2
    assert said in result.err


def test_until_is_a_process(cli):
    assert cli.run("proxy", "--until", "1;x").code == 2
