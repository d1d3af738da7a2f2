import EventModel
import Foundation
import Output
import Primitives
import Publishing

/// Events as lines on standard output: columns for people, JSON for programs. Lines gather in a buffer; `flush` when
/// nothing more comes for now.
struct LogPrinter {
    private let json: Bool
    /// Payloads as the bytes that they are, whatever they hold.
    private let base64: Bool
    private var buffer: [UInt8] = []
    private let isTerminal: Bool
    /// Where a terminal would wrap; nil when lines may be as long as they are.
    private let width: Int?
    private static let bufferBytes = 64 << 10

    init(json: Bool, base64: Bool = false) {
        self.json = json || base64
        self.base64 = base64
        var size = winsize()
        isTerminal = isatty(1) == 1
        let hasSize = isTerminal && ioctl(1, UInt(TIOCGWINSZ), &size) == 0 && size.ws_col > 0
        width = hasSize && !self.json ? max(60, Int(size.ws_col)) : nil
    }

    mutating func print(_ record: RecordView, _ position: Position) {
        if json {
            EventJSON.append(record, position, base64: base64, to: &buffer)
        } else {
            appendColumns(record, position)
        }
        buffer.append(0x0A)
        if buffer.count >= Self.bufferBytes { flush() }
    }

    mutating func flush() {
        // A program reads the bytes as they are; a terminal gets the same JSON with escapes.
        printBytes(isTerminal && json ? Array(terminalSafeJSON(String(decoding: buffer, as: UTF8.self)).utf8) : buffer)
        buffer.removeAll(keepingCapacity: true)
    }

    private mutating func put(_ text: String) { buffer.append(contentsOf: text.utf8) }

    // MARK: columns

    private mutating func appendColumns(_ record: RecordView, _ position: Position) {
        let what = record.verdict == .accepted || record.kind == .rejection ? record.kind.name : record.verdict.name
        var line = Self.pad(String(position.rawValue), 10, right: true)
        line += "  \(record.receivedAt)  " + Self.pad(what, 10)
        line += "  " + Self.pad(Self.safe(record.broker), 8) + "  " + Self.pad(Self.safe(record.topic), 40) + "  "
        if record.flags.contains(.retained) { line += "(retained) " }
        if CompactJSON.isUTF8(record.payload) {
            line += Self.safe(record.payload)
        } else {
            line += "(\(record.payload.count) bytes) " + Hex.encode(record.payload.prefix(32))
        }
        if record.flags.contains(.truncated) { line += " (cut; \(record.originalPayloadLength) bytes came)" }
        if let width, line.count > width { line = line.prefix(width - 1) + "…" }
        put(line)
    }

    private static func safe(_ bytes: UnsafeRawBufferPointer) -> String {
        terminalSafe(String(decoding: bytes, as: UTF8.self))
    }

    private static func pad(_ text: String, _ width: Int, right: Bool = false) -> String {
        let space = String(repeating: " ", count: max(0, width - text.count))
        return right ? space + text : text + space
    }
}
