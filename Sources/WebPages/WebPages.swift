// WebPages: what the daemon's pages are made of, compiled into the program: plain HTML, CSS and ES modules in `Files`,
// written by hand, with nothing from anywhere else.
//
// Every page is the same `index.html`; its first module, `core/app.js`, shows what the address names and asks the API
// for it like any other program. `core` is what all pages stand on, `parts` what they are made of, `pages` one file a
// page. Invariants. Data enters a document as text and attributes only (`core/dom.js`); the policy below has browsers
// enforce it. Nothing is asked of another server.

/// One file as it is served.
public struct WebFile: Sendable, Equatable {
    /// `core/app.js`
    public let path: String
    public let contentType: String
    public let text: String
    /// A strong entity tag with its quotes (RFC 9110, 8.8.3): another text has another one.
    public let entityTag: String

    init(path: String, text: String) {
        self.path = path
        self.text = text
        contentType =
            switch path.split(separator: ".").last {
            case "html": "text/html; charset=utf-8"
            case "css": "text/css; charset=utf-8"
            case "js": "text/javascript; charset=utf-8"
            default: "image/svg+xml"
            }
        entityTag = "\"\(String(Self.hash(text), radix: 16))\""
    }

    /// FNV-1a, 64 bits: tells one build's file from another's, and is no protection.
    private static func hash(_ text: String) -> UInt64 {
        text.utf8.reduce(0xcbf2_9ce4_8422_2325) { ($0 ^ UInt64($1)) &* 0x100_0000_01b3 }
    }
}

public enum WebPages {
    /// By path.
    public static let files: [String: WebFile] = Dictionary(
        uniqueKeysWithValues: embeddedPages.map { ($0.path, WebFile(path: $0.path, text: $0.text)) })

    /// What is answered at the address of any page.
    public static var page: WebFile {
        guard let page = files["index.html"] else { preconditionFailure("index.html is not embedded") }
        return page
    }

    /// Scripts, styles and pictures from this server only, no markup out of strings, no frames (CSP 3, Trusted Types).
    public static let contentSecurityPolicy = [
        "default-src 'none'", "script-src 'self'", "style-src 'self'", "img-src 'self'", "connect-src 'self'",
        "form-action 'self'", "base-uri 'none'", "frame-ancestors 'none'", "require-trusted-types-for 'script'",
        "trusted-types 'none'",
    ].joined(separator: "; ")
}
