#!/usr/bin/env python3
"""Tells Coffer's story on a running server: a chain of keys is built, used, cut and joined, one explained step at a time.

Needs a server ('make run' or 'coffer serve') and nothing but Python's standard library: every step is one plain HTTPS call
of the same REST APIs that az and the SDKs use. Set COFFER to the binary's path if it is not in .build.
"""

import argparse
import io
import json
import os
import secrets
import subprocess
import sys
import time
import urllib.parse
import zipfile

from cofferclient import Client, Refused, binary, exports, service_sas, shared_key

LOCATION = "eastus"
RUN = secrets.token_hex(3)
GROUP, VAULT, ACCOUNT, APP = f"demo-{RUN}", f"demo-vault-{RUN}", f"demo{RUN}", f"demo-app-{RUN}"


def connect():
    coffer = binary()
    if not coffer:
        sys.exit("No coffer binary found. Run 'make run' first, or set COFFER to its path.")
    done = subprocess.run([coffer, "env"], capture_output=True, text=True)
    if done.returncode:
        sys.exit(done.stderr.strip() or "coffer env failed")
    return Client(exports(done.stdout))


def options():
    summary, details = __doc__.split("\n\n", 1)
    parser = argparse.ArgumentParser(description=summary, epilog=details)
    parser.add_argument("--keep", action="store_true", help="leave everything in place for a look afterwards, instead of deleting it")
    return parser.parse_args()


arguments = options()
client = connect()
call, arm = client.call, client.arm


def need(holds, why):
    if not holds:
        sys.exit(f"\n  stopped: {why}")


def step(text):
    print(f"\n\033[1m{text}\033[0m", flush=True)


def seen(text):
    print(f"  -> {text}", flush=True)


# --- the pieces ---------------------------------------------------------------------------------

group = f"{client.subscription}/resourceGroups/{GROUP}"
vault = f"{group}/providers/Microsoft.KeyVault/vaults/{VAULT}"
account = f"{group}/providers/Microsoft.Storage/storageAccounts/{ACCOUNT}"
site = f"{group}/providers/Microsoft.Web/sites/{APP}"
vault_uri = blob_uri = ""


def account_key():
    return arm("POST", account + "/listKeys", version="2025-01-01")["keys"][0]["value"]


def sas(key, permissions="racwdl"):
    return service_sas(ACCOUNT, key, "demo", permissions)


def policy(principal, keep=True):
    """Gives the principal what the chain needs of the vault, or takes it away."""
    permissions = {"keys": ["get", "wrapKey", "unwrapKey"], "secrets": ["get"]}
    entry = {"tenantId": client.tenant, "objectId": principal, "permissions": permissions}
    operation = "add" if keep else "remove"
    arm("PUT", f"{vault}/accessPolicies/{operation}", {"properties": {"accessPolicies": [entry]}}, version="2024-11-01")


def vault_call(method, path, body=None):
    return client.vault(method, vault_uri, path, body)


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
    arm("PUT", group, {"location": LOCATION})
    properties = {
        "tenantId": client.tenant, "sku": {"family": "A", "name": "standard"}, "enablePurgeProtection": True,
        "softDeleteRetentionInDays": 7, "enableRbacAuthorization": False, "accessPolicies": [
            {"tenantId": client.tenant, "objectId": client.object_id(), "permissions": {"keys": ["all"], "secrets": ["all"]}}
        ],
    }
    vault_uri = arm("PUT", vault, {"location": LOCATION, "properties": properties})["properties"]["vaultUri"]
    body = {"location": LOCATION, "sku": {"name": "Standard_LRS"}, "kind": "StorageV2", "identity": {"type": "SystemAssigned"}}
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
    status, _, data = call("PUT", f"{blob_uri}demo?restype=container", headers=shared_key(ACCOUNT, key, "PUT", "/demo", {"restype": "container"}))
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
    arm("PUT", plan, {"location": LOCATION, "kind": "functionapp", "sku": {"name": "Y1", "tier": "Dynamic"}, "properties": {"reserved": True}})
    body = {
        "location": LOCATION, "kind": "functionapp,linux", "identity": {"type": "SystemAssigned"},
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


def clean_up():
    """Deletes what the story made. A vault that holds customer keys must have purge protection, so it cannot be purged here."""
    try:
        arm("DELETE", group)
    except Refused as refusal:
        print(f"(not cleaned up: {refusal})")
        return
    print("(cleaned up)")
    path = f"{client.subscription}/providers/Microsoft.KeyVault/locations/{LOCATION}/deletedVaults/{VAULT}"
    try:
        date = arm("GET", path)["properties"]["scheduledPurgeDate"]
    except Refused:
        return  # The story stopped before there was a vault.
    print(f"(the deleted vault {VAULT} stays until {date[:10]}: with purge protection nobody purges it before)")


def main():
    print("Coffer: vault key -> account key -> data key -> bytes; identity -> secret -> package -> running function.")
    try:
        second_half(first_half())
        print("\nThat is the chain. Every cut took effect before the next call; every join brought everything back.")
    except Refused as refusal:
        sys.exit(f"\n  stopped: {refusal}")
    finally:
        if not arguments.keep:
            clean_up()


if __name__ == "__main__":
    main()
