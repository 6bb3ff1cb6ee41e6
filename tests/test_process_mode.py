"""exec --process: SDKs start the program inside the command; its files go with the command."""

from __future__ import annotations

import errno
import json
import os
import re
import shlex
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import pytest

import awsvault
from tests.conftest import PASSPHRASE, arn, kill_group
from tests.fake_aws import ACCOUNT, KEY_ID, SECRET
from tests.served import gone, memory_of, server_of, status_of

CONFIG = f"""
    [default]
    region = us-east-2
    credential_process = /bin/false

    [profile prod]
    region = eu-west-1

    [profile admin]
    region = eu-central-1
    role_arn = {arn("admin")}
    source_profile = prod
    external_id = kept

    [profile other]
    region = ca-central-1
    aws_access_key_id = AKIADUMMYHOSTILE0001
    aws_secret_access_key = s
"""
WHO = """
import boto3, json, sys
for name in sys.argv[1:]:
    session = boto3.Session(profile_name=None if name == "-" else name)
    client = session.client("sts")
    arn = client.get_caller_identity()["Arn"].rpartition("/")[0] or client.get_caller_identity()["Arn"]
    print(json.dumps([name, client.meta.region_name, arn, session.get_credentials().method]))
"""
SHOW = "import json, os; print(json.dumps([os.environ['AWS_CONFIG_FILE'], open(os.environ['AWS_CONFIG_FILE']).read(), dict(os.environ)]))"
KEYS = {"AWS_ACCESS_KEY_ID": KEY_ID, "AWS_SECRET_ACCESS_KEY": SECRET}
ALONE = f"/usr/bin/printf '{PASSPHRASE}'"


@pytest.fixture
def prod(cli):
    cli.config(CONFIG)
    cli.add("prod")
    return cli


def opens_alone(cli):
    """Let the vault be opened without a person, also inside the command."""
    cli.environ["AWS_VAULT_FILE_PASSPHRASE"] = None
    cli.environ["AWS_VAULT_FILE_PASSPHRASE_COMMAND"] = ALONE
    return cli


def run_folder(cli):
    return cli.home / ".awsvault" / "run"


def python(code, *words):
    return [sys.executable, "-c", code, *words]


def lines(result):
    return [json.loads(line) for line in result.out.splitlines()]


def wait_until_served_no_more(folder):
    """Return when the server of a command has ended, and the command's files are gone."""
    server = server_of(int(os.path.basename(folder).partition("-")[0]))
    assert server is None or gone(server)
    assert not os.path.exists(folder)


# -- with real clients -----------------------------------------------------------------


@pytest.mark.parametrize("alone", [True, False], ids=["opened again", "handed over"])
def test_boto3_with_several_accounts_at_once(alone, prod, fake_aws):
    if alone:
        opens_alone(prod)
    names = ["-", "default", "prod", "admin"]
    result = prod.run(
        "exec", "--process", "prod", "--process", "admin", "--", *python(WHO, *names), check=0
    )
    jon = f"arn:aws:iam::{ACCOUNT}:user"
    role = f"arn:aws:sts::{ACCOUNT}:assumed-role/admin"
    assert lines(result) == [
        ["-", "eu-west-1", jon, "custom-process"],
        ["default", "eu-west-1", jon, "custom-process"],
        ["prod", "eu-west-1", jon, "custom-process"],
        ["admin", "eu-central-1", role, "custom-process"],
    ]
    # What was made before the command started served every call.
    assert (fake_aws.count("GetSessionToken"), fake_aws.count("AssumeRole")) == (1, 1)
    assert result.err == ""


def test_the_aws_cli(prod, awscli):
    opens_alone(prod)
    script = f"{awscli} sts get-caller-identity; {awscli} sts get-caller-identity --profile admin"
    result = prod.run(
        "exec", "--process", "prod", "--process", "admin", "--", "sh", "-ec", script, check=0
    )
    assert f"arn:aws:iam::{ACCOUNT}:user/jon" in result.out
    assert f"arn:aws:sts::{ACCOUNT}:assumed-role/admin/" in result.out


RENEWED = """
import boto3, time
def key():
    return boto3.Session().get_credentials().get_frozen_credentials().access_key
print("ready", flush=True)
first, ends = input(), time.monotonic() + 30
while key() == first:
    assert time.monotonic() < ends
print(key())
"""


def renewed(cli, fake_aws, *line, action="AssumeRole", code=RENEWED, **popen):
    """Run the command until its SDK gets other credentials than those that it was started with."""
    fake_aws.lifetime = 120
    process = cli.popen("exec", *line, *python(code), **popen)
    assert process.stdout.readline() == "ready\n", process.communicate()
    first = [session.key_id for session in fake_aws.sessions.values() if session.action == action]
    out, err = process.communicate(f"{first[0]}\n", timeout=60)
    assert process.returncode == 0, err
    assert fake_aws.sessions[out.strip()].action == action


@pytest.mark.parametrize("alone", [True, False], ids=["opened again", "typed once"])
def test_what_ends_soon_is_renewed_while_the_command_runs(alone, prod, fake_aws):
    if alone:
        opens_alone(prod)
    renewed(prod, fake_aws, "--process", "admin", "--")


def test_a_role_is_renewed_from_the_session_without_another_code(prod, fake_aws):
    prod.mfa_config()
    renewed(prod, fake_aws, "--process", "deploy", "-t", "123456", "--")
    assert fake_aws.count("GetSessionToken") == 1


def test_what_can_t_be_renewed_is_served_while_it_is_valid(prod, fake_aws):
    prod.mfa_config()
    opens_alone(prod)
    fake_aws.lifetime = 60  # too short for what runs on, but only a person has the next code
    line = ["exec", "--process", "deploy", "-t", "123456", "--", *python(WHO, "-", "-")]
    result = prod.run(*line)
    assert (result.code, result.out.count("assumed-role/deploy")) == (0, 2), str(result)
    assert fake_aws.count("GetSessionToken") == 1


GONE = """
import boto3, botocore.exceptions, sys
while True:
    try:
        boto3.Session().get_credentials().get_frozen_credentials()
    except botocore.exceptions.CredentialRetrievalError as error:
        sys.exit(print(error))
    except RuntimeError:
        continue
    if sys.argv[1:]:
        break
"""


def test_where_nothing_can_be_renewed_the_error_says_how(prod, fake_aws):
    fake_aws.lifetime = 3
    result = prod.run("exec", "--process", "prod", "--", *python(GONE), check=0)
    assert "the session of 'prod' can't be renewed: restart the command to renew" in result.out
    opens_alone(prod)
    prod.mfa_config()
    line = ["exec", "--process", "prod", "-d", "4h", "-t", "123456", "--", *python(GONE)]
    result = prod.run(*line, check=0)
    assert "run awsvault exec --duration=4h prod in another terminal to renew" in result.out


def test_what_another_terminal_clears_is_served_still(prod, fake_aws):
    script = f"{shlex.join(prod.program)} clear >&2; {shlex.join(python(GONE, 'once'))}"
    assert prod.run("exec", "--process", "prod", "--", "sh", "-c", script, check=0).out == ""


def test_aws_is_down_and_what_is_valid_is_served(prod, fake_aws):
    opens_alone(prod)
    fake_aws.lifetime = 120
    prod.run("exec", "--process", "admin", "--", "true", check=0)
    script = "import json, os; print(os.environ['AWS_CONFIG_FILE'])"
    process = prod.popen("exec", "--process", "admin", "--", *python(script + "; input()"))
    file = process.stdout.readline().strip()
    fake_aws.fail(times=100)
    line = re.search(r"credential_process = (.*)", Path(file).read_text())[1]
    answer = subprocess.run(
        shlex.split(line), env=inside(process.pid), capture_output=True, text=True, timeout=60
    )
    assert json.loads(answer.stdout)["AccessKeyId"].startswith("ASIA"), answer.stderr
    process.communicate("\n")


def inside(pid):
    """The environment of a running process."""
    data = Path(f"/proc/{pid}/environ").read_bytes().rstrip(b"\0").split(b"\0")
    return dict(os.fsdecode(line).split("=", 1) for line in data)


# -- what the command gets -------------------------------------------------------------


def shown(cli, *flags, env=None):
    result = cli.run("exec", *flags, "--", *python(SHOW), env=env, check=0)
    return json.loads(result.out)


def test_the_private_config(prod):
    path, text, environ = shown(prod, "--process", "admin", "--process", "prod")
    line = re.search(r"credential_process = (.*) admin", text)[1]
    folder = shlex.split(line)[-1]
    assert text == (
        f"[default]\ncredential_process = {line} admin\nregion = eu-central-1\n\n"
        f"[profile prod]\ncredential_process = {line} prod\nregion = eu-west-1\n\n"
        f"[profile admin]\ncredential_process = {line} admin\nregion = eu-central-1\nexternal_id = kept\n\n"
        "[profile other]\nregion = ca-central-1\n"
    )
    assert folder == os.path.dirname(path)
    assert environ["AWS_VAULT"] == "admin"
    assert environ["AWS_EC2_METADATA_DISABLED"] == "true"
    assert "AWS_REGION" not in environ
    assert not {"AWS_VAULT_FILE_PASSPHRASE", "AWS_ACCESS_KEY_ID", "AWS_PROFILE"} & set(environ)
    assert shown(prod, "--process", "prod")[2]["AWS_REGION"] == "eu-west-1"


def test_no_file_holds_a_secret(prod, fake_aws):
    code = "import os, pathlib; f = pathlib.Path(os.environ['AWS_CONFIG_FILE']).parent\nprint([p.read_text() for p in f.iterdir() if p.is_file()])"
    result = prod.run("exec", "--process", "prod", "--", *python(code), check=0)
    assert "credential_process" in result.out
    for secret in (PASSPHRASE, SECRET, KEY_ID, *(s.secret for s in fake_aws.sessions.values())):
        assert secret not in result.out
    assert len(fake_aws.sessions) == 1


def test_a_credentials_file_with_one_of_the_profiles_is_not_seen(prod):
    (prod.home / ".aws" / "credentials").write_text(
        "[admin]\naws_access_key_id=A\naws_secret_access_key=s\n"
    )
    result = prod.run(
        "exec", "--process", "prod", "--process", "admin", "--", *python(WHO, "admin"), check=0
    )
    assert lines(result)[0][3] == "custom-process"
    assert result.err.count("has a section [admin]") == 1


def test_settings_that_the_command_does_not_see_still_count(prod, fake_aws, tmp_path):
    opens_alone(prod)
    elsewhere = tmp_path / "config"
    elsewhere.write_text(prod.config_file.read_text())
    prod.config_file.unlink()
    env = {
        "AWS_CONFIG_FILE": str(elsewhere),
        "AWS_ASSUME_ROLE_TTL": "30m",
        "AWS_REGION": "eu-west-3",
        "AWS_PROFILE": "prod",
    }
    who = python("import os; os.environ.update(AWS_REGION='us-west-2');" + WHO, "admin")
    prod.run("exec", "--process", "admin", "--", *who, env=env, check=0)
    assert [
        call.parameters["DurationSeconds"] for call in fake_aws.calls if call.action == "AssumeRole"
    ] == ["1800"]


def test_relative_paths_still_lead_to_the_vault(prod, fake_aws):
    program = prod.home / "passphrase"
    program.write_text(f"#!/bin/sh\necho {PASSPHRASE}\n")
    program.chmod(0o700)
    flags = ["--file-dir=.awsvault/keys", "--file-passphrase-command=./passphrase"]
    variables = {"AWS_VAULT_FILE_PASSPHRASE": None}
    code = "import os; os.chdir('/')\n" + RENEWED
    prod.environ.update(variables)
    renewed(prod, fake_aws, *flags, "--process", "admin", "--", code=code)


def test_flags_still_count(prod, fake_aws):
    opens_alone(prod)
    folder = prod.environ.pop("AWS_VAULT_FILE_DIR", None)
    assert folder is None
    os.rename(prod.keys, prod.home / "vault")
    flags = [
        "--file-dir",
        "vault",
        "--file-passphrase-command",
        ALONE,
        "-d",
        "20m",
        "--region",
        "eu-west-3",
    ]
    prod.environ["AWS_VAULT_FILE_PASSPHRASE_COMMAND"] = None
    who = python("import os; os.chdir('/');" + WHO, "-")
    result = prod.run("exec", *flags, "--process", "prod", "--", *who, check=0)
    assert lines(result)[0][1] == "eu-west-3"
    assert fake_aws.count("GetSessionToken") == 1


def test_variables_inside_the_command_lead_to_no_other_vault(prod, fake_aws):
    opens_alone(prod)
    prod.run("--file-dir", str(prod.home / "other"), "add", "prod", "--env", env=KEYS, check=0)
    code = "import os; os.environ['AWS_VAULT_FILE_DIR'] = 'other'\n" + RENEWED
    renewed(prod, fake_aws, "--process", "prod", "--", action="GetSessionToken", code=code)
    assert os.listdir(prod.home / "other") == ["prod"]


def test_a_folder_that_is_gone_leads_to_nothing_of_that_name(prod, fake_aws):
    here, there = prod.home / "here", prod.home / "there"
    for folder in (here, there):
        folder.mkdir()
        (folder / "pw").write_text(f"#!/bin/sh\ntouch {folder}.ran\necho {PASSPHRASE}\n")
        (folder / "pw").chmod(0o700)
    script = f"rm -r {here}; cd {there}; {shlex.join(python(WHO, '-'))}"
    line = ["exec", "--file-passphrase-command=./pw", "--process", "prod", "--", "sh", "-c", script]
    env = {"AWS_VAULT_FILE_PASSPHRASE": None}
    result = prod.run(*line, env=env, cwd=here, check=0)  # by what was kept
    assert "custom-process" in result.out
    assert (prod.home / "here.ran").exists()
    assert not (prod.home / "there.ran").exists()


def test_inside_the_command_exec_is_refused_still(prod):
    again = [*prod.program, "exec", "prod", "--", "true"]
    result = prod.run("exec", "--process", "prod", "--", *again)
    assert result.code == 1
    assert "already a shell or command with credentials" in result.err


# -- processes and files ---------------------------------------------------------------


def test_the_command_is_the_process_itself(prod):
    process = prod.popen("exec", "--process", "prod", "--", "sh", "-c", "echo $$; exit 7")
    out, _ = process.communicate(timeout=60)
    assert (int(out), process.returncode) == (process.pid, 7)


@pytest.mark.parametrize("how", ["ends", "is killed"])
def test_the_files_go_with_the_command(how, prod):
    process = prod.popen(
        "exec",
        "--process",
        "prod",
        "--",
        *python(SHOW + "\nimport sys; sys.stdout.flush(); input()"),
    )
    folder = os.path.dirname(json.loads(process.stdout.readline())[0])
    assert sorted(os.listdir(folder)) == ["config", "socket"]
    if how == "ends":
        process.stdin.write("\n")
        process.stdin.flush()
    else:
        os.kill(process.pid, signal.SIGKILL)
    process.wait(60)
    wait_until_served_no_more(folder)
    assert os.listdir(run_folder(prod)) == []


def test_the_server_holds_nothing_of_the_command_s(prod):
    """Its session, its pipes and its terminal are others, so nobody waits for it and no signal reaches both."""
    process = prod.popen(
        "exec",
        "--process",
        "prod",
        "--",
        *python(SHOW + "\nimport sys; sys.stdout.flush(); input()"),
    )
    folder = os.path.dirname(json.loads(process.stdout.readline())[0])
    kill_group(process)
    assert process.stdout.read() == ""  # the end, so nobody else has it open
    process.wait(60)
    wait_until_served_no_more(folder)


@pytest.mark.skipif(os.geteuid() != 0, reason="only root sees into it")
def test_the_server_knows_no_more_than_it_hands_out(prod, fake_aws):
    script = "import os; print(os.environ['AWS_CONFIG_FILE'], flush=True); input()"
    process = prod.popen("exec", "--process", "prod", "--", *python(script, "a-word"))
    folder = os.path.dirname(process.stdout.readline().strip())
    assert "ASIA" in prod.run("_process", folder, "prod", check=0).out
    server = server_of(process.pid)
    assert int(status_of(server)["VmRSS"].split()[0]) < 25_000
    memory = memory_of(server)
    (session,) = fake_aws.sessions.values()
    assert session.secret.encode() in memory, "the test does not see the memory it looks into"
    for text in (PASSPHRASE, SECRET, "a-word"):
        assert text.encode() not in memory
        assert text.encode() not in Path(f"/proc/{server}/environ").read_bytes()
    process.communicate("\n", timeout=60)
    assert gone(server)


def test_a_caller_that_ignores_its_children_is_no_hindrance(prod):
    def ignore():
        signal.signal(signal.SIGCHLD, signal.SIG_IGN)

    prod.run("exec", "--process", "prod", "--", "true", preexec_fn=ignore, check=0)


def test_a_command_that_can_t_be_run_leaves_nothing(prod):
    result = prod.run("exec", "--process", "prod", "--", "no-such-program")
    assert result.code == 127
    assert not run_folder(prod).exists()


def test_leftovers_of_dead_processes_are_swept_and_of_living_ones_not(prod):
    world = awsvault.World()
    dead = subprocess.Popen(["sleep", "1000"])
    started = world.process_started(dead.pid)
    dead.kill()
    dead.wait()
    here = world._pid_namespace_id()
    living = f"{os.getpid()}-{world.process_started(os.getpid())}.{here}"
    reused = f"{os.getpid()}-1"
    elsewhere = [reused, f"{reused}.0123456789ab", "notes", f"notes.{here}"]
    for name in (f"{dead.pid}-{started}.{here}", living, f"{reused}.{here}", *elsewhere):
        (run_folder(prod) / name).mkdir(parents=True, mode=0o700)
        (run_folder(prod) / name / "config").write_text("x")
    run_folder(prod).chmod(0o700)
    folder = os.path.dirname(shown(prod, "--process", "prod")[0])
    left = set(os.listdir(run_folder(prod))) - {os.path.basename(folder)}
    assert left == {living, *elsewhere}


@pytest.mark.skipif(os.geteuid() != 0, reason="making a PID namespace needs root")
@pytest.mark.skipif(not shutil.which("unshare"), reason="there is no unshare")
def test_a_command_of_another_container_keeps_its_files(prod):
    """A home that is shared has files of processes that nobody sees from here."""
    process = prod.popen(
        "exec", "--process", "prod", "--", "sh", "-c", "echo $AWS_CONFIG_FILE; cat"
    )
    file = process.stdout.readline().strip()
    program, prod.program = prod.program, ["unshare", "-fp", "--mount-proc", *prod.program]
    other = prod.run("exec", "--process", "prod", "--", *python(SHOW), check=0)
    prod.program = program
    assert os.path.exists(file)
    assert os.path.dirname(other.json()[0]) != os.path.dirname(file)
    process.communicate("", timeout=60)


def test_why_no_folder_can_be_made_is_said(tmp_path, monkeypatch):
    def refuse(path, mode, dir_fd):
        raise OSError(errno.EROFS, os.strerror(errno.EROFS), path)

    root = tmp_path / "run"
    root.mkdir(mode=0o700)
    world = awsvault.World()
    monkeypatch.setattr(world, "_run_roots", lambda: iter([str(root)]))
    monkeypatch.setattr(os, "mkdir", refuse)
    with pytest.raises(
        awsvault.AwsVaultError, match=f"made: can't make folder {root}/.*: read-only file system$"
    ):
        world.make_run_folder()


def test_after_the_command_there_is_no_answer(prod):
    _, text, _ = shown(prod, "--process", "prod")
    words = shlex.split(re.search(r"credential_process = (.*)", text)[1])
    folder = words[-2]
    wait_until_served_no_more(folder)
    result = subprocess.run(
        words, env=prod.environment(), capture_output=True, text=True, timeout=60
    )
    assert result.returncode == 1
    assert "has ended" in result.stderr


# -- names and quotes --------------------------------------------------------------------


@pytest.mark.parametrize(
    "name", ["a b", "a;b", "$(x)", "-x", "a'b", 'a"b', "a\\b", "a#b", "a%b%", "é", "a\nb", ""]
)
def test_names_that_could_be_read_as_more_are_refused(name, prod):
    result = prod.run("exec", f"--process={name}", "--", "true")
    assert result.code == 2 if name else result.code in (0, 2)
    if name:
        assert "credential_process" in result.err


@pytest.mark.parametrize("name", ["a.b_c@d+e/f-g", "A1", "@x"])
def test_names_that_all_read_alike(name, prod):
    prod.add(name)
    result = prod.run("exec", "--process", name, "--", *python(WHO, "-", name), check=0)
    assert [line[3] for line in lines(result)] == ["custom-process"] * 2


WORDS = [
    ["/usr/bin/python3", "-I", "/opt/awsvault.pyz", "x"],
    ["/home/my user/python", "/home/my user/a (1)/awsvault.pyz", "x"],
    ["/home/josé/bin/python", "it's", "a&b", "a;b", "<x>", "a|b", "*", "~", "x"],
]


@pytest.mark.parametrize("words", WORDS)
def test_a_line_is_cut_up_alike_by_all(words):
    line = awsvault.process_line(words)
    assert shlex.split(line) == words
    shown = subprocess.run(
        ["/bin/sh", "-c", f'printf "%s\\n" {line}'], capture_output=True, text=True, check=True
    )
    assert shown.stdout.splitlines() == words
    # A cmd-like splitter: quotes group, nothing else is special.
    assert [a or b for a, b in re.findall(r'"([^"]*)"|(\S+)', line)] == words


@pytest.mark.parametrize(
    "word", ['a"b', "a$b", "a`b`", "a\\b", "100%", "a #b", "a ;b", "a\nb", "a!b"]
)
def test_what_they_would_read_differently_is_refused(word):
    with pytest.raises(awsvault.UsageError, match="every SDK"):
        awsvault.process_line(["/usr/bin/python", word])


def test_a_home_with_blanks(fake_aws, tmp_path):
    from tests.conftest import Cli

    home = tmp_path / "my (own) home"
    home.mkdir(mode=0o700)
    cli = Cli(home, fake_aws.url)
    try:
        cli.config(CONFIG)
        cli.add("prod")
        result = cli.run("exec", "--process", "prod", "--", *python(WHO, "-"), check=0)
        assert lines(result)[0][3] == "custom-process"
    finally:
        cli.close()


USAGE = [
    (["--process", "prod", "true"], "put -- before the command"),
    (["--process", "prod", "no-such-program", "x"], "put -- before the command"),
    (["--process", "prod", "--process", "default", "--", "true"], "name default first"),
    (["--process", "prod", "--server", "--", "true"], "leave one of them away"),
    (["--process", "prod", "--strict-peer", "--", "true"], "leave one of them away"),
    (["--process", "nowhere", "--", "true"], ""),
]


@pytest.mark.parametrize(("flags", "hint"), USAGE)
def test_usage(flags, hint, prod):
    result = prod.run("exec", *flags)
    assert result.code == 2
    assert hint in result.err


def test_keys_that_nobody_may_keep_are_refused_before_the_start(prod, fake_aws):
    line = ["exec", "--process", "prod", "--process", "admin", "-n", "--", "echo", "started"]
    for cli in (prod, opens_alone(prod)):
        result = cli.run(*line)
        assert (result.code, result.out) == (1, "")
        assert "the keys of 'prod' without a session would be long-lived" in result.err
        assert not run_folder(prod).exists()
    renewed(prod, fake_aws, "--process", "admin", "-n", "--")
    assert fake_aws.count("GetSessionToken") == 0


def test_one_who_may_not_read_the_folder_he_is_in_gets_an_answer(prod, tmp_path):
    """A command in a folder that its user may enter, and not read."""
    here = tmp_path / "here"
    here.mkdir()
    here.chmod(0o111)
    prod.run("exec", "--process", "prod", "--", *python(WHO, "-"), cwd=here, check=0)


def test_only_the_named_profiles_are_served(prod):
    script = f'{shlex.join(prod.program)} _process "$(dirname "$AWS_CONFIG_FILE")" admin'
    result = prod.run("exec", "--process", "prod", "--", "sh", "-c", script)
    assert (result.code, result.out) == (1, "")
    assert "the command was started without --process for this profile" in result.err


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can be another user")
def test_another_user_gets_nothing(prod):
    ask = (
        "import os, socket, sys; os.setgid(65534); os.chdir(sys.argv[1]);"
        "s = socket.socket(socket.AF_UNIX); s.connect('socket'); os.setuid(65534)\n"
        "s = socket.socket(socket.AF_UNIX)\n"
        "try: s.connect('socket')\nexcept OSError as e: print(type(e).__name__)"
    )
    script = f'{shlex.join(python(ask))} "$(dirname "$AWS_CONFIG_FILE")"'
    result = prod.run("exec", "--process", "prod", "--", "sh", "-c", script, check=0)
    assert result.out == "PermissionError\n"


def test_one_role_variable_is_not_everybody_s(prod):
    result = prod.run(
        "exec",
        "--process",
        "prod",
        "--process",
        "admin",
        "--",
        "true",
        env={"AWS_ROLE_ARN": arn("audit")},
    )
    assert result.code == 2
    assert "AWS_ROLE_ARN" in result.err
