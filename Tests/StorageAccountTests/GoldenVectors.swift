import NIOHTTP1
import Testing

/// One request as a real client sent it to account `goldenaccount`.
struct GoldenRequest: Sendable, CustomTestStringConvertible {
    let name: String
    let method: HTTPMethod
    let url: String
    let headers: [(String, String)]
    /// Sorted letters of `sp` for a shared access signature; nil for a shared key.
    let permissions: String?
    var testDescription: String { name }
}

/// Made with azure-storage-blob 12.31.1 (versions without an SDK: by hand from the documents' layouts) for the account
/// key 00 01 … 3f, the delegation secret 40 41 … 5f, and the time 2026-11-22T00:00:00Z.
let goldenRequests: [GoldenRequest] = [
    GoldenRequest(
        name: "list containers", method: .GET,
        url: "https://goldenaccount.blob.core.windows.net/?comp=list&maxresults=5&include=metadata",
        headers: [
            ("x-ms-version", "2026-10-06"),
            ("x-ms-date", "Sun, 22 Nov 2026 00:00:00 GMT"),
            ("x-ms-client-request-id", "905742ec-e628-11f1-b9a5-02fc00000001"),
            ("Authorization", "SharedKey goldenaccount:zsV3grb8IMTFW7dbKYXMWn2DCLNAlyCWDC6hstjMqm8="),
        ], permissions: nil),
    GoldenRequest(
        name: "create container with metadata", method: .PUT,
        url: "https://goldenaccount.blob.core.windows.net/music?restype=container",
        headers: [
            ("x-ms-meta-b", "2"),
            ("x-ms-meta-a-b", "1"),
            ("x-ms-meta-aB", "3"),
            ("x-ms-version", "2026-10-06"),
            ("x-ms-date", "Sun, 22 Nov 2026 00:00:00 GMT"),
            ("x-ms-client-request-id", "9057730c-e628-11f1-b9a5-02fc00000001"),
            ("Authorization", "SharedKey goldenaccount:mye52pNEUmAopLyOdQt9ZeS0sHaS+8jxjiJUL9a28tE="),
        ], permissions: nil),
    GoldenRequest(
        name: "put blob", method: .PUT,
        url: "https://goldenaccount.blob.core.windows.net/music/p%C3%A4th/of%20a%20blob%2B%25.txt",
        headers: [
            ("Content-Length", "5"),
            ("x-ms-meta-k", "v"),
            ("x-ms-blob-type", "BlockBlob"),
            ("x-ms-blob-content-type", "text/plain"),
            ("x-ms-blob-content-encoding", "gzip"),
            ("x-ms-blob-content-language", "en"),
            ("x-ms-blob-content-md5", "AAAAAAAAAAAAAAAAAAAAAA=="),
            ("If-None-Match", "*"),
            ("x-ms-version", "2026-10-06"),
            ("Content-Type", "application/octet-stream"),
            ("x-ms-date", "Sun, 22 Nov 2026 00:00:00 GMT"),
            ("x-ms-client-request-id", "9058dc9c-e628-11f1-b9a5-02fc00000001"),
            ("Authorization", "SharedKey goldenaccount:LTjtT662HJInR5PUO7aKk0/5cLRzYoZ7J7LYXxNd0Ow="),
        ], permissions: nil),
    GoldenRequest(
        name: "put empty blob", method: .PUT,
        url: "https://goldenaccount.blob.core.windows.net/music/empty",
        headers: [
            ("x-ms-blob-type", "BlockBlob"),
            ("Content-Length", "0"),
            ("If-None-Match", "*"),
            ("x-ms-version", "2026-10-06"),
            ("Content-Type", "application/octet-stream"),
            ("x-ms-date", "Sun, 22 Nov 2026 00:00:00 GMT"),
            ("x-ms-client-request-id", "9059210c-e628-11f1-b9a5-02fc00000001"),
            ("Authorization", "SharedKey goldenaccount:G+h+klXPpfvAzVfkevSLFccc74sD+NQihPDh7qmwRlw="),
        ], permissions: nil),
    GoldenRequest(
        name: "range read with conditions", method: .GET,
        url: "https://goldenaccount.blob.core.windows.net/music/a/b",
        headers: [
            ("x-ms-range", "bytes=3-12"),
            ("If-Match", "\"0x1\""),
            ("x-ms-version", "2026-10-06"),
            ("x-ms-date", "Sun, 22 Nov 2026 00:00:00 GMT"),
            ("x-ms-client-request-id", "90594eca-e628-11f1-b9a5-02fc00000001"),
            ("Authorization", "SharedKey goldenaccount:/hG6FC0dgdFjaeSvR3X2eCi61ZQAEXiYNEiDb1Wdk2k="),
        ], permissions: nil),
    GoldenRequest(
        name: "set metadata", method: .PUT,
        url: "https://goldenaccount.blob.core.windows.net/music/a?comp=metadata",
        headers: [
            ("x-ms-meta-x", "1"),
            ("If-Modified-Since", "Thu, 01 Jan 2026 00:00:00 GMT"),
            ("x-ms-version", "2026-10-06"),
            ("x-ms-date", "Sun, 22 Nov 2026 00:00:00 GMT"),
            ("x-ms-client-request-id", "905ab4c2-e628-11f1-b9a5-02fc00000001"),
            ("Authorization", "SharedKey goldenaccount:qfXP6tsZRru6RA6LLwTKGxYGV/0eRglIVeHC2wokZpQ="),
        ], permissions: nil),
    GoldenRequest(
        name: "delete snapshot", method: .DELETE,
        url: "https://goldenaccount.blob.core.windows.net/music/a?snapshot=2026-11-21T00:00:00.1234567Z",
        headers: [
            ("x-ms-version", "2026-10-06"),
            ("x-ms-date", "Sun, 22 Nov 2026 00:00:00 GMT"),
            ("x-ms-client-request-id", "905af45a-e628-11f1-b9a5-02fc00000001"),
            ("Authorization", "SharedKey goldenaccount:lGho+Q6nMKPRlrpazwghcnzq1cz3CpWjQHe4g8ka4HI="),
        ], permissions: nil),
    GoldenRequest(
        name: "list with prefix", method: .GET,
        url:
            "https://goldenaccount.blob.core.windows.net/music?restype=container&comp=list&prefix=a%20b%2F%C3%BC%26%3D%2B&include=metadata,snapshots",
        headers: [
            ("x-ms-version", "2026-10-06"),
            ("x-ms-date", "Sun, 22 Nov 2026 00:00:00 GMT"),
            ("x-ms-client-request-id", "905b24b6-e628-11f1-b9a5-02fc00000001"),
            ("Authorization", "SharedKey goldenaccount:PJO9REc+TXKvLw52/F+jlMtvtVXbzHDKNt/+9qElnDY="),
        ], permissions: nil),
    GoldenRequest(
        name: "block", method: .PUT,
        url: "https://goldenaccount.blob.core.windows.net/music/a?comp=block&blockid=aWQrLz0%3D",
        headers: [
            ("Content-Length", "3"),
            ("x-ms-version", "2026-10-06"),
            ("Content-Type", "application/octet-stream"),
            ("x-ms-date", "Sun, 22 Nov 2026 00:00:00 GMT"),
            ("x-ms-client-request-id", "905ca7d2-e628-11f1-b9a5-02fc00000001"),
            ("Authorization", "SharedKey goldenaccount:NWINamgQriCVRI3IwSPYfVt/0HKWXzi7n3x83nv7T5k="),
        ], permissions: nil),
    GoldenRequest(
        name: "blob SAS", method: .GET,
        url:
            "https://goldenaccount.blob.core.windows.net/music/a%20b/%C3%BC.txt?st=2026-11-21T12%3A00%3A00Z&se=2026-11-23T00%3A00%3A00Z&sp=racwd&sip=203.0.113.7&spr=https&sv=2026-10-06&sr=b&rscc=no-cache&rscd=attachment%3B%20filename%3D%22x%20y.txt%22&rsce=gzip&rscl=en-US&rsct=text/plain%3B%20charset%3Dutf-8&sig=pFTR73xdRSjic4a0kxi1oKO%2BrpIlxvbk3TAHolV32kk%3D",
        headers: [], permissions: "acdrw"),
    GoldenRequest(
        name: "blob SAS, least", method: .GET,
        url:
            "https://goldenaccount.blob.core.windows.net/music/a?se=2026-11-23T00%3A00%3A00Z&sp=r&sv=2026-10-06&sr=b&sig=u2gw4mrpvMo2Cnz3sRdniFXup/qa7UhMn0NWrNUA6YY%3D",
        headers: [], permissions: "r"),
    GoldenRequest(
        name: "blob SAS with a scope", method: .GET,
        url:
            "https://goldenaccount.blob.core.windows.net/music/a?se=2026-11-23T00%3A00%3A00Z&sp=rw&sv=2026-10-06&sr=b&ses=scope1&sig=tR6sZZuGm7hHeBEwOBjoH44kHwcPbHFKH3CMrs3%2BayU%3D",
        headers: [], permissions: "rw"),
    GoldenRequest(
        name: "snapshot SAS", method: .GET,
        url:
            "https://goldenaccount.blob.core.windows.net/music/a?snapshot=2026-11-21T00:00:00.1234567Z&se=2026-11-23T00%3A00%3A00Z&sp=r&sv=2026-10-06&sr=bs&sig=HFfk2AbPO0to2Fhz9dsa%2BlRBhjwv6oYROy/aSTrRc8k%3D",
        headers: [], permissions: "r"),
    GoldenRequest(
        name: "container SAS on a blob", method: .GET,
        url:
            "https://goldenaccount.blob.core.windows.net/music/deep/er?se=2026-11-23T00%3A00%3A00Z&sp=rl&sv=2026-10-06&sr=c&sig=F3eXaeEVbeS3BTpLFvSYm%2BaIRH16CaHxdN237kvuNF8%3D",
        headers: [], permissions: "lr"),
    GoldenRequest(
        name: "container SAS on the list", method: .GET,
        url:
            "https://goldenaccount.blob.core.windows.net/music?restype=container&comp=list&se=2026-11-23T00%3A00%3A00Z&sp=rl&sv=2026-10-06&sr=c&sig=F3eXaeEVbeS3BTpLFvSYm%2BaIRH16CaHxdN237kvuNF8%3D",
        headers: [], permissions: "lr"),
    GoldenRequest(
        name: "container SAS by policy", method: .GET,
        url:
            "https://goldenaccount.blob.core.windows.net/music/a?sv=2026-10-06&si=readers&sr=c&sig=5t5h0Witcplms7RBdkuJIevG6ibwXYs3l2DREbGHF1s%3D",
        headers: [], permissions: "lr"),
    GoldenRequest(
        name: "root container SAS", method: .GET,
        url:
            "https://goldenaccount.blob.core.windows.net/root.txt?se=2026-11-23T00%3A00%3A00Z&sp=r&sv=2026-10-06&sr=b&sig=YpfTWraabhoTkprD6fPlt/kl%2BgQkgo3d8jI6PHFb6qY%3D",
        headers: [], permissions: "r"),
    GoldenRequest(
        name: "account SAS", method: .GET,
        url:
            "https://goldenaccount.blob.core.windows.net/music/a?st=2026-11-21T12%3A00%3A00Z&se=2026-11-23T00%3A00%3A00Z&sp=rwdlac&sip=203.0.113.0-203.0.113.255&spr=https%2Chttp&sv=2026-10-06&ss=bq&srt=sco&sig=C2ZVaFf6DP5Jlm0WMtMjDQaSIyZODcmCyz3KYGUIz00%3D",
        headers: [], permissions: "acdlrw"),
    GoldenRequest(
        name: "user delegation SAS", method: .GET,
        url:
            "https://goldenaccount.blob.core.windows.net/music/a?se=2026-11-23T00%3A00%3A00Z&sp=r&sv=2026-10-06&sr=b&scid=33333333-3333-4333-8333-333333333333&skoid=11111111-1111-4111-8111-111111111111&sktid=22222222-2222-4222-8222-222222222222&skt=2026-11-21T00%3A00%3A00Z&ske=2026-11-24T00%3A00%3A00Z&sks=b&skv=2026-04-06&sig=EY02xBAWox6EhulsFKlCMPsNDNzIWsHfQV1yBeN3USM%3D",
        headers: [], permissions: "r"),
    GoldenRequest(
        name: "user delegation container SAS", method: .GET,
        url:
            "https://goldenaccount.blob.core.windows.net/music/a?se=2026-11-23T00%3A00%3A00Z&sp=rl&sv=2026-10-06&sr=c&skoid=11111111-1111-4111-8111-111111111111&sktid=22222222-2222-4222-8222-222222222222&skt=2026-11-21T00%3A00%3A00Z&ske=2026-11-24T00%3A00%3A00Z&sks=b&skv=2026-04-06&sig=K6zzDha1Xd08%2BL/FEpBjrbv32bW5OwKX2at7H0HhoC0%3D",
        headers: [], permissions: "lr"),
    GoldenRequest(
        name: "user delegation SAS bound to headers and query", method: .GET,
        url:
            "https://goldenaccount.blob.core.windows.net/music/a?timeout=30&comp=tags&se=2026-11-23T00%3A00%3A00Z&sp=r&sv=2026-10-06&sr=b&skoid=11111111-1111-4111-8111-111111111111&sktid=22222222-2222-4222-8222-222222222222&skt=2026-11-21T00%3A00%3A00Z&ske=2026-11-24T00%3A00%3A00Z&sks=b&skv=2026-04-06&srh=x-ms-client-request-id,x-custom&srq=timeout,comp&sig=Y9QU%2B7WmsUNo2ecXxsd92iF5L4X/nkZNwybj/afRgBQ%3D",
        headers: [
            ("x-ms-client-request-id", "abc"),
            ("x-custom", "d e"),
        ], permissions: "r"),
    GoldenRequest(
        name: "service SAS 2015-04-05", method: .GET,
        url:
            "https://goldenaccount.blob.core.windows.net/music/a?sv=2015-04-05&sr=b&sp=r&se=2026-11-23T00%3A00%3A00Z&rsct=text%2Fplain&sig=4TlypJPiDxWtgkELHHoL4yQ0yAKW%2FxOsH%2FfpCkAhkUw%3D",
        headers: [], permissions: "r"),
    GoldenRequest(
        name: "service SAS 2018-11-09", method: .GET,
        url:
            "https://goldenaccount.blob.core.windows.net/music/a?sv=2018-11-09&sr=b&sp=r&se=2026-11-23T00%3A00%3A00Z&st=2026-11-21&sig=yjLQcQcc8oEcnN1HQ3nDRQ6rRnBDjDH0pCJadz8qdRs%3D",
        headers: [], permissions: "r"),
    GoldenRequest(
        name: "service SAS 2020-12-06", method: .GET,
        url:
            "https://goldenaccount.blob.core.windows.net/music/a?sv=2020-12-06&sr=b&sp=r&se=2026-11-23T00%3A00%3A00Z&sig=gdiKJeqBivUtGlFpoov9FRs708iKkTE8jB08aZSQq%2Bo%3D",
        headers: [], permissions: "r"),
    GoldenRequest(
        name: "service SAS of a later version", method: .GET,
        url:
            "https://goldenaccount.blob.core.windows.net/music/a?sv=2031-01-01&sr=b&sp=r&se=2026-11-23T00%3A00%3A00Z&sig=F87fO9pJSEcrVVXTcoNxXs71s8cIo%2FrUcdYclJgsoUo%3D",
        headers: [], permissions: "r"),
    GoldenRequest(
        name: "account SAS 2015-04-05", method: .GET,
        url:
            "https://goldenaccount.blob.core.windows.net/music/a?sv=2015-04-05&ss=b&srt=o&sp=r&se=2026-11-23T00%3A00%3A00Z&sig=UTslarKxfAMPqWWW9pcgiyFLjapaQgqumgUTGDCfRA0%3D",
        headers: [], permissions: "r"),
    GoldenRequest(
        name: "user delegation SAS 2018-11-09", method: .GET,
        url:
            "https://goldenaccount.blob.core.windows.net/music/a?sv=2018-11-09&sr=b&sp=r&se=2026-11-23T00%3A00%3A00Z&skoid=11111111-1111-4111-8111-111111111111&sktid=22222222-2222-4222-8222-222222222222&skt=2026-11-21T00%3A00%3A00Z&ske=2026-11-24T00%3A00%3A00Z&sks=b&skv=2018-11-09&sig=4dDX6gFIleteNe0He8X5yizcgokhqIFnLsBbPV6tN5w%3D",
        headers: [], permissions: "r"),
    GoldenRequest(
        name: "user delegation SAS 2020-02-10", method: .GET,
        url:
            "https://goldenaccount.blob.core.windows.net/music/a?sv=2020-02-10&sr=b&sp=r&se=2026-11-23T00%3A00%3A00Z&skoid=11111111-1111-4111-8111-111111111111&sktid=22222222-2222-4222-8222-222222222222&skt=2026-11-21T00%3A00%3A00Z&ske=2026-11-24T00%3A00%3A00Z&sks=b&skv=2020-02-10&sig=yxdqUd2Eo8uykrhNjllQ5dDvW8D%2F3oS4N%2FK8nX7fsn4%3D",
        headers: [], permissions: "r"),
    GoldenRequest(
        name: "user delegation SAS 2022-11-02", method: .GET,
        url:
            "https://goldenaccount.blob.core.windows.net/music/a?sv=2022-11-02&sr=b&sp=r&se=2026-11-23T00%3A00%3A00Z&skoid=11111111-1111-4111-8111-111111111111&sktid=22222222-2222-4222-8222-222222222222&skt=2026-11-21T00%3A00%3A00Z&ske=2026-11-24T00%3A00%3A00Z&sks=b&skv=2022-11-02&sig=Wj5e6%2FOT5ijEisssUNBltE0IrDr1V0Kcg%2BvvXdBUddA%3D",
        headers: [], permissions: "r"),
    GoldenRequest(
        name: "user delegation SAS 2025-07-05", method: .GET,
        url:
            "https://goldenaccount.blob.core.windows.net/music/a?sv=2025-07-05&sr=b&sp=r&se=2026-11-23T00%3A00%3A00Z&skoid=11111111-1111-4111-8111-111111111111&sktid=22222222-2222-4222-8222-222222222222&skt=2026-11-21T00%3A00%3A00Z&ske=2026-11-24T00%3A00%3A00Z&sks=b&skv=2025-07-05&sig=QYVA7Aeugs8rlAxTMa%2BxRPE4eEkfDttECd9444%2BWt78%3D",
        headers: [], permissions: "r"),
]
