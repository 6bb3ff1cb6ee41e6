"""`rekey`: at any time one passphrase opens the whole file vault, and in the end it is the new one."""

from __future__ import annotations

import errno
import os
import shutil
import signal
import subprocess

import pytest

import awsvault
from awsvault import World
from tests.conftest import PASSPHRASE
from tests.fake_aws import KEY_ID
from tests.fake_world import DyingWorld, FakeWorld, forked

NEW = "another horse, another staple"


@pytest.fixture
def vault(cli):
    cli.config("[profile prod]\nregion = eu-west-1\n")
    cli.add("prod")
    cli.add("a/b", "AKIADUMMYEXAMPLE0002")
    cli.exec_environ("prod")
    return cli


def rekey(cli, new=NEW, check=0, **options):
    read, write = os.pipe()
    with os.fdopen(write, "w") as file:
        file.write(new)
    try:
        return cli.run("rekey", "--new-passphrase-fd", read, pass_fds=(read,), check=check, **options)
    finally:
        os.close(read)


def opened(home, passphrase):
    """What the passphrase opens: name -> key id; None for what it does not open."""
    world = World()
    folder = str(home / ".awsvault" / "keys")
    given = awsvault.Passphrase(world, awsvault.Secret(passphrase))
    store = awsvault.FileKeystore(world, folder, given, 8192)
    found = {}
    for name in store.keys():
        if awsvault.is_credential_name(name):
            try:
                found[name] = awsvault.Vault(store, world).credentials(name).access_key_id
            except awsvault.KeystoreError:
                found[name] = None
    return found


EVERYTHING = {"prod": KEY_ID, "a/b": "AKIADUMMYEXAMPLE0002"}


def test_the_new_passphrase_opens_everything(vault):
    weak = {path.name: path.read_bytes() for path in vault.keys.iterdir()}
    done = rekey(vault, env={"AWS_VAULT_FILE_ITERATIONS": "10000"})
    assert done.out == f"Sealed 2 stored items in {vault.keys} by the new passphrase.\n"
    assert opened(vault.home, NEW) == EVERYTHING
    assert opened(vault.home, PASSPHRASE) == {"prod": None, "a/b": None}
    assert sorted(os.listdir(vault.keys)) == ["a%2Fb", "prod"]
    for path in vault.keys.iterdir():
        token = awsvault.Jwe.parse(path.read_bytes())
        assert token.iterations == 10000
        assert token.salt != awsvault.Jwe.parse(weak[path.name]).salt
    # Nothing of the old vault is left, wherever.
    left = [path for path in (vault.home / ".awsvault").rglob("*") if path.is_file()]
    assert not [path for path in left if path.read_bytes() in weak.values()]
    assert {path.name for path in (vault.home / ".awsvault").iterdir()} <= {
        "keys", "locks", "tmp", "state.json",
    }  # fmt: skip
    assert vault.keys.stat().st_mode & 0o777 == 0o700
    stale = vault.run("exec", "prod", "--", "true")
    assert "wrong passphrase" in stale.err
    vault.run("exec", "prod", "--", "true", env={"AWS_VAULT_FILE_PASSPHRASE": NEW}, check=0)


def test_typed_twice_on_a_terminal(vault):
    terminal = vault.terminal("rekey", env={"AWS_VAULT_FILE_PASSPHRASE": None})
    terminal.expect("Passphrase for vault")
    terminal.send_line(PASSPHRASE)
    terminal.expect("Passphrase for the new vault")
    terminal.send_line(NEW)
    terminal.expect("again")
    terminal.send_line(NEW)
    assert terminal.wait() == 0
    assert opened(vault.home, NEW) == EVERYTHING


def test_by_a_command(vault):
    vault.run("rekey", "--new-passphrase-command", f"echo '{NEW}'", check=0)
    assert opened(vault.home, NEW) == EVERYTHING


@pytest.mark.parametrize(
    ("new", "env", "says"),
    [
        (PASSPHRASE, {}, "the new passphrase is the old one"),
        ("", {}, "an empty passphrase would protect nothing"),
        (NEW, {"AWS_VAULT_FILE_PASSPHRASE": "wrong"}, "passphrase"),
    ],
)
def test_refused(vault, new, env, says):
    before = {path.name: path.read_bytes() for path in vault.keys.iterdir()}
    refused = rekey(vault, new, check=None, env=env)
    assert refused.code in (1, 2)
    assert says in refused.err
    assert {path.name: path.read_bytes() for path in vault.keys.iterdir()} == before
    assert sorted(os.listdir(vault.keys.parent)) == ["keys", "locks", "tmp"]


def test_an_empty_vault(cli):
    assert "no credentials are stored" in rekey(cli, check=1).err


@pytest.mark.parametrize("content", ["eyJ" + "x" * 40, "hunter2"])
def test_what_can_t_be_opened_keeps_everything_as_it_is(vault, content):
    (vault.keys / "odd").write_text(content)
    refused = rekey(vault, check=1)
    assert "'odd' is damaged" in refused.err
    assert opened(vault.home, PASSPHRASE)["prod"] == KEY_ID
    assert sorted(os.listdir(vault.keys.parent)) == ["keys", "locks", "tmp"]


def test_an_unfinished_rotation_comes_first(vault, fake_aws):
    fake_aws.users["jon"].denied.add("iam:DeleteAccessKey")
    vault.run("rotate", "prod", check=1)
    assert "the rotation of 'prod' is not finished" in rekey(vault, check=1).err


def test_a_write_meanwhile_is_not_lost(vault):
    class Busy(FakeWorld):
        """A world in which aws-vault, which knows no locks, stores an item meanwhile."""

        def private_folder(self, path):
            if path.endswith(".rekey"):
                (vault.keys / "new").write_bytes((vault.keys / "prod").read_bytes())
            return super().private_folder(path)

    world = Busy(vault.home, vault.environment())
    command = ["rekey", "--new-passphrase-command", f"echo '{NEW}'"]
    assert awsvault.main(command, world) == 1
    assert "changed meanwhile" in "".join(world.said)
    assert opened(vault.home, PASSPHRASE)["prod"] == KEY_ID


def keystore(cli, passphrase):
    """The file vault as another process sees it, which has read an item already."""
    world = FakeWorld(cli.home, cli.environment())
    given = awsvault.Passphrase(world, awsvault.Secret(passphrase))
    store = awsvault.FileKeystore(world, str(cli.keys), given, 8192)
    assert store.get("prod")
    return store


@pytest.mark.parametrize("left", [False, True])
def test_a_process_that_began_before_does_not_write_by_the_old_passphrase(vault, left):
    """Nor into the old folder, while that still lies beside the new one."""

    class Leaving(FakeWorld):
        def remove_leftovers(self, paths):
            if not left:
                super().remove_leftovers(paths)

    store = keystore(vault, PASSPHRASE)
    command = ["rekey", "--new-passphrase-command", f"echo '{NEW}'"]
    assert awsvault.main(command, Leaving(vault.home, vault.environment())) == 0
    with pytest.raises(awsvault.WrongPassphrase):
        store.set(awsvault.Item("late", awsvault.Secret("{}")))
    with pytest.raises(awsvault.ItemNotFound):
        store.delete("nothing")
    store.delete("a/b")
    assert os.listdir(vault.keys) == ["prod"]
    assert opened(vault.home, NEW) == {"prod": KEY_ID}


def test_a_vault_that_was_made_anew_between_two_renames_costs_nothing(vault):
    fresh, old = (vault.keys.with_name(f"keys.{end}") for end in ("rekey", "old"))
    shutil.copytree(vault.keys, fresh)
    vault.keys.rename(old)
    text = awsvault.go_json(awsvault.Rekey(fresh.stat().st_ino).members())
    fresh.with_name("keys.rekey.json").write_text(text)
    vault.keys.mkdir(mode=0o700)
    (vault.keys / "new").write_bytes((old / "prod").read_bytes())
    refused = rekey(vault, check=1)
    assert "was made anew in the middle of a rekey" in refused.err
    assert sorted(os.listdir(old)) == sorted(os.listdir(fresh))
    (vault.keys / "new").unlink()
    assert "An earlier rekey" in rekey(vault).out
    assert opened(vault.home, PASSPHRASE) == EVERYTHING


class RekeyWorld(DyingWorld):
    """A DyingWorld whose file system can exchange two folders, or not."""

    def __init__(self, environ, left, exchanges):
        super().__init__(environ, left)
        self.exchanges = exchanges

    def exchange_folders(self, one, other):
        if not self.exchanges:
            raise OSError(errno.EINVAL, os.strerror(errno.EINVAL))
        super().exchange_folders(one, other)


def rekeyed(environ, left, exchanges):
    words = ["rekey", "--new-passphrase-command", f"echo '{NEW}'"]
    return forked(lambda: awsvault.main(words, RekeyWorld(environ, left, exchanges)))


@pytest.mark.parametrize("exchanges", [True, False])
def test_killed_at_any_step_one_passphrase_opens_all(vault, tmp_path, exchanges):
    folder = vault.home / ".awsvault"
    subprocess.run(["cp", "-a", folder, tmp_path / "first"], check=True)
    step, status, seen = 0, -signal.SIGKILL, set()
    environ = vault.environment()
    while status == -signal.SIGKILL:
        step += 1
        shutil.rmtree(folder)
        subprocess.run(["cp", "-a", tmp_path / "first", folder], check=True)
        status = rekeyed(dict(environ), step, exchanges)
        between = not vault.keys.exists()
        if between:  # on file systems that can't exchange folders: said, and mended by the next run
            assert not exchanges
            assert "rekey finishes it" in vault.run("list", check=1).err
        else:
            by_old, by_new = opened(vault.home, PASSPHRASE), opened(vault.home, NEW)
            nothing = dict.fromkeys(EVERYTHING)
            assert (by_old, by_new) in ((EVERYTHING, nothing), (nothing, EVERYTHING)), step
            seen.add(by_new == EVERYTHING)
        if status == -signal.SIGKILL:
            again = rekeyed(dict(environ), 0, exchanges)
            if again:  # it was done, and cleared away, before the death: the passphrase is the new one
                assert not between
                assert seen == {True, False}
        assert opened(vault.home, NEW) == EVERYTHING, step
        assert {path.name for path in folder.iterdir()} <= {"keys", "locks", "tmp"}, step
    assert status == 0
    assert seen == {True, False}
    assert step > 15
