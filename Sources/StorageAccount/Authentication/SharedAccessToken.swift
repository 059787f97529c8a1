internal import CofferCore
internal import HTTPEdge
internal import Synchronization

/// What a shared access signature has proven: the token's own words, believed as long as the account's keys stay.
struct SharedAccessToken: Sendable {
    /// What a stored access policy may say instead.
    struct Terms: Sendable {
        var permissions: String?
        var start: Timestamp?
        var expiry: Timestamp?
    }
    /// The user delegation key that signed.
    struct Delegation: Sendable {
        let principal: Caller
        let start: Timestamp
        let expiry: Timestamp
    }
    let scope: SharedAccessGrant.Scope
    var terms = Terms()
    /// `si`, the stored access policy.
    var identifier: String?
    var needsHTTPS = false
    var addresses: IPv4Range?
    /// `ss` of an account SAS.
    var services: LetterSet?
    var responseHeaders: [String: String] = [:]
    var encryptionScope: String?
    var delegation: Delegation?
    /// `sduoid` in lower case: who must prove with a bearer token to be the one the signature is for.
    var holder: String?
    /// The signature covers headers or parameters of one request (`srh`, `srq`): it proves nothing about the next.
    var signsRequestParts = false

    init(scope: SharedAccessGrant.Scope) { self.scope = scope }

    /// Whether a request with the same query is covered, by its path. False where that takes a longer look.
    fileprivate func covers(_ request: Request) -> Bool {
        switch scope {
        case .account: true
        case .container(let container): Self.path(of: request, is: container, nil)
        case .blob(let container, let blob), .snapshot(let container, let blob, _):
            Self.path(of: request, is: container, blob)
        }
    }

    /// Whether a path names both container and blob, decoded as `SharedAccessResource` does, and these. Compares bytes:
    /// names that only look the same are two blobs.
    private static func path(of request: Request, is container: String, _ blob: String?) -> Bool {
        guard let path = percentDecoded(request.rawPath.dropFirst())?.utf8, let slash = path.firstIndex(of: 0x2f) else {
            return false
        }
        return path[..<slash].elementsEqual(container.utf8)
            && (blob.map { path[path.index(after: slash)...].elementsEqual($0.utf8) } ?? true)
    }
}

/// Tokens that were proven under one account's keys, found again by their query. It goes with the `LoadedAccount`, so
/// no change of keys or settings outlives it.
final class ProvenTokens: Sendable {
    /// Service and query. Queries are found by their hash, which the process keys at random, and then compared in
    /// constant time: how long a search takes says nothing of how much of a guessed signature is true.
    private struct Question: Hashable {
        let service: StorageService
        var query: String

        static func == (left: Question, right: Question) -> Bool {
            var (left, right) = (left, right)
            return left.service == right.service
                && left.query.withUTF8 { left in right.query.withUTF8 { constantTimeEquals(left, $0) } }
        }
        func hash(into hasher: inout Hasher) {
            var query = query
            query.withUTF8 { hasher.combine(bytes: UnsafeRawBufferPointer($0)) }
        }
    }
    private static let limit = 1_024
    /// A longer query holds more than a token, or words that no client needs.
    private static let queryBytesLimit = 2_048
    private let tokens = Mutex<[Question: SharedAccessToken]>([:])

    func token(of request: Request, to service: StorageService) -> SharedAccessToken? {
        guard !request.rawQuery.isEmpty else { return nil }
        let question = Question(service: service, query: request.rawQuery)
        return tokens.withLock { $0[question] }.flatMap { $0.covers(request) ? $0 : nil }
    }

    func remember(_ token: SharedAccessToken, of request: Request, to service: StorageService) {
        guard !token.signsRequestParts, request.rawQuery.utf8.count <= Self.queryBytesLimit else { return }
        let question = Question(service: service, query: request.rawQuery)
        tokens.withLock { tokens in
            // Proving a token anew costs little more than finding it: a full memory starts over.
            if tokens.count >= Self.limit { tokens.removeAll(keepingCapacity: true) }
            tokens[question] = token
        }
    }
}
