"""One store, two programs: what aws-vault wrote is used by whole commands, and the reverse."""

from __future__ import annotations

import base64
import json
import re
from pathlib import Path

import pytest
from jwcrypto import jwe, jwk

from tests.conftest import PASSPHRASE, arn
from tests.fake_aws import KEY_ID, MFA_SERIAL, SECRET

DATA = Path(__file__).parent / "data"
VECTORS = [
    vector
    for name in ("aws-vault-4.2-file-items.json", "aws-vault-7-items.json")
    for vector in json.loads((DATA / name).read_text(encoding="utf-8"))
    if vector.get("backend", "file") == "file"
]
# 4.2 escaped nothing, so this file is of another name to 7.2 and to us.
AMBIGUOUS = "pct%2Fname"
KEYS = [
    vector
    for vector in VECTORS
    if "AccessKeyID" in vector["data"] and vector["file_name"] != AMBIGUOUS
]
SESSIONS = {vector["file_name"].partition(",")[0]: vector for vector in VECTORS
            if vector.get("kind") == "session"}  # fmt: skip
ALICE = "arn:aws:iam::123456789012:mfa/alice"
CONFIG = f"""
[profile mfa]
region = eu-west-1
mfa_serial = {ALICE}

[profile dev admin]
region = eu-west-1
source_profile = prod
role_arn = {arn("admin")}
mfa_serial = {ALICE}

[profile cp]
credential_process = false
"""


def put(cli, *vectors):
    """Lay items into the vault as aws-vault did."""
    cli.keys.mkdir(mode=0o700, parents=True, exist_ok=True)
    for vector in vectors:
        path = cli.keys / vector["file_name"]
        path.write_text(vector["token"])
        path.chmod(0o600)


def open_independently(token, passphrase=PASSPHRASE):
    """(header, item, data) of a stored item by another implementation of JWE."""
    reader = jwe.JWE(algs=["PBES2-HS256+A128KW", "A256GCM"])
    reader.deserialize(token)
    reader.decrypt(jwk.JWK.from_password(passphrase))
    text = reader.payload.decode()
    item = json.loads(text)
    data = json.loads(base64.b64decode(item["Data"]))
    return json.loads(reader.objects["protected"]), text, item, data


# ======================================================================
# What aws-vault wrote
# ======================================================================


@pytest.mark.parametrize("vector", KEYS, ids=lambda vector: vector["file_name"])
def test_stored_keys_are_used(cli, vector):
    put(cli, vector)
    name = vector["item"]["Key"]
    secret = {"AWS_VAULT_FILE_PASSPHRASE": vector["passphrase"]}
    line = ["export", "--no-session", "--format=json", name]
    exported = cli.run(*line, env=secret, check=0).json()
    assert exported == {
        "Version": 1,
        "AccessKeyId": vector["data"]["AccessKeyID"],
        "SecretAccessKey": vector["data"]["SecretAccessKey"],
    }
    assert cli.run("list", "--credentials", check=0).out == f"{name}\n"
    environ = cli.exec_environ(name, "--no-session", env=secret)
    assert environ["AWS_SECRET_ACCESS_KEY"] == exported["SecretAccessKey"]


def test_a_name_that_newer_versions_read_otherwise_is_theirs(cli):
    (vector,) = [vector for vector in VECTORS if vector["file_name"] == AMBIGUOUS]
    put(cli, vector)
    assert cli.run("list", "--credentials", check=0).out == "pct/name\n"
    environ = cli.exec_environ("pct/name", "--no-session")
    assert environ["AWS_SECRET_ACCESS_KEY"] == vector["data"]["SecretAccessKey"]


@pytest.mark.parametrize("vector", KEYS, ids=lambda vector: vector["file_name"])
def test_reading_makes_an_item_stronger_and_changes_nothing_else(cli, vector):
    put(cli, vector)
    name = vector["item"]["Key"]
    env = {"AWS_VAULT_FILE_PASSPHRASE": vector["passphrase"], "AWS_VAULT_FILE_ITERATIONS": "9001"}
    assert "aws-vault's weaker protection is on 1 stored item;" in cli.run("list", env=env).err
    cli.run("export", "--no-session", "--format=json", name, env=env, check=0)
    token = (cli.keys / vector["file_name"]).read_text()
    header, _, item, data = open_independently(token, vector["passphrase"])
    assert header["p2c"] == 9001
    assert (item["Key"], data) == (name, vector["data"])
    assert item["Label"] == vector["item"]["Label"]
    assert cli.run("list", env=env).err == ""
    # Whoever reads with less leaves it as strong as it is.
    cli.run("export", "--no-session", "--format=json", name,
            env={**env, "AWS_VAULT_FILE_ITERATIONS": "8192"}, check=0)  # fmt: skip
    assert (cli.keys / vector["file_name"]).read_text() == token


@pytest.fixture
def shared(cli):
    """A vault with keys of ours, a config that fits the vectors, and the sessions of the vectors."""
    cli.config(CONFIG)
    for name in ("mfa", "prod", "cp"):
        cli.add(name)
    put(cli, *SESSIONS.values())
    return cli


def test_a_session_of_get_session_token_is_used(shared, fake_aws):
    shared.endpoint_in_config()
    environ = shared.exec_environ("mfa", env={"AWS_VAULT_NO_INPUT": "1"})
    made = SESSIONS["sts.GetSessionToken"]["data"]
    assert fake_aws.calls == []
    assert environ["AWS_ACCESS_KEY_ID"] == made["AccessKeyId"]
    assert environ["AWS_SECRET_ACCESS_KEY"] == made["SecretAccessKey"]
    assert environ["AWS_SESSION_TOKEN"] == made["SessionToken"]
    assert environ["AWS_CREDENTIAL_EXPIRATION"] == "2037-12-31T23:59:58Z"


def test_only_for_the_same_device(shared, fake_aws):
    shared.config(CONFIG.replace(f"mfa_serial = {ALICE}", f"mfa_serial = {MFA_SERIAL}"))
    shared.exec_environ("mfa", "-t", "123456")
    assert fake_aws.actions() == ["GetSessionToken"]


def test_a_role_session_does_not_say_what_for_and_is_not_used(shared, fake_aws):
    done = shared.run("exec", "dev admin", "--", "true", check=3)
    assert ALICE in done.err


def test_a_flag_that_asks_for_more_does_not_get_aws_vaults_session(shared, fake_aws):
    done = shared.run("exec", "mfa", "-d", "2h", "--", "true", check=3)
    assert ALICE in done.err
    assert (shared.keys / SESSIONS["sts.GetSessionToken"]["file_name"]).exists()


def test_sessions_and_tokens_are_listed_and_cleared(shared):
    put(shared, *[vector for vector in VECTORS if vector.get("kind") == "token"])
    listed = shared.run("list", "--sessions", check=0).out.splitlines()
    kinds = sorted(line.split("  ")[-1].strip().partition(",")[0] for line in listed)
    assert kinds == [
        "SSO token of https://d-1234567890.awsapps.com/start", "process", "role with MFA", "session with MFA",
    ]  # fmt: skip
    assert shared.run("list", "--credentials", check=0).out.split() == ["cp", "mfa", "prod"]
    assert shared.run("clear", check=0).out == "Cleared 4 sessions.\n"
    assert sorted(path.name for path in shared.keys.iterdir()) == ["cp", "mfa", "prod"]


def test_a_new_key_takes_aws_vaults_sessions_of_it_along(shared):
    shared.add("mfa")
    names = [path.name for path in shared.keys.iterdir()]
    assert SESSIONS["sts.GetSessionToken"]["file_name"] not in names
    assert SESSIONS["sts.AssumeRole"]["file_name"] in names


def test_old_forms_of_sessions_go_when_one_is_stored(cli, fake_aws):
    old = [vector for vector in VECTORS if " session (" in vector["file_name"]]
    assert len(old) == 2
    cli.add("prod")
    cli.endpoint_in_config()
    put(cli, *old)
    assert cli.run("list", "--credentials", check=0).out == "prod\n"
    cli.exec_environ("prod")
    names = sorted(path.name for path in cli.keys.iterdir())
    assert len(names) == 2
    assert names[0] == "prod"


def test_another_passphrase_than_the_rest_is_told_from_damage(cli):
    cli.add("prod")
    odd = [vector for vector in KEYS if vector["passphrase"] != PASSPHRASE]
    put(cli, *odd)
    done = cli.run("exec", odd[0]["item"]["Key"], "--", "true", check=1)
    assert "was stored under another passphrase" in done.err
    cli.run("exec", "prod", "--", "true", check=0)


def test_a_renamed_item_is_not_somebody_elses_key(cli):
    cli.add("prod")
    (cli.keys / "prod").rename(cli.keys / "admin")
    done = cli.run("exec", "--no-session", "admin", "--", "true", check=1)
    assert "it was stored as 'prod', and was renamed" in done.err


# ======================================================================
# What we write
# ======================================================================

RFC3339 = re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\dZ")


def test_an_independent_reader_opens_all_we_write(cli, fake_aws):
    cli.config(
        f"[profile prod]\nmfa_serial = {MFA_SERIAL}\n"
        f"[profile admin]\nsource_profile = prod\nrole_arn = {arn('admin')}\n"
        f"mfa_serial = {MFA_SERIAL}\n[profile team/ü]\n"
    )
    cli.endpoint_in_config()
    cli.add("prod")
    cli.add("team/ü")
    cli.exec_environ("admin", "-t", "123456")
    cli.exec_environ("team/ü")
    names = []
    for path in cli.keys.iterdir():
        header, text, item, data = open_independently(path.read_text())
        assert list(header) == ["alg", "enc", "p2c", "p2s"]
        assert (header["p2c"], path.read_text().count("\n")) == (8192, 0)
        assert path.name == item["Key"].replace("%", "%25").replace("/", "%2F")
        assert list(item) == [
            "Key", "Data", "Label", "Description",
            "KeychainNotTrustApplication", "KeychainNotSynchronizable",
        ]  # fmt: skip
        assert text == json.dumps(item, ensure_ascii=False, separators=(",", ":"))
        names.append(item["Key"])
        if "AccessKeyID" in data:
            assert data == {
                "AccessKeyID": KEY_ID, "SecretAccessKey": SECRET, "SessionToken": "", "Source": "",
                "CanExpire": False, "Expires": "0001-01-01T00:00:00Z",
            }  # fmt: skip
            assert item["Label"] == f"aws-vault ({item['Key']})"
        else:
            assert list(data)[:4] == [
                "AccessKeyId", "Expiration", "SecretAccessKey", "SessionToken",
            ]  # fmt: skip
            assert RFC3339.fullmatch(data["Expiration"])
            assert len(data["AccessKeyId"]) >= 4
    assert sorted(name.partition(",")[0] for name in names) == sorted(
        ["prod", "team/ü", "sts.GetSessionToken", "sts.GetSessionToken", "awsvault.sts.AssumeRole"]
    )


def test_what_flags_made_different_is_kept_from_aws_vault(cli, fake_aws):
    cli.config("[profile prod]\n")
    cli.endpoint_in_config()
    cli.add("prod")
    cli.exec_environ("prod")
    cli.exec_environ("prod", "-d", "2h")
    cli.exec_environ("prod", "-d", "3h")
    assert fake_aws.count() == 3
    kinds = sorted(path.name.partition(",")[0] for path in cli.keys.iterdir())
    assert kinds == ["awsvault.sts.GetSessionToken"] * 2 + ["prod", "sts.GetSessionToken"]
    for flags in ([], ["-d", "2h"], ["-d", "3h"]):
        cli.exec_environ("prod", *flags)
    assert fake_aws.count() == 3
