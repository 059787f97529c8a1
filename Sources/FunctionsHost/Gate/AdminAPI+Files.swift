internal import CofferCore
internal import HTTPEdge
internal import NIOCore
internal import NIOHTTP1

/// The app's files: `/admin/vfs`, with the app at `/site/wwwroot`, and `/admin/functions/download`. Read-only, as the
/// package is.
extension AdminAPI {
    private static let root = ["site", "wwwroot"]
    private static let partBytes = 256 << 10
    /// A package keeps no times: its worker sees the same.
    private static let time: JSONValue = "1970-01-01T00:00:00Z"
    private static let fileTypes = [
        "json": "application/json", "txt": "text/plain", "xml": "text/xml", "html": "text/html", "css": "text/css",
        "js": "application/javascript",
    ]

    func files(_ request: Request, _ path: [String], _ entry: FunctionRuntime.Entry) async throws(FunctionsError)
        -> Response
    {
        switch request.method {
        case .GET: break
        case .PUT, .DELETE:
            return Pages.text(.conflict, "The app runs from a package: its files are read-only.")
        default: return Response(status: .methodNotAllowed)
        }
        guard !path.contains(".."), !path.contains(".") else { return Response(status: .forbidden) }
        let app = try await app(entry)
        let package = app.package
        if path.count < Self.root.count {
            guard path == Array(Self.root.prefix(path.count)) else { return Response(status: .notFound) }
            return Self.folder([.init(path: Self.root[path.count], kind: .folder)], request)
        }
        guard Array(path.prefix(Self.root.count)) == Self.root else { return Response(status: .notFound) }
        let items = package?.items ?? []
        let name = path.dropFirst(Self.root.count).joined(separator: "/")
        guard !name.isEmpty else { return Self.folder(Self.children(of: nil, in: items), request) }
        guard let package, let item = items.first(where: { $0.path.utf8.elementsEqual(name.utf8) }) else {
            return Response(status: .notFound)
        }
        switch item.kind {
        case .folder: return Self.folder(Self.children(of: item, in: items), request)
        case .file(let offset, let bytes, _, _): return Self.file(name, offset, bytes, package, whileServes(app, entry))
        // What a link means is the worker's file system's to say.
        case .link: return Response(status: .notFound)
        }
    }

    /// What lies in a folder itself, but for links; nil is the root.
    private static func children(of folder: Package.Item?, in items: [Package.Item]) -> [Package.Item] {
        let prefix = folder.map { Array($0.path.utf8) + [UInt8(ascii: "/")] } ?? []
        return items.filter { item in
            if case .link = item.kind { return false }
            return item.path.utf8.count > prefix.count && item.path.utf8.starts(with: prefix)
                && !item.path.utf8.dropFirst(prefix.count).contains(UInt8(ascii: "/"))
        }
    }

    /// Entries as Kudu's file system API has them. A folder is asked for with a slash at its end.
    private static func folder(_ items: [Package.Item], _ request: Request) -> Response {
        let address = address(request)
        guard request.rawPath.utf8.last == UInt8(ascii: "/") else {
            let query = request.rawQuery.isEmpty ? "" : "?" + request.rawQuery
            return Response(status: .temporaryRedirect, headers: ["Location": address + "/" + query])
        }
        let folder = (request.pathSegments ?? []).dropFirst(2).map { $0 + "/" }.joined()
        return Response(
            status: .ok, headers: ["Content-Type": "application/json; charset=utf-8", "Cache-Control": "no-store"],
            body: .stream(length: nil) { writer in
                // In parts: of many long names the list is large.
                var part = ByteBuffer(string: "[")
                for (index, item) in items.enumerated() {
                    if index > 0 { part.writeString(",") }
                    part.writeBytes(entry(item, in: folder, at: address).serialized())
                    guard part.readableBytes >= partBytes else { continue }
                    try await writer.write(part)
                    part.clear()
                }
                part.writeString("]")
                try await writer.write(part)
            })
    }

    private static func entry(_ item: Package.Item, in folder: String, at address: String) -> JSONValue {
        let name = item.path.parts(at: UInt8(ascii: "/")).last ?? ""
        let isFolder = item.kind == .folder
        let size = if case .file(_, let bytes, _, _) = item.kind { bytes } else { 0 }
        return [
            "name": .string(name), "size": .integer(Int64(size)), "mtime": time, "crtime": time,
            "mime": .string(isFolder ? "inode/directory" : type(of: name)),
            "href": .string(address + escaped(name) + (isFolder ? "/" : "")),
            "path": .string("/home/" + folder + name),
        ]
    }

    /// A download ends with the app: a slow reader must not hold a package that was replaced.
    private func whileServes(_ app: RunningApp, _ entry: FunctionRuntime.Entry) -> @Sendable () throws -> Void {
        { if entry.host.loadedApp() !== app { throw PackageError(.broken, "The app was restarted or stopped.") } }
    }

    private static func file(
        _ name: String, _ offset: Int, _ bytes: Int, _ package: Package, _ check: @escaping @Sendable () throws -> Void
    ) -> Response {
        Response(
            status: .ok,
            headers: [
                "Content-Type": type(of: name), "Cache-Control": "no-store", "X-Content-Type-Options": "nosniff",
            ],
            body: .stream(length: bytes) { writer in
                try await package.archive.read(offset, bytes, inPartsOf: partBytes) { part in
                    try check()
                    try await writer.write(ByteBuffer(bytes: part))
                }
            })
    }

    private static func type(of name: String) -> String {
        let parts = name.parts(at: UInt8(ascii: "."))
        return (parts.count > 1 ? parts.last : nil).flatMap { fileTypes[$0.lowercased()] }
            ?? "application/octet-stream"
    }

    /// The package as a zip again: everything in it, without the times it had.
    func download(_ request: Request, _ entry: FunctionRuntime.Entry) async throws(FunctionsError) -> Response {
        let wantsSettings = request.query.contains {
            $0.name.lowercased() == "includeappsettings" && $0.value.lowercased() == "true"
        }
        let app = try await app(entry)
        let check = whileServes(app, entry)
        guard !wantsSettings, let zip = ZipWriter(app.package) else { return Self.unsupported() }
        return Response(
            status: .ok,
            headers: [
                "Content-Type": "application/zip", "Cache-Control": "no-store",
                "Content-Disposition": "attachment; filename=\"\(entry.policy.site.name).zip\"",
            ],
            body: .stream(length: zip.length) { writer in
                try await zip.write { part in
                    try check()
                    try await writer.write(ByteBuffer(bytes: part))
                }
            })
    }
}
