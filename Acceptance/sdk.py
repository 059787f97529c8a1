#!/usr/bin/env python3
"""Runs Microsoft's own live tests of the storage and Key Vault SDKs for Python against a fresh server, and prints a row a test file.

usage: sdk.py [--suites FOLDER] [--results FOLDER] [--keep] [SUITE [FILE|pytest option]...]

Without SUITE it runs what docs/sdk-suites.md counts. FOLDER holds run.sh and its shim (default: ../shared/acceptance/sdk beside the
checkout); nothing of the SDKs is kept here. The exit status is that of the worst run.
"""

import argparse
import json
import os
import shutil
import subprocess
import sys
import uuid
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent / "Scripts"))
from cofferclient import ROOT, Server  # noqa: E402

RUNS = [
    ["blob", "test_cpk.py", "test_cpk_n.py"],
    ["blob", "test_block_blob.py", "test_get_blob.py", "test_container.py", "test_common_blob.py"],
    ["kv-keys"],
    ["kv-secrets"],
]
ACCOUNT, GROUP, VAULT = "cofferacct", "coffer", "coffervault"
# What the suites expect each account to be; the suffix is run.sh's default.
ACCOUNTS = {
    "": ("Standard_RAGRS", "StorageV2"),
    "2": ("Standard_LRS", "StorageV2"),
    "blob": ("Standard_LRS", "BlobStorage"),
}
ENCRYPTION_SCOPES = ["testscope1", "testscope2"]
KEY_VARIABLES = {"": "COFFER_KEY", "2": "COFFER_SECONDARY_KEY", "blob": "COFFER_BLOB_ACCOUNT_KEY"}
DATA_ROLES = [
    "b7e6dc6d-f1e8-4753-8033-0f276bb0955b",  # Storage Blob Data Owner
    "ba92f5b4-2d11-453d-a403-e96b0029c9fe",  # Storage Blob Data Contributor
]


def prepare(client):
    """Makes what the suites expect, through the Resource Manager API; returns the accounts' keys as run.sh's variables."""
    group = f"{client.subscription}/resourceGroups/{GROUP}"
    client.arm("PUT", group, {"location": "eastus"})
    administrator = client.object_id()
    keys = {}
    for suffix, (sku, kind) in ACCOUNTS.items():
        account = f"{group}/providers/Microsoft.Storage/storageAccounts/{ACCOUNT}{suffix}"
        properties = {"accessTier": "Hot", "allowBlobPublicAccess": True, "supportsHttpsTrafficOnly": False}
        client.arm("PUT", account, {"location": "eastus", "sku": {"name": sku}, "kind": kind, "properties": properties}, "2025-01-01")
        for scope in ENCRYPTION_SCOPES if suffix == "" else []:
            client.arm("PUT", f"{account}/encryptionScopes/{scope}", {"properties": {}}, "2025-01-01")
        keys[KEY_VARIABLES[suffix]] = client.arm("POST", account + "/listKeys", version="2025-01-01")["keys"][0]["value"]
    for role in DATA_ROLES:
        definition = f"{client.subscription}/providers/Microsoft.Authorization/roleDefinitions/{role}"
        assignment = f"{group}/providers/Microsoft.Authorization/roleAssignments/{uuid.uuid4()}"
        properties = {"roleDefinitionId": definition, "principalId": administrator, "principalType": "ServicePrincipal"}
        client.arm("PUT", assignment, {"properties": properties}, "2022-04-01")
    permissions = {"keys": ["all"], "secrets": ["all"], "certificates": ["all"]}
    policies = [{"tenantId": client.tenant, "objectId": administrator, "permissions": permissions}]
    properties = {"tenantId": client.tenant, "sku": {"family": "A", "name": "premium"}, "accessPolicies": policies}
    properties["enableRbacAuthorization"] = False
    client.arm("PUT", f"{group}/providers/Microsoft.KeyVault/vaults/{VAULT}", {"location": "eastus", "properties": properties})
    return keys


def suite_environment(server, client, keys):
    state = json.loads((server.home / "data/run.json").read_text())
    hosts = ["*.blob.core.windows.net", "login.microsoftonline.com", "*.vault.azure.net"]
    connect = [f"{host}:443=127.0.0.1:{state['httpsPort']}" for host in hosts]
    connect += [f"{hosts[0]}:80=127.0.0.1:{state['httpPort']}"]
    return {
        **{name: value for name, value in os.environ.items() if not name.lower().endswith("_proxy")},
        **keys,
        "COFFER_CONNECT_TO": ",".join(connect),
        "COFFER_CA_FILE": client.environment["CA_BUNDLE"],
        "COFFER_ACCOUNT": ACCOUNT,
        "COFFER_TENANT_ID": client.tenant,
        "COFFER_CLIENT_ID": client.environment["CLIENT_ID"],
        "COFFER_CLIENT_SECRET": client.environment["CLIENT_SECRET"],
        "COFFER_SUBSCRIPTION_ID": client.environment["SUBSCRIPTION_ID"],
        "COFFER_RESOURCE_GROUP": GROUP,
        "COFFER_VAULT_URL": f"https://{VAULT}.vault.azure.net",
    }


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--suites", type=Path, default=ROOT.parent / "shared/acceptance/sdk")
    parser.add_argument("--results", type=Path, help="keep the results (JUnit XML and logs) here")
    parser.add_argument("--keep", action="store_true", help="keep the server's home and print where it is")
    parser.add_argument("run", nargs=argparse.REMAINDER, metavar="SUITE [FILE]...")
    options = parser.parse_args()
    server = Server().start()
    worst = 0
    try:
        client = server.client("--azure-names")
        client.manager = client.manager or "https://management.azure.com"
        environment = suite_environment(server, client, prepare(client))
        work = Path(environment.get("COFFER_SDK_WORK") or Path(environment.get("TMPDIR", "/tmp")) / "coffer-sdktests")
        for number, run in enumerate([options.run] if options.run else RUNS):
            print(f"== {' '.join(run)}", flush=True)
            # The Key Vault suites wait two seconds for a time in whole seconds to change.
            scaled = {**environment, "COFFER_SLEEP_SCALE": "0.6"} if run[0].startswith("kv-") else environment
            worst = max(worst, subprocess.run([options.suites / "run.sh", *run], env=scaled).returncode)
            if options.results:
                options.results.mkdir(parents=True, exist_ok=True)
                for kind in ("xml", "log"):
                    shutil.copyfile(work / "results" / f"{run[0]}.{kind}", options.results / f"{number}-{run[0]}.{kind}")
    finally:
        server.stop()
        if options.keep:
            print(f"kept: {server.home}")
        else:
            shutil.rmtree(server.home)
    sys.exit(worst)


if __name__ == "__main__":
    main()
