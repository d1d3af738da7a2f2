import Foundation
import Yams

/// The keys of a `refold.yaml` with their lines. swift-configuration reads values by key and cannot list keys, so
/// that a misspelt one would pass in silence: this finds it.
struct SettingsFile {
    let path: String
    /// Dotted key → line, in the order of the file.
    private(set) var keys: [(key: String, line: Int)] = []
    /// Names under `brokers:`, in the order of the file.
    private(set) var brokers: [String] = []

    init(path: String) throws(SettingsError) {
        self.path = path
        let text: String
        do {
            text = try String(contentsOfFile: path, encoding: .utf8)
        } catch {
            throw SettingsError(["\(path): cannot be read as UTF-8 text: \(error.localizedDescription)"])
        }
        let root: Node?
        do {
            root = try Yams.compose(yaml: text)
        } catch {
            throw SettingsError(["\(path): not valid YAML: \(error)"])
        }
        guard let root, root.null == nil else { return }
        guard let mapping = root.mapping else {
            throw SettingsError(["\(path): the file must be a mapping of keys to values"])
        }
        var problems: [String] = []
        walk(mapping, prefix: "", problems: &problems)
        if brokers.count > Self.brokersMax {
            problems.append("\(path): \(brokers.count) brokers: at most \(Self.brokersMax) are allowed")
        }
        if !problems.isEmpty { throw SettingsError(problems) }
    }

    /// What the sender of commands keeps in one word of bits.
    static let brokersMax = 64

    private mutating func walk(_ mapping: Node.Mapping, prefix: String, problems: inout [String]) {
        for (keyNode, value) in mapping {
            let line = keyNode.mark?.line ?? 0
            guard let name = keyNode.string else {
                problems.append("\(path):\(line): a key must be a word")
                continue
            }
            let key = prefix.isEmpty ? name : "\(prefix).\(name)"
            if prefix == "brokers" {
                if name.isEmpty || !name.utf8.allSatisfy({ $0.isLetterOrDigit || $0 == 0x5F || $0 == 0x2D })
                    || name.utf8.count > 64
                {
                    problems.append("\(path):\(line): broker name '\(name)': 1 to 64 of A-Z a-z 0-9 _ -")
                }
                brokers.append(name)
            }
            if let inner = value.mapping {
                walk(inner, prefix: key, problems: &problems)
            } else {
                keys.append((key, line))
            }
        }
    }
}

extension UInt8 {
    var isLetterOrDigit: Bool {
        (0x30...0x39).contains(self) || (0x41...0x5A).contains(self) || (0x61...0x7A).contains(self)
    }
}
