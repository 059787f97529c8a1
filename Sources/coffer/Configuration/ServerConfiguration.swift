import ArgumentParser
import CofferCore
import Configuration
import Foundation
import FunctionsHost
import HTTPEdge
import Logging
import SystemPackage

/// What is in force, checked. Made by `load` from flags, environment, file and defaults, the first that knows a setting
/// wins.
struct ServerConfiguration {
    let dataFolder: String
    let rootKeyFile: String
    /// nil: the root key lies in clear.
    let rootKeyWrappingKey: TokenKeyURI?
    let credentialsFile: String
    let domain: String
    /// In its canonical text.
    let address: String
    let httpsPort: Int
    let httpPort: Int
    let gatewayPort: Int
    /// nil: URLs carry no port.
    let advertisedPort: Int?
    let workerNetwork: WorkerNetwork
    let packageMegabytes: Int
    let logLevel: Logger.Level
    let shutdownSeconds: Int

    /// The name of the systemd credential that is the root key when no file is named.
    static let rootKeyCredential = "coffer-root-key"

    /// Where each setting came from: `flag`, `environment`, `file`, `credential`, `default`.
    struct Source {
        let setting: Setting
        let value: String
        let origin: String
    }
    let sources: [Source]

    /// The folders that flags named, as flags again: the commands beside the server need them too.
    var foldersAsFlags: String {
        sources.filter { $0.origin == "flag" }.map { source in
            switch source.setting {
            case .dataFolder: " --data-folder '\(source.value)'"
            case .credentialsFile: " --credentials-file '\(source.value)'"
            default: ""
            }
        }.joined()
    }

    /// Throws `ValidationError` that names the setting, the value and what is allowed.
    static func load(_ options: SettingOptions) async throws -> ServerConfiguration {
        let environment = ProcessInfo.processInfo.environment
        let home = environment["HOME"] ?? NSHomeDirectory()
        var providers: [(origin: String, provider: any ConfigProvider)] = [
            ("flag", InMemoryProvider(values: keyed(options.given))),
            ("environment", EnvironmentVariablesProvider().prefixKeys(with: "coffer")),
        ]
        if let path = options.configFile ?? environment["COFFER_CONFIG_FILE"] {
            do {
                providers.append(("file", try await FileProvider<JSONSnapshot>(filePath: FilePath(path))))
            } catch {
                throw ValidationError(
                    "The settings file \(path) "
                        + (FileManager.default.fileExists(atPath: path) ? "is not valid JSON." : "does not exist.")
                        + " Correct it, or leave --config-file and COFFER_CONFIG_FILE out.")
            }
        }
        if let credential = rootKeyCredentialFile {
            providers.append(("credential", InMemoryProvider(values: keyed([.rootKeyFile: credential]))))
        }
        let defaults = Setting.allCases.map { ($0, $0.defaultValue(home: home)) }
        providers.append(("default", InMemoryProvider(values: keyed(Dictionary(uniqueKeysWithValues: defaults)))))

        if let path = options.configFile ?? environment["COFFER_CONFIG_FILE"] { try checkMembers(ofFile: path) }
        var sources: [Source] = []
        for setting in Setting.allCases {
            for (origin, provider) in providers {
                guard let value = try text(of: setting, in: provider) else { continue }
                sources.append(Source(setting: setting, value: value, origin: origin))
                break
            }
        }
        return try ServerConfiguration(sources)
    }

    private static var rootKeyCredentialFile: String? {
        guard let folder = SecretFile.credentialsFolder else { return nil }
        let path = folder + "/" + rootKeyCredential
        var status = stat()
        return lstat(path, &status) == 0 ? path : nil
    }

    private static func keyed(_ values: [Setting: String]) -> [AbsoluteConfigKey: ConfigValue] {
        Dictionary(
            uniqueKeysWithValues: values.map {
                (AbsoluteConfigKey([$0.key.rawValue]), ConfigValue(.string($0.value), isSecret: false))
            })
    }

    /// A misspelt setting must not pass for one that is in force.
    private static func checkMembers(ofFile path: String) throws {
        let bytes = FileManager.default.contents(atPath: path) ?? Data()
        let members = (try? JSONValue(parsing: Array(bytes)))?.objectValue ?? [:]
        for (name, value) in members {
            guard Setting(rawValue: name) != nil else {
                throw ValidationError(
                    "The settings file \(path) names '\(name)', which is no setting. Settings are "
                        + Setting.allCases.map(\.rawValue).joined(separator: ", ") + ".")
            }
            guard value.stringValue != nil || value.intValue != nil else {
                throw ValidationError("In the settings file \(path), '\(name)' must be a text or a whole number.")
            }
        }
    }

    /// A number in the file is as good as its text.
    private static func text(of setting: Setting, in provider: any ConfigProvider) throws -> String? {
        let key = AbsoluteConfigKey([setting.rawValue])
        if let found = try? provider.value(forKey: key, type: .string).value, case .string(let text) = found.content {
            return text
        }
        if let found = try? provider.value(forKey: key, type: .int).value, case .int(let number) = found.content {
            return String(number)
        }
        return nil
    }

    private init(_ sources: [Source]) throws {
        let values = Dictionary(uniqueKeysWithValues: sources.map { ($0.setting, $0.value) })
        func text(_ setting: Setting) throws -> String {
            guard let value = values[setting], !value.isEmpty else {
                throw ValidationError("\(setting.rawValue) is empty. \(setting.explanation)")
            }
            return value
        }
        func number(_ setting: Setting, _ range: ClosedRange<Int>) throws -> Int {
            let value = try text(setting)
            guard let number = Int(value), range.contains(number) else {
                throw ValidationError(
                    "\(setting.rawValue) is '\(value)'; it must be a whole number from \(range.lowerBound) to \(range.upperBound)."
                )
            }
            return number
        }
        self.sources = sources
        dataFolder = Self.absolute(try text(.dataFolder))
        rootKeyFile = Self.absolute(try text(.rootKeyFile))
        let wrappingKey = values[.rootKeyWrappingKey] ?? ""
        rootKeyWrappingKey = wrappingKey.isEmpty ? nil : try TokenKeyURI(parsing: wrappingKey)
        credentialsFile = Self.absolute(try text(.credentialsFile))
        domain = try text(.domain).lowercased()
        guard domain.split(separator: ".").count >= 2,
            domain.allSatisfy({ $0.isASCII && ($0.isLetter || $0.isNumber || ".-".contains($0)) })
        else {
            throw ValidationError(
                "domain is '\(domain)'; it needs two labels or more, such as coffer.localhost, because TLS clients refuse a "
                    + "wildcard directly below a top-level name.")
        }
        // 'localhost' may be ::1 alone; workers and the other commands ask on 127.0.0.1.
        let named = try text(.address) == "localhost" ? "127.0.0.1" : text(.address)
        guard let parsed = IPAddress(named) else {
            throw ValidationError(
                "address is '\(named)'; --address takes an IP address of this machine, such as 127.0.0.1 (the default), "
                    + "or 0.0.0.0 for all of them.")
        }
        address = parsed.description
        httpsPort = try number(.httpsPort, 0...65_535)
        httpPort = try number(.httpPort, 0...65_535)
        gatewayPort = try number(.gatewayPort, 0...65_535)
        let advertised = try number(.advertisedPort, 0...65_535)
        advertisedPort = advertised == 0 ? nil : advertised
        guard let network = WorkerNetwork(rawValue: try text(.workerNetwork).lowercased()) else {
            throw ValidationError(
                "workerNetwork is '\(try text(.workerNetwork))'; use one of "
                    + WorkerNetwork.allCases.map(\.rawValue).joined(separator: ", ") + ".")
        }
        workerNetwork = network
        packageMegabytes = try number(.packageMegabytes, 1...16_777_216)
        guard let level = Logger.Level(rawValue: try text(.logLevel).lowercased()) else {
            throw ValidationError("logLevel is '\(try text(.logLevel))'; use one of \(Setting.logLevel.explanation)")
        }
        logLevel = level
        shutdownSeconds = try number(.shutdownSeconds, 0...3_600)
    }

    /// What is allowed and seldom meant: what follows from it, and the way out.
    var warnings: [String] {
        var warnings: [String] = []
        // A folder behind a link is the folder the link leads to.
        func real(_ path: String) -> String { URL(fileURLWithPath: path).resolvingSymlinksInPath().path }
        if rootKeyWrappingKey == nil, real(rootKeyFile).hasPrefix(real(dataFolder) + "/") {
            warnings.append(
                "the root key lies inside the data folder: whoever gets a copy of the folder can read everything in it. "
                    + "Stop the server, move \(rootKeyFile) elsewhere, and name it with --root-key-file")
        }
        if IPAddress(address)?.isLoopback != true {
            warnings.append(
                "the server listens beyond this machine, on \(address): whoever reaches its ports can try to get in, and "
                    + "what comes by the http port can be read on the way. Without --address it listens on 127.0.0.1")
        }
        return warnings
    }

    var rootKeyStore: RootKeyStore {
        RootKeyStore(
            path: rootKeyFile, guardian: SecretFile.guardian(of: rootKeyFile), wrappingKey: rootKeyWrappingKey,
            isNamed: !sources.contains { $0.setting == .rootKeyFile && $0.origin == "default" })
    }

    /// Workers ask for tokens on the loopback, so the server always listens there too.
    var listenAddresses: [String] {
        ["0.0.0.0", "::", "127.0.0.1"].contains(address) ? [address] : [address, "127.0.0.1"]
    }

    private static func absolute(_ path: String) -> String {
        URL(fileURLWithPath: (path as NSString).expandingTildeInPath).standardizedFileURL.path
    }
}
