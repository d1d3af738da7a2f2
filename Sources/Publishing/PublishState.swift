import EventModel
import Evidence
import Foundation
import Primitives

/// How far a publication got, in a file, so that the same order given again goes on there. What the broker had
/// acknowledged when it was last written is not published again; what came after (at most a second's worth) is.
struct PublishState: Codable, Equatable {
    /// What makes an order the same order. Nil: not said, so that later events count as more of it.
    struct Order: Codable, Equatable {
        var log: String
        var to: String
        var prefix: String
        var from: UInt64
        /// Behind the last position.
        var end: UInt64?
        var tenant: String?
        var device: String?
        var topic: String?
        var verdict: String
    }

    var order: Order
    /// The position to go on at.
    var next: UInt64
    /// Messages that were published, over all runs.
    var published: UInt64
    /// The end that the last run was to reach, and whether it did.
    var end: UInt64
    var isFinished: Bool
    var updatedAt: String
}

/// The state's file, held by one publication at a time.
final class PublishStateFile {
    let path: String
    private let lock: Int32
    private(set) var state: PublishState?

    /// The file's name when none is given: the same for the same order.
    static func name(of order: PublishState.Order) -> String {
        let digest = SHA256.digest(encode(order)).bytes.prefix(8)
        return "publish-" + Hex.encode(digest) + ".json"
    }

    /// - Throws: `.usage` when it cannot be written, holds another order, or another publication has it.
    init(path: String, order: PublishState.Order) throws(PublicationError) {
        self.path = path
        let folder = (path as NSString).deletingLastPathComponent
        do {
            if !folder.isEmpty {
                try FileManager.default.createDirectory(atPath: folder, withIntermediateDirectories: true)
            }
        } catch {
            throw PublicationError(
                .usage,
                "cannot make \(folder), where it is remembered how far it got "
                    + "(\(error.localizedDescription)): name another file with --state")
        }
        lock = open(path + ".lock", O_RDWR | O_CREAT | O_CLOEXEC, 0o600)
        guard lock >= 0 else {
            throw PublicationError(
                .usage,
                "cannot write \(path).lock (\(String(cString: strerror(errno)))): name another "
                    + "file with --state")
        }
        guard flock(lock, LOCK_EX | LOCK_NB) == 0 else {
            close(lock)
            throw PublicationError(.usage, "this is being published already (\(path).lock is held)")
        }
        guard let bytes = FileManager.default.contents(atPath: path) else { return }
        let decoder = JSONDecoder()
        decoder.keyDecodingStrategy = .convertFromSnakeCase
        guard let found = try? decoder.decode(PublishState.self, from: bytes) else {
            close(lock)
            throw PublicationError(
                .usage,
                "\(path) does not say how far a publication got: remove it, or name another "
                    + "file with --state")
        }
        guard found.order == order else {
            close(lock)
            throw PublicationError(.usage, "\(path) is of another order: name another file with --state")
        }
        state = found
    }

    deinit { close(lock) }

    /// Whole and durable, or as it was.
    func save(_ state: PublishState) throws(PublicationError) {
        self.state = state
        let bytes = Self.encode(state) + [0x0A]
        let file = open(path + ".tmp", O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0o600)
        var isDone = file >= 0
        if isDone {
            isDone = write(file, bytes, bytes.count) == bytes.count && fsync(file) == 0
            isDone = close(file) == 0 && isDone
        }
        guard isDone, rename(path + ".tmp", path) == 0 else {
            throw PublicationError(
                .usage,
                "cannot write \(path) (\(String(cString: strerror(errno)))): how far it got "
                    + "would be forgotten")
        }
    }

    private static func encode(_ value: some Encodable) -> [UInt8] {
        let encoder = JSONEncoder()
        encoder.outputFormatting = [.sortedKeys, .withoutEscapingSlashes]
        encoder.keyEncodingStrategy = .convertToSnakeCase
        guard let data = try? encoder.encode(value) else { preconditionFailure("texts and numbers are JSON") }
        return Array(data)
    }
}
