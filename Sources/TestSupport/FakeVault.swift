public import CofferCore
internal import Crypto
public import EncryptionAtRest
internal import Synchronization

/// A vault of its own little world: key versions that really wrap (1, 2, …), a list of who may, and the refusals of the
/// real one.
public final class FakeVault: CustomerKeyCustodian {
    public enum Trouble: Sendable { case none, denied, timeOut }
    private struct State {
        var versions: [String: [String: SymmetricKey]] = [:]
        var order: [String: [String]] = [:]
        var disabled: Set<String> = []
        /// Object identifiers.
        var allowed: Set<String> = []
        var trouble = Trouble.none
        var wraps: [String] = []
        var unwraps = 0
        var observers: [@Sendable (String?) -> Void] = []
        var gate: [CheckedContinuation<Void, Never>]?
    }
    private let state = Mutex(State())
    public let name: String

    public init(name: String = "vault1") { self.name = name }

    /// The identifiers of the versions that wrapped, in order.
    public var wraps: [String] { state.withLock { $0.wraps } }
    public var unwraps: Int { state.withLock { $0.unwraps } }
    public func reference(_ key: String, version: String? = nil) -> CustomerKeyReference {
        CustomerKeyReference(vaultURI: "https://\(name).vault.azure.net/", keyName: key, keyVersion: version)
    }
    public func identifier(_ key: String, _ version: String) -> String { identifier(reference(key), version) }
    private func identifier(_ reference: CustomerKeyReference, _ version: String) -> String {
        "\(reference.vaultURI)keys/\(reference.keyName)/\(version)"
    }

    // MARK: Changes; those that announce do so before they return

    @discardableResult public func addVersion(_ key: String, announcing: Bool = true) -> String {
        let version = state.withLock { state in
            let version = String(state.order[key, default: []].count + 1)
            state.versions[key, default: [:]][version] = SymmetricKey(size: .bits256)
            state.order[key, default: []].append(version)
            return version
        }
        if announcing { announce() }
        return version
    }
    public func allow(_ caller: Caller) { allow(objectID: caller.objectID) }
    public func allow(objectID: String) { change { $0.allowed.insert(objectID) } }
    public func refuse(_ caller: Caller) { refuse(objectID: caller.objectID) }
    public func refuse(objectID: String) { change { $0.allowed.remove(objectID) } }
    public func disable(_ key: String, _ version: String) { change { $0.disabled.insert(key + "/" + version) } }
    public func enable(_ key: String, _ version: String) { change { $0.disabled.remove(key + "/" + version) } }
    public func set(_ trouble: Trouble) { state.withLock { $0.trouble = trouble } }
    private func change(_ body: (inout State) -> Void) {
        state.withLock { body(&$0) }
        announce()
    }
    public func announce(_ vaultName: String?? = nil) {
        for observer in state.withLock({ $0.observers }) { observer(vaultName ?? name) }
    }

    // MARK: Holding answers back

    /// From here on unwraps have their answer and wait with it until `letGo`.
    public func holdAnswers() { state.withLock { $0.gate = [] } }
    public func letGo() {
        let waiting = state.withLock { state in
            defer { state.gate = nil }
            return state.gate ?? []
        }
        for continuation in waiting { continuation.resume() }
    }
    public var heldAnswers: Int { state.withLock { $0.gate?.count ?? 0 } }
    private func pass() async {
        await withCheckedContinuation { continuation in
            let isOpen = state.withLock { state in
                if state.gate == nil { return true }
                state.gate!.append(continuation)
                return false
            }
            if isOpen { continuation.resume() }
        }
    }

    // MARK: CustomerKeyCustodian

    private func version(_ key: String, _ version: String?, as caller: Caller) throws(KeyUnavailable) -> (
        String, SymmetricKey
    ) {
        try state.withLock { state throws(KeyUnavailable) in
            switch state.trouble {
            case .none: break
            case .denied: throw KeyUnavailable(.accessDenied, "denied")
            case .timeOut: throw KeyUnavailable(.vaultNotFound, "no answer", isDenial: false)
            }
            guard state.allowed.contains(caller.objectID) else { throw KeyUnavailable(.accessDenied, "no permission") }
            let newest = state.order[key]?.last { !state.disabled.contains(key + "/" + $0) }
            guard let version = version ?? newest, let wrapping = state.versions[key]?[version],
                !state.disabled.contains(key + "/" + version)
            else { throw KeyUnavailable(.keyNotFound, "no such key, or disabled") }
            return (version, wrapping)
        }
    }

    public func wrapKey(
        _ key: SecretBytes, with reference: CustomerKeyReference, as caller: Caller
    ) async throws(KeyUnavailable) -> CustomerWrappedKey {
        let (version, wrapping) = try version(reference.keyName, reference.keyVersion, as: caller)
        let identifier = identifier(reference, version)
        state.withLock { $0.wraps.append(identifier) }
        let sealed = try! key.withUnsafeBytes { try AES.GCM.seal($0, using: wrapping).combined! }
        return CustomerWrappedKey(keyIdentifier: identifier, ciphertext: Array(sealed))
    }

    public func unwrapKey(_ wrapped: CustomerWrappedKey, as caller: Caller) async throws(KeyUnavailable) -> SecretBytes
    {
        state.withLock { $0.unwraps += 1 }
        let parts = wrapped.keyIdentifier.split(separator: "/")
        let answer = Result { () throws(KeyUnavailable) in
            let (_, wrapping) = try version(String(parts[parts.count - 2]), String(parts.last!), as: caller)
            guard let box = try? AES.GCM.SealedBox(combined: wrapped.ciphertext),
                let plaintext = try? AES.GCM.open(box, using: wrapping)
            else { throw KeyUnavailable(.keyNotFound, "does not unwrap") }
            return SecretBytes(copying: plaintext)
        }
        await pass()
        return try answer.get()
    }

    public func currentKeyIdentifier(
        of reference: CustomerKeyReference, as caller: Caller
    ) async throws(KeyUnavailable) -> String {
        identifier(reference, try version(reference.keyName, reference.keyVersion, as: caller).0)
    }

    public func onChange(_ observer: @escaping @Sendable (_ vaultName: String?) -> Void) {
        state.withLock { $0.observers.append(observer) }
    }
}
