"""What STS answers: credentials, or one error; botocore's own parser reads it, without a network."""

from __future__ import annotations

import contextlib
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import botocore.session
import pytest

import awsvault
from awsvault import Aws, AwsError, Endpoint, Secret, format_time
from tests.fake_world import FakeWorld
from tests.foreign import GIVEN, KEY, REFUSAL, ROLE, Asked, sts_answer


def answered(status=200, **changed):
    return Asked(status, sts_answer({**GIVEN, **changed}).encode()).get()


def test_a_good_answer_is_credentials():
    found = answered(Expiration="2030-01-01T14:00:00.250+01:00")
    assert (found.access_key_id, found.secret_access_key) == ("ASIADUMMY", Secret("dummy"))
    assert (found.session_token, found.account_id) == (Secret("t"), "111111111111")
    assert format_time(found.expiration) == "2030-01-01T13:00:00Z"
    assert found.expiration.microsecond == 0


@pytest.mark.parametrize(
    "odd",
    [{"Expiration": text} for text in ("", "abc", "nan", "1e20", "1e400", "-1", "1795468268", "2030-01-01", "9" * 5000)]
    + [{name: ""} for name in ("AccessKeyId", "SecretAccessKey", "SessionToken")]
    + [{"AccessKeyId": "A&#10;B"}, {"SessionToken": "t&#13;&#10;X-Header: 1"}, {"SessionToken": "\u00fc"},
       {"AccessKeyId": "<b>x</b>"}],
    ids=str,
)  # fmt: skip
def test_odd_credentials_are_not_aws(odd):
    with pytest.raises(AwsError, match="AssumeRole: what answered is not AWS"):
        answered(**odd)


@pytest.mark.parametrize(
    "text", ["0001-01-01T00:00:00Z", "2030-01-01T12:00:00Z", "2030-01-05T00:00:00Z", "9999-12-31T23:59:59Z"]
)  # fmt: skip
def test_a_session_that_has_ended_or_never_ends_is_refused(text):
    with pytest.raises(AwsError, match=f"a session that ends {text}") as caught:
        answered(Expiration=text)
    assert "clock" in caught.value.hint


DEEP = "<a>" * 20_000 + "</a>" * 20_000


@pytest.mark.parametrize(
    "body",
    ["", "<", "{}", "<html/>", "<AssumeRoleResponse/>", sts_answer({}, ""), DEEP, "\0", sts_answer(GIVEN) * 2],
    ids=lambda body: body[:30],
)  # fmt: skip
def test_other_xml_is_not_aws(body):
    with pytest.raises(AwsError):
        Asked(200, body.encode()).get()


@pytest.mark.parametrize(
    "body",
    ["<ErrorResponse><Error/></ErrorResponse>", "<ErrorResponse><Error>x</Error></ErrorResponse>", "<a><Errors/></a>", DEEP,
     REFUSAL.replace("AccessDenied", "<b>c</b>"), REFUSAL.replace("</Error>", "</Error><Error/>"), "<ErrorResponse/>"],
    ids=lambda body: body[:60],
)  # fmt: skip
@pytest.mark.parametrize("status", [400, 500])
def test_odd_refusals_are_one_error(status, body):
    with pytest.raises(AwsError, match="AssumeRole: "):
        Asked(status, body.encode()).get()


def test_a_clock_that_is_wrong_is_no_session_that_has_ended(monkeypatch):
    """The end that AWS says counts from AWS's time, by which the request was signed."""
    asked = Asked(403, REFUSAL.replace("AccessDenied", "RequestExpired").encode())
    asked.answer[1]["date"] = "Tue, 01 Jan 2030 09:00:00 GMT"
    answer = sts_answer({**GIVEN, "Expiration": "2030-01-01T10:00:00Z"}).encode()
    send = asked._send

    def once(request, **_):
        response = send(request)
        asked.answer = (200, {}, answer)
        return response

    monkeypatch.setattr(asked, "_send", once)
    assert format_time(asked.get().expiration) == "2030-01-01T10:00:00Z"


def test_an_answer_that_does_not_end_is_not_read_on(home):
    """Whatever answers sends 64 MB, and waits for the connection to close: a MB of it is read."""
    sent = []

    class Endless(BaseHTTPRequestHandler):
        def do_POST(self):
            self.rfile.read(int(self.headers["Content-Length"]))
            self.send_response(200)
            self.end_headers()
            with contextlib.suppress(OSError):
                for _ in range(1024):
                    self.wfile.write(b"<a>" * 21846)
                    sent.append(1)

        def log_message(self, *_):
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Endless) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        url = f"http://127.0.0.1:{server.server_port}"
        aws = Aws(FakeWorld(home))
        endpoint = Endpoint(region="eu-west-1", url=url, max_attempts=1)
        with pytest.raises(AwsError, match="the answer does not end"):
            aws.call("sts", "AssumeRole", {"RoleArn": ROLE, "RoleSessionName": "me"}, KEY, endpoint)
        server.shutdown()
    assert len(sent) < 500


# -- endpoints ------------------------------------------------------------------------------------


def asked(client):
    """The URL that a client would ask, and the region that it would sign for."""

    def stop(request, **_):
        raise Stopped(request.url, request.headers["Authorization"].decode())

    client.meta.events.register("before-send", stop)
    with pytest.raises(Stopped) as caught:
        client.get_caller_identity()
    url, authorization = caught.value.args
    return url, authorization.split("/")[2]


class Stopped(BaseException):
    pass


def every_region():
    session = botocore.session.Session()
    names = (
        session.get_available_regions("sts", part, allow_non_regional=True)
        for part in session.get_available_partitions()
    )
    return [region for part in names for region in part]


@pytest.mark.parametrize("mode", ["", "legacy", "regional"])
def test_every_region_s_endpoint_is_the_one_of_the_aws_sdks(home, monkeypatch, mode):
    monkeypatch.setenv("AWS_CONFIG_FILE", str(home / "none"))
    keys = awsvault.Credentials("AKIADUMMYEXAMPLE0001", awsvault.Secret("dummy"))
    world = FakeWorld(home)
    aws = awsvault.Aws(world)
    theirs = botocore.session.Session()
    theirs.set_credentials(keys.access_key_id, "dummy")
    for region in every_region():
        monkeypatch.delenv("AWS_STS_REGIONAL_ENDPOINTS", raising=False)
        with world.library_environment():
            ours = aws._client("sts", keys, awsvault.Endpoint(region=region, regional=mode))
        if mode:
            monkeypatch.setenv("AWS_STS_REGIONAL_ENDPOINTS", mode)
        assert asked(ours) == asked(theirs.create_client("sts", region_name=region)), region


def test_legacy_means_the_global_endpoint_for_old_regions_only(home):
    keys = awsvault.Credentials("AKIADUMMYEXAMPLE0001", awsvault.Secret("dummy"))
    world = FakeWorld(home)
    aws = awsvault.Aws(world)
    for endpoint, expected in (
        ({"region": "eu-west-1"}, ("https://sts.amazonaws.com/", "us-east-1")),
        ({"region": "af-south-1"}, ("https://sts.af-south-1.amazonaws.com/", "af-south-1")),
        ({"region": "eu-west-1", "url": "https://sts.example.com"}, ("https://sts.example.com/", "eu-west-1")),
        ({"url": "https://sts.example.com"}, ("https://sts.example.com/", "us-east-1")),
    ):
        with world.library_environment():
            client = aws._client("sts", keys, awsvault.Endpoint(regional="legacy", **endpoint))
        assert asked(client) == expected
