internal import CofferCore
internal import Foundation
internal import NIOCore
internal import NIOHTTP1

/// Keys as blobs: `azure-webjobs-secrets/SITE/host.json` and `/FUNCTION.json`, encrypted by the host's key ring. A
/// client of the public Blob API, so that the account's keys, firewall and customer-managed key decide over it as over
/// anyone.
struct BlobKeyRepository: KeyRepository {
    static let containerName = "azure-webjobs-secrets"
    private static let documentLimitBytes = 1 << 20
    private static let snapshotsLimit = 10

    /// `https://account.blob.…/container`, without a trailing slash or query.
    let containerURL: String
    let credential: StorageCredential
    /// Whether the container may be made when it is missing: not by a SAS of the container itself.
    let makesContainer: Bool
    /// The site's name in lower case.
    let folder: String
    let http: any OutboundHTTP
    let clock: any WallClock

    var encryptsValues: Bool { true }
    var location: String { "\(containerURL)/\(folder)" }

    func read(_ scope: SecretsScope) async throws(FunctionsError) -> StoredSecrets? {
        let answer = try await send(
            OutboundRequest(url: url(scope.fileName), responseLimitBytes: Self.documentLimitBytes))
        switch answer.status {
        case 200:
            guard let document = try? SecretsDocument(parsing: Array(answer.body.readableBytesView), scope: scope)
            else {
                throw FunctionsError(
                    .secretStoreUnavailable,
                    "The key document '\(folder)/\(scope.fileName)' is malformed (Invalid secrets file format.). "
                        + "Delete the blob to make new keys."
                )
            }
            return StoredSecrets(document: document, tag: answer.headers.first(name: "ETag"))
        case 404: return nil
        default: throw refused(answer)
        }
    }

    func write(_ scope: SecretsScope, _ document: SecretsDocument, replacing old: StoredSecrets?)
        async throws(FunctionsError)
    {
        try await put(scope.fileName, document.serialized(scope: scope), ifMatch: old?.tag)
    }

    func keepUndecryptable(_ scope: SecretsScope, _ stored: StoredSecrets) async throws(FunctionsError) {
        let stem = String(scope.fileName.dropLast(".json".count))
        let prefix = "\(folder)/\(stem).snapshot."
        let list = try await send(
            OutboundRequest(url: containerURL + "?restype=container&comp=list&maxresults=100&prefix=" + encoded(prefix))
        )
        guard list.status == 200 else { throw refused(list) }
        let count =
            String(decoding: list.body.readableBytesView, as: UTF8.self).components(separatedBy: "<Blob>").count - 1
        guard count < Self.snapshotsLimit else {
            throw FunctionsError(
                .secretStoreUnavailable,
                "Repository has more than \(Self.snapshotsLimit) non-decryptable secrets backups (\(stem)). "
                    + "Delete them from the container '\(Self.containerName)' once the cause is mended.")
        }
        let time = clock.now().iso8601WithTicks.replacing("T", with: " ").replacing(":", with: ".").dropLast(2)
        try await put("\(stem).snapshot.\(time).json", stored.document.serialized(scope: scope), ifMatch: nil)
    }

    private func put(_ name: String, _ bytes: [UInt8], ifMatch: String?) async throws(FunctionsError) {
        var request = OutboundRequest(method: .PUT, url: url(name), body: bytes)
        request.headers.add(name: "x-ms-blob-type", value: "BlockBlob")
        request.headers.add(name: "Content-Type", value: "application/json")
        if let ifMatch {
            request.headers.add(name: "If-Match", value: ifMatch)
        } else {
            request.headers.add(name: "If-None-Match", value: "*")
        }
        var answer = try await send(request)
        if answer.status == 404, makesContainer, answer.storageErrorCode != "ResourceNotFound" {
            let made = try await send(OutboundRequest(method: .PUT, url: containerURL + "?restype=container"))
            guard made.status == 201 || made.status == 409 else { throw refused(made) }
            answer = try await send(request)
        }
        switch answer.status {
        case 201: return
        case 409 where answer.storageErrorCode == "BlobAlreadyExists", 412:
            throw FunctionsError(.conflict, "The keys were changed by another instance at the same time; try again.")
        default: throw refused(answer)
        }
    }

    private func send(_ request: OutboundRequest) async throws(FunctionsError) -> OutboundResponse {
        var request = request
        do {
            try await credential.authorize(&request, now: clock.now())
            return try await http.send(request)
        } catch let error as OutboundError {
            throw FunctionsError(
                .secretStoreUnavailable,
                "The storage account that holds the access keys cannot be used: \(error.message)")
        } catch {
            throw FunctionsError(
                .secretStoreUnavailable,
                "The app's identity got no token for the storage account that holds the access keys.")
        }
    }

    private func refused(_ answer: OutboundResponse) -> FunctionsError {
        FunctionsError(
            .secretStoreUnavailable,
            "The storage account that holds the access keys refused with \(answer.status) "
                + "\(answer.storageErrorCode ?? "and no error code"). "
                + "Check the app setting AzureWebJobsStorage and the account's network rules."
        )
    }

    private func url(_ name: String) -> String { "\(containerURL)/\(encoded(folder))/\(encoded(name))" }
    private func encoded(_ text: String) -> String {
        text.addingPercentEncoding(withAllowedCharacters: .alphanumerics.union(CharacterSet(charactersIn: "-._~")))
            ?? text
    }
}
