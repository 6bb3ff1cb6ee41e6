"""The command's environment and the forms of `export`: what is removed, what is set, how it is quoted."""

from __future__ import annotations

import configparser
import datetime
import json
import shutil
import subprocess

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import awsvault
from awsvault import (
    EXPORT_FORMATS,
    Credentials,
    Secret,
    child_environment,
    credential_variables,
    default_shell,
    quote_fish,
    quote_posix,
    quote_powershell,
)
from tests.fake_world import FakeWorld

EXPIRES = datetime.datetime(2030, 1, 2, 3, 4, 5, tzinfo=datetime.timezone.utc)
SESSION = Credentials(
    "ASIADUMMYEXAMPLE0001", Secret("dummy/secret+key"), Secret("token/+=="), EXPIRES, "111111111111"
)
KEYS = Credentials("AKIADUMMYEXAMPLE0001", Secret("dummy/secret+key"))

REMOVED = """
AWS_ACCESS_KEY_ID AWS_ACCESS_KEY AWS_SECRET_ACCESS_KEY AWS_SECRET_KEY AWS_SESSION_TOKEN AWS_SECURITY_TOKEN
AWS_DELEGATION_TOKEN EC2_ACCESS_KEY EC2_SECRET_KEY AWS_CREDENTIAL_EXPIRATION AWS_SESSION_EXPIRATION AWS_CREDENTIAL_FILE
AWS_PROFILE AWS_DEFAULT_PROFILE AWS_ROLE_ARN AWS_ROLE_SESSION_NAME AWS_WEB_IDENTITY_TOKEN_FILE
AWS_CONTAINER_CREDENTIALS_RELATIVE_URI AWS_CONTAINER_CREDENTIALS_FULL_URI AWS_CONTAINER_AUTHORIZATION_TOKEN
AWS_CONTAINER_AUTHORIZATION_TOKEN_FILE AWS_EC2_METADATA_SERVICE_ENDPOINT AWS_EC2_METADATA_SERVICE_ENDPOINT_MODE
AWS_METADATA_URL AWS_IMDS_USE_IPV6 AWS_ACCOUNT_ID AWS_BEARER_TOKEN_BEDROCK AWS_BEARER_TOKEN_ AWS_SDK_LOAD_CONFIG
AWS_MFA_SERIAL AWS_EXTERNAL_ID AWS_SESSION_TAGS AWS_TRANSITIVE_TAGS AWS_SOURCE_IDENTITY AWS_MIN_TTL AWS_SESSION_TTL
AWS_ASSUME_ROLE_TTL AWS_SESSION_TOKEN_TTL AWS_CHAINED_SESSION_TOKEN_TTL AWS_FEDERATION_TOKEN_TTL
_AWS_CLI_PROFILE_CHAIN AWS_VAULT_FILE_PASSPHRASE AWS_VAULT_FILE_PASSPHRASE_FD AWS_VAULT_OP_CONNECT_TOKEN
AWS_VAULT_OP_SERVICE_ACCOUNT_TOKEN
""".split()  # fmt: skip
KEPT = """
PATH HOME LANG SHELL HTTPS_PROXY NO_PROXY OP_SERVICE_ACCOUNT_TOKEN OP_CONNECT_TOKEN PROTON_PASS_PERSONAL_ACCESS_TOKEN
AWS_ENDPOINT_URL AWS_ENDPOINT_URL_STS AWS_ENDPOINT_URL_S3 AWS_IGNORE_CONFIGURED_ENDPOINT_URLS AWS_CA_BUNDLE
AWS_USE_FIPS_ENDPOINT AWS_USE_DUALSTACK_ENDPOINT AWS_STS_REGIONAL_ENDPOINTS AWS_S3_US_EAST_1_REGIONAL_ENDPOINT
AWS_S3_DISABLE_MULTIREGION_ACCESS_POINTS AWS_CSM_ENABLED AWS_MAX_ATTEMPTS AWS_RETRY_MODE AWS_DATA_PATH AWS_PAGER
AWS_CLI_AUTO_PROMPT AWS_DEFAULT_OUTPUT AWS_EXECUTION_ENV AWS_EC2_METADATA_V1_DISABLED AWS_EC2_METADATA_DISABLED
AWS_VAULT_BACKEND AWS_VAULT_FILE_DIR AWS_VAULT_PROMPT AWS_CONFIG_FILE AWS_SHARED_CREDENTIALS_FILE AWS_SOMETHING_NEW
AWS_CREDENTIAL_PROFILES_FILE BOTO_CONFIG ACTIONS_ID_TOKEN_REQUEST_TOKEN NOT_OURS aws_access_key_id
""".split()  # fmt: skip
SET = {"AWS_VAULT", "AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_SESSION_TOKEN", "AWS_CREDENTIAL_EXPIRATION", "AWS_REGION", "AWS_DEFAULT_REGION", "AWS_ACCOUNT_ID"}  # fmt: skip
OUTSIDE = {name: f"outside-{name}" for name in [*REMOVED, *KEPT]}


@pytest.mark.parametrize("name", REMOVED)
def test_what_is_somebodys_credential_or_our_own_setting_does_not_reach_the_command(name):
    inside = child_environment(OUTSIDE, "prod", KEYS, "")
    assert name not in inside or name in SET
    assert f"outside-{name}" not in inside.values()


@pytest.mark.parametrize("name", KEPT)
def test_what_is_the_commands_own_business_stays(name):
    assert child_environment(OUTSIDE, "prod", SESSION, "eu-west-1")[name] == f"outside-{name}"


@pytest.mark.parametrize("name", REMOVED)
def test_removed_means_removed_not_emptied(name):
    assert name not in awsvault.scrubbed({name: ""})


def test_nothing_else_is_changed():
    inside = child_environment(OUTSIDE, "prod", SESSION, "eu-west-1")
    assert set(inside) == {*KEPT, *SET}


@pytest.mark.parametrize(
    ("what", "credentials", "region", "expected"),
    [
        ("a session with a region", SESSION, "eu-west-1", {
            "AWS_VAULT": "a b", "AWS_ACCESS_KEY_ID": "ASIADUMMYEXAMPLE0001", "AWS_SECRET_ACCESS_KEY": "dummy/secret+key", "AWS_SESSION_TOKEN": "token/+==",
            "AWS_CREDENTIAL_EXPIRATION": "2030-01-02T03:04:05Z", "AWS_REGION": "eu-west-1", "AWS_DEFAULT_REGION": "eu-west-1", "AWS_ACCOUNT_ID": "111111111111"}),
        ("keys without a region", KEYS, "", {"AWS_VAULT": "a b", "AWS_ACCESS_KEY_ID": "AKIADUMMYEXAMPLE0001", "AWS_SECRET_ACCESS_KEY": "dummy/secret+key"}),
    ],
    ids=["a session with a region", "keys without a region"],
)  # fmt: skip
def test_what_is_set(what, credentials, region, expected):
    assert child_environment({}, "a b", credentials, region) == expected


@pytest.mark.parametrize("region", ["", "eu-west-1"])
def test_without_a_region_of_the_profile_the_persons_own_stays(region):
    inside = child_environment(
        {"AWS_REGION": "mine", "AWS_DEFAULT_REGION": "mine"}, "prod", KEYS, region
    )
    assert (inside["AWS_REGION"], inside["AWS_DEFAULT_REGION"]) == ((region or "mine"),) * 2


def test_programs_that_help_get_no_secrets_either(home):
    world = FakeWorld(home, OUTSIDE)
    world.environ["PATH"] = "/usr/bin:/bin"
    printed = world.run(["env"]).output.reveal()
    names = {line.partition("=")[0] for line in printed.splitlines()}
    assert not names & set(REMOVED)
    assert set(KEPT) <= names


@pytest.mark.parametrize(
    ("environ", "shell"),
    [({"SHELL": "/bin/zsh"}, "/bin/zsh"), ({"SHELL": ""}, "/bin/sh"), ({}, "/bin/sh")],
)
def test_the_default_shell(environ, shell):
    assert default_shell(environ) == shell


# -- export -----------------------------------------------------------------------------


def removed(line):
    """What an earlier export may have left and keys without a region do not set."""
    names = "SESSION_TOKEN SECURITY_TOKEN CREDENTIAL_EXPIRATION REGION DEFAULT_REGION ACCOUNT_ID"
    return "".join(line.format(f"AWS_{name}") for name in [*names.split(), "VAULT_REGION"])


@pytest.mark.parametrize(
    ("form", "credentials", "text"),
    [
        ("env", KEYS, "AWS_ACCESS_KEY_ID=AKIADUMMYEXAMPLE0001\nAWS_SECRET_ACCESS_KEY=dummy/secret+key\n"),
        ("export-env", KEYS, "export AWS_ACCESS_KEY_ID=AKIADUMMYEXAMPLE0001\nexport AWS_SECRET_ACCESS_KEY=dummy/secret+key\n" + removed("unset {}\n")),
        ("fish", KEYS, "set -gx AWS_ACCESS_KEY_ID 'AKIADUMMYEXAMPLE0001'\nset -gx AWS_SECRET_ACCESS_KEY 'dummy/secret+key'\n" + removed("set -e {}\n")),
        ("powershell", KEYS, "$Env:AWS_ACCESS_KEY_ID = 'AKIADUMMYEXAMPLE0001'\n$Env:AWS_SECRET_ACCESS_KEY = 'dummy/secret+key'\n" + removed("$Env:{} = $null\n")),
        ("json", KEYS, '{"Version":1,"AccessKeyId":"AKIADUMMYEXAMPLE0001","SecretAccessKey":"dummy/secret+key"}\n'),
        ("json", SESSION, '{"Version":1,"AccessKeyId":"ASIADUMMYEXAMPLE0001","SecretAccessKey":"dummy/secret+key","SessionToken":"token/+==","Expiration":"2030-01-02T03:04:05Z","AccountId":"111111111111"}\n'),
        ("ini", KEYS, "[a b]\naws_access_key_id=AKIADUMMYEXAMPLE0001\naws_secret_access_key=dummy/secret+key\nregion=eu-west-1\n"),
        ("ini", SESSION, "[a b]\naws_access_key_id=ASIADUMMYEXAMPLE0001\naws_secret_access_key=dummy/secret+key\naws_session_token=token/+==\naws_credential_expiration=2030-01-02T03:04:05Z\nregion=eu-west-1\n"),
    ],
)  # fmt: skip
def test_the_forms_of_export(form, credentials, text):
    assert EXPORT_FORMATS[form]("a b", credentials, "eu-west-1" if form == "ini" else "") == text


@pytest.mark.parametrize("form", ["env", "ini"])
@pytest.mark.parametrize("value", ["a\nAWS_ENDPOINT_URL=b", "a\rb", "a\x85b", "a\u2028b"])
def test_a_line_is_one_variable(form, value):
    keys = KEYS.replace(secret_access_key=Secret(value))
    with pytest.raises(awsvault.AwsVaultError, match="AWS_SECRET_ACCESS_KEY has"):
        EXPORT_FORMATS[form]("p", keys, "")


@pytest.mark.parametrize("value", ["\xa0a", "a\xa0", "a\u3000", " a"])
def test_ini_loses_no_blank(value):
    with pytest.raises(
        awsvault.AwsVaultError, match="AWS_SECRET_ACCESS_KEY has a blank at its edge"
    ):
        EXPORT_FORMATS["ini"]("p", KEYS.replace(secret_access_key=Secret(value)), "")


def test_every_form_is_listed():
    assert list(EXPORT_FORMATS) == ["env", "export-env", "json", "ini", "fish", "powershell"]


def test_the_order_of_the_lines_is_aws_vaults():
    lines = EXPORT_FORMATS["env"]("p", SESSION, "eu-west-1").splitlines()
    names = [line.partition("=")[0] for line in lines]
    assert names[:6] == [
        "AWS_ACCESS_KEY_ID",
        "AWS_SECRET_ACCESS_KEY",
        "AWS_SESSION_TOKEN",
        "AWS_CREDENTIAL_EXPIRATION",
        "AWS_REGION",
        "AWS_DEFAULT_REGION",
    ]


def test_ini_is_read_back():
    parser = configparser.RawConfigParser()
    parser.read_string(EXPORT_FORMATS["ini"]("a b", SESSION, "eu-west-1"))
    assert parser["a b"]["aws_session_token"] == "token/+=="


def test_json_is_what_credential_process_takes(tmp_path):
    from botocore.credentials import ProcessProvider

    (tmp_path / "out.json").write_text(
        EXPORT_FORMATS["json"]("p", SESSION.replace(expiration=EXPIRES.replace(year=2099)), "")
    )
    config = {"profiles": {"p": {"credential_process": f"cat {tmp_path}/out.json"}}}
    loaded = ProcessProvider("p", lambda: config).load().get_frozen_credentials()
    assert (loaded.access_key, loaded.secret_key, loaded.token) == (
        "ASIADUMMYEXAMPLE0001",
        "dummy/secret+key",
        "token/+==",
    )


ODD = ["", "plain", "a b", "it's", '"', "$HOME", "`id`", "$(id)", "a\\b", "\\", "\\'", "a;b|c&d>e<f", "*?[x]", "~", "#x", "!x", "a\nb", "{a,b}", "ü日本", "%PATH%", "\u2018\u2019\u201a\u201b", "-x", "(x)"]  # fmt: skip


SHELLS = [shell for shell in ("sh", "dash", "bash", "zsh", "fish", "pwsh") if shutil.which(shell)]


@pytest.mark.parametrize("text", ODD)
@pytest.mark.parametrize("shell", SHELLS)
def test_what_is_quoted_is_read_back_by_the_shell_itself(shell, text):
    quote = {"fish": quote_fish, "pwsh": quote_powershell}.get(shell, quote_posix)
    arguments = ["-NoProfile", "-NonInteractive", "-Command"] if shell == "pwsh" else ["-c"]
    word = "[Console]::Out.Write({})" if shell == "pwsh" else "printf '%s.' {}"
    done = subprocess.run(
        [shell, *arguments, word.format(quote(text))], capture_output=True, check=True
    )
    assert done.stdout.decode() == (text if shell == "pwsh" else f"{text}.")


@pytest.mark.parametrize(
    ("text", "fish", "powershell"),
    [
        ("plain", "'plain'", "'plain'"),
        ("it's", "'it\\'s'", "'it''s'"),
        ("a\\b", "'a\\\\b'", "'a\\b'"),
        ("\\'", "'\\\\\\''", "'\\'''"),
        ("$HOME `id` (x)", "'$HOME `id` (x)'", "'$HOME `id` (x)'"),
        (
            "\u2018\u2019\u201a\u201b",
            "'\u2018\u2019\u201a\u201b'",
            "'\u2018\u2018\u2019\u2019\u201a\u201a\u201b\u201b'",
        ),
        ("", "''", "''"),
    ],
)
def test_quotes_of_fish_and_powershell(text, fish, powershell):
    assert quote_fish(text) == fish
    assert quote_powershell(text) == powershell


@settings(max_examples=25, deadline=None)
@given(st.text(alphabet=st.characters(codec="utf-8", exclude_characters="\0"), max_size=30))
def test_sh_reads_an_export_back(value):
    credentials = KEYS.replace(secret_access_key=Secret(value or "x"))
    script = (
        EXPORT_FORMATS["export-env"]("p", credentials, "") + 'printf %s. "$AWS_SECRET_ACCESS_KEY"'
    )
    done = subprocess.run(["sh", "-c", script], capture_output=True, check=True, env={})
    assert done.stdout.decode() == (value or "x") + "."


def test_only_the_variables_have_the_secret():
    shown = json.dumps([repr(SESSION), str(SESSION)])
    assert "dummy/secret" not in shown
    assert credential_variables(SESSION, "")["AWS_SECRET_ACCESS_KEY"] == "dummy/secret+key"
