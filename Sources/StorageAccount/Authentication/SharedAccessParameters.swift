internal import CofferCore

/// The parameters of a shared access signature as a query carries them, before anything is believed.
struct SharedAccessParameters {
    enum Name: String, CaseIterable {
        case signature = "sig", version = "sv", services = "ss", resourceTypes = "srt", resource = "sr"
        case permissions = "sp", start = "st", expiry = "se", addresses = "sip", protocols = "spr", identifier = "si"
        case encryptionScope = "ses", cacheControl = "rscc", contentDisposition = "rscd", contentEncoding = "rsce"
        case contentLanguage = "rscl", contentType = "rsct"
        case keyObjectID = "skoid", keyTenantID = "sktid", keyStart = "skt", keyExpiry = "ske", keyService = "sks",
            keyVersion = "skv"
        case authorizedObjectID = "saoid", unauthorizedObjectID = "suoid", correlationID = "scid"
        case keyDelegatedTenantID = "skdutid", delegatedObjectID = "sduoid"
        case requestHeaders = "srh", requestQuery = "srq"
        case directoryDepth = "sdd", tableName = "tn", startPartition = "spk", startRow = "srk", endPartition = "epk",
            endRow = "erk"
        // Not a part of the token, but signed with it.
        case snapshot = "snapshot", versionID = "versionid"
    }
    enum Kind { case account, service, userDelegation }

    private var values: [Name: String] = [:]
    let kind: Kind

    subscript(_ name: Name) -> String? { values[name] }
    /// The value, or an empty line where a string-to-sign has none.
    func text(_ name: Name) -> String { values[name] ?? "" }

    /// nil when the query holds no signature. Throws 403 `AuthenticationFailed` for a token that contradicts itself: a
    /// parameter twice, parts of two kinds, a control character that could move one signed field into another.
    init?(_ query: [(name: String, value: String)]) throws(StorageError) {
        guard query.contains(where: { $0.name == "sig" }) else { return nil }
        values.reserveCapacity(20)
        for (name, value) in query {
            guard let field = Name(rawValue: name) else { continue }
            guard !value.utf8.contains(where: { $0 < 0x20 || $0 == 0x7f }) else {
                throw .authenticationFailed(detail: "\(name) holds a control character.")
            }
            guard values.updateValue(value, forKey: field) == nil else {
                throw .authenticationFailed(detail: "\(name) is given more than once.")
            }
        }
        if values[.services] != nil || values[.resourceTypes] != nil {
            kind = .account
        } else if values[.keyObjectID] != nil {
            kind = .userDelegation
        } else {
            kind = .service
        }
        for name in Self.foreign[kind]! where values[name] != nil {
            throw .authenticationFailed(
                detail: "\(name.rawValue) does not belong in this kind of shared access signature.")
        }
        for name in Self.unserved where values[name] != nil {
            throw .authenticationFailed(detail: "\(name.rawValue) is not supported for the Blob service.")
        }
    }

    private static let foreign: [Kind: [Name]] = [
        .account: [
            .resource, .identifier, .keyObjectID, .keyTenantID, .keyStart, .keyExpiry, .keyService, .keyVersion,
            .authorizedObjectID,
            .unauthorizedObjectID, .correlationID, .keyDelegatedTenantID, .delegatedObjectID, .requestHeaders,
            .requestQuery, .cacheControl,
            .contentDisposition, .contentEncoding, .contentLanguage, .contentType,
        ],
        .service: [
            .keyTenantID, .keyStart, .keyExpiry, .keyService, .keyVersion, .authorizedObjectID, .unauthorizedObjectID,
            .correlationID,
            .keyDelegatedTenantID, .delegatedObjectID, .requestHeaders, .requestQuery,
        ],
        .userDelegation: [.identifier],
    ]
    /// Directory depth needs a hierarchical namespace; the rest belongs to tables.
    private static let unserved: [Name] = [
        .directoryDepth, .tableName, .startPartition, .startRow, .endPartition, .endRow,
    ]
}

extension StorageError {
    /// 403 `AuthenticationFailed`. `detail` is for the caller: it must hold nothing but what the request itself said.
    static func authenticationFailed(detail: String? = nil) -> StorageError {
        var error = StorageError(
            403, "AuthenticationFailed",
            "Server failed to authenticate the request. Make sure the value of Authorization header is formed "
                + "correctly including the signature."
        )
        if let detail { error.details = [("AuthenticationErrorDetail", detail)] }
        return error
    }
}
