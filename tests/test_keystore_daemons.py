"""The contract and interoperation against the real daemons, wherever they are installed."""

from __future__ import annotations

import subprocess

import pytest

import awsvault
from tests.desktop import Desktop, GoKWallet, make_gpg_key
from tests.keystore_contract import KeystoreContract, RecordingWorld
from tests.needs import need


@pytest.fixture
def desktop():
    made = Desktop()
    yield made
    made.close()


@pytest.fixture
def another(store, make):
    """Another process's view of the same keystore."""
    return lambda: make(RecordingWorld(store.world.environ))


@pytest.fixture
def store(make, environ):
    return make(RecordingWorld(environ))


class TestSecretService(KeystoreContract):
    @pytest.fixture
    def environ(self, desktop):
        desktop.start_bus()
        desktop.gnome_keyring()
        return desktop.environ

    @pytest.fixture
    def make(self):
        return lambda world: awsvault.SecretService(world, "awsvault")


class TestSecretServiceDefaultKeyring(KeystoreContract):
    @pytest.fixture
    def environ(self, desktop):
        desktop.start_bus()
        desktop.gnome_keyring(collection=False)
        return desktop.environ

    @pytest.fixture
    def make(self):
        return lambda world: awsvault.SecretService(world, "awsvault")


class TestSecretServiceByGdbus(TestSecretService):
    """Where there is no busctl."""

    @pytest.fixture
    def make(self):
        need("gdbus")

        def make(world):
            has = world.has_program
            world.has_program = lambda name: name != "busctl" and has(name)
            return awsvault.SecretService(world, "awsvault")

        return make


class TestKWallet(KeystoreContract):
    @pytest.fixture
    def environ(self, desktop):
        desktop.start_bus()
        desktop.kwalletd()
        return desktop.environ

    @pytest.fixture
    def make(self):
        return lambda world: awsvault.KWalletKeystore(world, "aws-vault", "aws-vault")


class TestKWalletByGdbus(TestKWallet):
    @pytest.fixture
    def make(self):
        need("gdbus")

        def make(world):
            has = world.has_program
            world.has_program = lambda name: name != "busctl" and has(name)
            return awsvault.KWalletKeystore(world, "aws-vault", "aws-vault")

        return make

    def test_a_stream_of_aws_vault(self, store, desktop):
        go = GoKWallet(desktop)
        go.set("prod", awsvault.wrap_item(awsvault.Item("prod", awsvault.Secret(b"{x}"))))
        assert store.get("prod").data == awsvault.Secret(b"{x}")


@pytest.fixture(scope="module")
def key_folder():
    made = Desktop()
    folder = made.folder / "gpg"
    yield folder, make_gpg_key(folder, made.environ)
    environ = {**made.environ, "GNUPGHOME": str(folder)}
    subprocess.run(["gpgconf", "--kill", "all"], env=environ, check=True, timeout=30)
    made.close()


class TestPass(KeystoreContract):
    prefix = ""

    @pytest.fixture
    def environ(self, desktop, key_folder):
        need("pass")
        folder, key = key_folder
        environ = {**desktop.environ, "GNUPGHOME": str(folder)}
        subprocess.run(["pass", "init", key], env=environ, check=True, capture_output=True)
        return environ

    @pytest.fixture
    def make(self):
        return lambda world: awsvault.Pass(world, awsvault.PASS, "", "", self.prefix)


class TestPassWithPrefix(TestPass):
    prefix = "cloud/aws"
