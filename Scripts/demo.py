#!/usr/bin/env python3
"""Tells Coffer's story on a running server: a chain of keys is built, used, cut and joined, one explained step at a time.

Needs a server ('make run' or 'coffer serve') and nothing but Python's standard library: every step is one plain HTTPS call
of the same REST APIs that az and the SDKs use. Set COFFER to the binary's path if it is not in .build.
"""

import base64
import hashlib
import hmac
import http.client
import io
import json
import os
import re
import secrets
import ssl
import subprocess
import sys
import time
import urllib.parse
import zipfile
from datetime import datetime, timedelta, timezone

RUN = secrets.token_hex(3)
GROUP, VAULT, ACCOUNT, APP = f"demo-{RUN}", f"demo-vault-{RUN}", f"demo{RUN}", f"demo-app-{RUN}"


def environment():
    binary = os.environ.get("COFFER")
    if not binary:
        found = [p for p in (".build/release/coffer", ".build/debug/coffer") if os.access(p, os.X_OK)]
        if not found:
            sys.exit("No coffer binary found. Run 'make run' first, or set COFFER to its path.")
        binary = found[0]
    done = subprocess.run([binary, "env"], capture_output=True, text=True)
    if done.returncode:
        sys.exit(done.stderr.strip() or "coffer env failed")
    return dict(re.findall(r"^export (\w+)='(.*)'$", done.stdout, re.M))


ENV = environment()
TLS = ssl.create_default_context(cafile=ENV["CA_BUNDLE"])
GATEWAY = urllib.parse.urlsplit(ENV["GATEWAY"])
ARM = ENV["ARM_ENDPOINT"]
SUBSCRIPTION = f"/subscriptions/{ENV['SUBSCRIPTION_ID']}"
tokens = {}


def call(method, url, body=None, headers=None):
    """One HTTPS request through the gateway: (status, headers, body)."""
    parts = urllib.parse.urlsplit(url)
    connection = http.client.HTTPSConnection(GATEWAY.hostname, GATEWAY.port, context=TLS, timeout=60)
    connection.set_tunnel(parts.hostname, parts.port or 443)
    target = parts.path + ("?" + parts.query if parts.query else "")
    connection.request(method, target, body, headers or {})
    answer = connection.getresponse()
    data = answer.read()
    connection.close()
    return answer.status, answer.headers, data


def token(audience):
    if audience not in tokens:
        form = urllib.parse.urlencode(
            {
                "grant_type": "client_credentials",
                "client_id": ENV["CLIENT_ID"],
                "client_secret": ENV["CLIENT_SECRET"],
                "scope": audience + "/.default",
            }
        )
        url = f"{ENV['AZURE_AUTHORITY_HOST']}/{ENV['TENANT_ID']}/oauth2/v2.0/token"
        status, _, data = call("POST", url, form, {"Content-Type": "application/x-www-form-urlencoded"})
        need(status == 200, f"no token: {data[:300]}")
        tokens[audience] = json.loads(data)["access_token"]
    return tokens[audience]


def api(method, url, body=None, audience=None, ok=(200, 201, 202, 204)):
    """A JSON call with a bearer token."""
    headers = {"Authorization": "Bearer " + token(audience or ARM + "/"), "Content-Type": "application/json"}
    status, _, data = call(method, url, json.dumps(body) if body is not None else None, headers)
    need(status in ok, f"{method} {url.split('?')[0]} answered {status}: {data[:400]}")
    return json.loads(data) if data.strip() else {}


def arm(method, path, body=None, version="2024-11-01", **more):
    return api(method, f"{ARM}{path}?api-version={version}", body, **more)


def need(holds, why):
    if not holds:
        sys.exit(f"\n  stopped: {why}")


def step(text):
    print(f"\n\033[1m{text}\033[0m", flush=True)


def seen(text):
    print(f"  -> {text}", flush=True)


# --- the pieces ---------------------------------------------------------------------------------

group = f"{SUBSCRIPTION}/resourceGroups/{GROUP}"
vault = f"{group}/providers/Microsoft.KeyVault/vaults/{VAULT}"
account = f"{group}/providers/Microsoft.Storage/storageAccounts/{ACCOUNT}"
site = f"{group}/providers/Microsoft.Web/sites/{APP}"
vault_uri = blob_uri = ""


def account_key():
    return arm("POST", account + "/listKeys", version="2025-01-01")["keys"][0]["value"]


def sas(key, permissions="racwdl"):
    """A service SAS for the container 'demo' (sv 2020-12-06)."""
    expiry = (datetime.now(timezone.utc) + timedelta(hours=1)).strftime("%Y-%m-%dT%H:%M:%SZ")
    fields = [permissions, "", expiry, f"/blob/{ACCOUNT}/demo", "", "", "https", "2020-12-06", "c"] + [""] * 7
    signature = base64.b64encode(hmac.new(base64.b64decode(key), "\n".join(fields).encode(), hashlib.sha256).digest())
    query = {"sv": "2020-12-06", "sr": "c", "sp": permissions, "se": expiry, "spr": "https", "sig": signature.decode()}
    return urllib.parse.urlencode(query)


def policy(principal, keep=True):
    """Gives the principal what the chain needs of the vault, or takes it away."""
    permissions = {"keys": ["get", "wrapKey", "unwrapKey"], "secrets": ["get"]}
    entry = {"tenantId": ENV["TENANT_ID"], "objectId": principal, "permissions": permissions}
    operation = "add" if keep else "remove"
    arm("PUT", f"{vault}/accessPolicies/{operation}", {"properties": {"accessPolicies": [entry]}}, version="2024-11-01")


def vault_call(method, path, body=None):
    audience = "https://" + urllib.parse.urlsplit(vault_uri).netloc.split(".", 1)[1]
    return api(method, f"{vault_uri}{path}?api-version=7.4", body, audience=audience)


def read_blob(key):
    status, headers, data = call("GET", f"{blob_uri}demo/hello.txt?{sas(key)}")
    return status, headers.get("x-ms-error-code"), data


def package(text):
    """A function app as a zip: host.json, one function, and a handler."""
    handler = f'''#!/usr/bin/env python3
import os
from http.server import BaseHTTPRequestHandler, HTTPServer
class Handler(BaseHTTPRequestHandler):
    def do_GET(self):
        body = {text!r}.encode()
        self.send_response(200); self.send_header("Content-Length", str(len(body))); self.end_headers(); self.wfile.write(body)
    def log_message(self, *arguments): pass
HTTPServer(("127.0.0.1", int(os.environ["FUNCTIONS_CUSTOMHANDLER_PORT"])), Handler).serve_forever()
'''
    host = {
        "version": "2.0",
        "customHandler": {"description": {"defaultExecutablePath": "handler"}, "enableForwardingHttpRequest": True},
    }
    binding = {"type": "httpTrigger", "authLevel": "function", "direction": "in", "name": "req", "methods": ["get"]}
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("host.json", json.dumps(host))
        archive.writestr("Hello/function.json", json.dumps({"bindings": [binding, {"type": "http", "direction": "out", "name": "res"}]}))
        executable = zipfile.ZipInfo("handler")
        executable.external_attr = 0o755 << 16
        archive.writestr(executable, handler)
    return out.getvalue()


def settings(values):
    arm("PUT", f"{site}/config/appsettings", {"properties": values}, version="2024-11-01")


def call_function(host, key, wanted):
    """Calls until the status is the wanted one; a (re)start takes a moment."""
    for _ in range(60):
        status, _, data = call("GET", f"https://{host}/api/Hello", headers={"x-functions-key": key})
        if status == wanted:
            return data
        time.sleep(0.5)
    sys.exit(f"\n  stopped: the function answered {status}, not {wanted}: {data[:300]}")


# --- the story ----------------------------------------------------------------------------------


def first_half():
    global vault_uri, blob_uri
    step("1. A resource group, a vault with purge protection, and a storage account with an identity.")
    arm("PUT", group, {"location": "eastus"})
    properties = {
        "tenantId": ENV["TENANT_ID"], "sku": {"family": "A", "name": "standard"}, "enablePurgeProtection": True,
        "enableRbacAuthorization": False, "accessPolicies": [
            {"tenantId": ENV["TENANT_ID"], "objectId": owner(), "permissions": {"keys": ["all"], "secrets": ["all"]}}
        ],
    }
    vault_uri = arm("PUT", vault, {"location": "eastus", "properties": properties})["properties"]["vaultUri"]
    body = {"location": "eastus", "sku": {"name": "Standard_LRS"}, "kind": "StorageV2", "identity": {"type": "SystemAssigned"}}
    made = arm("PUT", account, body, version="2025-01-01")
    blob_uri, principal = made["properties"]["primaryEndpoints"]["blob"], made["identity"]["principalId"]
    seen(f"the vault is {vault_uri}, the account's identity is {principal}")

    step("2. A key in the vault; the identity may wrap and unwrap with it; the account's data now answers to that key.")
    vault_call("POST", "keys/demo-key/create", {"kty": "RSA", "key_size": 2048})
    policy(principal)
    encryption = {
        "keySource": "Microsoft.Keyvault", "keyvaultproperties": {"keyname": "demo-key", "keyvaulturi": vault_uri},
    }
    arm("PATCH", account, {"properties": {"encryption": encryption}}, version="2025-01-01")
    key = account_key()
    status, _, data = call("PUT", f"{blob_uri}demo?restype=container", headers=shared_key(key, "PUT", "/demo", {"restype": "container"}))
    need(status == 201, f"container: {status} {data[:300]}")
    status, _, data = call(
        "PUT", f"{blob_uri}demo/hello.txt?{sas(key)}", b"hello, sealed world", {"x-ms-blob-type": "BlockBlob"}
    )
    need(status == 201, f"blob: {status} {data[:300]}")
    seen(f"a blob is written and read back: {read_blob(key)[2].decode()!r}")

    step("3. Rotate the key. One record is wrapped again; no data moves; the blob reads as before.")
    vault_call("POST", "keys/demo-key/rotate")
    status, _, data = read_blob(key)
    need(status == 200, f"after rotation: {status}")
    seen(f"still {data.decode()!r}")

    step("4. CUT: take the identity's permission away. The data is dark at once, for everyone, whatever key they hold.")
    policy(principal, keep=False)
    status, code, _ = read_blob(key)
    need(status == 403, f"expected 403, got {status}")
    seen(f"403 {code}")

    step("5. JOIN: give it back.")
    policy(principal)
    status, _, data = read_blob(key)
    need(status == 200, f"expected 200, got {status}")
    seen(f"200 {data.decode()!r}")
    return key


def second_half(key):
    step("6. A function app whose code is an encrypted blob. Its address is a secret, and only the app's identity may read it.")
    plan = f"{group}/providers/Microsoft.Web/serverfarms/demo-plan"
    arm("PUT", plan, {"location": "eastus", "kind": "functionapp", "sku": {"name": "Y1", "tier": "Dynamic"}, "properties": {"reserved": True}})
    body = {
        "location": "eastus", "kind": "functionapp,linux", "identity": {"type": "SystemAssigned"},
        "properties": {"serverFarmId": plan, "reserved": True, "siteConfig": {}},
    }
    made = arm("PUT", site, body)
    host = made["properties"]["defaultHostName"]
    principal = arm("GET", site)["identity"]["principalId"]
    call("PUT", f"{blob_uri}demo/app.zip?{sas(key)}", package("hello from a sealed package\n"), {"x-ms-blob-type": "BlockBlob"})

    def point_at(current):
        secret = vault_call("PUT", "secrets/package-url", {"value": f"{blob_uri}demo/app.zip?{sas(current, 'r')}"})
        suffix = urllib.parse.urlsplit(blob_uri).netloc.split(".blob.", 1)[1]
        settings(
            {
                "FUNCTIONS_EXTENSION_VERSION": "~4", "FUNCTIONS_WORKER_RUNTIME": "custom",
                "AzureWebJobsStorage": f"DefaultEndpointsProtocol=https;AccountName={ACCOUNT};AccountKey={current};EndpointSuffix={suffix}",
                "WEBSITE_RUN_FROM_PACKAGE": f"@Microsoft.KeyVault(SecretUri={secret['id']})",
            }
        )

    policy(principal)
    point_at(key)
    keys = arm("POST", f"{site}/host/default/listkeys")
    function_key = keys["functionKeys"]["default"]
    seen(f"with its key the function answers: {call_function(host, function_key, 200).decode()!r}")
    status, _, _ = call("GET", f"https://{host}/api/Hello")
    need(status == 401, f"without a key: {status}")
    seen("without a key: 401")

    step("7. Renew the storage key. Every address signed with the old one is dead; the app runs on what it has already loaded.")
    arm("POST", account + "/regenerateKey", {"keyName": "key1"}, version="2025-01-01")
    need(read_blob(key)[0] == 403, "the old SAS still reads")
    seen("the old SAS: 403")
    call_function(host, function_key, 200)
    seen("the running function: 200")

    step("8. CUT: restart it. Now it has to fetch its package again, and cannot.")
    arm("POST", f"{site}/restart")
    call_function(host, function_key, 503)
    seen("503")

    step("9. JOIN: sign a new address with the new key, put it into the vault.")
    point_at(account_key())
    seen(f"200 {call_function(host, function_key, 200).decode()!r}")

    step("10. CUT at the other end: the app may not read the vault any more.")
    policy(principal, keep=False)
    arm("POST", f"{site}/restart")
    call_function(host, function_key, 503)
    seen("503")


def owner():
    """The object id of the signed-in administrator, from its own token."""
    payload = token(ARM + "/").split(".")[1]
    return json.loads(base64.urlsafe_b64decode(payload + "=" * (-len(payload) % 4)))["oid"]


def shared_key(key, method, path, query):
    """SharedKey headers for a request without a body."""
    date = datetime.now(timezone.utc).strftime("%a, %d %b %Y %H:%M:%S GMT")
    headers = {"x-ms-date": date, "x-ms-version": "2021-12-02"}
    canonical = "".join(f"{name}:{headers[name]}\n" for name in sorted(headers))
    resource = f"/{ACCOUNT}{path}" + "".join(f"\n{name}:{query[name]}" for name in sorted(query))
    text = method + "\n" * 12 + canonical + resource
    signature = base64.b64encode(hmac.new(base64.b64decode(key), text.encode(), hashlib.sha256).digest()).decode()
    return {**headers, "Authorization": f"SharedKey {ACCOUNT}:{signature}", "Content-Length": "0"}


def main():
    print("Coffer: vault key -> account key -> data key -> bytes; identity -> secret -> package -> running function.")
    try:
        second_half(first_half())
        print("\nThat is the chain. Every cut took effect before the next call; every join brought everything back.")
    finally:
        if "--keep" not in sys.argv:
            status, _, _ = call("DELETE", f"{ARM}{group}?api-version=2024-11-01", headers={"Authorization": "Bearer " + token(ARM + "/")})
            print(f"(cleaned up: {status})")


if __name__ == "__main__":
    main()
