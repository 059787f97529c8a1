#!/usr/bin/env python3
"""The command line as a newcomer meets it: settings, exports, status, refusals that say what to do, a function's logs, and the demo.
usage: newcomer.py"""

import json
import os
import shutil
import subprocess
import sys
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent / "Scripts"))
from cofferclient import ROOT, Client, Server, exports, service_sas, shared_key  # noqa: E402
from plaintext import package  # noqa: E402


def refused(server, words, *arguments, code=1):
    """The command fails with its exit code, and its message holds every word of `words`."""
    done = server.run(*arguments)
    assert done.returncode == code, f"{arguments} ended with {done.returncode}: {done.stdout}{done.stderr}"
    for word in words:
        assert word in done.stderr, f"{arguments} said, without '{word}': {done.stderr}"


def settings(server):
    for words, content in [(["httpsport", "no setting", "httpsPort"], {"httpsport": 1}), (["httpsPort", "whole number"], {"httpsPort": True}),
                           (["httpsPort", "65535"], {"httpsPort": 65536}), (["logLevel", "loud"], {"logLevel": "loud"})]:
        path = server.home / "settings.json"
        path.write_text(json.dumps(content))
        refused(server, words, "config", "--config-file", str(path), code=64)
    path.write_text(json.dumps({"httpsPort": 1, "httpPort": "2", "gatewayPort": 3}))
    environment = dict(server.environment, COFFER_HTTP_PORT="4", COFFER_CONFIG_FILE=str(path))
    printed = subprocess.run([server.coffer, "config", "--gateway-port", "5"], env=environment, capture_output=True, text=True, check=True).stdout
    origins = {line.split()[0]: line.split()[1:] for line in printed.splitlines()}
    assert origins["httpsPort"] == ["file", "1"] and origins["httpPort"] == ["environment", "4"], printed
    assert origins["gatewayPort"] == ["flag", "5"] and origins["domain"][0] == "default", printed
    refused(server, ["--htps-port"], "serve", "--htps-port", "1", code=64)


def without_server(server):
    for command in (["status"], ["env"], ["logs", "app"]):
        refused(server, ["No server runs", "coffer serve"], *command)
    refused(server, ["no data"], "verify")


def with_server(server):
    status = server.run("status")
    assert status.returncode == 0 and str(server.process.pid) in status.stdout, status
    everything = exports(server.run("env").stdout)
    bare = exports(server.run("env", "--no-secret").stdout)
    assert everything["CLIENT_SECRET"] and not any("SECRET" in name for name in bare), "the secret is printed though it was not asked for"
    azure = exports(server.run("env", "--azure-names").stdout)
    assert azure["ARM_ENDPOINT"] == "" and azure["AZURE_AUTHORITY_HOST"] == "https://login.microsoftonline.com", azure
    assert Client(azure).arm("GET", Client(azure).subscription, version="2022-12-01")["state"] == "Enabled"
    refused(server, ["A server runs", "Stop it"], "verify")
    refused(server, ["in use", str(server.process.pid)], "serve", "--https-port", "0", "--http-port", "0", "--gateway-port", "0")
    for path in ("root.key", "administrator.json"):
        assert (server.home / path).stat().st_mode & 0o777 == 0o600, path


def logs(server):
    client = server.client()
    group = f"{client.subscription}/resourceGroups/logs"
    client.arm("PUT", group, {"location": "eastus"})
    account_id = f"{group}/providers/Microsoft.Storage/storageAccounts/logsaccount"
    blobs = client.arm("PUT", account_id, {"location": "eastus", "sku": {"name": "Standard_LRS"}, "kind": "StorageV2"}, version="2025-01-01")
    blobs = blobs["properties"]["primaryEndpoints"]["blob"]
    key = client.arm("POST", account_id + "/listKeys", version="2025-01-01")["keys"][0]["value"]
    headers = shared_key("logsaccount", key, "PUT", "/box", {"restype": "container"})
    assert client.call("PUT", blobs + "box?restype=container", headers=headers)[0] == 201
    sas = service_sas("logsaccount", key, "box")
    assert client.call("PUT", f"{blobs}box/app.zip?{sas}", package(), {"x-ms-blob-type": "BlockBlob"})[0] == 201
    site = f"{group}/providers/Microsoft.Web/sites/logsapp"
    suffix = blobs.split(".blob.", 1)[1].strip("/")
    settings = [
        {"name": "AzureWebJobsStorage", "value": f"DefaultEndpointsProtocol=https;AccountName=logsaccount;AccountKey={key};EndpointSuffix={suffix}"},
        {"name": "WEBSITE_RUN_FROM_PACKAGE", "value": f"{blobs}box/app.zip?{sas}"},
    ]
    made = client.arm("PUT", site, {"location": "eastus", "kind": "functionapp,linux", "properties": {"siteConfig": {"appSettings": settings}}})
    host = made["properties"]["defaultHostName"]
    refused(server, ["no function app named 'none'"], "logs", "none")
    refused(server, ["log-analytics workspace create", "diagnostic-settings"], "logs", "logsapp")
    workspace = f"{group}/providers/Microsoft.OperationalInsights/workspaces/logs"
    client.arm("PUT", workspace, {"location": "eastus"}, version="2022-10-01")
    setting = {"workspaceId": workspace, "logs": [{"category": "FunctionAppLogs", "enabled": True}]}
    client.arm("PUT", f"{site}/providers/microsoft.insights/diagnosticSettings/logs", {"properties": setting}, version="2021-05-01-preview")
    status, _, _ = client.call("GET", f"https://{host}/api/F")
    assert status == 200, status
    for _ in range(100):
        printed = server.run("logs", "LogsApp").stdout
        if "Executed 'Functions.F'" in printed and "plant" in printed:
            break
        time.sleep(0.1)
    else:
        raise AssertionError(f"the log lacks the call or what the function wrote: {printed}")
    assert len(server.run("logs", "logsapp", "--lines", "1").stdout.splitlines()) == 1
    status, _, answer = client.call("GET", "https://" + host.replace(".", ".scm.", 1) + "/api/zipdeploy")
    assert status == 501 and b"WEBSITE_RUN_FROM_PACKAGE" in answer, answer
    unsupported(client, site)


def unsupported(client, site):
    """What docs/compatibility.md calls missing says so."""
    for method, path in [("PUT", "/slots/s"), ("PUT", "/config/authsettingsV2"), ("PUT", "/functions/New"), ("GET", "/privateEndpointConnections")]:
        url = f"{client.manager}{site}{path}?api-version=2024-11-01"
        headers = {"Authorization": "Bearer " + client.token(client.manager + "/"), "Content-Type": "application/json"}
        status, _, answer = client.call(method, url, "{}" if method == "PUT" else None, headers)
        assert status == 501 and json.loads(answer)["error"]["code"] == "NotImplemented", (method, path, status, answer)


def demo(server):
    done = subprocess.run([sys.executable, ROOT / "Scripts" / "demo.py"], env=dict(server.environment, COFFER=server.coffer), capture_output=True, text=True)
    assert done.returncode == 0 and "That is the chain" in done.stdout, done.stdout + done.stderr


def main():
    server = Server()
    settings(server)
    without_server(server)
    server.start()
    with_server(server)
    logs(server)
    demo(server)
    assert server.stop() == 0
    assert server.run("verify").stdout.endswith("sound\n")
    shutil.rmtree(server.home)
    print("every command does what it says, and every refusal says what to do")


if __name__ == "__main__":
    os.umask(0o077)
    main()
