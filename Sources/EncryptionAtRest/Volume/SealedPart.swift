/// The part of a row that needs a key: a message that `AccountVolume.seal` made, and beside it the small bodies that
/// the message refers to, each sealed by itself (docs/format.md §5.2, §8.2).
public struct SealedPart: Sendable, Equatable {
    public let message: [UInt8]
    let bodies: ArraySlice<UInt8>

    public static let none = SealedPart([])

    /// `extents` are those the message refers to, in its order. The bodies among them come with it.
    public init(_ message: [UInt8], of extents: [ExtentReference] = []) {
        self.init(message, bodies: InlineBodies.encode(extents))
    }

    init(_ message: [UInt8], bodies: ArraySlice<UInt8>) {
        self.message = message
        self.bodies = bodies
    }

    public var isEmpty: Bool { message.isEmpty && bodies.isEmpty }
    /// For reading the references of the message.
    public var inlineBodies: InlineBodies { InlineBodies(bodies) }
}
