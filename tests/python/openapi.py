"""Asks a fleet service whatever its OpenAPI document says may be asked, and what it says may not:
`openapi.py ADDRESS NAME PASSWORD [OPTION]…`, with options of schemathesis' own.

Whatever comes, the service answers with no error of its own, with a status and a body that its document has, and lets nobody in
who has no token.
"""

import json
import subprocess
import sys
import urllib.request
from pathlib import Path

TOKEN = "fuzz"
# Streams without an end are not for a test that waits for one; whatever it likes may be removed but its own token.
EXCLUDED = ["--exclude-path", "/api/v1/live", "--exclude-operation-id", "remove_token"]
CHECKS = "not_a_server_error,status_code_conformance,content_type_conformance,response_schema_conformance,ignored_auth"


def post(address, path, form, headers):
    request = urllib.request.Request(
        address + path, json.dumps(form).encode(), {"content-type": "application/json"} | headers
    )
    return urllib.request.urlopen(request)


def token(address, name, password):
    signed_in = post(address, "/api/v1/session", {"name": name, "password": password}, {})
    cookie = signed_in.headers["set-cookie"].split(";")[0]
    headers = {"cookie": cookie, "sec-fetch-site": "same-origin"}
    return json.load(post(address, "/api/v1/tokens", {"name": TOKEN, "role": "admin"}, headers))["token"]


def main():
    address, name, password, *options = sys.argv[1:]
    header = f"Authorization: Bearer {token(address, name, password)}"
    words = [Path(sys.executable).with_name("schemathesis"), "run", f"{address}/api/v1/openapi.json", "--header", header]
    sys.exit(subprocess.run([*words, "--checks", CHECKS, *EXCLUDED, *options]).returncode)


if __name__ == "__main__":
    main()
