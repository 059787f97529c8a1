internal import CofferCore
internal import HTTPEdge
internal import NIOCore
internal import NIOHTTP1
internal import StorageAccount

extension BlobService {
    /// Get Blob Service Properties.
    func getServiceProperties(_ call: BlobCall) async throws -> Response {
        try authorize(call, .readService)
        let properties = try await accounts.blobServiceProperties(of: call.account)
        var xml = XMLDocumentWriter()
        xml.open("StorageServiceProperties")
        xml.open("Logging")
        xml.element("Version", "1.0")
        for name: StaticString in ["Delete", "Read", "Write"] { xml.element(name, "false") }
        writeDisabledRetention("RetentionPolicy", to: &xml)
        xml.close("Logging")
        for name: StaticString in ["HourMetrics", "MinuteMetrics"] {
            xml.open(name)
            xml.element("Version", "1.0")
            xml.element("Enabled", "false")
            writeDisabledRetention("RetentionPolicy", to: &xml)
            xml.close(name)
        }
        xml.open("Cors")
        for rule in properties.corsRules {
            xml.open("CorsRule")
            xml.element("AllowedOrigins", rule.allowedOrigins.joined(separator: ","))
            xml.element("AllowedMethods", rule.allowedMethods.joined(separator: ","))
            xml.element("AllowedHeaders", rule.allowedHeaders.joined(separator: ","))
            xml.element("ExposedHeaders", rule.exposedHeaders.joined(separator: ","))
            xml.element("MaxAgeInSeconds", String(rule.maxAgeInSeconds))
            xml.close("CorsRule")
        }
        xml.close("Cors")
        xml.element("DefaultServiceVersion", ifPresent: properties.defaultServiceVersion)
        writeDisabledRetention("DeleteRetentionPolicy", to: &xml)
        xml.open("StaticWebsite")
        xml.element("Enabled", "false")
        xml.close("StaticWebsite")
        xml.close("StorageServiceProperties")
        return .xml(.ok, xml)
    }
    private func writeDisabledRetention(_ name: StaticString, to xml: inout XMLDocumentWriter) {
        xml.open(name)
        xml.element("Enabled", "false")
        xml.close(name)
    }

    /// Set Blob Service Properties: what is not in the document stays. Switching on analytics, soft delete or the
    /// static website is refused.
    func setServiceProperties(_ call: BlobCall) async throws -> Response {
        try authorize(call, .writeService)
        let root = try readXML(try await call.request.body.collect(upTo: BlobLimits.xmlBodyBytes))
        guard root.name == "StorageServiceProperties" else { throw StorageError.invalidXML }
        let features = [
            ("Logging", "Storage analytics logging"), ("HourMetrics", "Storage analytics metrics"),
            ("MinuteMetrics", "Storage analytics metrics"), ("DeleteRetentionPolicy", "Blob soft delete"),
            ("StaticWebsite", "The static website"),
        ]
        for (name, feature) in features {
            guard let node = root[name] else { continue }
            let switches = ["Enabled", "Delete", "Read", "Write"].compactMap { node[$0]?.text.lowercased() }
            if switches.contains("true") { throw StorageError.featureNotEnabled(feature) }
        }
        let rules = try root["Cors"].map { node throws(StorageError) in try Self.rules(node) }
        let version = root["DefaultServiceVersion"]?.text
        try await accounts.updateBlobServiceProperties(of: call.account) { properties in
            if let rules { properties.corsRules = rules }
            if let version { properties.defaultServiceVersion = version.isEmpty ? nil : version }
        }
        return Response(status: .accepted)
    }

    private static func rules(_ cors: XMLNode) throws(StorageError) -> [BlobServiceProperties.CORSRule] {
        let rules = cors.all("CorsRule").map { node in
            func list(_ name: String) -> [String] {
                (node[name]?.text ?? "").parts(at: UInt8(ascii: ",")).map { item in
                    var bytes = item.utf8.drop { $0 == 0x20 }
                    while bytes.last == 0x20 { bytes.removeLast() }
                    return String(Substring(bytes))
                }.filter { !$0.isEmpty }
            }
            return BlobServiceProperties.CORSRule(
                allowedOrigins: list("AllowedOrigins"), allowedMethods: list("AllowedMethods"),
                allowedHeaders: list("AllowedHeaders"),
                exposedHeaders: list("ExposedHeaders"), maxAgeInSeconds: Int(node["MaxAgeInSeconds"]?.text ?? "") ?? -1)
        }
        let methods: Set<String> = [
            "DELETE", "GET", "HEAD", "MERGE", "POST", "OPTIONS", "PUT", "PATCH", "CONNECT", "TRACE",
        ]
        let isValid =
            rules.count <= BlobServiceProperties.corsRuleLimit
            && rules.allSatisfy {
                !$0.allowedOrigins.isEmpty && !$0.allowedMethods.isEmpty
                    && $0.allowedMethods.allSatisfy(methods.contains)
                    && $0.maxAgeInSeconds >= 0 && $0.allowedOrigins.count <= 64
            }
        guard isValid else { throw StorageError(400, "InvalidXmlNodeValue", "A CORS rule is not valid.") }
        return rules
    }

    // MARK: CORS

    /// Preflight (OPTIONS): unauthenticated; the first rule that allows the question answers it.
    func preflight(_ request: Request, _ account: StorageAccountView) async throws -> Response {
        guard let origin = request.header("Origin") else { throw StorageError.missingHeader("Origin") }
        guard let method = request.header("Access-Control-Request-Method") else {
            throw StorageError.missingHeader("Access-Control-Request-Method")
        }
        let headers = (request.header("Access-Control-Request-Headers") ?? "").split(separator: ",").map {
            String($0.drop { $0 == " " }.reversed().drop { $0 == " " }.reversed())
        }
        let rules = try await accounts.blobServiceProperties(of: account).corsRules
        guard let rule = rules.first(where: { $0.allows(origin: origin, method: method, headers: headers) }) else {
            throw StorageError(
                403, "CorsPreflightFailure",
                rules.isEmpty
                    ? "CORS not enabled or no matching rule found for this request."
                    : "No CORS rule matches this request.")
        }
        var response = Response(status: .ok)
        response.headers.add(
            name: "Access-Control-Allow-Origin", value: rule.allowedOrigins.contains("*") ? "*" : origin)
        response.headers.add(name: "Access-Control-Allow-Methods", value: method)
        if !headers.isEmpty {
            response.headers.add(name: "Access-Control-Allow-Headers", value: headers.joined(separator: ","))
        }
        response.headers.add(name: "Access-Control-Max-Age", value: String(rule.maxAgeInSeconds))
        if !rule.allowedOrigins.contains("*") {
            response.headers.add(name: "Access-Control-Allow-Credentials", value: "true")
        }
        return response
    }

    /// For a request with an `Origin`: what the first matching rule lets a script see.
    func addCORSHeaders(_ headers: inout HTTPHeaders, _ request: Request, _ account: StorageAccountView) async throws {
        guard let origin = request.header("Origin") else { return }
        let rules = try await accounts.blobServiceProperties(of: account).corsRules
        guard !rules.isEmpty else { return }
        headers.add(name: "Vary", value: "Origin")
        guard let rule = rules.first(where: { $0.allows(origin: origin, method: request.method.rawValue, headers: []) })
        else { return }
        headers.add(name: "Access-Control-Allow-Origin", value: rule.allowedOrigins.contains("*") ? "*" : origin)
        if !rule.exposedHeaders.isEmpty {
            headers.add(name: "Access-Control-Expose-Headers", value: rule.exposedHeaders.joined(separator: ","))
        }
        if !rule.allowedOrigins.contains("*") { headers.add(name: "Access-Control-Allow-Credentials", value: "true") }
    }
}

extension BlobServiceProperties.CORSRule {
    /// Whether the rule lets a script of `origin` send `method` with these headers ("CORS support for Azure Storage").
    func allows(origin: String, method: String, headers: [String]) -> Bool {
        guard allowedOrigins.contains("*") || allowedOrigins.contains(origin), allowedMethods.contains(method) else {
            return false
        }
        return headers.allSatisfy { header in
            allowedHeaders.contains { pattern in
                let pattern = pattern.lowercased()
                return pattern.hasSuffix("*")
                    ? header.lowercased().hasPrefix(pattern.dropLast()) : header.lowercased() == pattern
            }
        }
    }
}
