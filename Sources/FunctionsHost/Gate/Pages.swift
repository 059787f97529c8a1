internal import CofferCore
internal import HTTPEdge
internal import NIOCore
internal import NIOHTTP1

/// The platform's own answers: what App Service says in the app's place.
enum Pages {
    /// The app is there, and its records do not open.
    static func damaged() -> Response {
        html(
            .internalServerError, "Error 500 - This web app cannot be read.",
            "The app's records do not open. The server's log names them; 'coffer verify' tells what is damaged.")
    }

    static func siteNotFound() -> Response { html(.notFound, "404 Web Site not found", "404 Web Site not found.") }

    /// No detail about the rules; the address is what the mender needs.
    static func addressForbidden(_ address: String) -> Response {
        var response = html(
            .custom(code: 403, reasonPhrase: "Ip Forbidden"), "Error 403 - Forbidden",
            "The web app you have attempted to reach has blocked your access.")
        if HeaderText.isValue(address) { response.headers.add(name: "x-ms-forbidden-ip", value: address) }
        return response
    }
    static func forbidden(_ text: String) -> Response { html(.forbidden, "Error 403 - Forbidden", text) }

    static func stopped() -> Response {
        html(
            .custom(code: 403, reasonPhrase: "Site Disabled"), "Error 403 - This web app is stopped.",
            "The web app you have attempted to reach is currently stopped and does not accept any requests.")
    }

    static func quotaSpent(secondsToMidnight: Int64) -> Response {
        var response = html(
            .custom(code: 403, reasonPhrase: "Quota Exceeded"), "Error 403 - This web app is stopped.",
            "The daily usage quota of this function app is spent. It runs again after midnight UTC.")
        response.headers.add(name: "Retry-After", value: String(secondsToMidnight))
        return response
    }

    /// Why the host cannot serve: for the app's owner, who has nothing else to go by.
    static func unavailable(_ reason: String, retryAfterSeconds: Int64 = 5) -> Response {
        var response = html(.serviceUnavailable, "Function host is not running.", reason)
        response.headers.add(name: "Retry-After", value: String(retryAfterSeconds))
        return response
    }

    static func home(_ siteName: String) -> Response {
        html(.ok, "Your Azure Function App is up and running", "The function app '\(siteName)' is up and running.")
    }

    static func text(_ status: HTTPResponseStatus, _ text: String) -> Response {
        Response(
            status: status, headers: ["Content-Type": "text/plain; charset=utf-8"],
            body: text.isEmpty ? .empty : .bytes(ByteBuffer(string: text)))
    }

    private static func html(_ status: HTTPResponseStatus, _ title: String, _ text: String) -> Response {
        let page = """
            <!DOCTYPE html>
            <html lang="en"><head><meta charset="utf-8"><title>\(escaped(title))</title></head>
            <body><h1>\(escaped(title))</h1><p>\(escaped(text))</p></body></html>

            """
        return Response(
            status: status,
            headers: [
                "Content-Type": "text/html; charset=utf-8", "Cache-Control": "no-store",
                "X-Content-Type-Options": "nosniff",
            ],
            body: .bytes(ByteBuffer(string: page)))
    }

    static func escaped(_ text: String) -> String {
        text.replacing("&", with: "&amp;").replacing("<", with: "&lt;").replacing(">", with: "&gt;").replacing(
            "\"", with: "&quot;")
    }
}
