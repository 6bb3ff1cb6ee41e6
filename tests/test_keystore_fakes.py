"""The contract against stand-ins for every tool, which run everywhere."""

from __future__ import annotations

import shutil
import tempfile

import pytest

import awsvault
from awsvault import ItemNotFound, KeystoreError, LockedKeystore, Secret
from tests.fakes import BUS_TOOLS, Fakes
from tests.keystore_contract import VALUES, KeystoreContract, RecordingWorld, item


@pytest.fixture
def fakes():
    folder = tempfile.mkdtemp(prefix="ks-")  # short: a socket is in it
    made = Fakes(folder)
    yield made
    made.close()
    shutil.rmtree(folder)


class QuickWorld(RecordingWorld):
    """A world that runs stand-ins without a process for each: ten thousand Pythons would start."""

    def __init__(self, fakes):
        super().__init__(fakes.environ)
        self.fakes = fakes

    def run(self, argv, *, stdin=None, environ=None, **options):
        if argv[0] not in self.fakes.sources:
            return super().run(argv, stdin=stdin, environ=environ, **options)
        variables = {**awsvault.scrubbed(self.environ), **(environ or {})}
        self.calls.append((list(argv), variables))
        return self.fakes.result(argv, variables, stdin)


@pytest.fixture
def another(fakes, make):
    return lambda: make(QuickWorld(fakes))


@pytest.fixture
def store(make, fakes, set_up):
    return make(QuickWorld(fakes))


class Hidden(KeystoreContract):
    """The contract, and that the stand-ins themselves saw no secret but by their standard input."""

    def test_the_tools_record_no_secret(self, make, fakes, set_up):
        store = make(RecordingWorld(fakes.environ))  # processes, which record what they are given
        data = b'{"SecretAccessKey":"dummy-secret-of-the-test"}'
        store.set(item("prod", data))
        store.get("prod")
        store.set(item("prod", data + b" "))
        store.keys()
        store.delete("prod")
        calls = fakes.calls()
        assert calls
        wrapped = awsvault.wrap_item(item("prod", data))
        encoded = wrapped.partition('"Data":"')[2].partition('"')[0]
        for call in calls:
            text = repr(call)
            for form in ("dummy-secret-of-the-test", encoded[:-4], data.hex()):
                assert form not in text, call["argv"]


def empty_collections(**locked):
    return {
        "default": "login",
        "collections": {name: {"locked": state, "items": {}} for name, state in locked.items()},
    }


class TestMemory(KeystoreContract):
    """The contract itself, against the simplest thing that can meet it."""

    class Memory(awsvault.Keystore):
        name = "memory"

        def __init__(self, world, items):
            self.world = world
            self.items = items

        def get(self, key):
            if key not in self.items:
                raise ItemNotFound(key)
            return self.items[key]

        def set(self, item):
            if self.refuse_name(item.key):
                raise KeystoreError(item.key)
            self.items[item.key] = item

        def delete(self, key):
            if key not in self.items:
                raise ItemNotFound(key)
            del self.items[key]

        def keys(self):
            return list(self.items)

    test_another_programs_entries_are_left_alone = None  # no other program reaches it

    @pytest.fixture
    def make(self):
        items = {}
        return lambda world: self.Memory(world, items)

    @pytest.fixture
    def set_up(self):
        return None


class TestFile(KeystoreContract):
    @pytest.fixture
    def make(self, fakes):
        def make(world):
            passphrase = awsvault.Passphrase(world, Secret("correct horse battery staple"))
            folder = str(fakes.home / ".awsvault" / "keys")
            return awsvault.FileKeystore(world, folder, passphrase, 8192)

        return make

    @pytest.fixture
    def set_up(self):
        return None


class TestSecretService(Hidden):
    collections = {"login": False, "awsvault": False}
    tools = ("secret-tool", "busctl", "gdbus")

    @pytest.fixture
    def set_up(self, fakes):
        fakes.listen()
        fakes.install(*self.tools)
        fakes.set_state(empty_collections(**self.collections))

    @pytest.fixture
    def make(self):
        return lambda world: awsvault.SecretService(world, "awsvault")

    def test_8191_bytes_are_the_most(self, store, fakes):
        size = 8191 - len(awsvault.wrap_item(item("prod", b"")))
        fits = b"x" * (size // 4 * 3)
        store.set(item("prod", fits))
        assert store.get("prod").data == Secret(fits)
        calls = len(fakes.calls())
        with pytest.raises(KeystoreError, match="8191 is the most"):
            store.set(item("prod", fits + b"xxx"))
        assert len(fakes.calls()) == calls

    def test_a_locked_keyring_is_no_missing_item(self, store, fakes):
        store.set(item("prod", b"{one}"))
        state = fakes.state()
        for collection in state["collections"].values():
            collection["locked"] = True
        fakes.set_state(state)
        for act in (
            lambda: store.get("prod"),
            lambda: store.get("nobody"),
            lambda: store.set(item("prod", b"{two}")),
            lambda: store.delete("prod"),
        ):
            with pytest.raises(LockedKeystore, match="is locked"):
                act()

    def test_a_person_unlocks_it(self, store, fakes):
        store.set(item("prod", b"{one}"))
        state = fakes.state()
        for collection in state["collections"].values():
            collection["locked"] = True
        fakes.set_state(state)
        store.world.may_ask = True
        store.world.environ.update(DISPLAY=":99", FAKE_PROMPT="no")
        with pytest.raises(KeystoreError, match="its password was not given") as caught:
            store.get("prod")
        assert not isinstance(caught.value, (ItemNotFound, LockedKeystore))
        store.world.environ["FAKE_PROMPT"] = "yes"
        assert store.get("prod").data == Secret(b"{one}")


class TestSecretServiceByGdbus(TestSecretService):
    tools = ("secret-tool", "gdbus")


class TestSecretServiceByBusctl(TestSecretService):
    tools = ("secret-tool", "busctl")


class TestSecretServiceDefaultKeyring(TestSecretService):
    collections = {"login": False}

    def test_it_is_told_from_everybody_elses(self, store, fakes):
        fakes_state = fakes.state()
        foreign = {
            "label": "prod",
            "attributes": {"profile": "prod"},
            "modified": 5,
            "secret": "e30=",
        }
        fakes_state["collections"]["login"]["items"]["99"] = foreign
        fakes.set_state(fakes_state)
        assert store.keys() == []
        with pytest.raises(ItemNotFound):
            store.get("prod")
        store.set(item("prod", b"{ours}"))
        assert store.get("prod").data == Secret(b"{ours}")
        store.delete("prod")
        assert fakes.state()["collections"]["login"]["items"] == {"99": foreign}


class TestTwoCollections:
    """secret-tool names no collection: an item of another one is never taken for ours."""

    @pytest.fixture
    def set_up(self, fakes):
        fakes.listen()
        fakes.install("secret-tool", "busctl", "gdbus")
        fakes.set_state(empty_collections(awsvault=False, work=False))

    def test_each_has_its_own(self, fakes, set_up):
        world = RecordingWorld(fakes.environ)
        own, work = (awsvault.SecretService(world, name) for name in ("awsvault", "work"))
        work.set(item("prod", b"{work}"))
        with pytest.raises(ItemNotFound):
            own.get("prod")
        own.set(item("prod", b"{own}"))
        state = fakes.state()
        for name in ("awsvault", "work"):  # the same number in both
            items = state["collections"][name]["items"]
            state["collections"][name]["items"] = {"1": next(iter(items.values()))}
        fakes.set_state(state)
        for store, expected in ((own, b"{own}"), (work, b"{work}")):
            assert store.get("prod").data == Secret(expected)
            assert store.keys() == ["prod"]
            assert store.get("prod").data == Secret(expected)
        own.delete("prod")
        assert work.get("prod").data == Secret(b"{work}")


class TestKWallet(Hidden):
    @pytest.fixture
    def set_up(self, fakes):
        fakes.listen()
        fakes.install(*BUS_TOOLS)
        fakes.set_state({"wallets": {"aws-vault": {}}})

    @pytest.fixture
    def make(self):
        return lambda world: awsvault.KWalletKeystore(world, "aws-vault", "aws-vault")

    def test_an_exit_status_of_0_is_not_believed(self, store, fakes):
        store.set(item("prod", b"{old}"))
        fakes.script("kwallet-query", "cat >/dev/null; exit 0")
        with pytest.raises(KeystoreError, match="did not take what was written"):
            store.set(item("prod", b"{new}"))
        with pytest.raises(KeystoreError, match="did not take what was written"):
            store.set(item("dev", b"{new}"))
        fakes.install("kwallet-query")
        assert store.get("prod").data == Secret(b"{old}")
        assert store.keys() == ["prod"]


class TestKeychain(Hidden):
    @pytest.fixture
    def set_up(self, fakes):
        fakes.install("security", source="fake_security.py")
        keychain = str(fakes.home / "Library" / "Keychains" / "aws-vault.keychain")
        world = RecordingWorld(fakes.environ)
        assert world.run(["security", "create-keychain", "-p", "password", keychain]).status == 0
        fakes.log.write_text("")

    @pytest.fixture
    def make(self):
        return lambda world: awsvault.Keychain(world, "aws-vault")

    def test_a_line_of_4094_bytes_is_the_most(self, store, fakes):
        def line(size):
            return len(store._add_line(item("prod", b"x" * size), update=True).reveal_bytes())

        size = 4094 - line(0)
        store.set(item("prod", b"x" * size))
        assert store.get("prod").data == Secret(b"x" * size)
        calls = len(fakes.calls())
        with pytest.raises(KeystoreError, match="4094 is the most"):
            store.set(item("prod", b"x" * (size + 1)))
        assert len(fakes.calls()) == calls
        assert store.get("prod").data == Secret(b"x" * size)

    def test_what_hex_would_make_ambiguous_is_refused(self, store):
        with pytest.raises(KeystoreError, match="read back as something else"):
            store.set(item("prod", VALUES["looks like hex"]))
        assert store.keys() == []


class TestPass(Hidden):
    kind, command, prefix = awsvault.PASS, "pass", ""

    @pytest.fixture
    def set_up(self, fakes):
        fakes.install(self.command)
        folder = fakes.home / self.kind.folder.replace("~/", "")
        folder.mkdir(parents=True)
        (folder / ".gpg-id").write_text("somebody")

    @pytest.fixture
    def make(self):
        return lambda world: awsvault.Pass(world, self.kind, "", "", self.prefix)

    @pytest.mark.parametrize("name", ["/x", "a/../x", "x/", "..", "a//b", "a/./b"])
    def test_names_whose_path_is_another_entrys_are_refused(self, store, name):
        store.set(item("x", b"{x}"))
        with pytest.raises(KeystoreError, match="another entry's"):
            store.set(item(name, b"{other}"))
        assert store.get("x").data == Secret(b"{x}")
        assert store.keys() == ["x"]

    @pytest.mark.parametrize("name", [".git", ".git/x", ".extensions/x"])
    def test_names_in_folders_that_are_not_listed_are_refused(self, store, name):
        with pytest.raises(KeystoreError, match="the password store's own"):
            store.set(item(name, b"{}"))

    def test_a_store_that_is_not_there_is_no_empty_one(self, store, fakes):
        shutil.rmtree(fakes.home / self.kind.folder.replace("~/", ""))
        for use in (store.keys, store.probe, lambda: store.get("x"), lambda: store.delete("x")):
            with pytest.raises(KeystoreError, match="there is no password store") as caught:
                use()
            assert not isinstance(caught.value, ItemNotFound)


class TestPassWithPrefix(TestPass):
    prefix = "cloud/aws"

    def test_what_lies_outside_is_not_seen(self, store, fakes):
        outside = fakes.home / ".password-store"
        (outside / "bank.gpg").write_bytes(b"")
        store.set(item("prod", b"{}"))
        assert store.keys() == ["prod"]


class TestPassage(TestPass):
    kind, command = awsvault.PASSAGE, "passage"
