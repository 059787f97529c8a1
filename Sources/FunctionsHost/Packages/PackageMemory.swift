internal import Synchronization

/// The memory that all mounted packages take together: each twice, once as its archive and once as its worker sees it.
///
/// While a worker that is replaced ends, its package and the next one are both there, and the smaller of the two is not
/// counted: otherwise an app larger than half of what is left could never restart. Of any more packages of the same
/// site each counts, so that together they never take more than twice the limit.
final class PackageMemory: Sendable {
    /// What one package holds, given back with its last reference.
    final class Share: Sendable {
        private let memory: PackageMemory
        private let site: String
        private let bytes: Int

        fileprivate init(_ memory: PackageMemory, _ site: String, _ bytes: Int) {
            self.memory = memory
            self.site = site
            self.bytes = bytes
        }
        deinit { memory.giveBack(bytes, of: site) }
    }

    private let limitBytes: Int
    /// What each site's packages take, in no order. A site without any is not there.
    private let taken = Mutex<[String: [Int]]>([:])

    init(limitBytes: Int) { self.limitBytes = limitBytes }

    /// For a package of `site` whose files take `unpackedBytes`. Throws `.tooLarge` when the other packages leave too
    /// little.
    func share(of site: String, unpackedBytes: Int) throws(PackageError) -> Share {
        let bytes = 2 * unpackedBytes
        let fits = taken.withLock { taken in
            var wanted = taken
            wanted[site, default: []].append(bytes)
            guard wanted.values.reduce(0, { $0 + Self.counted($1) }) <= limitBytes else { return false }
            taken = wanted
            return true
        }
        guard fits else {
            throw PackageError(
                .tooLarge,
                "The server has no memory left for the package: all mounted packages together may take "
                    + "\(limitBytes >> 20) MiB. Stop or delete another app, or start the server with a larger "
                    + "--package-megabytes.")
        }
        return Share(self, site, bytes)
    }

    private func giveBack(_ bytes: Int, of site: String) {
        taken.withLock { taken in
            guard var held = taken[site], let index = held.firstIndex(of: bytes) else { return }
            held.remove(at: index)
            taken[site] = held.isEmpty ? nil : held
        }
    }

    /// Of the packages of one site.
    private static func counted(_ held: [Int]) -> Int {
        held.reduce(0, +) - (held.count > 1 ? held.min() ?? 0 : 0)
    }
}
