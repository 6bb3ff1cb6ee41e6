"""Whatever others wrote, its reader raises its one error: a strategy and a target for every reader of foreign text.

tests/test_foreign.py runs each for a moment; `make fuzz` (`python -m tests.foreign SECONDS [NAME ...]`) runs each for
a minute with new random examples. A target is given an example and may raise only what it suppresses itself.
"""

from __future__ import annotations

import contextlib
import functools
import json
import os
import pathlib
import sys
import tempfile
import time

from hypothesis import HealthCheck, Phase, given, seed, settings
from hypothesis import strategies as st

import awsvault
from awsvault import AwsVaultError, Credentials, Item, Secret
from tests.fake_world import FakeWorld

TARGETS = {}

TEXT = st.text(st.characters())  # with NUL and lone surrogates
DIGITS = st.integers(1, 6000).map(lambda count: "9" * count)
PIECES = st.sampled_from(
    ["\0", "\n", "\r\n", "\t", " ", "\\", '"', "'", "`", '"""', "=", ":", "#", ";", "[", "]", "{", "}", ",", ".", "-", "%", "/",
     "..", "\ufeff", "\x85", "\u2028", "\ud800", "\udcff", "é", "NaN", "Infinity", "1e999", "null", "true", "0", "9" * 5000]
)  # fmt: skip
HUGE = "a number of 5,000 digits"
JUNK = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | TEXT | st.just(HUGE) | PIECES,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(TEXT, inner, max_size=3),
    max_leaves=6,
)


def target(strategy):
    def register(function):
        TARGETS[function.__name__] = (strategy, function)
        return function

    return register


def mutated(text):
    """Text like ``text``: a piece of it replaced, or put in somewhere, up to three times."""

    def change(edits):
        changed = text
        for at, length, piece in edits:
            start = at % (len(changed) + 1)
            changed = changed[:start] + piece + changed[start + length :]
        return changed

    edit = st.tuples(st.integers(0, 10_000), st.integers(0, 20), PIECES | TEXT)
    return st.lists(edit, min_size=1, max_size=3).map(change)


def odd_json(valid):
    """The JSON of an object like ``valid``: a member is something else or missing, or the text is mutated."""
    names = st.sampled_from([*valid, "another"])
    replaced = st.dictionaries(names, JUNK, min_size=1, max_size=2)
    members = replaced.map(lambda odd: {**valid, **odd})
    cut = names.map(lambda name: {key: valid[key] for key in valid if key != name})
    texts = (members | cut | JUNK).map(json.dumps)
    return mutated(json.dumps(valid)) | texts.map(
        lambda text: text.replace(json.dumps(HUGE), "9" * 5000)
    )


@functools.cache
def world():
    """A world whose home is there for one run."""
    home = tempfile.mkdtemp(prefix="foreign-")
    os.mkdir(os.path.join(home, ".awsvault"), 0o700)
    return FakeWorld(home)


class NoDescriptors(FakeWorld):
    """A world where a descriptor's number is looked at, but nothing is read: it may be the test's own."""

    def read_descriptor(self, fd, limit):
        assert 0 <= fd < 2**31
        return b""


class OneItem(awsvault.Keystore):
    """A keystore with one item of odd content."""

    def __init__(self, name, text):
        self.item = Item(name, Secret(text))

    def get(self, key):
        return self.item

    def keys(self):
        return [self.item.key]


# -- values, items, files of ours -----------------------------------------------------------------

HOLDER = {"pid": 5, "terminal": "pts/1", "refusals": 2, "message": "m", "hint": "h", "exit_code": 1}
KEYS = {
    "AccessKeyID": "AKIADUMMY",
    "SecretAccessKey": "dummy",
    "SessionToken": "t",
    "CanExpire": True,
}
KEYS["Expires"] = "2031-01-01T00:00:00Z"
SESSION = {
    "AccessKeyId": "ASIADUMMY",
    "SecretAccessKey": "dummy",
    "SessionToken": "t",
    "AccountId": "1",
    "Fingerprint": "f",
}
SESSION["Expiration"] = "2031-01-01T00:00:00Z"
WRAPPED = {
    "Key": "prod",
    "Data": "eA==",
    "Label": "l",
    "Description": "d",
    "KeychainNotTrustApplication": True,
}
HEADER = {
    "alg": awsvault.JWE_ALGORITHM,
    "enc": awsvault.JWE_ENCRYPTION,
    "p2c": 8192,
    "p2s": "c2FsdHNhbHQ",
}


def surrogates_kept(text):
    return text.encode("utf-8", "surrogatepass")


@target(odd_json(HOLDER))
def lock_file(text):
    info = awsvault.HolderInfo.parse(text)
    json.dumps(info.members()).encode()
    assert 0 < info.exit_code < 256


@target(odd_json(WRAPPED))
def wrapped_item(text):
    with contextlib.suppress(awsvault.DamagedItem):
        awsvault.unwrap_item("prod", Secret(surrogates_kept(text))).data.reveal()


@target(odd_json(KEYS))
def stored_keys(text):
    with contextlib.suppress(AwsVaultError):
        check_usable(
            awsvault.Vault(OneItem("prod", surrogates_kept(text)), world()).credentials("prod")
        )


@target(odd_json(SESSION))
def stored_session(text):
    slot = awsvault.SessionSlot("sts.GetSessionToken", "prod")
    store = OneItem(str(slot.key(2**40)), surrogates_kept(text))
    found = awsvault.Vault(store, world()).find_session(slot, "f", awsvault.MIN_SESSION)
    if found:
        check_usable(found)


def check_usable(credentials):
    """Fail if what was read can't be put into a header or an environment."""
    for text in awsvault.credential_variables(credentials, "").values():
        secret = text.reveal() if isinstance(text, Secret) else text
        assert "\0" not in secret
        os.fsencode(secret)
    assert credentials.access_key_id.isprintable()


@target(odd_json({"version": 1, "backend": "file"}))
def state_file(text):
    path = pathlib.Path(awsvault.state_path(world()))
    path.write_bytes(surrogates_kept(text))
    path.chmod(0o600)
    with contextlib.suppress(awsvault.KeystoreError):
        assert awsvault.remembered_backend(world())[0] in (*awsvault.BACKENDS, "")


@target(odd_json({"version": 1, "names": {"prod": "place"}}))
def name_index(text):
    index = awsvault.NameIndex(world(), "x")
    path = pathlib.Path(index._path())
    path.parent.mkdir(mode=0o700, exist_ok=True)
    path.write_bytes(surrogates_kept(text))
    for name, place in (index.read() or {}).items():
        os.fsencode(name + place)


@target(odd_json(HEADER) | mutated(json.dumps(HEADER)))
def encrypted_item(text):
    head = awsvault.b64url(surrogates_kept(text))
    rest = [awsvault.b64url(bytes(size)) for size in (40, 12, 5, 16)]
    with contextlib.suppress(ValueError):
        awsvault.Jwe.parse(".".join([head, *rest]).encode())


@target(st.binary() | mutated("e30.AAAA.AAAA.AAAA.AAAA").map(surrogates_kept))
def encrypted_bytes(data):
    with contextlib.suppress(ValueError):
        awsvault.Jwe.parse(data)


# -- the tools of keystores -----------------------------------------------------------------------


class OddTools(FakeWorld):
    """A world whose tools print odd text: the next of a few, again and again."""

    def __init__(self, printed):
        super().__init__(tempfile.mkdtemp(prefix="odd-", dir=world().home()))
        self.printed, self.calls = printed, 0

    def run(self, argv, **_options):
        status, output, errors = self.printed[self.calls % len(self.printed)]
        self.calls += 1
        return awsvault.ToolResult(status, Secret(surrogates_kept(output)), errors)

    def has_program(self, name):
        return name != self.missing

    def session_bus(self):
        return "unix:path=/nowhere"


ANSWERS = ["/a/b", "/", True, False, 7, -1, ["/org/freedesktop/secrets/collection/awsvault"], ["aws-vault"], ["prod"], [123, 125],
           {"Locked": False, "Items": ["/x/1"], "Collections": [], "Label": "prod", "Attributes": {"profile": "prod"}}, "{}"]  # fmt: skip
FOUND = "[/1]\nlabel = prod\nsecret = {}\ncreated = x\nmodified = 2030-01-01 00:00:00\n"
DUMP = 'keychain: "x"\nclass: "genp"\nattributes:\n    "acct"<blob>=0x70726F64  "prod"\n    "svce"<blob>="aws-vault"\n'
GVARIANT = "({'Locked': <false>, 'Items': <[objectpath '/x/1']>, 'Label': <'p\\u00e9'>, 'M': <uint64 5>, 'D': <b'a\\001'>},)"
PRINTED = (st.sampled_from(ANSWERS) | JUNK).map(lambda value: json.dumps({"type": "x", "data": [value]}).replace(json.dumps(HUGE), "9" * 5000))  # fmt: skip
PRINTED |= TEXT | PIECES | mutated(FOUND) | mutated(DUMP) | mutated(GVARIANT)
PRINTED |= st.sampled_from(["[" * 100_000, "-" * 100_000 + "1", "'" * 100_001, "(" * 50_000, "{}"])
TOOL_RESULTS = st.lists(
    st.tuples(st.sampled_from([0, 0, 0, 1, 36, 44]), PRINTED, TEXT | PIECES), min_size=1, max_size=6
)
STORES = {
    "secret-service": lambda fake: awsvault.SecretService(fake, "awsvault"),
    "kwallet": lambda fake: awsvault.KWalletKeystore(fake, "aws-vault", "aws-vault"),
    "keychain": lambda fake: awsvault.Keychain(fake, "aws-vault"),
}


@target(st.tuples(TOOL_RESULTS, st.sampled_from([*STORES]), st.sampled_from(["busctl", "gdbus"])))
def keystore_tools(example):
    printed, name, missing = example
    fake = OddTools(printed)
    fake.missing = missing
    store = STORES[name](fake)
    if name == "keychain":
        pathlib.Path(store.path).parent.mkdir(parents=True)
        pathlib.Path(store.path).touch()
    data = Item("prod", Secret("{}"))
    for act in (store.probe, store.keys, lambda: store.own(["prod"]), lambda: store.get("prod"),
                lambda: store.set(data), lambda: store.delete("prod")):  # fmt: skip
        with contextlib.suppress(AwsVaultError):
            act()


@target(mutated(GVARIANT) | TEXT | PIECES)
def gvariant(text):
    with contextlib.suppress(ValueError):
        awsvault.parse_gvariant(text)


@target(mutated(FOUND) | mutated(DUMP) | TEXT)
def found_by_tools(text):
    list(awsvault.parse_found(text))
    awsvault.parse_keychain_dump(text, "aws-vault")


# -- words ----------------------------------------------------------------------------------------

WORDS = TEXT | DIGITS | PIECES
TIMES = mutated("2030-01-02T03:04:05.5+01:30") | st.builds("{}-01-01T00:00:00{}".format, st.sampled_from(["0001", "9999"]),
                                                           st.sampled_from(["Z", "+23:59", "-23:59", "+99:99"]))  # fmt: skip
WORD_READERS = [
    awsvault.parse_time, awsvault.parse_duration, functools.partial(awsvault.parse_duration, bare_seconds=True),
    awsvault.ProcessIdentity.parse, awsvault.parse_bool, awsvault.parse_count, awsvault.parse_tags, awsvault.parse_names,
    awsvault.parse_retry_mode, awsvault.split_url, awsvault.unb64url, awsvault.check_text,
]  # fmt: skip
SETTINGS_TEXT = (
    mutated("90m") | mutated("12-ab") | mutated("http://[::1]:80/x") | mutated("a=b,c=d")
)


@target(st.tuples(WORDS | TIMES | SETTINGS_TEXT, st.sampled_from(WORD_READERS)))
def word(example):
    text, read = example
    with contextlib.suppress(ValueError):
        read(text)


@target(
    WORDS | mutated("sts.GetSessionToken,cHJvZA,,1795468268") | mutated("home session (1795468268)")
)
def stored_name(name):
    session = awsvault.SessionKey.parse(name)
    assert session is None or awsvault.SessionKey.parse(str(session)) == session
    awsvault.is_credential_name(name)
    with contextlib.suppress(awsvault.UsageError):
        awsvault.check_profile_name(name)
    awsvault.unescape_file_name(name)
    awsvault.printable(name).encode()


@target(
    st.tuples(
        WORDS,
        st.sampled_from(["AWS_VAULT_FILE_ITERATIONS", "AWS_VAULT_FILE_PASSPHRASE_FD", "SUDO_UID"]),
    )
)
def variable(example):
    text, name = example
    fake = NoDescriptors(world().home(), {name: text})
    values = awsvault.option_values(awsvault.GLOBAL_OPTIONS, {}, {})
    with contextlib.suppress(awsvault.UsageError):
        awsvault.store_settings(fake, values)
        awsvault.sudo_id(fake, "SUDO_UID")
        awsvault._close_unread(fake, text)


# -- the config file --------------------------------------------------------------------------------

CONFIG = """[default]
region = eu-west-1
[profile prod]
role_arn = arn:aws:iam::111111111111:role/x ; words
source_profile = "other"
duration_seconds = 1h
include_profile = base
s3 =
  endpoint_url = http://127.0.0.1
[profile base]
mfa_serial = `x` \\
"""


@target(mutated(CONFIG) | TEXT)
def config(text):
    with contextlib.suppress(AwsVaultError):
        file = awsvault.ConfigFile("config", text)
        for name in ("prod", *file.profile_names()[:3]):
            with contextlib.suppress(awsvault.ConfigError):
                awsvault.load_profile(file, name, {}, {}, [])


@target(mutated(CONFIG) | TEXT)
def file_for_the_command(text):
    given = {"prod": {"credential_process": "x"}, "default": {"region": "y"}}
    awsvault.private_config(text, given).encode("utf-8", "surrogatepass")
    path = pathlib.Path(world().home(), "credentials")
    path.write_bytes(surrogates_kept(text))
    awsvault.profile_in_credentials(world(), str(path), ["prod"])
    awsvault.section_settings(world(), str(path), "profile prod")


# -- AWS --------------------------------------------------------------------------------------------


def sts_answer(credentials, role="<Arn>arn:aws:sts::111111111111:assumed-role/x/y</Arn>"):
    members = "".join(f"<{name}>{text}</{name}>" for name, text in credentials.items())
    result = f"<Credentials>{members}</Credentials><AssumedRoleUser>{role}</AssumedRoleUser>"
    inner = f"<AssumeRoleResult>{result}</AssumeRoleResult><ResponseMetadata><RequestId>1</RequestId></ResponseMetadata>"
    return f'<AssumeRoleResponse xmlns="https://sts.amazonaws.com/doc/2011-06-15/">{inner}</AssumeRoleResponse>'


GIVEN = {
    "AccessKeyId": "ASIADUMMY",
    "SecretAccessKey": "dummy",
    "SessionToken": "t",
    "Expiration": "2030-01-01T13:00:00Z",
}
REFUSAL = "<ErrorResponse><Error><Type>Sender</Type><Code>AccessDenied</Code><Message>no</Message></Error></ErrorResponse>"


class Asked(awsvault.Aws):
    """STS without a network: every request gets one answer, which botocore's own parser reads."""

    def __init__(self, status, body, headers=None):
        super().__init__(world())
        self.answer = (status, {"content-type": "text/xml", **(headers or {})}, body)

    def _client(self, service, source, endpoint):
        client = made_client()
        client.meta.events.unregister("before-send.sts", unique_id="far")
        client.meta.events.register("before-send.sts", self._send, unique_id="far")
        return client

    def _send(self, request, **_):
        from botocore.awsrequest import AWSResponse

        status, headers, body = self.answer
        response = AWSResponse(request.url, status, headers, None)
        response._content = body
        return response

    def get(self):
        endpoint = awsvault.Endpoint(region="eu-west-1")
        return self.session("AssumeRole", {"RoleArn": ROLE, "RoleSessionName": "me"}, KEY, endpoint)


KEY = Credentials("AKIADUMMY", Secret("dummy"))
ROLE = "arn:aws:iam::111111111111:role/x"


@functools.cache
def made_client():
    endpoint = awsvault.Endpoint(region="eu-west-1", url="http://127.0.0.1:9", max_attempts=1)
    return awsvault.Aws(world())._client("sts", KEY, endpoint)


ODD_GIVEN = st.dictionaries(st.sampled_from([*GIVEN, "X"]), TEXT | PIECES | TIMES, min_size=1).map(
    lambda odd: sts_answer({**GIVEN, **odd})
)
DATES = mutated("Tue, 01 Jan 2030 15:00:00 GMT") | TEXT


@target(
    st.tuples(
        st.sampled_from([200, 302, 400, 403, 500, 503]),
        mutated(sts_answer(GIVEN)) | ODD_GIVEN | mutated(REFUSAL) | TEXT,
    )
)
def sts(example):
    status, body = example
    with contextlib.suppress(awsvault.AwsError):
        check_usable(Asked(status, surrogates_kept(body)).get())


@target(DATES)
def clock_of_aws(date):
    body = REFUSAL.replace("AccessDenied", "SignatureDoesNotMatch").encode()
    with contextlib.suppress(awsvault.AwsError):
        Asked(403, body, {"date": date}).get()


# -- the command line ---------------------------------------------------------------------------------

ARGV = st.lists(
    WORDS
    | st.sampled_from(
        [
            "exec",
            "add",
            "list",
            "export",
            "-d",
            "--no-session",
            "--",
            "--debug",
            "-x",
            "--backend=file",
            "-",
        ]
    )
)


@target(ARGV)
def command_line(argv):
    with contextlib.suppress(awsvault.UsageError):
        line = awsvault.cut_line(argv)
        parsed = awsvault.parse_flags(line.command, line.flags)
        values = awsvault.option_values(awsvault.GLOBAL_OPTIONS, parsed, {})
        awsvault.store_settings(NoDescriptors(world().home()), values)
        if line.command:
            awsvault.option_values(line.command.options, parsed, {})
            awsvault.check_words(line.command, line.words, line.before_marker)


def main(seconds, names):
    """Run each target for so long with random examples; the first failure is shown and ends it."""
    for name in names or TARGETS:
        strategy, function = TARGETS[name]
        end, rounds = time.monotonic() + seconds, 0
        while time.monotonic() < end:
            run = settings(
                max_examples=500, deadline=5000, database=None, derandomize=False, print_blob=False,
                suppress_health_check=list(HealthCheck), phases=[Phase.generate, Phase.shrink],
            )(given(strategy)(function))  # fmt: skip
            seed(time.time_ns())(run)()
            rounds += 1
        print(f"{name}: {rounds * 500:,} examples", flush=True)


if __name__ == "__main__":
    main(float(sys.argv[1]), sys.argv[2:])
