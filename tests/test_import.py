"""`import`: keys go from a file into the vault, and from the file only when they are there."""

from __future__ import annotations

import os
import shutil
import signal

import pytest

import awsvault
from tests.fake_aws import KEY_ID, SECRET
from tests.fake_world import FakeWorld, KillingWorld

OTHER_ID, OTHER_SECRET = "AKIADUMMYEXAMPLE0009", "dummy/secret+key/EXAMPLE0009/not/real000"
FILE = f"""\
# made by hand
[default]
aws_access_key_id = {KEY_ID}
aws_secret_access_key={SECRET}
region = eu-west-1

[work]\r
AWS_ACCESS_KEY_ID: {OTHER_ID}\r
 # a comment of grüße\r
aws_secret_access_key : {OTHER_SECRET}\r

[mfa]
aws_access_key_id = ASIADUMMYEXAMPLE0001
aws_secret_access_key = {SECRET}
aws_session_token = token

[half]
aws_access_key_id = {KEY_ID}

[empty]
[alone]
aws_access_key_id = {OTHER_ID}
aws_secret_access_key = {OTHER_SECRET}

[tools]
credential_process = /opt/keys
"""
LEFT = """\
# made by hand
[default]
region = eu-west-1

[work]\r
 # a comment of grüße\r

[mfa]
aws_access_key_id = ASIADUMMYEXAMPLE0001
aws_secret_access_key = dummy/secret+key/EXAMPLE0001/not/real000
aws_session_token = token

[half]
aws_access_key_id = AKIADUMMYEXAMPLE0001

[empty]

[tools]
credential_process = /opt/keys
"""


@pytest.fixture
def file(home):
    path = home / ".aws" / "credentials"
    path.parent.mkdir(mode=0o700)
    path.write_bytes(FILE.encode())
    path.chmod(0o640)
    return path


def stored(cli, profile):
    shown = cli.run("export", "--no-session", profile, "--format=json").json()
    return shown["AccessKeyId"], shown["SecretAccessKey"]


def test_every_key_goes_into_the_vault_and_from_the_file(cli, file):
    done = cli.run("import", check=0)
    assert done.out == (
        "default: ****************0001 is stored\n"
        "work: ****************0009 is stored\n"
        "alone: ****************0009 is stored\n"
        f"Removed 3 keys from {file}.\n"
    )
    assert "[mfa] is left: its key is temporary" in done.err
    assert "[half] is left: secret access key" in done.err
    assert SECRET not in done.out + done.err
    assert stored(cli, "default") == (KEY_ID, SECRET)
    assert stored(cli, "work") == (OTHER_ID, OTHER_SECRET)
    assert file.read_bytes().decode() == LEFT
    assert file.stat().st_mode & 0o777 == 0o640
    assert cli.run("import", check=0).out == ""
    assert os.listdir(file.parent) == ["credentials"]


def test_named_profiles_only(cli, file):
    cli.run("import", "work", check=0)
    assert OTHER_ID not in file.read_text().partition("[mfa]")[0]
    assert KEY_ID in file.read_text()
    assert cli.run("list", "--credentials", check=0).out == "work\n"
    unknown = cli.run("import", "wrok")
    assert unknown.code == awsvault.EXIT_USAGE
    assert f"{file} has no long-lived key of 'wrok'" in unknown.err


def test_keep_and_dry_run_leave_the_file(cli, file):
    shown = cli.run("import", "--dry-run", check=0)
    assert shown.out.splitlines() == [
        "default: ****************0001 would be stored",
        "work: ****************0009 would be stored",
        "alone: ****************0009 would be stored",
    ]
    assert cli.run("list", "--credentials", check=0).out == ""
    cli.run("import", "--keep", check=0)
    assert file.read_bytes() == FILE.encode()
    assert "is in the vault" in cli.run("import", "--dry-run", check=0).out
    # What is there already is only taken from the file.
    cli.run("import", check=0)
    assert file.read_bytes().decode() == LEFT


def test_another_stored_key_stays_unless_it_shall_go(cli, file):
    cli.add("work")
    refused = cli.run("import", "work", check=1)
    assert "work: ****************0009 is left: another key is in the vault (--replace)" in refused.err
    assert file.read_bytes() == FILE.encode()
    assert stored(cli, "work") == (KEY_ID, SECRET)
    cli.exec_environ("work")
    cli.run("import", "work", "--replace", check=0)
    assert stored(cli, "work") == (OTHER_ID, OTHER_SECRET)
    assert cli.run("list", "--sessions", check=0).out == ""


@pytest.mark.parametrize("mark", ["", "\ufeff"])
def test_a_users_csv(cli, home, mark):
    path = home / "jon_accessKeys.csv"
    path.write_text(f"{mark}Access key ID,Secret access key\n{KEY_ID},{SECRET}\n", encoding="utf-8")
    unnamed = cli.run("import", "--csv", path)
    assert unnamed.code == awsvault.EXIT_USAGE
    assert "names no user" in unnamed.err
    cli.run("import", "--csv", path, "jon", check=0)
    assert stored(cli, "jon") == (KEY_ID, SECRET)
    assert path.read_text(encoding="utf-8") == f"{mark}Access key ID,Secret access key\n"


def test_a_csv_of_several_users(cli, home):
    path = home / "credentials.csv"
    head = "User name,Password,Access key ID,Secret access key,Console login link\r\n"
    path.write_bytes(
        f'{head}jon,,{KEY_ID},{SECRET},"https://x/,y"\r\nann,,{OTHER_ID},{OTHER_SECRET},\r\n'.encode()
    )
    cli.run("import", "--csv", path, check=0)
    assert (stored(cli, "jon"), stored(cli, "ann")) == ((KEY_ID, SECRET), (OTHER_ID, OTHER_SECRET))
    assert path.read_bytes().decode() == head


def test_the_root_users_file(cli, home):
    path = home / "rootkey.csv"
    path.write_text(f"AWSAccessKeyId={KEY_ID}\nAWSSecretKey={SECRET}\n")
    cli.run("import", "--csv", path, "root", check=0)
    assert stored(cli, "root") == (KEY_ID, SECRET)
    assert path.read_text() == ""


@pytest.mark.parametrize(
    "text", ["", "hello\n", "Access key ID,Secret access key\n", f"Access key ID,x\n{KEY_ID},y\n"]
)
def test_a_csv_that_is_none(cli, home, text):
    path = home / "x.csv"
    path.write_text(text)
    refused = cli.run("import", "--csv", path, "prod")
    assert refused.code == awsvault.EXIT_USAGE
    assert "it is no file of access keys from the AWS console" in refused.err
    assert path.read_text() == text


@pytest.mark.parametrize("text", [f"aws_secret_access_key = {SECRET}\n", f"[a]\n{SECRET}\n", "[a]\n[a]\n"])
def test_a_file_that_no_program_reads(cli, file, text):
    file.write_text(text)
    refused = cli.run("import")
    assert refused.code == awsvault.EXIT_USAGE
    assert f"{file}: line " in refused.err
    assert SECRET not in refused.err
    assert file.read_text() == text


def test_a_missing_file(cli):
    assert "can't read" in cli.run("import").err


def test_a_file_that_is_named_from_here(cli, home):
    (home / "credentials").write_text(FILE)
    cli.run("import", "work", env={"AWS_SHARED_CREDENTIALS_FILE": "credentials"}, check=0)
    assert OTHER_ID not in (home / "credentials").read_text().partition("[mfa]")[0]
    (home / "jon.csv").write_text(f"Access key ID,Secret access key\n{KEY_ID},{SECRET}\n")
    cli.run("import", "--csv", "jon.csv", "jon", check=0)
    assert (home / "jon.csv").read_text() == "Access key ID,Secret access key\n"


def test_a_link_is_read_but_never_replaced(cli, file, tmp_path):
    target = tmp_path / "elsewhere"
    file.rename(target)
    file.symlink_to(target)
    refused = cli.run("import", check=1)
    assert "remove them from the file by hand" in refused.err
    assert file.is_symlink()
    assert target.read_bytes() == FILE.encode()
    assert stored(cli, "work") == (OTHER_ID, OTHER_SECRET)


class Meddling(FakeWorld):
    """A world in which somebody writes the file while the keys are stored."""

    def lock(self, kind, *args, **options):
        if kind == "file":
            with open(args[0], "a") as file:
                file.write("# more\n")
        return super().lock(kind, *args, **options)


def test_a_file_that_was_changed_meanwhile_is_left(cli, file):
    world = Meddling(cli.home, cli.environment())
    assert awsvault.main(["import"], world) == 1
    assert "was changed meanwhile" in "".join(world.said)
    assert file.read_bytes() == FILE.encode() + b"# more\n"


def test_a_full_disk_loses_nothing(cli, file):
    world = FakeWorld(cli.home, cli.environment())
    world.failures["write_file"] = OSError(28, "No space left on device")
    assert awsvault.main(["import"], world) == 1
    assert file.read_bytes() == FILE.encode()


def test_killed_at_any_step_every_key_is_somewhere(cli, file):
    environ = {**cli.environment(), "AWS_VAULT_NO_INPUT": "1"}
    step, status = 0, -signal.SIGKILL
    while status == -signal.SIGKILL:
        step += 1
        file.write_bytes(FILE.encode())
        shutil.rmtree(cli.home / ".awsvault", ignore_errors=True)
        status = killed(environ, step)
        text = file.read_bytes()
        held = cli.run("list", "--credentials", check=0).out.split()
        assert KEY_ID.encode() in text
        assert OTHER_ID.encode() in text or "work" in held
        assert text in (FILE.encode(), LEFT.encode())
        assert text == FILE.encode() or held == ["alone", "default", "work"]
        assert awsvault.main(["import"], FakeWorld(cli.home, environ)) == 0
        assert file.read_bytes() == LEFT.encode()
    assert status == 0
    assert step > 10


def killed(environ, step):
    pid = os.fork()
    if pid == 0:
        status = 99
        try:
            null = os.open(os.devnull, os.O_RDWR)
            os.dup2(null, 1)
            os.dup2(null, 2)
            status = awsvault.main(["import"], KillingWorld(dict(environ), step))
        finally:
            os._exit(status)
    return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
