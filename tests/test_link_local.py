"""169.254.169.254 in a network of the test's own: who is served, and that nothing of it stays."""

from __future__ import annotations

import os
import re
import select
import shutil
import signal
import socket
import subprocess
import sys
from pathlib import Path

import pytest

import awsvault
from tests.conftest import PROGRAM
from tests.test_two_users import READING, become, can_become

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

    def processes(self, word):
        """The pids in here with that word in their command lines."""
        here = os.readlink(f"/proc/{self.holder.pid}/ns/net")
        found = []
        for path in Path("/proc").glob("[0-9]*/cmdline"):
            try:
                words = path.read_bytes().split(b"\0")
                if word.encode() in words and os.readlink(path.parent / "ns" / "net") == here:
                    found.append(int(path.parent.name))
            except OSError:
                continue
        return found

    def settled(self):
        """Wait until server and helper have ended; what is left of the address."""
        for word in ("_serve", "_link-local"):
            for pid in self.processes(word):
                wait_for_end(pid)
        return self.addresses()

    def close(self):
        self.holder.communicate("\n", timeout=30)


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
SHOW = f"ip -o addr show to {ADDRESS}/32"
INSISTS = """
import os
del os.environ["AWS_EC2_METADATA_SERVICE_ENDPOINT"]
import boto3
session = boto3.Session()
print(session.get_credentials().method, session.get_credentials().access_key)
"""
ASK = f"""
import socket, sys
user, source = (*sys.argv[1:], "", "")[:2]
if user:
    import os
    os.setgroups([]); os.setgid(int(user)); os.setuid(int(user))
with socket.socket() as client:
    if source:
        client.bind((source, 0))
    client.connect(("{ADDRESS}", 80))
    client.sendall(b"GET /stop HTTP/1.1\\r\\nHost: {ADDRESS}\\r\\n\\r\\n")
    try:
        print(client.recv(12).decode() or "closed")
    except ConnectionResetError:
        print("closed")
"""


def python(code, *words):
    return [sys.executable, "-c", code, *words]


class HeldIp:
    """The program ip in a network, which stops in one of its subcommands until go()."""

    def __init__(self, network, folder):
        self.network, self.folder = network, folder
        self.path = os.path.realpath(awsvault.address_tool(awsvault.World()))
        shutil.copy(self.path, folder / "real")
        # Open for both, so that nobody waits for another end that has gone.
        self.ends = []
        for name in ("asked", "go"):
            os.mkfifo(folder / name)
            self.ends.append(os.open(folder / name, os.O_RDWR))

    def hold(self, subcommand, *, done=False):
        """Stop before that is carried out, or when it is done."""
        stop = (
            f'case " $* " in *" {subcommand} "*) '
            f"echo >{self.folder}/asked; read -r _go <{self.folder}/go;; esac\n"
        )
        steps = [stop, f'{self.folder}/real "$@" || exit\n']
        script = self.folder / "ip"
        script.write_text("#!/bin/sh\n" + "".join(steps[::-1] if done else steps), encoding="utf-8")
        script.chmod(0o755)
        self.network.run("mount", "--bind", str(script), self.path, check=True)

    def wait(self):
        """Wait until it has stopped."""
        assert select.select(self.ends[:1], [], [], 30)[0], "nobody has called ip"

    def go(self):
        os.write(self.ends[1], b"\n")

    def close(self):
        self.go()
        for fd in self.ends:
            os.close(fd)


@pytest.fixture
def ip(network, tmp_path):
    held = HeldIp(network, tmp_path)
    yield held
    held.close()


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
    assert re.search(rf"lo +inet {ADDRESS}/32 ", out), err
    assert network.settled() == []
    assert network.run("stat", "-c", "%a %u", awsvault.LINK_LOCK).stdout == "600 0\n"
    assert network.run("cat", awsvault.LINK_LOCK).stdout == "{}"


@inside_a_network
def test_another_user_is_refused_and_http_stops_nothing(prod):
    script = f'for user in "" 65534 ""; do {sys.executable} -I -c "$0" $user; done'
    result = prod.run(*LINKED, "sh", "-c", script, ASK, check=0)
    mine, other, again = result.out.splitlines()
    assert (mine, other, again) == ("HTTP/1.1 404", "HTTP/1.1 403", "HTTP/1.1 404")


@inside_a_network
@pytest.mark.parametrize("flags", [[], ["--imds-any-user"]])
def test_who_comes_from_another_address_is_refused(flags, prod, network):
    """The kernel lets a client of this host come from 169.254.169.254 unless it has chosen another."""
    network.run("ip", "addr", "add", "192.0.2.1/32", "dev", "lo", check=True)
    command = [*LINKED[:-2], *flags, *LINKED[-2:]]
    script = f'for source in "" 192.0.2.1 127.0.0.1; do {sys.executable} -I -c "$0" "" $source; done'
    result = prod.run(*command, "sh", "-c", script, ASK, check=0)
    assert result.out.splitlines() == ["HTTP/1.1 404", "HTTP/1.1 403", "HTTP/1.1 403"]


@inside_a_network
def test_a_caller_that_ignores_its_children_is_no_hindrance(prod, network):
    def ignore():
        signal.signal(signal.SIGCHLD, signal.SIG_IGN)

    prod.run(*LINKED, "true", preexec_fn=ignore, check=0)
    assert network.settled() == []


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
    result = prod.run(*LINKED, "true", check=0)
    assert "it stays there" in result.err
    assert network.settled() == ["lo", f"{ADDRESS}/24"]


@inside_a_network
def test_an_address_of_another_device_is_not_taken(prod, network):
    network.run("ip", "link", "add", "name", "test0", "type", "dummy")
    if network.run("ip", "addr", "add", f"{ADDRESS}/32", "dev", "test0").returncode:
        pytest.skip("no dummy devices in this kernel")
    result = prod.run(*LINKED, "echo", "started")
    assert (result.code, result.out) == (1, "")
    assert "is an address of test0" in result.err


@inside_a_network
def test_what_a_killed_helper_left_is_removed_by_the_next(prod, network):
    first = prod.popen(*LINKED, "sh", "-c", "echo started; read -r _end")
    assert first.stdout.readline() == "started\n"
    (helper,) = network.processes("_link-local")
    os.kill(helper, signal.SIGKILL)
    wait_for_end(helper)
    # The server goes on, and its address is nobody else's.
    assert prod.run(*LINKED, "echo", "started").code == 1
    assert network.addresses() == ["lo", f"{ADDRESS}/32"]
    first.communicate("\n", timeout=30)
    assert network.settled() == ["lo", f"{ADDRESS}/32"]
    second = prod.run(*LINKED, "true", check=0)
    assert "stays there" not in second.err
    assert network.settled() == []


@inside_a_network
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGHUP, signal.SIGINT, signal.SIGQUIT])
def test_the_loan_ends_with_the_server_not_by_a_signal(number, prod, network, ip):
    """At a logout both get signals; the address goes whichever of them is first."""
    ip.hold("del")
    first = prod.popen(*LINKED, "sh", "-c", "echo started; read -r _end")
    assert first.stdout.readline() == "started\n"
    (helper,) = network.processes("_link-local")
    os.kill(helper, number)
    first.communicate("\n", timeout=30)
    ip.wait()
    os.kill(helper, number)
    ip.go()
    assert network.settled() == []
    assert network.run("cat", awsvault.LINK_LOCK).stdout == "{}"


@inside_a_network
def test_one_command_at_a_time_has_it(prod, network):
    first = prod.popen(*LINKED, "sh", "-c", "echo started; read -r _end")
    assert first.stdout.readline() == "started\n"
    second = prod.run(*LINKED, "echo", "started")
    assert (second.code, second.out) == (1, "")
    assert f"{ADDRESS} is in use by process {first.pid}" in second.err
    first.communicate("\n", timeout=30)
    assert network.settled() == []
    prod.run(*LINKED, "true", check=0)


@inside_a_network
def test_strict_peers_and_the_address(prod, network):
    words = ["exec", "--ec2-server", "--link-local", "--strict-peer", "prod", "--"]
    assert prod.run(*words, *python(ASK), check=0).out == "HTTP/1.1 404\n"
    first = prod.popen(*words, "sh", "-c", "echo started; read -r _end")
    assert first.stdout.readline() == "started\n"
    outside = network.run(*python(ASK))
    assert outside.stdout == "HTTP/1.1 403\n"
    first.communicate("\n", timeout=30)


@inside_a_network
def test_the_helper_serves_only_the_user_who_called_sudo(prod, network, tmp_path):
    listener = socket.socket(socket.AF_UNIX)
    listener.bind(str(tmp_path / "link"))
    listener.listen()
    prod.home.chmod(0o700)
    for uid, says in (("65534", "is of user 0, not of user 65534"), ("x", "is no user's number")):
        refused = prod.run("_link-local", tmp_path, env={"SUDO_UID": uid})
        assert says in refused.err
        assert network.addresses() == []


@inside_a_network
def test_a_caller_that_goes_away_leaves_nothing(prod, network, tmp_path):
    assert "no such file" in prod.run("_link-local", tmp_path).err
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(tmp_path / "link"))
        listener.listen()
        prod.run("_link-local", tmp_path, check=0)
        assert network.addresses() == ["lo", f"{ADDRESS}/32"]
    assert network.settled() == []


USER = 61011
SUDO = """#!/bin/sh
printf '%s\\n' "$@" >{0}/asked
read -r status <{0}/status
exit "$status"
"""


@inside_a_network
@pytest.mark.skipif(not can_become(), reason="becoming another user is root's")
def test_a_user_s_server_refuses_even_root(prod, network, tmp_path):
    """With a stand-in for sudo, for which the test does as root what it is told."""
    sudo, asked, status = (tmp_path / name for name in ("sudo", "asked", "status"))
    sudo.write_text(SUDO.format(tmp_path), encoding="utf-8")
    sudo.chmod(0o755)
    for path in (asked, status):
        os.mkfifo(path)
        os.chown(path, USER, USER)
    for path in [prod.home, *prod.home.rglob("*")]:
        os.chown(path, USER, USER)
    prod.program[len(network.enter) : 0] = become(USER, *READING)
    path = f"{tmp_path}:{prod.environ['PATH']}"
    script = f'{sys.executable} -I -c "$0"; echo started; read -r _end'
    first = prod.popen(*LINKED, "sh", "-c", script, ASK, env={"PATH": path})
    flag, dashes, *command = asked.read_text(encoding="utf-8").splitlines()
    assert (flag, dashes) == ("-n", "--")
    done = network.run("env", "-i", f"SUDO_UID={USER}", *command)
    assert done.returncode == 0, done.stderr
    status.write_text("0\n", encoding="ascii")
    assert first.stdout.readline() == "HTTP/1.1 404\n"
    assert first.stdout.readline() == "started\n"
    (server,) = network.processes("_serve")
    assert f"Uid:\t{USER}\t{USER}\t{USER}\t{USER}\n" in Path(f"/proc/{server}/status").read_text()
    assert network.run(*python(ASK)).stdout == "HTTP/1.1 403\n"
    first.communicate("\n", timeout=30)
    assert network.settled() == []


@inside_a_network
def test_root_in_a_shell_of_sudo_s_is_root(prod):
    """SUDO_UID names who called sudo, perhaps hours ago; who uses the address is root."""
    env = {"SUDO_UID": "65534", "SUDO_GID": "65534"}
    result = prod.run(*LINKED, *python(ASK), env=env, check=0)
    assert result.out.startswith("HTTP/1.")


@inside_a_network
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT, signal.SIGQUIT])
def test_a_signal_while_the_address_is_added_leaves_nothing(number, prod, network, ip):
    ip.hold("add", done=True)
    process = prod.popen(*LINKED, "echo", "started")
    ip.wait()
    assert network.addresses() == ["lo", f"{ADDRESS}/32"]
    (helper,) = network.processes("_link-local")
    os.kill(helper, number)
    out, err = process.communicate(timeout=30)
    assert (process.returncode, out) == (1, ""), err
    assert network.settled() == []
    assert network.run("cat", awsvault.LINK_LOCK).stdout == "{}"


@inside_a_network
def test_a_second_one_is_refused_while_the_first_starts(prod, network, ip):
    ip.hold("show")
    first = prod.popen(*LINKED, "echo", "started")
    ip.wait()
    second = prod.run(*LINKED, "echo", "started")
    assert f"{ADDRESS} is in use by process {first.pid}\n" in second.err
    ip.go()
    assert first.communicate(timeout=30)[0] == "started\n"


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
    assert awsvault.main(["_link-local", "/nowhere"], world) == 1
    assert world.said == [
        "error: root alone can add an address",
        "hint: exec --link-local starts this itself",
    ]
    assert world.ran == []


def test_sudo_runs_it_isolated_and_asks_nobody_where_nobody_can_be_asked(home):
    world = Ordinary(1, "sudo: a password is required\n")
    folder = str(home / "run")
    awsvault.World().private_folder(folder)
    with pytest.raises(awsvault.AwsVaultError, match="can't be had from root: sudo: a password is required"):
        awsvault.borrow_link_local(world, folder)
    assert world.ran == [
        ["sudo", "-n", "--", sys.executable, "-I", str(PROGRAM), "_link-local", folder]
    ]


CONNECT = """
import os, socket, struct, sys
os.setgid(65534); os.setuid(65534)
with socket.socket(socket.AF_UNIX) as client:
    client.connect(sys.argv[1])
    right = struct.pack("i", client.fileno())
    client.sendmsg([b"."], [(socket.SOL_SOCKET, socket.SCM_RIGHTS, right)])
"""


@pytest.mark.skipif(os.geteuid() != 0, reason="another user's process needs root")
def test_a_socket_that_another_user_hands_over_is_not_taken(tmp_path):
    path = f"{tmp_path}/link"
    with socket.socket(socket.AF_UNIX) as door:
        door.bind(path)
        os.chmod(path, 0o777)
        for folder in (tmp_path, *tmp_path.parents[:-2]):
            folder.chmod(0o755)
        door.listen()
        subprocess.run([*python(CONNECT), path], check=True, timeout=30)
        with pytest.raises(awsvault.AwsVaultError, match="is not root's helper"):
            awsvault.World().receive_socket(door)


def test_a_helper_that_says_nothing_is_not_waited_for_for_ever(tmp_path, monkeypatch):
    monkeypatch.setattr(awsvault, "SOCKET_SECONDS", 0.1)
    with socket.socket(socket.AF_UNIX) as door:
        door.bind(f"{tmp_path}/link")
        door.listen()
        with pytest.raises(awsvault.AwsVaultError, match="root's helper says nothing"):
            awsvault.World().receive_socket(door)


def test_the_proxy_of_aws_vault_is_named(cli):
    for name in ("proxy", "server"):
        assert "exec --link-local starts its own" in cli.run(name).err


USAGE = [
    (["--link-local"], "--link-local is about a server"),
    (["--link-local", "--ecs-server"], "--link-local is about instance metadata"),
]


@pytest.mark.parametrize(("flags", "said"), USAGE)
def test_flags_that_can_t_be_together(flags, said, cli):
    result = cli.run("exec", *flags, "prod", "--", "true")
    assert result.code == 2
    assert said in result.err

