"""The processes of `exec --server`: whose they are, what they know, and that nothing is left over."""

from __future__ import annotations

import datetime
import errno
import fcntl
import json
import os
import resource
import shlex
import signal
import socket
import subprocess
import sys
from pathlib import Path

import pytest

import awsvault
from tests.conftest import PASSPHRASE, arn
from tests.fake_aws import KEY_ID, MFA_CODES, MFA_SERIAL, SECRET, Fault
from tests.served import WAIT, Command, gone, memory_of, server_of, status_of
from tests.terminal import END, SUSPEND, Terminal

pytestmark = pytest.mark.skipif(
    not os.path.isdir("/proc/self"), reason="the server is looked for in /proc"
)
as_root = pytest.mark.skipif(os.geteuid() != 0, reason="only root sees into it, or is another user")

CONFIG = f"""\
[profile prod]
region = eu-west-1

[profile admin]
region = eu-west-1
source_profile = prod
role_arn = {arn("admin")}
"""
PYTHON = [sys.executable, "-I", "-S", "-c"]


@pytest.fixture
def ready(cli):
    """The product with a stored key and a role."""
    cli.config(CONFIG)
    cli.add()
    return cli


@pytest.fixture
def by_command(ready, tmp_path):
    """The same, its passphrase from a command: such a vault opens without a person."""
    secret = tmp_path / "passphrase"
    secret.write_text(PASSPHRASE, encoding="utf-8")
    ready.environ.pop("AWS_VAULT_FILE_PASSPHRASE")
    ready.environ["AWS_VAULT_FILE_PASSPHRASE_COMMAND"] = f"cat {secret}"
    return ready


# ======================================================================
# The command keeps its own process
# ======================================================================


def test_the_command_is_the_original_process(ready):
    code = "import os, sys; print(os.getpid(), flush=True); sys.stdin.read(); sys.exit(7)"
    command = Command(ready, "--server", code=code)
    assert command.environ == command.process.pid
    assert command.end() == 7


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGKILL, signal.SIGPIPE, signal.SIGINT])
def test_signals_are_the_commands_own(ready, number):
    code = "import json, signal, sys; signal.signal(2, 0); signal.signal(13, 0); print(json.dumps({}), flush=True); sys.stdin.read()"
    command = Command(ready, "--server", code=code)
    server = command.server
    assert server
    command.process.send_signal(number)
    assert command.process.wait(WAIT) == -number
    assert gone(server)


def test_sigpipe_and_sigxfsz_have_their_default_action(ready):
    code = "print([line for line in open('/proc/self/status') if line.startswith('SigIgn')][0].split()[1])"
    line = ["exec", "--server", "prod", "--", "grep", "SigIgn", "/proc/self/status"]
    ignored = int(ready.run(*line, check=0).out.split()[1], 16)
    for number in (signal.SIGPIPE, signal.SIGXFSZ):
        assert not ignored >> (number - 1) & 1, code


def test_the_command_has_no_child_and_no_descriptor_of_ours_but_the_port(ready):
    code = (
        "import json, os; children = open(f'/proc/self/task/{os.getpid()}/children').read(); "
        "print(json.dumps([children, sorted(os.readlink(f'/proc/self/fd/{n}').split(':')[0] "
        "for n in os.listdir('/proc/self/fd') if int(n) > 2 and os.path.exists(f'/proc/self/fd/{n}'))]), flush=True); "
        "import sys; sys.stdin.read()"
    )
    command = Command(ready, "--server", code=code)
    assert command.environ == ["", ["socket"]]


def test_a_hangup_that_nohup_ignores_ends_neither(ready):
    command = Command(
        ready, "--server", preexec_fn=lambda: signal.signal(signal.SIGHUP, signal.SIG_IGN)
    )
    os.killpg(command.process.pid, signal.SIGHUP)
    assert command.ask()[0] == 200
    assert command.end() == 0


def test_a_caller_that_ignores_its_children_is_no_hindrance(ready):
    command = Command(
        ready, "--server", preexec_fn=lambda: signal.signal(signal.SIGCHLD, signal.SIG_IGN)
    )
    assert command.ask()[0] == 200


def test_job_control_is_the_shells(ready):
    command = ["exec", "--server", "prod", "--", "sh", "-c", "echo ready; exec cat"]
    line = shlex.join([*ready.program, *command])
    environ = ready.environment({"PS1": "shell> ", "TERM": "dumb"})
    with Terminal(["bash", "--norc", "--noprofile", "-i"], env=environ) as shell:
        shell.expect("shell> ")
        shell.send_line(line)
        shell.expect("\r\nready")
        shell.send(SUSPEND)
        shell.expect("Stopped")
        shell.expect("shell> ")
        shell.send_line("fg")
        shell.expect("cat")
        shell.send_line("still here")
        shell.expect("still here\r\nstill here")
        shell.send(END)
        shell.expect("shell> ")
        shell.send_line("echo status $?")
        shell.expect("status 0")


def test_ctrl_c_reaches_the_command_alone(ready):
    line = [sys.executable, "-c", "import sys; print('ready', flush=True); sys.stdin.read()"]
    with ready.terminal("exec", "--server", "prod", "--", *line) as terminal:
        terminal.expect("ready")
        server = server_of(terminal.pid)
        terminal.interrupt()
        assert terminal.wait() in (-signal.SIGINT, 1)
        assert server
        assert gone(server)


# ======================================================================
# The server
# ======================================================================


def test_the_server_is_nobodys_child_in_a_session_of_its_own(ready):
    command = Command(ready, "--server")
    fields = (
        Path(f"/proc/{command.server}/stat").read_text(encoding="utf-8").rpartition(")")[2].split()
    )
    parent, group, session, terminal = map(int, fields[1:5])
    assert parent != command.process.pid
    assert session != os.getsid(command.process.pid)
    assert group == session
    assert terminal == 0


@as_root
def test_the_server_holds_no_passphrase_no_long_lived_key_and_nothing_of_ours(ready):
    extra = os.open(os.devnull, os.O_RDONLY)
    os.set_inheritable(extra, True)
    command = Command(ready, "--server", profile="admin", pass_fds=[extra])
    os.close(extra)
    command.ask()
    folder = Path(f"/proc/{command.server}")
    environ = (folder / "environ").read_bytes()
    assert PASSPHRASE.encode() not in environ
    descriptors = [os.readlink(path) for path in (folder / "fd").iterdir()]
    assert not [path for path in descriptors if path.startswith("/") and path != os.devnull]
    memory = memory_of(command.server)
    assert SECRET.encode() not in memory
    assert PASSPHRASE.encode() not in memory
    secret = command.ask()[1]["SecretAccessKey"]
    assert secret.encode() in memory, "the test does not see the memory it looks into"
    assert b"botocore" not in (folder / "maps").read_bytes()
    assert b"cryptography" not in (folder / "maps").read_bytes()


@as_root
def test_the_server_is_undumpable(ready):
    """The kernel gives root what /proc shows of a process that is."""
    uid = 61010
    for path in (ready.home, *ready.home.rglob("*")):
        os.chown(path, uid, uid)
    reading = ["--inh-caps=+dac_read_search", "--ambient-caps=+dac_read_search"]
    user = [f"--reuid={uid}", f"--regid={uid}", "--clear-groups", *reading]
    ready.program = ["setpriv", *user, "--", *ready.program]
    script = "echo $AWS_CONTAINER_CREDENTIALS_FULL_URI; read -r _end"
    command = ready.popen("exec", "--server", "prod", "--", "sh", "-c", script, cwd="/")
    port = int(command.stdout.readline().rpartition(":")[2])
    with socket.create_connection(("127.0.0.1", port), timeout=WAIT) as client:
        client.sendall(b"GET / HTTP/1.1\r\n\r\n")
        assert client.recv(9) == b"HTTP/1.1 "  # so it is there by now
    pids = (command.pid, server_of(command.pid))
    assert [os.stat(f"/proc/{pid}/mem").st_uid for pid in pids] == [uid, 0]


def test_memory_stays_within_25_mb(ready):
    command = Command(ready, "--server")
    command.ask()
    before = int(status_of(command.server)["VmRSS"].split()[0])
    for _ in range(300):
        command.ask()
    after = int(status_of(command.server)["VmRSS"].split()[0])
    assert after < 25_000
    assert after - before < 300


THIEF = """
import os, socket, sys
if os.geteuid() == 0:
    os.setgid(65534); os.setuid(65534)
for address in ("127.0.0.1", "0.0.0.0"):
    for option in (None, socket.SO_REUSEADDR, socket.SO_REUSEPORT):
        sock = socket.socket()
        if option:
            sock.setsockopt(socket.SOL_SOCKET, option, 1)
        try:
            sock.bind((address, int(sys.argv[1])))
        except OSError:
            continue
        print("taken", address, option)
"""


def test_a_server_that_was_killed_leaves_the_port_to_nobody(ready):
    command = Command(ready, "--server")
    os.kill(command.server, signal.SIGKILL)
    assert gone(command.server)
    with pytest.raises(ConnectionRefusedError):
        socket.create_connection(("127.0.0.1", command.port), timeout=WAIT)
    thief = subprocess.run(
        [*PYTHON, THIEF, str(command.port)], capture_output=True, text=True, check=True
    )
    assert thief.stdout == ""
    assert command.end() == 0


def test_the_server_ends_with_a_command_that_was_killed_and_takes_its_files_along(ready):
    command = Command(ready, "--server")
    folder = command.private_files()
    assert folder.is_dir()
    command.process.kill()
    assert gone(command.server)
    assert not folder.exists()


def test_a_daemon_that_the_command_leaves_behind_is_refused_and_holds_nothing_up(ready):
    ours, daemons = os.pipe()[::-1]
    code = (
        "import json, os, sys\n"
        "if os.fork() == 0:\n"
        "    os.setsid()\n"
        "    if os.fork(): os._exit(0)\n"
        f"    os.closerange(0, {daemons}); os.read({daemons}, 1); os._exit(0)\n"
        "os.wait()\n"
        "print(json.dumps(dict(os.environ)), flush=True)\n"
        "os.read(0, 1)\n"
    )
    try:
        command = Command(ready, "--server", code=code, pass_fds=[daemons])
        assert command.server
        assert command.ask()[0] == 200
        assert command.end() == 0
        assert gone(command.server)
        with pytest.raises(ConnectionRefusedError):
            socket.create_connection(("127.0.0.1", command.port), timeout=WAIT)
    finally:
        os.close(ours)
        os.close(daemons)


def test_any_number_per_host(ready):
    commands = [Command(ready, "--server") for _ in range(3)]
    assert len({command.port for command in commands}) == 3
    assert [command.ask()[0] for command in commands] == [200] * 3


def test_a_command_that_can_not_be_run_leaves_nothing(ready, tmp_path):
    broken = tmp_path / "broken"
    broken.write_text("#!/nonexistent/interpreter\n", encoding="utf-8")
    broken.chmod(0o755)
    process = ready.popen("exec", "--server", "prod", "--", broken)
    _, err = process.communicate(timeout=60)
    assert process.returncode == 127
    assert "can't run" in err
    server = server_of(process.pid)
    assert server is None or gone(server)
    assert not list((ready.home / ".awsvault" / "run").glob("*"))
    assert ready.run("exec", "--server", "prod", "--", "/nonexistent").code == 127


LEADERLESS = """
import ctypes, threading
def work():
    while open("/proc/self/stat").read().rpartition(")")[2].split()[0] != "Z":
        pass
    print("ready", flush=True)
    input()
threading.Thread(target=work).start()
ctypes.CDLL(None).syscall({exit})
"""


@pytest.mark.skipif(os.uname().machine not in ("x86_64", "aarch64"), reason="not this number")
def test_a_process_whose_first_thread_has_ended_goes_on():
    number = {"x86_64": 60, "aarch64": 93}[os.uname().machine]
    line = [sys.executable, "-c", LEADERLESS.format(exit=number)]
    with subprocess.Popen(
        line, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as process:
        life = awsvault.World().life(process.pid)
        assert process.stdout.readline() == "ready\n"
        assert life.is_alive(awsvault.World())
        process.stdin.close()
        os.waitid(os.P_PID, process.pid, os.WEXITED | os.WNOWAIT)
        assert not life.is_alive(awsvault.World())


def test_a_note_says_once_that_it_is_one(ready):
    (ready.home / ".aws" / "credentials").write_text("[default]\naws_access_key_id=A\n")
    result = ready.run("exec", "--server", "prod", "--", "true", check=0)
    assert result.err.count("note:") == 1
    assert result.err.count("has a section [default]") == 1


def test_no_output_is_held_open(ready):
    result = ready.run("exec", "--server", "prod", "--", "echo", "done", check=0)
    assert result.out == "done\n"
    assert result.err == ""


# ======================================================================
# Starting it
# ======================================================================


@pytest.mark.parametrize("limit", [20, 32])
def test_few_descriptors_are_enough(ready, limit):
    def limited():
        resource.setrlimit(resource.RLIMIT_NOFILE, (limit, limit))

    command = Command(ready, "--server", preexec_fn=limited)
    assert command.ask()[0] == 200


def test_a_low_limit_of_descriptors_is_raised_as_far_as_may_be(ready):
    def limited():
        resource.setrlimit(resource.RLIMIT_NOFILE, (40, 500))

    command = Command(ready, "--server", preexec_fn=limited)
    command.ask()
    soft, hard = resource.prlimit(command.server, resource.RLIMIT_NOFILE)
    assert soft > awsvault.MAX_CONNECTIONS
    assert hard == 500
    assert resource.prlimit(command.process.pid, resource.RLIMIT_NOFILE) == (40, 500)


def processor_time(pid):
    fields = Path(f"/proc/{pid}/stat").read_text(encoding="utf-8").rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def test_idle_connections_under_a_low_limit_shut_nobody_out(ready, fake_aws):
    fake_aws.lifetime = 900  # it renews at once, for which it needs descriptors too

    def limited():
        resource.setrlimit(resource.RLIMIT_NOFILE, (40, 40))

    command = Command(ready, "--server", profile="admin", preexec_fn=limited)
    first = command.ask()[1]["AccessKeyId"]
    command.ask_until(lambda _, document: document["AccessKeyId"] != first)
    kept = []
    try:
        for _ in range(36):
            kept.append(socket.create_connection(("127.0.0.1", command.port), timeout=WAIT))
            kept[-1].sendall(command.request().replace(b"Connection: close\r\n", b""))
            assert kept[-1].recv(15) == b"HTTP/1.1 200 OK"
        before = processor_time(command.server)
        for _ in range(20):
            assert command.ask()[0] == 200
        kept[-1].settimeout(1)
        kept[-1].recv(65536)
        with pytest.raises(TimeoutError):
            kept[-1].recv(1)  # it is still open
        assert processor_time(command.server) - before < 0.5
    finally:
        for sock in kept:
            sock.close()


def test_a_home_whose_name_is_no_utf_8(ready, tmp_path):
    home = os.path.join(os.fsencode(tmp_path), b"jos\xe9")
    os.rename(ready.home, home)
    env = {"HOME": os.fsdecode(home)}
    command = Command(ready, "--server", profile="admin", env=env, cwd=home)
    assert os.fsencode(command.environ["AWS_CONFIG_FILE"]).startswith(home)
    assert command.ask()[0] == 200
    folder = command.private_files()
    command.end()
    assert gone(command.server)
    assert not folder.exists()


def spawn(script, stdin=b"", **options):
    world = awsvault.World()
    argv = ["/bin/sh", "-c", script]
    world.spawn_detached("the server", argv, awsvault.Secret(stdin), {}, **options)


def test_one_that_can_t_be_started_is_said(monkeypatch):
    with pytest.raises(awsvault.AwsVaultError, match="did not start: bad file descriptor"):
        spawn("true", descriptors=[9999])
    world = awsvault.World()
    with pytest.raises(awsvault.AwsVaultError, match="did not start: no such file"):
        world.spawn_detached("it", ["/nonexistent"], awsvault.Secret(""), {})
    fork, here = os.fork, os.getpid()

    def first_only():
        if os.getpid() != here:
            raise BlockingIOError(errno.EAGAIN, os.strerror(errno.EAGAIN))
        return fork()

    monkeypatch.setattr(os, "fork", first_only)
    with pytest.raises(awsvault.AwsVaultError, match="temporarily unavailable"):
        spawn("true")


def test_a_pipe_that_takes_little_holds_nobody_up(monkeypatch):
    """A user with many pipes gets smaller ones."""
    pipe = os.pipe

    def small():
        ends = pipe()
        fcntl.fcntl(ends[1], 1031, 4096)  # F_SETPIPE_SZ
        return ends

    monkeypatch.setattr(os, "pipe", small)
    spawn("test $(wc -c) = 20000 && printf ready", b"x" * 20000)


# ======================================================================
# Who asks
# ======================================================================

ASK_ITSELF = """
import json, os, socket, sys
port = int(os.environ["AWS_CONTAINER_CREDENTIALS_FULL_URI"].rpartition(":")[2])
sock = socket.create_connection(("127.0.0.1", port))
text = f"GET / HTTP/1.1\\r\\nHost: 127.0.0.1:{port}\\r\\nAuthorization: "
text += os.environ["AWS_CONTAINER_AUTHORIZATION_TOKEN"] + "\\r\\n\\r\\n"
sock.sendall(text.encode())
print(json.dumps({**os.environ, "status": sock.recv(4096).split()[1].decode()}), flush=True)
sys.stdin.read()
"""


def test_strict_peer_serves_the_command_and_refuses_an_unrelated_process(ready):
    command = Command(ready, "--server", "--strict-peer", code=ASK_ITSELF)
    assert command.environ["status"] == "200"
    assert command.ask() == (403, {"Message": "access denied for this user or process"})
    child = "import subprocess, sys; print(subprocess.run([sys.executable, '-c', %r], capture_output=True, text=True, stdin=subprocess.DEVNULL).stdout, flush=True)"
    assert (
        Command(ready, "--server", "--strict-peer", code=child % ASK_ITSELF).environ["status"]
        == "200"
    )


# ======================================================================
# What is served, from AWS
# ======================================================================


def test_a_session_comes_first_and_a_role_from_it(ready, fake_aws):
    command = Command(ready, "--server", profile="admin")
    assert fake_aws.actions() == ["GetSessionToken", "AssumeRole"]
    assert fake_aws.calls[0].parameters["DurationSeconds"] == "28800"
    assert fake_aws.calls[1].parameters["DurationSeconds"] == "3600"
    key = command.ask()[1]["AccessKeyId"]
    assert fake_aws.sessions[key].action == "AssumeRole"
    assert Command(ready, "--server", profile="admin").ask()[1]["AccessKeyId"] == key
    assert len(fake_aws.calls) == 2


def test_the_role_of_exec_alone_and_a_server_s_do_not_push_each_other_out(ready, fake_aws):
    for _ in range(2):
        ready.run("exec", "admin", "--", "true", check=0)
        ready.run("exec", "--server", "admin", "--", "true", check=0)
    assert sorted(fake_aws.actions()) == ["AssumeRole", "AssumeRole", "GetSessionToken"]


def test_a_profile_without_a_role_is_served_the_session(ready, fake_aws):
    command = Command(ready, "--server")
    assert fake_aws.sessions[command.ask()[1]["AccessKeyId"]].action == "GetSessionToken"


def test_lazy_makes_the_session_at_once_and_the_role_at_the_first_request(ready, fake_aws):
    command = Command(ready, "--ecs-server", "--lazy", profile="admin")
    assert fake_aws.actions() == ["GetSessionToken"]
    command.ask_until(lambda status, _: status == 200)
    assert fake_aws.actions() == ["GetSessionToken", "AssumeRole"]


def test_role_arn(ready, fake_aws):
    command = Command(ready, "--server")
    path = f"/role-arn/{arn('audit')}"
    _, document = command.ask_until(lambda status, _: status == 200, path)
    assert fake_aws.sessions[document["AccessKeyId"]].action == "AssumeRole"
    assert fake_aws.calls[-1].parameters["RoleArn"] == arn("audit")
    assert fake_aws.calls[-1].parameters["DurationSeconds"] == "3600"
    assert command.ask(path)[1] == document
    status, body = command.ask_until(lambda status, _: status == 403, f"/role-arn/{arn('closed')}")
    assert "AccessDenied" in body["Message"]
    assert status == 403


def test_renewed_from_the_session_in_the_background(ready, fake_aws):
    fake_aws.lifetime = 900
    command = Command(ready, "--server", profile="admin")
    first = command.ask()[1]["AccessKeyId"]
    _, document = command.ask_until(lambda _, document: document["AccessKeyId"] != first)
    signer = fake_aws.calls[-1].key_id
    assert fake_aws.sessions[signer].action == "GetSessionToken"
    assert fake_aws.sessions[document["AccessKeyId"]].action == "AssumeRole"


def test_aws_down_during_a_renewal_is_not_noticed(ready, fake_aws, monkeypatch):
    fake_aws.lifetime = 900
    down = Fault("error", 1)
    monkeypatch.setattr(
        fake_aws, "_fault_for", lambda _: down if fake_aws.count("AssumeRole") > 1 else None
    )
    command = Command(ready, "--server", profile="admin")
    key = command.ask()[1]["AccessKeyId"]
    fake_aws.wait_for(4, "AssumeRole")
    assert command.ask()[1]["AccessKeyId"] == key


def test_the_vault_is_opened_again_by_what_needs_no_person(by_command, fake_aws):
    fake_aws.lifetime = 900
    command = Command(by_command, "--server")
    first = command.ask()[1]["AccessKeyId"]
    _, document = command.ask_until(lambda _, document: document["AccessKeyId"] != first)
    assert fake_aws.sessions[document["AccessKeyId"]].action == "GetSessionToken"


def test_a_short_duration_is_said_to_be_too_short(ready):
    result = ready.run("exec", "--server", "-d", "30m", "prod", "--", "true", check=0)
    assert "warning: 30m0s is too short for a server" in result.err


# ======================================================================
# A person
# ======================================================================

# It reads single keystrokes, as an editor does, and shows each.
KEYS = """
import os, sys, termios, tty
tty.setraw(0)
os.write(1, b"reading\\r\\n")
while (key := os.read(0, 1)) != b"q":
    os.write(1, b"<" + key + b">")
"""


def typed_into(terminal):
    text = "abcdefghijklmnop"
    terminal.send(text)
    for key in text:
        terminal.expect(f"<{key}>")
    terminal.send("q")
    assert terminal.wait() == 0


def test_a_renewal_that_needs_mfa_says_so_and_takes_no_keystroke(by_command, fake_aws):
    by_command.mfa_config()
    fake_aws.lifetime = 900
    line = [
        "exec",
        "--server",
        "--mfa-token",
        MFA_CODES[0],
        "prod",
        "--",
        sys.executable,
        "-c",
        KEYS,
    ]
    with by_command.terminal(*line, size=(24, 300)) as terminal:
        terminal.expect("reading")
        terminal.expect("run awsvault exec prod in another terminal to renew")
        typed_into(terminal)
        assert terminal.screen.count("to renew") == 1
    assert fake_aws.count("GetSessionToken") == 1


def test_a_vault_that_needs_a_person_says_restart(ready, fake_aws):
    fake_aws.lifetime = 900
    line = ["exec", "--server", "prod", "--", sys.executable, "-c", KEYS]
    with ready.terminal(*line, size=(24, 300)) as terminal:
        terminal.expect("reading")
        terminal.expect("restart the command to renew")
        typed_into(terminal)


def test_mfa_process_answers_for_a_renewal(by_command, fake_aws, tmp_path):
    codes = tmp_path / "codes"
    codes.write_text("\n".join(MFA_CODES) + "\n", encoding="utf-8")
    take = f"head -1 {codes} && sed -i 1d {codes}"
    by_command.config(f"[profile prod]\nmfa_serial = {MFA_SERIAL}\nmfa_process = {take}\n")
    fake_aws.lifetime = 900
    command = Command(by_command, "--server")
    first = command.ask()[1]["AccessKeyId"]
    command.ask_until(lambda _, document: document["AccessKeyId"] != first)
    assert [call.parameters["TokenCode"] for call in fake_aws.calls] == list(MFA_CODES[:2])


def renew(cli, profile="prod", **task):
    """What the process that renews answers."""
    text = json.dumps({"quiet": False, **task})
    return cli.run("_renew", profile, input=text, check=0).json()


@pytest.mark.parametrize("line", [["_serve", "1"], ["_renew", "prod"]])
@pytest.mark.parametrize("text", ["{}", "no object", ""])
def test_what_only_awsvault_starts_says_so(line, text, ready):
    result = ready.run(*line, input=text)
    assert result.code == 2
    assert "awsvault itself starts this command" in result.err


def test_a_session_made_in_another_terminal_is_adopted(by_command, fake_aws):
    by_command.mfa_config()
    failure = renew(by_command, profile="admin", quiet=True)["failure"]
    assert set(failure) == {"message", "needs_user"}
    by_command.run("exec", "--mfa-token", MFA_CODES[0], "admin", "--", "true", check=0)
    answer = renew(by_command, profile="admin", quiet=True)
    assert answer["source"]["access_key_id"] in fake_aws.sessions
    assert fake_aws.sessions[answer["current"]["access_key_id"]].action == "AssumeRole"


def test_a_session_that_a_server_would_not_make_is_adopted_too(by_command, fake_aws):
    by_command.config(
        f"[profile prod]\n[profile deploy]\nsource_profile = prod\nrole_arn = {arn('deploy')}\n"
        f"mfa_serial = {MFA_SERIAL}\n"
    )
    by_command.run("exec", "--mfa-token", MFA_CODES[0], "deploy", "--", "true", check=0)
    answer = renew(by_command, profile="deploy", quiet=True)
    assert fake_aws.sessions[answer["current"]["access_key_id"]].action == "AssumeRole"
    assert "source" not in answer


def test_a_session_that_is_held_already_is_not_adopted(by_command, fake_aws):
    by_command.mfa_config()
    fake_aws.lifetime = 1200
    by_command.run("exec", "--mfa-token", MFA_CODES[0], "prod", "--", "true", check=0)
    held = renew(by_command, quiet=True)["current"]
    assert held["access_key_id"] in fake_aws.sessions
    assert renew(by_command, quiet=True, held_until=held["expiration"])["failure"]["needs_user"]


def test_a_wrong_code_is_refused_and_said_to_have_been_asked_for(by_command):
    by_command.config(f"[profile prod]\nmfa_serial = {MFA_SERIAL}\nmfa_process = echo 000000\n")
    failure = renew(by_command)["failure"]
    assert failure["asked"]
    assert "MFA code was refused" in failure["message"]


def test_the_key_that_aws_does_not_know_any_more_is_told_apart(by_command, fake_aws):
    ends = datetime.datetime(2030, 1, 1, tzinfo=datetime.timezone.utc)
    source = awsvault.Credentials(
        "ASIADUMMYUNKNOWN0001", awsvault.Secret("dummy"), awsvault.Secret("dummy"), ends
    )
    link = awsvault.AssumeRole(
        awsvault.Provider(), awsvault.SessionSlot("", ""),
        awsvault.Endpoint("eu-west-1", fake_aws.url), datetime.timedelta(hours=1),
        role_arn=arn("admin"),
    )  # fmt: skip
    task = awsvault.RenewTask(False, source, (link,)).members()
    failure = renew(by_command, **task)["failure"]
    assert failure["expired"]
    assert KEY_ID not in json.dumps(failure)
