import CofferCore
import Testing

/// The same throws every time (SplitMix64).
private struct Dice {
    private var state: UInt64
    init(_ seed: UInt64) { state = seed }
    mutating func next() -> UInt64 {
        state &+= 0x9e37_79b9_7f4a_7c15
        var z = state
        z = (z ^ (z >> 30)) &* 0xbf58_476d_1ce4_e5b9
        z = (z ^ (z >> 27)) &* 0x94d0_49bb_1331_11eb
        return z ^ (z >> 31)
    }
    mutating func number(_ range: Range<Int>) -> Int { range.lowerBound + Int(next() % UInt64(range.count)) }
    mutating func pick<Element>(_ elements: [Element]) -> Element { elements[number(0..<elements.count)] }
    mutating func text(_ parts: [String], upTo count: Int) -> String {
        var text = ""
        for _ in 0..<number(0..<count + 1) { text += pick(parts) }
        return text
    }
    /// One or two characters are others, gone, or put in.
    mutating func mutated(_ text: String, with noise: [Character]) -> String {
        var characters = Array(text)
        for _ in 0...number(0..<2) {
            let place = number(0..<characters.count)
            switch number(0..<3) {
            case 0: characters[place] = pick(noise)
            case 1: characters.remove(at: place)
            default: characters.insert(pick(noise), at: place)
            }
        }
        return String(characters)
    }
    /// Of the years that both spellings can write.
    mutating func time() -> Timestamp {
        Timestamp(microseconds: -62_135_596_800_000_000 + Int64(next() % 315_537_897_600_000_000))
    }
}

/// Every text that a client may send is a value, or none; a value is written in a way that is read as the same.
struct ParserTests {
    // MARK: Times

    /// Whether the printed spellings are read as the same time, as far as they tell it.
    private func comesBack(_ time: Timestamp) -> Bool {
        let whole = Timestamp(unixSeconds: time.unixSeconds)
        return Timestamp(iso8601: time.iso8601WithTicks) == time && Timestamp(iso8601: time.iso8601) == whole
            && Timestamp(rfc1123: time.rfc1123) == whole
    }

    @Test func timesComeBack() {
        var dice = Dice(1)
        for _ in 0..<1_000 {
            let time = dice.time()
            #expect(comesBack(time), "\(time.microseconds)")
            let f = time.fields
            let again = Timestamp(
                year: f.year, month: f.month, day: f.day, hour: f.hour, minute: f.minute, second: f.second,
                microsecond: f.microsecond)
            #expect(again == time && (0...6).contains(f.weekday))
            // The offset of a zone is taken off again.
            let minutes = dice.number(0..<1_440)
            let zone = Timestamp(unixSeconds: Int64(60 * minutes)).iso8601.dropFirst(11).prefix(5)
            let zoned = Timestamp(iso8601: "\(time.iso8601.dropLast())+\(zone)")
            #expect(zoned == Timestamp(unixSeconds: time.unixSeconds).adding(seconds: Int64(-60 * minutes)))
        }
    }

    @Test func mutatedTimesAreReadOrRefused() {
        var dice = Dice(2)
        let noise = Array("0123456789-+:.TZ ,GMTDecé\u{660}\u{301}")
        var read = 0
        for _ in 0..<2_500 {
            let time = dice.time()
            let text = dice.mutated(dice.pick([time.iso8601, time.iso8601WithTicks, time.rfc1123]), with: noise)
            for found in [Timestamp(iso8601: text), Timestamp(rfc1123: text)].compactMap({ $0 }) {
                read += 1
                #expect(comesBack(found), "\(text)")
                // A century later is a time as well.
                let later = found.adding(seconds: 3_155_760_000)
                #expect(later > found && later.adding(seconds: -3_155_760_000) == found)
            }
        }
        #expect(read > 100, "another digit is another time")
    }

    @Test func randomTextIsNoTime() {
        var dice = Dice(3)
        let parts = ["2026", "-", "11", "T", ":", "00", "Z", "+", ".", "Sun,", " ", "Nov", "GMT", "é"]
        for _ in 0..<3_000 {
            let text = dice.text(parts, upTo: 12)
            for found in [Timestamp(iso8601: text), Timestamp(rfc1123: text)].compactMap({ $0 }) {
                #expect(comesBack(found), "\(text)")
            }
        }
    }

    // MARK: Encodings

    @Test func hexIsReadAsItIsWritten() {
        var dice = Dice(4)
        for _ in 0..<2_000 {
            let bytes = (0..<dice.number(0..<20)).map { _ in UInt8(truncatingIfNeeded: dice.next()) }
            #expect([UInt8](hex: bytes.hex) == bytes)
            let text = dice.mutated(bytes.hex + "0f", with: Array("0fAFgG x-é\u{ff10}"))
            if let read = [UInt8](hex: text) { #expect(read.hex == text.lowercased(), "\(text)") }
        }
    }

    /// No two texts mean the same bytes, but for the padding that base64url may go without.
    @Test func base64HasOneSpelling() {
        var dice = Dice(5)
        let noise = Array("AQgwz09+/-_= \n\0é\u{301}")
        for _ in 0..<3_000 {
            let bytes = (0..<dice.number(1..<20)).map { _ in UInt8(truncatingIfNeeded: dice.next()) }
            let plain = dice.mutated(bytes.base64, with: noise)
            if let read = [UInt8](base64: plain) { #expect(read.base64 == plain, "\(plain)") }
            let url = dice.mutated(bytes.base64URL, with: noise)
            guard let read = [UInt8](base64URL: url) else { continue }
            let padding = String(repeating: "=", count: (3 - read.count % 3) % 3)
            #expect(url == read.base64URL || url == read.base64URL + padding, "\(url)")
        }
    }

    // MARK: Names

    @Test func resourceIdentifiersComeBack() {
        var dice = Dice(6)
        let parts = [
            "/", "//", "subscriptions", "resourceGroups", "providers", "Microsoft.Web", "sites", "a", "A", "é", "ß",
            " ", "%2F", "İ",
        ]
        for _ in 0..<1_500 {
            let text = dice.text(parts, upTo: 14)
            let id = ResourceID(text)
            #expect(id.description.utf8.first == 0x2f && id.segments.allSatisfy { !$0.isEmpty })
            let again = ResourceID(id.description)
            #expect(again == id && again.segments.map { Array($0.utf8) } == id.segments.map { Array($0.utf8) })
            #expect(again.hashValue == id.hashValue && again.canonical == id.canonical)
            // A scope holds itself and all below it; a part of one is above.
            #expect(id.contains(id) && id.contains(id.appending("x")) && !id.appending("x").contains(id))
            #expect(ResourceID.root.contains(id) && id.parent.contains(id))
            if let group = id.resourceGroupID { #expect(group.contains(id) && group.resourceGroup == id.resourceGroup) }
            if let scope = id.extendedScope { #expect(scope.contains(id)) }
            let (types, names) = (id.types.count, id.names.count)
            #expect(types == names || types == names + 1, "\(text)")
        }
    }

    private static func endpoint(_ label: String, _ dice: inout Dice) -> Endpoint {
        switch dice.number(0..<8) {
        case 0: .management
        case 1: .login
        case 2: .graph
        case 3: .vault(label)
        case 4: .managedHSM(label)
        case 5: .site(label)
        case 6: .scm(label)
        default: .storage(account: label, service: dice.pick(StorageService.allCases))
        }
    }

    @Test func endpointsComeBackFromTheirHost() {
        var dice = Dice(7)
        for names in [HostNames(domain: "coffer.test", port: 8_443), HostNames(domain: "localhost", port: nil)] {
            for _ in 0..<500 {
                let endpoint = Self.endpoint("a" + dice.text(["b", "0", "-"], upTo: 8), &dice)
                for family in names.families {
                    let authority = family.authority(of: endpoint)
                    let match = names.match(authority)
                    #expect(match?.endpoint == endpoint && match?.family == family, "\(authority)")
                    #expect(names.match(authority.uppercased())?.endpoint == endpoint)
                    let host = String(authority.prefix { $0 != ":" })
                    #expect(family.endpoint(forHost: host) == endpoint)
                    // Another host, and so nobody's, or somebody else's.
                    let other = dice.mutated(host, with: Array("a.-:@xé"))
                    guard let found = names.match(other) else { continue }
                    let back = found.family.authority(of: found.endpoint).prefix { $0 != ":" }
                    #expect(back == other.prefix { $0 != ":" }.lowercased(), "\(other)")
                }
            }
        }
    }
}
