import Testing

@testable import coffer

@Suite struct TokenKeyURITests {
    private static let good = "pkcs11:token=coffer;object=root?module-path=/m.so&pin-source=file:/p"

    @Test(arguments: [
        (good, "/p"), ("pkcs11:id=%01?pin-source=/a%20b&module-path=/m.so", "/a b"),
        ("pkcs11:object=k?module-path=/m.so&pin-source=file:///etc/pin", "/etc/pin"),
    ])
    func thePINFileIsRead(text: String, pinFile: String) throws {
        let uri = try TokenKeyURI(parsing: text)
        #expect(uri.pinFile == pinFile)
        #expect(!uri.name.contains("?") && text.hasPrefix(uri.name))
    }

    @Test(arguments: [
        ("", "does not begin"), ("https://1234.example/", "does not begin"),
        ("pkcs11:object=%zz1234", "percent-encoded"),
        ("pkcs11:object", "NAME=VALUE"), ("pkcs11:token=coffer?module-path=/m.so&pin-source=/p", "names no key"),
        ("\(good)&pin-value=1234", "holds the PIN itself"), ("pkcs11:object=k;pin-value=1234", "holds the PIN itself"),
        ("pkcs11:object=k;nonsense=1234?module-path=/m.so&pin-source=/p", "does not know"),
        ("pkcs11:object=k?pin-source=/p", "names no module"),
        ("pkcs11:object=k?module-path=m&pin-source=/p", "no module"),
        ("pkcs11:object=k?module-path=/m", "names no PIN file"),
        ("pkcs11:object=k?module-path=/m&pin-source=1234", "names no PIN file"),
        ("pkcs11:object=k?module-path=/m&pin-source=%7c/bin/1234", "names no PIN file"),
        ("pkcs11:object=k?module-path=/m&pin-source=file://host/1234", "names no PIN file"),
    ])
    func othersAreRefusedWithoutRepeatingThem(text: String, reason: String) {
        let refusal = #expect(throws: (any Error).self) { try TokenKeyURI(parsing: text) }
        let said = refusal.map { "\($0)" } ?? ""
        #expect(said.contains(reason) && !said.contains("1234"), "\(said)")
    }
}
