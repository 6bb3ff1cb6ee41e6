"""Many processes at once: nothing is lost, nothing is made twice, nobody waits for the dead."""

from __future__ import annotations

import configparser
import os
import signal
import threading
import time
from pathlib import Path

import pytest

from tests.conftest import arn
from tests.fake_aws import KEY_ID, MFA_SERIAL, SECRET

TRUE = ("--", "true")
KEYS = {"AWS_ACCESS_KEY_ID": KEY_ID, "AWS_SECRET_ACCESS_KEY": SECRET}
linux = pytest.mark.skipif(not Path("/proc/locks").exists(), reason="/proc/locks is Linux's")


def lock_waiters(folder):
    """Process ids that wait for a flock on a file of a folder, as the kernel lists them."""
    inodes = {str(path.stat().st_ino) for path in folder.glob("*")}
    waiting = [
        line.split() for line in Path("/proc/locks").read_text().splitlines() if "->" in line
    ]
    # N: -> FLOCK ADVISORY WRITE PID MAJOR:MINOR:INODE START END
    return {int(words[5]) for words in waiting if words[6].split(":")[2] in inodes}


def wait_until(condition, timeout=60.0):
    """Wait for a state of the kernel's that announces itself to nobody."""
    deadline, pause = time.monotonic() + timeout, threading.Event()
    while not condition():
        assert time.monotonic() < deadline, "it never came to that"
        pause.wait(0.005)


def finish(processes):
    """Wait for all; (exit code, stdout, stderr) of each."""
    ends = [process.communicate(timeout=120) for process in processes]
    return [(process.returncode, *end) for process, end in zip(processes, ends)]


def all_succeed(processes):
    ends = finish(processes)
    assert {code for code, _, _ in ends} == {0}, "\n".join(err for _, _, err in ends)
    return ends


# ======================================================================
# Writers
# ======================================================================


def test_twenty_adds_at_once(cli, fake_aws):
    names = [f"team-{number}" for number in range(20)]
    all_succeed([cli.popen("add", name, "--env", env=KEYS) for name in names])
    assert sorted(cli.run("list", "--credentials").out.split()) == sorted(names)
    parser = configparser.RawConfigParser(strict=True)
    parser.read(cli.config_file)
    assert sorted(parser.sections()) == sorted(f"profile {name}" for name in names)
    # All of them open: they were sealed by the same passphrase, whichever came first.
    for name in names[::5]:
        cli.run("exec", name, "--no-session", *TRUE, check=0)
    salts = {path.read_bytes().split(b".")[0] for path in cli.keys.iterdir()}
    assert len(salts) == 1


def test_twenty_adds_beside_twenty_execs(cli, fake_aws):
    cli.add("prod")
    names = [f"team-{number}" for number in range(20)]
    processes = []
    for name in names:
        processes.append(cli.popen("add", name, "--env", env=KEYS))
        processes.append(cli.popen("exec", "prod", *TRUE))
    all_succeed(processes)
    assert fake_aws.actions() == ["GetSessionToken"]
    listed = set(cli.run("list", "--credentials").out.split())
    assert listed == {"prod", *names}


def test_the_same_profile_added_twenty_times(cli):
    all_succeed([cli.popen("add", "prod", "--env", env=KEYS) for _ in range(20)])
    assert cli.config_file.read_text() == "[profile prod]\n"
    cli.run("exec", "prod", *TRUE, check=0)


def test_removers_do_not_disturb_each_other(cli):
    for number in range(3):
        cli.add(f"team-{number}")
        cli.run("exec", f"team-{number}", *TRUE, check=0)
    all_succeed([cli.popen("clear") for _ in range(10)])
    assert cli.run("list", "--sessions").out == ""
    ends = finish([cli.popen("remove", "-f", "team-0") for _ in range(5)])
    assert {code for code, _, _ in ends} <= {0, 1}
    assert "Traceback" not in "".join(err for _, _, err in ends)
    assert sorted(cli.run("list", "--credentials").out.split()) == ["team-1", "team-2"]


# ======================================================================
# One maker
# ======================================================================


def test_fifty_execs_on_a_cold_cache_make_one_call(cli, fake_aws):
    cli.add("prod")
    show = ["--", "printenv", "AWS_ACCESS_KEY_ID"]
    ends = all_succeed([cli.popen("exec", "prod", *show) for _ in range(50)])
    assert fake_aws.actions() == ["GetSessionToken"]
    assert len({out for _, out, _ in ends}) == 1


def test_a_chain_is_made_once(cli, fake_aws):
    cli.config(
        f"[profile prod]\n[profile admin]\nrole_arn = {arn('admin')}\nsource_profile = prod\n"
        f"[profile chained]\nrole_arn = {arn('chained')}\nsource_profile = admin\n"
    )
    cli.add("prod")
    profiles = ["admin", "chained"] * 8
    all_succeed([cli.popen("exec", profile, *TRUE) for profile in profiles])
    assert sorted(call.parameters["RoleArn"] for call in fake_aws.calls) == [
        arn("admin"),
        arn("chained"),
    ]


def test_one_prompt_for_all_on_one_terminal(cli, fake_aws):
    cli.mfa_config()
    cli.add("prod")
    cli.environ["COUNT"] = "6"
    script = 'i=0; while [ $i -lt $COUNT ]; do "$@" & i=$((i+1)); done; wait; echo all done'
    cli.program = ["/bin/sh", "-c", script, "sh", *cli.program]
    terminal = cli.terminal("exec", "prod", "--", "echo", "it ran")
    terminal.expect("MFA code for ")
    terminal.send_line("123456")
    terminal.expect("all done")
    assert terminal.wait() == 0
    assert terminal.screen.count("MFA code") == 1
    assert terminal.screen.count("it ran") == 6
    assert fake_aws.actions() == ["GetSessionToken"]


@linux
def test_a_refusal_is_shared_with_those_who_waited(cli, fake_aws):
    cli.add("prod")
    locks = cli.home / ".awsvault" / "locks"
    with fake_aws.hold():
        winner = cli.popen("exec", "prod", *TRUE)
        fake_aws.wait_for(1)
        waiters = [cli.popen("exec", "prod", *TRUE) for _ in range(5)]
        pids = {process.pid for process in waiters}
        wait_until(lambda: lock_waiters(locks) >= pids)
        fake_aws.fail(times=99, status=403, code="AccessDenied", message="not today")
    ends = finish([winner, *waiters])
    assert [code for code, _, _ in ends] == [1] * 6
    assert all("not today" in err and err.count("awsvault: error") == 1 for _, _, err in ends)
    assert fake_aws.count() == 1
    # Who comes later tries anew.
    cli.run("exec", "prod", *TRUE, check=1)
    assert fake_aws.count() == 2


@linux
@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGINT, signal.SIGTERM])
def test_the_next_takes_over_from_a_winner_that_died(cli, fake_aws, number):
    cli.add("prod")
    locks = cli.home / ".awsvault" / "locks"
    with fake_aws.hold():
        winner = cli.popen("exec", "prod", *TRUE)
        fake_aws.wait_for(1)
        waiters = [cli.popen("exec", "prod", *TRUE) for _ in range(3)]
        wait_until(lambda: lock_waiters(locks) >= {process.pid for process in waiters})
        winner.send_signal(number)
        fake_aws.wait_for(2)
    all_succeed(waiters)
    assert fake_aws.count() == 2


def test_two_roles_of_one_device_never_spend_one_code(cli, fake_aws):
    cli.mfa_config()
    cli.add("prod")
    script = (
        '"$@" exec deploy -n -- echo ran & "$@" exec admin -n -- echo ran & wait; echo all done'
    )
    cli.program = ["/bin/sh", "-c", script, "sh", *cli.program]
    terminal = cli.terminal()
    terminal.expect("MFA code for ")
    assert terminal.screen.count("MFA code") == 1
    terminal.send_line("123456")
    terminal.expect("MFA code for ")
    terminal.send_line("234567")
    terminal.expect("all done")
    terminal.wait()
    assert terminal.screen.count("ran") == 2
    assert [call.parameters["TokenCode"] for call in fake_aws.calls] == ["123456", "234567"]
    assert [call.code for call in fake_aws.calls] == ["", ""]


# ======================================================================
# The lock files
# ======================================================================


@linux
def test_a_removed_lock_file_does_not_make_two_owners(cli, fake_aws):
    cli.add("prod")
    locks = cli.home / ".awsvault" / "locks"
    with fake_aws.hold():
        first = cli.popen("exec", "prod", *TRUE)
        fake_aws.wait_for(1)
        second = cli.popen("exec", "prod", *TRUE)
        wait_until(lambda: second.pid in lock_waiters(locks))
        for path in locks.iterdir():
            path.unlink()
        third = cli.popen("exec", "prod", *TRUE)
        fake_aws.wait_for(2)
        # The second now gets a lock on a file that nobody will open any more: it must queue again.
        first.kill()
        wait_until(lambda: second.pid in lock_waiters(locks))
        assert fake_aws.count() == 2
    all_succeed([second, third])
    assert fake_aws.count() == 2


def test_no_lock_is_held_while_the_command_runs(cli, fake_aws):
    cli.add("prod")
    running = cli.popen("exec", "prod", "--", "sh", "-c", "echo up; cat")
    assert running.stdout.readline() == "up\n"
    cli.run("clear", check=0)
    cli.run("exec", "prod", *TRUE, check=0)
    cli.add("other")
    running.communicate()
    assert running.returncode == 0


def test_locks_are_private_whatever_the_umask(cli):
    cli.program = ["/bin/sh", "-c", 'umask 000; exec "$@"', "sh", *cli.program]
    cli.add("prod")
    cli.run("exec", "prod", *TRUE, check=0)
    top = cli.home / ".awsvault"
    modes = {path: path.stat().st_mode & 0o777 for path in [top, *top.rglob("*")]}
    for path, mode in modes.items():
        assert mode == (0o700 if path.is_dir() else 0o600), path
    assert any(path.parent.name == "locks" for path in modes)
    assert cli.config_file.stat().st_mode & 0o777 == 0o600


def test_a_lock_file_that_is_a_link_is_refused(cli):
    cli.add("prod")
    cli.run("exec", "prod", *TRUE, check=0)
    cli.run("clear", check=0)
    victim = cli.home / "victim"
    victim.write_text("untouched")
    for path in (cli.home / ".awsvault" / "locks").iterdir():
        path.unlink()
        path.symlink_to(victim)
    done = cli.run("exec", "prod", *TRUE)
    assert victim.read_text() == "untouched"
    assert "Traceback" not in done.err
    assert done.code in (0, 1)


def test_the_environment_does_not_choose_the_lock(cli, fake_aws, tmp_path):
    cli.add("prod")
    for number in range(3):
        folder = tmp_path / str(number)
        folder.mkdir()
        names = ("XDG_RUNTIME_DIR", "XDG_CACHE_HOME", "XDG_STATE_HOME", "TMPDIR")
        cli.run("exec", "prod", *TRUE, env=dict.fromkeys(names, str(folder)), check=0)
        assert not list(folder.iterdir())


def test_a_holder_that_waits_for_a_person_is_named(cli, fake_aws):
    cli.mfa_config()
    cli.add("prod")
    asking = cli.terminal("exec", "prod", *TRUE)
    asking.expect("MFA code")
    (held,) = [
        path
        for path in (cli.home / ".awsvault" / "locks").iterdir()
        if f'"pid": {asking.pid}' in path.read_text()
    ][:1]
    assert os.path.basename(held)
    assert '"terminal": "/dev/' in held.read_text()
    waiter = cli.popen("exec", "prod", *TRUE)
    if Path("/proc/locks").exists():
        wait_until(lambda: waiter.pid in lock_waiters(held.parent))
    asking.send_line("123456")
    assert asking.wait() == 0
    # Without a terminal, and still served: it waited for the one who had one.
    all_succeed([waiter])
    assert fake_aws.calls[0].parameters["SerialNumber"] == MFA_SERIAL
    assert fake_aws.count() == 1
