/// The part of a row that needs a key, as `AccountVolume.seal` made it: a message, and beside it the small bodies that
/// the message refers to, each sealed by itself and named in what the message is bound to (docs/format.md §5.2, §8.2).
public struct SealedPart: Sendable, Equatable {
    public let message: [UInt8]
    let bodies: ArraySlice<UInt8>

    public static let none = SealedPart([])

    /// A part without bodies.
    public init(_ message: [UInt8]) { self.init(message, bodies: []) }

    init(_ message: [UInt8], bodies: ArraySlice<UInt8>) {
        self.message = message
        self.bodies = bodies
    }

    public var isEmpty: Bool { message.isEmpty && bodies.isEmpty }
    public var byteCount: Int { message.count + bodies.count }
    /// For reading the references of the message.
    public var inlineBodies: InlineBodies { InlineBodies(bodies) }
}
