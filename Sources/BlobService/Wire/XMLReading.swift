internal import Foundation
internal import FoundationXML
internal import NIOCore
internal import StorageAccount

/// A parsed element: name, text, children in order. Attributes are not used by any request body of the Blob service.
struct XMLNode: Sendable, Equatable {
    var name: String
    var text = ""
    var children: [XMLNode] = []

    subscript(name: String) -> XMLNode? { children.first { $0.name == name } }
    func all(_ name: String) -> [XMLNode] { children.filter { $0.name == name } }
}

/// Reads a request's XML body. Throws 400 `InvalidXmlDocument` for anything but well-formed UTF-8 without a document
/// type declaration: entities and external references are refused before a parser sees them.
func readXML(_ body: ByteBuffer, maximumDepth: Int = 16) throws(StorageError) -> XMLNode {
    var bytes = Array(body.readableBytesView)
    if bytes.starts(with: [0xef, 0xbb, 0xbf]) { bytes.removeFirst(3) }
    guard let text = String(validating: bytes, as: UTF8.self), !bytes.contains(0), !declaresDocumentType(bytes) else {
        throw .invalidXML
    }
    // The declaration may name another encoding than the bytes have; without it the parser takes UTF-8 (XML 1.0
    // §4.3.3).
    var content = Substring(text)
    if content.hasPrefix("<?xml"), let end = content.range(of: "?>") { content = content[end.upperBound...] }
    let builder = TreeBuilder(maximumDepth: maximumDepth)
    let parser = XMLParser(data: Data(content.utf8))
    parser.shouldResolveExternalEntities = false
    parser.shouldProcessNamespaces = false
    parser.delegate = builder
    guard parser.parse(), !builder.failed, let root = builder.root else { throw .invalidXML }
    return root
}

private func declaresDocumentType(_ bytes: [UInt8]) -> Bool {
    var index = bytes.startIndex
    while let mark = bytes[index...].firstIndex(of: 0x3c) {
        index = mark + 1
        guard index < bytes.count, bytes[index] == 0x21 else { continue }
        // `<!` begins a comment, a CDATA section, or a declaration; only the first two are allowed.
        let rest = bytes[(index + 1)...]
        if !rest.starts(with: "--".utf8), !rest.starts(with: "[CDATA[".utf8) { return true }
    }
    return false
}

private final class TreeBuilder: NSObject, XMLParserDelegate {
    private var stack: [XMLNode] = []
    private let maximumDepth: Int
    private(set) var root: XMLNode?
    private(set) var failed = false

    init(maximumDepth: Int) { self.maximumDepth = maximumDepth }

    func parser(
        _ parser: XMLParser, didStartElement elementName: String, namespaceURI: String?, qualifiedName: String?,
        attributes: [String: String]
    ) {
        guard stack.count < maximumDepth, root == nil else {
            failed = true
            parser.abortParsing()
            return
        }
        stack.append(XMLNode(name: elementName))
    }
    func parser(_ parser: XMLParser, didEndElement elementName: String, namespaceURI: String?, qualifiedName: String?) {
        guard let node = stack.popLast() else { return }
        if stack.isEmpty { root = node } else { stack[stack.count - 1].children.append(node) }
    }
    func parser(_ parser: XMLParser, foundCharacters string: String) {
        if !stack.isEmpty { stack[stack.count - 1].text += string }
    }
    func parser(_ parser: XMLParser, foundCDATA CDATABlock: Data) {
        if !stack.isEmpty { stack[stack.count - 1].text += String(decoding: CDATABlock, as: UTF8.self) }
    }
    func parser(_ parser: XMLParser, parseErrorOccurred parseError: any Error) { failed = true }
}
