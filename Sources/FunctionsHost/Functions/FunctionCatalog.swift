internal import CofferCore

/// What a key must be at least (Azure Functions, "Authorization level").
enum AuthorizationLevel: String, Sendable, Equatable { case anonymous, user, function, system, admin }

/// One function of a package, read from its `function.json`.
struct Function: Sendable, Equatable {
    struct HTTPTrigger: Sendable, Equatable {
        let bindingName: String
        let level: AuthorizationLevel
        /// Upper case; empty means all.
        let methods: [String]
        let route: RouteTemplate
        /// The name of the `http` output binding; `$return` for the return value.
        let outputName: String?
        /// Whether there is no other binding than the trigger and one HTTP output, so that a request can be forwarded
        /// as it is.
        let isPlain: Bool
    }

    let name: String
    let config: JSONValue
    let files: [String]
    let isDisabled: Bool
    let trigger: HTTPTrigger?
    /// Why it cannot run.
    var errors: [String]
}

/// The functions of a package and the way from a request to one of them.
struct FunctionCatalog: Sendable, Equatable {
    static let functionsLimit = 1_000
    private static let allMethods = ["GET", "POST", "PUT", "DELETE", "HEAD", "OPTIONS", "PATCH", "TRACE", "CONNECT"]

    /// By name.
    private(set) var functions: [Function]
    let routePrefix: String
    /// Ready to run, best precedence first.
    private let routed: [Function]

    static let empty = FunctionCatalog(functions: [], routePrefix: "api")

    init(package: Package, host: HostConfiguration, setting: (String) -> String?) throws(PackageError) {
        var functions: [Function] = []
        let paths = package.configuration.keys.filter { $0.hasSuffix("/function.json") }.sorted()
        guard paths.count <= Self.functionsLimit else {
            throw PackageError(.configuration, "The package has more than \(Self.functionsLimit) functions.")
        }
        for path in paths {
            let folder = String(path.dropLast("/function.json".count))
            if let allowed = host.allowedFunctions, !allowed.contains(where: { $0.lowercased() == folder.lowercased() })
            {
                continue
            }
            let files = package.files.filter { $0.hasPrefix(folder + "/") }.map {
                String($0.dropFirst(folder.count + 1))
            }
            functions.append(Self.function(folder, package.configuration[path] ?? [], files: files, setting: setting))
        }
        self.init(functions: Self.withoutConflicts(functions), routePrefix: host.routePrefix)
    }

    private init(functions: [Function], routePrefix: String) {
        self.functions = functions.sorted { $0.name < $1.name }
        self.routePrefix = routePrefix
        routed = functions.filter { $0.errors.isEmpty && $0.trigger != nil }.sorted { left, right in
            guard let a = left.trigger?.route.precedence, let b = right.trigger?.route.precedence, a != b else {
                return left.name < right.name
            }
            return a.lexicographicallyPrecedes(b)
        }
    }

    /// In any case, as the original compares names.
    func function(_ name: String) -> Function? { functions.first { $0.name.lowercased() == name.lowercased() } }

    /// The function and its route parameters; nil when no route fits path and method. The original never answers 405.
    func match(method: String, path: [String]) -> (function: Function, parameters: [String: String?])? {
        let prefix = routePrefix.split(separator: "/").map { $0.lowercased() }
        guard path.count >= prefix.count, path.prefix(prefix.count).map({ $0.lowercased() }) == prefix else {
            return nil
        }
        let rest = Array(path.dropFirst(prefix.count))
        for function in routed {
            guard let trigger = function.trigger, trigger.methods.isEmpty || trigger.methods.contains(method),
                let parameters = trigger.route.match(rest)
            else { continue }
            return (function, parameters)
        }
        return nil
    }

    /// `^[a-z][a-z0-9_\-]{0,127}$` in any case, and not `host`.
    static func isName(_ name: String) -> Bool {
        guard let first = name.utf8.first, (1...128).contains(name.utf8.count), name.lowercased() != "host" else {
            return false
        }
        func isLetter(_ byte: UInt8) -> Bool { (65...90).contains(byte) || (97...122).contains(byte) }
        return isLetter(first)
            && name.utf8.allSatisfy { isLetter($0) || (48...57).contains($0) || $0 == 0x5f || $0 == 0x2d }
    }

    private static func function(_ name: String, _ bytes: [UInt8], files: [String], setting: (String) -> String?)
        -> Function
    {
        let json = (try? JSONValue(parsing: HostConfiguration.withoutByteOrderMark(bytes))) ?? .null
        var errors: [String] = []
        if !isName(name) { errors.append("'\(name)' is not a valid function name.") }
        if json.objectValue == nil {
            errors.append("Unable to parse the function's configuration file 'function.json'.")
        }
        let settingFlag = (setting("AzureWebJobs.\(name).Disabled") ?? setting("AzureWebJobs_\(name)_Disabled"))?
            .lowercased()
        let isDisabled = json.member("disabled")?.boolValue == true || settingFlag == "true" || settingFlag == "1"
        var trigger: Function.HTTPTrigger?
        if errors.isEmpty {
            do { trigger = try httpTrigger(json, function: name, setting: setting) } catch {
                errors.append(error.message)
            }
        }
        return Function(
            name: name, config: json, files: files, isDisabled: isDisabled, trigger: trigger, errors: errors)
    }

    private static func httpTrigger(
        _ json: JSONValue, function: String, setting: (String) -> String?
    ) throws(RouteTemplate.Malformed) -> Function.HTTPTrigger {
        let bindings = json.member("bindings")?.arrayValue ?? []
        func type(_ binding: JSONValue) -> String { binding.member("type")?.stringValue?.lowercased() ?? "" }
        let triggers = bindings.filter { type($0).hasSuffix("trigger") }
        guard triggers.count == 1, let trigger = triggers.first else {
            throw .init(
                triggers.isEmpty
                    ? "No trigger binding specified. A function must have a trigger input binding."
                    : "Multiple trigger bindings defined. A function can only have a single trigger binding.")
        }
        guard type(trigger) == "httptrigger" else {
            let name = trigger.member("type")?.stringValue ?? ""
            throw .init("The trigger type '\(name.prefix(64))' is not supported by this server; only httpTrigger is.")
        }
        let level = try level(trigger.member("authLevel")?.stringValue)
        let methods = (trigger.member("methods")?.arrayValue ?? []).compactMap { $0.stringValue?.uppercased() }
        var route = HostConfiguration.expanded(trigger.member("route")?.stringValue ?? "", setting)
        route = route.split(separator: "/").joined(separator: "/")
        if route.isEmpty { route = function }
        guard !route.lowercased().hasPrefix("admin"), !route.lowercased().hasPrefix("runtime") else {
            throw .init("The specified route conflicts with one or more built in routes.")
        }
        let others = bindings.filter { !type($0).hasSuffix("trigger") }
        if let foreign = others.first(where: { type($0) != "http" }) {
            let name = foreign.member("type")?.stringValue ?? ""
            throw .init("The binding type '\(name.prefix(64))' is not supported by this server; only http is.")
        }
        let output = others.first.map { $0.member("name")?.stringValue ?? "$return" }
        return Function.HTTPTrigger(
            bindingName: trigger.member("name")?.stringValue ?? "req", level: level, methods: methods,
            route: try RouteTemplate(route), outputName: output, isPlain: others.count <= 1)
    }

    private static func level(_ text: String?) throws(RouteTemplate.Malformed) -> AuthorizationLevel {
        guard let text else { return .function }
        guard let level = AuthorizationLevel(rawValue: text.lowercased()) else {
            throw .init("'\(text.prefix(32))' is not an authorization level.")
        }
        return level
    }

    /// The second of two functions with one route and a common method is not loaded.
    private static func withoutConflicts(_ functions: [Function]) -> [Function] {
        var result: [Function] = []
        for var function in functions {
            if let trigger = function.trigger,
                let rival = result.first(where: { other in
                    guard other.errors.isEmpty, let theirs = other.trigger else { return false }
                    let ours = Set(trigger.methods.isEmpty ? allMethods : trigger.methods)
                    return theirs.route.text.lowercased() == trigger.route.text.lowercased()
                        && !ours.isDisjoint(with: theirs.methods.isEmpty ? allMethods : theirs.methods)
                })
            {
                function.errors.append(
                    "The route specified conflicts with the route defined by function '\(rival.name)'.")
            }
            result.append(function)
        }
        return result
    }
}

extension Function {
    /// The path below the host that calls it.
    func invokePath(prefix: String) -> String? {
        trigger.map { (prefix.isEmpty ? "" : prefix + "/") + $0.route.text }.map { $0.lowercased() }
    }
}
