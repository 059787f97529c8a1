internal import Synchronization

/// The memory that all mounted packages take together: each twice, once as its archive and once as its worker sees it.
final class PackageMemory: Sendable {
    /// What one package holds, given back with its last reference.
    final class Share: Sendable {
        private let memory: PackageMemory
        private let bytes: Int

        fileprivate init(_ memory: PackageMemory, _ bytes: Int) {
            self.memory = memory
            self.bytes = bytes
        }
        deinit { memory.takenBytes.withLock { $0 -= bytes } }
    }

    private let limitBytes: Int
    private let takenBytes = Mutex(0)

    init(limitBytes: Int) { self.limitBytes = limitBytes }

    /// For a package whose files take `unpackedBytes`. Throws `.tooLarge` when the other packages leave too little.
    func share(unpackedBytes: Int) throws(PackageError) -> Share {
        let bytes = 2 * unpackedBytes
        let fits = takenBytes.withLock { taken in
            guard bytes <= limitBytes - taken else { return false }
            taken += bytes
            return true
        }
        guard fits else {
            throw PackageError(
                .tooLarge,
                "The server has no memory left for the package: all mounted packages together may take "
                    + "\(limitBytes >> 20) MiB. Stop or delete another app, or start the server with a larger "
                    + "--package-megabytes.")
        }
        return Share(self, bytes)
    }
}
