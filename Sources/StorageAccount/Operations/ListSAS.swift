internal import CofferCore
internal import Crypto
internal import ResourceProviders

extension StorageAccountService {
    /// The version these two operations sign with: their parameters are that version's, encryption scopes and snapshots
    /// excluded.
    private static let listedSASVersion = "2015-04-05"

    /// Storage Accounts – List Account SAS.
    func listAccountSAS(_ id: ResourceID, _ body: JSONValue?, as caller: Caller) async throws(ControlError)
        -> ControlResponse
    {
        let account = try await account(id, as: caller, Self.action("listAccountSas/action"))
        let body = body ?? [:]
        var fields: [(String, String)] = [("sv", Self.listedSASVersion)]
        fields.append(("ss", try letters(body, "signedServices", "bqtf", required: true) ?? ""))
        fields.append(("srt", try letters(body, "signedResourceTypes", "sco", required: true) ?? ""))
        fields.append(("sp", try letters(body, "signedPermission", "rwdlacupfti", required: true) ?? ""))
        try appendTerms(to: &fields, body, expiryRequired: true)
        func value(_ name: String) -> String { fields.first { $0.0 == name }?.1 ?? "" }
        let text = ([account.record.name] + ["sp", "ss", "srt", "st", "se", "sip", "spr", "sv"].map(value)).map {
            $0 + "\n"
        }.joined()
        return .json(200, ["accountSasToken": .string(try token(fields, text, account, body))])
    }

    /// Storage Accounts – List Service SAS, for blobs and containers.
    func listServiceSAS(_ id: ResourceID, _ body: JSONValue?, as caller: Caller) async throws(ControlError)
        -> ControlResponse
    {
        let account = try await account(id, as: caller, Self.action("listServiceSas/action"))
        let body = body ?? [:]
        guard let resource = body.member("canonicalizedResource")?.stringValue,
            resource.hasPrefix("/blob/\(account.record.name)/"), !resource.utf8.contains(where: { $0 < 0x20 })
        else {
            throw .invalidValue(
                "canonicalizedResource", "It is of the form /blob/\(account.record.name)/container[/blob].")
        }
        guard let kind = try body.choice("signedResource", ["b", "c"]) else {
            throw .invalidValue("signedResource", "It is b or c; queues, tables and files are not served here.")
        }
        var fields: [(String, String)] = [("sv", Self.listedSASVersion), ("sr", kind)]
        let identifier = try text(body, "signedIdentifier")
        if let identifier { fields.append(("si", identifier)) }
        if let permissions = try letters(body, "signedPermission", "racwdxyltmeopi", required: identifier == nil) {
            fields.append(("sp", permissions))
        }
        try appendTerms(to: &fields, body, expiryRequired: identifier == nil)
        for name in ["rscc", "rscd", "rsce", "rscl", "rsct"] {
            if let value = try text(body, name) { fields.append((name, value)) }
        }
        func value(_ name: String) -> String { fields.first { $0.0 == name }?.1 ?? "" }
        let lines =
            [value("sp"), value("st"), value("se"), resource]
            + ["si", "sip", "spr", "sv", "rscc", "rscd", "rsce", "rscl", "rsct"].map(value)
        return .json(200, ["serviceSasToken": .string(try token(fields, lines.joined(separator: "\n"), account, body))])
    }

    // MARK: Parts

    private func appendTerms(to fields: inout [(String, String)], _ body: JSONValue, expiryRequired: Bool)
        throws(ControlError)
    {
        for (name, member) in [("st", "signedStart"), ("se", "signedExpiry")] {
            guard let text = try text(body, member) else {
                guard name == "st" || !expiryRequired else { throw .invalidValue(member, "It is required.") }
                continue
            }
            guard let time = Timestamp(iso8601: text) else {
                throw .invalidValue(member, "It is a time such as 2026-11-25T00:00:00Z.")
            }
            fields.append((name, time.iso8601))
        }
        if let addresses = try text(body, "signedIp") {
            guard IPv4Range(addresses) != nil else {
                throw .invalidValue("signedIp", "It is an IPv4 address or a range a-b.")
            }
            fields.append(("sip", addresses))
        }
        if let protocols = try body.choice("signedProtocol", ["https", "https,http"]) {
            fields.append(("spr", protocols))
        }
    }

    private func text(_ body: JSONValue, _ name: String) throws(ControlError) -> String? {
        guard let value = body.member(name), !value.isNull else { return nil }
        guard let text = value.stringValue, text.utf8.count <= 1_024, !text.utf8.contains(where: { $0 < 0x20 }) else {
            throw .invalidValue(name, "It is a text without line breaks.")
        }
        return text.isEmpty ? nil : text
    }

    private func letters(_ body: JSONValue, _ name: String, _ known: String, required: Bool) throws(ControlError)
        -> String?
    {
        guard let text = try text(body, name) else {
            guard !required else { throw .invalidValue(name, "It is required.") }
            return nil
        }
        guard Set(text).isSubset(of: known), Set(text).count == text.count else {
            throw .invalidValue(name, "It holds letters of \(known).")
        }
        return text
    }

    private func token(
        _ fields: [(String, String)], _ text: String, _ account: LoadedAccount, _ body: JSONValue
    ) throws(ControlError) -> String {
        let keyName = try body.choice("keyToSign", AccountSecrets.keyNames) ?? "key1"
        let key = account.signingKeys[AccountSecrets.keyNames.firstIndex(of: keyName)!]
        return (fields + [("sig", Signatures.sign(text, with: key))]).map { "\($0)=\(queryEscaped($1))" }.joined(
            separator: "&")
    }

    /// RFC 3986 unreserved characters stay, and the comma, as in Azure's own tokens.
    private func queryEscaped(_ text: String) -> String {
        var escaped: [UInt8] = []
        for byte in text.utf8 {
            switch byte {
            case 0x30...0x39, 0x41...0x5a, 0x61...0x7a, 0x2d, 0x2e, 0x5f, 0x7e, 0x2c: escaped.append(byte)
            default: escaped += Array("%".utf8) + Array([byte].hex.uppercased().utf8)
            }
        }
        return String(decoding: escaped, as: UTF8.self)
    }
}
