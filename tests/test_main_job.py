"""The main job as a whole: keys in, short-lived credentials out, a command run with them.

Subprocesses, real files, real terminals and a strict AWS on loopback; nothing of the product is
imported.
"""

from __future__ import annotations

import configparser
import contextlib
import json
import os
import re
import shlex
import signal
import socket
import subprocess
import sys
import threading
from datetime import datetime, timezone
from itertools import groupby

import pytest

import awsvault
from tests.authority import make_authority
from tests.conftest import PASSPHRASE, PROGRAM, Cli, arn
from tests.fake_aws import ACCOUNT, KEY_ID, MFA_SERIAL, SECRET, FakeAws, furnish

OTHER_KEY_ID, OTHER_SECRET = "AKIADUMMYEXAMPLE0002", "dummy/secret+key/EXAMPLE0002/not/real000"
VARIABLES = (
    "AWS_ACCESS_KEY_ID",
    "AWS_SECRET_ACCESS_KEY",
    "AWS_SESSION_TOKEN",
    "AWS_CREDENTIAL_EXPIRATION",
)


def session_of(fake, environ):
    """The fake's session that the variables hold, complete."""
    session = fake.sessions[environ["AWS_ACCESS_KEY_ID"]]
    assert environ["AWS_SECRET_ACCESS_KEY"] == session.secret
    assert environ["AWS_SESSION_TOKEN"] == session.token
    return session


def without_repeats(names):
    return [name for name, _ in groupby(names)]


# ======================================================================
# add
# ======================================================================


def test_add_asks_for_key_secret_and_device(cli, fake_aws):
    terminal = cli.terminal("add", "prod", env={"AWS_VAULT_FILE_PASSPHRASE": None})
    terminal.expect("Access key ID")
    assert not terminal.echoing()
    terminal.send_line(KEY_ID)
    terminal.expect(KEY_ID)
    terminal.expect("Secret access key")
    assert not terminal.echoing()
    terminal.send_line(SECRET)
    terminal.expect("ARN of the MFA device")
    terminal.send_line(MFA_SERIAL)
    terminal.expect("Check the key")
    terminal.send_line("")
    for again in ("new vault", "again"):
        terminal.expect(again)
        assert not terminal.echoing()
        terminal.send_line(PASSPHRASE)
    assert terminal.wait() == 0
    assert terminal.modes_restored()
    assert SECRET not in terminal.screen
    assert PASSPHRASE not in terminal.screen
    assert cli.config_file.read_text() == f"[profile prod]\nmfa_serial = {MFA_SERIAL}\n"
    assert cli.exec_environ("prod", "-t", "123456")["AWS_VAULT"] == "prod"
    assert fake_aws.calls[0].key_id == KEY_ID


def test_what_is_pasted_into_add_is_not_shown(cli):
    """Key, secret and device as three lines at once: the questions come with their answers."""
    terminal = cli.terminal("add", "prod")
    terminal.expect("Access key ID")
    terminal.send(f"{KEY_ID}\r{SECRET}\r{MFA_SERIAL}\rno\r")
    assert terminal.wait() == 0
    assert terminal.modes_restored()
    assert terminal.screen == (
        f"Access key ID: {KEY_ID}\nSecret access key: \n"
        f"ARN of the MFA device (empty if there is none): {MFA_SERIAL}\n"
        "Check the key with AWS before it is stored? (y|N): no\n"
        'Added credentials to profile "prod" in vault\n'
    )


def test_swapped_and_cut_keys_are_asked_for_again_and_not_shown(cli):
    cli.config("[profile prod]\n")
    terminal = cli.terminal("add", "prod", "--no-verify")
    terminal.expect("Access key ID")
    terminal.send("".join(f"{line}\r" for line in (SECRET, KEY_ID[:9], KEY_ID, KEY_ID, SECRET)))
    assert terminal.wait() == 0, terminal.screen
    for said in ("looks like the secret", "cut: it has 9", "that is an access key ID"):
        assert said in terminal.screen
    assert SECRET not in terminal.screen
    terminal = cli.terminal("add", "prod", "-f")
    terminal.expect("Access key ID")
    terminal.send(f"{SECRET}\r" * 4)
    assert terminal.wait() == 2
    assert terminal.screen.count("looks like the secret") == 3
    assert SECRET not in terminal.screen
    assert terminal.modes_restored()


@pytest.mark.parametrize(
    ("key_id", "secret", "says"),
    [
        (SECRET, KEY_ID, "access key ID: that looks like the secret access key"),
        (KEY_ID, OTHER_KEY_ID, "secret access key: that is an access key ID"),
        (KEY_ID[:15], SECRET, "access key ID: it was cut: it has 15 characters"),
        ("AROADUMMYEXAMPLE0001", SECRET, "access key ID: that is none"),
        ("ASIADUMMYEXAMPLE0001", SECRET, "begins with ASIA is temporary"),
        (KEY_ID, "a b", "secret access key: it is one word"),
    ],
)
def test_add_knows_the_shape_of_a_key(cli, key_id, secret, says):
    env = {"AWS_ACCESS_KEY_ID": key_id, "AWS_SECRET_ACCESS_KEY": secret}
    done = cli.run("add", "prod", "--env", env=env, check=2)
    assert says in done.err
    assert key_id not in done.err
    assert not cli.keys.exists()


def test_a_secret_of_another_length_is_warned_of(cli):
    env = {"AWS_ACCESS_KEY_ID": KEY_ID, "AWS_SECRET_ACCESS_KEY": SECRET[1:]}
    done = cli.run("add", "prod", "--env", env=env, check=0)
    assert "has 39 characters instead of 40" in done.err


def test_add_asks_before_it_replaces(cli):
    cli.add("prod")
    before = (cli.keys / "prod").read_bytes()
    env = {"AWS_ACCESS_KEY_ID": OTHER_KEY_ID, "AWS_SECRET_ACCESS_KEY": OTHER_SECRET}
    for line in (["add", "prod"], ["add", "prod", "--env"]):
        terminal = cli.terminal(*line, env=env)
        terminal.expect("Replace the credentials stored for 'prod'")
        terminal.send_line("")
        assert terminal.wait() == 0
        assert (cli.keys / "prod").read_bytes() == before
    terminal = cli.terminal("add", "prod", "--env", "-f", env=env)
    assert terminal.wait() == 0
    assert "are replaced" in cli.run("add", "prod", "--env", env=env, check=0).err
    assert (cli.keys / "prod").read_bytes() != before


def test_add_verifies_before_it_stores(cli, fake_aws):
    env = {"AWS_ACCESS_KEY_ID": KEY_ID, "AWS_SECRET_ACCESS_KEY": OTHER_SECRET}
    done = cli.run("add", "prod", "--env", "--verify", env=env, check=1)
    assert "GetCallerIdentity: the secret key does not belong" in done.err
    assert not cli.keys.exists()
    env["AWS_SECRET_ACCESS_KEY"] = SECRET
    done = cli.run("add", "prod", "--env", "--verify", env=env, check=0)
    assert done.out.startswith(f"Account {ACCOUNT}, arn:aws:iam::{ACCOUNT}:user/jon\n")
    assert fake_aws.calls[-1].action == "GetCallerIdentity"


def test_add_asks_for_no_device_where_the_profile_is_there(cli):
    cli.config("[profile prod]\nregion = eu-west-1\n")
    terminal = cli.terminal("add", "prod")
    terminal.expect("Access key ID")
    terminal.send_line(KEY_ID)
    terminal.expect("Secret access key")
    terminal.send_line(SECRET)
    terminal.expect("Check the key")
    terminal.send_line("y")
    terminal.expect(f"Account {ACCOUNT}, arn:aws:iam::{ACCOUNT}:user/jon")
    terminal.expect("Added credentials")
    assert terminal.wait() == 0
    assert "MFA" not in terminal.screen
    assert cli.config_file.read_text() == "[profile prod]\nregion = eu-west-1\n"


def test_add_reads_the_environment(cli, fake_aws):
    cli.add("prod")
    assert cli.config_file.read_text() == "[profile prod]\n"
    assert cli.config_file.stat().st_mode & 0o777 == 0o600
    session = session_of(fake_aws, cli.exec_environ("prod"))
    assert (session.action, session.caller.arn) == (
        "GetSessionToken",
        f"arn:aws:iam::{ACCOUNT}:user/jon",
    )


@pytest.mark.parametrize("there", [True, False])
def test_no_add_config_leaves_the_file_alone(cli, there):
    if there:
        cli.config("# mine\n[default]\n")
    cli.add("prod", KEY_ID, SECRET, "--no-add-config")
    assert cli.config_file.exists() == there
    assert not there or cli.config_file.read_text() == "# mine\n[default]\n"
    assert cli.run("list", "--credentials", check=0).out == "prod\n"


def test_add_appends_and_rewrites_nothing(cli):
    text = "# note\r\n[profile a]\r\nregion=eu-west-1 ; why\n\n[ profile odd ]\nx"
    cli.config_file.parent.mkdir()
    cli.config_file.write_bytes(text.replace("\nx", "\nx = 1").encode())
    cli.add("prod")
    assert cli.config_file.read_bytes().startswith(text.encode())
    assert cli.config_file.read_text().endswith("\n[profile prod]\n")


def test_a_new_key_ends_the_sessions_of_the_old_one(cli, fake_aws):
    fake_aws.add_user("eve", OTHER_KEY_ID, OTHER_SECRET)
    cli.config(f"[profile prod]\n[profile admin]\nsource_profile=prod\nrole_arn={arn('admin')}\n")
    cli.add("prod")
    cli.exec_environ("prod")
    cli.exec_environ("admin")
    cli.add("prod", OTHER_KEY_ID, OTHER_SECRET)
    assert cli.run("list", "--sessions", check=0).out == ""
    assert session_of(fake_aws, cli.exec_environ("prod")).caller.user.name == "eve"


# ======================================================================
# Chains
# ======================================================================

CHAINS = f"""
[profile prod]
region = eu-west-1
mfa_serial = {MFA_SERIAL}

[profile plain]
region = eu-west-1

[profile deploy]
source_profile = prod
role_arn = {arn("deploy")}
mfa_serial = {MFA_SERIAL}

[profile admin]
source_profile = plain
role_arn = {arn("admin")}

[profile chained]
source_profile = admin
role_arn = {arn("chained")}

[profile partner]
source_profile = plain
role_arn = {arn("partner")}
external_id = secret-handshake
role_session_name = jon@example
duration_seconds = 1800
session_tags = team = a b, cost-center=12
transitive_session_tags = team
source_identity = jon
"""


@pytest.fixture
def chains(cli):
    """A config with each kind of chain; `prod` and `plain` have jon's key."""
    cli.config(CHAINS)
    cli.add("prod")
    cli.add("plain")
    return cli


@pytest.mark.parametrize(
    ("profile", "flags", "calls"),
    [
        ("plain", [], ["GetSessionToken"]),
        ("prod", ["-t", "123456"], ["GetSessionToken"]),
        ("deploy", ["--mfa-token=123456"], ["GetSessionToken", "AssumeRole"]),
        ("admin", [], ["AssumeRole"]),
        ("partner", [], ["AssumeRole"]),
        ("chained", [], ["AssumeRole", "AssumeRole"]),
        ("deploy", ["-n", "-t", "123456"], ["AssumeRole"]),
        ("deploy", ["-d", "2h", "-t", "123456"], ["AssumeRole"]),
    ],
)
def test_the_second_exec_makes_no_call(chains, fake_aws, profile, flags, calls):
    first = chains.exec_environ(profile, *flags)
    assert fake_aws.actions() == calls
    assert session_of(fake_aws, first).action == calls[-1]
    fake_aws.clear()
    again = [flag for flag in flags if not flag.endswith("123456") and flag != "-t"]
    second = chains.exec_environ(profile, *again, env={"AWS_VAULT_NO_INPUT": "1"})
    assert fake_aws.calls == []
    assert {name: first.get(name) for name in VARIABLES} == {
        name: second.get(name) for name in VARIABLES
    }


def test_no_session_of_a_plain_profile_hands_out_the_stored_key(chains, fake_aws):
    environ = chains.exec_environ("plain", "--no-session")
    assert (environ["AWS_ACCESS_KEY_ID"], environ["AWS_SECRET_ACCESS_KEY"]) == (KEY_ID, SECRET)
    assert "AWS_SESSION_TOKEN" not in environ
    assert "AWS_CREDENTIAL_EXPIRATION" not in environ
    assert fake_aws.calls == []


def test_the_environment_of_the_command(chains, fake_aws):
    environ = chains.exec_environ("partner", env={"AWS_SESSION_TOKEN": "stale", "OTHER": "kept"})
    session = session_of(fake_aws, environ)
    assert environ["AWS_CREDENTIAL_EXPIRATION"] == session.expires.strftime("%Y-%m-%dT%H:%M:%SZ")
    assert (environ["AWS_VAULT"], environ["AWS_ACCOUNT_ID"]) == ("partner", ACCOUNT)
    assert (environ["OTHER"], environ.get("AWS_VAULT_FILE_PASSPHRASE")) == ("kept", None)


def test_what_a_role_is_asked_with(chains, fake_aws):
    chains.exec_environ("partner")
    asked = fake_aws.calls[0].parameters
    assert asked["ExternalId"] == "secret-handshake"
    assert (asked["RoleSessionName"], asked["SourceIdentity"]) == ("jon@example", "jon")
    assert asked["DurationSeconds"] == "1800"
    assert (asked["Tags.member.1.Key"], asked["Tags.member.1.Value"]) == ("team", "a b")
    assert (asked["Tags.member.2.Key"], asked["Tags.member.2.Value"]) == ("cost-center", "12")
    assert asked["TransitiveTagKeys.member.1"] == "team"


@pytest.mark.parametrize(
    ("profile", "flags", "seconds"),
    [
        ("plain", [], 3600),
        ("plain", ["-d", "90m"], 5400),
        ("plain", ["--duration=1.5h"], 5400),
        ("admin", [], 3600),
        ("admin", ["-d2h"], 7200),
        ("chained", ["-d", "15m"], 900),
    ],
)
def test_durations(chains, fake_aws, profile, flags, seconds):
    chains.exec_environ(profile, *flags)
    assert fake_aws.calls[-1].parameters["DurationSeconds"] == str(seconds)


def test_a_chained_role_is_cut_to_an_hour_and_says_so(chains, fake_aws):
    done = chains.run("exec", "chained", "-d", "2h", "--", "true", check=0)
    assert "one hour at most" in done.err
    assert fake_aws.calls[-1].parameters["DurationSeconds"] == "3600"
    assert fake_aws.calls[-1].code == ""


def test_a_changed_role_is_not_served_from_the_cache(chains, fake_aws):
    chains.exec_environ("admin")
    chains.config(CHAINS.replace(arn("admin"), arn("audit")))
    session = session_of(fake_aws, chains.exec_environ("admin"))
    assert session.caller.role.name == "audit"


def test_a_session_with_little_left_is_made_anew(chains, fake_aws):
    fake_aws.lifetime = 299
    chains.exec_environ("plain")
    chains.exec_environ("plain")
    assert fake_aws.count() == 2
    chains.exec_environ("plain", env={"AWS_MIN_TTL": "1m"})
    assert fake_aws.count() == 2


# ======================================================================
# Where the MFA code comes from
# ======================================================================


def test_code_from_a_line_of_stdin_and_the_rest_is_the_commands(chains):
    done = chains.run("exec", "prod", "-t", "-", "--", "cat", input="123456\nthe rest\n", check=0)
    assert done.out == "the rest\n"


def test_code_from_a_descriptor_that_the_command_does_not_get(chains):
    read, write = os.pipe()
    os.write(write, b"123456\n")
    os.close(write)
    show = ["sh", "-c", f"test -e /dev/fd/{read} && echo open || echo closed"]
    line = ["exec", "prod", "--mfa-token-fd", read, "--", *show]
    assert chains.run(*line, pass_fds=(read,), check=0).out == "closed\n"
    os.close(read)


def test_code_from_mfa_process(chains, fake_aws):
    process = "mfa_process = sh -c 'echo 123456; echo heard >&2'\n"
    chains.config(CHAINS.replace("[profile plain]", process + "\n[profile plain]", 1))
    chains.exec_environ("deploy")
    assert fake_aws.calls[0].parameters["TokenCode"] == "123456"


def test_code_typed_on_the_terminal_with_stdin_and_stdout_elsewhere(chains, fake_aws):
    line = ["exec", "deploy", "--", "sh", "-c", "cat; echo $AWS_VAULT"]
    terminal = chains.terminal(*line, stdin=subprocess.PIPE, stdout=subprocess.PIPE)
    terminal.expect(f"MFA code for {MFA_SERIAL}")
    terminal.send_line("123456")
    out, _ = terminal.process.communicate(b"piped in\n", timeout=60)
    assert out == b"piped in\ndeploy\n"
    assert fake_aws.actions() == ["GetSessionToken", "AssumeRole"]


def test_one_code_serves_all_roles_of_a_source(cli, fake_aws):
    cli.mfa_config()
    cli.add("prod")
    cli.exec_environ("admin", "-t", "123456")
    for profile in ("deploy", "audit", "admin"):
        cli.exec_environ(profile, env={"AWS_VAULT_NO_INPUT": "1"})
    assert without_repeats(fake_aws.actions()) == ["GetSessionToken", "AssumeRole"]
    assert fake_aws.count() == 4


# ======================================================================
# The command
# ======================================================================


def test_default_shell_says_one_line(chains):
    terminal = chains.terminal("exec", "plain", env={"SHELL": "/bin/sh", "PS1": "ready> "})
    terminal.expect("started /bin/sh with credentials of 'plain'")
    terminal.expect("ready> ")
    terminal.send_line("echo in $AWS_VAULT; exit 7")
    terminal.expect("in plain")
    assert terminal.wait() == 7
    assert terminal.screen.count("awsvault:") == 1


def test_default_shell_may_be_quiet(chains):
    env = {"PS1": "ready> ", "AWS_VAULT_DISABLE_HELP_MESSAGE": "1"}
    terminal = chains.terminal("exec", "plain", env=env)
    terminal.expect("ready> ")
    assert "awsvault:" not in terminal.screen
    terminal.send_line("exit")
    assert terminal.wait() == 0


def test_default_shell_reads_stdin(chains):
    assert (
        chains.run("exec", "plain", input="echo from $AWS_VAULT\n", check=0).out == "from plain\n"
    )


@pytest.mark.parametrize(
    "words",
    [
        ["exec", "--", "sh", "-c", "echo $AWS_VAULT"],
        ["exec", "plain", "sh", "--", "-c", "echo $AWS_VAULT"],
        ["exec", "--no-session", "plain", "printenv", "AWS_VAULT"],
    ],
)
def test_where_profile_and_command_stand(chains, words):
    assert chains.run(*words, env={"AWS_PROFILE": "plain"}, check=0).out == "plain\n"


def test_named_profile_beats_the_variable(chains):
    assert chains.exec_environ("plain", env={"AWS_PROFILE": "nonesuch"})["AWS_VAULT"] == "plain"


def test_default_profile_where_none_is_named(cli):
    cli.config("[default]\nregion = eu-west-1\n")
    cli.add("default")
    assert cli.run("exec", input="echo $AWS_VAULT\n", check=0).out == "default\n"


@pytest.mark.parametrize(
    ("words", "env", "out", "err"),
    [
        (["plain", "printenv", "AWS_VAULT"], {}, "plain\n", ""),
        (["plain", "printenv", "AWS_VAULT"], {"AWS_PROFILE": "chained"}, "plain\n", ""),
        (["printenv", "AWS_VAULT"], {"AWS_PROFILE": "plain"}, "plain\n", ""),
        (["keysonly", "printenv", "AWS_VAULT"], {"AWS_PROFILE": "plain"}, "keysonly\n", ""),
        (["printenv", "AWS_VAULT"], {}, "", "awsvault exec PROFILE -- printenv"),
        (["plian", "printenv"], {}, "", "plain"),
    ],
)
def test_the_profile_may_stand_behind_the_marker(chains, words, env, out, err):
    chains.add("keysonly")
    done = chains.run("exec", "--", *words, env=env, check=0 if out else 2)
    assert done.out == out
    assert err in done.err
    if err:
        assert f"profile {words[0]!r} is neither in" in done.err


def test_it_is_the_same_process(chains):
    process = chains.popen("exec", "plain", "--", "sh", "-c", "echo $$; cat >/dev/null; exit 3")
    assert process.stdout.readline() == f"{process.pid}\n"
    process.communicate()
    assert process.returncode == 3


def test_large_data_passes_through(chains):
    text = "0123456789abcdef" * 65536
    assert chains.run("exec", "plain", "--", "cat", input=text, check=0).out == text


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT, signal.SIGKILL])
def test_a_signal_is_the_commands_own(chains, number):
    process = chains.popen("exec", "plain", "--", "sh", "-c", "echo up; exec cat")
    assert process.stdout.readline() == "up\n"
    process.send_signal(number)
    process.communicate()
    assert process.returncode == -number


def test_signals_umask_and_limits_inside_are_as_outside(chains):
    around = ["/bin/sh", "-c", 'umask 027; ulimit -S -c 100; exec "$@"', "sh"]
    show = "umask; ulimit -S -c; grep SigIgn /proc/self/status; grep SigBlk /proc/self/status"
    inner = ["sh", "-c", show]
    outside = subprocess.run([*around, *inner], capture_output=True, text=True, check=True).stdout
    assert outside.splitlines()[:2] == ["0027", "100"]
    ignored = int(outside.splitlines()[2].split()[1], 16)
    assert not any(ignored >> number - 1 & 1 for number in (signal.SIGPIPE, signal.SIGXFSZ))
    chains.program = [*around, *chains.program]
    assert chains.run("exec", "plain", "--", *inner, check=0).out == outside


@pytest.mark.parametrize("mode", [[], ["--server"], ["--process"]], ids=["", "server", "process"])
@pytest.mark.parametrize(
    "given", [{}, {"LANG": "C"}, {"LC_CTYPE": "POSIX"}, {"LC_CTYPE": "C.UTF-8"}, {"LC_ALL": "C"}], ids=str
)  # fmt: skip
def test_the_locale_inside_is_that_outside(chains, mode, given):
    # Where the locale is C, Python sets LC_CTYPE to C.UTF-8 in its own environment (PEP 538).
    show = ["sh", "-c", "env | grep -E '^(LANG|LC_)' || echo none"]
    found = chains.run("exec", *mode, "plain", "--", *show, env={"LANG": None, **given}, check=0)
    assert found.out == ("".join(f"{name}={text}\n" for name, text in given.items()) or "none\n")


@pytest.mark.parametrize("mode", [[], ["--server"]], ids=["", "server"])
@pytest.mark.parametrize("ignored", ["PIPE", "XFSZ", "PIPE XFSZ INT"])
def test_what_the_shell_ignores_the_command_ignores(chains, mode, ignored):
    script = f"""trap '' {ignored}; "$@"; exit $?"""
    chains.program = ["/bin/sh", "-c", script, "sh", *chains.program]
    line = ["exec", *mode, "plain", "--", "grep", "SigIgn", "/proc/self/status"]
    mask = int(chains.run(*line, check=0).out.split()[1], 16)
    numbers = {getattr(signal, f"SIG{name}") for name in ignored.split()}
    assert {n for n in (2, 13, 25) if mask >> (n - 1) & 1} == numbers


def test_a_reader_that_goes_away_ends_the_command(chains):
    process = chains.popen("exec", "plain", "--", "yes")
    assert process.stdout.readline() == "y\n"
    process.stdout.close()
    assert process.wait(30) == -signal.SIGPIPE


def test_the_file_is_a_script(chains):
    chains.program = [sys.executable, str(PROGRAM)]
    assert chains.run("exec", "plain", "--", "echo", "ran", check=0).out == "ran\n"
    server = chains.run("exec", "--ecs-server", "admin", "--", "env", check=0).out
    assert "AWS_CONTAINER_CREDENTIALS_FULL_URI=" in server


def test_a_code_that_nobody_asks_for_is_said_so(chains):
    said = "'plain' has no mfa_serial, so the MFA code is not used"
    assert said in chains.run("exec", "plain", "-t", "123456", "--", "true", check=0).err
    assert chains.run("exec", "plain", "--", "true", check=0).err == ""


def test_no_descriptor_is_left_open(chains):
    show = "import os; print(sorted(int(fd) for fd in os.listdir('/proc/self/fd')))"
    line = [sys.executable, "-I", "-S", "-c", show]
    plain = subprocess.run(
        line, stdin=subprocess.DEVNULL, capture_output=True, text=True, check=True
    ).stdout
    for _ in range(2):
        assert chains.run("exec", "plain", "--", *line, check=0).out == plain


def test_the_aws_cli_as_the_command(chains, awscli):
    done = chains.run(
        "exec", "admin", "--region=eu-west-1", "--", awscli, "sts", "get-caller-identity", check=0
    )
    assert done.json()["Arn"].startswith(f"arn:aws:sts::{ACCOUNT}:assumed-role/admin/")


# ======================================================================
# export
# ======================================================================


@pytest.mark.parametrize("how", [("-t", "123 456"), ("-t", "123\xa0456"), (), ("process",)])
def test_a_code_as_apps_show_it_is_taken(cli, fake_aws, how):
    cli.config(f"[profile prod]\nmfa_serial = {MFA_SERIAL}\n")
    cli.add("prod")
    if how == ("process",):
        cli.config(f"[profile prod]\nmfa_serial = {MFA_SERIAL}\nmfa_process = echo '123 456'\n")
    if how:
        cli.run("exec", *(how if len(how) > 1 else ()), "prod", "--", "true", check=0)
    else:
        terminal = cli.terminal("exec", "prod", "--", "true")
        for typed in ("12345", "abcdef", " 123 456 "):
            terminal.expect("MFA code for .*: ")
            terminal.send_line(typed)
        assert terminal.wait() == 0, terminal.screen
        assert terminal.screen.count("a code is six digits") == 2
    assert fake_aws.count() == 1


def test_no_code_is_asked_for_more_than_three_times(cli, fake_aws):
    cli.config(f"[profile prod]\nmfa_serial = {MFA_SERIAL}\n")
    cli.add("prod")
    terminal = cli.terminal("exec", "prod", "--", "true")
    terminal.expect("MFA code")
    terminal.send("1\r2\r3\r123456\r")
    assert terminal.wait() == 1
    assert terminal.screen.count("a code is six digits") == 3
    assert fake_aws.count() == 0


@pytest.mark.parametrize("line", [["exec", "plain", "-n", "--", "true"], ["add", "new", "--env"]])
@pytest.mark.parametrize("wrong", [2, 3])
def test_a_mistyped_passphrase_is_asked_for_again(cli, line, wrong):
    cli.config("[profile plain]\n")
    cli.add("plain")
    env = {"AWS_VAULT_FILE_PASSPHRASE": None, "AWS_ACCESS_KEY_ID": KEY_ID}
    terminal = cli.terminal(*line, env={**env, "AWS_SECRET_ACCESS_KEY": SECRET})
    for typed in ["mistyped"] * wrong + [PASSPHRASE] * (wrong < 3):
        terminal.expect("Passphrase for vault")
        terminal.send_line(typed)
    assert terminal.wait() == (wrong == 3), terminal.screen
    assert terminal.modes_restored()


def test_a_wrong_arn_is_asked_for_again(cli):
    terminal = cli.terminal("add", "prod", "--no-verify")
    terminal.expect("Access key ID")
    terminal.send("".join(f"{line}\r" for line in (KEY_ID, SECRET, "jon", MFA_SERIAL)))
    assert terminal.wait() == 0, terminal.screen
    assert "\njon\n" not in terminal.screen
    assert ": jon\n" not in terminal.screen
    assert MFA_SERIAL in cli.config_file.read_text()


def test_export_forms_say_the_same(chains, fake_aws):
    assert fake_aws.count() == 0
    document = chains.run("export", "plain", "--format=json", check=0).out
    assert document.count("\n") == 1
    assert ": " not in document
    data = json.loads(document)
    session = fake_aws.sessions[data["AccessKeyId"]]
    expected = {
        "AWS_ACCESS_KEY_ID": session.key_id,
        "AWS_SECRET_ACCESS_KEY": session.secret,
        "AWS_SESSION_TOKEN": session.token,
        "AWS_CREDENTIAL_EXPIRATION": session.expires.strftime("%Y-%m-%dT%H:%M:%SZ"),
        "AWS_REGION": "eu-west-1",
        "AWS_DEFAULT_REGION": "eu-west-1",
    }
    assert data == {
        "Version": 1,
        "AccessKeyId": session.key_id,
        "SecretAccessKey": session.secret,
        "SessionToken": session.token,
        "Expiration": expected["AWS_CREDENTIAL_EXPIRATION"],
    }
    for form, read in READERS.items():
        found = read(chains.run("export", "plain", f"--format={form}", check=0).out)
        mark = {} if form in ("env", "ini") else {"AWS_VAULT_REGION": "eu-west-1"}
        assert found == {**expected, **mark}
    assert fake_aws.count() == 1


def read_env(text):
    return dict(line.split("=", 1) for line in text.splitlines())


def read_by_shell(text):
    script = f"{text}\nenv -u PWD -u OLDPWD -u SHLVL -u _"
    done = subprocess.run(["/bin/sh", "-c", script], env={}, capture_output=True, check=True)
    return read_env("".join(f"{line}\n" for line in done.stdout.decode().splitlines()
                            if line.startswith("AWS_")))  # fmt: skip


def read_ini(text):
    parser = configparser.RawConfigParser(delimiters=("=",))
    parser.read_string(text)
    assert parser.sections() == ["plain"]
    section = dict(parser["plain"])
    region = section.pop("region")
    read = {name.upper(): value for name, value in section.items()}
    return {**read, "AWS_REGION": region, "AWS_DEFAULT_REGION": region}


def read_quoted(start, middle):
    def read(text):
        lines = [
            line.removeprefix(start).split(middle, 1)
            for line in text.splitlines()
            if not line.startswith("set -e ") and not line.endswith("$null")
        ]
        assert all(value[0] == value[-1] == "'" for _, value in lines)
        return {name: value[1:-1] for name, value in lines}

    return read


READERS = {
    "env": read_env,
    "export-env": read_by_shell,
    "ini": read_ini,
    "fish": read_quoted("set -gx ", " "),
    "powershell": read_quoted("$Env:", " = "),
}


def test_exec_json_is_export_json(chains):
    exported = chains.run("export", "plain", "--format=json", check=0).out
    assert chains.run("exec", "plain", "--json", check=0).out == exported
    assert chains.run("exec", "-j", "plain", check=0).out == exported


def test_export_is_a_credential_process_of_the_aws_cli(chains, fake_aws, awscli):
    line = shlex.join([*chains.program, "export", "--format=json", "admin"])
    outer = chains.home / "outer"
    outer.write_text(f"[profile outer]\nregion = eu-west-1\ncredential_process = {line}\n")
    environ = chains.environment({"AWS_CONFIG_FILE": str(outer)})
    inner = {"AWS_CONFIG_FILE": str(chains.config_file)}
    outer.write_text(
        outer.read_text().replace(line, f"env {shlex.join(map('='.join, inner.items()))} {line}")
    )
    done = subprocess.run(
        [awscli, "--profile", "outer", "sts", "get-caller-identity"],
        env=environ, capture_output=True, text=True, check=True,
    )  # fmt: skip
    assert json.loads(done.stdout)["Arn"].startswith(f"arn:aws:sts::{ACCOUNT}:assumed-role/admin/")


# ======================================================================
# list, clear, remove
# ======================================================================


def test_list_shows_what_there_is_without_a_passphrase(chains):
    chains.endpoint_in_config("profile plain")
    chains.exec_environ("plain")
    closed = {"AWS_VAULT_FILE_PASSPHRASE": None, "AWS_VAULT_NO_INPUT": "1"}
    table = chains.run("list", env=closed, check=0).out.splitlines()
    assert [line.split() for line in table[:2]] == [
        ["Profile", "Credentials", "Sessions"],
        ["=======", "===========", "========"],
    ]
    rows = {line.split()[0]: line.split()[1:] for line in table[2:]}
    assert rows["prod"] == ["prod", "-"]
    assert rows["plain"][:2] == ["plain", "session,"]
    assert re.fullmatch(r"1h0m0s|59m[0-9]+s", rows["plain"][2])
    assert rows["admin"] == ["-", "-"]
    assert chains.run("ls", "--credentials", env=closed, check=0).out == "plain\nprod\n"
    assert chains.run("list", "--sessions", env=closed, check=0).out.count("\n") == 1
    names = ["prod", "plain", "deploy", "admin", "chained", "partner"]
    assert chains.run("list", "--profiles", env=closed, check=0).out.split() == names


def test_clear_takes_one_profiles_sessions_or_all(chains, fake_aws):
    for profile in ("plain", "admin", "partner"):
        chains.exec_environ(profile)
    chains.run("clear", "admin", check=0)
    assert chains.run("list", "--sessions", check=0).out.count("\n") == 2
    assert chains.run("clear", check=0).out == "Cleared 2 sessions.\n"
    assert chains.run("list", "--sessions", check=0).out == ""
    assert chains.run("list", "--credentials", check=0).out == "plain\nprod\n"
    chains.exec_environ("plain")


def test_remove_asks_and_takes_dependent_sessions_along(chains):
    for profile in ("plain", "admin", "chained"):
        chains.exec_environ(profile)
    terminal = chains.terminal("remove", "plain")
    terminal.expect(r"Delete the credentials of 'plain' and its sessions\?")
    terminal.send_line("n")
    assert terminal.wait() == 0
    assert "plain" in chains.run("list", "--credentials").out
    terminal = chains.terminal("rm", "plain")
    terminal.expect(r"\(y\|N\)")
    terminal.send_line("y")
    assert terminal.wait() == 0
    assert chains.run("list", "--credentials").out == "prod\n"
    assert chains.run("list", "--sessions").out == ""
    assert chains.run("exec", "plain", "--", "true", check=1).out == ""


@pytest.mark.parametrize("answer", ["y", "n"])
def test_remove_offers_to_remove_the_section_that_add_made(cli, answer):
    cli.config("# mine\n[profile a]\nregion = eu-west-1\n")
    for name in ("prod", "b"):
        cli.add(name)
    before = cli.config_file.read_text()
    cli.config_file.chmod(0o640)
    terminal = cli.terminal("rm", "prod")
    for question in ("Delete", "Remove its empty section"):
        terminal.expect(question)
        terminal.send_line(answer if question != "Delete" else "y")
    assert terminal.wait() == 0
    assert "Deleted the credentials of 'prod'" in terminal.screen
    after = before if answer == "n" else before.replace("\n[profile prod]\n", "")
    assert cli.config_file.read_text() == after
    assert cli.config_file.stat().st_mode & 0o777 == 0o640


@pytest.mark.parametrize("text", ["region = x\n", "# mine\n", "\n[profile prod]\n"])
def test_remove_leaves_a_section_that_a_user_has_written_into(cli, text):
    cli.add("prod")
    with cli.config_file.open("a") as file:
        file.write(text)
    before = cli.config_file.read_text()
    terminal = cli.terminal("rm", "prod")
    terminal.expect("Delete")
    terminal.send_line("y")
    assert terminal.wait() == 0
    assert "section" not in terminal.screen
    assert cli.config_file.read_text() == before


@pytest.mark.parametrize("flag", ["-f", "--force"])
def test_remove_with_force_asks_nobody(chains, flag):
    chains.run("remove", flag, "plain", check=0)
    assert chains.run("list", "--credentials").out == "prod\n"


@pytest.mark.parametrize("flag", ["-s", "--sessions-only"])
def test_remove_sessions_only_keeps_the_key(chains, flag):
    chains.exec_environ("plain")
    chains.run("remove", flag, "plain", check=0)
    assert chains.run("list", "--sessions").out == ""
    assert "plain" in chains.run("list", "--credentials").out


# ======================================================================
# Where STS is
# ======================================================================


class Refuser:
    """A proxy that notes whom it was asked to connect to, and refuses."""

    def __enter__(self):
        self.asked = []
        self.socket = socket.create_server(("127.0.0.1", 0))
        self.url = f"http://127.0.0.1:{self.socket.getsockname()[1]}"
        self.thread = threading.Thread(target=self._serve, daemon=True)
        self.thread.start()
        return self

    def __exit__(self, *_):
        self.socket.shutdown(socket.SHUT_RDWR)
        self.socket.close()
        self.thread.join(10)

    def _serve(self):
        with contextlib.suppress(OSError):
            while True:
                connection, _ = self.socket.accept()
                with connection, connection.makefile("rb") as stream:
                    self.asked.append(stream.readline().decode().strip())
                    while stream.readline().strip():
                        pass
                    connection.sendall(b"HTTP/1.1 403 Forbidden\r\nContent-Length: 0\r\n\r\n")


@pytest.mark.parametrize(
    ("settings", "flags", "env", "host"),
    [
        ("", [], {}, "sts.amazonaws.com"),
        ("region = eu-west-1", [], {}, "sts.eu-west-1.amazonaws.com"),
        ("region = us-east-1", [], {}, "sts.us-east-1.amazonaws.com"),
        ("region = eu-west-1", ["--region", "ap-south-1"], {}, "sts.ap-south-1.amazonaws.com"),
        ("region = eu-west-1", [], {"AWS_REGION": "sa-east-1"}, "sts.sa-east-1.amazonaws.com"),
        ("", [], {"AWS_DEFAULT_REGION": "sa-east-1"}, "sts.sa-east-1.amazonaws.com"),
        ("region = cn-north-1", [], {}, "sts.cn-north-1.amazonaws.com.cn"),
        ("region = us-gov-west-1", [], {}, "sts.us-gov-west-1.amazonaws.com"),
        ("region = eu-west-1", [], {"AWS_STS_REGIONAL_ENDPOINTS": "legacy"}, "sts.amazonaws.com"),
        ("region = eu-west-1\nsts_regional_endpoints = legacy", [], {}, "sts.amazonaws.com"),
        ("region = af-south-1", [], {"AWS_STS_REGIONAL_ENDPOINTS": "legacy"},
         "sts.af-south-1.amazonaws.com"),
        ("region = us-east-2", [], {"AWS_USE_FIPS_ENDPOINT": "true"},
         "sts-fips.us-east-2.amazonaws.com"),
        ("region = us-east-2\nuse_fips_endpoint = true", [], {},
         "sts-fips.us-east-2.amazonaws.com"),
        ("region = eu-west-1\nuse_dualstack_endpoint = true", [], {}, "sts.eu-west-1.api.aws"),
        ("region = eu-west-1", [], {"AWS_USE_DUALSTACK_ENDPOINT": "true"},
         "sts.eu-west-1.api.aws"),
    ],
)  # fmt: skip
def test_the_endpoint_is_botocores_choice(cli, settings, flags, env, host):
    cli.config(f"[profile prod]\n{settings}\n")
    cli.add("prod")
    with Refuser() as proxy:
        # An https endpoint's host is all that a proxy hears of it.
        changes = {
            "AWS_ENDPOINT_URL_STS": None,
            "HTTPS_PROXY": proxy.url,
            "AWS_MAX_ATTEMPTS": "1",
            **env,
        }
        done = cli.run("exec", "prod", *flags, "--", "true", env=changes, check=1)
    assert proxy.asked == [f"CONNECT {host}:443 HTTP/1.1"] or proxy.asked == [
        f"CONNECT {host}:443 HTTP/1.0"
    ]
    assert "proxy" in done.err


SERVICES_AND_URL = """services = local
endpoint_url = http://127.0.0.1:9
[services local]
sts =
  endpoint_url = {url}
"""


@pytest.mark.parametrize(
    ("settings", "env"),
    [
        ("", {"AWS_ENDPOINT_URL_STS": "{url}"}),
        ("", {"AWS_ENDPOINT_URL": "{url}"}),
        ("endpoint_url = {url}", {}),
        ("endpoint_url = http://127.0.0.1:9", {"AWS_ENDPOINT_URL_STS": "{url}"}),
        ("services = local\n[services local]\nsts =\n  endpoint_url = {url}", {}),
        (SERVICES_AND_URL, {}),
    ],
    ids=["variable", "variable for all", "key", "variable beats key", "services",
         "services beat key"],
)  # fmt: skip
def test_endpoints_that_are_named(cli, fake_aws, settings, env):
    cli.environ.pop("AWS_ENDPOINT_URL_STS")
    cli.config("[profile prod]\nregion = eu-west-1\n" + settings.format(url=fake_aws.url) + "\n")
    cli.add("prod")
    named = {name: value.format(url=fake_aws.url) for name, value in env.items()}
    cli.exec_environ("prod", env=named)
    assert fake_aws.actions() == ["GetSessionToken"]
    assert fake_aws.calls[0].region == "eu-west-1"


def test_configured_endpoints_may_be_ignored(cli, fake_aws):
    cli.config(f"[profile prod]\nregion = eu-west-1\nendpoint_url = {fake_aws.url}\n")
    cli.add("prod")
    with Refuser() as proxy:
        env = {
            "AWS_IGNORE_CONFIGURED_ENDPOINT_URLS": "true",
            "HTTPS_PROXY": proxy.url,
            "AWS_MAX_ATTEMPTS": "1",
        }
        cli.run("exec", "prod", "--", "true", env=env, check=1)
    assert proxy.asked[0].startswith("CONNECT sts.eu-west-1.amazonaws.com:443")
    assert fake_aws.calls == []


def test_plain_http_goes_through_a_proxy_where_it_is_allowed(cli, fake_aws):
    cli.add("prod")
    env = {
        "AWS_ENDPOINT_URL_STS": "http://sts.example.test",
        "HTTP_PROXY": fake_aws.url,
        "AWS_VAULT_ALLOW_HTTP": "1",
    }
    cli.run("exec", "prod", "--", "true", env=env, check=0)
    assert fake_aws.calls[0].headers["host"] == "sts.example.test"


@pytest.mark.parametrize("variable", ["NO_PROXY", "no_proxy"])
def test_no_proxy_applies(cli, fake_aws, variable):
    cli.add("prod")
    with Refuser() as proxy:
        env = {"HTTP_PROXY": proxy.url, "http_proxy": proxy.url, variable: "127.0.0.1"}
        cli.exec_environ("prod", env=env)
    assert (proxy.asked, fake_aws.count()) == ([], 1)


@pytest.fixture
def secure(home, tmp_path):
    """The product and an AWS over TLS whose authority nobody knows; `authority` is its file."""
    authority, context = make_authority(tmp_path / "tls")
    with FakeAws(tls=context) as fake:
        product = Cli(home, furnish(fake).url)
        product.environ["AWS_MAX_ATTEMPTS"] = "1"
        product.authority, product.fake = authority, fake
        yield product
        product.close()


def test_ca_bundle_by_variable(secure):
    secure.add("prod")
    secure.exec_environ("prod", env={"AWS_CA_BUNDLE": str(secure.authority)})
    assert secure.fake.actions() == ["GetSessionToken"]


def test_ca_bundle_by_key(secure):
    secure.config(f"[profile prod]\nca_bundle = {secure.authority}\n")
    secure.add("prod")
    secure.exec_environ("prod")
    assert secure.fake.actions() == ["GetSessionToken"]


@pytest.mark.parametrize(
    "content", [None, "", "no certificate\n"], ids=["unknown", "empty", "text"]
)
def test_no_request_without_trust(secure, content):
    secure.add("prod")
    bundle = secure.home / "bundle.pem"
    bundle.write_text(content or "")
    env = {} if content is None else {"AWS_CA_BUNDLE": str(bundle)}
    done = secure.run("exec", "prod", "--", "true", env=env, check=1)
    assert "certificate" in done.err or "CA bundle" in done.err
    assert "awsvault: hint:" in done.err
    assert "Traceback" not in done.err
    assert secure.fake.calls == []


def test_skew_is_corrected_over_tls(secure):
    secure.add("prod")
    secure.fake.skew = 3600
    done = secure.run(
        "exec", "prod", "--", "true", env={"AWS_CA_BUNDLE": str(secure.authority)}, check=0
    )
    assert done.err.count("clock") == 1


# ======================================================================
# It finds nothing by itself
# ======================================================================


def test_a_hostile_environment_changes_nothing(cli, fake_aws):
    fake_aws.add_user("eve", OTHER_KEY_ID, OTHER_SECRET)
    cli.config(
        f"""
        [default]
        role_arn = {arn("closed")}
        source_profile = eve
        [profile eve]
        credential_process = sh -c 'touch ran'
        [profile prod]
        region = eu-west-1
        """
    )
    cli.add("prod")
    (cli.home / ".aws" / "credentials").write_text(
        "".join(
            f"[{name}]\naws_access_key_id={OTHER_KEY_ID}\naws_secret_access_key={OTHER_SECRET}\n"
            for name in ("default", "prod", "eve")
        )
    )
    models = cli.home / ".aws" / "models" / "sts" / "2011-06-15"
    models.mkdir(parents=True)
    (models / "service-2.json").write_text("{}")
    (cli.home / ".aws" / "models" / "endpoints.json").write_text("{}")
    (cli.home / ".boto").write_text("[Boto]\nhttps_validate_certificates = False\n")
    environ = cli.exec_environ(
        "prod",
        env={
            "AWS_ACCESS_KEY_ID": OTHER_KEY_ID,
            "AWS_SECRET_ACCESS_KEY": OTHER_SECRET,
            "AWS_PROFILE": "eve",
            "AWS_DEFAULT_PROFILE": "eve",
            "AWS_DATA_PATH": str(cli.home / ".aws" / "models"),
            "AWS_SHARED_CREDENTIALS_FILE": str(cli.home / ".aws" / "credentials"),
            "AWS_WEB_IDENTITY_TOKEN_FILE": "/nonesuch",
            "AWS_CONTAINER_CREDENTIALS_FULL_URI": "http://127.0.0.1:9/",
            "AWS_EC2_METADATA_SERVICE_ENDPOINT": "http://127.0.0.1:9/",
        },
    )
    assert [call.key_id for call in fake_aws.calls] == [KEY_ID]
    assert session_of(fake_aws, environ).caller.user.name == "jon"
    assert not (cli.home / "ran").exists()


def test_no_keys_no_request(cli, fake_aws):
    cli.config("[profile prod]\nregion = eu-west-1\n")
    env = {"AWS_ACCESS_KEY_ID": KEY_ID, "AWS_SECRET_ACCESS_KEY": SECRET}
    done = cli.run("exec", "prod", "--", "true", env=env, check=1)
    assert "no credentials are stored" in done.err
    assert fake_aws.calls == []


# ======================================================================
# Clock
# ======================================================================


@pytest.mark.parametrize(("skew", "word"), [(3600, "behind"), (-3600, "ahead of")])
def test_a_wrong_clock_is_told_and_worked_around(cli, fake_aws, skew, word):
    cli.add("prod")
    fake_aws.skew = skew
    done = cli.run("exec", "prod", "--", "true", check=0)
    assert word in done.err
    assert done.err.count("clock") == 1
    assert fake_aws.actions() == ["GetSessionToken"] * 2
    assert [call.code for call in fake_aws.calls] == ["SignatureDoesNotMatch", ""]


def test_a_clock_that_is_right_is_not_blamed(cli, fake_aws):
    cli.add("prod", KEY_ID, OTHER_SECRET)
    done = cli.run("exec", "prod", "--", "true", check=1)
    assert "clock" not in done.err
    assert "secret key does not belong" in done.err
    assert fake_aws.count() == 1


def test_expiry_is_of_this_days_time(cli, fake_aws):
    cli.add("prod")
    environ = cli.exec_environ("prod")
    moment = datetime.strptime(environ["AWS_CREDENTIAL_EXPIRATION"], "%Y-%m-%dT%H:%M:%SZ")
    left = moment.replace(tzinfo=timezone.utc) - datetime.now(timezone.utc)
    assert 3500 < left.total_seconds() <= 3600


ASK_SERVER = (
    "import os, urllib.request; e = os.environ; url = e['AWS_CONTAINER_CREDENTIALS_FULL_URI'];"
    "head = {'Authorization': e['AWS_CONTAINER_AUTHORIZATION_TOKEN']};"
    "print(urllib.request.urlopen(urllib.request.Request(url, headers=head), timeout=20).status)"
)


@pytest.mark.parametrize("mode", ["server", "session"])
def test_names_that_are_not_utf_8_go_through_every_process(cli, home, mode):
    cli.home = home / os.fsdecode(b"caf\xe9")
    cli.home.mkdir(mode=0o700)
    cli.environ["HOME"] = str(cli.home)
    profile = os.fsdecode(b"b\xe4r")
    cli.config("[profile prod]\nregion = eu-west-1\n")
    with cli.config_file.open("ab") as file:
        file.write(os.fsencode(f"[profile {profile}]\nsource_profile = prod\nregion = eu-west-1\n"))
        file.write(b"role_arn = arn:aws:iam::111111111111:role/admin\n")
    cli.add()
    if mode == "server":
        show = [sys.executable, "-I", "-c", ASK_SERVER]
        assert cli.run("exec", "--server", profile, "--", *show, check=0).out == "200\n"
    else:
        first, again = (cli.exec_environ(profile)["AWS_SESSION_TOKEN"] for _ in range(2))
        assert first == again


def test_a_plain_exec_takes_what_was_made_for_a_named_duration(cli, fake_aws):
    cli.mfa_config()
    cli.add()
    cli.exec_environ("prod", "-t", "123456", "-d", "4h")
    calls = fake_aws.count()
    cli.exec_environ("prod")
    cli.exec_environ("prod", "-d", "4h")
    assert fake_aws.count() == calls
    cli.run("exec", "prod", "-d", "2h", "--no-input", "--", "true", check=3)


def test_the_default_duration_said_aloud_is_no_other(cli, fake_aws):
    cli.mfa_config()
    cli.add()
    cli.exec_environ("prod", "-t", "123456")
    calls = fake_aws.count()
    cli.exec_environ("prod", "-d", "1h")
    assert fake_aws.count() == calls


# -- flags as aws-vault reads them ----------------------------------------------------------------


@pytest.fixture
def plain(cli):
    cli.config("[profile prod]\nregion = eu-west-1\n")
    cli.add("prod")
    return cli


@pytest.mark.parametrize("flags", [["--no-no-session"], ["--session"], ["--no-help"], ["--no-debug"]])
def test_every_boolean_flag_has_a_contrary(plain, fake_aws, flags):
    plain.run("exec", *flags, "prod", "--", "true", check=0)
    assert fake_aws.count("GetSessionToken") == 1


@pytest.mark.parametrize("words", [["-v"], ["-v", "list"], ["list", "-v"], ["--version"]])
def test_the_short_flag_of_the_version(cli, words):
    assert cli.run(*words, check=0).out == f"{awsvault.__version__}\n"


def test_backends_keeps_its_own_short_flag(cli):
    assert cli.run("backends", "-v", check=0).out.startswith("Keystore")


@pytest.mark.parametrize(
    "flags",
    [
        ["-d", "1h", "--duration=2h"], ["--region", "eu-west-1", "--region", "eu-west-2"],
        ["--server", "--no-server"], ["-n", "--no-no-session"], ["--backend=file", "--backend", "pass"],
    ],
)  # fmt: skip
def test_a_flag_that_says_two_things_is_refused(cli, flags):
    refused = cli.run("exec", *flags, "prod", "--", "true")
    assert refused.code == awsvault.EXIT_USAGE
    assert "is given more than once, and says different things" in refused.err


def test_a_flag_that_says_one_thing_twice_is_not(plain):
    plain.run("exec", "--debug", "--debug", "-d", "1h", "-d1h", "prod", "--", "true", check=0)


@pytest.mark.parametrize(
    ("name", "value", "said"),
    [
        *((name, "true", 1) for name in awsvault.IGNORED_VARIABLES),
        ("AWS_VAULT_STDOUT", "yes, please", 1), ("AWS_VAULT_STDOUT", "false", 0), ("AWS_VAULT_STDOUT", "", 0),
    ],
)  # fmt: skip
def test_a_variable_that_is_set_for_nothing_is_told_once(plain, name, value, said):
    for words in (["list"], ["exec", "--server", "prod", "--", "true"]):
        done = plain.run(*words, env={name: value}, check=0)
        assert done.err.count(f"note: {name} is ignored: ") == said
