"""The AWS config file: its dialect beside botocore's, what beats what, what is inherited, what is refused."""

from __future__ import annotations

import datetime
import os
import re

import pytest
from botocore.configloader import load_config as botocore_load
from botocore.configloader import raw_config_parse
from botocore.exceptions import ConfigParseError
from hypothesis import HealthCheck, assume, given, settings
from hypothesis import strategies as st

import awsvault
from awsvault import ConfigError, ConfigFile, load_profile
from tests.fake_world import FakeWorld

HOUR = datetime.timedelta(hours=1)
ERROR = object()


def resolve(text, name="p", flags=None, environ=None, stored=("p",), safe=True):
    """A profile of a config text; `flags` as the command line gives them."""
    return load_profile(ConfigFile("config", text, safe), name, flags or {}, environ or {}, stored)


# -- the dialect -------------------------------------------------------------------

# What, the lines of [profile p], key: what we read, what botocore reads (ERROR: neither file nor profile).
SAME = [
    ("an equals sign", "region = x", "region", "x"),
    ("no blanks", "region=x", "region", "x"),
    ("a colon", "region: x", "region", "x"),
    ("a colon in a value", "region = a:b", "region", "a:b"),
    ("an equals sign in a value", "region = a=b", "region", "a=b"),
    ("the first of both separates", "region: a=b", "region", "a=b"),
    ("an upper-case key", "Region = x", "region", "x"),
    ("an empty value", "region =", "region", ""),
    ("blanks around a value", "region =  \t x \t ", "region", "x"),
    ("a comment line", "# region = y\n; region = z\nregion = x", "region", "x"),
    ("an indented comment line", "region = x\n  # y", "region", "x"),
    ("a hash without a blank before", "region = a#b", "region", "a#b"),
    ("a semicolon without a blank before", "region = a;b", "region", "a;b"),
    ("a comment that ends in a backslash", "# C:\\aws\\\nregion = x", "region", "x"),
    ("so does an indented one", "a = 1\n  ; C:\\aws\\\nregion = x", "region", "x"),
    ("a folder that ends in a backslash", "a = C:\\aws\\\nregion = x", "region", "x"),
    ("and it keeps it", "a = C:\\aws\\\nregion = x", "a", "C:\\aws\\"),
    ("also behind an indented key", "  a = C:\\aws\\\n  region = x", "a", "C:\\aws\\"),
    ("also before a comment", "a = C:\\aws\\\n# x\nregion = x", "region", "x"),
    ("also in nested values", "s3 =\n  a = C:\\\n  b = 2", "s3", "\na = C:\\\nb = 2"),
    ("and before a URL", "a = C:\\\nendpoint_url = http://x", "endpoint_url", "http://x"),
    ("nested values behind a comment are no keys", "s3 = ; x\n  endpoint_url = http://x", "endpoint_url", None),
    ("two words, each in quotes", 'mfa_process = "/opt/otp dir/otp" "acct one"', "mfa_process", '"/opt/otp dir/otp" "acct one"'),
    ("and in other ones", "mfa_process = '/a b' 'c'", "mfa_process", "'/a b' 'c'"),
    ("half a pair of quotes", 'region = "x', "region", '"x'),
    ("one quote", 'region = "', "region", '"'),
    ("quotes inside", "region = a'b'c", "region", "a'b'c"),
    ("a percent sign", "region = 50%", "region", "50%"),
    ("no interpolation", "a = 1\nregion = %(a)s", "region", "%(a)s"),
    ("no variables", "region = $HOME ~ ${X}", "region", "$HOME ~ ${X}"),
    ("a URL", "sso_start_url = https://x/start#/", "sso_start_url", "https://x/start#/"),
    ("nested values", "s3 =\n  a = 1\n  b = 2", "s3", "\na = 1\nb = 2"),
    ("a key after nested values", "s3 =\n  a = 1\nregion = x", "region", "x"),
    ("letters beyond ASCII", "region = üñí-日本", "region", "üñí-日本"),
    ("a key of another profile", "x = 1\n[profile p2]\nregion = x", "region", None),
    ("a section that is no profile", "x = 1\n[p]\nregion = x", "region", None),
    ("text after a header", "x = 1\n[profile q] # text\nregion = y", "x", "1"),
    ("a backslash inside", "region = a\\b", "region", "a\\b"),
    ("a key after nested values, all indented", "  s3 =\n    a = 1\n  region = x", "region", "x"),
    ("and the nested ones", "  s3 =\n    a = 1\n  region = x", "s3", "\na = 1"),
    ("a key above the others' margin", "  a = 1\nregion = x", "region", "x"),
    ("a value that goes on below without a key", "region = x\n  y", "region", "x\ny"),
    ("also over a comment", "region = x\n# c = d\n  y", "region", "x\ny"),
    ("a key after a half raw value", "a = `x\nregion = y", "region", "y"),
    ("and that value", "region = `x\na = y", "region", "`x"),
    ("three quotes alone", 'region = """\na = y', "region", '"""'),
    ("a backslash with nothing to join", "region = x\\\n\n", "region", "x\\"),
    ("a carriage return alone ends a line", "a = 1\rregion = x", "region", "x"),
    ("a key in single quotes is another", "'region' = x", "region", None),
    ("blanks that are no ASCII", "\u00a0region\u00a0=\u00a0x\u2003", "region", "x"),
    ("a header after a form feed", "\x0c[profile q]\nregion = x", "region", None),
]  # fmt: skip
DIFFERENT = [
    ("a tab and a hash begin a comment", "region = a\t# b", "region", "a", "a\t# b"),
    ("a comment is the whole value", "region = # x", "region", "", "# x"),
    ("without a blank before it, too", "region =# x", "region", "", "# x"),
    ("a semicolon as well", "region = ; x # y", "region", "", "; x # y"),
    ("nested values behind a comment", "s3 = # local minio\n  endpoint_url = http://x", "s3", "\nendpoint_url = http://x", "# local minio\nendpoint_url = http://x"),
    ("a comment between joined lines", "region = us-\\\n  # x\n  west-2", "region", "us-west-2", "us-\\\nwest-2"),
    ("what is no key is joined", "region = us-\\\nwest-2", "region", "us-west-2", ERROR),
    ("an indented line that looks like a key is joined", "a = x \\\n  --b=c", "a", "x --b=c", "x \\\n--b=c"),
    # aws-vault joins it too, and loses role_arn or mfa_serial in the comment.
    ("a comment's backslash joins nothing", "a = x # C:\\\n  region = y", "region", "y", None),
    ("joined lines have comments", "region = us-\\\n  west-2 # x", "region", "us-west-2", "us-\\\nwest-2 # x"),
    # aws-vault takes what follows a raw value away.
    ("a comment behind back-quotes", "region = `a#b` # x", "region", "a#b", "`a#b` # x"),
    ("a raw value over lines, though one looks like a key", "a = `x\n  region = y`\nb = 1", "a", "x\nregion = y", "`x\nregion = y`"),
    ("a raw value whose lines stand at the margin", "a = `x\ny`", "a", "x\ny", ERROR),
    # botocore knows a header at the margin or after nothing only, as a value's last line it is none.
    ("an indented header ends a value", "a = x\n  [profile q]\n  region = y", "a", "x", "x\n[profile q]\nregion = y"),
    # aws-vault reads all that is indented below an empty value as nested.
    ("nested values below an indented key", "a = x\n  s3 =\n    b = 1\n  region = y", "region", "y", None),
    ("a nested line without an equals sign", "s3 =\n  a", "s3", "\na", ERROR),
    ("a nested colon", "s3 =\n  a: b", "s3", "\na: b", ERROR),
    ("an empty value in quotes is nested", "s3 = ''\n  a = 1", "s3", "\na = 1", "''\na = 1"),
    ("a key in back-quotes", "`region` = x", "region", "x", None),
    ("blank and hash begin a comment", "region = x # y", "region", "x", "x # y"),
    ("blank and semicolon begin a comment", "region = x ; y", "region", "x", "x ; y"),
    ("the hash comes first, wherever it stands", "region = x ; y # z", "region", "x ; y", "x ; y # z"),
    ("the first of two hashes", "region = x # y # z", "region", "x", "x # y # z"),
    ("double quotes are dropped", 'region = "x"', "region", "x", '"x"'),
    ("single quotes are dropped", "region = 'x y'", "region", "x y", "'x y'"),
    ("quotes do not protect a comment", 'region = "a # b"', "region", '"a', '"a # b"'),
    ("back-quotes are raw", "region = `a # b`", "region", "a # b", "`a # b`"),
    ("as aws-vault's fork writes a URL", "sso_start_url = `https://x/start#/`", "sso_start_url", "https://x/start#/", "`https://x/start#/`"),
    ("three quotes are raw", 'region = """a ` # b"""', "region", "a ` # b", '"""a ` # b"""'),
    ("quotes inside back-quotes stay", "region = `'a'`", "region", "'a'", "`'a'`"),
    ("a quoted key", '"region" = x', "region", "x", None),
    ("a backslash joins lines", "region = us-\\\n    west-2", "region", "us-west-2", "us-\\\nwest-2"),
    ("and blanks after it do not matter", "region = us-\\  \n\twest-2", "region", "us-west-2", "us-\\\nwest-2"),
    ("an indented line after a value is a key", "region = x\n  output = json", "region", "x", "x\noutput = json"),
    ("and is read as one", "region = x\n  output = json", "output", "json", None),
    ("the last of repeated keys wins", "region = x\nregion = y", "region", "y", ERROR),
    ("in any case", "region = x\nREGION = y", "region", "y", ERROR),
    ("also an empty one", "region = x\nregion =", "region", "", ERROR),
    ("repeated sections are merged", "region = x\na = 1\n[profile p]\nregion = y", "region", "y", ERROR),
    ("and keep their other keys", "region = x\na = 1\n[profile p]\nregion = y", "a", "1", ERROR),
    ("[DEFAULT] is nobody's", "a = 1\n[DEFAULT]\nregion = x", "region", None, "x"),
]  # fmt: skip
NAMES = [
    ("plain", "[profile a b]", ["a b"], ERROR),
    ("double quotes, as the AWS CLI writes them", '[profile "a b"]', ["a b"], ["a b"]),
    ("single quotes", "[profile 'a b']", ["a b"], ["a b"]),
    ("quotes inside", "[profile a\"b\"]", ["ab"], ["ab"]),
    ("quotes of both kinds, as the AWS CLI writes a quote", "[profile 'a'\"'\"'b c']", ["a'b c"], ["a'b c"]),
    ("a backslash", "[profile a\\ b]", ["a b"], ["a b"]),
    ("quotes around it all", "[profile \"a\" ]", ["a"], ["a"]),
    ("half a pair of quotes", '[profile "a]', ['"a'], ERROR),
    ("two blanks", "[profile  a]", ["a"], ["a"]),
    ("a tab", "[profile\ta]", ["a"], ["a"]),
    ("a blank behind it", "[profile a ]", ["a"], ["a"]),
    ("a longer first word", "[profiles a]", ["a"], ["a"]),
    ("upper case", "[Profile a]", [], []),
    ("blanks inside the brackets", "[ profile a ]", [], []),
    ("no blank", "[profilea]", [], ERROR),
    ("brackets in a name", "[profile a[b]c]", ["a[b]c"], ["a[b]c"]),
    ("text after it", "[profile a] # x", ["a"], ["a"]),
    ("an indented header", "  [profile a]", ["a"], ["a"]),
    ("no name", "[profile ]", [], ERROR),
    ("a default with keys", "[default]\nregion=x", ["default"], ["default"]),
    ("an empty default", "[default]\n# nothing", [], ["default"]),
    ("[profile default]", "[profile default]\nregion=x", ["default"], ["default"]),
    ("both of them", "[default]\nx=1\n[profile default]\nregion=x", ["default"], ["default"]),
    ("an sso-session", "[sso-session a]\nx=1", [], []),
]  # fmt: skip


def of_botocore(tmp_path, text):
    """Name -> keys of the profiles, as botocore reads a text; ERROR if it does not."""
    (tmp_path / "config").write_bytes(text.encode("utf-8", "surrogateescape"))
    try:
        return botocore_load(str(tmp_path / "config"))["profiles"]
    except (ConfigParseError, ValueError, IndexError):
        return ERROR


def nested_text(value):
    """botocore parses nested values; we keep their text."""
    return (
        "".join(f"\n{key} = {inner}" for key, inner in value.items())
        if isinstance(value, dict)
        else value
    )


@pytest.mark.parametrize(("what", "lines", "key", "value"), SAME, ids=[row[0] for row in SAME])
def test_the_dialect_is_botocores(tmp_path, what, lines, key, value):
    text = f"[profile p]\n{lines}\n"
    assert ConfigFile("config", text).section("profile p").get(key) == value
    theirs = of_botocore(tmp_path, text)
    assert theirs is not ERROR
    assert nested_text(theirs["p"].get(key)) == value


@pytest.mark.parametrize(
    ("what", "lines", "key", "value", "botocores"), DIFFERENT, ids=[row[0] for row in DIFFERENT]
)
def test_the_dialect_is_aws_vaults_where_its_users_wrote_otherwise(
    tmp_path, what, lines, key, value, botocores
):
    text = f"[profile p]\n{lines}\n"
    assert ConfigFile("config", text).section("profile p").get(key) == value
    theirs = of_botocore(tmp_path, text)
    assert (theirs if theirs is ERROR else theirs["p"].get(key)) == botocores
    assert value != botocores


@pytest.mark.parametrize(
    ("what", "header", "ours", "botocores"), NAMES, ids=[row[0] for row in NAMES]
)
def test_names_of_profiles(tmp_path, what, header, ours, botocores):
    assert ConfigFile("config", header + "\n").profile_names() == ours
    theirs = of_botocore(tmp_path, header + "\n")
    if botocores is not ERROR:
        assert list(theirs) == botocores


@pytest.mark.parametrize(
    "headers",
    [("[default]", "[profile default]"), ("[profile default]", "[default]"),
     ("[profile p]", "[profile  p]"), ('[profile "p"]', "[profile p]")],
)  # fmt: skip
def test_of_headers_that_are_written_differently_the_later_counts(tmp_path, headers):
    text = f"{headers[0]}\nregion = wrong\na = 1\n{headers[1]}\nregion = right\n"
    name = "default" if "default" in text else "p"
    section = ConfigFile("config", text).section(awsvault.profile_section(name))
    assert section == of_botocore(tmp_path, text)[name] == {"region": "right"}


ODD_NAMES = st.text(alphabet="ab \t'\"\\[]#;ü", min_size=1, max_size=8)


@settings(
    max_examples=200, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(ODD_NAMES)
def test_the_header_that_add_writes_is_read_as_that_name(tmp_path, name):
    text = f"{awsvault.profile_header(name)}\nregion = x\n"
    assert ConfigFile("config", text).profile_names() == [name]
    assert list(of_botocore(tmp_path, text)) == [name]


def test_names_are_listed_once_in_the_order_of_the_file():
    text = "[profile b]\nx=1\n[profile a]\nx=1\n[default]\nx=1\n[profile b]\ny=1\n[other]\n"
    assert ConfigFile("config", text).profile_names() == ["b", "a", "default"]


def test_no_inheritance_by_dots():
    assert resolve("[profile a]\nregion=x\n[profile a.b]\n", "a.b").endpoint.region == ""


@pytest.mark.parametrize(
    ("what", "data", "region"),
    [
        ("a BOM", b"\xef\xbb\xbf[profile p]\nregion = x\n", "x"),
        ("carriage returns", b"[profile p]\r\nregion = x\r\nmfa_serial = GAHT12345678\r\n", "x"),
        ("a BOM, carriage returns, joined lines", b"\xef\xbb\xbf[profile p]\r\nregion = a\\\r\n  b\r\n", "ab"),
        ("no newline at the end", b"[profile p]\nregion = x", "x"),
        ("bytes that are no UTF-8", b"[profile p]\nregion = x\nname = \xff\xfe\n", "x"),
        ("a tab", b"[profile p]\n\tregion\t=\tx\n", "x"),
        ("keys before any section", b"region = y\n[profile p]\nregion = x\n", "x"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)  # fmt: skip
def test_encodings_and_line_ends(home, what, data, region):
    assert resolve_file(home, data).endpoint.region == region


def resolve_file(home, data, environ=None):
    path = home / "config"
    path.write_bytes(data)
    path.chmod(0o600)
    world = FakeWorld(home, {"AWS_CONFIG_FILE": str(path), **(environ or {})})
    return load_profile(awsvault.load_config(world), "p", {}, {}, ["p"])


@pytest.mark.parametrize("encoding", ["utf-16", "utf-16-le", "utf-32"])
def test_another_encoding_is_said_so(home, encoding):
    with pytest.raises(ConfigError, match="UTF-8"):
        resolve_file(home, "[profile p]\nregion = x\n".encode(encoding))


# -- what cannot be parsed -------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "line"),
    [
        ("[profile p]\nregion = x\nwhat is this\n", 3),
        ("[profile p]\n= x\n", 2),
        ("[profile p]\n\n\n: x\n", 4),
        ("[profile p\nregion = x\n", 1),
        ("[profile p]\n[]\n", 2),
        ("# x\n\n[profile p]\nregion = a\\\n  b\nnonsense\n", 6),
        ("[profile p]\ncert = `a\n  b`\nnonsense\n", 4),
        ('[profile p]\n"" = x\n', 2),
    ],
)
def test_a_line_that_cannot_be_read_is_named(text, line):
    with pytest.raises(ConfigError, match=f"^config, line {line}: ") as caught:
        resolve(text)
    assert caught.value.exit_code == 2


def test_another_profiles_bad_line_is_no_obstacle():
    assert resolve("[profile q]\nnonsense\n[profile p]\nregion = x\n").endpoint.region == "x"


WORDS = ["[profile p]", "[profile q]", "[default]", "[services s]", "[sso-session x]", "[", "]", "[]", "region", "source_profile", "include_profile",
         "mfa_serial", "duration_seconds", "endpoint_url", "session_tags", "=", ":", " ", "  ", "\t", "\n", "\n", "\n  ", "\r\n", "\r", "\\", "\\\n", '"', "'", "`",
         '"""', "#", " #", ";", " ;", "%(x)s", "p", "q", "default", "http://x", "https://[::1", "3600", "0", "-1", "1h", "\x00", "\x0b", "\x0c", "\x1c", "\x85", "\u2028", "\ufeff", "\udcff", "rem"]  # fmt: skip


@settings(max_examples=1500, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(st.lists(st.sampled_from(WORDS) | st.text(max_size=3), max_size=40).map("".join))
def test_any_text_is_read_or_refused_with_a_config_error(text):
    try:
        config = ConfigFile("config", text)
        names = config.profile_names()
    except ConfigError:
        return
    for name in [*names, "p", "services s"]:
        refusals = [refusal(config.section, name), refusal(resolve, text, name, stored=("p", "q"))]
        assert not [text for text in refusals if any(map(awsvault.is_control, text))]


def refusal(act, *args, **kwargs):
    """What the ConfigError of a call says; nothing if it has none."""
    try:
        act(*args, **kwargs)
    except ConfigError as error:
        return error.message
    return ""


@pytest.mark.parametrize("key", ["[x]", "#x", ";x", "[profile q]"])
def test_a_quoted_key_is_no_header_and_no_comment(key):
    section = ConfigFile("config", f'[profile p]\n"{key}" =\n  a = b\nregion = y\n').section(
        "profile p"
    )
    assert section == {key: "\na = b", "region": "y"}


# -- any file, beside botocore ---------------------------------------------------------------------

PIECES = ["x", "a b", "a=b", "a:b", "C:\\d\\", "us-\\ ", "\\", "# c", " # c", "\t;c", " ; c # d", "; c", "a#b", "a;b", '"', "'", '"q"', "'q r'", '"a" "b"', "`", "`r # s`", '"""',
          '"""t"""', "", " ", "\t", "[x]", "%", "ü", "\u00a0"]  # fmt: skip
INDENTS = st.sampled_from(["", "", "", " ", "  ", "\t", "    "])
VALUES = st.lists(st.sampled_from(PIECES), max_size=3).map("".join)
LINES = st.tuples(
    INDENTS,
    st.sampled_from(["{key} = ", "{key}=", "{key}:", "{key} =", "#", "; ", "# {key} = ", "", " ", "bare "]),
    VALUES,
)  # fmt: skip


def key_of(line):
    """A line's key, each blank in it one; none where there is no `=` or `:`, or nothing before."""
    found = re.match(r"\s*([^=:]+?)\s*[=:]", line)
    return found and " ".join(re.sub(r"^([`\"])(.*)\1$", r"\2", found[1]).lower().split())


def uncommented(line):
    """A line of a value without its comment, as the docs say."""
    mark = "#" if re.search(r"^[#;]|[ \t]#", line) else ";"
    return re.sub(rf"^[#;].*|[ \t]+{mark}.*", "", line).rstrip()


def by_the_rules(value):
    """What we read of a value that botocore reads, and the first key that is our own below it.

    botocore takes all that stands deeper than a key for its value. In there are the differences.
    """
    first, *rest = value.split("\n")
    for mark in ("`", '"""'):
        for count in range(len(rest) + 1):
            raw = "\n".join([first, *rest[:count]])
            if raw.startswith(mark) and mark in raw[len(mark) :].split("\n")[-1]:
                if raw[len(mark) :].startswith(mark) and raw.count(mark) == 2:
                    return "\n".join(["", *rest]), None  # empty, so nested
                below, own = until_key(rest[count:])
                return "\n".join([raw, *below])[len(mark) :].rpartition(mark)[0], own
    joined = uncommented(first)
    while joined.endswith("\\") and rest and rest[0]:
        joined = joined[:-1] + uncommented(rest.pop(0))
    quoted = re.fullmatch(r"""(["'])((?:(?!\1).)*)\1""", joined)
    plain = quoted[2] if quoted else joined
    if not plain:
        return "\n".join(["", *rest]), None
    below, own = until_key(rest)
    return "\n".join([joined, *below]) if any(below) else plain, own


def until_key(lines):
    """The lines up to the first that has a key, and that."""
    count = next((number for number, line in enumerate(lines) if key_of(line)), len(lines))
    return lines[:count], key_of(lines[count]) if count < len(lines) else None


@settings(max_examples=400, deadline=None, suppress_health_check=list(HealthCheck))
@given(st.lists(LINES, max_size=8))
def test_any_file_is_read_as_botocore_reads_it_but_for_the_rules_in_the_docs(tmp_path, lines):
    written = [
        indent + form.format(key=f"k{number}") + value
        for number, (indent, form, value) in enumerate(lines)
    ]
    # An indented header is one for aws-vault and us: a row of the table.
    assume(not any(line.lstrip().startswith("[") for line in written))
    keys = list(filter(None, map(key_of, written)))
    assume(len(keys) == len(set(keys)))
    text = "\n".join(["[profile p]", *written])
    (tmp_path / "config").write_text(text, encoding="utf-8")
    try:
        theirs = raw_config_parse(str(tmp_path / "config"), parse_subsections=False)
    except (ConfigParseError, ValueError):
        assume(False)
    assume(list(theirs) == ["profile p"])
    ours = ConfigFile("config", text).section("profile p")
    expected, below = {}, set()
    for key, value in theirs["profile p"].items():
        expected[key_of(f"{key}=")], own = by_the_rules(value)
        below |= {own} - {None}
    # No key of botocore's is lost in another value, and none is there that nobody wrote.
    assert {key: one_break(ours[key]) for key in expected} == {
        key: one_break(value) for key, value in expected.items()
    }
    assert below <= set(ours)
    inside = [line for value in theirs["profile p"].values() for line in value.split("\n")[1:]]
    assert set(ours) <= {*expected, *map(key_of, inside)}


def one_break(value):
    """A value without its empty lines, which mean nothing."""
    return re.sub("\n+", "\n", value).rstrip("\n")


TAME = st.text(alphabet="abc-.:/=#;%$~üX0 '\"", min_size=1, max_size=12).map(str.strip).filter(
    lambda value: value and value[0] not in "'\"#;" and " #" not in value and " ;" not in value
)  # fmt: skip


@settings(
    max_examples=200, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(st.dictionaries(st.from_regex(r"[a-z_]{1,8}", fullmatch=True), TAME, max_size=6))
def test_what_a_person_writes_is_read_as_botocore_reads_it(tmp_path, values):
    text = "[profile p]\n" + "".join(f"{key} = {value}\n" for key, value in values.items())
    assert (
        ConfigFile("config", text).section("profile p")
        == values
        == of_botocore(tmp_path, text)["p"]
    )


def test_the_command_s_copy_is_read_by_the_same_rules():
    kept = "[profile p]\nregion = a\\\n  b # x\n"
    gone = "# C:\\aws\\\nrole_arn = x\n  s3 = # y\n    sso_region = z\n  sso_session = z\n"
    header = '[profile "p"]' + "\n"
    copy = awsvault.private_config(kept + header + gone, {"p": {"credential_process": "ours"}})
    assert ConfigFile("config", copy).section("profile p").get("role_arn") is None
    assert ConfigFile("config", copy).section("profile p").get("sso_session") is None
    assert copy.count("credential_process = ours\n") == 2


# -- what beats what ------------------------------------------------------------------

LAYERS = """
[default]
region = default
[profile base]
region = base
[profile p]
include_profile = base
region = own
"""


@pytest.mark.parametrize(
    ("what", "flags", "environ", "text", "region"),
    [
        ("the flag", {"region": "flag"}, {"AWS_REGION": "env"}, LAYERS, "flag"),
        ("then AWS_REGION", {}, {"AWS_REGION": "env", "AWS_DEFAULT_REGION": "env2"}, LAYERS, "env"),
        ("then AWS_DEFAULT_REGION", {}, {"AWS_DEFAULT_REGION": "env2"}, LAYERS, "env2"),
        ("then the section", {}, {}, LAYERS, "own"),
        ("then include_profile", {}, {}, LAYERS.replace("region = own", ""), "base"),
        ("then [default]", {}, {}, LAYERS.replace("region = own", "").replace("region = base", ""), "default"),
        ("then nothing, which is no error", {}, {}, "[profile p]\n", ""),
        ("an empty flag is none", {"region": ""}, {}, LAYERS, "own"),
        ("an empty variable is none", {}, {"AWS_REGION": ""}, LAYERS, "own"),
        ("an empty value is none", {}, {}, LAYERS.replace("= own", "="), "base"),
        ("an empty value in quotes is none", {}, {}, LAYERS.replace("= own", "= ''"), "base"),
    ],
    ids=lambda value: value if isinstance(value, str) and "\n" not in value else "",
)  # fmt: skip
def test_what_beats_what(what, flags, environ, text, region):
    assert resolve(text, flags=flags, environ=environ).endpoint.region == region


ARN = "arn:aws:iam::111111111111:role/r"


@pytest.mark.parametrize(
    ("variable", "text", "attribute", "mine", "my_sources"),
    [
        ("AWS_REGION", "x", lambda p: p.endpoint.region, "x", "x"),
        ("AWS_MFA_SERIAL", "GAHT12345678", lambda p: p.mfa_serial, "GAHT12345678", "GAHT12345678"),
        ("AWS_ENDPOINT_URL", "https://e.test", lambda p: p.endpoint.url, "https://e.test", "https://e.test"),
        ("AWS_STS_REGIONAL_ENDPOINTS", "legacy", lambda p: p.endpoint.regional, "legacy", "legacy"),
        ("AWS_USE_FIPS_ENDPOINT", "true", lambda p: p.endpoint.fips, True, True),
        ("AWS_USE_DUALSTACK_ENDPOINT", "true", lambda p: p.endpoint.dual_stack, True, True),
        ("AWS_CA_BUNDLE", "/ca.pem", lambda p: p.endpoint.ca_bundle, "/ca.pem", "/ca.pem"),
        ("AWS_RETRY_MODE", "adaptive", lambda p: p.endpoint.retry_mode, "adaptive", "adaptive"),
        ("AWS_MAX_ATTEMPTS", "5", lambda p: p.endpoint.max_attempts, 5, 5),
        ("AWS_ASSUME_ROLE_TTL", "2h", lambda p: p.role_duration.length, 2 * HOUR, 2 * HOUR),
        ("AWS_SESSION_TOKEN_TTL", "2h", lambda p: p.session_duration.length, 2 * HOUR, 2 * HOUR),
        ("AWS_CHAINED_SESSION_TOKEN_TTL", "2h", lambda p: p.chained_session_duration.length, 2 * HOUR, 2 * HOUR),
        ("AWS_ROLE_ARN", ARN, lambda p: p.role_arn, ARN, ""),
        ("AWS_ROLE_SESSION_NAME", "me", lambda p: p.role_session_name, "me", ""),
        ("AWS_SESSION_TAGS", " a = b , c=d=e", lambda p: p.session_tags, (("a", "b"), ("c", "d=e")), ()),
        ("AWS_TRANSITIVE_TAGS", "a, b,", lambda p: p.transitive_tags, ("a", "b"), ()),
        ("AWS_SOURCE_IDENTITY", "me", lambda p: p.source_identity, "me", ""),
        ("AWS_EXTERNAL_ID", "x", lambda p: p.external_id, "", ""),
        ("AWS_PROFILE", "x", lambda p: p.name, "p", "s"),
        ("AWS_WEB_IDENTITY_TOKEN_FILE", "x", lambda p: p.other_source, "", ""),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)  # fmt: skip
def test_which_variables_are_read_and_for_whom(variable, text, attribute, mine, my_sources):
    found = resolve("[profile s]\n[profile p]\nsource_profile = s\n", environ={variable: text})
    assert attribute(found) == mine
    assert attribute(found.source) == my_sources


def test_flags_are_everybodys():
    found = resolve(
        "[profile s]\nregion = x\n[profile p]\nsource_profile = s\n",
        flags={"region": "flag", "duration_seconds": "2h"},
    )
    assert (found.endpoint.region, found.source.endpoint.region) == ("flag", "flag")
    assert found.source.role_duration.length == 2 * HOUR


def test_a_chain_without_end_is_refused():
    text = "".join(f"[profile p{n}]\nsource_profile = p{n + 1}\n" for n in range(1500))
    with pytest.raises(ConfigError, match="goes over more than 200 profiles"):
        resolve(f"{text}[profile p1500]\n", "p0")
    assert resolve(f"{text}[profile p1500]\n", "p1400").source.name == "p1401"


# -- what is inherited from [default] ----------------------------------------------

INHERITED = [
    ("region", "x", lambda p: p.endpoint.region),
    ("mfa_serial", "GAHT12345678", lambda p: p.mfa_serial),
    ("mfa_process", "cmd", lambda p: p.mfa_process),
    ("duration_seconds", "7200", lambda p: p.role_duration.origin),
    ("endpoint_url", "https://e.test", lambda p: p.endpoint.url),
    ("sts_regional_endpoints", "legacy", lambda p: p.endpoint.regional),
    ("use_fips_endpoint", "true", lambda p: p.endpoint.fips),
    ("use_dualstack_endpoint", "true", lambda p: p.endpoint.dual_stack),
    ("ca_bundle", "/ca.pem", lambda p: p.endpoint.ca_bundle),
    ("retry_mode", "standard", lambda p: p.endpoint.retry_mode),
    ("max_attempts", "5", lambda p: p.endpoint.max_attempts),
]  # fmt: skip
NOT_INHERITED = [
    ("role_arn", ARN, lambda p: p.role_arn),
    ("source_profile", "s", lambda p: p.source),
    ("role_session_name", "me", lambda p: p.role_session_name),
    ("external_id", "ex", lambda p: p.external_id),
    ("session_tags", "a=b", lambda p: p.session_tags),
    ("transitive_session_tags", "a", lambda p: p.transitive_tags),
    ("source_identity", "me", lambda p: p.source_identity),
    ("credential_source", "Environment", lambda p: p.other_source),
    ("credential_process", "cmd", lambda p: p.other_source),
    ("web_identity_token_file", "f", lambda p: p.other_source),
    ("web_identity_token_process", "cmd", lambda p: p.other_source),
    ("sso_session", "x", lambda p: p.other_source),
    ("sso_start_url", "https://x", lambda p: p.other_source),
]  # fmt: skip


@pytest.mark.parametrize(("key", "text", "attribute"), INHERITED, ids=[row[0] for row in INHERITED])
def test_every_profile_has_it_from_default(key, text, attribute):
    assert attribute(resolve(f"[default]\n{key} = {text}\n[profile p]\n"))
    assert attribute(resolve(f"[profile p]\n{key} = {text}\n"))
    assert attribute(resolve(f"[default]\n{key} = {text}\n", "default"))


@pytest.mark.parametrize(
    ("key", "text", "attribute"), NOT_INHERITED, ids=[row[0] for row in NOT_INHERITED]
)
def test_no_profile_gets_an_identity_from_default(key, text, attribute):
    stored = ("p", "s")
    assert not attribute(resolve(f"[default]\n{key} = {text}\n[profile p]\n", stored=stored))
    assert attribute(resolve(f"[profile p]\n{key} = {text}\n", stored=stored))
    assert attribute(resolve(f"[default]\n{key} = {text}\n", "default", stored=stored))
    assert attribute(
        resolve(f"[profile b]\n{key} = {text}\n[profile p]\ninclude_profile = b\n", stored=stored)
    )


def test_a_profile_that_only_stores_keys_has_the_default_too():
    assert (
        resolve("[default]\nregion = x\n", "stored-only", stored=("stored-only",)).endpoint.region
        == "x"
    )


def test_default_included_by_name_is_a_section_like_any_other():
    text = f"[default]\nrole_arn = {ARN}\nregion = x\n[profile p]\ninclude_profile = default\n"
    found = resolve(text)
    assert found.endpoint.region == "x"
    assert found.role_arn == ARN


# -- circles ----------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "circle"),
    [
        (
            "[profile p]\nsource_profile=q\n[profile q]\nsource_profile=p\n",
            "source_profile goes in a circle: p -> q -> p",
        ),
        (
            "[profile p]\nsource_profile=a\n[profile a]\nsource_profile=b\n[profile b]\nsource_profile=a\n",
            "a -> b -> a",
        ),
        ("[default]\nsource_profile=p\n[profile p]\nsource_profile=default\n", "p -> default -> p"),
        (
            "[profile p]\ninclude_profile=q\n[profile q]\ninclude_profile=p\n",
            "include_profile goes in a circle: p -> q -> p",
        ),
        ("[profile p]\ninclude_profile=p\n", "p -> p"),
        (
            "[profile p]\ninclude_profile=a\n[profile a]\ninclude_profile=b\n[profile b]\ninclude_profile=a\n",
            "a -> b -> a",
        ),
        (
            "[default]\ninclude_profile=a\n[profile a]\ninclude_profile=b\n[profile b]\ninclude_profile=a\n[profile p]\n",
            "a -> b -> a",
        ),
        ("[profile p]\nsource_profile=q\n[profile q]\ninclude_profile=q\n", "q -> q"),
    ],
)
def test_a_circle_is_an_error_that_names_it(text, circle):
    # Keys stored for p would end aws-vault's walk; the circle is there all the same.
    with pytest.raises(ConfigError) as caught:
        resolve(text, stored=("p",))
    assert circle in caught.value.message


@pytest.mark.parametrize(
    ("text", "region"),
    [
        ("[profile p]\nsource_profile=p\nregion=x\n", "x"),
        ("[profile b]\nsource_profile=p\nregion=x\n[profile p]\ninclude_profile=b\n", "x"),
        ("[default]\ninclude_profile=b\n[profile b]\nregion=x\n[profile p]\n", "x"),
        ("[default]\ninclude_profile=p\n[profile p]\nregion=x\n", "x"),
        ("[default]\ninclude_profile=p\nregion=y\n[profile p]\n", "y"),
        ("[default]\ninclude_profile=default\nregion=x\n[profile p]\n", "x"),
        (
            "[default]\nregion=x\n[profile p]\ninclude_profile=b\n[profile b]\ninclude_profile=default\n",
            "x",
        ),
    ],
)
def test_what_is_no_circle(text, region):
    found = resolve(text)
    assert found.endpoint.region == region
    assert found.source is None


def test_a_missing_include_or_source_is_named_with_the_closest():
    with pytest.raises(ConfigError, match=r"section \[profile p\].*'bsae'") as caught:
        resolve("[profile base]\nx=1\n[profile p]\ninclude_profile=bsae\n")
    assert caught.value.hint == "did you mean base?"
    with pytest.raises(
        ConfigError, match=r"section \[profile p\], source_profile.*'sotred'"
    ) as caught:
        resolve("[profile p]\nsource_profile=sotred\n", stored=("stored",))
    assert caught.value.hint == "did you mean stored?"


def test_a_source_may_be_stored_only():
    assert resolve("[profile p]\nsource_profile=s\n", stored=("s",)).source.name == "s"


# -- bad values ----------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("key", "text", "says"),
    [
        ("duration_seconds", "soon", "duration"),
        ("duration_seconds", "-5", "duration"),
        ("duration_seconds", "1800.5", "duration"),
        ("duration_seconds", "0x708", "duration"),
        ("use_fips_endpoint", "yes", "neither true nor false"),
        ("use_dualstack_endpoint", "on", "neither true nor false"),
        ("ignore_configured_endpoint_urls", "ja", "neither true nor false"),
        ("max_attempts", "0", "number"),
        ("max_attempts", "many", "number"),
        ("retry_mode", "never", "legacy"),
        ("session_tags", "a", "key=value"),
        ("session_tags", "a=b,", "key=value"),
        ("session_tags", "=b", "key=value"),
        ("endpoint_url", "sts.example.test", "URL"),
        ("endpoint_url", "ftp://x", "URL"),
        ("endpoint_url", "https://", "URL"),
        ("endpoint_url", "https://[::1", "URL"),
        ("endpoint_url", "https://x:99999", "URL"),
        ("endpoint_url", "http://sts.example.test", "plain http"),
        ("endpoint_url", "http://127.0.0.1.example.test", "plain http"),
        ("endpoint_url", "http://localhost@evil.test", "URL"),
        ("endpoint_url", "https://x:0", "URL"),
        ("mfa_serial", "x", "no serial number"),
        ("role_arn", "foo", "no ARN of a role"),
        ("role_arn", "arn:aws:iam::111111111111:user/jon", "no ARN of a role"),
        ("role_session_name", "a b", "not 2 to 64"),
        ("source_identity", "x", "not 2 to 256"),
        ("external_id", "x", "not 2 to 1224"),
        ("region", "x y", "no name of a region"),
        ("region", "a.b/c", "no name of a region"),
        ("sts_regional_endpoints", "zz", "neither legacy nor regional"),
    ],
)
def test_a_bad_value_names_file_section_and_key(key, text, says):
    with pytest.raises(ConfigError) as caught:
        resolve(f"[profile p]\n{key} = {text}\n")
    shown = awsvault.shown_url(text) if key == "endpoint_url" else text
    assert f"config, section [profile p], {key}: '{shown}' is " in caught.value.message
    assert says in caught.value.message
    assert caught.value.exit_code == 2


@pytest.mark.parametrize(
    ("variable", "text"),
    [("AWS_ASSUME_ROLE_TTL", "soon"), ("AWS_ASSUME_ROLE_TTL", "3600"), ("AWS_SESSION_TOKEN_TTL", "1x"), ("AWS_CHAINED_SESSION_TOKEN_TTL", "-1h"),
     ("AWS_SESSION_TAGS", "a"), ("AWS_USE_FIPS_ENDPOINT", "yes"), ("AWS_ENDPOINT_URL", "x"), ("AWS_ENDPOINT_URL_STS", "http://x.test"), ("AWS_MAX_ATTEMPTS", "x"), ("AWS_RETRY_MODE", "x"),
     ("AWS_ROLE_ARN", "x"), ("AWS_MFA_SERIAL", "x"), ("AWS_REGION", "x y"), ("AWS_STS_REGIONAL_ENDPOINTS", "zz")],
)  # fmt: skip
def test_a_bad_variable_names_itself(variable, text):
    with pytest.raises(ConfigError, match=f"^{variable}: '"):
        resolve("[profile p]\n", environ={variable: text})


def test_a_bad_value_in_a_section_that_is_not_used_is_no_obstacle():
    assert (
        resolve("[profile q]\nduration_seconds = soon\n[profile p]\nregion = x\n").endpoint.region
        == "x"
    )


def test_a_bad_value_that_something_beats_is_no_obstacle():
    assert (
        resolve(
            "[profile p]\nduration_seconds = soon\n", flags={"duration_seconds": "2h"}
        ).role_duration.length
        == 2 * HOUR
    )


def test_an_inherited_bad_value_names_the_section_it_stands_in():
    with pytest.raises(ConfigError, match=r"section \[default\], duration_seconds"):
        resolve("[default]\nduration_seconds = soon\n[profile p]\n")


# -- durations ---------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "flags", "environ", "role", "origin"),
    [
        ("", {}, {}, HOUR, ""),
        (
            "duration_seconds = 7200",
            {},
            {},
            2 * HOUR,
            "config, section [profile p], duration_seconds",
        ),
        (
            "duration_seconds = 2h",
            {},
            {},
            2 * HOUR,
            "config, section [profile p], duration_seconds",
        ),
        ("duration_seconds = 0", {}, {}, HOUR, ""),
        ("duration_seconds = 0s", {}, {}, HOUR, ""),
        ("duration_seconds =", {}, {}, HOUR, ""),
        ("duration_seconds = 7200", {"duration_seconds": "3h"}, {}, 3 * HOUR, "--duration"),
        (
            "duration_seconds = 7200",
            {"duration_seconds": "0"},
            {},
            2 * HOUR,
            "config, section [profile p], duration_seconds",
        ),
        (
            "duration_seconds = 7200",
            {"duration_seconds": ""},
            {},
            2 * HOUR,
            "config, section [profile p], duration_seconds",
        ),
        (
            "duration_seconds = 7200",
            {},
            {"AWS_ASSUME_ROLE_TTL": "3h"},
            3 * HOUR,
            "AWS_ASSUME_ROLE_TTL",
        ),
        (
            "duration_seconds = 7200",
            {},
            {"AWS_ASSUME_ROLE_TTL": "0"},
            2 * HOUR,
            "config, section [profile p], duration_seconds",
        ),
        (
            "duration_seconds = 7200",
            {},
            {"AWS_ASSUME_ROLE_TTL": ""},
            2 * HOUR,
            "config, section [profile p], duration_seconds",
        ),
    ],
)
def test_durations(text, flags, environ, role, origin):
    found = resolve(f"[profile p]\n{text}\n", flags=flags, environ=environ).role_duration
    assert (found.length, found.origin) == (role, origin)


def test_zero_leaves_the_word_to_default():
    assert (
        resolve(
            "[default]\nduration_seconds = 7200\n[profile p]\nduration_seconds = 0\n"
        ).role_duration.length
        == 2 * HOUR
    )


def test_the_built_in_durations_are_those_of_aws_vault():
    found = resolve("[profile p]\n")
    lengths = [
        duration.length
        for duration in (
            found.role_duration,
            found.session_duration,
            found.chained_session_duration,
        )
    ]
    assert lengths == [HOUR, HOUR, 8 * HOUR]


# -- endpoints -----------------------------------------------------------------------------------

SERVICES = "[services s]\nsts =\n  endpoint_url = https://services.test\n[profile p]\nservices = s\nendpoint_url = https://own.test\n"


@pytest.mark.parametrize(
    ("what", "environ", "text", "url"),
    [
        ("AWS_ENDPOINT_URL_STS", {"AWS_ENDPOINT_URL_STS": "https://sts.test", "AWS_ENDPOINT_URL": "https://all.test"}, SERVICES, "https://sts.test"),
        ("then AWS_ENDPOINT_URL", {"AWS_ENDPOINT_URL": "https://all.test"}, SERVICES, "https://all.test"),
        ("then the services section", {}, SERVICES, "https://services.test"),
        ("then the profile's own", {}, SERVICES.replace("services = s", ""), "https://own.test"),
        ("a services section without sts", {}, SERVICES.replace("sts =", "s3 ="), "https://own.test"),
        ("a services section that is nowhere", {}, SERVICES.replace("services = s", "services = x"), "https://own.test"),
        ("AWS_IGNORE_CONFIGURED_ENDPOINT_URLS", {"AWS_IGNORE_CONFIGURED_ENDPOINT_URLS": "true", "AWS_ENDPOINT_URL_STS": "https://sts.test"}, SERVICES, ""),
        ("ignore_configured_endpoint_urls", {"AWS_ENDPOINT_URL": "https://all.test"}, SERVICES + "ignore_configured_endpoint_urls = true\n", ""),
        ("an empty variable", {"AWS_ENDPOINT_URL_STS": "", "AWS_ENDPOINT_URL": ""}, SERVICES, "https://services.test"),
        ("http to this machine", {"AWS_ENDPOINT_URL": "http://127.0.0.1:4566"}, SERVICES, "http://127.0.0.1:4566"),
        ("http to this machine by IPv6", {"AWS_ENDPOINT_URL": "http://[::1]:4566"}, SERVICES, "http://[::1]:4566"),
        ("http to this machine by name", {"AWS_ENDPOINT_URL": "http://localhost:4566"}, SERVICES, "http://localhost:4566"),
        ("http elsewhere, if that is said", {"AWS_ENDPOINT_URL": "http://x.test", "AWS_VAULT_ALLOW_HTTP": "1"}, SERVICES, "http://x.test"),
    ],
    ids=lambda value: value if isinstance(value, str) and "\n" not in value and "//" not in value else "",
)  # fmt: skip
def test_which_endpoint(what, environ, text, url):
    assert resolve(text, environ=environ).endpoint.url == url


@pytest.mark.parametrize(("environ", "text"), [
    ({}, SERVICES), ({}, SERVICES.replace("services = s", "")), ({"AWS_ENDPOINT_URL": "https://all.test"}, SERVICES),
    ({"AWS_ENDPOINT_URL_STS": "https://sts.test", "AWS_ENDPOINT_URL": "https://all.test"}, SERVICES),
    ({"AWS_IGNORE_CONFIGURED_ENDPOINT_URLS": "true", "AWS_ENDPOINT_URL_STS": "https://sts.test"}, SERVICES),
], ids=["services", "own", "all", "sts", "ignored"])  # fmt: skip
def test_botocore_takes_the_same_endpoint(tmp_path, monkeypatch, environ, text):
    import botocore.session

    (tmp_path / "config").write_text(text)
    for name in [name for name in os.environ if name.startswith("AWS_")]:
        monkeypatch.delenv(name)
    for name, value in {"AWS_CONFIG_FILE": str(tmp_path / "config"), **environ}.items():
        monkeypatch.setenv(name, value)
    session = botocore.session.Session(profile="p")
    client = session.create_client(
        "sts", region_name="eu-west-1", aws_access_key_id="a", aws_secret_access_key="b"
    )
    assert client.meta.endpoint_url == (
        resolve(text, environ=environ).endpoint.url or "https://sts.eu-west-1.amazonaws.com"
    )


def test_a_bad_services_endpoint_names_where_it_stands():
    with pytest.raises(
        ConfigError, match=r"section \[services s\], endpoint_url: 'http://services.test'"
    ):
        resolve(SERVICES.replace("https://services", "http://services"))


# -- trust --------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("key", "text"),
    [("mfa_process", "cmd"), ("credential_process", "cmd"), ("web_identity_token_file", "f"), ("web_identity_token_process", "cmd"),
     ("endpoint_url", "https://x.test"), ("services", "s"), ("ca_bundle", "/ca.pem")],
)  # fmt: skip
def test_a_file_that_others_can_have_written_runs_nothing_and_leads_nowhere(key, text):
    with pytest.raises(
        ConfigError, match=f"{key}: not taken from a file that others can have written"
    ):
        resolve(f"[profile p]\n{key} = {text}\n", safe=False)


def test_and_may_say_the_rest():
    found = resolve(
        f"[profile s]\n[profile p]\nregion = x\nrole_arn = {ARN}\nsource_profile = s\n", safe=False
    )
    assert (found.endpoint.region, found.role_arn) == ("x", ARN)


@pytest.mark.parametrize(
    ("mode", "safe"), [(0o600, True), (0o644, True), (0o664, True), (0o666, False), (0o602, False)]
)
def test_who_can_have_written_a_file(home, mode, safe):
    path = home / "config"
    path.write_text("[profile p]\nregion = x\n")
    path.chmod(mode)
    world = FakeWorld(home, {"AWS_CONFIG_FILE": str(path)})
    assert awsvault.load_config(world).safe == safe
    world.failures["uid"] = lambda: os.geteuid() + 1
    assert awsvault.load_config(world).safe == (safe and os.geteuid() == 0)


# -- the file itself -----------------------------------------------------------------------------------


def test_a_missing_file_is_empty_and_is_not_made(home):
    config = awsvault.load_config(FakeWorld(home))
    assert config.profile_names() == []
    assert config.path == str(home / ".aws" / "config")
    assert list(home.iterdir()) == []


@pytest.mark.parametrize(
    ("make", "says"),
    [
        (lambda path: path.mkdir(), "is a directory"),
        (lambda path: path.symlink_to(path), "symbolic"),
        (lambda path: path.write_bytes(b"#" * (awsvault.MAX_CONFIG_BYTES + 1)), "too large"),
    ],
    ids=["a folder", "a link to itself", "a huge one"],
)
def test_a_file_that_cannot_be_read_is_a_config_error(home, make, says):
    path = home / "config"
    make(path)
    with pytest.raises(ConfigError, match=says) as caught:
        awsvault.load_config(FakeWorld(home, {"AWS_CONFIG_FILE": str(path)}))
    assert str(path) in caught.value.message


def test_a_tilde_in_the_variable_is_the_home(home):
    (home / "elsewhere").write_text("[profile p]\n")
    world = FakeWorld(home, {"AWS_CONFIG_FILE": "~/elsewhere"})
    assert awsvault.load_config(world).profile_names() == ["p"]


def test_five_thousand_profiles_are_not_parsed_for_one():
    text = (
        "".join(
            f"[profile p{n}]\nregion = r{n}\nsource_profile = p{n - 1}\n" for n in range(1, 5000)
        )
        + "[profile p0]\n"
    )
    config = ConfigFile("config", text)
    assert len(config.profile_names()) == 5000
    config = ConfigFile("config", text)
    assert load_profile(config, "p2", {}, {}, ["p2"]).endpoint.region == "r2"
    assert set(config._parsed) == {"profile p2", "profile p1", "profile p0", "default"}


def test_a_chain_of_any_depth():
    text = (
        "".join(f"[profile p{n}]\nsource_profile = p{n - 1}\n" for n in range(1, 200))
        + "[profile p0]\n"
    )
    found, depth = resolve(text, "p199"), 0
    while found.source:
        found, depth = found.source, depth + 1
    assert (found.name, depth) == ("p0", 199)


# -- files that would take long ---------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("[profile x]\n" + "\\\n" * 500_000, "section [profile x] is longer than 131,072 bytes"),
        ("[profile x]\na=" + "\\" * 1_000_000, "longer than"),
        ("[profile x]\na=`" + "b\n" * 500_000, "longer than"),
        ("[profile x]\n" + "bad\n" * 250_000, "longer than"),
        ("[profile x]\n" + "bad\n" * 30_000, "line 2: not a line of the form"),
        ("[profile x]\n" * 5000, "section [profile x] is longer than 131,072 bytes, or stands there too often"),
        ("[default]\n" * 300_000, "more than 50,000 sections"),
        ("".join(f"[profile p{i}]\n" for i in range(300_000)), "more than 50,000 sections"),
        ("[profile x]\ninclude_profile=p0\n" + "".join(f"[profile p{i}]\ninclude_profile=p{i + 1}\n" for i in range(20_000)),
         "include_profile goes over more than 200 profiles"),
    ],
    ids=lambda value: value[:40],
)  # fmt: skip
def test_a_file_that_would_take_long_is_refused_with_one_line(text, says):
    with pytest.raises(ConfigError) as caught:
        load_profile(ConfigFile("config", text), "x", {}, {}, ["x"])
    assert says in caught.value.message
    assert caught.value.message.count("\n") == 0


def test_comments_of_any_length_are_free():
    text = "[profile x]\nregion = eu-west-1\n" + "# commented = out\n" * 100_000
    assert ConfigFile("config", text).section("profile x") == {"region": "eu-west-1"}


@pytest.mark.parametrize(
    ("lines", "count"),
    [
        ("a" + " " * 120_000 + "b = c\n", 1),
        ("a = \\\n" + " \\\n" * 40_000, 1),
        ("a = x\\\n" + "  xx\\\n" * 20_000, 1),
        ("".join(f'k{n} = `\n  l{n} = """\n' for n in range(4000)), 8000),
        ("a = `\n" + '  b = """\n' * 12_000, 2),
        ("a =\n" + "  b\n" * 30_000, 1),
    ],
    ids=["blanks in a key", "backslashes", "joined lines", "raw values", "open ones", "nested"],
)
def test_a_section_of_any_form_is_read_in_linear_time(lines, count):
    assert len(ConfigFile("config", f"[profile x]\n{lines}").section("profile x")) == count
