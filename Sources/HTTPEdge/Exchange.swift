import CofferCore
import NIOCore
import NIOHTTP1

/// One request and its response, from the head to the last byte. Used on the connection's event loop only.
final class Exchange {
    let serial: UInt64
    let id: String
    let method: HTTPMethod
    let endpoint: Endpoint?
    /// HTTP/1.0: no chunks, no 100.
    let isOldVersion: Bool
    var keepsAlive: Bool
    var intake: BodyIntake
    var task: Task<Void, Never>?
    let startedAt: NIODeadline?

    // The response.
    var status: Int?
    var framing = Framing.none
    var sentBytes = 0
    /// The head of a streamed response until its first bytes leave with it.
    var heldHead: ByteBuffer?
    /// The service's `write`, waiting for the client to take what it has.
    var writeWaiter: CheckedContinuation<Void, any Error>?

    init(
        serial: UInt64, id: String, head: HTTPRequestHead, endpoint: Endpoint?, intake: BodyIntake,
        startedAt: NIODeadline?
    ) {
        self.serial = serial
        self.id = id
        method = head.method
        self.endpoint = endpoint
        isOldVersion = head.version.minor == 0
        keepsAlive = head.isKeepAlive
        self.intake = intake
        self.startedAt = startedAt
    }
}

/// A request's body between the wire and the service that pulls it.
struct BodyIntake {
    enum Step {
        case part(ByteBuffer)
        case end
        case failed(any Error)
        /// Nothing is here yet: the reader waits.
        case wait
    }

    /// Content-Length; nil when chunked.
    let declaredLength: Int?
    let limitBytes: Int
    /// The client waits for a 100 before it sends the body.
    var expectsContinue: Bool
    private(set) var receivedBytes = 0
    private(set) var isComplete: Bool
    private var parts = CircularBuffer<ByteBuffer>(initialCapacity: 0)
    private var failure: (any Error)?
    var waiter: CheckedContinuation<ByteBuffer?, any Error>?

    init(declaredLength: Int?, limitBytes: Int, expectsContinue: Bool) {
        self.declaredLength = declaredLength
        self.limitBytes = limitBytes
        self.expectsContinue = expectsContinue
        isComplete = false
    }

    var hasBody: Bool { declaredLength != 0 }
    /// What the client has still to send; nil when nobody knows.
    var outstandingBytes: Int? { isComplete ? 0 : declaredLength.map { $0 - receivedBytes } }

    mutating func receive(_ part: ByteBuffer) {
        receivedBytes += part.readableBytes
        expectsContinue = false
        guard failure == nil else { return }
        guard receivedBytes <= limitBytes else {
            parts.removeAll()
            fail(EdgeError.bodyTooLarge(limitBytes: limitBytes))
            return
        }
        if let waiter {
            self.waiter = nil
            waiter.resume(returning: part)
        } else {
            parts.append(part)
        }
    }

    mutating func complete() {
        isComplete = true
        waiter?.resume(returning: nil)
        waiter = nil
    }

    mutating func fail(_ error: any Error) {
        guard failure == nil else { return }
        failure = error
        waiter?.resume(throwing: error)
        waiter = nil
    }

    /// The service's next pull. A failure comes before parts that wait: what was cut off is not worth reading on.
    mutating func pull() -> Step {
        if let failure { return .failed(failure) }
        if let part = parts.popFirst() { return .part(part) }
        return isComplete ? .end : .wait
    }

    /// Drops what waits: the service has answered and reads no more.
    mutating func abandon() { parts.removeAll() }
}
