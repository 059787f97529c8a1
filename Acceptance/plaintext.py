#!/usr/bin/env python3
"""Plants distinctive plaintext everywhere a customer can put it, then searches every file of the server, temporary ones included, while it
runs and after it stopped, in every spelling a careless writer might leave. usage: plaintext.py"""

import base64
import io
import json
import os
import secrets
import shutil
import sys
import time
import zipfile
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent / "Scripts"))
from cofferclient import Server, service_sas, shared_key  # noqa: E402

PLANTED = {}


def plant(what):
    """A word that stands nowhere else, remembered by what it stands for. Letters and digits, for names have narrow rules."""
    PLANTED[what] = f"plant{secrets.token_hex(10)}"
    return PLANTED[what]


def spellings(word):
    raw = word.encode()
    yield raw
    yield raw.upper()
    yield raw[::-1]
    yield raw.hex().encode()
    yield word.encode("utf-16-le")
    for skip in range(3):  # however it is aligned inside a longer base64 text
        encoded = base64.b64encode(b"\0" * skip + raw)
        yield encoded[(4 if skip else 0) : len(encoded) - 4]


def package():
    out = io.BytesIO()
    handler = f'''#!/usr/bin/env python3
# {plant("package code")}
import os
from http.server import BaseHTTPRequestHandler, HTTPServer
class H(BaseHTTPRequestHandler):
    def do_GET(self):
        body = b"up"
        print("{plant("a function's log line")}", flush=True)
        self.send_response(200); self.send_header("Content-Length", "2"); self.end_headers(); self.wfile.write(body)
    def log_message(self, *a): pass
HTTPServer(("127.0.0.1", int(os.environ["FUNCTIONS_CUSTOMHANDLER_PORT"])), H).serve_forever()
'''
    host = {"version": "2.0", "customHandler": {"description": {"defaultExecutablePath": "handler"}, "enableForwardingHttpRequest": True}}
    trigger = {"type": "httpTrigger", "authLevel": "anonymous", "direction": "in", "name": "req"}
    with zipfile.ZipFile(out, "w", zipfile.ZIP_STORED) as archive:
        archive.writestr("host.json", json.dumps(host))
        archive.writestr("F/function.json", json.dumps({"bindings": [trigger, {"type": "http", "direction": "out", "name": "res"}]}))
        archive.writestr(f"{plant('a file name in the package')}.txt", "x")
        executable = zipfile.ZipInfo("handler")
        executable.external_attr = 0o755 << 16
        archive.writestr(executable, handler)
    return out.getvalue()


def fill(client):
    run = secrets.token_hex(3)
    account, group = f"plain{run}", f"{client.subscription}/resourceGroups/plain-{run}"
    client.arm("PUT", group, {"location": "eastus", "tags": {"tag": plant("a group's tag")}})
    account_id = f"{group}/providers/Microsoft.Storage/storageAccounts/{account}"
    made = client.arm("PUT", account_id, {"location": "eastus", "sku": {"name": "Standard_LRS"}, "kind": "StorageV2"}, version="2025-01-01")
    key = client.arm("POST", account_id + "/listKeys", version="2025-01-01")["keys"][0]["value"]
    PLANTED["an account key"] = key[:40]
    blobs, sas = made["properties"]["primaryEndpoints"]["blob"], service_sas(account, key, "box")
    headers = shared_key(account, key, "PUT", "/box", {"restype": "container"})
    assert client.call("PUT", blobs + "box?restype=container", headers=headers)[0] == 201

    def put(name, data, more=()):
        status, _, answer = client.call("PUT", f"{blobs}box/{name}?{sas}", data, {"x-ms-blob-type": "BlockBlob", **dict(more)})
        assert status == 201, answer

    put(plant("a small blob's name"), plant("a small blob").encode(), {"x-ms-meta-m": plant("metadata"), "x-ms-blob-content-type": f"text/{plant('a content type')}"})
    put("middle", (plant("a middle blob") * 5_000).encode())
    put("large", (plant("a large blob") * 400_000).encode())
    for name in ("a", "b"):
        block = base64.b64encode(name.encode()).decode()
        status, _, answer = client.call("PUT", f"{blobs}box/blocks?comp=block&blockid={block.replace('=', '%3D')}&{sas}", (plant(f"block {name}") * 1_000).encode())
        assert status == 201, answer
    cpk = secrets.token_bytes(32)
    PLANTED["a customer-provided key"] = base64.b64encode(cpk).decode()[:40]
    import hashlib

    put("provided", plant("a blob under a provided key").encode(), {
        "x-ms-version": "2021-12-02", "x-ms-encryption-key": base64.b64encode(cpk).decode(), "x-ms-encryption-algorithm": "AES256",
        "x-ms-encryption-key-sha256": base64.b64encode(hashlib.sha256(cpk).digest()).decode(),
    })

    vault_id = f"{group}/providers/Microsoft.KeyVault/vaults/plain-{run}"
    policy = {"tenantId": client.tenant, "objectId": client.object_id(), "permissions": {"keys": ["all"], "secrets": ["all"]}}
    properties = {"tenantId": client.tenant, "sku": {"family": "A", "name": "standard"}, "enableRbacAuthorization": False, "accessPolicies": [policy]}
    uri = client.arm("PUT", vault_id, {"location": "eastus", "properties": properties})["properties"]["vaultUri"]
    client.vault("PUT", uri, f"secrets/{plant('the name of a secret')}", {"value": plant("a secret"), "contentType": plant("the type of a secret")})
    client.vault("POST", uri, f"keys/{plant('the name of a key')}/create", {"kty": "RSA", "key_size": 2048})

    plan, site = (f"{group}/providers/Microsoft.Web/{kind}" for kind in ("serverfarms/plan", f"sites/plain-{run}"))
    client.arm("PUT", plan, {"location": "eastus", "kind": "functionapp", "sku": {"name": "Y1", "tier": "Dynamic"}, "properties": {"reserved": True}})
    made = client.arm("PUT", site, {"location": "eastus", "kind": "functionapp,linux", "properties": {"serverFarmId": plan, "reserved": True}})
    put("app.zip", package())
    suffix = blobs.split(".blob.", 1)[1].strip("/")
    PLANTED["a signature"] = sas.rsplit("sig=", 1)[1][:30]
    client.arm("PUT", f"{site}/config/appsettings", {"properties": {
        "SECRET_SETTING": plant("a setting"), plant("the name of a setting"): "1", "FUNCTIONS_EXTENSION_VERSION": "~4",
        "AzureWebJobsStorage": f"DefaultEndpointsProtocol=https;AccountName={account};AccountKey={key};EndpointSuffix={suffix}",
        "WEBSITE_RUN_FROM_PACKAGE": f"{blobs}box/app.zip?{sas}",
    }})
    PLANTED["the master key"] = client.arm("POST", f"{site}/host/default/listkeys")["masterKey"]
    PLANTED["the administrator's secret"] = client.environment["CLIENT_SECRET"]
    for _ in range(100):
        status, _, data = client.call("GET", f"https://{made['properties']['defaultHostName']}/api/F")
        if status == 200:
            break
        time.sleep(0.3)
    assert status == 200, data


def search(server):
    """Where a planted word stands. Only the 0600 credentials file may hold the administrator's secret."""
    found, files, total = [], 0, 0
    needles = [(what, spelling) for what, word in PLANTED.items() for spelling in spellings(word)]
    for folder, _, names in os.walk(server.home):
        for name in names:
            path = Path(folder) / name
            if path == server.home / "administrator.json" or not path.is_file():
                continue
            data = path.read_bytes()
            files, total = files + 1, total + len(data)
            found += [f"{what} in {path.relative_to(server.home)}" for what, needle in needles if needle in data]
            found += [f"{what} is the name of {path.name}" for what, word in PLANTED.items() if word in path.name]
    return found, files, total


def main():
    server = Server(options=["--log-level", "trace"]).start()
    fill(server.client())
    for moment in ("while the server runs", "after it was killed", "after a restart and a clean stop"):
        if moment.startswith("after it"):
            server.kill()
        elif moment.startswith("after a"):
            server.start()
            assert server.stop() == 0
        found, files, total = search(server)
        assert not found, f"{moment}: " + "; ".join(sorted(set(found)))
        print(f"{moment}: {len(PLANTED)} planted words in none of {files} files ({total:,} bytes)")
    # The search itself must be able to find: a planted file gives it away.
    (server.home / "data" / "canary").write_bytes(next(iter(PLANTED.values())).encode())
    assert search(server)[0], "the search finds nothing even where something is"
    shutil.rmtree(server.home)


if __name__ == "__main__":
    main()
