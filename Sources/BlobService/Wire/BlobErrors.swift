internal import StorageAccount

/// The Blob service's refusals: status, code and message as "Blob service error codes" and "Common REST API error
/// codes" have them.
extension StorageError {
    static var containerNotFound: StorageError {
        StorageError(404, "ContainerNotFound", "The specified container does not exist.")
    }
    static var blobNotFound: StorageError { StorageError(404, "BlobNotFound", "The specified blob does not exist.") }
    static var containerAlreadyExists: StorageError {
        StorageError(409, "ContainerAlreadyExists", "The specified container already exists.")
    }
    static var blobAlreadyExists: StorageError {
        StorageError(409, "BlobAlreadyExists", "The specified blob already exists.")
    }
    static var resourceNotFound: StorageError {
        StorageError(404, "ResourceNotFound", "The specified resource does not exist.")
    }
    static var conditionNotMet: StorageError {
        StorageError(412, "ConditionNotMet", "The condition specified using HTTP conditional header(s) is not met.")
    }
    static var notModified: StorageError {
        StorageError(304, "ConditionNotMet", "The condition specified using HTTP conditional header(s) is not met.")
    }
    static var unsatisfiableCondition: StorageError {
        StorageError(
            400, "UnsatisfiableCondition", "The request includes an unsatisfiable condition for this operation.")
    }
    static var invalidBlobType: StorageError {
        StorageError(409, "InvalidBlobType", "The blob type is invalid for this operation.")
    }
    static var invalidPageRange: StorageError {
        StorageError(
            416, "InvalidPageRange",
            "The page range specified is invalid: it must be whole pages of 512 bytes of the blob.")
    }
    static var invalidBlockList: StorageError {
        StorageError(400, "InvalidBlockList", "The specified block list is invalid.")
    }
    static var invalidBlobOrBlock: StorageError {
        StorageError(400, "InvalidBlobOrBlock", "The specified blob or block content is invalid.")
    }
    static var blockCountExceedsLimit: StorageError {
        StorageError(
            409, "BlockCountExceedsLimit", "The committed block count cannot exceed the maximum limit of 50,000 blocks."
        )
    }
    static var uncommittedBlockCountExceedsLimit: StorageError {
        StorageError(
            409, "BlockCountExceedsLimit",
            "The uncommitted block count cannot exceed the maximum limit of 100,000 blocks.")
    }
    static var snapshotsPresent: StorageError {
        StorageError(409, "SnapshotsPresent", "This operation is not permitted while the blob has snapshots.")
    }
    static var md5Mismatch: StorageError {
        StorageError(
            400, "Md5Mismatch",
            "The MD5 value specified in the request did not match with the MD5 value calculated by the server.")
    }
    static var crc64Mismatch: StorageError {
        StorageError(
            400, "Crc64Mismatch",
            "The CRC64 value specified in the request did not match with the CRC64 value calculated by the server.")
    }
    static var invalidMD5: StorageError {
        StorageError(
            400, "InvalidMd5",
            "The MD5 value specified in the request is invalid. MD5 value must be 128 bits and base64 encoded.")
    }
    static var bodyTooLarge: StorageError {
        StorageError(
            413, "RequestBodyTooLarge", "The request body is too large and exceeds the maximum permissible limit.")
    }
    static var missingContentLength: StorageError {
        StorageError(411, "MissingContentLengthHeader", "Content-Length HTTP header is missing.")
    }
    static var invalidXML: StorageError {
        StorageError(400, "InvalidXmlDocument", "XML specified is not syntactically valid.")
    }
    static var unsupportedVerb: StorageError {
        StorageError(405, "UnsupportedHttpVerb", "The resource doesn't support specified Http Verb.")
    }
    static var serverBusy: StorageError {
        var error = StorageError(
            503, "ServerBusy", "The server is currently unable to receive requests. Please retry your request.")
        error.headers = [("Retry-After", "1")]
        return error
    }

    static func invalidHeader(_ name: String, _ value: String? = nil, reason: String? = nil) -> StorageError {
        var error = StorageError(
            400, "InvalidHeaderValue",
            "The value for one of the HTTP headers is not in the correct format." + (reason.map { " " + $0 } ?? ""))
        error.details = [("HeaderName", name)] + (value.map { [("HeaderValue", $0)] } ?? [])
        return error
    }
    static func missingHeader(_ name: String) -> StorageError {
        var error = StorageError(
            400, "MissingRequiredHeader", "An HTTP header that's mandatory for this request is not specified.")
        error.details = [("HeaderName", name)]
        return error
    }
    static func unsupportedHeader(_ name: String) -> StorageError {
        var error = StorageError(
            400, "UnsupportedHeader", "One of the HTTP headers specified in the request is not supported.")
        error.details = [("HeaderName", name)]
        return error
    }
    static func invalidQuery(_ name: String, _ value: String, reason: String? = nil) -> StorageError {
        var error = StorageError(
            400, "InvalidQueryParameterValue",
            "Value for one of the query parameters specified in the request URI is invalid.")
        error.details =
            [("QueryParameterName", name), ("QueryParameterValue", value)] + (reason.map { [("Reason", $0)] } ?? [])
        return error
    }
    static func outOfRange(_ name: String, _ value: String) -> StorageError {
        var error = StorageError(
            400, "OutOfRangeQueryParameterValue",
            "One of the query parameters specified in the request URI is outside the permissible range.")
        error.details = [("QueryParameterName", name), ("QueryParameterValue", value)]
        return error
    }
    static func missingQuery(_ name: String) -> StorageError {
        var error = StorageError(
            400, "MissingRequiredQueryParameter",
            "A query parameter that's mandatory for this request is not specified.")
        error.details = [("QueryParameterName", name)]
        return error
    }
    static func notImplemented(_ what: String) -> StorageError {
        StorageError(
            501, "NotImplemented", "The requested operation is not implemented on the specified resource: \(what).")
    }
    static func featureNotEnabled(_ what: String) -> StorageError {
        StorageError(
            409, "FeatureNotEnabledForAccount",
            "\(what) is not enabled for this account, and this server does not offer it.")
    }

    // MARK: Leases

    static func lease(_ refusal: Lease.Refusal, of what: String) -> StorageError {
        switch refusal {
        case .alreadyPresent: StorageError(409, "LeaseAlreadyPresent", "There is already a lease present.")
        case .idMismatch:
            StorageError(
                409, "LeaseIdMismatchWithLeaseOperation",
                "The lease ID specified did not match the lease ID for the \(what).")
        case .notPresent:
            StorageError(409, "LeaseNotPresentWithLeaseOperation", "There is currently no lease on the \(what).")
        case .isBreakingAndCannotBeAcquired:
            StorageError(
                409, "LeaseIsBreakingAndCannotBeAcquired",
                "The lease ID matched, but the lease is currently in breaking state and cannot be acquired until it is broken."
            )
        case .isBreakingAndCannotBeChanged:
            StorageError(
                409, "LeaseIsBreakingAndCannotBeChanged",
                "The lease ID matched, but the lease is currently in breaking state and cannot be changed.")
        case .isBrokenAndCannotBeRenewed:
            StorageError(
                409, "LeaseIsBrokenAndCannotBeRenewed",
                "The lease ID matched, but the lease has been broken explicitly and cannot be renewed.")
        }
    }

    // MARK: Encryption (specs/recorded/encryption-errors.json)

    static var usesCustomerKey: StorageError {
        StorageError(
            409, "BlobUsesCustomerSpecifiedEncryption",
            "The blob is encrypted with customer specified encryption, but it was not provided in the request.")
    }
    static var doesNotUseCustomerKey: StorageError {
        StorageError(
            409, "BlobDoesNotUseCustomerSpecifiedEncryption",
            "The blob is not encrypted with customer specified encryption, but one was provided in the request.")
    }
    static var customerKeyMismatch: StorageError {
        StorageError(
            409, "BlobCustomerSpecifiedEncryptionMismatch",
            "The given customer specified encryption does not match the encryption used to encrypt the blob.")
    }

    static var forbiddenByContainerEncryption: StorageError {
        StorageError(
            403, "RequestForbiddenByContainerEncryptionPolicy",
            "The request is forbidden by the container encryption policy.")
    }

    // MARK: Authorization

    static var permissionMismatch: StorageError {
        StorageError(
            403, "AuthorizationPermissionMismatch",
            "This request is not authorized to perform this operation using this permission.")
    }
    static var resourceTypeMismatch: StorageError {
        StorageError(
            403, "AuthorizationResourceTypeMismatch",
            "This request is not authorized to perform this operation using this resource type.")
    }
    static var authorizationFailure: StorageError {
        StorageError(403, "AuthorizationFailure", "This request is not authorized to perform this operation.")
    }
    static var unauthorizedOverwrite: StorageError {
        StorageError(403, "UnauthorizedBlobOverwrite", "This request is not authorized to perform blob overwrites.")
    }
    static var publicAccessNotPermitted: StorageError {
        StorageError(409, "PublicAccessNotPermitted", "Public access is not permitted on this storage account.")
    }
}
