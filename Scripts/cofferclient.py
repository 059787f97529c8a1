"""A small client of Coffer's REST APIs, and a way to run a server: for the demo, the black-box tests and the benchmarks.

Standard library only. Every call is plain HTTPS through the gateway, as az and the SDKs make it.
"""

import base64
import hashlib
import hmac
import http.client
import json
import os
import re
import signal
import ssl
import subprocess
import tempfile
import threading
import time
import urllib.parse
from datetime import datetime, timedelta, timezone
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent


def binary():
    """The server to use: $COFFER, or the newest of the built ones. None when there is none."""
    if os.environ.get("COFFER"):
        return os.environ["COFFER"]
    built = [ROOT / ".build" / kind / "coffer" for kind in ("release", "debug")]
    built = [path for path in built if os.access(path, os.X_OK)]
    return str(max(built, key=lambda path: path.stat().st_mtime)) if built else None


class Refused(Exception):
    """An answer that was not the one hoped for."""

    def __init__(self, status, data, what):
        super().__init__(f"{what} answered {status}: {data[:400]!r}")
        self.status = status


class Server:
    """A server of its own: a fresh home, free ports. `kill` is kill -9; `start` may follow it."""

    def __init__(self, home=None, coffer=None, options=()):
        self.coffer = coffer or binary()
        self.home = Path(home or tempfile.mkdtemp(prefix="coffer-"))
        self.temporary = self.home / "tmp"
        self.temporary.mkdir(parents=True, exist_ok=True)
        self.environment = dict(
            os.environ,
            COFFER_DATA_FOLDER=str(self.home / "data"),
            COFFER_ROOT_KEY_FILE=str(self.home / "root.key"),
            COFFER_CREDENTIALS_FILE=str(self.home / "administrator.json"),
            TMPDIR=str(self.temporary),
        )
        self.options = list(options)
        self.process = None

    def start(self, seconds=30):
        log = open(self.home / "log", "ab")
        command = [self.coffer, "serve", "--https-port", "0", "--http-port", "0", "--gateway-port", "0", *self.options]
        self.process = subprocess.Popen(command, env=self.environment, stdout=log, stderr=log)
        deadline = time.monotonic() + seconds
        while self.run("status").returncode:
            if self.process.poll() is not None or time.monotonic() > deadline:
                raise SystemExit("the server did not start:\n" + (self.home / "log").read_text()[-3000:])
            time.sleep(0.02)
        return self

    def run(self, *arguments):
        return subprocess.run([self.coffer, *arguments], env=self.environment, capture_output=True, text=True)

    def client(self, *options):
        return Client(exports(self.run("env", *options).stdout))

    def kill(self):
        self.process.send_signal(signal.SIGKILL)
        self.process.wait()

    def stop(self):
        self.process.terminate()
        return self.process.wait(timeout=60)


def exports(text):
    """What `coffer env` prints, as a dictionary."""
    return dict(re.findall(r"^export (\w+)='(.*)'$", text, re.M))


class Client:
    """Calls as the administrator of `environment` (see `exports`). One connection a host and thread is kept open."""

    def __init__(self, environment):
        self.environment = environment
        self.tls = ssl.create_default_context(cafile=environment["CA_BUNDLE"])
        self.gateway = urllib.parse.urlsplit(environment["GATEWAY"])
        self.manager = environment["ARM_ENDPOINT"] or "https://management.azure.com"
        self.subscription = "/subscriptions/" + environment["SUBSCRIPTION_ID"]
        self.tenant = environment["TENANT_ID"]
        self.tokens = {}
        self.kept = threading.local()

    def call(self, method, url, body=None, headers=None):
        """One HTTPS request through the gateway: (status, headers, body)."""
        parts = urllib.parse.urlsplit(url)
        place = (parts.hostname, parts.port or 443)
        connections = self.kept.__dict__.setdefault("connections", {})
        target = parts.path + ("?" + parts.query if parts.query else "")
        fresh = place not in connections
        if fresh:
            connections[place] = http.client.HTTPSConnection(self.gateway.hostname, self.gateway.port, context=self.tls, timeout=120)
            connections[place].set_tunnel(*place)
        connection = connections[place]
        try:
            connection.request(method, target, body, headers or {})
            answer = connection.getresponse()
            return answer.status, answer.headers, answer.read()
        except (OSError, http.client.HTTPException):
            connection.close()
            del connections[place]
            if fresh:
                raise
            return self.call(method, url, body, headers)

    def token(self, audience):
        if audience not in self.tokens:
            form = urllib.parse.urlencode(
                {
                    "grant_type": "client_credentials",
                    "client_id": self.environment["CLIENT_ID"],
                    "client_secret": self.environment["CLIENT_SECRET"],
                    "scope": audience + "/.default",
                }
            )
            url = f"{self.environment['AZURE_AUTHORITY_HOST']}/{self.tenant}/oauth2/v2.0/token"
            status, _, data = self.call("POST", url, form, {"Content-Type": "application/x-www-form-urlencoded"})
            if status != 200:
                raise Refused(status, data, "the token endpoint")
            self.tokens[audience] = json.loads(data)["access_token"]
        return self.tokens[audience]

    def object_id(self):
        """The administrator's object id, from its own token."""
        payload = self.token(self.manager + "/").split(".")[1]
        return json.loads(base64.urlsafe_b64decode(payload + "=" * (-len(payload) % 4)))["oid"]

    def api(self, method, url, body=None, audience=None):
        """A JSON call with a bearer token; raises Refused unless the status is 2xx."""
        headers = {"Authorization": "Bearer " + self.token(audience or self.manager + "/"), "Content-Type": "application/json"}
        status, _, data = self.call(method, url, json.dumps(body) if body is not None else None, headers)
        if not 200 <= status < 300:
            raise Refused(status, data, f"{method} {url.split('?')[0]}")
        return json.loads(data) if data.strip() else {}

    def arm(self, method, path, body=None, version="2024-11-01"):
        return self.api(method, f"{self.manager}{path}?api-version={version}", body)

    def vault(self, method, vault_uri, path, body=None):
        audience = "https://" + urllib.parse.urlsplit(vault_uri).netloc.split(".", 1)[1]
        return self.api(method, f"{vault_uri}{path}?api-version=7.4", body, audience=audience)


def service_sas(account, key, container, permissions="racwdl", protocol="https"):
    """A service SAS for a container (sv 2020-12-06), good for an hour, as a query string."""
    expiry = (datetime.now(timezone.utc) + timedelta(hours=1)).strftime("%Y-%m-%dT%H:%M:%SZ")
    fields = [permissions, "", expiry, f"/blob/{account}/{container}", "", "", protocol, "2020-12-06", "c"] + [""] * 7
    signature = base64.b64encode(hmac.new(base64.b64decode(key), "\n".join(fields).encode(), hashlib.sha256).digest())
    query = {"sv": "2020-12-06", "sr": "c", "sp": permissions, "se": expiry, "spr": protocol, "sig": signature.decode()}
    return urllib.parse.urlencode(query)


def shared_key(account, key, method, path, query):
    """SharedKey headers for a request without a body."""
    date = datetime.now(timezone.utc).strftime("%a, %d %b %Y %H:%M:%S GMT")
    headers = {"x-ms-date": date, "x-ms-version": "2021-12-02"}
    canonical = "".join(f"{name}:{headers[name]}\n" for name in sorted(headers))
    resource = f"/{account}{path}" + "".join(f"\n{name}:{query[name]}" for name in sorted(query))
    text = method + "\n" * 12 + canonical + resource
    signature = base64.b64encode(hmac.new(base64.b64decode(key), text.encode(), hashlib.sha256).digest()).decode()
    return {**headers, "Authorization": f"SharedKey {account}:{signature}", "Content-Length": "0"}
