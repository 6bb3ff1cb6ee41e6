"""The fake is as strict as AWS: seen through botocore's own clients."""

from __future__ import annotations

import contextlib
import json
import subprocess
import sys
import threading
import urllib.error
import urllib.request
from datetime import datetime, timedelta, timezone
from pathlib import Path

import botocore.config
import botocore.exceptions
import botocore.parsers
import botocore.session
import moto
import pytest

from tests.fake_aws import (
    ACCOUNT,
    KEY_ID,
    MFA_CODES,
    MFA_SERIAL,
    SECRET,
    FakeAws,
    furnish,
    web_token,
)

ADMIN = f"arn:aws:iam::{ACCOUNT}:role/admin"
BARE = botocore.config.Config(
    retries={"total_max_attempts": 1}, read_timeout=20, parameter_validation=False
)


@pytest.fixture(scope="module")
def session():
    return botocore.session.Session()


@pytest.fixture
def client(fake_aws, session, monkeypatch):
    """client(service="sts", credentials=(id, secret, token), region=...) for the fake."""
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")

    def make(service="sts", credentials=(KEY_ID, SECRET, None), region="us-east-1"):
        key_id, secret, token = credentials
        return session.create_client(
            service,
            region_name=region,
            endpoint_url=fake_aws.url,
            aws_access_key_id=key_id,
            aws_secret_access_key=secret,
            aws_session_token=token,
            config=BARE,
        )

    return make


@pytest.fixture
def refused():
    """`with refused("Code", "part of the text"):` expects that answer from AWS."""

    @contextlib.contextmanager
    def expect(code, text=""):
        with pytest.raises(botocore.exceptions.ClientError) as caught:
            yield caught
        assert caught.value.response["Error"]["Code"] == code
        assert text in caught.value.response["Error"]["Message"]

    return expect


def keys(answer):
    found = answer["Credentials"]
    return found["AccessKeyId"], found["SecretAccessKey"], found["SessionToken"]


def assume(client, name="admin", **parameters):
    arn = f"arn:aws:iam::{ACCOUNT}:role/{name}"
    return client.assume_role(RoleArn=arn, RoleSessionName="test", **parameters)


def mfa(code=MFA_CODES[0]):
    return {"SerialNumber": MFA_SERIAL, "TokenCode": code}


def test_identity_of_a_user(client, fake_aws):
    answer = client().get_caller_identity()
    assert answer["Arn"] == f"arn:aws:iam::{ACCOUNT}:user/jon"
    assert answer["Account"] == ACCOUNT
    (call,) = fake_aws.calls
    assert (call.action, call.key_id, call.region) == ("GetCallerIdentity", KEY_ID, "us-east-1")
    assert (call.signer, call.status, call.code) == (answer["Arn"], 200, "")


def test_issued_credentials_sign_later_requests(client):
    by_session = keys(client().get_session_token())
    assert client(credentials=by_session).get_caller_identity()["Arn"].endswith("user/jon")
    by_role = keys(assume(client(credentials=by_session)))
    arn = client(credentials=by_role).get_caller_identity()["Arn"]
    assert arn == f"arn:aws:sts::{ACCOUNT}:assumed-role/admin/test"


@pytest.mark.parametrize(
    ("credentials", "code"),
    [
        ((KEY_ID, "another secret", None), "SignatureDoesNotMatch"),
        (("AKIADUMMYUNKNOWN0000", SECRET, None), "InvalidClientTokenId"),
        ((KEY_ID, SECRET, "token-of-nobody"), "InvalidClientTokenId"),
    ],
)
def test_bad_credentials(client, refused, credentials, code):
    with refused(code):
        client(credentials=credentials).get_caller_identity()


def test_a_token_that_is_not_its_keys(client, refused):
    key_id, secret, _ = keys(client().get_session_token())
    _, _, token = keys(client().get_session_token())
    with refused("InvalidClientTokenId"):
        client(credentials=(key_id, secret, token)).get_caller_identity()


def test_every_byte_is_signed(client, refused):
    sts = client()

    def change(request, **_):
        request.body = request.body.replace("900", "901")

    sts.meta.events.register("before-send.sts", change)
    with refused("SignatureDoesNotMatch", "request signature we calculated"):
        sts.get_session_token(DurationSeconds=900)


def test_expired_credentials(client, refused, fake_aws):
    session = keys(client().get_session_token(DurationSeconds=900))
    fake_aws.skew = 100
    client(credentials=session).get_caller_identity()
    fake_aws.sessions[session[0]].expires = fake_aws.now()
    with refused("ExpiredToken", "security token included in the request is expired"):
        client(credentials=session).get_caller_identity()


def test_lifetime_knob(client, fake_aws):
    fake_aws.lifetime = 7
    expires = client().get_session_token(DurationSeconds=3600)["Credentials"]["Expiration"]
    assert expires - datetime.now(timezone.utc) <= timedelta(seconds=7)


@pytest.mark.parametrize(
    ("skew", "text"), [(3600, "Signature expired: "), (-3600, "Signature not yet current: ")]
)
def test_a_wrong_clock(fake_aws, client, refused, skew, text):
    fake_aws.skew = skew
    with refused("SignatureDoesNotMatch", text) as caught:
        client().get_caller_identity()
    headers = caught.value.response["ResponseMetadata"]["HTTPHeaders"]
    said = datetime.strptime(headers["date"], "%a, %d %b %Y %H:%M:%S GMT")
    ahead = (said.replace(tzinfo=timezone.utc) - datetime.now(timezone.utc)).total_seconds()
    assert abs(ahead - skew) < 60


def test_four_minutes_are_no_skew(fake_aws, client):
    fake_aws.skew = 240
    client().get_caller_identity()


def test_region_and_service_of_the_scope(client, refused, session, fake_aws):
    with refused("SignatureDoesNotMatch", "scoped to a valid region, not 'moon-1'"):
        client(region="moon-1").get_caller_identity()
    fake_aws.regions = ["eu-west-1"]
    with refused("SignatureDoesNotMatch", "not 'us-east-1'"):
        client().get_caller_identity()
    client(region="eu-west-1").get_caller_identity()
    sts = client(region="eu-west-1")
    sts.meta.events.register("choose-signer.sts", lambda **_: "v4")
    sts._request_signer._signing_name = "iam"
    with refused("SignatureDoesNotMatch", "scoped to correct service: 'sts'"):
        sts.get_caller_identity()


def test_a_code_is_good_once(client, refused):
    client().get_session_token(**mfa())
    with refused("AccessDenied", "MultiFactorAuthentication failed with invalid MFA one time"):
        client().get_session_token(**mfa())
    with refused("AccessDenied", "invalid MFA one time pass code"):
        assume(client(), **mfa())
    client().get_session_token(**mfa(MFA_CODES[1]))


def test_wrong_codes_and_devices(client, refused, fake_aws):
    with refused("AccessDenied", "invalid MFA one time pass code"):
        client().get_session_token(**mfa("000000"))
    with refused("AccessDenied", "unable to validate MFA code"):
        client().get_session_token(**dict(mfa(), SerialNumber=MFA_SERIAL + "2"))
    with refused("AccessDenied", "must provide both MFA serial number and one time pass code"):
        client().get_session_token(SerialNumber=MFA_SERIAL)
    with refused("ValidationError", "at 'tokenCode' failed to satisfy constraint"):
        client().get_session_token(**mfa("abcdef"))
    client().get_session_token(**mfa(fake_aws.new_code(MFA_SERIAL)))


def test_no_code_with_role_credentials(client, refused):
    role = client(credentials=keys(assume(client())))
    with refused("AccessDenied", "unable to validate MFA code"):
        assume(role, "chained", **mfa())


def test_no_session_token_with_temporary_credentials(client, refused):
    for made in (client().get_session_token(), assume(client())):
        with refused("AccessDenied", "Cannot call GetSessionToken with session credentials"):
            client(credentials=keys(made)).get_session_token()


@pytest.mark.parametrize("through", ["session", "role"])
def test_chained_roles_have_an_hour(client, refused, through):
    made = client().get_session_token() if through == "session" else assume(client())
    second = client(credentials=keys(made))
    name = "admin" if through == "session" else "chained"
    assume(second, name, DurationSeconds=3600)
    with refused("ValidationError", "exceeds the 1 hour session limit for roles assumed by role"):
        assume(second, name, DurationSeconds=3601)


@pytest.mark.parametrize(("duration", "good"), [(899, False), (900, True), (129600, True),
                                            (129601, False)])  # fmt: skip
def test_bounds_of_a_session(client, refused, duration, good):
    expected = contextlib.nullcontext() if good else refused("ValidationError", "'durationSeconds'")
    with expected:
        client().get_session_token(DurationSeconds=duration)


@pytest.mark.parametrize(
    ("role", "duration", "text"),
    [
        ("admin", 899, "greater than or equal to 900"),
        ("admin", 43201, "less than or equal to 43200"),
        ("admin", 43200, ""),
        ("audit", 3601, "exceeds the MaxSessionDuration set for this role"),
    ],
)
def test_bounds_of_a_role(client, refused, role, duration, text):
    with refused("ValidationError", text) if text else contextlib.nullcontext():
        assume(client(), role, DurationSeconds=duration)


def test_trust(client, refused):
    for name in ("closed", "nonesuch", "chained"):
        with refused("AccessDenied", "is not authorized to perform: sts:AssumeRole on resource"):
            assume(client(), name)
    assume(client(credentials=keys(assume(client()))), "chained")
    with refused("AccessDenied"):
        assume(client(), "partner")
    assume(client(), "partner", ExternalId="secret-handshake")


def test_a_role_that_wants_mfa(client, refused):
    with refused("AccessDenied", "not authorized"):
        assume(client(), "deploy")
    assume(client(), "deploy", DurationSeconds=7200, **mfa())
    plain = keys(client().get_session_token())
    with refused("AccessDenied", "not authorized"):
        assume(client(credentials=plain), "deploy")
    proved = keys(client().get_session_token(**mfa(MFA_CODES[1])))
    assume(client(credentials=proved), "deploy")


def test_what_a_role_was_asked_for(client, fake_aws):
    answer = assume(
        client(),
        Tags=[{"Key": "team", "Value": "a&b"}],
        TransitiveTagKeys=["team"],
        SourceIdentity="jon",
        Policy='{"Statement": []}',
    )
    assert answer["SourceIdentity"] == "jon"
    asked = fake_aws.sessions[answer["Credentials"]["AccessKeyId"]].asked
    assert asked["tags"] == [{"Key": "team", "Value": "a&b"}]
    assert fake_aws.calls[-1].parameters["TransitiveTagKeys.member.1"] == "team"


def test_a_policy_that_is_none(client, refused):
    with refused("MalformedPolicyDocument"):
        assume(client(), Policy="{")


def test_web_identity(client, refused, fake_aws, session):
    issuer = "https://ci.example.com"
    sts = client()

    def trade(token, role="ci"):
        return sts.assume_role_with_web_identity(
            RoleArn=f"arn:aws:iam::{ACCOUNT}:role/{role}",
            RoleSessionName="job",
            WebIdentityToken=token,
        )

    answer = trade(web_token(issuer))
    assert "authorization" not in fake_aws.calls[-1].headers
    assert answer["Provider"] == issuer
    client(credentials=keys(answer)).get_caller_identity()
    with refused("ExpiredTokenException"):
        trade(web_token(issuer, lives=-1))
    with refused("InvalidIdentityToken", "not a valid JWT"):
        trade("no.jwt")
    with refused("InvalidIdentityToken", "No OpenIDConnect provider"):
        trade(web_token("https://evil.example.com"))
    with refused("InvalidIdentityToken", "audience"):
        trade(web_token(issuer, audience="other"))
    with refused("AccessDenied"):
        trade(web_token(issuer), "admin")


def test_federation(client, refused):
    answer = client().get_federation_token(Name="jon", Policy='{"Statement": []}')
    federated = client(credentials=keys(answer))
    arn = f"arn:aws:sts::{ACCOUNT}:federated-user/jon"
    assert federated.get_caller_identity()["Arn"] == arn
    with refused("AccessDenied"):
        federated.get_federation_token(Name="jon")
    with refused("AccessDenied"):
        assume(federated)


def test_keys_of_a_user(client, refused, fake_aws):
    iam = client("iam")
    assert iam.get_user()["User"]["UserName"] == "jon"
    made = iam.create_access_key()["AccessKey"]
    with refused("LimitExceeded", "AccessKeysPerUser: 2"):
        iam.create_access_key()
    listed = {k["AccessKeyId"] for k in iam.list_access_keys()["AccessKeyMetadata"]}
    assert listed == {KEY_ID, made["AccessKeyId"]}
    fresh = client("iam", (made["AccessKeyId"], made["SecretAccessKey"], None))
    fresh.delete_access_key(AccessKeyId=KEY_ID)
    with refused("NoSuchEntity"):
        fresh.delete_access_key(AccessKeyId=KEY_ID)
    with refused("InvalidClientTokenId"):
        iam.get_user()


def test_a_new_key_spreads_slowly(client, refused, fake_aws):
    fake_aws.propagation = 2
    made = client("iam").create_access_key()["AccessKey"]
    fresh = client(credentials=(made["AccessKeyId"], made["SecretAccessKey"], None))
    for _ in range(2):
        with refused("InvalidClientTokenId"):
            fresh.get_caller_identity()
    fresh.get_caller_identity()


def test_iam_with_temporary_credentials(client, refused):
    with refused("InvalidClientTokenId"):
        client("iam", keys(client().get_session_token())).get_user()
    proved = keys(client().get_session_token(**mfa()))
    assert client("iam", proved).get_user()["User"]["UserName"] == "jon"
    role = client("iam", keys(assume(client())))
    with refused("ValidationError", "Must specify userName when calling with non-User"):
        role.get_user()
    role.create_access_key(UserName="jon")
    with refused("NoSuchEntity"):
        role.create_access_key(UserName="nobody")


def test_denied_actions(client, refused, fake_aws):
    fake_aws.users["jon"].denied.add("iam:GetUser")
    with refused("AccessDenied", "user/jon is not authorized to perform: iam:GetUser"):
        client("iam").get_user()


def test_faults(client, refused, fake_aws):
    fake_aws.fail(2, 400, "Throttling", "Rate exceeded", action="GetCallerIdentity")
    client().get_session_token()
    for _ in range(2):
        with refused("Throttling", "Rate exceeded"):
            client().get_caller_identity()
    fake_aws.drop()
    with pytest.raises(botocore.exceptions.HTTPClientError):
        client().get_caller_identity()
    fake_aws.garbage(body="no XML")
    with pytest.raises(botocore.parsers.ResponseParserError):
        client().get_caller_identity()
    fake_aws.lose_answer(action="CreateAccessKey")
    with pytest.raises(botocore.exceptions.HTTPClientError):
        client("iam").create_access_key()
    assert len(fake_aws.users["jon"].keys) == 2
    client().get_caller_identity()
    assert fake_aws.count("GetCallerIdentity") == 5


def test_hold(client, fake_aws):
    answers = []
    asking = threading.Thread(target=lambda: answers.append(client().get_caller_identity()))
    with fake_aws.hold():
        asking.start()
        fake_aws.wait_for(1, "GetCallerIdentity")
        assert not answers
    asking.join(20)
    assert len(answers) == 1


def test_wait_for_says_what_came(fake_aws):
    with pytest.raises(AssertionError, match="1 of GetUser expected"):
        fake_aws.wait_for(1, "GetUser", timeout=0)


def test_unknown_action(fake_aws):
    request = urllib.request.Request(fake_aws.url, b"Action=Dance&Version=2011-06-15")
    with pytest.raises(urllib.error.HTTPError) as caught:
        urllib.request.urlopen(request, timeout=20)
    assert b"<Code>InvalidAction</Code>" in caught.value.read()


def test_unsigned_requests(fake_aws):
    body = b"Action=GetCallerIdentity&Version=2011-06-15"
    with pytest.raises(urllib.error.HTTPError) as caught:
        urllib.request.urlopen(urllib.request.Request(fake_aws.url, body), timeout=20)
    assert (caught.value.code, b"MissingAuthenticationToken" in caught.value.read()) == (403, True)


def admin(url, call, **arguments):
    body = json.dumps({"call": call, "arguments": arguments}).encode()
    with urllib.request.urlopen(url + "/_admin", body, timeout=20) as answer:
        return json.loads(answer.read())["result"]


def test_as_a_program_of_its_own(session):
    server = subprocess.Popen(
        [sys.executable, "-m", "tests.fake_aws"],
        cwd=Path(__file__).parent.parent,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    try:
        url = server.stdout.readline().strip()
        code = admin(url, "new_code", serial=MFA_SERIAL)
        sts = session.create_client(
            "sts",
            region_name="eu-west-1",
            endpoint_url=url,
            aws_access_key_id=KEY_ID,
            aws_secret_access_key=SECRET,
        )
        sts.get_session_token(SerialNumber=MFA_SERIAL, TokenCode=code)
        admin(url, "set", lifetime=5)
        with pytest.raises(urllib.error.HTTPError):
            admin(url, "__init__")
        with urllib.request.urlopen(url + "/_admin", timeout=20) as answer:
            (call,) = json.loads(answer.read())["calls"]
        assert (call["action"], call["region"], call["status"]) == (
            "GetSessionToken", "eu-west-1", 200,
        )  # fmt: skip
    finally:
        server.stdin.close()
        assert server.wait(20) == 0
        server.stdout.close()


def shape(value):
    """The keys and types of an answer, without its values."""
    if isinstance(value, dict):
        skipped = ("ResponseMetadata", "PackedPolicySize")
        return {k: shape(v) for k, v in sorted(value.items()) if k not in skipped}
    return type(value).__name__


def test_answers_look_like_motos(client):
    with moto.mock_aws():
        theirs = botocore.session.Session().create_client(
            "sts",
            region_name="us-east-1",
            aws_access_key_id=KEY_ID,
            aws_secret_access_key=SECRET,
        )
        ours = client()
        assert shape(ours.get_caller_identity()) == shape(theirs.get_caller_identity())
        assert shape(ours.get_session_token()) == shape(theirs.get_session_token())
        assert shape(assume(ours)) == shape(assume(theirs))


def test_two_fakes_at_once():
    with FakeAws() as one, FakeAws() as two:
        furnish(one)
        assert one.port != two.port
        assert two.users == {}
