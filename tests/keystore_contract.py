"""What every keystore must do, whatever keeps its items."""

from __future__ import annotations

import base64
import contextlib
import pathlib

import pytest

import awsvault
from awsvault import ForeignEntry, Item, ItemNotFound, KeystoreError, Secret

ODD_NAMES = [
    "a/b",
    "a:b",
    "50%",
    "%41",
    "two words",
    " around ",
    "grüße-日本",
    "https://example.com/start",
    "oidc:https://example.awsapps.com/start",
    "-x",
    "--all",
    ".hidden",
    "it's",
    'say "hi"',
    "back\\slash",
    "a=b",
    "{brace}",
    "$(id)",
    "a,b",
    "sts.GetSessionToken,cHJvZA,YXJuOmF3czppYW06OjE6bWZhL2pvbg,1999999999",
    "n" * 100,
]
VALUES = {
    "json": b'{"AccessKeyID":"AKIADUMMYEXAMPLE0001","SecretAccessKey":"it\'s+a/dummy\\"key"}',
    "newlines": b"first\n\nsecond\r\nthird\n",
    "no newline": b"first",
    "a session of 2 kB": b'{"SessionToken":"' + b"t" * 2000 + b'"}',
    "64 kB": bytes(range(33, 97)) * 1024,
    "unicode": "{grüße: 日本}".encode(),
    "looks like hex": b"00ff10",
    "every byte": bytes(range(256)),
    "empty": b"",
}


class RecordingWorld(awsvault.World):
    """A world that remembers every program it ran, with its environment."""

    def __init__(self, environ):
        super().__init__()
        self.environ = dict(environ)
        self.may_ask = False
        self.calls = []

    def run(self, argv, *, environ=None, **options):
        self.calls.append((list(argv), {**awsvault.scrubbed(self.environ), **(environ or {})}))
        return super().run(argv, environ=environ, **options)

    def tools(self):
        """The programs that were run, in order."""
        return [argv[0] for argv, _environ in self.calls]

    def assert_hidden(self, *secrets):
        """None of the secrets, nor its base64 or hex, stood in an argv or an environment."""
        for secret in filter(None, secrets):
            for form in (secret.decode("latin-1"), base64.b64encode(secret).decode(), secret.hex()):
                for argv, environ in self.calls:
                    assert not any(form in word for word in argv), argv
                    assert not any(form in str(value) for value in environ.values()), argv


class OtherProgram:
    """An entry that another program keeps where a keystore's items are, by the same tool."""

    def __init__(self, store, name, content="hunter2"):
        self.store, self.name, self.content = store, name, Secret(content)
        getattr(self, store.name.replace("-", "_"))(write=True)

    def seen(self):
        return getattr(self, self.store.name.replace("-", "_"))(write=False)

    def run(self, *argv, **options):
        world = self.store.world
        environ = {"DBUS_SESSION_BUS_ADDRESS": world.environ.get("DBUS_SESSION_BUS_ADDRESS")}
        result = world.run(argv, environ=environ, **options)
        assert result.status == 0, result.errors
        return result.output.reveal()

    def secret_service(self, *, write):
        attributes = ("--", "profile", self.name, "site", "mail.example.com")
        home = self.store._home()
        where = [f"--collection={home.path}"] if home.own else []
        store = ("secret-tool", "store", f"--label={self.name}", *where)
        if not write:
            lines = self.run("secret-tool", "search", "--all", *attributes).splitlines()
            return "".join(line for line in lines if line.startswith("secret = "))
        self.run(*store[:2], "--label=only a label", *where, "--", "x", "y", stdin=self.content)
        return self.run(*store, *attributes, stdin=self.content)

    def kwallet(self, *, write):
        place = (self.store._handle(), "aws-vault", self.name)
        if not write:
            return self.store._call("readPassword", "isss", *place, "aws-vault")
        self.store._call("createFolder", "iss", *place[:2], "aws-vault")
        content = self.content.reveal()
        return self.store._call("writePassword", "issss", *place, content, "aws-vault")

    def keychain(self, *, write):
        item = ("-s", "mail", "-a", self.name)
        if not write:
            return self.run("security", "find-generic-password", "-w", *item, self.store.path)
        content = ("-w", self.content.reveal())
        return self.run("security", "add-generic-password", *item, *content, self.store.path)

    def passwords(self, *, write):
        entry = self.store._entry_of(self.name)
        if not write:
            return self.store._call("show", entry).output.reveal()
        return self.store._run("insert", "-m", "-f", entry, stdin=self.content)

    def __getattr__(self, name):
        return {"pass": self.passwords, "passage": self.passwords}[name]

    def file(self, *, write):
        path = pathlib.Path(self.store.folder, self.name)
        return path.write_text(self.content.reveal()) if write else path.read_text()


class KeystoreContract:
    """The contract. A subclass has a fixture `store`: an empty keystore over a RecordingWorld."""

    def test_missing(self, store):
        with pytest.raises(ItemNotFound):
            store.get("nobody")

    def test_set_and_get(self, store):
        secret = VALUES["json"]
        store.set(item("prod", secret))
        assert store.get("prod").data == Secret(secret)
        assert store.keys() == ["prod"]
        store.world.assert_hidden(secret, b"it's+a/dummy")

    def test_replace(self, store):
        store.set(item("prod", b"{old}"))
        store.set(item("dev", b"{other}"))
        store.set(item("prod", b"{new}"))
        assert store.get("prod").data == Secret(b"{new}")
        assert store.get("dev").data == Secret(b"{other}")
        assert sorted(store.keys()) == ["dev", "prod"]

    def test_delete(self, store):
        store.set(item("prod", b"{one}"))
        store.set(item("dev", b"{two}"))
        store.delete("prod")
        assert store.keys() == ["dev"]
        with pytest.raises(ItemNotFound):
            store.get("prod")
        assert store.get("dev").data == Secret(b"{two}")

    def test_delete_missing(self, store):
        store.set(item("prod", b"{one}"))
        with pytest.raises(ItemNotFound):
            store.delete("dev")
        assert store.keys() == ["prod"]

    def test_list_of_nothing(self, store):
        assert store.keys() == []

    def test_names_do_not_run_into_each_other(self, store):
        names = ["a", "ab", "A", "a b"]
        for name in names:
            store.set(item(name, name.encode() + b"{}"))
        assert sorted(store.keys()) == sorted(names)
        store.delete("a")
        assert sorted(store.keys()) == sorted(names[1:])
        assert store.get("ab").data == Secret(b"ab{}")

    def test_odd_names(self, store):
        kept = []
        for name in ODD_NAMES:
            if store.refuse_name(name):
                with pytest.raises(KeystoreError):
                    store.set(item(name, b"{value}"))
                with pytest.raises(ItemNotFound):
                    store.get(name)
                continue
            store.set(item(name, name.encode() + b"{}"))
            kept.append(name)
        assert sorted(store.keys()) == sorted(kept)
        for name in kept:
            assert store.get(name).data == Secret(name.encode() + b"{}"), name
        for name in kept:
            store.delete(name)
        assert store.keys() == []

    @pytest.mark.parametrize("name", ["", "a\nb", "a\0b", "a\x1bb", "a\u202eb"])
    def test_names_that_nothing_keeps(self, store, name):
        with pytest.raises(KeystoreError):
            store.set(item(name, b"{value}"))
        assert store.keys() == []

    @pytest.mark.parametrize("kind", VALUES)
    def test_a_value_comes_back_or_is_refused_before_anything_is_written(self, store, kind):
        store.set(item("prod", b"{old}"))
        try:
            store.set(item("prod", VALUES[kind]))
        except KeystoreError:
            assert store.get("prod").data == Secret(b"{old}")
            with pytest.raises(KeystoreError):
                store.set(item("new", VALUES[kind]))
            assert store.keys() == ["prod"]
        else:
            assert store.get("prod").data == Secret(VALUES[kind])
        if len(VALUES[kind]) > 10:
            store.world.assert_hidden(VALUES[kind])

    def test_long_lived_keys(self, store):
        store.set(Item("prod", Secret(VALUES["json"]), "aws-vault (prod)"))
        assert "prod" in store.keys()
        assert store.refuse_name("prod") == ""

    @pytest.mark.parametrize("content", ["hunter2", '{"user":"me","key":"x"}'])
    def test_another_programs_entries_are_left_alone(self, store, another, content):
        store.set(item("prod", b"{ours}"))
        entry = OtherProgram(store, "bank", content)
        before = entry.seen()
        assert content in before
        for process in (store, another()):
            assert awsvault.Vault(process, process.world).profiles() == ["prod"]
            for act in (process.get, process.delete):
                with pytest.raises((ItemNotFound, ForeignEntry)):
                    act("bank")
        with contextlib.suppress(ForeignEntry):  # unless ours is another beside it
            store.set(item("bank", b"{value}"))
            assert store.get("bank").data == Secret(b"{value}")
            store.delete("bank")
        assert entry.seen() == before
        store.delete("prod")
        assert awsvault.Vault(store, store.world).profiles() == []

    def test_a_journal_is_neither_credential_nor_session(self, store, another):
        store.set(item("prod", b"{keys}"))
        name = awsvault.journal_name("prod")
        store.journal().set(Item(name, Secret(b"[{}]"), "a journal", trusted=True))
        for process in (store, another()):
            vault = awsvault.Vault(process, process.world)
            assert (vault.candidates(), vault.sessions()) == (["prod"], [])
            assert vault.delete_all_sessions() == 0
            assert list(map(awsvault.journal_profile, process.journal().keys())).count("prod") == 1
            assert process.journal().get(name).data == Secret(b"[{}]")
        another().journal().delete(name)
        assert name not in store.journal().keys()
        assert store.get("prod").data == Secret(b"{keys}")

    def test_two_processes(self, store, another):
        store.set(item("prod", b"{one}"))
        other = another()
        assert other.get("prod").data == Secret(b"{one}")
        other.set(item("prod", b"{two}"))
        assert store.get("prod").data == Secret(b"{two}")
        other.delete("prod")
        with pytest.raises(ItemNotFound):
            store.get("prod")


def item(name, data):
    """A session-like item: one that the tool that stored it may read."""
    return Item(name, Secret(data), f"label of {name}", "kind", trusted=True)
