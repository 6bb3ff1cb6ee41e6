"""Keys and sessions over a keystore: what is served, to whom, and what is deleted when."""

from __future__ import annotations

import datetime
import json

import pytest

import awsvault
from awsvault import (
    App,
    Credentials,
    DamagedItem,
    Item,
    ItemNotFound,
    Keystore,
    KeystoreError,
    Options,
    Secret,
    SessionKey,
    SessionSlot,
    Vault,
    format_time,
)
from tests.fake_world import START, FakeWorld

GST, ASSUMED = "sts.GetSessionToken", "sts.AssumeRole"
SERIAL = "arn:aws:iam::111111111111:mfa/jon"
NOW = int(START.timestamp())
FIVE_MINUTES = datetime.timedelta(minutes=5)


class MemoryKeystore(Keystore):
    """Items in a dict. `locked` makes every use of it fail."""

    name = "memory"

    def __init__(self):
        self.items = {}
        self.locked = False
        self.got = []

    def get(self, key):
        self.check()
        self.got.append(key)
        if key not in self.items:
            raise ItemNotFound(f"nothing is stored as {key!r}")
        if isinstance(self.items[key], Exception):
            raise self.items[key]
        return self.items[key]

    def set(self, item):
        self.check()
        self.items[item.key] = item

    def delete(self, key):
        self.check()
        if self.items.pop(key, None) is None:
            raise ItemNotFound(f"nothing is stored as {key!r}")

    def keys(self):
        self.check()
        return list(self.items)

    def identity(self):
        return "memory"

    def check(self):
        if self.locked:
            raise KeystoreError("the keystore is locked")


@pytest.fixture
def world(home):
    return FakeWorld(home)


@pytest.fixture
def store():
    return MemoryKeystore()


@pytest.fixture
def vault(store, world):
    return Vault(store, world)


def session(left=3600, key_id="ASIADUMMYEXAMPLE0001", account=""):
    """Session credentials with so many seconds left."""
    expires = START + datetime.timedelta(seconds=left)
    return Credentials(key_id, Secret("dummy/secret"), Secret("token"), expires, account)


def by_go(store, type=GST, profile="prod", third="", left=3600, **changes):
    """Put a session there as aws-vault writes it; the name is returned."""
    expires = START + datetime.timedelta(seconds=left)
    name = str(SessionKey(type, profile, third, int(expires.timestamp())))
    data = {
        "AccessKeyId": "ASIADUMMYGOEXAMPLE",
        "Expiration": format_time(expires),
        "SecretAccessKey": "go/secret",
        "SessionToken": "go-token",
        **changes,
    }
    store.items[name] = Item(
        name, Secret(json.dumps({k: v for k, v in data.items() if v is not None}))
    )
    return name


# -- long-lived keys -----------------------------------------------------------


def test_keys_are_written_as_aws_vault_7_2_does(vault, store):
    vault.store_credentials("a b", Credentials("AKIADUMMYEXAMPLE0001", Secret('s+/<&>"')))
    item = store.items["a b"]
    assert item.data.reveal() == (
        '{"AccessKeyID":"AKIADUMMYEXAMPLE0001","SecretAccessKey":"s+/\\u003c\\u0026\\u003e\\"","SessionToken":"",'
        '"Source":"","CanExpire":false,"Expires":"0001-01-01T00:00:00Z"}'
    )
    assert (item.label, item.description, item.trusted) == ("aws-vault (a b)", "", False)
    assert vault.credentials("a b") == Credentials("AKIADUMMYEXAMPLE0001", Secret('s+/<&>"'))


def test_stored_temporary_keys_are_used_until_they_end(vault, store, world):
    data = {
        "AccessKeyID": "ASIADUMMY",
        "SecretAccessKey": "x",
        "SessionToken": "t",
        "CanExpire": True,
        "Expires": "2030-01-01T12:30:00Z",
    }
    store.set(Item("prod", Secret(json.dumps(data))))
    assert vault.credentials("prod").session_token == Secret("t")
    assert format_time(vault.credentials("prod").expiration) == "2030-01-01T12:30:00Z"
    world.advance(minutes=30)
    with pytest.raises(KeystoreError, match="ended"):
        vault.credentials("prod")


@pytest.mark.parametrize(
    "odd",
    [{"CanExpire": True, "Expires": "soon"}, {"SessionToken": 5}, {"SessionToken": "a\0b"}, {"SessionToken": "\ud800"},
     {"SessionToken": ["t"]}, {"SecretAccessKey": "a\0b"}, {"SecretAccessKey": "\udfff"}, {"AccessKeyID": "A\nB"},
     {"AccessKeyID": "\u00fc"}, {"AccessKeyID": {}}, {"SecretAccessKey": ""}, {"AccessKeyID": None}],
    ids=ascii,
)  # fmt: skip
def test_keys_with_an_odd_member_are_damage(vault, store, odd):
    data = {"AccessKeyID": "AKIADUMMY", "SecretAccessKey": "x", **odd}
    store.set(Item("prod", Secret(json.dumps(data))))
    with pytest.raises(DamagedItem, match="no access key"):
        vault.credentials("prod")


def test_names_are_told_apart(vault, store):
    gst = by_go(store)
    old = "home session (1795468268)"
    for name in ("prod", "oidc:https://x/start", old, "a,b"):
        store.set(Item(name, Secret("x")))
    assert vault.profiles() == ["prod", "a,b"]
    assert vault.tokens() == ["oidc:https://x/start"]
    assert [str(key) for key in vault.sessions()] == [gst]


@pytest.mark.parametrize("name", ["", "..", "x session (1)", "oidc:x", "a\nb"])
def test_a_name_that_cannot_be_kept_is_refused(vault, name):
    with pytest.raises(awsvault.UsageError):
        vault.refuse_profile(name)


# -- sessions --------------------------------------------------------------------

SLOT = SessionSlot(GST, "prod", SERIAL)
ROLE = SessionSlot(ASSUMED, "admin", SERIAL)


def test_a_session_is_written_as_aws_vault_does_and_with_a_fingerprint(vault, store):
    vault.store_session(SLOT, session(account="111111111111"), "f" * 64)
    (name, item), *none = store.items.items()
    assert not none
    assert name == str(SessionKey(GST, "prod", SERIAL, NOW + 3600))
    assert list(json.loads(item.data.reveal()))[:4] == [
        "AccessKeyId",
        "Expiration",
        "SecretAccessKey",
        "SessionToken",
    ]
    assert json.loads(item.data.reveal())["Expiration"] == "2030-01-01T13:00:00Z"
    assert item.label == "aws-vault session for prod (expires 2030-01-01T13:00:00Z)"
    assert (item.description, item.trusted) == ("aws-vault session", True)
    assert "f" * 64 not in name + item.label + item.description
    assert vault.find_session(SLOT, "f" * 64, FIVE_MINUTES) == session(account="111111111111")


@pytest.mark.parametrize(
    ("left", "min_ttl", "served"),
    [
        (3600, 300, True),
        (301, 300, True),
        (300, 300, False),
        (299, 300, False),
        (1, 0, True),
        (0, 0, False),
        (-1, 0, False),
        (3600, 3600, False),
        (3601, 3600, True),
    ],
)
def test_a_session_serves_while_enough_of_it_is_left(vault, left, min_ttl, served):
    vault.store_session(SLOT, session(left), "f")
    found = vault.find_session(SLOT, "f", datetime.timedelta(seconds=min_ttl))
    assert (found is not None) == served


def test_another_fingerprint_is_a_miss(vault):
    vault.store_session(SLOT, session(), "one")
    assert vault.find_session(SLOT, "two", FIVE_MINUTES) is None
    assert vault.find_session(SLOT, "one", FIVE_MINUTES)


@pytest.mark.parametrize(
    ("what", "made", "slot", "served"),
    [
        ("the same profile and device", {"third": SERIAL}, SLOT, True),
        ("no device", {}, SessionSlot(GST, "prod"), True),
        ("another device", {"third": SERIAL + "2"}, SLOT, False),
        ("another profile", {"third": SERIAL, "profile": "dev"}, SLOT, False),
        ("a profile that begins alike", {"third": SERIAL, "profile": "prod2"}, SLOT, False),
        ("a role's session", {"type": ASSUMED, "profile": "admin", "third": SERIAL}, ROLE, False),
        (
            "one of our own kind",
            {"type": f"awsvault.{GST}"},
            SessionSlot(f"awsvault.{GST}", "prod"),
            False,
        ),
        ("an empty fingerprint", {"third": SERIAL, "Fingerprint": ""}, SLOT, False),
        (
            "a fingerprint that is no text",
            {"third": SERIAL, "Fingerprint": None, "fingerprint": 5},
            SLOT,
            True,
        ),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_a_session_of_aws_vault_serves_get_session_token_only(
    vault, store, what, made, slot, served
):
    by_go(store, **made)
    assert (vault.find_session(slot, "f", FIVE_MINUTES) is not None) == served


@pytest.mark.parametrize(
    "changes",
    [{"Expiration": None}, {"Expiration": "soon"}, {"Expiration": "2030-01-01t13:00:00z"}, {"Expiration": 5}, {"AccessKeyId": None},
     {"AccessKeyId": 5}, {"AccessKeyId": ""}, {"SecretAccessKey": None}, {"SecretAccessKey": ""}, {"SecretAccessKey": 5},
     {"SessionToken": None}, {"SessionToken": ""}, {"SessionToken": []}, {"AccountId": 5},
     {"SessionToken": "a\0b"}, {"SessionToken": "\udcff"}, {"AccessKeyId": "A\nB"}, {"AccountId": "1\n"}, {"SecretAccessKey": "\0"}],
    ids=ascii,
)  # fmt: skip
def test_a_damaged_session_is_said_and_made_again(vault, store, world, changes):
    by_go(store, **changes)
    assert vault.find_session(SessionSlot(GST, "prod"), "f", FIVE_MINUTES) is None
    assert len(world.said) == 1
    assert "'prod' is damaged" in world.said[0]


@pytest.mark.parametrize("text", ["", "null", "[]", "x", '"x"'])
def test_a_session_that_is_no_object_is_said_and_made_again(vault, store, world, text):
    name = by_go(store)
    store.items[name] = Item(name, Secret(text))
    assert vault.find_session(SessionSlot(GST, "prod"), "f", FIVE_MINUTES) is None
    assert len(world.said) == 1


def test_a_session_of_another_passphrase_is_a_miss_and_a_locked_store_is_an_error(vault, store):
    name = by_go(store)
    store.items[name] = DamagedItem("stored under another passphrase")
    assert vault.find_session(SessionSlot(GST, "prod"), "f", FIVE_MINUTES) is None
    store.items[name] = KeystoreError("wrong passphrase")
    with pytest.raises(KeystoreError, match="wrong passphrase"):
        vault.find_session(SessionSlot(GST, "prod"), "f", FIVE_MINUTES)
    store.locked = True
    with pytest.raises(KeystoreError, match="locked"):
        vault.find_session(SessionSlot(GST, "prod"), "f", FIVE_MINUTES)


def test_a_session_that_goes_between_listing_and_reading_is_a_miss(vault, store, world):
    name = by_go(store)
    store.items[name] = ItemNotFound("replaced")
    assert vault.find_session(SessionSlot(GST, "prod"), "f", FIVE_MINUTES) is None
    assert world.said == []


def test_the_data_decides_not_the_name(vault, store):
    name = by_go(store, left=60)
    later = str(SessionKey(GST, "prod", "", NOW + 7200))
    store.items[later] = store.items.pop(name).replace(key=later)
    assert vault.find_session(SessionSlot(GST, "prod"), "f", FIVE_MINUTES) is None


def test_the_longest_lived_of_several_is_taken(vault, store):
    for left in (600, 7200, 3600):
        by_go(store, left=left, AccessKeyId=f"ASIADUMMY{left}")
    found = vault.find_session(SessionSlot(GST, "prod"), "f", FIVE_MINUTES)
    assert found.access_key_id == "ASIADUMMY7200"


def test_only_sessions_of_the_slot_are_read(vault, store):
    by_go(store, profile="other")
    by_go(store, left=100)
    name = by_go(store)
    store.set(Item("prod", Secret("x")))
    vault.find_session(SessionSlot(GST, "prod"), "f", FIVE_MINUTES)
    assert store.got == [name]


# -- what storing a session deletes ------------------------------------------------


@pytest.mark.parametrize(
    ("what", "name", "gone"),
    [
        ("an older one of its slot", str(SLOT.key(NOW + 1800)), True),
        ("a later one of its slot", str(SLOT.key(NOW + 7200)), True),
        ("an expired one of anybody", str(SessionKey(ASSUMED, "other", "", NOW - 1)), True),
        (
            "an expired one of our kind",
            str(SessionKey(f"awsvault.{ASSUMED}", "other", "", NOW - 1)),
            True,
        ),
        ("an old form", "other session (2000000000)", True),
        ("another old form", "session:a:b:2000000000", True),
        ("a live one of another profile", str(SessionKey(GST, "other", SERIAL, NOW + 1800)), False),
        ("a live one of another type", str(SessionKey(ASSUMED, "prod", SERIAL, NOW + 1800)), False),
        ("a live one of another device", str(SessionKey(GST, "prod", "", NOW + 1800)), False),
        (
            "a live one of a variant",
            str(SessionKey(f"awsvault.{GST}", "prod", SERIAL, NOW + 1800)),
            False,
        ),
        ("a key", "prod", False),
        ("a token", "oidc:https://x", False),
    ],
    ids=lambda value: value if isinstance(value, str) and "," not in value else "",
)
def test_storing_a_session_deletes(vault, store, what, name, gone):
    store.set(Item(name, Secret("x")))
    vault.store_session(SLOT, session(), "f")
    assert (name not in store.items) == gone
    assert str(SLOT.key(NOW + 3600)) in store.items


@pytest.mark.parametrize(
    "credentials",
    [
        session().replace(expiration=None),
        session().replace(session_token=None),
        session(key_id="ASI"),
        session(key_id=""),
    ],
    ids=[
        "that never ends",
        "without a token",
        "with a key id that crashes aws-vault",
        "with no key id",
    ],
)
def test_what_is_no_session_is_not_kept(vault, store, credentials):
    vault.store_session(SLOT, credentials, "f")
    assert store.items == {}


def test_a_session_whose_name_does_not_fit_is_not_kept_and_said_so(vault, store, world):
    store.refuse_name = lambda key: "too long" if len(key) > 100 else ""
    vault.store_session(SLOT.__class__(GST, "p" * 200), session(), "f")
    assert store.items == {}
    assert len(world.said) == 1


# -- deleting -----------------------------------------------------------------------


def test_clear_takes_sessions_and_tokens_and_leaves_keys(vault, store):
    by_go(store)
    by_go(store, profile="other", left=-100)
    for name in ("prod", "oidc:https://x", "home session (1)"):
        store.set(Item(name, Secret("x")))
    assert vault.delete_all_sessions() == 4
    assert list(store.items) == ["prod"]


def test_clear_of_a_profile_takes_its_own(vault, store):
    by_go(store)
    by_go(store, third=SERIAL)
    by_go(store, type="awsvault.sts.AssumeRole")
    other = by_go(store, profile="other")
    assert vault.delete_sessions(["prod"]) == 3
    assert list(store.items) == [other]


def test_what_somebody_else_deleted_first_is_no_error(vault, store):
    by_go(store)
    store.delete = lambda key: (_ for _ in ()).throw(ItemNotFound("gone"))
    assert vault.delete_all_sessions() == 0


# -- whose sessions hang on a key -----------------------------------------------------

CONFIG = """\
[profile prod]
[profile admin]
role_arn = arn:aws:iam::111111111111:role/admin
source_profile = prod
[profile deep]
role_arn = arn:aws:iam::111111111111:role/deep
source_profile = admin
[profile own]
role_arn = arn:aws:iam::111111111111:role/own
source_profile = prod
[profile circle]
source_profile = circle2
[profile circle2]
source_profile = circle
"""


@pytest.fixture
def app(world, store, home):
    (home / ".aws").mkdir(mode=0o700)
    (home / ".aws" / "config").write_text(CONFIG)
    (home / ".aws" / "config").chmod(0o600)
    app = App(world, Options())
    app._vault = Vault(store, world)
    for name in ("prod", "own", "other"):
        app._vault.store_credentials(name, Credentials("AKIADUMMY", Secret("x")))
    for profile in ("prod", "admin", "deep", "own", "circle", "gone", "other"):
        by_go(store, profile=profile)
    return app


def test_every_profile_whose_keys_they_are_depends_on_them(app):
    assert app.dependents("prod") == {"prod", "admin", "deep"}
    assert app.dependents("own") == {"own"}


@pytest.mark.parametrize("remove", [True, False], ids=["remove", "add"])
def test_sessions_of_a_replaced_key_are_deleted(app, store, remove):
    if remove:
        awsvault.remove_command(app, profile="prod", sessions_only=False, force=True)
    else:
        app.world.environ.update(AWS_ACCESS_KEY_ID="AKIADUMMYEXAMPLE0009")
        app.world.environ.update(AWS_SECRET_ACCESS_KEY="new".ljust(40, "0"))
        awsvault.add_command(
            app, profile="prod", env=True, add_config=False, force=False, verify=None
        )
    left = {key.profile for key in app.vault.sessions()}
    assert left == {"own", "circle", "gone", "other"}
    assert ("prod" in store.items) != remove


def test_remove_asks_once_and_takes_no_for_an_answer(app, store):
    before = dict(store.items)
    for answer in ("", "n", "no", "yess", "j"):
        app.world.answers = [answer]
        assert awsvault.remove_command(app, profile="prod", sessions_only=False, force=False) == 0
        assert store.items == before
    app.world.answers = [" YES ", "n"]  # the second is about its empty section
    awsvault.remove_command(app, profile="prod", sessions_only=False, force=False)
    assert "prod" not in store.items


def test_sessions_only_keeps_the_keys(app, store):
    awsvault.remove_command(app, profile="prod", sessions_only=True, force=True)
    assert "prod" in store.items
    assert {key.profile for key in app.vault.sessions()} == {
        "admin",
        "deep",
        "own",
        "circle",
        "gone",
        "other",
    }


# -- list --------------------------------------------------------------------------------


def test_list_decrypts_nothing(app, store):
    awsvault.list_command(app, profiles=False, sessions=False, credentials=False)
    assert store.got == []
    assert app.world.asked == []


LISTED = """\
Profile  Credentials  Sessions
=======  ===========  ========
prod     prod         session with MFA, 59m59s
prod     prod         role, expired
prod     prod         web identity, 1h0m0s
prod     prod         process, 1h0m0s
prod     prod         other.kind, 1h0m0s
admin    -            -
deep     -            -
own      -            -
circle   -            -
circle2  -            -
-        spare        -
-        -            SSO token of https://x/start
-        -            session, 1h0m0s (nobody)
"""


def one_of_each(store):
    store.items.clear()
    store.set(Item("prod", Secret("x")))
    store.set(Item("spare", Secret("x")))
    by_go(store, third=f"{SERIAL}#0123456789abcdef", left=3599)
    by_go(store, type="awsvault.sts.AssumeRole", third="#0123456789abcdef", left=-303)
    by_go(store, type="sts.AssumeRoleWithWebIdentity")
    by_go(store, type="credential_process")
    by_go(store, type="other.kind")
    by_go(store, profile="nobody", left=3600)
    store.set(Item("oidc:https://x/start", Secret("x")))


def test_list_is_one_line_a_session_in_words(app, store, world):
    one_of_each(store)
    awsvault.list_command(app, profiles=False, sessions=False, credentials=False)
    assert world.written == LISTED


def test_list_of_sessions_names_the_profile(app, store, world):
    one_of_each(store)
    awsvault.list_command(app, profiles=False, sessions=True, credentials=False)
    lines = world.written.splitlines()
    assert lines[0] == "-       SSO token of https://x/start"
    assert lines[1] == "prod    session with MFA, 59m59s"
    assert lines[-1] == "nobody  session, 1h0m0s"
    assert len(lines) == 7


def test_a_name_that_is_too_long_for_its_column_widens_only_its_own_row(app, store, world):
    one_of_each(store)
    by_go(store, profile="x" * 70)
    store.set(Item("y" * 24, Secret("x")))
    awsvault.list_command(app, profiles=False, sessions=True, credentials=False)
    assert f"{'x' * 70}  session, 1h0m0s\n" in world.written
    world.written = ""
    awsvault.list_command(app, profiles=False, sessions=False, credentials=False)
    rows = world.written.splitlines()
    assert max(len(row) for row in rows if "x" * 70 not in row) <= 80
    assert f"prod     prod{' ' * 22}session with MFA, 59m59s" in rows
    assert not any(row.endswith(" ") for row in rows)


def test_the_widest_session_beside_names_of_24_characters_fits_80_columns():
    name = "n" * 24
    label = awsvault._session_label(SessionKey(GST, name, SERIAL, 0), 36 * 3600)
    assert len(awsvault.format_table([(name, name, label)]).rstrip("\n")) <= 80


@pytest.mark.parametrize("kind", ["profiles", "credentials"])
def test_names_are_listed_whole_for_scripts(app, store, world, kind):
    store.items.clear()
    name = "x" * 90 + " "
    store.set(Item(name, Secret("x")))
    app._config = awsvault.load_config(world)
    app.config.profile_names = lambda: [name, "b"]
    flags = {**dict.fromkeys(("profiles", "sessions", "credentials"), False), kind: True}
    awsvault.list_command(app, **flags)
    assert world.written.splitlines()[0] == name


@pytest.mark.parametrize("expires", [2**40, 2**63 - 1, 0])
def test_list_survives_any_number_in_a_session_name(app, store, world, expires):
    name = str(SessionKey(GST, "prod", "", expires))
    store.set(Item(name, Secret("x")))
    assert awsvault.list_command(app, profiles=False, sessions=True, credentials=False) == 0


def test_min_ttl_of_zero_is_zero(app):
    app.world.environ["AWS_MIN_TTL"] = "0"
    assert app.min_ttl() == datetime.timedelta()
    app.world.environ["AWS_MIN_TTL"] = ""
    assert app.min_ttl() == FIVE_MINUTES
    app.world.environ["AWS_MIN_TTL"] = "600"
    with pytest.raises(awsvault.UsageError, match="AWS_MIN_TTL"):
        app.min_ttl()
