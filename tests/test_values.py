"""The words of the program: what a secret shows, how names, times and durations are read and written."""

from __future__ import annotations

import contextlib
import copy
import datetime
import json
import pickle
import traceback

import pytest
from hypothesis import given
from hypothesis import strategies as st

import awsvault
from awsvault import (
    BadText,
    Credentials,
    Secret,
    SessionKey,
    UsageError,
    Value,
    check_profile_name,
    format_duration,
    format_time,
    go_json,
    is_credential_name,
    is_old_session,
    parse_duration,
    parse_time,
    printable,
)

UTC = datetime.timezone.utc
HIDDEN = "dummy/hidden+text"


def seconds(**parts):
    return datetime.timedelta(**parts)


# -- Secret ------------------------------------------------------------------


@pytest.mark.parametrize(
    "show",
    [
        repr,
        str,
        lambda secret: f"{secret}",
        lambda secret: f"{secret!r:>40}",
        lambda secret: f"{secret:>40}",
        lambda secret: "{}".format(secret),  # noqa: UP032
        lambda secret: "%s %r" % (secret, secret),  # noqa: UP031
        lambda secret: str([secret]) + str({"a": secret}) + str((secret,)),
        lambda secret: repr(Credentials("AKIADUMMY", secret, secret)),
        lambda secret: json.dumps({"secret": secret}, default=str),
        lambda secret: str(vars(Credentials("AKIADUMMY", secret))),
    ],
)
def test_a_secret_shows_nothing(show):
    assert HIDDEN not in show(Secret(HIDDEN))
    assert "Secret(...)" in show(Secret(HIDDEN))


@pytest.mark.parametrize(
    "copy_it", [pickle.dumps, copy.copy, copy.deepcopy, json.dumps, hash, iter, len, bytes]
)
def test_a_secret_does_not_leave_by_a_copy(copy_it):
    with pytest.raises(TypeError) as caught:
        copy_it(Secret(HIDDEN))
    assert HIDDEN not in str(caught.value)


def test_a_secret_is_not_in_a_traceback_that_shows_its_locals():
    def fail(given_secret):
        raise ValueError(f"bad {given_secret}")

    try:
        fail(Secret(HIDDEN))
    except ValueError as error:
        shown = traceback.TracebackException.from_exception(error, capture_locals=True)
        assert HIDDEN not in "".join(shown.format())


def test_a_secret_is_no_text():
    assert not isinstance(Secret("x"), str)
    assert Secret("x") != "x"
    assert Secret("x") == Secret(b"x")
    assert not Secret("")


@given(st.binary())
def test_a_secret_keeps_every_byte(data):
    assert Secret(data).reveal_bytes() == data
    assert Secret(Secret(data).reveal()).reveal_bytes() == data


@pytest.mark.parametrize(
    ("written", "left"),
    [
        ("a\n", "a"),
        ("a\r\n", "a"),
        ("a\n\n", "a\n"),
        ("a", "a"),
        (" a \n", " a "),
        ("\n", ""),
        ("", ""),
    ],
)
def test_one_newline_at_the_end_is_removed_and_no_more(written, left):
    assert Secret(written).without_newline().reveal() == left


# -- Value -------------------------------------------------------------------


class Point(Value):
    x: int
    y: int = 2


class Point3(Point):
    z: int = 3


def test_a_value_compares_and_hashes_by_what_it_holds():
    assert Point(1) == Point(x=1, y=2)
    assert hash(Point(1)) == hash(Point(1, 2))
    assert Point(1) != Point(2)
    assert Point3(1) != Point(1, 2)
    assert Point3(1).z == 3
    assert repr(Point3(1)) == "Point3(x=1, y=2, z=3)"


def test_a_value_is_replaced_not_changed():
    point = Point(1)
    assert point.replace(y=5) == Point(1, 5)
    with pytest.raises(AttributeError, match="frozen"):
        point.x = 3
    assert point == Point(1, 2)


@pytest.mark.parametrize(
    ("args", "kwargs"),
    [((), {}), ((1, 2, 3), {}), ((1,), {"x": 1}), ((1,), {"z": 1})],
    ids=["one is missing", "too many", "given twice", "no such field"],
)
def test_a_value_insists_on_its_fields(args, kwargs):
    with pytest.raises(TypeError):
        Point(*args, **kwargs)


# -- durations ---------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "length"),
    [
        ("90m", seconds(minutes=90)),
        ("120m", seconds(hours=2)),
        ("1.5h", seconds(minutes=90)),
        (".5h", seconds(minutes=30)),
        ("1.h", seconds(hours=1)),
        ("1h30m", seconds(minutes=90)),
        ("30m1h", seconds(minutes=90)),
        ("12h1d", seconds(hours=36)),
        ("1h1h", seconds(hours=2)),
        ("2d", seconds(days=2)),
        ("1w", seconds(days=7)),
        ("3600s", seconds(hours=1)),
        ("1h60m", seconds(hours=2)),
        ("1500ms", seconds(seconds=1.5)),
        ("2000000us", seconds(seconds=2)),
        ("2000000µs", seconds(seconds=2)),
        ("1000000000ns", seconds(seconds=1)),
        ("+1h", seconds(hours=1)),
        ("0", seconds()),
        ("0s", seconds()),
    ],
)
def test_a_duration_is_read_as_go_reads_it_and_with_days_and_weeks(text, length):
    assert parse_duration(text) == length


@pytest.mark.parametrize(
    "text",
    ["", "-1h", "1", "3600", "1H", "1 h", "1h ", "h", "1.2.3h", ".h", "1x", "1h30", "１h", "1e3s", "soon", "1h-5m", "NaN", "inf",
     "0x10s", "1h\n", "9" * 30 + "h", "99999999999h", "1" * 5000],
)  # fmt: skip
def test_what_is_no_duration_is_refused(text):
    with pytest.raises(ValueError):
        parse_duration(text)


def test_a_bare_number_is_seconds_only_where_that_is_said():
    assert parse_duration("3600", bare_seconds=True) == seconds(hours=1)
    with pytest.raises(BadText) as caught:
        parse_duration("3600")
    assert "3600s" in caught.value.hint


@pytest.mark.parametrize(
    ("length", "text"),
    [
        (seconds(minutes=59, seconds=59), "59m59s"),
        (seconds(hours=1), "1h0m0s"),
        (seconds(minutes=-5, seconds=-3), "-5m3s"),
        (seconds(seconds=7), "7s"),
        (seconds(), "0s"),
        (seconds(minutes=1), "1m0s"),
        (seconds(days=2, seconds=1), "48h0m1s"),
        (seconds(seconds=1.9), "1s"),
        (seconds(seconds=-1.9), "-1s"),
    ],
)
def test_a_duration_is_written_as_go_writes_it(length, text):
    assert format_duration(length) == text


@given(st.integers(0, 10**6))
def test_a_written_duration_is_read_back(count):
    length = seconds(seconds=count)
    assert parse_duration(format_duration(length)) == length


@given(st.text(alphabet="0123456789.hmsdwunµ+-e ", max_size=30))
def test_a_duration_is_read_or_refused_never_more(text):
    try:
        assert parse_duration(text) >= seconds()
    except ValueError:
        pass


# -- times -------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "moment"),
    [
        ("2037-12-31T23:59:58Z", (2037, 12, 31, 23, 59, 58, 0)),
        ("2037-12-31T23:59:58.5Z", (2037, 12, 31, 23, 59, 58, 500000)),
        ("2037-12-31T23:59:58.123456789Z", (2037, 12, 31, 23, 59, 58, 123456)),
        ("2037-12-31T23:59:58,5Z", (2037, 12, 31, 23, 59, 58, 500000)),
        ("2024-05-01T22:00:00.123456789+10:00", (2024, 5, 1, 12, 0, 0, 123456)),
        ("2024-05-01T22:00:00-03:30", (2024, 5, 2, 1, 30, 0, 0)),
        ("0001-01-01T00:00:00Z", (1, 1, 1, 0, 0, 0, 0)),
    ],
)
def test_a_time_is_read_with_nine_digits_and_any_offset(text, moment):
    assert parse_time(text) == datetime.datetime(*moment, UTC)


@pytest.mark.parametrize(
    "text",
    ["", "2037-12-31", "2037-12-31T23:59:58", "2037-12-31 23:59:58Z", "2037-12-31t23:59:58Z", "2037-12-31T23:59:58z",
     "2037-13-31T23:59:58Z", "2037-12-31T23:59:58.1234567890Z", "2037-12-31T23:59:58Z\n", "0001-01-01T00:00:00+10:00",
     "9999-12-31T23:59:59-10:00", "٢٠٣٧-12-31T23:59:58Z"],
)  # fmt: skip
def test_what_is_no_time_is_refused(text):
    with pytest.raises(ValueError):
        parse_time(text)


def test_a_time_is_written_in_utc_and_rounded_down():
    zone = datetime.timezone(datetime.timedelta(hours=2))
    assert (
        format_time(datetime.datetime(2030, 1, 2, 1, 4, 5, 999999, zone)) == "2030-01-01T23:04:05Z"
    )


@given(st.datetimes(min_value=datetime.datetime(1000, 1, 2), timezones=st.just(UTC)))
def test_a_written_time_is_read_back(moment):
    assert parse_time(format_time(moment)) == moment.replace(microsecond=0)


# -- session names -----------------------------------------------------------

GST, SERIAL = "sts.GetSessionToken", "arn:aws:iam::111111111111:mfa/jon"
A1 = [
    (SessionKey(GST, "llamas", SERIAL, 1700000000), "sts.GetSessionToken,bGxhbWFz,YXJuOmF3czppYW06OjExMTExMTExMTExMTptZmEvam9u,1700000000"),
    (SessionKey(GST, "llamas", "", 1700000000), "sts.GetSessionToken,bGxhbWFz,,1700000000"),
    (SessionKey("sso.GetRoleCredentials", "dev admin", "https://x.awsapps.com/start", 1700003600), "sso.GetRoleCredentials,ZGV2IGFkbWlu,aHR0cHM6Ly94LmF3c2FwcHMuY29tL3N0YXJ0,1700003600"),
    (SessionKey("sts.AssumeRole", "foo/bar", "GAHT12345678", 1700000000), "sts.AssumeRole,Zm9vL2Jhcg,R0FIVDEyMzQ1Njc4,1700000000"),
]  # fmt: skip


@pytest.mark.parametrize(("key", "name"), A1, ids=lambda value: str(value)[:40])
def test_session_names_are_those_of_aws_vault(key, name):
    assert str(key) == name
    assert SessionKey.parse(name) == key
    assert name.startswith(key.prefix())
    assert not is_credential_name(name)


@given(
    st.text(alphabet=st.characters(codec="utf-8"), min_size=1),
    st.text(alphabet=st.characters(codec="utf-8")),
    st.integers(0, 2**63 - 1),
)
def test_a_session_name_is_read_back(profile, third, expires):
    key = SessionKey(GST, profile, third, expires)
    assert SessionKey.parse(str(key)) == key


@pytest.mark.parametrize(
    "name",
    ["a,b", "a,b,c,1", ",YQ,,1", "a,,,1", "a,YQ,,", "a,YQ,,x", "a,YQ,,-1", "a,YQ,,٣", "a,YQ==,,1", "a,+/+/,,1", f"a,YQ,,{2**63}",
     "a,YQ,,1,2", "plain", "session:a b:c:1", "sessions (1)", "a,YQ,Y,1"],
)  # fmt: skip
def test_names_that_aws_vault_takes_for_profiles(name):
    assert SessionKey.parse(name) is None
    assert is_credential_name(name)
    check_profile_name(name)


@pytest.mark.parametrize(
    ("name", "why"),
    [
        ("a,YQ,,1", "session"),
        ("a,YQ,,0001", "session"),
        ("x session (1)", "session"),
        ("home session (1795468268)", "session"),
        ("session:a:b:1", "session"),
        ("session::b:1", "session"),
        ("session,YQ,YQ,12", "session"),
        ("session,=,+/,12", "session"),
        ("oidc:x", "token"),
        ("oidc:", "token"),
        ("", "empty"),
        (".", "folder"),
        ("..", "folder"),
        ("a\nb", "control"),
        ("a\tb", "control"),
        ("a\x00b", "control"),
        ("a\x7fb", "control"),
        ("a\u202eb", "control"),
        ("a\udcffb", "control"),
    ],
)
def test_names_that_would_not_be_kept_are_refused(name, why):
    with pytest.raises(UsageError, match=why) as caught:
        check_profile_name(name)
    assert caught.value.exit_code == 2
    assert not any(awsvault.is_control(character) for character in caught.value.message)


@pytest.mark.parametrize(
    "name",
    [
        "prod",
        "a b",
        "team/prod",
        "50%",
        "a,b,c,1",
        "üñí-日本",
        "-x",
        ".hidden",
        "[x]",
        "https://x/start#/",
        "'\"`$(id)",
        "...",
    ],
)
def test_any_other_name_goes(name):
    check_profile_name(name)


def test_old_sessions_are_told_by_their_names():
    assert is_old_session("home session (1795468268)")
    assert not is_old_session("home session (x)")
    assert not is_old_session("session,YQ,YQ,1")


# -- Go's JSON, text on the terminal -----------------------------------------


def test_go_json_is_compact_and_escaped_as_go_does():
    assert go_json({"b": "<&>\u2028\u2029", "a": [1, None, True]}) == (
        '{"b":"\\u003c\\u0026\\u003e\\u2028\\u2029","a":[1,null,true]}'
    )
    assert go_json("ü/\x7f\t\n") == '"ü/\x7f\\t\\n"'


@given(
    st.recursive(
        st.none() | st.booleans() | st.integers() | st.text(),
        lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
    )
)
def test_go_json_says_the_same_as_json(value):
    assert json.loads(go_json(value)) == value


@pytest.mark.parametrize(
    "text", ["", "[]", '"x"', "{", "nul", "[" * 100000, '{"a":1} x', "\ufeff{}"]
)
def test_what_is_no_json_object_is_refused_without_being_quoted(text):
    with pytest.raises(ValueError) as caught:
        awsvault.parse_json_object(text)
    assert len(str(caught.value)) < 30


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("plain ü 日本", "plain ü 日本"),
        ("a\x1b[31mb", "a\\x1b[31mb"),
        ("a\r\nb\tc", "a\\x0d\\x0ab\\x09c"),
        ("\u202egnp.exe", "\\x202egnp.exe"),
        ("\x9b31m", "\\x9b31m"),
        ("\udcff", "\\xdcff"),
        (KeyError("x"), "'x'"),
    ],
)
def test_foreign_text_cannot_move_the_cursor(text, shown):
    assert printable(text) == shown


def test_a_quoted_name_is_not_escaped_twice():
    assert f"{printable('a' + chr(10) + 'b')!r}" == "'a\\x0ab'"
    assert f"{printable('team' + chr(92) + 'x')!r}" == "'team\\x'"


def test_hints_name_the_closest():
    assert awsvault.closest("prdo", ["prod", "dev", "production"]) == "did you mean prod?"
    assert awsvault.closest("zzz", ["prod"]) == ""


@given(st.binary())
def test_base64url_is_read_back(data):
    assert awsvault.unb64url(awsvault.b64url(data)) == data


@pytest.mark.parametrize("text", ["YQ==", "+/+/", "Y", "Y Q", "YQ\n", "é"])
def test_what_is_no_base64url_is_refused(text):
    with pytest.raises(ValueError):
        awsvault.unb64url(text)


def test_digests_tell_their_parts_apart():
    assert awsvault.digest("ab", "c") != awsvault.digest("a", "bc") != awsvault.digest("abc")


# -- values as members of a JSON object --------------------------------------------------------


class Part(Value):
    pid: int
    started: str = "x"


class Whole(Value):
    name: str
    part: Part
    hidden: Secret
    parts: tuple[Part, ...] = ()
    pairs: tuple[tuple[str, str], ...] = ()
    names: dict[str, str] = {}
    on: bool = False
    token: Secret | None = None
    needed: Part | None
    ends: datetime.datetime | None = None
    life: datetime.timedelta = datetime.timedelta(0)


PLAIN = {"name": "a", "part": {"pid": 1}, "hidden": "b", "needed": None}
TEXT = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0"))
JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(st.characters()),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(), inner, max_size=4),
    max_leaves=10,
)


@given(
    st.builds(
        Whole,
        name=TEXT, hidden=st.builds(Secret, TEXT), token=st.none() | st.builds(Secret, TEXT), on=st.booleans(),
        part=(parts := st.builds(Part, pid=st.integers(), started=TEXT)), parts=st.lists(parts).map(tuple),
        needed=st.none() | parts, pairs=st.lists(st.tuples(TEXT, TEXT)).map(tuple), names=st.dictionaries(TEXT, TEXT),
        ends=st.none() | st.datetimes(datetime.datetime(1970, 1, 1)).map(lambda it: it.replace(microsecond=0, tzinfo=UTC)),
        life=st.integers(0, 10**9).map(lambda number: seconds(seconds=number)),
    )
)  # fmt: skip
def test_members_are_read_back(whole):
    assert Whole.from_members(json.loads(json.dumps(whole.members()))) == whole


def test_members_leave_defaults_out_and_take_other_names_in_their_order():
    whole = Whole.from_members(PLAIN)
    assert whole.members() == {**PLAIN, "part": {"pid": 1}}
    assert list(whole.members({"hidden": "H", "on": "O", "name": "N"}).items()) == [
        ("H", "b"), ("N", "a"),
    ]  # fmt: skip
    assert Part.from_members({"PID": 5, "pid": "x"}, {"pid": "PID"}) == Part(5)


@pytest.mark.parametrize(
    "odd",
    [
        {"name": 5}, {"name": "a\0"}, {"name": "\ud800"}, {"name": None}, {"part": []}, {"part": {}}, {"part": {"pid": True}},
        {"part": {"pid": 1.0}}, {"hidden": {}}, {"hidden": "\ud800"}, {"parts": {}}, {"parts": [5]}, {"parts": "xy"},
        {"pairs": [["a"]]}, {"pairs": [["a", 1]]}, {"pairs": ["ab"]}, {"names": []}, {"names": {"a": 1}}, {"names": {"a\0": "b"}},
        {"on": 1}, {"token": 5}, {"needed": 5}, {"ends": "soon"}, {"ends": 5}, {"ends": "0001-01-01T00:00:00+23:59"},
        {"life": "5"}, {"life": 10**19}, {"life": float("inf")},
    ],
)  # fmt: skip
def test_odd_members_are_one_error(odd):
    with pytest.raises(ValueError, match=rf"^{next(iter(odd))} (can't be read|is missing)$"):
        Whole.from_members({**PLAIN, **odd})


@given(JSON, st.sampled_from([*Whole._fields, None]))
def test_whatever_the_members_are_nothing_but_one_error_comes(junk, field):
    for kind in (Whole, awsvault.HolderInfo, awsvault.IndexFile, awsvault.WrappedItem, Credentials):
        with contextlib.suppress(ValueError):
            kind.from_members({**PLAIN, field: junk} if field else junk)


@pytest.mark.parametrize(
    "text",
    ['{"a":NaN}', '{"a":-Infinity}', '{"a":Infinity}', f'{{"a":{"9" * 500_000}}}', '{"a":' * 900],
)
def test_what_is_no_number_of_json_is_refused(text):
    with pytest.raises(ValueError):
        awsvault.parse_json_object(text)


@pytest.mark.parametrize(
    "text", ["", "-1", "+1", "1.0", "²", "١", "101", " 5", "5\n", "9" * 100_000]
)
def test_what_is_no_whole_number_within_bounds_is_refused(text):
    with pytest.raises(ValueError, match="no number from 0 to 100"):
        awsvault.parse_int(text, 0, 100)


def test_of_a_long_value_an_error_quotes_the_beginning():
    assert awsvault.shortened("a\n") == "a\\x0a"
    assert awsvault.shortened("9" * 5000) == "9" * 200 + "..."
    with pytest.raises(UsageError) as caught:
        awsvault._iterations("9" * 5000)
    assert len(caught.value.message) < 300
