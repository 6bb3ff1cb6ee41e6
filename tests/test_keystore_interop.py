"""Who has used aws-vault finds everything there, and aws-vault reads what we write.

Items are made over D-Bus exactly as aws-vault makes them, from what 7.2 and its fork wrote; a
reader that does what aws-vault's does reads ours.
"""

from __future__ import annotations

import base64
import json
import subprocess
from pathlib import Path

import pytest

import awsvault
from awsvault import DamagedItem, Item, ItemNotFound, Secret
from tests.desktop import Desktop, GoKWallet, GoSecretService, make_gpg_key
from tests.keystore_contract import RecordingWorld
from tests.needs import need

VECTORS = json.loads(
    (Path(__file__).parent / "data" / "aws-vault-7-items.json").read_text(encoding="utf-8")
)


def vectors(backend):
    """What aws-vault wrote to a backend, one for each key."""
    rows = {row["key"]: row for row in all_items() if row["backend"] == backend}
    return [pytest.param(row, id=ascii(row["key"])[:40]) for row in rows.values()]


def all_items():
    return VECTORS if isinstance(VECTORS, list) else VECTORS["items"]


@pytest.fixture
def desktop():
    made = Desktop()
    yield made
    made.close()


def as_aws_vault_reads(text):
    """(key, data) of a wrapper: aws-vault needs these members, and base64 with its padding."""
    item = json.loads(text)
    assert list(item) == [
        "Key", "Data", "Label", "Description", "KeychainNotTrustApplication",
        "KeychainNotSynchronizable",
    ]  # fmt: skip
    return item["Key"], base64.b64decode(item["Data"], validate=True)


class TestSecretService:
    @pytest.fixture
    def go(self, desktop):
        desktop.start_bus()
        desktop.gnome_keyring()
        return GoSecretService(desktop)

    @pytest.fixture
    def store(self, go, desktop):
        return awsvault.SecretService(RecordingWorld(desktop.environ), "awsvault")

    @pytest.mark.parametrize("row", vectors("secret-service"))
    def test_theirs_are_listed_read_replaced_and_removed(self, store, go, row):
        key = row["key"]
        go.set(key, row["plaintext"])
        go.set("another", wrapper("another"))
        assert sorted(store.keys()) == sorted([key, "another"])
        assert store.get(key).data == Secret(row["data_text"])
        store.set(Item(key, Secret(b'{"new":1}'), "aws-vault (x)"))
        assert as_aws_vault_reads(go.get(key)) == (key, b'{"new":1}')
        assert go.keys() == sorted([key, "another"])
        store.delete(key)
        assert go.keys() == ["another"]
        assert go.get(key) is None

    @pytest.mark.parametrize("row", vectors("secret-service"))
    def test_ours_are_byte_for_byte_what_they_write(self, store, go, row):
        item = row["item"]
        trusted = not item["KeychainNotTrustApplication"]
        data = Secret(row["data_text"])
        store.set(Item(row["key"], data, item["Label"], item["Description"], trusted))
        assert go.get(row["key"]) == row["plaintext"]
        (attributes,) = go.attributes(row["key"])
        attributes.pop("xdg:schema", None)  # gnome-keyring's own
        assert attributes == {"profile": row["key"]}
        assert go.keys() == [row["key"]]

    def test_they_replace_ours_in_place(self, store, go):
        store.set(Item("prod", Secret(b"{ours}")))
        go.set("prod", wrapper("prod", b"{theirs}"))
        assert store.get("prod").data == Secret(b"{theirs}")
        assert store.keys() == ["prod"]

    @pytest.mark.parametrize("content_type", ["text/plain", "application/json", "x/y"])
    def test_the_content_type_does_not_matter(self, store, go, content_type):
        go.set("prod", wrapper("prod", b"{}"), content_type=content_type)
        assert store.get("prod").data == Secret(b"{}")

    def test_more_attributes_and_a_newline_after_the_json(self, store, go):
        go.set("prod", wrapper("prod", b"{}") + "\n", attributes={"profile": "prod", "x": "y"})
        assert store.get("prod").data == Secret(b"{}")
        store.delete("prod")
        assert go.keys() == []

    def test_somebody_elses_key_under_this_name_is_no_key(self, store, go):
        go.set("prod", wrapper("dev", b"{}"))
        with pytest.raises(DamagedItem, match="renamed"):
            store.get("prod")

    def test_an_item_of_another_keyring_is_not_ours(self, store, go, desktop):
        login = GoSecretService(desktop, "login")
        login.set("filler", wrapper("filler"))  # so that the two have different numbers
        login.set("prod", wrapper("prod", b"{login}"))
        assert store.keys() == []
        with pytest.raises(ItemNotFound):
            store.get("prod")
        store.set(Item("prod", Secret(b"{ours}")))
        store.keys()
        assert store.get("prod").data == Secret(b"{ours}")
        store.delete("prod")
        assert login.get("prod") is not None

    def test_in_the_default_keyring_ours_are_told_apart(self, desktop):
        desktop.start_bus()
        desktop.gnome_keyring(collection=False)
        login = GoSecretService(desktop, "login")
        login.set("prod", wrapper("prod", b"{somebody's}"))
        store = awsvault.SecretService(RecordingWorld(desktop.environ), "awsvault")
        assert store.keys() == []
        store.set(Item("prod", Secret(b"{ours}")))
        assert store.keys() == ["prod"]
        assert store.get("prod").data == Secret(b"{ours}")
        store.delete("prod")
        assert login.get("prod") == wrapper("prod", b"{somebody's}")

    def test_the_collection_that_a_flag_names(self, go, desktop):
        go.create_collection("my-work", "another password")
        other = GoSecretService(desktop, "my_2dwork")
        other.set("prod", wrapper("prod", b"{work}"))
        store = awsvault.SecretService(RecordingWorld(desktop.environ), "my-work")
        assert store.keys() == ["prod"]
        assert store.get("prod").data == Secret(b"{work}")


class TestKWallet:
    @pytest.fixture
    def go(self, desktop):
        desktop.start_bus()
        desktop.kwalletd()
        return GoKWallet(desktop)

    @pytest.fixture
    def store(self, go, desktop):
        return awsvault.KWalletKeystore(RecordingWorld(desktop.environ), "aws-vault", "aws-vault")

    @pytest.mark.parametrize("row", vectors("kwallet"))
    def test_their_streams_are_listed_read_replaced_and_removed(self, store, go, row):
        key = row["key"]
        go.set(key, row["plaintext"])
        go.set("another", wrapper("another"))
        assert go.type(key) == 2
        assert sorted(store.keys()) == sorted([key, "another"])
        assert store.get(key).data == Secret(row["data_text"])
        store.set(Item(key, Secret(b'{"new":1}')))
        assert store.get(key).data == Secret(b'{"new":1}')
        assert go.keys() == sorted([key, "another"])
        store.delete(key)
        assert go.keys() == ["another"]

    def test_they_replace_ours(self, store, go):
        store.set(Item("prod", Secret(b"{ours}")))
        go.set("prod", wrapper("prod", b"{theirs}"))
        assert store.get("prod").data == Secret(b"{theirs}")

    def test_ours_outlive_the_daemon(self, store, go, desktop):
        store.set(Item("prod", Secret(b"{ours}")))
        daemon = desktop.children[-1]
        daemon.kill()
        daemon.wait(30)
        desktop.kwalletd()
        fresh = awsvault.KWalletKeystore(store.world, "aws-vault", "aws-vault")
        assert fresh.get("prod").data == Secret(b"{ours}")


class TestPass:
    @pytest.fixture
    def environ(self, desktop):
        need("pass")
        folder = desktop.folder / "gpg"
        key = make_gpg_key(folder, desktop.environ)
        environ = {**desktop.environ, "GNUPGHOME": str(folder)}
        run(environ, "init", key)
        yield environ
        subprocess.run(["gpgconf", "--kill", "all"], env=environ, check=True, timeout=30)

    @pytest.mark.parametrize("row", vectors("pass"))
    def test_theirs_and_ours(self, environ, row):
        store = awsvault.Pass(RecordingWorld(environ), awsvault.PASS, "", "", row["prefix"])
        run(environ, "insert", "-m", "-f", row["pass_name"], stdin=row["plaintext"])
        assert store.keys() == [row["key"]]
        assert store.get(row["key"]).data == Secret(row["data_text"])
        item = row["item"]
        trusted = not item["KeychainNotTrustApplication"]
        data = Secret(row["data_text"])
        store.set(Item(row["key"], data, item["Label"], item["Description"], trusted))
        assert run(environ, "show", row["pass_name"]) == row["plaintext"]
        path = Path(environ["HOME"]) / ".password-store" / row["store_path"]
        assert path.exists()
        store.delete(row["key"])
        assert not path.exists()

    def test_an_sso_token_lies_where_aws_vault_puts_it(self, environ):
        store = awsvault.Pass(RecordingWorld(environ), awsvault.PASS, "", "", "aws")
        key = "oidc:https://example.awsapps.com/start"
        store.set(Item(key, Secret(b"{}")))
        found = run(environ, "show", "aws/oidc:https:/example.awsapps.com/start")
        assert as_aws_vault_reads(found) == (key, b"{}")
        assert store.keys() == [key]


def run(environ, *arguments, stdin=""):
    done = subprocess.run(
        ["pass", *arguments], env=environ, input=stdin, capture_output=True, text=True, check=True
    )
    return done.stdout


def wrapper(key, data=b"{}"):
    return awsvault.wrap_item(Item(key, Secret(data), f"aws-vault ({key})"))
