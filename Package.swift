// swift-tools-version: 6.2
// The map of Coffer: one line per room, with everything it may import. Doors open downwards only (ARCHITECTURE.md).
// Tests/TidyTests holds every `import` in Sources against this file.
import PackageDescription

let settings: [SwiftSetting] = [
    .enableUpcomingFeature("ExistentialAny"),
    .enableUpcomingFeature("MemberImportVisibility"),
    .enableUpcomingFeature("InternalImportsByDefault"),
    .enableUpcomingFeature("NonisolatedNonsendingByDefault"),
]

func library(_ name: String, _ package: String) -> Target.Dependency { .product(name: name, package: package) }

let nio: [Target.Dependency] = [
    library("NIOCore", "swift-nio"), library("NIOPosix", "swift-nio"), library("NIOHTTP1", "swift-nio"),
    library("NIOConcurrencyHelpers", "swift-nio"),
]
let crypto: [Target.Dependency] = [library("Crypto", "swift-crypto"), library("CryptoExtras", "swift-crypto")]
let x509: [Target.Dependency] = [library("X509", "swift-certificates"), library("SwiftASN1", "swift-asn1")]
let jwt = library("JWTKit", "jwt-kit")
let log = library("Logging", "swift-log")

/// What every service stands on.
let service: [Target.Dependency] =
    ["CofferCore", "HTTPEdge", "AccessControl", "EncryptionAtRest", "ResourceProviders", log] + nio

/// Rooms of more than 3,000 lines have a design note.
let designed: Set = [
    "EmbeddedEngine", "EncryptionAtRest", "StorageAccount", "KeyVault", "BlobService", "FunctionsHost",
]
func room(_ name: String, _ dependencies: [Target.Dependency]) -> Target {
    .target(
        name: name, dependencies: dependencies, exclude: designed.contains(name) ? ["DESIGN.md"] : [],
        swiftSettings: settings)
}
/// A service's tests run it on a real store, over the in-memory engine.
func serviceTests(_ name: String, _ more: [Target.Dependency] = []) -> Target {
    tests(name + "Tests", [.byName(name: name), "StorageEngine", "TestSupport"] + more + service + crypto)
}
func tests(_ name: String, _ dependencies: [Target.Dependency], resources: [Resource] = []) -> Target {
    .testTarget(name: name, dependencies: dependencies, resources: resources, swiftSettings: settings)
}

let package = Package(
    name: "coffer",
    products: [.executable(name: "coffer", targets: ["coffer"])],
    dependencies: [
        .package(url: "https://github.com/apple/swift-nio", from: "2.101.2"),
        .package(url: "https://github.com/apple/swift-nio-ssl", from: "2.37.6"),
        .package(url: "https://github.com/apple/swift-crypto", from: "4.5.2"),
        .package(url: "https://github.com/apple/swift-certificates", from: "1.21.1"),
        .package(url: "https://github.com/apple/swift-asn1", from: "1.7.4"),
        .package(url: "https://github.com/vapor/jwt-kit", from: "5.7.1"),
        .package(url: "https://github.com/apple/swift-log", from: "1.16.2"),
        .package(url: "https://github.com/apple/swift-argument-parser", from: "1.8.2"),
        .package(url: "https://github.com/apple/swift-configuration", from: "1.4.0"),
        .package(url: "https://github.com/swift-server/async-http-client", from: "1.37.0"),
    ],
    targets: [
        // 0: the words all rooms use, and the seams of the outside world.
        room("CofferCore", ["CPlatform"]),
        // 1
        room(
            "HTTPEdge",
            ["CofferCore", log, library("NIOTLS", "swift-nio"), library("NIOSSL", "swift-nio-ssl")] + nio + x509
                + crypto),
        room("AccessControl", ["CofferCore", jwt] + crypto),
        room("StorageEngine", ["CofferCore", library("NIOCore", "swift-nio")]),
        room("ResourceProviders", ["CofferCore"]),
        // 2
        room(
            "EncryptionAtRest",
            ["CofferCore", "StorageEngine", "CPlatform", "CSealing", library("NIOCore", "swift-nio")]),
        room("EmbeddedEngine", ["CofferCore", "StorageEngine", "CSQLite", "CPlatform", log] + crypto + nio),
        // 3: no service imports another.
        room("IdentityService", service + [jwt] + crypto),
        room("ResourceManager", service),
        room("KeyVault", service + ["COpenSSL"] + crypto),
        room("StorageAccount", service + crypto),
        room("Monitor", ["CofferCore", "AccessControl", "EncryptionAtRest", "ResourceProviders", log]),
        room(
            "FunctionsHost",
            service + crypto + [
                "CLibzip", "CPlatform", library("AsyncHTTPClient", "async-http-client"),
                library("NIOSSL", "swift-nio-ssl"),
            ]),
        // 4: the data planes sit on what they share.
        room("BlobService", service + ["StorageAccount"] + crypto),
        // 5: the command line and the composition root, the only target that sees an engine and every room.
        .executableTarget(
            name: "coffer",
            dependencies: service + [
                "StorageEngine", "EmbeddedEngine", "IdentityService", "ResourceManager", "KeyVault", "StorageAccount",
                "FunctionsHost", "BlobService", "Monitor", "CPlatform", "CToken",
                library("ArgumentParser", "swift-argument-parser"), library("Configuration", "swift-configuration"),
                library("AsyncHTTPClient", "async-http-client"), library("NIOSSL", "swift-nio-ssl"),
            ],
            swiftSettings: settings),

        // C: our own few lines, and the system libraries.
        .target(name: "CPlatform"),
        .target(name: "CSealing", dependencies: [library("Crypto", "swift-crypto")]),
        // No system library of its own: the folder that p11-kit's pkg-config names would be searched by every target
        // above, and Clang would make its modules once more for each, at odds with the first ones.
        .target(
            name: "CToken", cSettings: [.unsafeFlags(["-I/usr/include/p11-kit-1"])],
            linkerSettings: [.linkedLibrary("p11-kit")]),
        .systemLibrary(name: "CSQLite", pkgConfig: "sqlite3", providers: [.apt(["libsqlite3-dev"])]),
        .systemLibrary(name: "COpenSSL", pkgConfig: "libcrypto", providers: [.apt(["libssl-dev"])]),
        .systemLibrary(name: "CLibzip", pkgConfig: "libzip", providers: [.apt(["libzip-dev"])]),

        // What every engine must pass.
        room("StorageEngineTesting", ["CofferCore", "StorageEngine", library("NIOCore", "swift-nio")]),
        // What the tests of several rooms stand on: a clock, dice, a vault, an engine that fails.
        room("TestSupport", ["CofferCore", "StorageEngine", "EncryptionAtRest", log] + crypto),

        tests("TidyTests", []),
        tests("CofferCoreTests", ["CofferCore"]),
        tests(
            "HTTPEdgeTests",
            ["HTTPEdge", "CofferCore", log, library("NIOSSL", "swift-nio-ssl")] + nio + x509 + crypto),
        tests("AccessControlTests", ["AccessControl", "CofferCore", jwt] + crypto),
        tests("StorageEngineTests", ["StorageEngine", "StorageEngineTesting", "CofferCore"] + nio),
        tests(
            "EncryptionAtRestTests", ["EncryptionAtRest", "StorageEngine", "CofferCore", "TestSupport"] + crypto + nio,
            resources: [.copy("Vectors")]),
        tests(
            "EmbeddedEngineTests",
            ["EmbeddedEngine", "StorageEngine", "StorageEngineTesting", "CofferCore", log] + nio + crypto,
            resources: [.copy("Vectors")]),
        serviceTests("IdentityService", [jwt]),
        // Real tokens come from the real token service.
        serviceTests("ResourceManager", ["IdentityService"]),
        serviceTests("KeyVault"),
        serviceTests("StorageAccount"),
        serviceTests("Monitor"),
        serviceTests("FunctionsHost", ["CLibzip", library("NIOEmbedded", "swift-nio")]),
        serviceTests("BlobService", ["StorageAccount"]),
        tests(
            "CofferTests",
            [
                "coffer", "CofferCore", "AccessControl", "EncryptionAtRest", "ResourceProviders", "StorageAccount",
                "TestSupport",
                library("ArgumentParser", "swift-argument-parser"), library("NIOHTTP1", "swift-nio"),
            ] + crypto),
    ]
)
