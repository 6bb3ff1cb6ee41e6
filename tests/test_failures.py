"""What goes wrong: each failure is one clear line, a hint, the right exit code, and loses nothing."""

from __future__ import annotations

import os
import re
import shutil
import signal
import subprocess
import sys

import pytest

import awsvault
from tests.conftest import PASSPHRASE, arn
from tests.fake_aws import KEY_ID, MFA_SERIAL, SECRET
from tests.fake_world import FakeWorld

ROOT = os.geteuid() == 0
OTHER_SECRET = "dummy/secret+key/EXAMPLE0002/not/real000"


def refuse(cli, *args, code=1, says="", hints="", env=None, **options):
    """Run a line that must fail: one error line, at most one hint, nothing on stdout, no traceback."""
    done = cli.run(*args, env=env, check=code, **options)
    errors = re.findall(r"^awsvault: error: (.+)$", done.err, re.MULTILINE)
    hinted = re.findall(r"^awsvault: hint: (.+)$", done.err, re.MULTILINE)
    assert len(errors) == 1, str(done)
    assert len(hinted) <= 1, str(done)
    assert "Traceback" not in done.err
    assert done.out == ""
    assert re.search(says, errors[0]), str(done)
    assert not hints or (hinted and re.search(hints, hinted[0])), str(done)
    return done


def stored(cli):
    """What is in the vault, byte for byte."""
    if not cli.keys.exists():
        return {}
    return {path.name: path.read_bytes() for path in cli.keys.iterdir()}


@pytest.fixture
def vault(cli):
    """The product with a key for `prod`, and a check that a failure lost nothing."""
    cli.add("prod")
    before = stored(cli)
    yield cli
    after = stored(cli)
    for name in before:
        assert name in after


# ======================================================================
# Names and the config file
# ======================================================================

TRUE = ("--", "true")
TWO_DEVICES = """
[profile prod]
mfa_serial = {mfa}
[profile a]
role_arn = {arn}
source_profile = prod
mfa_serial = {mfa}
[profile b]
role_arn = {arn}
source_profile = a
mfa_serial = {mfa}2
"""
CONFIGS = [
    # what is wrong, config, profile, exit code, message, hint
    ("unknown profile", "[profile prod]\n", "prdo", 2, "prdo.*neither in", "did you mean prod"),
    ("unlike any", "[profile prod]\n", "zzz", 2, "'zzz' is neither", "awsvault add zzz"),
    ("no credentials", "[profile x]\nregion = eu-west-1\n", "x", 1,
     "no credentials are stored for profile 'x'", "awsvault add x"),
    ("no credentials of the source",
     "[profile x]\nrole_arn = {arn}\nsource_profile = y\n[profile y]\n", "x", 1, "'y' .source of 'x'", "awsvault add y"),
    ("unknown source", "[profile x]\nrole_arn = {arn}\nsource_profile = prdo\n", "x", 2,
     "source_profile.*'prdo' is neither", "did you mean prod"),
    ("a circle of sources", "[profile a]\nsource_profile = b\n[profile b]\nsource_profile = a\n",
     "a", 2, "circle: a -> b -> a", ""),
    ("a circle of inclusions",
     "[profile a]\ninclude_profile = b\n[profile b]\ninclude_profile = a\n", "a", 2,
     "include_profile.*circle: a -> b -> a", ""),
    ("a circle above stored keys",
     "[profile prod]\nsource_profile = b\n[profile b]\nsource_profile = prod\n", "prod", 2,
     "circle: prod -> b -> prod", ""),
    ("an unknown inclusion", "[profile a]\ninclude_profile = prdo\n[profile prod]\n", "a", 2,
     "include_profile names 'prdo'", "did you mean prod"),
    ("a bad duration", "[profile prod]\nduration_seconds = soon\n", "prod", 2,
     r"config, section \[profile prod\], duration_seconds: 'soon'", ""),
    ("a bare number", "[profile prod]\nsession_ttl = 3600\n", "prod", 2,
     "session_ttl: '3600' is a number without a unit", "3600s"),
    ("too short", "[profile prod]\nsession_ttl = 14m\n", "prod", 2,
     "session_ttl: 14m0s is out of bounds.*15 minutes", ""),
    ("too long", "[profile prod]\nsession_ttl = 37h\n", "prod", 2, "out of bounds.*36 hours", ""),
    ("too long for a role",
     "[profile r]\nrole_arn = {arn}\nsource_profile = prod\nduration_seconds = 43201\n", "r", 2,
     "out of bounds.*12 hours", ""),
    ("a bad boolean", "[profile prod]\nuse_fips_endpoint = maybe\n", "prod", 2,
     "use_fips_endpoint: 'maybe'", ""),
    ("a bad endpoint", "[profile prod]\nendpoint_url = ftp://x\n", "prod", 2,
     "endpoint_url: 'ftp://x'", ""),
    ("plain http elsewhere", "[profile prod]\nendpoint_url = http://sts.example.test\n", "prod", 2,
     "plain http.*AWS_VAULT_ALLOW_HTTP", ""),
    ("bad tags", "[profile prod]\nsession_tags = a\n", "prod", 2, "session_tags: 'a'", ""),
    ("bad retries", "[profile prod]\nmax_attempts = 0\n", "prod", 2, "max_attempts: '0'", ""),
    ("no bracket", "[profile prod]\n\n[profile x\n", "prod", 2, "config, line 3", ""),
    ("no equals sign", "[profile prod]\nregion = eu-west-1\nwhat is this\n", "prod", 2,
     "config, line 3", ""),
    ("two devices", TWO_DEVICES, "b", 2, "two MFA devices", "same mfa_serial"),
]  # fmt: skip


@pytest.mark.parametrize(
    ("config", "profile", "code", "says", "hints"),
    [row[1:] for row in CONFIGS],
    ids=[row[0] for row in CONFIGS],
)
def test_config(vault, fake_aws, config, profile, code, says, hints):
    vault.environ.pop("AWS_ENDPOINT_URL_STS")
    vault.environ["HTTPS_PROXY"] = "http://127.0.0.1:9"  # whatever happens, not to AWS
    vault.config(config.format(arn=arn("admin"), mfa=MFA_SERIAL))
    refuse(vault, "exec", profile, *TRUE, code=code, says=says, hints=hints)
    assert fake_aws.calls == []


FLAGS = [
    (["exec", "prod", "-d", "14m", *TRUE], {}, "out of bounds"),
    (["exec", "prod", "-d", "3600", *TRUE], {}, "--duration: '3600' is a number without a unit"),
    (["exec", "prod", *TRUE], {"AWS_SESSION_TOKEN_TTL": "3600"}, "'3600' is a number without"),
    (["exec", "prod", *TRUE], {"AWS_SESSION_TOKEN_TTL": "soon"}, "AWS_SESSION_TOKEN_TTL: 'soon'"),
    (["exec", "prod", *TRUE], {"AWS_MIN_TTL": "soon"}, "AWS_MIN_TTL: 'soon'"),
    (["exec", "prod", *TRUE], {"AWS_VAULT_BACKEND": "nonesuch"}, "AWS_VAULT_BACKEND: 'nonesuch'"),
    (["exec", "prod", *TRUE], {"AWS_VAULT_FILE_ITERATIONS": "100"}, "AWS_VAULT_FILE_ITERATIONS"),
    (["exec", "prod", *TRUE], {"AWS_VAULT_NO_INPUT": "maybe"}, "AWS_VAULT_NO_INPUT: 'maybe'"),
    (["exec", "prod", *TRUE], {"AWS_ENDPOINT_URL_STS": "x"}, "AWS_ENDPOINT_URL_STS: 'x'"),
    (["exec", "prod", "ls", "-l"], {}, "-l stands after the command's first word"),
    (["exec", "prod", "kubectl", "-n", "x"], {}, "-n stands after"),
    (["exec", "prod", "kubectl", "get", "--help"], {}, "--help stands after"),
    (["exec", "prod", "-d", "", "kubectl", "-h"], {}, "-h stands after"),
    (["add", "'x'", "--env"], {}, "would drop its quotes"),
    (["add", "x", "--env"], {"AWS_ACCESS_KEY_ID": " ", "AWS_SECRET_ACCESS_KEY": "y"}, "one word"),
    (
        ["add", "x", "--env"],
        {"AWS_ACCESS_KEY_ID": "A\u202eB", "AWS_SECRET_ACCESS_KEY": "y"},
        "one word",
    ),
    (
        ["add", "x", "--env"],
        {"AWS_ACCESS_KEY_ID": "A\nB", "AWS_SECRET_ACCESS_KEY": "y"},
        "one word",
    ),
    (
        ["add", "x", "--env"],
        {"AWS_ACCESS_KEY_ID": KEY_ID, "AWS_SECRET_ACCESS_KEY": "y\nz"},
        "one word",
    ),
    (["exec", "--nonesuch", "prod", *TRUE], {}, "nonesuch"),
    (["exec"], {}, "no profile is named"),
    (["add"], {}, "needs a profile"),
    (["add", "a\x1b[2Jb", "--env"], {}, r"\\x1b"),
    (["add", "x", "y"], {}, "takes no 'y'"),
    (["exce", "prod"], {}, "no command 'exce'"),
    (["server"], {}, "no command 'server'"),
    (["export", "prod", "--format=xml"], {}, "xml"),
    (["exec", "prod", "--mfa-token-fd", "x", *TRUE], {}, "'x' is no descriptor"),
    (["exec", "prod", "--mfa-token-fd", "77", *TRUE], {}, "can't read descriptor 77"),
    (["exec", "prod", "--file-passphrase-fd", "77", *TRUE], {}, "can't read descriptor 77"),
]


@pytest.mark.parametrize(("args", "env", "says"), FLAGS)
def test_command_line(vault, fake_aws, args, env, says):
    refuse(vault, *args, code=2, says=says, env=env)
    assert fake_aws.calls == []


@pytest.mark.parametrize(
    ("name", "hint"),
    [("server", "exec --server needs none"), ("login", "not there yet"), ("exce", "exec")],
)
def test_commands_of_others_lead_nobody_to_remove(vault, name, hint):
    refuse(vault, name, code=2, says="no command", hints=hint)


def test_nested(vault):
    refuse(vault, "exec", "prod", *TRUE, env={"AWS_VAULT": "other"}, says="already", hints="unset")


def test_config_in_a_folder_that_is_closed(vault):
    vault.config("[profile prod]\n")
    vault.config_file.unlink()
    vault.config_file.mkdir()
    refuse(vault, "exec", "prod", *TRUE, code=2, says="can't read .*config")


def test_config_that_others_can_write_may_not_steer(vault):
    vault.environ.pop("AWS_ENDPOINT_URL_STS")
    vault.environ["HTTPS_PROXY"] = "http://127.0.0.1:9"
    vault.config("[profile prod]\nendpoint_url = https://evil.example.test\n")
    vault.config_file.chmod(0o666)
    refuse(vault, "exec", "prod", *TRUE, code=2, says="others can have written", hints="chmod")


# ======================================================================
# The vault
# ======================================================================


def test_wrong_passphrase(vault):
    wrong = {"AWS_VAULT_FILE_PASSPHRASE": "wrong"}
    where = "it comes from AWS_VAULT_FILE_PASSPHRASE: give the right one"
    refuse(vault, "exec", "prod", *TRUE, env=wrong, says="wrong passphrase", hints=where)
    keys = {"AWS_ACCESS_KEY_ID": KEY_ID, "AWS_SECRET_ACCESS_KEY": SECRET}
    refuse(
        vault, "add", "--env", "other", env={**wrong, **keys},
        says="opens nothing that is stored", hints=where,
    )  # fmt: skip
    assert vault.run("list", "--credentials", check=0).out == "prod\n"


@pytest.mark.parametrize(
    "damage",
    [
        lambda data: b"",
        lambda data: data[:-1],
        lambda data: data[: len(data) // 2],
        lambda data: b"x" + data,
        lambda data: data[:-10] + bytes([data[-10] ^ 1]) + data[-9:],
        lambda data: b"\0" * len(data),
        lambda data: data * 5000,
    ],
    ids=["empty", "cut by one", "cut in half", "longer", "one bit", "zeros", "over the limit"],
)
def test_a_damaged_item_is_named_and_the_others_work(vault, damage):
    vault.add("other")
    item = vault.keys / "prod"
    item.write_bytes(damage(item.read_bytes()))
    refuse(vault, "exec", "prod", *TRUE, says="prod")
    vault.run("exec", "other", *TRUE, check=0)
    # What no longer has an item's form may be another program's file, which is not listed.
    data = item.read_bytes()
    listed = data[:3] in (b"", b"eyJ") and len(data) <= awsvault.MAX_ITEM_BYTES
    shown = vault.run("list", "--credentials", check=0).out
    assert shown == ("other\nprod\n" if listed else "other\n")


def test_a_damaged_session_is_made_anew(vault, fake_aws):
    vault.exec_environ("prod")
    (session,) = vault.keys.glob("*,*")
    session.write_bytes(session.read_bytes()[:-1])
    done = vault.run("exec", "prod", *TRUE, check=0)
    assert "damaged" in done.err
    assert fake_aws.count() == 2
    assert vault.run("exec", "prod", *TRUE, check=0).err == ""


def test_an_item_over_the_limits(vault):
    env = {"AWS_ACCESS_KEY_ID": KEY_ID, "AWS_SECRET_ACCESS_KEY": "x" * 120_000}
    # One variable holds at most 128 kB, so the size comes by two names that fill a file name.
    refuse(vault, "add", "--env", "n" * 256, env=env, code=2, says="255 is the most")


def test_a_vault_folder_that_others_may_write_to(vault):
    vault.keys.chmod(0o777)
    refuse(vault, "exec", "prod", *TRUE, says="can be written to by others", hints="chmod go-w")
    vault.keys.chmod(0o700)


@pytest.mark.skipif(not ROOT, reason="chown is root's")
def test_a_vault_folder_of_somebody_else(vault):
    os.chown(vault.keys, 65534, 65534)
    refuse(vault, "exec", "prod", *TRUE, says="belongs to user 65534", hints="owner")
    os.chown(vault.keys, 0, 0)


@pytest.mark.skipif(ROOT, reason="root reads everything")
def test_a_vault_folder_that_is_closed(vault):
    vault.keys.chmod(0)
    refuse(vault, "exec", "prod", *TRUE, says="permission denied")
    vault.keys.chmod(0o700)


def test_a_file_where_the_vault_should_be(cli):
    (cli.home / ".awsvault").mkdir()
    cli.keys.write_text("")
    keys = {"AWS_ACCESS_KEY_ID": KEY_ID, "AWS_SECRET_ACCESS_KEY": SECRET}
    refuse(cli, "add", "prod", "--env", env=keys, says=r"\.awsvault/keys")


@pytest.mark.parametrize("args", [["exec", "prod", *TRUE], ["add", "x", "--env"]])
def test_a_passphrase_command_that_fails(vault, args):
    env = {
        "AWS_VAULT_FILE_PASSPHRASE": None,
        "AWS_ACCESS_KEY_ID": KEY_ID,
        "AWS_SECRET_ACCESS_KEY": SECRET,
    }
    for command, says in (
        ("false", "'false' failed with status 1"),
        ("/nonesuch/x", "can't run /nonesuch/x"),
        ("'open", "can't be read"),
    ):
        code = 2 if command == "'open" else 1
        flag = f"--file-passphrase-command={command}"
        refuse(vault, args[0], flag, *args[1:], env=env, says=says, code=code)


@pytest.mark.parametrize(
    ("words", "env", "source"),
    [
        (["--file-passphrase-fd", "FD"], {}, "--file-passphrase-fd"),
        ([], {"AWS_VAULT_FILE_PASSPHRASE_FD": "FD"}, "AWS_VAULT_FILE_PASSPHRASE_FD"),
        (["--file-passphrase-command", "echo wrong"], {}, "--file-passphrase-command"),
        ([], {"AWS_VAULT_FILE_PASSPHRASE_COMMAND": "echo wrong"}, "AWS_VAULT_FILE_PASSPHRASE_COMMAND"),
    ],
)
def test_a_wrong_passphrase_says_where_it_comes_from(vault, words, env, source):
    read, write = os.pipe()
    os.write(write, b"wrong")
    os.close(write)
    words = [str(read) if word == "FD" else word for word in words]
    env = {name: str(read) if value == "FD" else value for name, value in env.items()}
    done = vault.run("exec", *words, "prod", *TRUE, env=env, pass_fds=(read,), check=1)
    os.close(read)
    assert f"hint: it comes from {source}: give the right one\n" in done.err


def test_a_failing_passphrase_command_says_why(vault):
    vault.environ["AWS_VAULT_FILE_PASSPHRASE_COMMAND"] = (
        "sh -c 'echo first >&2; printf \"no \\033[31mcard\\n\" >&2; exit 3'"
    )
    refuse(vault, "exec", "prod", *TRUE, says=r"'sh' failed with status 3: no .*card$", hints="by hand")
    assert "\033" not in vault.run("exec", "prod", *TRUE).err


def test_an_empty_passphrase_opens_aws_vaults_items_and_stores_nothing(cli, fake_aws):
    world = FakeWorld(cli.home)
    secret = awsvault.Secret("")
    data = awsvault.go_json({"AccessKeyID": KEY_ID, "SecretAccessKey": SECRET})
    text = awsvault.wrap_item(awsvault.Item("prod", awsvault.Secret(data))).encode()
    salt = b"0123456789ab"
    sealed = awsvault.seal_jwe(text, awsvault.derive_kek(secret, salt, 8192), salt, 8192, os.urandom)
    world.write_new(os.path.join(world.private_folder(str(cli.keys)), "prod"), sealed)
    cli.config("[profile prod]\nregion = eu-west-1\n")
    empty = {"AWS_VAULT_FILE_PASSPHRASE": "", "AWS_VAULT_FILE_ITERATIONS": "9000"}
    done = cli.run("exec", "prod", *TRUE, env=empty, check=0)
    assert done.err.count("warning: the passphrase of") == 1
    assert "the session can't be kept for next time: nothing is stored by an empty passphrase" in done.err
    assert fake_aws.count("GetSessionToken") == 1
    assert (cli.keys / "prod").read_bytes() == sealed
    keys = {"AWS_ACCESS_KEY_ID": KEY_ID, "AWS_SECRET_ACCESS_KEY": SECRET}
    refuse(cli, "add", "other", "--env", env={**empty, **keys}, says="nothing is stored by", hints="rekey")
    server = cli.run("exec", "--server", "prod", *TRUE, env=empty, check=0)
    assert server.err.count("warning: the passphrase of") == 1
    cli.run("rekey", "--new-passphrase-command", "echo better", env=empty, check=0)
    cli.run("exec", "prod", *TRUE, env={"AWS_VAULT_FILE_PASSPHRASE": "better"}, check=0)


def test_an_empty_passphrase_is_none_for_a_new_vault(cli):
    keys = {"AWS_ACCESS_KEY_ID": KEY_ID, "AWS_SECRET_ACCESS_KEY": SECRET}
    none = {**keys, "AWS_VAULT_FILE_PASSPHRASE": ""}
    refuse(cli, "add", "prod", "--env", env=none, code=3, says="Passphrase", hints="PASSPHRASE")
    line = ["add", "prod", "--env", "--file-passphrase-command", "true"]
    refuse(cli, *line, env=none, code=2, says="empty passphrase")
    assert stored(cli) == {}


def test_two_passphrases_that_differ(cli):
    keys = {"AWS_ACCESS_KEY_ID": KEY_ID, "AWS_SECRET_ACCESS_KEY": SECRET}
    terminal = cli.terminal("add", "x", "--env", env={"AWS_VAULT_FILE_PASSPHRASE": None, **keys})
    terminal.expect("Passphrase")
    terminal.send_line("one")
    terminal.expect("again")
    terminal.send_line("two")
    terminal.expect("error: the two passphrases differ")
    assert terminal.wait() == 2
    assert stored(cli) == {}


# ======================================================================
# AWS says no
# ======================================================================

REFUSALS = [
    ("InvalidClientTokenId", 403, "it is deleted, inactive", "awsvault add"),
    ("SignatureDoesNotMatch", 403, "secret key does not belong", "store the pair again"),
    ("AccessDenied", 403, "AccessDenied: the reason", "polic"),
    ("ExpiredToken", 400, "has ended", "awsvault clear"),
    ("ExpiredTokenException", 400, "has ended", "awsvault clear"),
    ("RegionDisabledException", 403, "RegionDisabled", "region"),
    ("ValidationError", 400, "the reason", "role_arn"),
    ("Throttling", 400, "too often", "later"),
    ("MalformedPolicyDocument", 400, "MalformedPolicyDocument: the reason", ""),
]


@pytest.mark.parametrize(("code", "status", "says", "hints"), REFUSALS)
def test_refusals_are_explained(vault, fake_aws, code, status, says, hints):
    fake_aws.fail(times=9, status=status, code=code, message="the reason")
    env = {"AWS_MAX_ATTEMPTS": "1"}
    done = refuse(vault, "exec", "prod", *TRUE, says=says, hints=hints, env=env)
    assert "the reason" in done.err


@pytest.mark.parametrize(
    ("message", "says", "hints"),
    [
        ("Credential should be scoped to a valid region, not 'zz'.", "no such region", "--region"),
        ("Signature expired: 20260101T000000Z is now earlier", "clock is behind", "set the clock"),
        ("Signature not yet current: 20270101T000000Z", "clock is ahead of", "set the clock"),
    ],
)
def test_a_signature_is_refused_for_more_than_one_reason(vault, fake_aws, message, says, hints):
    fake_aws.fail(times=9, status=403, code="SignatureDoesNotMatch", message=message)
    env = {"AWS_MAX_ATTEMPTS": "1"}
    refuse(vault, "exec", "prod", *TRUE, says=says, hints=hints, env=env)


def test_control_characters_in_a_refusal_are_shown_as_text(vault, fake_aws):
    fake_aws.fail(status=403, code="AccessDenied", message="a&#10;awsvault: x \x9b31m")
    done = refuse(vault, "exec", "prod", *TRUE, says=r"\\x0a|\\x9b|&amp;#10;")
    assert "\x9b" not in done.err
    assert done.err.count("\n") == 2


@pytest.mark.parametrize("code", ["999999", "123456"], ids=["wrong", "used"])
def test_a_refused_mfa_code(cli, fake_aws, code):
    cli.mfa_config()
    cli.add("prod")
    cli.exec_environ("prod", "-t", "123456")
    cli.run("clear")
    refuse(cli, "exec", "deploy", "-t", code, *TRUE, says="MFA code was refused", hints="wait")


@pytest.mark.parametrize("code", ["12345", "1234567", "abcdef", "12345٦", "a b"])
def test_what_is_no_code_is_not_sent(cli, fake_aws, code):
    cli.mfa_config()
    cli.add("prod")
    refuse(cli, "exec", "prod", "-t", code, *TRUE, says="six digits")
    assert fake_aws.calls == []


def test_a_role_that_trusts_nobody(cli, fake_aws):
    cli.config(f"[profile prod]\n[profile x]\nsource_profile=prod\nrole_arn={arn('closed')}\n")
    cli.add("prod")
    refuse(cli, "exec", "x", *TRUE, says="AssumeRole.*AccessDenied", hints="polic")


def test_mfa_process_that_fails(cli, fake_aws):
    for process, says in (("exit 4", "status 4"), ("echo no", "six digits")):
        cli.config(f"[profile prod]\nmfa_serial = {MFA_SERIAL}\nmfa_process = {process}\n")
        if not cli.keys.exists():
            cli.add("prod")
        refuse(cli, "exec", "prod", *TRUE, says=says)
    assert fake_aws.calls == []


# ======================================================================
# AWS does not answer, or somebody else does
# ======================================================================


def test_no_network(vault, fake_aws):
    env = {"AWS_ENDPOINT_URL_STS": "http://127.0.0.1:9", "AWS_MAX_ATTEMPTS": "1"}
    refuse(vault, "exec", "prod", *TRUE, env=env, says="can't be reached", hints="network")


def test_a_proxy_that_refuses(vault, fake_aws):
    env = {
        "AWS_ENDPOINT_URL_STS": None,
        "HTTPS_PROXY": fake_aws.url,
        "AWS_MAX_ATTEMPTS": "1",
    }
    refuse(vault, "exec", "prod", *TRUE, env=env, says="proxy", hints="HTTPS_PROXY")
    refuse(
        vault, "exec", "prod", *TRUE, env={**env, "HTTPS_PROXY": "http://127.0.0.1:9"},
        says="proxy", hints="HTTPS_PROXY",
    )  # fmt: skip


def test_a_ca_bundle_that_is_not_there(vault):
    env = {"AWS_CA_BUNDLE": "/nonesuch/ca.pem", "AWS_ENDPOINT_URL_STS": None}
    refuse(vault, "exec", "prod", *TRUE, env=env, says="/nonesuch/ca.pem", hints="AWS_CA_BUNDLE")


@pytest.mark.parametrize(
    "body",
    [
        "<html><body>log in to the network</body></html>",
        "<html>unclosed",
        "plain text",
        "",
        "<a/>",
        "<GetSessionTokenResponse/>",
        '{"json": true}',
    ],
)
def test_a_captive_portal(vault, fake_aws, body):
    fake_aws.garbage(times=9, body=body)
    env = {"AWS_MAX_ATTEMPTS": "1"}
    refuse(
        vault,
        "exec",
        "prod",
        *TRUE,
        env=env,
        says="GetSessionToken.*not .*AWS",
        hints="network|proxy",
    )


@pytest.mark.parametrize("status", [302, 403, 404, 500, 503, 511])
def test_a_captive_portal_with_a_status(vault, fake_aws, status):
    fake_aws.garbage(times=9, body="<html><h1>no</h1></html>", status=status)
    env = {"AWS_MAX_ATTEMPTS": "1"}
    says = "GetSessionToken: what answered is not AWS"
    refuse(vault, "exec", "prod", *TRUE, env=env, says=says, hints="log in to the network")


def test_a_connection_that_breaks_is_tried_again(vault, fake_aws):
    fake_aws.drop(times=1)
    vault.run("exec", "prod", *TRUE, check=0)
    fake_aws.drop(times=9)
    vault.run("clear", check=0)
    env = {"AWS_MAX_ATTEMPTS": "1"}
    refuse(vault, "exec", "prod", *TRUE, env=env, says="closed before an answer", hints="again")


# ======================================================================
# The command
# ======================================================================


def test_a_command_that_is_not_there(vault, fake_aws):
    refuse(vault, "exec", "prod", "--", "nonesuch", code=127, says="nonesuch: not found on PATH")
    refuse(vault, "exec", "prod", "--", "./nonesuch", code=127, says="no such file")
    assert fake_aws.calls == []


def test_a_command_that_can_not_be_run(vault, fake_aws):
    script = vault.home / "script"
    script.write_text("echo")
    refuse(vault, "exec", "prod", "--", "./script", code=126, says="not executable")
    refuse(vault, "exec", "prod", "--", "/", code=126, says="it is a folder")
    assert fake_aws.calls == []
    script.chmod(0o755)
    refuse(vault, "exec", "prod", "--", "./script", code=126, says="exec format error", hints="#!")
    script.write_text("#!/nonesuch/sh\n")
    refuse(vault, "exec", "prod", "--", "./script", code=127, says="script", hints="interpreter")


def test_an_environment_too_large_for_a_command(vault):
    vault.program = [sys.executable, "-c", LARGEST_COMMAND, *vault.program]
    refuse(vault, code=126, says="argument list too long")


# Gives the product the longest command line that the kernel takes, so that what it adds is too much.
LARGEST_COMMAND = """
import os, resource, sys
resource.setrlimit(resource.RLIMIT_STACK, (2 << 20, 2 << 20))
for size in range(530000, 400000, -200):
    words = ["x" * 100000] * (size // 100000) + ["x" * (size % 100000)]
    try:
        os.execv(sys.argv[1], [*sys.argv[1:], "exec", "prod", "--", "true", *words])
    except OSError:
        continue
"""


# ======================================================================
# Interrupted
# ======================================================================

PROMPTS = [
    (["add", "new"], {}, "Access key ID", True),
    (["add", "new"], {}, "Secret access key", True),
    (["exec", "prod", *TRUE], {}, "MFA code", False),
    (["exec", "prod", *TRUE], {"AWS_VAULT_FILE_PASSPHRASE": None}, "Passphrase", True),
    (["remove", "prod"], {}, "Delete", False),
]


def test_nohup_is_kept_to(vault):
    told = vault.home / "told"
    os.mkfifo(told)
    vault.config(f"[profile prod]\nmfa_serial = {MFA_SERIAL}\nmfa_process = cat {told}\n")
    vault.program = ["nohup", *vault.program]
    process = vault.popen("exec", "prod", "--", "echo", "ran")
    with told.open("w") as code:  # once the helper is there
        process.send_signal(signal.SIGHUP)
        code.write("123456")
    assert process.communicate(timeout=30)[0] == "ran\n"


def test_a_signal_ends_what_was_started_to_help(vault):
    # The program tells its number, and that it is there.
    told = vault.home / "told"
    os.mkfifo(told)
    command = f"sh -c 'echo $$ > {told}; exec sleep 1000'"
    vault.config(f"[profile prod]\nmfa_serial = {MFA_SERIAL}\nmfa_process = exec {command}\n")
    process = vault.popen("exec", "prod", *TRUE)
    helper = int(told.read_text())
    process.send_signal(signal.SIGTERM)
    assert process.wait(30) == 128 + signal.SIGTERM
    with pytest.raises(ProcessLookupError):
        os.kill(helper, 0)


@pytest.mark.parametrize(("line", "env", "prompt", "hidden"), PROMPTS)
@pytest.mark.parametrize("how", ["ctrl-c", signal.SIGTERM, signal.SIGHUP, "end of file"])
def test_interrupted_at_a_prompt(vault, line, env, prompt, hidden, how):
    vault.config(f"[profile prod]\nmfa_serial = {MFA_SERIAL}\n")
    before = stored(vault)
    terminal = vault.terminal(*line, env=env)
    if prompt == "Secret access key":
        terminal.expect("Access key ID")
        terminal.send_line(KEY_ID)
    terminal.expect(prompt)
    assert terminal.echoing() != hidden
    if how == "ctrl-c":
        terminal.interrupt()
    elif how == "end of file":
        terminal.send("\x04")
    else:
        os.kill(terminal.pid, how)
    code = {"ctrl-c": 130, "end of file": 1}.get(how) or 128 + how
    assert terminal.wait() == code
    assert terminal.modes_restored()
    assert terminal.screen.count("awsvault: error: ") == 1
    assert "Traceback" not in terminal.screen
    assert stored(vault) == before


def test_interrupted_while_sts_is_slow(vault, fake_aws):
    with fake_aws.hold():
        process = vault.popen("exec", "prod", *TRUE)
        fake_aws.wait_for(1)
        process.send_signal(signal.SIGINT)
        _, err = process.communicate(timeout=60)
    assert process.returncode == 130
    assert err.count("\n") == 1
    vault.run("exec", "prod", *TRUE, check=0)


def test_no_terminal(vault):
    vault.config(f"[profile prod]\nmfa_serial = {MFA_SERIAL}\n")
    refuse(vault, "exec", "prod", *TRUE, code=3, says="MFA code", hints="--mfa-token")
    none = {"AWS_VAULT_FILE_PASSPHRASE": None}
    refuse(vault, "exec", "prod", *TRUE, code=3, env=none, says="Passphrase", hints="PASSPHRASE")
    refuse(vault, "add", "x", code=3, says="Access key ID", hints="--env")
    refuse(vault, "remove", "prod", code=3, says="Delete", hints="--force")


@pytest.mark.parametrize("env", [{"AWS_VAULT_NO_INPUT": "1"}, {}])
def test_nobody_may_be_asked(vault, env):
    vault.config(f"[profile prod]\nmfa_serial = {MFA_SERIAL}\n")
    flags = [] if env else ["--no-input"]
    terminal = vault.terminal("exec", *flags, "prod", *TRUE, env=env)
    terminal.expect("error: MFA code.*")
    assert terminal.wait() == 3


def test_output_that_nobody_reads(vault):
    process = vault.popen("list", stdout=subprocess.PIPE)
    process.stdout.close()
    assert process.wait(60) in (0, 141)
    assert "Traceback" not in process.stderr.read()


# ======================================================================
# Disks and homes
# ======================================================================


@pytest.fixture
def full_disk(cli, tmp_path):
    """The product with its home on a disk of its own, which `fill` fills."""
    mount = shutil.which("mount")
    if not (ROOT and mount):
        pytest.skip("mounting a small disk is root's")
    disk = tmp_path / "disk"
    disk.mkdir()
    line = [mount, "-t", "tmpfs", "-o", "size=256k,mode=0700", "tmpfs", str(disk)]
    if subprocess.run(line, capture_output=True, check=False).returncode:
        pytest.skip("no small disk can be mounted here")
    cli.home, cli.environ["HOME"] = disk, str(disk)
    yield cli
    subprocess.run([shutil.which("umount"), "-l", str(disk)], check=True)


def fill(folder, leave=0):
    """Write until the disk is full, then free `leave` bytes."""
    size = 0
    with open(folder / "filler", "wb", buffering=0) as file:
        try:
            while True:
                size += file.write(b"x" * 4096)
        except OSError:
            file.truncate(max(0, size - leave))


def test_full_disk(full_disk, fake_aws):
    cli = full_disk
    cli.add("prod")
    before = stored(cli)
    config = cli.config_file.read_bytes()
    fill(cli.home)
    keys = {"AWS_ACCESS_KEY_ID": KEY_ID, "AWS_SECRET_ACCESS_KEY": OTHER_SECRET}
    refuse(cli, "add", "prod", "--env", env=keys, says="can't write.*no space left on device")
    refuse(cli, "add", "other", "--env", env=keys, says="no space left on device")
    assert stored(cli) == before
    assert cli.config_file.read_bytes() == config
    # A session that can't be kept is no reason not to run the command.
    done = cli.run("exec", "prod", "--", "echo", "ran", check=0)
    assert done.out == "ran\n"
    assert "can't be kept" in done.err
    (cli.home / "filler").unlink()
    cli.run("exec", "prod", *TRUE, check=0)
    assert not list((cli.home / ".awsvault" / "tmp").iterdir())


@pytest.fixture
def full():
    with open("/dev/full", "w", encoding="utf-8") as file:
        yield file


def test_what_can_t_be_said_stops_nothing(vault, full):
    roles = f"[profile r]\nrole_arn = {arn('admin')}\nsource_profile = prod\nmfa_serial = {MFA_SERIAL}\n"
    vault.config(f"{roles}[profile c]\nrole_arn = {arn('chained')}\nsource_profile = r\n")
    line = ["exec", "c", "-d", "2h", "-t", "123456", "--", "echo", "ran"]
    assert vault.run(*line, stderr=full, check=0).out == "ran\n"
    vault.run("exec", "nonesuch", *TRUE, stderr=full, check=2)


def test_what_can_t_be_printed_is_done_all_the_same(cli, full):
    cli.config("[profile prod]\n")
    cli.add("prod")
    cli.run("exec", "prod", *TRUE, check=0)
    keys = {"AWS_ACCESS_KEY_ID": KEY_ID, "AWS_SECRET_ACCESS_KEY": OTHER_SECRET}
    cli.run("add", "prod", "--env", env=keys, stdout=full, check=1)
    assert list(stored(cli)) == ["prod"]
    cli.run("add", "other", "--env", env=keys, stdout=full, check=1)
    assert "[profile other]" in cli.config_file.read_text()
    keys["AWS_SECRET_ACCESS_KEY"] = SECRET
    cli.run("add", "prod", "--env", env=keys, check=0)
    cli.run("exec", "prod", *TRUE, check=0)
    cli.run("rm", "-f", "prod", stdout=full, check=1)
    assert list(stored(cli)) == ["other"]


def test_config_on_a_full_disk(full_disk, tmp_path):
    cli = full_disk
    cli.config("[profile prod]\n")
    vault = tmp_path / "vault"
    fill(cli.home)
    text = cli.config_file.read_bytes() + b"#" * (4096 - cli.config_file.stat().st_size)
    with cli.config_file.open("r+b") as file:
        file.write(text)
    keys = {"AWS_ACCESS_KEY_ID": KEY_ID, "AWS_SECRET_ACCESS_KEY": SECRET}
    line = ["add", "other", "--env", "--file-dir", str(vault)]
    done = cli.run(*line, env=keys, check=1)
    assert "the keys are stored" in done.err
    assert "no space left" in done.err
    assert cli.config_file.read_bytes() == text
    assert (vault / "other").exists()


@pytest.mark.skipif(not ROOT, reason="mounting is root's")
def test_read_only_home(full_disk, fake_aws):
    cli = full_disk
    cli.add("prod")
    before = stored(cli)
    subprocess.run(["mount", "-o", "remount,ro", str(cli.home)], check=True)
    keys = {"AWS_ACCESS_KEY_ID": KEY_ID, "AWS_SECRET_ACCESS_KEY": OTHER_SECRET}
    refuse(cli, "add", "prod", "--env", env=keys, says="read-only file system")
    done = cli.run("exec", "prod", "--", "echo", "ran", check=0)
    assert done.out == "ran\n"
    assert "can't be kept" in done.err
    assert cli.run("list", "--credentials", check=0).out == "prod\n"
    refuse(cli, "remove", "-f", "prod", says="read-only file system")
    assert stored(cli) == before


def test_home_that_is_missing(vault):
    nowhere = {"HOME": "/nonesuch/home"}
    refuse(vault, "list", env=nowhere, says="home folder /nonesuch/home", hints="HOME")
    named = {"AWS_VAULT_FILE_DIR": str(vault.keys), "AWS_CONFIG_FILE": "/dev/null"}
    assert vault.run("list", "--credentials", env={**nowhere, **named}, check=0).out == "prod\n"
    vault.run("exec", "prod", *TRUE, env={**nowhere, **named}, check=0)


@pytest.mark.skipif(not ROOT, reason="chown is root's")
def test_home_that_is_not_ours(vault):
    os.chown(vault.home, 65534, 65534)
    refuse(vault, "exec", "prod", *TRUE, says="belongs to another user", hints="sudo -H")
    refuse(vault, "list", says="belongs to another user")
    os.chown(vault.home, 0, 0)


def test_the_passphrase_is_asked_for_once_more_after_a_wrong_one(vault):
    env = {"AWS_VAULT_FILE_PASSPHRASE": None}
    terminal = vault.terminal("exec", "prod", *TRUE, env=env)
    terminal.expect("Passphrase")
    terminal.send_line("wrong")
    terminal.expect("wrong passphrase")
    terminal.expect("Passphrase")
    terminal.send_line(PASSPHRASE)
    assert terminal.wait() == 0


# ======================================================================
# How errors are shown
# ======================================================================


@pytest.mark.parametrize(
    ("called", "shown"),
    [("-c", "awsvault"), ("/opt/bin/aws-vault", "aws-vault"), ("awsvault.pyz", "python3 awsvault.pyz"),
     ("/srv/tools/awsvault.pyz", "python3 /srv/tools/awsvault.pyz"), ("", "awsvault"), ("a\x1bb", "a\\x1bb")],
)  # fmt: skip
def test_hints_name_the_program_as_it_was_called(monkeypatch, home, called, shown):
    monkeypatch.setattr(sys, "argv", [called])
    world = FakeWorld(home)
    hint = "run awsvault clear, then awsvault exec PROFILE; see ~/.awsvault/x and awsvault.pyz"
    awsvault.show_error(world, awsvault.AwsVaultError("no", hint))
    assert world.said == [
        "error: no",
        f"hint: run {shown} clear, then {shown} exec PROFILE; see ~/.awsvault/x and awsvault.pyz",
    ]


def test_only_a_bug_shows_a_traceback(home):
    world = FakeWorld(home)
    assert awsvault.main(["--debug", "exec", "nope", "--", "true"], world) == 2
    assert "Traceback" not in "".join(world.said)
    world.failures["fill_standard_descriptors"] = ZeroDivisionError("x")
    world.debugging = True
    assert awsvault.main(["list"], world) == 70
    assert "Traceback" in "".join(world.said)


def test_a_container_without_a_home_is_told_what_to_set(home):
    world = FakeWorld(home, {"HOME": "/"})
    world.failures["uid"] = lambda: 12345
    with pytest.raises(awsvault.AwsVaultError) as caught:
        world.own_home()
    assert caught.value.hint == "set HOME to a folder of this user's, such as an empty volume"
