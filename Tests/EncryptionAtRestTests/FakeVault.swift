import CofferCore
import Synchronization

@testable import EncryptionAtRest

/// A vault of its own little world: key versions that really wrap, a list of who may, and the refusals of the real one.
final class FakeVault: CustomerKeyCustodian {
    enum Trouble { case none, denied, timeOut }
    private struct State {
        var versions: [String: [String: XAES256GCM]] = [:]
        var order: [String: [String]] = [:]
        var disabled: Set<String> = []
        var allowed: Set<Caller> = []
        var trouble = Trouble.none
        var unwraps = 0
        var observers: [@Sendable (String?) -> Void] = []
        var gate: [CheckedContinuation<Void, Never>]?
    }
    private let state = Mutex(State())
    private let randomness = SeededRandomness(99)
    let name: String

    init(name: String = "vault1") { self.name = name }

    var unwraps: Int { state.withLock { $0.unwraps } }
    func reference(_ key: String, version: String? = nil) -> CustomerKeyReference {
        CustomerKeyReference(vaultURI: "https://\(name).vault.azure.net/", keyName: key, keyVersion: version)
    }
    func identifier(_ key: String, _ version: String) -> String {
        "https://\(name).vault.azure.net/keys/\(key)/\(version)"
    }

    // MARK: Changes; those that announce do so before they return

    @discardableResult func addVersion(_ key: String, announcing: Bool = true) -> String {
        let version = state.withLock { state in
            let version = "v\(state.order[key, default: []].count + 1)"
            state.versions[key, default: [:]][version] = randomness.bytes(32).withUnsafeBytes { XAES256GCM(key: $0) }
            state.order[key, default: []].append(version)
            return version
        }
        if announcing { announce() }
        return version
    }
    func allow(_ caller: Caller) { change { $0.allowed.insert(caller) } }
    func refuse(_ caller: Caller) { change { $0.allowed.remove(caller) } }
    func disable(_ key: String, _ version: String) { change { $0.disabled.insert(key + "/" + version) } }
    func enable(_ key: String, _ version: String) { change { $0.disabled.remove(key + "/" + version) } }
    func set(_ trouble: Trouble) { state.withLock { $0.trouble = trouble } }
    private func change(_ body: (inout State) -> Void) {
        state.withLock { body(&$0) }
        announce()
    }
    func announce(_ vaultName: String?? = nil) {
        for observer in state.withLock({ $0.observers }) { observer(vaultName ?? name) }
    }

    // MARK: Holding answers back

    /// From here on unwraps have their answer and wait with it until `letGo`.
    func holdAnswers() { state.withLock { $0.gate = [] } }
    func letGo() {
        let waiting = state.withLock { state in
            defer { state.gate = nil }
            return state.gate ?? []
        }
        for continuation in waiting { continuation.resume() }
    }
    var heldAnswers: Int { state.withLock { $0.gate?.count ?? 0 } }
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
        String, XAES256GCM
    ) {
        try state.withLock { state throws(KeyUnavailable) in
            switch state.trouble {
            case .none: break
            case .denied: throw KeyUnavailable(.accessDenied, "denied")
            case .timeOut: throw KeyUnavailable(.vaultNotFound, "no answer", isDenial: false)
            }
            guard state.allowed.contains(caller) else { throw KeyUnavailable(.accessDenied, "no permission") }
            let newest = state.order[key]?.last { !state.disabled.contains(key + "/" + $0) }
            guard let version = version ?? newest, let cipher = state.versions[key]?[version],
                !state.disabled.contains(key + "/" + version)
            else { throw KeyUnavailable(.keyNotFound, "no such key, or disabled") }
            return (version, cipher)
        }
    }

    func wrapKey(
        _ key: SecretBytes, with reference: CustomerKeyReference, as caller: Caller
    ) async throws(KeyUnavailable) -> CustomerWrappedKey {
        let (version, cipher) = try version(reference.keyName, reference.keyVersion, as: caller)
        let plaintext = key.withUnsafeBytes { Array($0) }
        return CustomerWrappedKey(
            keyIdentifier: identifier(reference.keyName, version),
            ciphertext: cipher.seal(plaintext, additional: [], randomness: randomness))
    }

    func unwrapKey(_ wrapped: CustomerWrappedKey, as caller: Caller) async throws(KeyUnavailable) -> SecretBytes {
        state.withLock { $0.unwraps += 1 }
        let parts = wrapped.keyIdentifier.split(separator: "/")
        let answer = Result { () throws(KeyUnavailable) in
            let (_, cipher) = try version(String(parts[parts.count - 2]), String(parts.last!), as: caller)
            guard let plaintext = cipher.open(wrapped.ciphertext, additional: []) else {
                throw KeyUnavailable(.keyNotFound, "does not unwrap")
            }
            return SecretBytes(copying: plaintext)
        }
        await pass()
        return try answer.get()
    }

    func currentKeyIdentifier(
        of reference: CustomerKeyReference, as caller: Caller
    ) async throws(KeyUnavailable) -> String {
        identifier(reference.keyName, try version(reference.keyName, reference.keyVersion, as: caller).0)
    }

    func onChange(_ observer: @escaping @Sendable (_ vaultName: String?) -> Void) {
        state.withLock { $0.observers.append(observer) }
    }
}

let identity = Caller(kind: .managedIdentity, objectID: "11111111-1111-1111-1111-111111111111", tenantID: "t")

extension Store {
    /// An account under the newest version of `cmk` in a vault that lets `identity` in.
    static func withCustomerKey() async throws -> (Store, FakeVault) {
        let store = try await withAccount()
        let vault = FakeVault()
        store.sealed.accountKeys.attach(vault)
        vault.addVersion("cmk")
        vault.allow(identity)
        _ = try await store.sealed.accountKeys.useCustomerKey(store.account, vault.reference("cmk"), as: identity)
        await store.sealed.accountKeys.background.settle()
        return (store, vault)
    }
}
