#!/usr/bin/env python3
"""An S3 server (moto) with a bucket and two users, in this process, until standard input ends.

    s3_server.py BUCKET [--no-authentication]

Prints one JSON line once it answers: endpoint, and for `writer` (may do everything) and `reader` (may get and
list) key and secret. Signatures and policies are checked, as S3 does, unless told otherwise.
"""

import json
import logging
import sys
import threading
import urllib.request

import boto3
import flask
from moto.iam.access_control import S3IAMRequest
from moto.s3.responses import S3Response
from moto.server import ThreadedMotoServer

REGION = "us-east-1"


def sign_what_was_sent():
    """moto signs the decoded address: a listing whose prefix holds %2F would never have the right signature."""
    create = S3IAMRequest._create_aws_request

    def create_from_raw(self):
        self._path = flask.request.environ.get("RAW_URI", self._path)
        return create(self)

    S3IAMRequest._create_aws_request = create_from_raw


def put_one_object_at_a_time():
    """moto looks whether an object is there and puts it later: two who put it if it is absent could both succeed."""
    lock = threading.Lock()

    def alone(method):
        def locked(*arguments, **named):
            with lock:
                return method(*arguments, **named)

        return locked

    # The second completes uploads in parts.
    for name in ["put_object", "_key_response_post"]:
        setattr(S3Response, name, alone(getattr(S3Response, name)))


def user(iam, name, actions):
    """A user with these rights, in any bucket, and its access key."""
    iam.create_user(UserName=name)
    statement = {"Effect": "Allow", "Action": actions, "Resource": "arn:aws:s3:::*"}
    policy = {"Version": "2012-10-17", "Statement": [statement]}
    iam.put_user_policy(UserName=name, PolicyName=name, PolicyDocument=json.dumps(policy))
    key = iam.create_access_key(UserName=name)["AccessKey"]
    return {"key": key["AccessKeyId"], "secret": key["SecretAccessKey"]}


def main():
    bucket, authentication = sys.argv[1], "--no-authentication" not in sys.argv[2:]
    sign_what_was_sent()
    put_one_object_at_a_time()
    # Its access log would fill the pipe of whoever does not read it.
    logging.getLogger("werkzeug").setLevel(logging.ERROR)
    server = ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    server.start()
    host, port = server.get_host_and_port()
    endpoint = f"http://{host}:{port}"
    access = {
        "endpoint_url": endpoint, "region_name": REGION, "aws_access_key_id": "set-up",
        "aws_secret_access_key": "set-up",
    }
    boto3.client("s3", **access).create_bucket(Bucket=bucket)
    iam = boto3.client("iam", **access)
    facts = {
        "endpoint": endpoint,
        "writer": user(iam, "writer", ["s3:*"]),
        "reader": user(iam, "reader", ["s3:Get*", "s3:List*"]),
    }
    if authentication:
        # From the next request on: the number is how many more are let through unchecked.
        request = urllib.request.Request(
            f"{endpoint}/moto-api/reset-auth", data=b"0", headers={"Content-Type": "text/plain"}, method="POST"
        )
        urllib.request.urlopen(request).read()
    print(json.dumps(facts), flush=True)
    sys.stdin.read()
    server.stop()


if __name__ == "__main__":
    main()
