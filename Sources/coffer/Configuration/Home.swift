import ArgumentParser
import AsyncHTTPClient
import CPlatform
import CofferCore
import EncryptionAtRest
import Foundation
import NIOCore
import NIOPosix
import NIOSSL

/// The files of an installation that lie outside the sealed store, and how they are written: whole, private, and
/// durable.
struct Home {
    let configuration: ServerConfiguration

    var databaseFolder: String { configuration.dataFolder + "/store" }
    /// The authority's certificate, for clients to trust.
    var authorityFile: String { configuration.dataFolder + "/ca.pem" }
    private var runStateFile: String { configuration.dataFolder + "/run.json" }

    /// Reads the root key, or makes it at the first start.
    func rootKey(randomness: any Randomness) async throws -> RootKey {
        try await configuration.rootKeyStore.load(
            dataFolder: configuration.dataFolder, hasData: FileManager.default.fileExists(atPath: databaseFolder),
            randomness: randomness)
    }

    // MARK: Administrator

    struct Administrator: Codable {
        let tenantID: String
        let subscriptionID: String
        let clientID: String
        let clientSecret: String
    }

    func write(_ administrator: Administrator) throws {
        let encoder = JSONEncoder()
        encoder.outputFormatting = [.prettyPrinted, .sortedKeys]
        try PrivateFile.write([UInt8](encoder.encode(administrator)), to: configuration.credentialsFile)
    }
    func administrator() throws -> Administrator {
        guard let bytes = FileManager.default.contents(atPath: configuration.credentialsFile) else {
            throw CommandFailure(
                "There are no administrator credentials at \(configuration.credentialsFile). Start the server with 'coffer serve' (with --reset-administrator when it made them once and they are lost), "
                    + "or name the file with --credentials-file.")
        }
        guard let administrator = try? JSONDecoder().decode(Administrator.self, from: bytes) else {
            throw CommandFailure(
                "\(configuration.credentialsFile) is damaged. Run 'coffer serve --reset-administrator' to make new credentials."
            )
        }
        return administrator
    }

    // MARK: Run state

    /// Where the running server listens; other commands read it.
    struct RunState: Codable {
        let pid: Int32
        let address: String
        let httpsPort: Int
        let httpPort: Int
        let gatewayPort: Int
        let domain: String
        let advertisedPort: Int?
        /// Where its root key lies, and how. nil: an older server.
        var rootKey: String?
        /// The server takes no new connections and waits for its running requests. nil: no.
        var isStopping: Bool?

        /// Where a port of it is found, as URLs spell it: an IPv6 address in brackets (RFC 3986 §3.2.2).
        func authority(_ port: Int) -> String {
            address.contains(":") ? "[\(address)]:\(port)" : "\(address):\(port)"
        }
    }

    func write(_ state: RunState) throws {
        try PrivateFile.write([UInt8](JSONEncoder().encode(state)), to: runStateFile)
    }
    func removeRunState() { try? FileManager.default.removeItem(atPath: runStateFile) }

    /// The server that other commands can ask. Throws, with advice, when none runs or it is stopping.
    func answeringServer() throws -> RunState {
        guard let state = runningServer() else {
            throw CommandFailure("No server runs on \(configuration.dataFolder). Start one with 'coffer serve'.")
        }
        guard state.isStopping != true else {
            throw CommandFailure(
                "The server on \(configuration.dataFolder) (process \(state.pid)) is stopping: it lets running requests "
                    + "end. Start it again with 'coffer serve' once it has stopped.")
        }
        return state
    }

    /// The server's process, or nil: a file left by a killed process does not count.
    func runningServer() -> RunState? {
        guard let bytes = FileManager.default.contents(atPath: runStateFile),
            let state = try? JSONDecoder().decode(RunState.self, from: bytes), kill(state.pid, 0) == 0 || errno == EPERM
        else { return nil }
        return state
    }
}

/// A failure with a message for the person at the terminal; it ends the command with exit code 1.
struct CommandFailure: Error, CustomStringConvertible {
    let description: String
    init(_ description: String) { self.description = description }

    /// What an error of the libraries says, without the names of their types and functions.
    static func reason(_ error: any Error) -> String {
        switch error {
        case let error as CommandFailure: error.description
        case let error as IOError: String(cString: strerror(error.errnoCode))
        case let error as NIOConnectionError:
            error.connectionErrors.first.map { reason($0.error) } ?? "no connection"
        case let error as HTTPClientError: error.shortDescription
        case is NIOSSLError: "the TLS handshake failed"
        default: "\(error)"
        }
    }
}

/// Small files that only the owner may read, replaced as a whole: written beside, flushed, renamed, and the folder
/// flushed.
enum PrivateFile {
    /// With the folders above it; what is there stays as it is.
    static func makeFolder(_ folder: String) throws {
        var made: [String] = []
        var missing = folder
        while !missing.isEmpty, missing != "/", !FileManager.default.fileExists(atPath: missing) {
            made.append(missing)
            missing = (missing as NSString).deletingLastPathComponent
        }
        do {
            try FileManager.default.createDirectory(
                atPath: folder, withIntermediateDirectories: true, attributes: [.posixPermissions: 0o700])
            for folder in made { try sync((folder as NSString).deletingLastPathComponent) }
        } catch {
            throw CommandFailure(
                "The folder \(folder) cannot be made. Make it yourself, or name another place: 'coffer config' prints the "
                    + "places in force.")
        }
    }

    /// Where a file is written before it takes its name.
    static func temporary(of path: String) -> String { path + ".new" }

    /// Others may read the file only when `isPublic` says so; the folder stays the owner's in any case. Without
    /// `mayReplace` it must not be there yet.
    static func write(_ bytes: [UInt8], to path: String, isPublic: Bool = false, mayReplace: Bool = true) throws {
        let folder = (path as NSString).deletingLastPathComponent
        try makeFolder(folder)
        let temporary = temporary(of: path)
        unlink(temporary)
        let file = open(temporary, O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0o600)
        guard file >= 0 else {
            throw CommandFailure(
                "\(temporary) cannot be written: \(String(cString: strerror(errno))). Check who owns the folder and "
                    + "whether the disk is full.")
        }
        // Not by `open`, whose mode the process's mask narrows.
        if isPublic { fchmod(file, 0o644) }
        let written = bytes.withUnsafeBytes { Foundation.write(file, $0.baseAddress, $0.count) }
        var failure = written < 0 ? errno : written < bytes.count ? ENOSPC : fsync(file) == 0 ? 0 : errno
        close(file)
        if failure == 0 {
            failure = mayReplace ? (rename(temporary, path) == 0 ? 0 : errno) : coffer_rename_new(temporary, path)
        }
        if failure != 0 {
            unlink(temporary)
            throw CommandFailure(
                "\(path) cannot be written: \(String(cString: strerror(failure))). Check whether the disk is full.")
        }
        try sync(folder)
    }

    /// What lies in a folder is durable once the folder is.
    private static func sync(_ folder: String) throws {
        let directory = open(folder.isEmpty ? "." : folder, O_RDONLY | O_DIRECTORY | O_CLOEXEC)
        defer { if directory >= 0 { close(directory) } }
        // A folder that may be written and not read cannot be flushed by us.
        if directory < 0, errno == EACCES { return }
        guard directory >= 0, fsync(directory) == 0 else {
            throw CommandFailure("The folder \(folder) cannot be flushed: \(String(cString: strerror(errno))).")
        }
    }
}
