"""`rotate`: a new key in the place of the old one, whatever fails on the way, and no key lost."""

from __future__ import annotations

import datetime
import os
import shutil
import signal

import pytest

import awsvault
from awsvault import World
from tests.conftest import arn
from tests.fake_aws import KEY_ID, MFA_SERIAL, SECRET, Key
from tests.fake_world import DyingWorld, FakeWorld, forked
from tests.fakes import Fakes

CONFIG = f"""
[profile prod]
region = eu-west-1

[profile admin]
source_profile = prod
role_arn = {arn("admin")}
"""
OTHER_ID = "AKIADUMMYOTHER000001"


@pytest.fixture
def vault(cli):
    cli.config(CONFIG)
    cli.add("prod")
    return cli


@pytest.fixture
def keys(fake_aws):
    """The keys that the user has at AWS: id -> Key."""
    return fake_aws.users["jon"].keys


def stored(cli, profile="prod"):
    shown = cli.run("export", "--no-session", profile, "--format=json", check=0).json()
    return shown["AccessKeyId"], shown["SecretAccessKey"]


def is_renewed(cli, keys, profile="prod"):
    """The one key that AWS knows is stored, and it is not the one that was."""
    key_id, secret = stored(cli, profile)
    assert {name: key.secret for name, key in keys.items()} == {key_id: secret}
    assert key_id != KEY_ID
    assert "interrupted" not in cli.run("list", check=0).err
    return key_id


def is_as_before(cli, keys):
    assert stored(cli) == (KEY_ID, SECRET)
    assert set(keys) == {KEY_ID}


def iam_calls(fake_aws):
    return [call for call in fake_aws.calls if call.service == "iam"]


def test_a_new_key_takes_the_place_of_the_old_one(vault, fake_aws, keys):
    vault.run("exec", "admin", "--", "true", check=0)
    fake_aws.set(propagation=2)
    done = vault.run("rotate", "prod", check=0)
    assert done.out == ""
    new_id = is_renewed(vault, keys)
    assert f"****{new_id[-4:]}" in done.err
    assert "deleted the old key ****************0001" in done.err
    assert not [secret for secret in (SECRET, keys[new_id].secret) if secret in done.err]
    assert vault.run("list", "--sessions", check=0).out == ""
    assert {call.region for call in iam_calls(fake_aws)} == {"us-east-1"}
    assert os.listdir(vault.home / ".awsvault" / "keys.journals") == []


def test_a_role_rotates_the_key_of_its_source(vault, keys):
    done = vault.run("rotate", "admin", check=0)
    assert "'admin' gets its credentials from the key of 'prod'" in done.err
    is_renewed(vault, keys)


def test_a_key_that_is_stored_twice_is_renewed_in_both(vault, keys):
    vault.add("again")
    vault.add("another", "AKIADUMMYEXAMPLE0007", SECRET)
    vault.run("rotate", "prod", check=0)
    is_renewed(vault, keys)
    assert stored(vault, "again") == stored(vault)
    assert stored(vault, "another") == ("AKIADUMMYEXAMPLE0007", SECRET)


def test_credentials_of_another_profile_that_ended_are_no_hindrance(vault, keys):
    world = FakeWorld(vault.home, vault.environment())
    data = awsvault.go_json({
        "AccessKeyID": OTHER_ID, "SecretAccessKey": SECRET, "CanExpire": True,
        "Expires": "2020-01-01T00:00:00Z",
    })  # fmt: skip
    file_keystore(world).set(awsvault.Item("ended", awsvault.Secret(data)))
    vault.run("rotate", "prod", check=0)
    is_renewed(vault, keys)


def test_with_an_mfa_device_one_code_serves_every_call(cli, fake_aws, keys):
    cli.mfa_config()
    cli.add("prod")
    assert cli.run("rotate", "prod").code == awsvault.EXIT_NEEDS_USER
    assert set(keys) == {KEY_ID}
    fake_aws.clear()
    cli.run("rotate", "prod", "--mfa-token", fake_aws.new_code(MFA_SERIAL), check=0)
    is_renewed(cli, keys)
    assert fake_aws.count("GetSessionToken") == 1
    assert {call.key_id[:4] for call in iam_calls(fake_aws)} == {"ASIA"}


def test_without_a_session_the_stored_keys_sign(cli, fake_aws, keys):
    cli.mfa_config()
    cli.add("prod")
    cli.run("rotate", "-n", "prod", check=0)
    new_id = is_renewed(cli, keys)
    assert fake_aws.count("GetSessionToken") == 0
    assert {call.key_id for call in iam_calls(fake_aws)} == {KEY_ID, new_id}


def test_a_role_s_own_device_proves_the_keys(cli, fake_aws, keys):
    cli.config(f"{CONFIG}mfa_serial = {MFA_SERIAL}\n")
    cli.add("prod")
    cli.run("rotate", "admin", "--mfa-token", fake_aws.new_code(MFA_SERIAL), check=0)
    is_renewed(cli, keys)


def test_a_young_key_is_left(vault, fake_aws, keys):
    keys[KEY_ID].created = fake_aws.now() - datetime.timedelta(days=89)
    done = vault.run("rotate", "prod", "--older-than", "90d", check=0)
    assert "the key of 'prod' is 89 days old: nothing to do" in done.err
    is_as_before(vault, keys)
    keys[KEY_ID].created = fake_aws.now() - datetime.timedelta(days=91)
    vault.run("rotate", "prod", "--older-than", "90d", check=0)
    is_renewed(vault, keys)


def test_of_two_keys_none_is_touched_until_one_is_named(vault, fake_aws, keys):
    keys[OTHER_ID] = Key("x" * 40, fake_aws.now() - datetime.timedelta(days=400), status="Inactive")
    refused = vault.run("rotate", "prod", check=1)
    assert f"{OTHER_ID}: inactive, 400 days old, never used\n" in refused.err
    assert f"{KEY_ID}: active, " in refused.err
    assert ", stored here" in refused.err
    assert f"awsvault rotate --replace {OTHER_ID} prod" in refused.err
    assert set(keys) == {KEY_ID, OTHER_ID}
    assert vault.run("rotate", "prod", "--replace", KEY_ID).code == 1
    assert set(keys) == {KEY_ID, OTHER_ID}
    vault.run("rotate", "prod", "--replace", OTHER_ID, check=0)
    is_renewed(vault, keys)


def test_last_use_is_a_luxury(vault, fake_aws, keys):
    keys[OTHER_ID] = Key("x" * 40, fake_aws.now())
    fake_aws.users["jon"].denied.add("iam:GetAccessKeyLastUsed")
    refused = vault.run("rotate", "prod", check=1)
    assert "last use unknown (AccessDenied), stored here" in refused.err


@pytest.mark.parametrize("fault", ["lose_answer", "drop"])
def test_a_lost_answer_leaves_no_second_key(vault, fake_aws, keys, fault):
    getattr(fake_aws, fault)(1, "CreateAccessKey")
    vault.run("rotate", "prod", check=0)
    is_renewed(vault, keys)
    assert fake_aws.count("CreateAccessKey") == 2


def test_an_answer_that_says_nothing_of_the_outcome(vault, fake_aws, keys):
    fake_aws.fail(1, 500, "InternalFailure", "?", "CreateAccessKey")
    vault.run("rotate", "prod", check=0)
    is_renewed(vault, keys)


def test_a_key_that_another_made_meanwhile_and_uses_is_left(vault, fake_aws, keys):
    fake_aws.drop(1, "CreateAccessKey")
    keys[OTHER_ID] = Key("x" * 40, fake_aws.now(), used=(fake_aws.now(), "s3", "eu-west-1"))
    world = FakeWorld(vault.home, vault.environment())
    journals = awsvault.Journals(file_keystore(world))
    rotation = awsvault.Rotation(
        ("prod",), fake_aws.users["jon"].arn, credentials(KEY_ID, SECRET), (KEY_ID,), fake_aws.now()
    )
    journals.put(rotation)
    refused = vault.run("rotate", "--resume", "prod", check=1)
    assert f"the user got another key meanwhile, {OTHER_ID}, and it is in use" in refused.err
    assert set(keys) == {KEY_ID, OTHER_ID}
    keys.pop(OTHER_ID)
    vault.run("rotate", "--rollback", "prod", check=0)
    is_as_before(vault, keys)


def credentials(key_id, secret):
    return awsvault.Credentials(key_id, awsvault.Secret(secret))


def file_keystore(world):
    passphrase = awsvault.Passphrase(
        world, awsvault.Secret(world.environ["AWS_VAULT_FILE_PASSPHRASE"])
    )
    folder = os.path.join(world.environ["HOME"], ".awsvault", "keys")
    return awsvault.FileKeystore(world, folder, passphrase, 8192)


@pytest.mark.parametrize(
    ("action", "made"),
    [("ListAccessKeys", False), ("CreateAccessKey", False), ("DeleteAccessKey", True)],
)
def test_a_refused_call_loses_nothing(vault, fake_aws, keys, action, made):
    fake_aws.users["jon"].denied.add(f"iam:{action}")
    refused = vault.run("rotate", "prod", check=1)
    assert f"{action}: AccessDenied" in refused.err
    assert "awsvault rotate --print-policy prints the policy that it needs" in refused.err
    fake_aws.users["jon"].denied.clear()
    if not made:
        is_as_before(vault, keys)
        return
    assert set(keys) == {KEY_ID, stored(vault)[0]}
    shown = "awsvault rotate --resume prod finishes it, --rollback undoes it"
    assert refused.err.endswith(f"; {shown}\n")
    for line in (["list"], ["exec", "prod", "--", "true"]):
        done = vault.run(*line, check=0)
        assert done.err == f"awsvault: note: the rotation of 'prod' was interrupted: {shown}\n"
    again = vault.run("rotate", "admin", check=1)
    assert "an earlier rotation of 'prod' was interrupted" in again.err
    assert shown in again.err
    vault.run("rotate", "prod", "--resume", check=0)
    is_renewed(vault, keys)


def test_undone_after_the_new_key_was_stored(vault, fake_aws, keys):
    fake_aws.users["jon"].denied.add("iam:DeleteAccessKey")
    vault.run("rotate", "prod", check=1)
    assert stored(vault)[0] != KEY_ID
    fake_aws.users["jon"].denied.clear()
    vault.run("rotate", "prod", "--rollback", check=0)
    is_as_before(vault, keys)
    assert "there is no unfinished rotation" in vault.run("rotate", "prod", "--rollback", check=0).err


def test_what_is_deleted_can_t_be_undone(vault, fake_aws, keys):
    fake_aws.users["jon"].denied.add("iam:DeleteAccessKey")
    vault.run("rotate", "prod", check=1)
    fake_aws.users["jon"].denied.clear()
    keys.pop(KEY_ID)
    refused = vault.run("rotate", "prod", "--rollback", check=1)
    assert "the old key of 'prod' is deleted" in refused.err
    vault.run("rotate", "prod", "--resume", check=0)
    is_renewed(vault, keys)


def test_another_key_stored_meanwhile_is_not_overwritten(vault, fake_aws, keys):
    fake_aws.users["jon"].denied.add("iam:DeleteAccessKey")
    vault.run("rotate", "prod", check=1)
    vault.run("add", "prod", "--env", env={
        "AWS_ACCESS_KEY_ID": OTHER_ID, "AWS_SECRET_ACCESS_KEY": SECRET,
    }, check=0)  # fmt: skip
    for flag in ("--resume", "--rollback"):
        refused = vault.run("rotate", "prod", flag, check=1)
        assert "another key was stored for 'prod' meanwhile" in refused.err
    assert stored(vault)[0] == OTHER_ID
    assert KEY_ID in keys


def test_throttling_is_waited_out_or_said(vault, fake_aws, keys):
    fake_aws.fail(2, 400, "Throttling", "Rate exceeded", "DeleteAccessKey")
    vault.run("rotate", "prod", check=0)
    is_renewed(vault, keys)


class QuickWorld(FakeWorld):
    """A FakeWorld in which pauses pass at once."""

    passed = 0.0

    def pause(self, seconds):
        self.passed += seconds

    def monotonic(self):
        return super().monotonic() + self.passed


def test_a_key_that_does_not_work_within_a_minute(vault, fake_aws, keys):
    fake_aws.set(propagation=1000)
    world = QuickWorld(vault.home, vault.environment())
    assert awsvault.main(["rotate", "prod"], world) == 1
    assert 0.9 < world.passed / awsvault.KEY_SPREAD_SECONDS < 1.2
    assert "InvalidClientTokenId" in "".join(world.said)
    assert stored(vault) == (KEY_ID, SECRET)
    for key in keys.values():
        key.dormant = 0
    vault.run("rotate", "--resume", "prod", check=0)
    is_renewed(vault, keys)


def test_a_vault_that_refuses_the_write(vault, keys):
    class Full(FakeWorld):
        writes = 0

        def write_file(self, fd, data):
            self.writes += 1
            if self.writes == 2:  # the journal's second state, which has the new secret
                raise OSError(28, "No space left on device")
            super().write_file(fd, data)

    world = Full(vault.home, vault.environment())
    assert awsvault.main(["rotate", "prod"], world) == 1
    assert "no space left on device" in "".join(world.said)
    vault.run("rotate", "--rollback", "prod", check=0)
    is_as_before(vault, keys)


def test_a_damaged_journal_is_told(vault, fake_aws):
    fake_aws.users["jon"].denied.add("iam:DeleteAccessKey")
    vault.run("rotate", "prod", check=1)
    (journal,) = (vault.home / ".awsvault" / "keys.journals").iterdir()
    journal.write_text("eyJ" + "x" * 50)
    refused = vault.run("rotate", "--resume", "prod", check=1)
    assert "is damaged" in refused.err
    assert stored(vault)[0] != KEY_ID


def test_all_keys_each_once(vault, fake_aws, keys):
    vault.add("again")
    ann = fake_aws.add_user("ann", "AKIADUMMYEXAMPLE0005", SECRET)
    vault.add("ann", "AKIADUMMYEXAMPLE0005", SECRET)
    vault.add("lost", "AKIADUMMYEXAMPLE0006", SECRET)
    done = vault.run("rotate", "--all", check=1)
    assert "error: lost: ListAccessKeys" in done.err
    is_renewed(vault, keys)
    assert stored(vault, "again") == stored(vault)
    assert set(ann.keys) == {stored(vault, "ann")[0]} != {"AKIADUMMYEXAMPLE0005"}
    assert fake_aws.count("CreateAccessKey") == 2


@pytest.mark.parametrize(
    "flags", [["--resume", "--rollback"], ["--all", "--replace", OTHER_ID], ["--all", "prod"]]
)
def test_flags_that_exclude_each_other(vault, flags):
    profile = [] if "--all" in flags else ["prod"]
    assert vault.run("rotate", *flags, *profile).code == awsvault.EXIT_USAGE


def test_the_policy_that_it_needs(cli):
    cli.config(f"{CONFIG}\n[profile mfa]\nmfa_serial = {MFA_SERIAL}\n\n[profile cn]\nregion = cn-north-1\n")
    plain = cli.run("rotate", "--print-policy", "prod", check=0).json()
    (statement,) = plain["Statement"]
    assert statement["Action"] == [
        "iam:CreateAccessKey", "iam:DeleteAccessKey", "iam:ListAccessKeys", "iam:GetAccessKeyLastUsed",
    ]  # fmt: skip
    assert statement["Resource"] == "arn:aws:iam::*:user/${aws:username}"
    assert "Condition" not in statement
    with_mfa = cli.run("rotate", "--print-policy", "mfa", check=0).json()["Statement"][0]
    assert with_mfa.pop("Condition") == {"Bool": {"aws:MultiFactorAuthPresent": "true"}}
    assert with_mfa == statement
    chinese = cli.run("rotate", "--print-policy", "cn", check=0).json()["Statement"][0]
    assert chinese["Resource"].startswith("arn:aws-cn:")


def test_where_iam_is_concerns_rotate_alone(vault, fake_aws, keys):
    wrong = {"AWS_ENDPOINT_URL_IAM": "http://iam.example.com"}
    vault.run("exec", "prod", "--", "true", env=wrong, check=0)
    refused = vault.run("rotate", "prod", env=wrong)
    assert refused.code == awsvault.EXIT_USAGE
    assert "AWS_ENDPOINT_URL_IAM" in refused.err
    services = f"services = ours\n\n[services ours]\niam =\n  endpoint_url = {fake_aws.url}\n"
    vault.config(f"[profile prod]\nregion = eu-west-1\n{services}")
    vault.run("rotate", "prod", env={"AWS_ENDPOINT_URL_IAM": None}, check=0)
    is_renewed(vault, keys)


# -- at once, and killed ----------------------------------------------------------------------


def test_commands_beside_a_rotation_work(vault, fake_aws, keys):
    started = [vault.popen("exec", "-n", "prod", "--", "env") for _ in range(10)]
    rotation = vault.popen("rotate", "prod")
    started += [vault.popen("exec", "admin", "--", "env") for _ in range(10)]
    assert rotation.communicate(timeout=60)[1].count("deleted the old key") == 1
    for process in started:
        output, errors = process.communicate(timeout=60)
        assert process.returncode == 0, errors
        assert "AWS_ACCESS_KEY_ID=A" in output
    new_id = is_renewed(vault, keys)
    assert f"AWS_ACCESS_KEY_ID={new_id}" in vault.run("exec", "-n", "prod", "--", "env", check=0).out


def copied(source, target):
    shutil.rmtree(target, ignore_errors=True)
    shutil.copytree(source, target)


@pytest.fixture
def warm_botocore(monkeypatch):
    """botocore's models are read once, not in each of many children."""
    session = awsvault.Aws(World())._botocore()
    for service in ("iam", "sts"):
        session.create_client(service, "us-east-1")
    monkeypatch.setattr(awsvault.Aws, "_botocore", lambda _: session)


@pytest.fixture(params=["file", "pass"])
def dying(request, cli, tmp_path):
    """A key in the file vault or in a password store: the command line, the folder that has all of
    it, the tools' stand-ins, and what opens it."""
    cli.config(CONFIG)
    fakes = None
    if request.param == "pass":
        (tmp_path / "fakes").mkdir()
        fakes = Fakes(tmp_path / "fakes")
        fakes.install("pass")
        (cli.home / ".password-store").mkdir(mode=0o700)
        (cli.home / ".password-store" / ".gpg-id").write_text("somebody")
        cli.environ.update({**fakes.environ, "HOME": str(cli.home), "AWS_VAULT_BACKEND": "pass"})
    cli.add("prod")

    def store():
        world = DyingWorld(cli.environment(), 0, fakes)
        if fakes is None:
            return file_keystore(world)
        return awsvault.Pass(world, awsvault.PASS, "", "", "")

    return cli, cli.home / (".awsvault" if fakes is None else ".password-store"), fakes, store


@pytest.mark.usefixtures("warm_botocore")
def test_killed_at_any_step_one_stored_key_works(dying, keys, tmp_path):
    cli, folder, fakes, store = dying
    environ = cli.environment()
    copied(folder, tmp_path / "first")
    first, seen, step, status = dict(keys), set(), 0, -signal.SIGKILL

    def rotate(*flags, left=0):
        world = DyingWorld(dict(environ), left, fakes)
        return forked(lambda: awsvault.main(["rotate", "prod", *flags], world))

    def held():
        keystore = store()
        found = awsvault.Vault(keystore, keystore.world).credentials("prod")
        return found.access_key_id, found.secret_access_key.reveal()

    def unfinished():
        return awsvault.Journals(store()).all()

    def ends_well(*flags):
        assert rotate(*flags) == 0, (step, flags)
        assert [(name, key.secret) for name, key in keys.items()] == [held()], (step, flags)
        assert not unfinished()

    while status == -signal.SIGKILL:
        step += 1
        copied(tmp_path / "first", folder)
        keys.clear()
        keys.update(first)
        status = rotate(left=step)
        key_id, secret = held()
        assert keys[key_id].secret == secret, step
        seen.add((len(keys), key_id == KEY_ID))
        if not unfinished():
            continue
        copied(folder, tmp_path / "death")
        then = dict(keys)
        ends_well("--resume")
        copied(tmp_path / "death", folder)
        keys.clear()
        keys.update(then)
        if KEY_ID in keys:
            ends_well("--rollback")
            assert held() == (KEY_ID, SECRET)
        else:
            assert rotate("--rollback") == 1
    assert status == 0
    # Nothing made, made and not stored, stored and the old one there, the old one gone.
    assert seen == {(1, True), (2, True), (2, False), (1, False)}
    assert 20 < step < 200
