"""The encrypted-file keystore: what aws-vault wrote, what we write, and what an attacker wrote."""

from __future__ import annotations

import base64
import json
import os
import re
import stat
import zlib
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from cryptography.hazmat.primitives.keywrap import aes_key_wrap
from jwcrypto import jwe as jwcrypto_jwe
from jwcrypto import jwk
from jwcrypto.common import base64url_encode

import awsvault
from awsvault import (
    DamagedItem,
    FileKeystore,
    Item,
    ItemNotFound,
    Jwe,
    KeystoreError,
    NeedsUser,
    Passphrase,
    Secret,
    SessionKey,
    UsageError,
    Vault,
    escape_file_name,
    unescape_file_name,
    wrap_item,
)
from tests.fake_world import FakeWorld

PASSPHRASE = "correct horse battery staple"
COUNT = 8192
DATA = Path(__file__).parent / "data"
GO_ITEMS = json.loads((DATA / "aws-vault-4.2-file-items.json").read_text()) + [
    item
    for item in json.loads((DATA / "aws-vault-7-items.json").read_text())
    if item["backend"] == "file"
]
SESSION = str(SessionKey("sts.GetSessionToken", "prod", "", 2_000_000_000))


@pytest.fixture
def world(home):
    return FakeWorld(home)


@pytest.fixture
def folder(home):
    path = home / ".awsvault" / "keys"
    path.mkdir(parents=True, mode=0o700)
    return path


def keystore(world, folder, passphrase=PASSPHRASE, count=COUNT):
    given = Secret(passphrase) if passphrase is not None else None
    return FileKeystore(world, str(folder), Passphrase(world, given), count)


def header_of(token):
    head = token.split(b".")[0]
    return json.loads(base64.urlsafe_b64decode(head + b"=" * (-len(head) % 4)))


def seal(
    key,
    *,
    passphrase=PASSPHRASE,
    data=b'{"AccessKeyID":"AKIADUMMY","SecretAccessKey":"dummy"}',
    salt=b"0123456789ab",
    count=COUNT,
    header=None,
    plaintext=None,
):
    """An item sealed as somebody else's program might: `header` members are laid over ours."""
    text = wrap_item(Item(key, Secret(data))).encode() if plaintext is None else plaintext
    members = {
        "alg": "PBES2-HS256+A128KW",
        "enc": "A256GCM",
        "p2c": count,
        "p2s": awsvault.b64url(salt),
        **(header or {}),
    }
    head = awsvault.b64url(
        json.dumps({name: value for name, value in members.items() if value is not None}).encode()
    )
    kek = awsvault.derive_kek(Secret(passphrase), salt, count)
    content_key, nonce = bytes(range(32)), bytes(12)
    sealed = AESGCM(content_key).encrypt(nonce, text, head.encode())
    parts = [aes_key_wrap(kek, content_key), nonce, sealed[:-16], sealed[-16:]]
    return ".".join([head, *map(awsvault.b64url, parts)]).encode()


def put(folder, key, token):
    path = folder / escape_file_name(key)
    path.write_bytes(token)
    path.chmod(0o600)
    return path


# -- what aws-vault wrote -------------------------------------------------------


@pytest.mark.parametrize(
    "item", GO_ITEMS, ids=lambda item: f"{item.get('program', '4.2')} {item['file_name'][:30]}"
)
def test_items_of_aws_vault_are_opened(world, folder, item):
    (folder / item["file_name"]).write_text(item["token"])
    store = keystore(world, folder, item["passphrase"])
    # 4.2 names a file by the key as it is; what looks escaped in it is then another name, as in 7.2.
    key = unescape_file_name(item["file_name"])
    assert store.keys() == [key]
    found = store.get(key)
    assert json.loads(found.data.reveal()) == item["data"]
    assert (found.label, found.description) == (item["item"]["Label"], item["item"]["Description"])
    assert found.trusted is not item["item"]["KeychainNotTrustApplication"]


@pytest.mark.parametrize(
    "item",
    [item for item in GO_ITEMS if "ProviderName" in item["data"] or "Source" in item["data"]],
    ids=lambda item: item["file_name"],
)
def test_long_lived_keys_of_aws_vault_are_used(world, folder, item):
    (folder / item["file_name"]).write_text(item["token"])
    keys = Vault(keystore(world, folder, item["passphrase"]), world).credentials(
        unescape_file_name(item["file_name"])
    )
    assert keys.access_key_id == item["data"]["AccessKeyID"]
    assert keys.secret_access_key == Secret(item["data"]["SecretAccessKey"])
    assert keys.session_token is None
    assert keys.expiration is None


# -- what we write ----------------------------------------------------------------


@pytest.mark.parametrize(
    "key",
    [
        "prod",
        "a b",
        "team/prod",
        "50%",
        "a&b<c>d",
        "üñí-日本",
        "-x",
        ".x",
        SESSION,
        "oidc:https://x/start",
    ],
)
@pytest.mark.parametrize(
    "data",
    [b"", b"x", b"a\nb\n", bytes(range(256)), b"x" * 65536],
    ids=["none", "one", "lines", "bytes", "64 kB"],
)
def test_what_we_write_is_opened_by_jwcrypto(world, folder, key, data):
    keystore(world, folder).set(Item(key, Secret(data), "a label", "a description", trusted=True))
    token = (folder / escape_file_name(key)).read_text()
    opened = jwcrypto_jwe.JWE(algs=["PBES2-HS256+A128KW", "A256GCM"])
    opened.deserialize(token, jwk.JWK(kty="oct", k=base64url_encode(PASSPHRASE)))
    wrapper = json.loads(opened.payload)
    assert list(wrapper) == [
        "Key",
        "Data",
        "Label",
        "Description",
        "KeychainNotTrustApplication",
        "KeychainNotSynchronizable",
    ]
    assert wrapper["Key"] == key
    assert base64.b64decode(wrapper["Data"], validate=True) == data
    assert (wrapper["Label"], wrapper["Description"], wrapper["KeychainNotTrustApplication"]) == (
        "a label",
        "a description",
        False,
    )
    assert keystore(world, folder).get(key).data == Secret(data)


def test_what_we_write_looks_as_aws_vault_writes_it(world, folder):
    keystore(world, folder).set(Item("prod", Secret("x")))
    token = (folder / "prod").read_bytes()
    header = header_of(token)
    assert list(header) == sorted(header)
    assert (header["alg"], header["enc"], header["p2c"]) == ("PBES2-HS256+A128KW", "A256GCM", COUNT)
    assert len(header["p2s"]) == 16
    assert re.fullmatch(rb"[A-Za-z0-9_-]+(\.[A-Za-z0-9_-]+){4}", token)
    assert [len(part) for part in token.split(b".")][1:3] == [54, 16]
    assert (folder / "prod").stat().st_mode & 0o777 == 0o600


def test_nothing_but_items_stands_in_the_folder(world, folder, home):
    store = keystore(world, folder)
    store.set(Item("prod", Secret("x")))
    store.set(Item("prod", Secret("y")))
    store.set(Item(SESSION, Secret("z")))
    store.delete(SESSION)
    assert os.listdir(folder) == ["prod"]
    assert sorted(os.listdir(home / ".awsvault")) == ["keys", "locks", "tmp"]
    assert os.listdir(home / ".awsvault" / "tmp") == []


def test_the_default_protection_is_strong(world, folder):
    store = keystore(world, folder, count=awsvault.DEFAULT_ITERATIONS)
    store.set(Item("prod", Secret("x")))
    assert header_of((folder / "prod").read_bytes())["p2c"] == 600_000


# -- one derivation --------------------------------------------------------------


@pytest.fixture
def derivations(monkeypatch):
    counted = []
    inner = awsvault.derive_kek

    def derive(passphrase, salt, iterations):
        counted.append((salt, iterations))
        return inner(passphrase, salt, iterations)

    monkeypatch.setattr(awsvault, "derive_kek", derive)
    return counted


def test_one_derivation_opens_everything_we_wrote(world, folder, derivations):
    for number in range(5):
        keystore(world, folder).set(Item(f"p{number}", Secret("x")))
    salts = {header_of(path.read_bytes())["p2s"] for path in folder.iterdir()}
    assert len(salts) == 1
    derivations.clear()
    store = keystore(world, folder)
    for number in range(5):
        store.get(f"p{number}")
    store.set(Item("new", Secret("x")))
    assert len(derivations) == 1


def test_names_are_listed_without_a_passphrase(world, folder, derivations):
    put(folder, "prod", seal("prod"))
    put(folder, SESSION, seal(SESSION))
    store = keystore(world, folder, passphrase=None)
    derivations.clear()
    assert store.keys() == ["prod", SESSION]
    assert store.weak_items() == 0
    store.delete("prod")
    assert store.keys() == [SESSION]
    assert not derivations
    assert not world.asked


# -- attacks on an item ------------------------------------------------------------


def compact(header, *rest):
    return ".".join([awsvault.b64url(json.dumps(header).encode()), *rest]).encode()


def plain_payload(key="prod"):
    return awsvault.b64url(
        wrap_item(
            Item(key, Secret(b'{"AccessKeyID":"AKIAEVIL","SecretAccessKey":"evil"}'))
        ).encode()
    )


def without(part):
    parts = seal("prod").split(b".")
    parts[part] = b""
    return b".".join(parts)


def flipped(part):
    parts = seal("prod").split(b".")
    parts[part] = (b"A" if parts[part][:1] != b"A" else b"B") + parts[part][1:]
    return b".".join(parts)


ATTACKS = {
    "an unsigned token of three parts": compact({"alg": "none"}, plain_payload(), ""),
    "HS256 with an empty signature": compact({"alg": "HS256"}, plain_payload(), ""),
    "HS384 with an empty signature": compact({"alg": "HS384"}, plain_payload(), ""),
    "four parts": seal("prod").rpartition(b".")[0],
    "six parts": seal("prod") + b".AAAA",
    "an empty wrapped key": without(1),
    "an empty nonce": without(2),
    "an empty tag": without(4),
    "a wrapped key of 24 bytes": b".".join([*seal("prod").split(b".")[:1], b"A" * 32, *seal("prod").split(b".")[2:]]),
    "one iteration": seal("prod", header={"p2c": 1}),
    "999 iterations": seal("prod", header={"p2c": 999}),
    "1,300,001 iterations": seal("prod", header={"p2c": 1_300_001}),
    "a negative count": seal("prod", header={"p2c": -8192}),
    "no count": seal("prod", header={"p2c": None}),
    "a count in text": seal("prod", header={"p2c": "8192"}),
    "a count with a fraction": seal("prod", header={"p2c": 8192.0}),
    "a boolean count": seal("prod", header={"p2c": True}),
    "no salt": seal("prod", header={"p2s": None}),
    "an empty salt": seal("prod", header={"p2s": ""}),
    "a salt that is no text": seal("prod", header={"p2s": 7}),
    "a huge salt": seal("prod", header={"p2s": "A" * 400}),
    "alg dir": seal("prod", header={"alg": "dir"}),
    "alg none": seal("prod", header={"alg": "none"}),
    "a weaker key wrap": seal("prod", header={"alg": "PBES2-HS512+A256KW"}),
    "another encryption": seal("prod", header={"enc": "A128CBC-HS256"}),
    "compressed": seal("prod", header={"zip": "DEF"}, plaintext=zlib.compress(b"x")),
    "a critical extension": seal("prod", header={"crit": ["exp"]}),
    "a huge header": seal("prod", header={"x": "y" * 5000}),
    "a header that is no object": b".".join([awsvault.b64url(b"[]").encode(), *seal("prod").split(b".")[1:]]),
    "a header that is no JSON": b".".join([awsvault.b64url(b"{").encode(), *seal("prod").split(b".")[1:]]),
    "a header that is no UTF-8": b".".join([awsvault.b64url(b"\xff").encode(), *seal("prod").split(b".")[1:]]),
    "a deep header": b".".join([awsvault.b64url(b"[" * 2000).encode(), *seal("prod").split(b".")[1:]]),
    "a newline at the end": seal("prod") + b"\n",
    "a blank before it": b" " + seal("prod"),
    "plain JSON": wrap_item(Item("prod", Secret(b"{}"))).encode(),
    "nothing": b"",
    "dots": b"....",
    "bytes": bytes(range(256)),
    "cut off": seal("prod")[:-20],
    "cut in half": seal("prod")[: len(seal("prod")) // 2],
}  # fmt: skip


@pytest.mark.parametrize("token", ATTACKS.values(), ids=ATTACKS.keys())
def test_a_forged_or_broken_item_is_damaged_and_the_others_work(world, folder, derivations, token):
    put(folder, "other", seal("other"))
    put(folder, "prod", token)
    derivations.clear()
    store = keystore(world, folder)
    with pytest.raises(DamagedItem, match="'prod' is damaged"):
        store.get("prod")
    assert derivations in ([], [(b"0123456789ab", COUNT)]), "checked before deriving"
    assert store.get("other")
    assert store.keys() == ["other", "prod"]
    store.set(Item("third", Secret("x")))
    assert (folder / "prod").read_bytes() == token


@pytest.mark.parametrize("part", range(5))
def test_any_changed_part_is_noticed(world, folder, part):
    put(folder, "other", seal("other"))
    put(folder, "prod", flipped(part))
    with pytest.raises(DamagedItem):
        keystore(world, folder).get("prod")


def test_a_renamed_item_is_not_somebody_elses_key(world, folder):
    put(folder, "dev", seal("dev"))
    os.rename(folder / "dev", folder / "prod")
    with pytest.raises(DamagedItem, match=r"'dev'.*renamed"):
        keystore(world, folder).get("prod")


@pytest.mark.parametrize("data", [b"{}", b"null", b"[]", b'"x"', b"", b"not json", b'{"AccessKeyID":"","SecretAccessKey":"x"}',
                                  b'{"AccessKeyID":"AKIA"}', b'{"AccessKeyID":1,"SecretAccessKey":2}', b'{"AccessKeyID":"AKIA","SecretAccessKey":""}'])  # fmt: skip
def test_an_item_without_a_key_is_an_error_never_an_empty_key(world, folder, data):
    put(folder, "prod", seal("prod", data=data))
    with pytest.raises(DamagedItem, match="holds no access key"):
        Vault(keystore(world, folder), world).credentials("prod")


@pytest.mark.parametrize(
    ("plaintext", "good"),
    [
        (b'{"Data":"e30="}', True),
        (b'{"data":"e30=","KEY":"prod"}', True),
        (b' {"Key":"prod","Data":"e30=","More":1}\n', True),
        (b'{"Key":"prod","Data":"e3\\n0="}', True),
        (b'{"Key":"prod","Data":"e30"}', False),
        (b'{"Key":"prod","Data":5}', False),
        (b'{"Key":"prod"}', False),
        (b'{"Key":5,"Data":"e30="}', False),
        (b'{"Key":"prod","Data":"e30="} x', False),
        (b"[]", False),
    ],
)
def test_the_wrapper_is_read_as_leniently_as_aws_vault_does(world, folder, plaintext, good):
    put(folder, "prod", seal("prod", plaintext=plaintext))
    if good:
        assert keystore(world, folder).get("prod").data == Secret("{}")
    else:
        with pytest.raises(DamagedItem):
            keystore(world, folder).get("prod")


# -- salts -------------------------------------------------------------------------


def test_a_planted_salt_is_never_used_again(world, folder):
    # Sealed under another passphrase, so its salt is the planter's choice.
    put(folder, "planted", seal("planted", passphrase="theirs", salt=b"chosen-by-me"))
    put(folder, "prod", seal("prod", salt=b"proven-by-us"))
    store = keystore(world, folder)
    with pytest.raises(DamagedItem):
        store.get("planted")
    store.set(Item("new", Secret("x")))
    assert header_of((folder / "new").read_bytes())["p2s"] == awsvault.b64url(b"proven-by-us")


def test_the_salt_of_a_weaker_item_is_not_used_again(world, folder):
    put(folder, "weak", seal("weak", salt=b"weak-weak-we", count=COUNT))
    store = keystore(world, folder, count=10_000)
    store.set(Item("new", Secret("x")))
    assert header_of((folder / "new").read_bytes())["p2s"] != awsvault.b64url(b"weak-weak-we")
    assert header_of((folder / "new").read_bytes())["p2c"] == 10_000


def test_a_short_salt_is_not_used_again(world, folder):
    put(folder, "prod", seal("prod", salt=b"8 bytes!"))
    store = keystore(world, folder)
    store.get("prod")
    store.set(Item("new", Secret("x")))
    assert len(header_of((folder / "new").read_bytes())["p2s"]) == 16


# -- weak items ---------------------------------------------------------------------


def test_a_weak_item_is_sealed_anew_by_reading_it(world, folder):
    put(folder, "prod", seal("prod"))
    put(folder, SESSION, seal(SESSION))
    assert keystore(world, folder, count=10_000).weak_items() == 2
    before = keystore(world, folder).get("prod")
    assert keystore(world, folder, count=10_000).get("prod") == before
    assert header_of((folder / "prod").read_bytes())["p2c"] == 10_000
    assert keystore(world, folder, count=10_000).get("prod") == before
    assert keystore(world, folder, count=10_000).weak_items() == 1


def test_a_session_waits_for_its_renewal(world, folder):
    put(folder, SESSION, seal(SESSION))
    keystore(world, folder, count=10_000).get(SESSION)
    assert header_of((folder / SESSION).read_bytes())["p2c"] == COUNT


def test_a_stronger_item_is_never_weakened(world, folder):
    token = seal("prod", count=10_000)
    put(folder, "prod", token)
    keystore(world, folder).get("prod")
    assert (folder / "prod").read_bytes() == token


def test_an_item_that_was_replaced_meanwhile_is_left_alone(world, folder):
    put(folder, "prod", seal("prod"))
    newer = seal("prod", data=b"newer")
    store = keystore(world, folder, count=10_000)

    def replace(*what, **_):
        put(folder, "prod", newer)
        return awsvault.World.lock(world, *what)

    world.failures["lock"] = replace
    assert store.get("prod").data != Secret("newer")
    assert (folder / "prod").read_bytes() == newer


def test_a_weak_item_is_read_where_nothing_can_be_written(world, folder):
    put(folder, "prod", seal("prod"))
    world.failures["create_file"] = OSError(30, "Read-only file system")
    assert keystore(world, folder, count=10_000).get("prod")
    assert header_of((folder / "prod").read_bytes())["p2c"] == COUNT


# -- passphrases -----------------------------------------------------------------------


def test_a_wrong_passphrase_is_called_so(world, folder):
    put(folder, "prod", seal("prod"))
    put(folder, "other", seal("other"))
    with pytest.raises(KeystoreError, match="wrong passphrase") as caught:
        keystore(world, folder, "mistyped").get("prod")
    assert not isinstance(caught.value, (DamagedItem, ItemNotFound))
    assert "damaged" not in caught.value.message


def test_the_only_item_may_be_damaged_or_the_passphrase_wrong(world, folder):
    put(folder, "prod", seal("prod"))
    with pytest.raises(KeystoreError, match=r"wrong passphrase.*or the only item is damaged"):
        keystore(world, folder, "mistyped").get("prod")


def test_an_item_of_another_passphrase_is_named_and_the_others_work(world, folder):
    put(folder, "prod", seal("prod"))
    put(folder, "foreign", seal("foreign", passphrase="theirs"))
    store = keystore(world, folder)
    with pytest.raises(DamagedItem, match=r"'foreign'.*another passphrase"):
        store.get("foreign")
    assert store.get("prod")


def test_planted_slow_items_bound_the_work_and_hide_no_truth(world, folder, monkeypatch):
    spent = []
    put(folder, "prod", seal("prod"))
    for number in range(32):
        salt = awsvault.b64url(bytes([number]) * 12)
        put(folder, f"planted{number}", seal("x", header={"p2c": 1_300_000, "p2s": salt}))
    monkeypatch.setattr(
        awsvault, "derive_kek", lambda _p, _s, count: spent.append(count) or b"x" * 16
    )
    with pytest.raises(KeystoreError, match=r"opens neither 'prod' nor [0-3] of 32 other items"):
        keystore(world, folder).get("prod")
    assert sum(spent) <= awsvault.MAX_PROBE_ITERATIONS + COUNT
    with pytest.raises(KeystoreError, match=r"opens none of [0-9] items tried"):
        keystore(world, folder).set(Item("new", Secret("x")))


def test_what_is_ours_is_found_behind_planted_items(world, folder):
    for number in range(40):
        salt = awsvault.b64url(bytes([number]) * 12)
        put(folder, f"a{number}", seal("x", passphrase="theirs", header={"p2s": salt}))
    for name in ("prod", "dev", "damaged"):
        put(folder, name, seal(name))
    put(folder, "damaged", flipped(1))
    with pytest.raises(DamagedItem, match="other items open"):
        keystore(world, folder).get("damaged")


def test_add_refuses_a_passphrase_that_opens_nothing(world, folder):
    put(folder, "prod", seal("prod"))
    with pytest.raises(KeystoreError, match="opens nothing"):
        keystore(world, folder, "mistyped").set(Item("new", Secret("x")))
    assert os.listdir(folder) == ["prod"]


def test_add_goes_by_credential_items_not_by_sessions(world, folder):
    put(folder, SESSION, seal(SESSION, passphrase="another"))
    keystore(world, folder).set(Item("new", Secret("x")))
    put(folder, "prod", seal("prod", passphrase="another"))
    keystore(world, folder).set(Item("newer", Secret("x")))
    assert keystore(world, folder).get("newer")


def test_a_new_vault_asks_twice(world, folder):
    world.answers = ["secret", "secret"]
    store = keystore(world, folder, passphrase=None)
    store.set(Item("prod", Secret("x")))
    store.set(Item("other", Secret("x")))
    assert store.get("prod")
    assert len(world.asked) == 2
    assert "new vault" in world.asked[0]
    world.answers = ["secret"]
    keystore(world, folder, passphrase=None).get("prod")
    assert str(folder) in world.asked[2]


def test_two_different_answers_make_no_vault(world, folder):
    world.answers = ["secret", "secert"]
    with pytest.raises(UsageError, match="differ"):
        keystore(world, folder, passphrase=None).set(Item("prod", Secret("x")))
    assert os.listdir(folder) == []


@pytest.mark.parametrize("given", ["", None])
def test_an_empty_passphrase_makes_no_vault(world, folder, given):
    world.answers = [""]
    with pytest.raises(UsageError, match="empty"):
        keystore(world, folder, given).set(Item("prod", Secret("x")))
    assert os.listdir(folder) == []


def test_an_empty_passphrase_opens_what_aws_vault_sealed_with_it(world, folder):
    put(folder, "prod", seal("prod", passphrase=""))
    assert keystore(world, folder, "").get("prod")


def test_without_a_person_the_hint_names_what_would_do(world, folder):
    put(folder, "prod", seal("prod"))
    with pytest.raises(NeedsUser) as caught:
        keystore(world, folder, passphrase=None).get("prod")
    for name in ("AWS_VAULT_FILE_PASSPHRASE", "--file-passphrase-fd", "--file-passphrase-command"):
        assert name in caught.value.hint


def test_a_missing_item_needs_no_passphrase(world, folder):
    with pytest.raises(ItemNotFound):
        keystore(world, folder, passphrase=None).get("prod")
    with pytest.raises(ItemNotFound):
        keystore(world, folder / "nowhere", passphrase=None).get("prod")
    assert keystore(world, folder / "nowhere", passphrase=None).keys() == []


SOURCES = [
    ("a flag's descriptor beats all", ["--file-passphrase-fd={fd}"], {"AWS_VAULT_FILE_PASSPHRASE_FD": "0", "AWS_VAULT_FILE_PASSPHRASE_COMMAND": "echo no", "AWS_VAULT_FILE_PASSPHRASE": "no"}),
    ("a flag's command beats variables", ["--file-passphrase-command=echo right"], {"AWS_VAULT_FILE_PASSPHRASE_FD": "{fd}", "AWS_VAULT_FILE_PASSPHRASE": "no"}),
    ("the descriptor beats the command", [], {"AWS_VAULT_FILE_PASSPHRASE_FD": "{fd}", "AWS_VAULT_FILE_PASSPHRASE_COMMAND": "echo no", "AWS_VAULT_FILE_PASSPHRASE": "no"}),
    ("the command beats the passphrase", [], {"AWS_VAULT_FILE_PASSPHRASE_COMMAND": "echo right", "AWS_VAULT_FILE_PASSPHRASE": "no"}),
    ("the passphrase itself", [], {"AWS_VAULT_FILE_PASSPHRASE": "right"}),
    ("an empty variable is unset", [], {"AWS_VAULT_FILE_PASSPHRASE_FD": "", "AWS_VAULT_FILE_PASSPHRASE_COMMAND": "", "AWS_VAULT_FILE_PASSPHRASE": "right"}),
]  # fmt: skip


def is_pipe(fd):
    """Whether a descriptor is a pipe; a closed one, whose number may be used again, is none."""
    try:
        return stat.S_ISFIFO(os.fstat(fd).st_mode)
    except OSError:
        return False


@pytest.mark.parametrize(("what", "flags", "environ"), SOURCES, ids=[row[0] for row in SOURCES])
def test_where_the_passphrase_comes_from(home, what, flags, environ):
    reader, writer = os.pipe()
    os.write(writer, b"right\n")
    os.close(writer)
    environ = {name: value.format(fd=reader) for name, value in environ.items()}
    world = FakeWorld(
        home,
        {
            **environ,
            "AWS_VAULT_FILE_ITERATIONS": str(COUNT),
            "AWS_ACCESS_KEY_ID": "AKIADUMMYEXAMPLE0001",
            "AWS_SECRET_ACCESS_KEY": "dummy".ljust(40, "0"),
        },
    )
    status = awsvault.main(
        [*(flag.format(fd=reader) for flag in flags), "add", "prod", "--env"], world
    )
    assert (status, world.said) == (0, [])
    assert keystore(FakeWorld(home), home / ".awsvault" / "keys", "right").get("prod")
    if any(
        str(reader) in text
        for text in [*environ.values(), *(flag.format(fd=reader) for flag in flags)]
    ):
        assert not is_pipe(reader)
    else:
        os.close(reader)


@pytest.mark.parametrize(
    ("command", "words"),
    [
        ("false", ["'false'", "status 1"]),
        ("no-such-program-anywhere", ["no-such-program-anywhere"]),
        ("echo 'x", ["can't be read"]),
        ("''", [""]),
        ("   ", ["names no program"]),
    ],
)
def test_a_passphrase_command_that_does_not_work(world, folder, command, words):
    put(folder, "prod", seal("prod"))
    store = FileKeystore(world, str(folder), Passphrase(world, None, command), COUNT)
    with pytest.raises(awsvault.AwsVaultError) as caught:
        store.get("prod")
    assert [word for word in words if word not in caught.value.message] == []


def test_a_passphrase_command_is_no_shell_and_loses_one_newline(world, folder):
    put(folder, "prod", seal("prod", passphrase="$HOME `id`\n"))
    command = "printf '%s\\n\\n' '$HOME `id`'"
    assert FileKeystore(world, str(folder), Passphrase(world, None, command), COUNT).get("prod")


# -- names and foreign files -------------------------------------------------------------


@pytest.mark.parametrize(
    ("key", "name"),
    [
        ("abc/.././123", "abc%2F..%2F.%2F123"),
        ("oidc:https://x/start", "oidc:https:%2F%2Fx%2Fstart"),
        ("50%", "50%25"),
        ("%2F", "%252F"),
        ("plain", "plain"),
        ("üñí", "üñí"),
    ],
)
def test_file_names_are_those_of_aws_vault(world, folder, key, name):
    assert escape_file_name(key) == name
    assert unescape_file_name(name) == key
    keystore(world, folder).set(Item(key, Secret("x")))
    assert os.listdir(folder) == [name]
    assert keystore(world, folder).keys() == [key]


@pytest.mark.parametrize(
    "key", ["", ".", "..", "a\0b", "x" * 256, "/" * 86, "é" * 128, ".awsvault-tmp-x"]
)
def test_a_name_that_no_file_can_have_is_refused_before_anything_is_written(world, folder, key):
    store = keystore(world, folder)
    assert store.refuse_name(key)
    with pytest.raises(KeystoreError):
        store.set(Item(key, Secret("x")))
    with pytest.raises(ItemNotFound):
        store.get(key)
    assert os.listdir(folder) == []


@pytest.mark.parametrize("key", ["x" * 255, "/" * 85, "é" * 127])
def test_the_longest_names_go(world, folder, key):
    keystore(world, folder).set(Item(key, Secret("x")))
    assert keystore(world, folder).get(key).data == Secret("x")


def test_what_is_no_item_is_not_listed(world, folder):
    put(folder, "prod", seal("prod"))
    (folder / "sub").mkdir()
    (folder / ".awsvault-tmp-0123").write_text("x")
    (folder / "link").symlink_to(folder / "prod")
    os.mkfifo(folder / "fifo")
    assert keystore(world, folder).keys() == ["prod"]


def test_a_fifo_or_a_folder_under_an_items_name_does_not_hang(world, folder):
    put(folder, "prod", seal("prod"))
    os.mkfifo(folder / "fifo")
    (folder / "sub").mkdir()
    store = keystore(world, folder)
    for key in ("fifo", "sub"):
        with pytest.raises(KeystoreError):
            store.get(key)


def test_an_item_over_the_limit_is_refused(world, folder):
    put(folder, "huge", b"x" * (awsvault.MAX_ITEM_BYTES + 1))
    with pytest.raises(KeystoreError, match="too large"):
        keystore(world, folder).get("huge")
    with pytest.raises(KeystoreError, match="too large"):
        keystore(world, folder).set(Item("big", Secret(b"x" * awsvault.MAX_ITEM_BYTES)))
    assert os.listdir(folder) == ["huge"]


@pytest.mark.parametrize("mode", [0o777, 0o720, 0o702])
def test_a_folder_that_others_can_write_to_is_refused(world, folder, mode):
    put(folder, "prod", seal("prod"))
    folder.chmod(mode)
    for act in (
        lambda store: store.get("prod"),
        lambda store: store.keys(),
        lambda store: store.delete("prod"),
        lambda store: store.set(Item("new", Secret("x"))),
    ):
        with pytest.raises(awsvault.AwsVaultError, match="written to by others"):
            act(keystore(world, folder))
    assert os.listdir(folder) == ["prod"]


def test_a_folder_of_somebody_else_is_refused(world, folder, monkeypatch):
    put(folder, "prod", seal("prod"))
    other = os.geteuid() + 1
    monkeypatch.setattr(os, "geteuid", lambda: other)
    with pytest.raises(awsvault.AwsVaultError, match="belongs to user"):
        keystore(world, folder).get("prod")


def test_a_new_folder_is_ours_alone_whatever_the_umask(world, home):
    before = os.umask(0)
    try:
        keystore(world, home / "deep" / "er" / "keys").set(Item("prod", Secret("x")))
    finally:
        os.umask(before)
    for path in (
        "deep",
        "deep/er",
        "deep/er/keys",
        ".awsvault",
        ".awsvault/locks",
        ".awsvault/tmp",
    ):
        assert (home / path).stat().st_mode & 0o777 == 0o700, path
    assert (home / "deep/er/keys/prod").stat().st_mode & 0o777 == 0o600


@pytest.mark.parametrize("text", ["8191", "1300001", "x", "-1", "1e5", "٨١٩٢", "8192 "])
def test_an_iteration_count_out_of_bounds_is_refused(home, text):
    world = FakeWorld(home, {"AWS_VAULT_FILE_ITERATIONS": text})
    assert awsvault.main(["list"], world) == 2
    assert "AWS_VAULT_FILE_ITERATIONS" in world.said[0]


def test_limits_are_those_of_both_readers():
    assert Jwe.parse(seal("x", header={"p2c": 1_300_000})).iterations == 1_300_000
    assert Jwe.parse(seal("x", header={"p2c": 1000})).iterations == 1000


@pytest.mark.parametrize("name", ["50%", "%41", "x%2fy", "100%25%"])
def test_a_file_that_only_4_2_can_have_named_is_read_listed_and_replaced(world, folder, name):
    (folder / name).write_bytes(seal(name))
    store = keystore(world, folder)
    assert store.keys() == [name]
    assert store.get(name)
    store.set(Item(name, Secret("new")))
    assert os.listdir(folder) == [escape_file_name(name)]
    assert store.get(name).data == Secret("new")
    (folder / name).write_bytes(seal(name))
    assert store.keys() == [name]
    assert store.get(name).data == Secret("new")
    store.delete(name)
    store.delete(name)
    assert store.keys() == []


def test_a_weak_file_of_4_2_gets_its_new_name_when_it_is_sealed_anew(world, folder):
    (folder / "50%").write_bytes(seal("50%"))
    keystore(world, folder, count=10_000).get("50%")
    assert os.listdir(folder) == ["50%25"]


# -- vaults that earlier versions of this program wrote ---------------------------


@pytest.mark.parametrize(
    "path", sorted(DATA.glob("vaults/*/file-items.json")), ids=lambda path: path.parent.name
)
def test_a_vault_of_every_version_is_opened_whole(world, folder, path):
    vault = json.loads(path.read_text(encoding="utf-8"))
    for item in vault["items"]:
        (folder / item["file_name"]).write_text(item["token"])
    store = keystore(world, folder, vault["passphrase"])
    assert sorted(store.keys()) == sorted(
        unescape_file_name(item["file_name"]) for item in vault["items"]
    )
    for item in vault["items"]:
        key = unescape_file_name(item["file_name"])
        assert json.loads(store.get(key).data.reveal()) == item["data"]
        if not SessionKey.parse(key):
            assert Vault(store, world).credentials(key).access_key_id == item["data"]["AccessKeyID"]
    for session in Vault(store, world).sessions():
        slot = awsvault.SessionSlot(session.type, session.profile, session.third)
        data = json.loads(store.get(str(session)).data.reveal())
        assert Vault(store, world).find_session(
            slot, data["Fingerprint"], world.now() - world.now()
        )


def test_there_is_a_vault_of_this_version():
    assert (DATA / "vaults" / awsvault.__version__ / "file-items.json").exists()


@pytest.mark.parametrize("name", ["oidc:x", "x session (12)", "a,YQ,,1"])
def test_keys_under_a_name_that_we_refuse_can_be_taken_over(world, folder, name):
    put(folder, name, seal(name))
    app = awsvault.App(world, awsvault.Options())
    app._vault = awsvault.Vault(keystore(world, folder), world)
    with pytest.raises(awsvault.UsageError, match="name that aws-vault takes for") as caught:
        app.known_profile(name)
    assert caught.value.hint == (
        f"take the key over: aws-vault exec -n '{name}' -- awsvault add --env NEW-NAME"
    ).replace("'a,YQ,,1'", "a,YQ,,1").replace("'oidc:x'", "oidc:x")


def test_a_name_that_is_not_utf_8_is_read_again(world, folder):
    name = os.fsdecode(b"caf\xe9")
    plaintext = awsvault.to_bytes(wrap_item(Item(name, Secret("x"))))
    put(folder, name, seal(name, plaintext=plaintext))
    assert keystore(world, folder).get(name).key == name
    assert keystore(world, folder).keys() == [name]
