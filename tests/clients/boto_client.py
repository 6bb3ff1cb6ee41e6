"""Asks for credentials as any program with boto3 does: identity | fetch N | renew."""

from __future__ import annotations

import json
import os
import sys
import time


def identity():
    import boto3

    session = boto3.Session()
    arn = session.client("sts").get_caller_identity()["Arn"]
    return {"key": session.get_credentials().access_key, "arn": arn}


def fetch(count):
    """Ask the server itself, past the SDK's cache."""
    from botocore.utils import ContainerMetadataFetcher, InstanceMetadataFetcher

    uri = os.environ.get("AWS_CONTAINER_CREDENTIALS_FULL_URI")
    endpoint = os.environ.get("AWS_EC2_METADATA_SERVICE_ENDPOINT")
    if uri:
        token = {"Authorization": os.environ["AWS_CONTAINER_AUTHORIZATION_TOKEN"]}
        container = ContainerMetadataFetcher()
        answers = (container.retrieve_full_uri(uri, token) for _ in range(count))
    else:
        metadata = InstanceMetadataFetcher(base_url=endpoint)
        answers = (metadata.retrieve_iam_role_credentials() for _ in range(count))
    assert all(answers)
    return {"fetched": count}


def renew():
    import boto3

    credentials = boto3.Session().get_credentials()
    first, end = credentials.access_key, time.monotonic() + 30
    while time.monotonic() < end:
        following = credentials.get_frozen_credentials().access_key
        if following != first:
            return {"first": first, "next": following}
    raise SystemExit("always the same credentials")


if __name__ == "__main__":
    commands = {"identity": identity, "renew": renew, "fetch": lambda: fetch(int(sys.argv[2]))}
    print(json.dumps(commands[sys.argv[1]]()))
