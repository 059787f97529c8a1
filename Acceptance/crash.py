#!/usr/bin/env python3
"""Kills the server (kill -9) in the middle of concurrent uploads, key rotations, secrets and settings changes, starts it again, and
finds every acknowledged thing and no half thing. usage: crash.py [ROUNDS, 50 unless told]"""

import hashlib
import http.client
import random
import secrets
import shutil
import sys
import threading
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent / "Scripts"))
from cofferclient import Refused, Server, service_sas, shared_key  # noqa: E402

ROUNDS = int(sys.argv[1]) if len(sys.argv) > 1 else 50
SIZES = [0, 100, 4_096, 16_384, 20_000, 300_000, 2_500_000]
GONE = (OSError, http.client.HTTPException, Refused)


class Ledger:
    """What the server acknowledged, and what was under way when it died."""

    def __init__(self):
        self.lock = threading.Lock()
        self.blobs = {}  # name -> digest acknowledged last
        self.pending = {}  # name -> digest sent, not acknowledged
        self.versions = set()  # key versions
        self.secret_versions = {}  # version -> value
        self.setting = 0
        self.setting_pending = 0


def digest(data):
    return hashlib.sha256(data).hexdigest()


class World:
    def __init__(self, server):
        self.server = server
        self.connect()
        run = secrets.token_hex(3)
        self.account, self.container = f"crash{run}", "box"
        self.group = f"{self.client.subscription}/resourceGroups/crash-{run}"
        self.vault_id = f"{self.group}/providers/Microsoft.KeyVault/vaults/crash-{run}"
        self.account_id = f"{self.group}/providers/Microsoft.Storage/storageAccounts/{self.account}"
        self.site = f"{self.group}/providers/Microsoft.Web/sites/crash-{run}"
        self.build()

    def connect(self):
        self.client = self.server.client()

    def build(self):
        arm, client = self.client.arm, self.client
        arm("PUT", self.group, {"location": "eastus"})
        account = {"location": "eastus", "sku": {"name": "Standard_LRS"}, "kind": "StorageV2", "identity": {"type": "SystemAssigned"}}
        made = arm("PUT", self.account_id, account, version="2025-01-01")
        self.blobs = made["properties"]["primaryEndpoints"]["blob"] + self.container
        all_of = {"keys": ["all"], "secrets": ["all"]}
        policies = [
            {"tenantId": client.tenant, "objectId": who, "permissions": all_of}
            for who in (client.object_id(), made["identity"]["principalId"])
        ]
        properties = {
            "tenantId": client.tenant, "sku": {"family": "A", "name": "standard"}, "enablePurgeProtection": True,
            "enableRbacAuthorization": False, "accessPolicies": policies,
        }
        self.vault_uri = arm("PUT", self.vault_id, {"location": "eastus", "properties": properties})["properties"]["vaultUri"]
        client.vault("POST", self.vault_uri, "keys/k/create", {"kty": "RSA", "key_size": 2048})
        encryption = {"keySource": "Microsoft.Keyvault", "keyvaultproperties": {"keyname": "k", "keyvaulturi": self.vault_uri}}
        arm("PATCH", self.account_id, {"properties": {"encryption": encryption}}, version="2025-01-01")
        plan = f"{self.group}/providers/Microsoft.Web/serverfarms/plan"
        arm("PUT", plan, {"location": "eastus", "kind": "functionapp", "sku": {"name": "Y1", "tier": "Dynamic"}, "properties": {"reserved": True}})
        arm("PUT", self.site, {"location": "eastus", "kind": "functionapp,linux", "properties": {"serverFarmId": plan, "reserved": True}})
        self.key = arm("POST", self.account_id + "/listKeys", version="2025-01-01")["keys"][0]["value"]
        self.sas = service_sas(self.account, self.key, self.container)
        headers = shared_key(self.account, self.key, "PUT", "/box", {"restype": "container"})
        status, _, data = client.call("PUT", self.blobs + "?restype=container", headers=headers)
        assert status == 201, (status, data)

    # --- the work that is interrupted

    def upload(self, ledger, stop, seed):
        dice = random.Random(seed)
        while not stop.is_set():
            name = f"blob-{dice.randrange(400)}"
            data = dice.randbytes(dice.choice(SIZES))
            with ledger.lock:
                if name in ledger.pending:
                    continue
                ledger.pending[name] = digest(data)
            status, _, answer = self.client.call("PUT", f"{self.blobs}/{name}?{self.sas}", data, {"x-ms-blob-type": "BlockBlob"})
            with ledger.lock:
                if status == 201:
                    ledger.blobs[name] = ledger.pending.pop(name)
                else:
                    raise Refused(status, answer, "upload")

    def rotate(self, ledger, stop, _):
        while not stop.is_set():
            bundle = self.client.vault("POST", self.vault_uri, "keys/k/rotate")
            ledger.versions.add(bundle["key"]["kid"].rsplit("/", 1)[1])

    def set_secrets(self, ledger, stop, _):
        while not stop.is_set():
            value = secrets.token_hex(20)
            bundle = self.client.vault("PUT", self.vault_uri, "secrets/s", {"value": value})
            ledger.secret_versions[bundle["id"].rsplit("/", 1)[1]] = value

    def change_settings(self, ledger, stop, _):
        while not stop.is_set():
            ledger.setting_pending = ledger.setting + 1
            self.client.arm("PUT", f"{self.site}/config/appsettings", {"properties": {"COUNTER": str(ledger.setting_pending)}})
            ledger.setting = ledger.setting_pending

    # --- what must be true afterwards

    def check(self, ledger, everything):
        for name in sorted(set(ledger.blobs) | set(ledger.pending)):
            if not everything and name not in ledger.pending and random.random() < 0.7:
                continue
            status, headers, data = self.client.call("GET", f"{self.blobs}/{name}?{self.sas}")
            allowed = {ledger.blobs.get(name), ledger.pending.get(name)} - {None}
            if status == 404:
                assert name not in ledger.blobs, f"{name} was acknowledged and is gone"
                continue
            assert status == 200, f"{name}: {status} {data[:200]}"
            assert digest(data) in allowed, f"{name}: {len(data)} bytes that nobody wrote"
            ledger.blobs[name] = digest(data)
        ledger.pending.clear()
        found = set()
        for item in self.pages("keys/k/versions"):
            found.add(item["kid"].rsplit("/", 1)[1])
        assert ledger.versions <= found, "an acknowledged key version is gone"
        for version in random.sample(sorted(ledger.secret_versions), min(20, len(ledger.secret_versions))):
            got = self.client.vault("GET", self.vault_uri, f"secrets/s/{version}")["value"]
            assert got == ledger.secret_versions[version], "an acknowledged secret changed"
        settings = self.client.arm("POST", f"{self.site}/config/appsettings/list")["properties"]
        counter = int(settings.get("COUNTER", 0))
        assert counter in (ledger.setting, ledger.setting_pending), f"setting {counter}, acknowledged {ledger.setting}"
        ledger.setting = counter

    def pages(self, path):
        answer = self.client.vault("GET", self.vault_uri, path)
        while True:
            yield from answer["value"]
            if not answer.get("nextLink"):
                return
            audience = "https://" + self.vault_uri.split("//")[1].strip("/").split(".", 1)[1]
            answer = self.client.api("GET", answer["nextLink"], audience=audience)


def guarded(work, failures, server):
    """The work's own end when the server dies is no failure; anything before that is."""

    def run(ledger, stop, seed):
        try:
            work(ledger, stop, seed)
        except GONE as reason:
            if server.process.poll() is None and not stop.is_set():
                time.sleep(0.5)
                if server.process.poll() is None:
                    failures.append(reason)

    return run


def main():
    server = Server().start()
    world, ledger = World(server), Ledger()
    began = time.monotonic()
    for number in range(1, ROUNDS + 1):
        stop, failures = threading.Event(), []
        works = [world.upload] * 4 + [world.rotate, world.set_secrets, world.change_settings]
        threads = [
            threading.Thread(target=guarded(work, failures, server), args=(ledger, stop, number * 100 + i)) for i, work in enumerate(works)
        ]
        for thread in threads:
            thread.start()
        time.sleep(random.uniform(0.05, 1.0))
        server.kill()
        stop.set()
        for thread in threads:
            thread.join()
        assert not failures, failures[0]
        server.start()
        world.connect()
        world.check(ledger, everything=number in (1, ROUNDS))
        print(f"round {number}: {len(ledger.blobs)} blobs, {len(ledger.versions)} key versions, "
              f"{len(ledger.secret_versions)} secret versions, settings {ledger.setting}", flush=True)
    assert server.stop() == 0, "the server did not stop cleanly"
    verified = server.run("verify")
    assert verified.returncode == 0, verified.stdout + verified.stderr
    shutil.rmtree(server.home)
    print(f"{ROUNDS} rounds of kill -9 in {time.monotonic() - began:.0f} s: everything acknowledged was there, nothing was half")


if __name__ == "__main__":
    main()
