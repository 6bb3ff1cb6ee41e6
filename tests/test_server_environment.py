"""What a command gets in the modes that put no credentials into its environment; botocore is the judge."""

from __future__ import annotations

import http.server
import json
import os
import stat
import threading

import botocore.session
import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

import awsvault

DOCUMENT = {
    "AccessKeyId": "ASIADUMMYSERVED00001",
    "SecretAccessKey": "dummy/served/secret",
    "Token": "dummy-token",
    "Expiration": "2999-01-01T00:00:00Z",
}
SERVER_NAMES = {
    "AWS_CONTAINER_CREDENTIALS_FULL_URI",
    "AWS_CONTAINER_AUTHORIZATION_TOKEN",
    "AWS_EC2_METADATA_SERVICE_ENDPOINT",
}


class _Handler(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        assert self.headers["Authorization"] == "token"
        body = json.dumps(DOCUMENT).encode()
        self.send_response(200)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_):
        pass


@pytest.fixture(scope="module")
def served():
    """The variables of a container endpoint that answers."""
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), _Handler)
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05})
    thread.start()
    yield {
        "AWS_CONTAINER_CREDENTIALS_FULL_URI": f"http://127.0.0.1:{server.server_port}/",
        "AWS_CONTAINER_AUTHORIZATION_TOKEN": "token",
    }
    server.shutdown()
    thread.join()
    server.server_close()


@pytest.fixture
def world(home):
    world = awsvault.World()
    world.environ = {"HOME": str(home), "PATH": os.defpath}
    (home / ".aws").mkdir()
    return world


def make(world, served, config="", region="", **environ):
    """The server environment of profile `prod`, with the person's config file as given."""
    path = os.path.join(world.home(), ".aws", "config")
    with open(path, "w", encoding="utf-8", newline="") as file:
        file.write(config)
    world.environ.update(environ)
    target = awsvault.ProfileConfig("prod", awsvault.Endpoint(region))
    return awsvault.private_environment(world, awsvault.load_config(world), [target], served)


def resolve(monkeypatch, environ, profile=None):
    """What botocore's own chain finds in an environment."""
    for name in list(os.environ):
        monkeypatch.delenv(name)
    for name, value in environ.items():
        monkeypatch.setenv(name, value)
    session = botocore.session.Session(profile=profile)
    return session, session.get_credentials()


def assert_served(monkeypatch, environ):
    session, credentials = resolve(monkeypatch, environ)
    assert credentials.method == "container-role"
    assert credentials.access_key == DOCUMENT["AccessKeyId"]
    return session


HOSTILE = {
    "keys": "aws_access_key_id = AKIADUMMYHOSTILE0001\naws_secret_access_key = s\n",
    "keys in capitals": "AWS_ACCESS_KEY_ID=AKIADUMMYHOSTILE0001\nAws_Secret_Access_Key: s\n",
    "half a pair": "aws_access_key_id = AKIADUMMYHOSTILE0001\n",
    "session": "aws_access_key_id=A\naws_secret_access_key=s\naws_session_token=t\n",
    "process": 'credential_process = echo {"Version":1}\n',
    "process over lines": "credential_process = echo\n    one\n\n    two = 2\n",
    "sso session": "sso_session = corp\nsso_account_id = 1\nsso_role_name = r\n",
    "sso": "sso_start_url = https://x.example/start\nsso_region = eu-west-1\n"
    "sso_account_id = 111111111111\nsso_role_name = r\n",
    "login": "login_session = arn:aws:iam::111111111111:user/jon\n",
    "role": "role_arn = arn:aws:iam::111111111111:role/r\nsource_profile = other\n",
    "role of metadata": "role_arn = arn:aws:iam::111111111111:role/r\n"
    "credential_source = Ec2InstanceMetadata\n",
    "web identity": "role_arn = arn:aws:iam::111111111111:role/r\n"
    "web_identity_token_file = /nowhere\n",
}
OTHERS = (
    "[profile other]\nregion = eu-west-3\noutput = table\n\n"
    "[sso-session corp]\nsso_start_url = https://x.example/start\nsso_region = eu-west-1\n"
    "sso_registration_scopes = sso:account:access\n"
)


@pytest.mark.parametrize("name", HOSTILE)
def test_what_beats_a_server_leaves_default(name, world, served, monkeypatch):
    config = f"[default]\nregion = eu-west-2\noutput = text\n{HOSTILE[name]}retry_mode = adaptive\n\n{OTHERS}"
    child = make(world, served, config)
    session = assert_served(monkeypatch, child.environ)
    assert session.get_config_variable("region") == "eu-west-2"
    with open(child.environ["AWS_CONFIG_FILE"], encoding="utf-8") as file:
        text = file.read()
    assert "output = text\n" in text
    assert "retry_mode = adaptive\n" in text
    assert text.endswith(OTHERS)


SPELLINGS = {
    "profile default": "[profile default]\n{}",
    "quoted": '[profile "default"]\n{}',
    "blanks": "[profile   default]\n{}",
    "tab": "[profile\tdefault]\n{}",
    "escaped": "[profile def\\ault]\n{}",
    "comment": "[default] # [x]\n{}",
    "DEFAULT": "[DEFAULT]\n{}\n[default]\noutput = json\n",
    "both": "[profile default]\n{0}\n[default]\n{0}",
    "byte order mark": "\ufeff[default]\n{}",
    "blank before": "\n\n# mine\n[default]\n\n{}",
    "a section in a value": "[default]\noutput = text\n  [profile x]\n{}",
}


@pytest.mark.parametrize("spelling", SPELLINGS)
@pytest.mark.parametrize("name", ["keys", "process", "role"])
def test_however_the_section_is_written(name, spelling, world, served, monkeypatch):
    child = make(world, served, SPELLINGS[spelling].format(HOSTILE[name]))
    assert_served(monkeypatch, child.environ)


@pytest.mark.parametrize("ending", ["\r\n", "\r"])
@pytest.mark.parametrize("indent", ["", "  ", "\t"])
def test_line_ends_and_indents(ending, indent, world, served, monkeypatch):
    lines = ["[default]", *(indent + line for line in HOSTILE["keys"].splitlines())]
    lines += [f"{indent}region = eu-west-2", ""]
    child = make(world, served, ending.join(lines))
    session = assert_served(monkeypatch, child.environ)
    assert session.get_config_variable("region") == "eu-west-2"


def test_static_keys_leave_every_profile_and_all_else_stays(world, served):
    config = (
        "[profile a]\naws_access_key_id = x\nrole_arn = r\nsource_profile = b\n; kept\n"
        "[profile b]\n aws_secret_access_key : y\n region = eu-west-1\n"
        "[plugins]\ncli_legacy_plugin_path = /x\n"
    )
    child = make(world, served, config)
    with open(child.environ["AWS_CONFIG_FILE"], encoding="utf-8") as file:
        assert file.read() == (
            "[profile a]\nrole_arn = r\nsource_profile = b\n; kept\n"
            "[profile b]\n region = eu-west-1\n"
            "[plugins]\ncli_legacy_plugin_path = /x\n"
        )


LINES = st.sampled_from(
    "[default]|[profile default]|[profile x]|[DEFAULT]|  [default]|[default] ; c|# c||aws_access_key_id = A|"
    "  aws_access_key_id = A|aws_secret_access_key=s|    aws_secret_access_key : s|credential_process = p|"
    "  credential_process = p|role_arn=r|source_profile=x|s3 =|  max_bandwidth = 1|region = eu-west-1|\tregion = e|"
    "   more|sso_session = c".split("|")
)


@settings(max_examples=300, deadline=None, suppress_health_check=list(HealthCheck))
@given(st.lists(LINES, max_size=14))
def test_python_s_own_parser_finds_nothing_that_beats_a_server(lines):
    import configparser

    parser = configparser.RawConfigParser(strict=False)
    try:
        parser.read_string(awsvault.private_config("\n".join(lines), {"default": {}}))
    except configparser.Error:
        return  # what botocore can't read serves nobody
    for section in parser.sections():
        keys = set(parser[section])
        assert not keys & awsvault.STATIC_KEYS
        if section in ("default", "profile default"):
            assert not [key for key in keys if awsvault.outranks(key)]


@settings(max_examples=200, deadline=None, suppress_health_check=list(HealthCheck))
@given(st.lists(LINES, max_size=14))
@example(["[profile default]", "  max_bandwidth = 1", "aws_access_key_id = A", "  [default]"])
def test_and_in_process_mode_nothing_but_ours(lines):
    import configparser

    ours = {"credential_process": "ours", "region": "us-east-1"}
    text = awsvault.private_config("\n".join(lines), {"default": ours, "x": ours})
    parser = configparser.RawConfigParser(strict=False)
    try:
        parser.read_string(text)
    except configparser.Error:
        return
    sections = {"default", "profile default", "profile x"} & set(parser.sections())
    assert len(sections) >= 2
    for section in sections:
        found = {key: value for key, value in parser[section].items() if awsvault.outranks(key)}
        assert found == {"credential_process": "ours"}


@pytest.mark.parametrize("header", ["[", "[x", "[x] y", "[ # ]"])
def test_what_some_sdks_take_for_no_header_ends_no_section(header):
    text = awsvault.private_config(f"[default]\n{header}\nrole_arn = a\n", {"default": {}})
    assert "role_arn" not in text
    kept = awsvault.private_config("[default]\n[profile x] # y\nrole_arn = a\n", {"default": {}})
    assert "role_arn" in kept


# -- the credentials file --------------------------------------------------------------


def credentials_file(world, text, name="credentials"):
    path = os.path.join(world.home(), ".aws", name)
    with open(path, "w", encoding="utf-8") as file:
        file.write(text)
    return path


@pytest.mark.parametrize(
    "header", ["[default]", "[profile default]", "[ default ]", "[DEFAULT]", '["default"]']
)
def test_a_credentials_file_with_a_default_is_not_seen(header, world, served, monkeypatch):
    credentials_file(world, f"{header}\n{HOSTILE['keys']}[work]\n{HOSTILE['keys']}")
    child = make(world, served)
    assert_served(monkeypatch, child.environ)
    assert os.path.getsize(child.environ["AWS_SHARED_CREDENTIALS_FILE"]) == 0
    assert len(child.notes) == 1
    assert "section [default]" in child.notes[0]


def test_one_without_a_default_stays(world, served, monkeypatch):
    credentials_file(world, f"[work]\n{HOSTILE['keys']}")
    child = make(world, served)
    assert "AWS_SHARED_CREDENTIALS_FILE" not in child.environ
    assert child.notes == ()
    assert_served(monkeypatch, child.environ)
    _, work = resolve(monkeypatch, child.environ, "work")
    assert work.access_key == "AKIADUMMYHOSTILE0001"


def test_one_that_a_variable_names_stays_named(world, served):
    path = credentials_file(world, f"[work]\n{HOSTILE['keys']}", "mine")
    child = make(world, served, AWS_SHARED_CREDENTIALS_FILE=path)
    assert child.environ["AWS_SHARED_CREDENTIALS_FILE"] == path


def test_an_empty_variable_means_the_usual_file(world, served, monkeypatch):
    child = make(world, served, AWS_SHARED_CREDENTIALS_FILE="")
    assert "AWS_SHARED_CREDENTIALS_FILE" not in child.environ
    credentials_file(world, f"[default]\n{HOSTILE['keys']}")
    child = make(world, served, AWS_SHARED_CREDENTIALS_FILE="")
    assert_served(monkeypatch, child.environ)


def test_one_that_can_t_be_read_is_not_seen(world, served, monkeypatch):
    os.mkdir(os.path.join(world.home(), ".aws", "credentials"))
    child = make(world, served)
    assert_served(monkeypatch, child.environ)


# -- variables ---------------------------------------------------------------------------


REMOVED = sorted(
    awsvault.REMOVED_VARIABLES | {"AWS_BEARER_TOKEN_BEDROCK", *awsvault.REMOVED_WITH_SERVER}
)


@pytest.mark.parametrize("name", REMOVED)
@pytest.mark.parametrize("value", ["x", ""])
def test_set_outside_absent_inside(name, value, world, served):
    metadata = {"AWS_EC2_METADATA_SERVICE_ENDPOINT": "http://127.0.0.1:1/"}
    child = make(world, {**served, **metadata}, **{name: value})
    if name in SERVER_NAMES:
        assert child.environ[name] == {**served, **metadata}[name]
    else:
        assert name not in child.environ


def test_all_of_them_at_once_leave_the_server(world, served, monkeypatch):
    child = make(world, served, "", "eu-west-1", **dict.fromkeys(REMOVED, "x"))
    session = assert_served(monkeypatch, child.environ)
    assert session.get_config_variable("region") == "eu-west-1"
    assert child.environ["AWS_VAULT"] == "prod"


KEPT = (
    "AWS_ENDPOINT_URL AWS_ENDPOINT_URL_S3 AWS_CA_BUNDLE AWS_USE_FIPS_ENDPOINT AWS_MAX_ATTEMPTS AWS_RETRY_MODE "
    "AWS_PAGER AWS_CLI_AUTO_PROMPT AWS_DEFAULT_OUTPUT AWS_EXECUTION_ENV AWS_EC2_METADATA_V1_DISABLED "
    "AWS_VAULT_BACKEND AWS_VAULT_FILE_DIR AWS_VAULT_PROMPT OP_SESSION_x LANG HTTPS_PROXY"
)


@pytest.mark.parametrize("name", KEPT.split())
def test_kept(name, world, served):
    assert make(world, served, **{name: "as it was"}).environ[name] == "as it was"


METADATA = {"AWS_EC2_METADATA_SERVICE_ENDPOINT": "http://127.0.0.1:1/"}


def test_metadata_is_off_unless_it_is_served(world, served):
    child = make(world, served, AWS_EC2_METADATA_DISABLED="false")
    assert child.environ["AWS_EC2_METADATA_DISABLED"] == "true"
    child = make(world, METADATA, AWS_EC2_METADATA_DISABLED="true")
    assert "AWS_EC2_METADATA_DISABLED" not in child.environ


@pytest.mark.parametrize(
    ("environ", "expected"),
    [
        ({}, "127.0.0.1"),
        ({"NO_PROXY": "a.example"}, "a.example,127.0.0.1"),
        ({"no_proxy": "a.example, b"}, "a.example,b,127.0.0.1"),
        ({"NO_PROXY": "127.0.0.1,x"}, "127.0.0.1,x"),
    ],
)
def test_no_proxy_is_extended_in_both_spellings(environ, expected, world, served):
    child = make(world, served, **environ)
    assert (child.environ["NO_PROXY"], child.environ["no_proxy"]) == (expected, expected)


def test_no_region_means_no_region(world, served):
    child = make(world, served)
    assert "AWS_REGION" not in child.environ
    assert make(world, served, region="eu-west-1").environ["AWS_DEFAULT_REGION"] == "eu-west-1"


# -- files and the proof -------------------------------------------------------------------


def test_the_files_are_private_and_go_with_their_folder(world, served):
    credentials_file(world, f"[default]\n{HOSTILE['keys']}")
    old = os.umask(0)
    try:
        child = make(world, served, "[default]\nregion = x\n")
    finally:
        os.umask(old)
    files = [os.path.join(child.folder, name) for name in os.listdir(child.folder)]
    modes = [stat.S_IMODE(os.stat(path).st_mode) for path in [*files, child.folder]]
    assert modes == [0o600, 0o600, 0o700]
    world.remove_run_folder(child.folder)
    world.remove_run_folder(child.folder)
    assert os.listdir(os.path.dirname(child.folder)) == []


def test_without_a_home_of_its_own_the_files_are_elsewhere(world, served, tmp_path, monkeypatch):
    elsewhere = tmp_path / "elsewhere"
    monkeypatch.setattr(
        world, "_lock_folder_candidates", lambda: iter(["/dev/null/locks", str(elsewhere)])
    )
    child = make(world, served)
    assert child.folder.startswith(f"{elsewhere}/run/")


def test_keys_of_old_sdks_are_refused_and_nothing_is_left(world, served, monkeypatch):
    boto = os.path.join(world.home(), ".boto")
    with open(boto, "w", encoding="utf-8") as file:
        file.write("[Credentials]\naws_access_key_id = A\naws_secret_access_key = s\n")
    with pytest.raises(awsvault.AwsVaultError, match=r"the key in ~/.boto would be used"):
        make(world, served)
    assert os.listdir(os.path.join(world.home(), ".awsvault", "run")) == []


OUTRANKED = [
    ({"AWS_ACCESS_KEY_ID": "x"}, "", "the variable AWS_ACCESS_KEY_ID"),
    ({"AWS_PROFILE": "x"}, "", "the variable AWS_PROFILE"),
    ({"AWS_WEB_IDENTITY_TOKEN_FILE": "x"}, "", "the variable AWS_WEB_IDENTITY_TOKEN_FILE"),
    ({"AWS_CONTAINER_CREDENTIALS_RELATIVE_URI": ""}, "", "AWS_CONTAINER_CREDENTIALS_RELATIVE_URI"),
    ({}, "[default]\nsso_session = x\n", "sso_session in [default]"),
    ({}, "[default]\nlogin_session = x\n", "login_session in [default]"),
    ({}, "[profile default]\nrole_arn = x\n", "role_arn in [default]"),
    ({}, "[DEFAULT]\ncredential_process = x\n[default]\na = b\n", "credential_process in"),
    ({"AWS_EC2_METADATA_DISABLED": "true"}, "", "AWS_EC2_METADATA_DISABLED"),
    ({}, "[default]\nregion = eu-west-1\n[profile x]\nrole_arn = y\n", None),
]


@pytest.mark.parametrize(("environ", "config", "said"), OUTRANKED)
def test_the_proof_names_what_beats_the_server(environ, config, said, world):
    path = credentials_file(world, config, "config-inside")
    inside = {**METADATA, "AWS_CONFIG_FILE": path, **environ}
    found = next(awsvault.outranking(world, inside, METADATA, ""), ("", ""))
    assert said in found[0] if said else found == ("", "")


def test_the_proof_sees_the_credentials_file(world):
    path = credentials_file(world, f"[default]\n{HOSTILE['keys']}", "static")
    inside = {**METADATA, "AWS_SHARED_CREDENTIALS_FILE": path}
    what, hint = next(awsvault.outranking(world, inside, METADATA, ""))
    assert what == f"[default] in {path}"
    assert hint


def test_blanks_in_a_key_cost_no_minutes(world):
    path = os.path.join(world.home(), ".aws", "config")
    blanks = " " * 200_000
    with open(path, "w", encoding="utf-8") as file:
        file.write(f"[default]\na{blanks}b = c{blanks}d\n\nrole_arn = x{blanks}\n")
    found = awsvault.section_settings(world, path, "default")
    assert found == [("a b", "c d"), ("role_arn", "x")]
