import HTTPTypes
import Hummingbird
import NIOCore
import WebPages

// The pages for people. They hold no data: what they show they ask the API for, as whoever is looking.

extension ControlAPI {
    /// Addresses that people see, as `core/app.js` knows them too.
    static let pagePaths = [
        "/", "/login", "/campaigns", "/campaigns/new", "/tenants/{tenant}/campaigns/{id}", "/devices",
        "/tenants/{tenant}/devices/{device}", "/certificates", "/tenants/{tenant}/certificates/{authority}/{serial}",
        "/revocation",
    ]

    var pageRoutes: [Route] {
        Self.pagePaths.map { path in
            .get(path, .open) { request, _ in .file(WebPages.page, request) }
        } + [
            .get("/assets/{folder}/{file}", .open) { request, context in
                let path = [context.parameters.get("folder"), context.parameters.get("file")].compactMap { $0 }
                guard let file = WebPages.files[path.joined(separator: "/")] else {
                    throw Problem(.notFound, "not_found", "the pages have no such file")
                }
                return .file(file, request)
            }
        ]
    }
}

extension Response {
    /// A file of the pages. Browsers keep it and ask whether it is still the same: after an update nobody sees old
    /// modules beside new ones.
    static func file(_ file: WebFile, _ request: Request) -> Response {
        var headers: HTTPFields = [
            .contentType: file.contentType, .contentSecurityPolicy: WebPages.contentSecurityPolicy,
        ]
        headers[.referrerPolicy] = "no-referrer"
        return kept(headers, tag: file.entityTag, request) { ByteBuffer(string: file.text) }
    }
}

extension HTTPField.Name {
    static let referrerPolicy = HTTPField.Name("Referrer-Policy")!
}
