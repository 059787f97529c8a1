internal import CofferCore

/// `host.json`, as far as it means something here (Azure Functions, "host.json reference", version 2.0).
struct HostConfiguration: Sendable, Equatable {
    struct CustomHandler: Sendable, Equatable {
        var executablePath: String
        /// Relative to the app's root.
        var workingDirectory: String
        var arguments: [String]
        /// The original request goes to the handler and its answer comes back unchanged.
        var forwardsRequests: Bool
    }
    struct HSTS: Sendable, Equatable {
        var value: String
        var excludedHosts: [String]
    }

    var routePrefix = "api"
    /// -1: unbounded.
    var maxConcurrentRequests = -1
    var customHeaders: [String: String] = [:]
    var hsts: HSTS?
    /// nil: none asked for.
    var functionTimeoutSeconds: Int64?
    var customHandler: CustomHandler?
    /// Only these functions are loaded, when the list is given.
    var allowedFunctions: [String]?
    var readinessTimeoutSeconds: Int64 = 30

    struct Malformed: Error, Equatable {
        let message: String
        init(_ message: String) { self.message = message }
    }

    /// `expand` gives the values of `%NAME%`.
    init(parsing bytes: [UInt8]?, expand: (String) -> String?) throws(Malformed) {
        guard let bytes else {
            throw Malformed(
                "The package has no host.json at its root. Zip the app's files themselves, not the folder around them.")
        }
        guard let json = try? JSONValue(parsing: Self.withoutByteOrderMark(bytes)), json.objectValue != nil else {
            throw Malformed("Unable to parse host configuration file 'host.json'.")
        }
        switch json.member("version")?.stringValue {
        case "2.0"?: break
        case let version?:
            throw Malformed(
                "'\(version.prefix(32))' is an invalid value for host.json 'version' property. This runtime supports "
                    + "version '2.0'."
            )
        case nil: throw Malformed("The host.json file is missing the required 'version' property.")
        }
        let http = json.member("extensions")?.member("http")
        if let prefix = http?.member("routePrefix")?.stringValue {
            routePrefix = prefix.split(separator: "/").joined(separator: "/")
        }
        maxConcurrentRequests = Int(http?.member("maxConcurrentRequests")?.intValue ?? -1)
        for (name, value) in http?.member("customHeaders")?.objectValue ?? [:] {
            if let text = value.stringValue, HeaderText.isName(name), HeaderText.isValue(text) {
                customHeaders[name] = text
            }
        }
        hsts = Self.hsts(http?.member("hsts"))
        allowedFunctions = json.member("functions")?.arrayValue.map { $0.compactMap(\.stringValue) }
        if let timeout = json.member("functionTimeout")?.stringValue, timeout != "-1" {
            guard let seconds = Self.seconds(timeout), seconds >= 1 else {
                throw Malformed(
                    "The host.json property 'functionTimeout' must be a time span of at least one second, or -1.")
            }
            functionTimeoutSeconds = seconds
        }
        customHandler = try Self.customHandler(json.member("customHandler"), expand: expand)
        if let text = json.member("customHandler")?.member("initializationTimeout")?.stringValue,
            let seconds = Self.seconds(text)
        {
            readinessTimeoutSeconds = min(max(seconds, 1), 230)
        }
    }

    private static func customHandler(
        _ json: JSONValue?, expand: (String) -> String?
    ) throws(Malformed) -> CustomHandler? {
        guard let json, !json.isNull else { return nil }
        let description = json.member("description")
        guard let path = description?.member("defaultExecutablePath")?.stringValue, !path.isEmpty else {
            throw Malformed(
                "WorkerDescription DefaultExecutablePath cannot be empty (host.json, customHandler.description).")
        }
        func list(_ name: String) -> [String] {
            (description?.member(name)?.arrayValue ?? []).compactMap(\.stringValue).map { expanded($0, expand) }
        }
        var arguments = list("arguments")
        if let worker = description?.member("defaultWorkerPath")?.stringValue, !worker.isEmpty {
            arguments.append(expanded(worker, expand))
        }
        arguments += list("workerArguments")
        guard ([path] + arguments).allSatisfy({ !$0.utf8.contains(0) && $0.utf8.count <= 32_768 }),
            arguments.count <= 256
        else {
            throw Malformed("The custom handler's command line in host.json is malformed.")
        }
        let folder = description?.member("workingDirectory")?.stringValue ?? ""
        guard Package.staysInside(folder.isEmpty ? "." : folder, from: "x") else {
            throw Malformed("The custom handler's workingDirectory in host.json must lie inside the package.")
        }
        let forwards =
            (json.member("enableForwardingHttpRequest")?.boolValue ?? false)
            || (json.member("enableProxyingHttpRequest")?.boolValue ?? false)
            || (json.member("http")?.member("enableProxying")?.boolValue ?? false)
        return CustomHandler(
            executablePath: expanded(path, expand), workingDirectory: folder, arguments: arguments,
            forwardsRequests: forwards)
    }

    private static func hsts(_ json: JSONValue?) -> HSTS? {
        guard let json, json.member("isEnabled")?.boolValue == true else { return nil }
        let days = json.member("maxAge")?.stringValue.flatMap(seconds) ?? 30 * 86_400
        var value = "max-age=\(days)"
        if json.member("includeSubDomains")?.boolValue == true { value += "; includeSubDomains" }
        if json.member("preload")?.boolValue == true { value += "; preload" }
        return HSTS(
            value: value, excludedHosts: (json.member("excludedHosts")?.arrayValue ?? []).compactMap(\.stringValue))
    }

    /// Replaces `%NAME%` by a value; an unknown name stays as it is.
    static func expanded(_ text: String, _ value: (String) -> String?) -> String {
        let parts = text.split(separator: "%", omittingEmptySubsequences: false).map(String.init)
        guard parts.count > 2 else { return text }
        var result = parts[0]
        var index = 1
        while index < parts.count {
            if index + 1 < parts.count, let replacement = value(parts[index]) {
                result += replacement + parts[index + 1]
                index += 2
            } else {
                result += "%" + parts[index]
                index += 1
            }
        }
        return result
    }

    /// A .NET TimeSpan (`[d.]hh:mm:ss[.f]`, or whole days) in seconds; nil for anything else.
    static func seconds(_ text: String) -> Int64? {
        let fields = text.split(separator: ":", omittingEmptySubsequences: false)
        func number(_ field: some StringProtocol) -> Int64? {
            (1...9).contains(field.utf8.count) && field.utf8.allSatisfy { (48...57).contains($0) } ? Int64(field) : nil
        }
        guard fields.count == 3 else { return fields.count == 1 ? number(text).map { $0 * 86_400 } : nil }
        let first = fields[0].split(separator: ".", omittingEmptySubsequences: false)
        let last = fields[2].split(separator: ".", omittingEmptySubsequences: false)
        guard first.count <= 2, last.count <= 2, let hours = number(first[first.count - 1]),
            let minutes = number(fields[1]),
            let seconds = number(last[0]), hours < 24, minutes < 60, seconds < 60
        else { return nil }
        let days: Int64
        if first.count == 2 {
            guard let value = number(first[0]) else { return nil }
            days = value
        } else {
            days = 0
        }
        return days * 86_400 + hours * 3_600 + minutes * 60 + seconds
    }

    static func withoutByteOrderMark(_ bytes: [UInt8]) -> [UInt8] {
        bytes.starts(with: [0xef, 0xbb, 0xbf]) ? Array(bytes.dropFirst(3)) : bytes
    }
}

/// What may stand in a header field (RFC 9110 §5.5, §5.6.2).
enum HeaderText {
    static func isName(_ text: String) -> Bool {
        !text.isEmpty
            && text.utf8.allSatisfy { (0x21...0x7e).contains($0) && !"\"(),/:;<=>?@[\\]{}".utf8.contains($0) }
    }
    static func isValue(_ text: String) -> Bool { text.utf8.allSatisfy { $0 == 0x09 || ($0 >= 0x20 && $0 != 0x7f) } }
}
