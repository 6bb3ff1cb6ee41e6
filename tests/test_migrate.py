"""`migrate-backend`: keys go from one keystore to another, and are gone nowhere before they are there."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import tempfile

import pytest

import awsvault
from tests.conftest import PASSPHRASE, Cli
from tests.desktop import Desktop, make_gpg_key
from tests.fake_aws import KEY_ID, SECRET
from tests.fake_world import DyingWorld, FakeWorld, forked
from tests.fakes import Fakes
from tests.needs import need

OTHER_ID, OTHER_SECRET = "AKIADUMMYEXAMPLE0009", "dummy/secret+key/EXAMPLE0009/not/real000"


@pytest.fixture
def fakes():
    folder = tempfile.mkdtemp(prefix="ks-")
    yield Fakes(folder)
    shutil.rmtree(folder)


@pytest.fixture
def vault(cli, fakes):
    """Two keys in the file vault, and a password store beside it, by a stand-in for pass."""
    cli.config("[profile prod]\nregion = eu-west-1\n")
    cli.add("prod")
    cli.add("work", OTHER_ID, OTHER_SECRET)
    fakes.install("pass")
    (cli.home / ".password-store").mkdir(mode=0o700)
    (cli.home / ".password-store" / ".gpg-id").write_text("somebody")
    cli.environ.update({**fakes.environ, "HOME": str(cli.home)})
    return cli


def stored(cli, backend, profile):
    shown = cli.run("--backend", backend, "export", "-n", profile, "--format=json", check=0).json()
    return shown["AccessKeyId"], shown["SecretAccessKey"]


def names(cli, backend):
    return cli.run("--backend", backend, "list", "--credentials", check=0).out.split()


BOTH = ["migrate-backend", "--from", "file", "--to", "pass"]


def test_every_key_is_copied_and_stays(vault):
    done = vault.run(*BOTH, check=0)
    assert done.out == "prod is in pass\nwork is in pass\n2 keys copied and compared.\n"
    assert "awsvault backends --use pass uses it from now on" in done.err
    assert SECRET not in done.out + done.err
    for backend in ("file", "pass"):
        assert stored(vault, backend, "prod") == (KEY_ID, SECRET)
        assert stored(vault, backend, "work") == (OTHER_ID, OTHER_SECRET)
    again = vault.run(*BOTH, check=0)
    assert "2 keys copied" in again.out


def test_and_goes_from_the_source_when_all_are_there(vault):
    vault.exec_environ("prod")
    done = vault.run(*BOTH, "--delete-source", check=0)
    assert "copied and compared, and removed from file" in done.out
    assert vault.run("list", check=0).out.count("prod") == 1  # its section
    assert list(vault.keys.iterdir()) == []
    assert names(vault, "pass") == ["prod", "work"]
    vault.run("migrate-backend", "--from", "pass", "--to", "file", "--delete-source", check=0)
    assert names(vault, "file") == ["prod", "work"]
    assert names(vault, "pass") == []


def test_a_dry_run_changes_nothing(vault):
    shown = vault.run(*BOTH, "--dry-run", check=0)
    assert shown.out == "2 keys to copy from file to pass\n  prod\n  work\n"
    assert names(vault, "pass") == []


def test_one_profile(vault):
    vault.run(*BOTH, "--profile", "work", check=0)
    assert names(vault, "pass") == ["work"]
    unknown = vault.run(*BOTH, "--profile", "wrok", check=1)
    assert "no credentials are stored for 'wrok' in file" in unknown.err
    assert "work" in unknown.err


def test_another_key_there_stays_unless_it_shall_go(vault):
    vault.run("--backend", "pass", "add", "prod", "--env", env={
        "AWS_ACCESS_KEY_ID": OTHER_ID, "AWS_SECRET_ACCESS_KEY": OTHER_SECRET,
    }, check=0)  # fmt: skip
    left = vault.run(*BOTH, "--delete-source", check=1)
    assert "prod is left: pass has another key (--overwrite)" in left.err
    assert stored(vault, "pass", "prod") == (OTHER_ID, OTHER_SECRET)
    assert names(vault, "file") == ["prod"]
    vault.run(*BOTH, "--overwrite", check=0)
    assert stored(vault, "pass", "prod") == (KEY_ID, SECRET)


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (["--from", "file"], "--to is missing"),
        (["--to", "file"], "--from is missing"),
        (["--from", "file", "--to", "file"], "the same keystore"),
        (["--from", "file", "--to", "nowhere"], "is none of"),
    ],
)
def test_mistakes(vault, words, says):
    refused = vault.run("migrate-backend", *words)
    assert refused.code == awsvault.EXIT_USAGE
    assert says in refused.err


def test_a_name_that_the_target_can_t_keep(vault):
    vault.add("/x")
    refused = vault.run(*BOTH)
    assert "can't be stored in the pass vault" in refused.err
    assert names(vault, "pass") == []


def test_a_target_that_fails_half_way_loses_nothing(vault):
    class Failing(FakeWorld):
        inserts = 0

        def run(self, argv, **options):
            self.inserts += argv[:2] == ["pass", "insert"]
            if self.inserts > 1:
                raise awsvault.ToolError("pass failed")
            return super().run(argv, **options)

    world = Failing(vault.home, vault.environment())
    assert awsvault.main([*BOTH, "--delete-source"], world) == 1
    assert names(vault, "file") == ["prod", "work"]
    vault.run(*BOTH, "--delete-source", check=0)
    assert (names(vault, "file"), names(vault, "pass")) == ([], ["prod", "work"])


def test_killed_at_any_step_every_key_is_somewhere(vault, fakes):
    environ = vault.environment()
    places = [vault.home / ".awsvault", vault.home / ".password-store"]
    for place in places:
        shutil.copytree(place, f"{place}.first")
    step, status = 0, -signal.SIGKILL
    while status == -signal.SIGKILL:
        step += 1
        for place in places:
            shutil.rmtree(place)
            shutil.copytree(f"{place}.first", place)

        def migrate(left=0):
            world = DyingWorld(dict(environ), left, fakes)
            return forked(lambda: awsvault.main([*BOTH, "--delete-source"], world))

        status = migrate(step)
        in_file = {path.name for path in vault.keys.iterdir()}
        in_pass = {path.stem for path in places[1].glob("*.gpg")}
        assert in_file | in_pass == {"prod", "work"}, step
        assert in_file == {"prod", "work"} or in_pass == {"prod", "work"}, step
        if status == -signal.SIGKILL:
            assert migrate() == 0
        assert list(vault.keys.iterdir()) == []
    assert status == 0
    assert stored(vault, "pass", "prod") == (KEY_ID, SECRET)
    assert stored(vault, "pass", "work") == (OTHER_ID, OTHER_SECRET)
    assert step > 15


def test_a_key_that_was_stored_meanwhile_is_not_deleted(vault):
    class Busy(FakeWorld):
        """A world in which another key comes into the source, once all are copied."""

        def out(self, text):
            super().out(text)
            if text.startswith("work is in"):
                awsvault.Vault(file, self).store_credentials("prod", other)

    world = Busy(vault.home, vault.environment())
    given = awsvault.Passphrase(world, awsvault.Secret(PASSPHRASE))
    file = awsvault.FileKeystore(world, str(vault.keys), given, 8192)
    other = awsvault.Credentials(OTHER_ID, awsvault.Secret(OTHER_SECRET))
    assert awsvault.main([*BOTH, "--delete-source"], world) == 1
    assert "another key was stored for 'prod' in file meanwhile" in "".join(world.said)
    assert stored(vault, "file", "prod") == (OTHER_ID, OTHER_SECRET)
    vault.run(*BOTH, "--delete-source", "--overwrite", check=0)
    assert stored(vault, "pass", "prod") == (OTHER_ID, OTHER_SECRET)


def test_a_use_of_another_keystore_names_it_as_the_next_step(vault):
    vault.run("backends", "--use", "file", check=0)
    done = vault.run("backends", "--use", "pass", check=0)
    assert "awsvault migrate-backend --from file --to pass copies them" in done.err


@pytest.fixture(params=["secret-service", "kwallet", "pass"])
def real(request, fake_aws):
    """The product on a real keystore: its name, and the command line."""
    backend, desktop = request.param, Desktop()
    need({"secret-service": "secret-tool", "kwallet": "kwallet-query", "pass": "pass"}[backend])
    cli = Cli(desktop.home, fake_aws.url)
    if backend == "pass":
        key = make_gpg_key(desktop.folder / "gpg", desktop.environ)
        desktop.environ["GNUPGHOME"] = str(desktop.folder / "gpg")
        subprocess.run(["pass", "init", key], env=desktop.environ, check=True, capture_output=True)
    else:
        desktop.start_bus()
        {"secret-service": desktop.gnome_keyring, "kwallet": desktop.kwalletd}[backend]()
    cli.environ.update(desktop.environ)
    cli.config("[profile prod]\nregion = eu-west-1\n")
    yield backend, cli
    cli.close()
    desktop.close()


def test_real_keystores_in_each_direction(real):
    backend, cli = real
    cli.add("prod")
    cli.add("a b/c", OTHER_ID, OTHER_SECRET)
    for source, target in (("file", backend), (backend, "file")):
        words = ["migrate-backend", "--from", source, "--to", target, "--delete-source"]
        cli.run(*words, check=0)
        assert cli.run("--backend", source, "list", "--credentials", check=0).out == ""
        assert stored(cli, target, "prod") == (KEY_ID, SECRET)
        assert stored(cli, target, "a b/c") == (OTHER_ID, OTHER_SECRET)


def test_a_rotation_in_a_real_keystore(real, fake_aws):
    backend, cli = real
    cli.environ["AWS_VAULT_BACKEND"] = backend
    cli.add("prod")
    fake_aws.users["jon"].denied.add("iam:DeleteAccessKey")
    cli.run("rotate", "prod", check=1)
    cli.run("clear", check=0)
    assert cli.run("list", "--sessions", check=0).out == ""
    for line in (["list"], ["exec", "prod", "--", "true"]):
        assert "the rotation of 'prod' was interrupted" in cli.run(*line, check=0).err
    assert cli.run("list", "--credentials", check=0).out == "prod\n"
    fake_aws.users["jon"].denied.clear()
    cli.run("rotate", "--resume", "prod", check=0)
    (key,) = fake_aws.users["jon"].keys
    assert stored(cli, backend, "prod")[0] == key != KEY_ID
    assert "interrupted" not in cli.run("list", check=0).err


# -- list --json ------------------------------------------------------------------------------


def test_list_as_json(cli, fake_aws):
    cli.mfa_config()
    empty = cli.run("list", "--json", check=0).json()
    assert [row["name"] for row in empty["profiles"]] == ["prod", "admin", "deploy", "audit"]
    cli.add("prod")
    cli.add("other", KEY_ID, SECRET, "--no-add-config")
    cli.exec_environ("prod", "--mfa-token", fake_aws.new_code("arn:aws:iam::111111111111:mfa/jon"))
    locked = {"AWS_VAULT_FILE_PASSPHRASE": None}
    shown = cli.run("list", "--json", env=locked, check=0)
    assert shown.err == ""
    found = shown.json()
    assert (found["version"], found["keystore"]) == (1, "file")
    since = {row["name"]: row.pop("stored_since") for row in found["profiles"]}
    assert since["admin"] is None
    stamp = awsvault.parse_time(since["prod"])
    assert abs(stamp.timestamp() - os.stat(cli.keys / "prod").st_mtime) <= 1
    assert found["profiles"][0] == {"name": "prod", "in_config": True, "stored": True}
    assert found["profiles"][-1] == {"name": "other", "in_config": False, "stored": True}
    (session,) = found["sessions"]
    assert awsvault.parse_time(session.pop("expires")) > stamp
    assert session == {
        "profile": "prod", "kind": "session", "expired": False,
        "mfa_serial": "arn:aws:iam::111111111111:mfa/jon",
    }  # fmt: skip
    assert (found["sso_tokens"], found["unfinished_rotations"]) == ([], [])
    fake_aws.users["jon"].denied.add("iam:DeleteAccessKey")
    cli.run("rotate", "-n", "prod", check=1)
    assert cli.run("list", "--json", env=locked, check=0).json()["unfinished_rotations"] == ["prod"]
