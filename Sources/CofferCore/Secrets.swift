internal import CPlatform
internal import Glibc
internal import Synchronization

/// Secret bytes in memory of their own: locked against swapping where the system allows it, wiped when the last
/// reference goes, never printed and never encoded.
public final class SecretBytes: @unchecked Sendable, CustomStringConvertible, CustomDebugStringConvertible,
    CustomReflectable
{
    // @unchecked: the memory and the count are written only inside `init` and read-only until `deinit`.
    private let memory: UnsafeMutableRawBufferPointer
    /// Locks count by whole pages and do not nest (mlock(2)): each secret has pages of its own, so that the end of one
    /// does not unlock another.
    private static let pageBytes = sysconf(Int32(_SC_PAGESIZE))

    private static let sparePages = SparePages(limit: 64)

    private static func lockedPages(_ count: Int) -> UnsafeMutableRawBufferPointer {
        let pages = UnsafeMutableRawBufferPointer.allocate(byteCount: count * pageBytes, alignment: pageBytes)
        mlock(pages.baseAddress!, pages.count)
        return pages
    }

    /// `fill` writes into at most `capacity` bytes and returns how many of them are the secret.
    public init<Failure: Error>(
        capacity: Int, filledBy fill: (UnsafeMutableRawBufferPointer) throws(Failure) -> Int
    ) throws(Failure) {
        count = 0
        let pages = (Swift.max(capacity, 1) + Self.pageBytes - 1) / Self.pageBytes
        memory = pages == 1 ? Self.sparePages.take() ?? Self.lockedPages(1) : Self.lockedPages(pages)
        // Once every property is set, a throw here runs `deinit`.
        count = try fill(UnsafeMutableRawBufferPointer(start: memory.baseAddress!, count: capacity))
        precondition((0...capacity).contains(count), "a secret does not exceed its memory")
    }

    public convenience init(count: Int, filledBy fill: (UnsafeMutableRawBufferPointer) throws -> Void) rethrows {
        try self.init(capacity: count) { memory in
            try fill(memory)
            return count
        }
    }

    /// Copies `bytes`. The caller still owns, and should wipe, the original.
    public convenience init(copying bytes: some Collection<UInt8>) {
        self.init(count: bytes.count) { $0.copyBytes(from: bytes) }
    }

    public private(set) var count: Int

    public func withUnsafeBytes<Result, Failure: Error>(
        _ body: (UnsafeRawBufferPointer) throws(Failure) -> Result
    ) throws(Failure) -> Result {
        try body(UnsafeRawBufferPointer(start: memory.baseAddress!, count: count))
    }

    deinit {
        coffer_wipe(memory.baseAddress!, memory.count)
        if memory.count == Self.pageBytes, Self.sparePages.keep(memory) { return }
        munlock(memory.baseAddress!, memory.count)
        memory.deallocate()
    }

    public var description: String { "<redacted>" }
    public var debugDescription: String { "<redacted>" }
    public var customMirror: Mirror { Mirror(self, children: []) }
}

/// Single pages of secrets that ended, wiped and still locked where the system allowed it, for secrets to come: two
/// system calls and a page fault for each would cost more than the rest of a small secret.
private final class SparePages: Sendable {
    private struct Page: @unchecked Sendable {
        // @unchecked: a page that lies here belongs to nobody else.
        let memory: UnsafeMutableRawBufferPointer
    }
    private let pages = Mutex<[Page]>([])
    private let limit: Int

    init(limit: Int) { self.limit = limit }

    func take() -> UnsafeMutableRawBufferPointer? { pages.withLock { $0.popLast() }?.memory }

    /// false when there are enough.
    func keep(_ memory: UnsafeMutableRawBufferPointer) -> Bool {
        let page = Page(memory: memory)
        return pages.withLock { pages in
            guard pages.count < limit else { return false }
            pages.append(page)
            return true
        }
    }
}

/// A secret text (a password, a SAS, a setting's value) that prints as `<redacted>`. `reveal()` is the one way to its
/// value.
public struct RedactedString: Sendable, Hashable, CustomStringConvertible, CustomDebugStringConvertible,
    CustomReflectable
{
    private let value: String
    public init(_ value: String) { self.value = value }
    public func reveal() -> String { value }

    public static func == (left: RedactedString, right: RedactedString) -> Bool {
        constantTimeEquals(left.value.utf8, right.value.utf8)
    }
    public var description: String { "<redacted>" }
    public var debugDescription: String { "<redacted>" }
    public var customMirror: Mirror { Mirror(self, children: []) }
}

/// Whether two byte strings are equal, in a time that depends on their lengths only.
///
/// Inlinable: without it every byte goes through the collections' witness tables, a fifth of a small request.
@inlinable
public func constantTimeEquals(_ left: some Collection<UInt8>, _ right: some Collection<UInt8>) -> Bool {
    guard left.count == right.count else { return false }
    var difference: UInt8 = 0
    for (a, b) in zip(left, right) { difference |= a ^ b }
    return difference == 0
}

/// Overwrites a byte array that held a secret.
public func wipe(_ bytes: inout [UInt8]) {
    bytes.withUnsafeMutableBytes { coffer_wipe($0.baseAddress, $0.count) }
    bytes.removeAll()
}
