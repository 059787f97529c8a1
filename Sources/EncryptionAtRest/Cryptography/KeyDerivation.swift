internal import CPlatform
internal import CSealing
internal import CofferCore

/// HKDF-SHA256 (RFC 5869) with the labels of docs/format.md §2.
enum KeyDerivation {
    /// Runs `body` with `count` bytes derived from `secret`, and wipes them afterwards.
    static func withDerived<Result, Failure: Error>(
        _ count: Int, from secret: SecretBytes, salt: [UInt8] = [], info: [UInt8],
        _ body: (UnsafeRawBufferPointer) throws(Failure) -> Result
    ) throws(Failure) -> Result {
        let output = UnsafeMutableRawBufferPointer.allocate(byteCount: count, alignment: 16)
        defer {
            coffer_wipe(output.baseAddress, output.count)
            output.deallocate()
        }
        derive(from: secret, salt: salt, info: info, to: output)
        return try body(UnsafeRawBufferPointer(output))
    }

    static func secret(_ count: Int, from secret: SecretBytes, salt: [UInt8] = [], info: [UInt8]) -> SecretBytes {
        SecretBytes(count: count) { derive(from: secret, salt: salt, info: info, to: $0) }
    }

    static func xaes(from secret: SecretBytes, info: [UInt8]) -> XAES256GCM {
        withDerived(XAES256GCM.keyBytes, from: secret, info: info) { XAES256GCM(key: $0) }
    }

    private static func derive(
        from secret: SecretBytes, salt: [UInt8], info: [UInt8], to output: UnsafeMutableRawBufferPointer
    ) {
        secret.withUnsafeBytes { secret in
            let derived = coffer_hkdf(
                output.baseAddress!.bytes, output.count, secret.bytes, secret.count, salt, salt.count, info, info.count)
            precondition(derived == 1, "HKDF-SHA256 yields at most 8,160 bytes")
        }
    }
}

/// The strings that keep keys and messages apart. docs/format.md §2 and §3 list them; changing one is a new format.
enum Label: String {
    case metadataPages = "coffer/v1/metadata-pages"
    case records = "coffer/v1/records"
    case record = "coffer/v1/record"
    case accountKeyRecords = "coffer/v1/account-key-records"
    case accountKeyRecord = "coffer/v1/account-key-record"
    case platform = "coffer/v1/platform"
    case platformWrap = "coffer/v1/platform-wrap"
    case volumeRows = "coffer/v1/volume-rows"
    case volumeRow = "coffer/v1/volume-row"
    case accountData = "coffer/v1/account-data"
    case customerProvidedData = "coffer/v1/customer-provided-data"
    case scopeData = "coffer/v1/scope-data"
    case sealedPart = "coffer/v1/sealed-part"
    case inlineExtent = "coffer/v1/inline-extent"
    case extentKey = "coffer/v1/extent-key"
}

/// Writes fields behind their lengths (32 bits, big endian), so that no two lists of fields give the same bytes.
struct FieldList {
    private(set) var bytes: [UInt8]
    init(_ label: Label, _ fields: [UInt8]...) { self.init(label, fields) }
    init(_ label: Label, _ fields: [[UInt8]]) {
        bytes = []
        // Room for the label and for a short field that follows.
        bytes.reserveCapacity(fields.reduce(2 * (4 + 32)) { $0 + 4 + $1.count })
        append(label.rawValue.utf8)
        for field in fields { append(field) }
    }
    mutating func append(_ field: some Collection<UInt8>) {
        bytes.append(bigEndian: UInt32(field.count))
        bytes.append(contentsOf: field)
    }
}

extension [UInt8] {
    mutating func append(bigEndian value: some FixedWidthInteger) {
        Swift.withUnsafeBytes(of: value.bigEndian) { append(contentsOf: $0) }
    }
}

/// Reads what we once wrote, strictly: too short, too long or out of range is nil, and nothing traps.
struct FieldReader {
    private let bytes: ArraySlice<UInt8>
    private var position: Int
    init(_ bytes: some Sequence<UInt8>) {
        self.bytes = ArraySlice(bytes)
        position = self.bytes.startIndex
    }
    init(_ bytes: ArraySlice<UInt8>) {
        self.bytes = bytes
        position = bytes.startIndex
    }
    var isAtEnd: Bool { position == bytes.endIndex }
    var rest: ArraySlice<UInt8> { bytes[position...] }

    mutating func take(_ count: Int) -> ArraySlice<UInt8>? {
        guard count >= 0, count <= bytes.endIndex - position else { return nil }
        defer { position += count }
        return bytes[position..<position + count]
    }
    mutating func integer<Value: FixedWidthInteger>(_ type: Value.Type) -> Value? {
        take(MemoryLayout<Value>.size).map { $0.reduce(0) { $0 << 8 | Value(truncatingIfNeeded: $1) } }
    }
    /// A field behind a 16-bit length.
    mutating func field() -> ArraySlice<UInt8>? {
        integer(UInt16.self).flatMap { take(Int($0)) }
    }
    /// A field of text; nil unless it is well-formed UTF-8.
    mutating func text() -> String? {
        field().flatMap { String(validating: $0, as: UTF8.self) }
    }
    /// 0 for nil, 1 and the text otherwise; the outer nil means malformed.
    mutating func optionalText() -> String?? {
        switch integer(UInt8.self) {
        case 0: .some(nil)
        case 1: text().map { .some($0) }
        default: nil
        }
    }
}

extension [UInt8] {
    mutating func append(field: some Collection<UInt8>) {
        precondition(field.count <= Int(UInt16.max))
        append(bigEndian: UInt16(field.count))
        append(contentsOf: field)
    }
    mutating func append(text: String) { append(field: Array(text.utf8)) }
    mutating func append(optionalText text: String?) {
        append(text == nil ? 0 : 1)
        if let text { append(text: text) }
    }
}
