internal import CCryptoBoringSSL
internal import CPlatform
internal import CofferCore
internal import Crypto
internal import Glibc
internal import Synchronization

/// What the sealed bytes belong to; part of what is authenticated.
enum PageKind: UInt8, Sendable { case database = 1, log = 2 }

/// Seals database pages with AES-256-GCM.
///
/// A sealed page is `ciphertext (pageBytes - 40) | epoch (16) | counter (8) | tag (16)`. The epoch is 16 random bytes,
/// drawn at every start; its key is HKDF-SHA256(page key, salt: database id, info: label | epoch), and the nonce is the
/// counter, which never repeats in an epoch. So no nonce repeats under a key however often pages are written, where
/// random 96-bit nonces would allow 2^32 pages (SP 800-38D §8.3) in all. Authenticated beside the page: database id,
/// position, file kind. An older version of the same page is authentic: rollback of whole pages is for the layer above
/// (docs/format.md).
final class PageSealer: @unchecked Sendable {
    // @unchecked: the stored keys are written in init only; everything that changes is behind `state` or atomic.

    /// Bytes of a page, sealed and unsealed alike.
    let pageBytes: Int
    /// What SQLite must leave free at the end of each page.
    static let reservedBytes = 40
    private let bodyBytes: Int
    private static let epochBytes = 16
    /// Pages per epoch: keeps GCM's distinguishing advantage below 2^-57.
    static let pagesPerEpoch: UInt64 = 1 << 27
    private let pagesPerEpoch: UInt64

    private struct State {
        var current: Epoch
        var known: [EpochID: Epoch]
    }

    private let pageKey: SymmetricKey
    private let databaseID: [UInt8]
    private let randomness: any Randomness
    private let state: Mutex<State>
    private let mask: LogHeaderMask

    init(
        pageKey: SecretBytes, databaseID: [UInt8], pageBytes: Int, randomness: any Randomness,
        pagesPerEpoch: UInt64 = PageSealer.pagesPerEpoch
    ) {
        self.pageBytes = pageBytes
        bodyBytes = pageBytes - Self.reservedBytes
        self.pagesPerEpoch = pagesPerEpoch
        precondition(databaseID.count == 16)
        let key = pageKey.withUnsafeBytes { SymmetricKey(data: $0) }
        self.pageKey = key
        self.databaseID = databaseID
        self.randomness = randomness
        mask = LogHeaderMask(key: Self.derive(key, databaseID, "coffer/embedded/v1/log-header", byteCount: 64))
        let first = Epoch(id: Self.drawEpochID(randomness), pageKey: key, databaseID: databaseID)
        state = Mutex(State(current: first, known: [first.id: first]))
    }

    /// A value that tells the right page key from a wrong one, without telling anything about it, and binds the format.
    static func keyCheck(pageKey: SecretBytes, databaseID: [UInt8], format: EngineFormat) -> [UInt8] {
        let bound = format == .pagesOf8KiB ? [] : withUnsafeBytes(of: format.rawValue.bigEndian) { Array($0) }
        return derive(
            pageKey.withUnsafeBytes { SymmetricKey(data: $0) }, databaseID, "coffer/embedded/v1/key-check", bound,
            byteCount: 32
        )
        .withUnsafeBytes { Array($0) }
    }

    fileprivate static func derive(
        _ key: SymmetricKey, _ databaseID: [UInt8], _ label: String, _ suffix: [UInt8] = [], byteCount: Int
    ) -> SymmetricKey {
        HKDF<SHA256>.deriveKey(
            inputKeyMaterial: key, salt: databaseID, info: Array(label.utf8) + suffix, outputByteCount: byteCount)
    }

    private static func drawEpochID(_ randomness: any Randomness) -> EpochID {
        let bytes = randomness.bytes(epochBytes)
        return bytes.withUnsafeBytes { EpochID(reading: $0.baseAddress!) }
    }

    // MARK: Sealing

    /// Seals the page at `plain` into `sealed`. False when SQLite did not leave the reserved bytes zero, which would
    /// lose the page's checksum.
    func seal(_ plain: UnsafeRawPointer, into sealed: UnsafeMutableRawPointer, kind: PageKind, position: UInt64) -> Bool
    {
        var reserved: UInt64 = 0
        for offset in stride(from: bodyBytes, to: pageBytes, by: 8) {
            reserved |= plain.loadUnaligned(fromByteOffset: offset, as: UInt64.self)
        }
        guard reserved == 0 else { return false }
        let (epoch, counter) = nextNonce()
        let trailer = sealed + bodyBytes
        epoch.id.write(to: trailer)
        trailer.storeBytes(of: counter.bigEndian, toByteOffset: Self.epochBytes, as: UInt64.self)
        return withAdditionalData(kind, position) { additional in
            epoch.context.seal(
                plain, count: bodyBytes, into: sealed, tag: trailer + Self.epochBytes + 8, counter: counter,
                additional)
        }
    }

    /// Opens the page in place and clears its reserved bytes. False, with the page cleared, when it is not authentic
    /// here.
    func open(_ page: UnsafeMutableRawPointer, kind: PageKind, position: UInt64) -> Bool {
        let trailer = page + bodyBytes
        let epoch = epoch(EpochID(reading: trailer))
        let counter = UInt64(bigEndian: trailer.loadUnaligned(fromByteOffset: Self.epochBytes, as: UInt64.self))
        let isAuthentic = withAdditionalData(kind, position) { additional in
            epoch.context.open(
                page, count: bodyBytes, tag: trailer + Self.epochBytes + 8, counter: counter, additional)
        }
        if isAuthentic { memset(trailer, 0, Self.reservedBytes) } else { memset(page, 0, pageBytes) }
        return isAuthentic
    }

    /// Masks or unmasks, in place, the last 16 bytes (salts and checksums) of a WAL frame's header.
    func maskLogHeader(_ block: UnsafeMutableRawPointer, frameOffset: UInt64) { mask.seal(block, frameOffset) }
    func unmaskLogHeader(_ block: UnsafeMutableRawPointer, frameOffset: UInt64) { mask.open(block, frameOffset) }

    private func nextNonce() -> (Epoch, UInt64) {
        state.withLock { state in
            if state.current.used == pagesPerEpoch {
                let next = Epoch(id: Self.drawEpochID(randomness), pageKey: pageKey, databaseID: databaseID)
                state.known[next.id] = next
                state.current = next
            }
            state.current.used += 1
            return (state.current, state.current.used)
        }
    }

    private func epoch(_ id: EpochID) -> Epoch {
        state.withLock { state in
            if let known = state.known[id] { return known }
            // Each start leaves pages of its own epoch behind; a thousand keys are kept, more are derived again when
            // met.
            if state.known.count >= 1024 { state.known = [state.current.id: state.current] }
            let made = Epoch(id: id, pageKey: pageKey, databaseID: databaseID)
            state.known[id] = made
            return made
        }
    }

    private func withAdditionalData(_ kind: PageKind, _ position: UInt64, _ body: (UnsafeRawBufferPointer) -> Bool)
        -> Bool
    {
        // `database id (16) | position (8) | kind (1)`; the label went into the epoch's key.
        withUnsafeTemporaryAllocation(byteCount: 25, alignment: 8) { buffer in
            databaseID.withUnsafeBytes { buffer.copyMemory(from: $0) }
            buffer.storeBytes(of: position.bigEndian, toByteOffset: 16, as: UInt64.self)
            buffer[24] = kind.rawValue
            return body(UnsafeRawBufferPointer(buffer))
        }
    }
}

private struct EpochID: Hashable {
    let high: UInt64, low: UInt64
    init(reading pointer: UnsafeRawPointer) {
        high = pointer.loadUnaligned(as: UInt64.self)
        low = pointer.loadUnaligned(fromByteOffset: 8, as: UInt64.self)
    }
    func write(to pointer: UnsafeMutableRawPointer) {
        pointer.storeBytes(of: high, as: UInt64.self)
        pointer.storeBytes(of: low, toByteOffset: 8, as: UInt64.self)
    }
    var bytes: [UInt8] {
        withUnsafeBytes(of: high) { Array($0) } + withUnsafeBytes(of: low) { Array($0) }
    }
}

/// One epoch's key. `used` is touched only under the sealer's lock.
private final class Epoch {
    let id: EpochID
    let context: PageCipher
    var used: UInt64 = 0
    init(id: EpochID, pageKey: SymmetricKey, databaseID: [UInt8]) {
        self.id = id
        context = PageCipher(
            key: PageSealer.derive(pageKey, databaseID, "coffer/embedded/v1/page", id.bytes, byteCount: 32))
    }
}

/// AES-256-GCM with a kept BoringSSL context, which is safe for use by many threads.
private final class PageCipher {
    private let context: UnsafeMutablePointer<EVP_AEAD_CTX>

    init(key: SymmetricKey) {
        context = key.withUnsafeBytes { key in
            CCryptoBoringSSL_EVP_AEAD_CTX_new(
                CCryptoBoringSSL_EVP_aead_aes_256_gcm(), key.bindMemory(to: UInt8.self).baseAddress, key.count, 16)
        }!
    }
    deinit { CCryptoBoringSSL_EVP_AEAD_CTX_free(context) }

    func seal(
        _ plain: UnsafeRawPointer, count: Int, into sealed: UnsafeMutableRawPointer, tag: UnsafeMutableRawPointer,
        counter: UInt64,
        _ additional: UnsafeRawBufferPointer
    ) -> Bool {
        withNonce(counter) { nonce in
            var tagCount = 0
            return CCryptoBoringSSL_EVP_AEAD_CTX_seal_scatter(
                context, sealed.assumingMemoryBound(to: UInt8.self), tag.assumingMemoryBound(to: UInt8.self), &tagCount,
                16,
                nonce, 12, plain.assumingMemoryBound(to: UInt8.self), count, nil, 0,
                additional.baseAddress?.assumingMemoryBound(to: UInt8.self), additional.count) == 1 && tagCount == 16
        }
    }

    func open(
        _ page: UnsafeMutableRawPointer, count: Int, tag: UnsafeRawPointer, counter: UInt64,
        _ additional: UnsafeRawBufferPointer
    ) -> Bool {
        let isAuthentic = withNonce(counter) { nonce in
            let bytes = page.assumingMemoryBound(to: UInt8.self)
            return CCryptoBoringSSL_EVP_AEAD_CTX_open_gather(
                context, bytes, nonce, 12, bytes, count, tag.assumingMemoryBound(to: UInt8.self), 16,
                additional.baseAddress?.assumingMemoryBound(to: UInt8.self), additional.count) == 1
        }
        // A refusal leaves an entry in the thread's error queue, where it would confuse the next user of BoringSSL.
        if !isAuthentic { CCryptoBoringSSL_ERR_clear_error() }
        return isAuthentic
    }

    private func withNonce(_ counter: UInt64, _ body: (UnsafePointer<UInt8>) -> Bool) -> Bool {
        withUnsafeTemporaryAllocation(byteCount: 12, alignment: 4) { nonce in
            nonce.storeBytes(of: UInt32(0), as: UInt32.self)
            nonce.storeBytes(of: counter.bigEndian, toByteOffset: 4, as: UInt64.self)
            return body(nonce.baseAddress!.assumingMemoryBound(to: UInt8.self))
        }
    }
}

/// Hides the salts and checksums of WAL frame headers: SQLite's checksums are sums of plaintext, and would confirm
/// guesses of it.
///
/// One AES block between two whitenings by the encrypted position (XEX): the header has no room for a nonce, and needs
/// none, because the block holds the log's salts. A header whose clear half was changed does not match its checksum any
/// more, and SQLite ends the log there.
private struct LogHeaderMask {
    private let tweak: Keys
    private let block: Keys

    init(key: SymmetricKey) {
        (tweak, block) = key.withUnsafeBytes { bytes in
            (Keys(bytes: bytes.baseAddress!), Keys(bytes: bytes.baseAddress! + 32))
        }
    }

    func seal(_ bytes: UnsafeMutableRawPointer, _ offset: UInt64) {
        whitened(bytes, offset) { CCryptoBoringSSL_AES_encrypt($0, $0, block.encrypting) }
    }
    func open(_ bytes: UnsafeMutableRawPointer, _ offset: UInt64) {
        whitened(bytes, offset) { CCryptoBoringSSL_AES_decrypt($0, $0, block.decrypting) }
    }

    private func whitened(
        _ bytes: UnsafeMutableRawPointer, _ offset: UInt64, _ body: (UnsafeMutablePointer<UInt8>) -> Void
    ) {
        withUnsafeTemporaryAllocation(of: UInt64.self, capacity: 2) { white in
            white[0] = 0
            white[1] = offset.bigEndian
            let whiteBytes = UnsafeMutableRawPointer(white.baseAddress!).assumingMemoryBound(to: UInt8.self)
            CCryptoBoringSSL_AES_encrypt(whiteBytes, whiteBytes, tweak.encrypting)
            func whiten() {
                for index in 0..<2 {
                    let word = bytes.loadUnaligned(fromByteOffset: index * 8, as: UInt64.self)
                    bytes.storeBytes(of: word ^ white[index], toByteOffset: index * 8, as: UInt64.self)
                }
            }
            whiten()
            body(bytes.assumingMemoryBound(to: UInt8.self))
            whiten()
        }
    }

    private final class Keys {
        let encrypting = UnsafeMutablePointer<AES_KEY>.allocate(capacity: 1)
        let decrypting = UnsafeMutablePointer<AES_KEY>.allocate(capacity: 1)
        init(bytes: UnsafeRawPointer) {
            let key = bytes.assumingMemoryBound(to: UInt8.self)
            CCryptoBoringSSL_AES_set_encrypt_key(key, 256, encrypting)
            CCryptoBoringSSL_AES_set_decrypt_key(key, 256, decrypting)
        }
        deinit {
            for schedule in [encrypting, decrypting] {
                coffer_wipe(schedule, MemoryLayout<AES_KEY>.size)
                schedule.deallocate()
            }
        }
    }
}
