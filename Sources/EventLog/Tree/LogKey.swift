import EventModel
import Evidence

/// The key that signs the log's checkpoints, beside the log in the data folder: `log.key` (PKCS #8 PEM, mode 0600) and
/// `log.pub` (the vkey, to be handed to auditors). Made once, at the first start, and never replaced in silence:
/// whoever holds checkpoints has the old public key.
public enum LogKey {
    public static let name = "log.key"
    public static let publicName = "log.pub"

    /// Reads the key, or makes it when neither a public key nor a checkpoint says that there was one.
    public static func open(
        dataFolder: String, logID: LogID, fileSystem: any LogFileSystem = PosixFileSystem()
    ) throws(LogError) -> SigningKey {
        let path = dataFolder + "/" + name, publicPath = dataFolder + "/" + publicName
        let origin = Checkpoint.origin(logID: logID.description)
        let known = try CheckpointFile.contents(publicPath, fileSystem, bytesMax: 4096)
        do {
            if let pem = try CheckpointFile.contents(path, fileSystem, bytesMax: 16 << 10) {
                let key = try SigningKey(pem: pem, name: origin)
                let text = Array("\(key.verifier)\n".utf8)
                if known == nil { try write(text, to: publicPath, in: dataFolder, fileSystem) }
                guard known == nil || known == text else {
                    throw LogError(
                        .foreign,
                        "\(publicPath) is not the public half of \(path), or of another log: "
                            + "nothing is signed until they fit; restore both from one backup")
                }
                return key
            }
            let wasSigned = try fileSystem.status(dataFolder + "/log/" + CheckpointFile.name) != nil
            guard known == nil, !wasSigned else {
                throw LogError(
                    .system,
                    "\(path) is missing, and checkpoints were signed with it: restore it. To go on "
                        + "with a new key, which every auditor must be told of, move \(publicName) and "
                        + "log/\(CheckpointFile.name) out of \(dataFolder)")
            }
            let key = try SigningKey.generate(name: origin)
            try write(try key.pem(), to: path, in: dataFolder, fileSystem)
            try write(Array("\(key.verifier)\n".utf8), to: publicPath, in: dataFolder, fileSystem)
            return key
        } catch {
            if let error = error as? LogError { throw error }
            throw LogError(.system, "the log's key \(path): \(error)")
        }
    }

    /// The public key of the log in a data folder; nil when there is none.
    public static func publicKey(
        dataFolder: String, fileSystem: any LogFileSystem = PosixFileSystem()
    ) throws(LogError) -> VerifierKey? {
        let path = dataFolder + "/" + publicName
        guard let bytes = try CheckpointFile.contents(path, fileSystem, bytesMax: 4096) else { return nil }
        do {
            return try VerifierKey(String(decoding: bytes.prefix { $0 != 0x0A }, as: UTF8.self))
        } catch {
            throw LogError(.foreign, "\(path): \(error)")
        }
    }

    /// Whole and durable, or not there. New files have mode 0600.
    private static func write(
        _ bytes: [UInt8], to path: String, in folder: String, _ fileSystem: any LogFileSystem
    ) throws {
        let file = try fileSystem.open(path + ".tmp", create: true, writable: true)
        try bytes.withUnsafeBytes { try file.write($0, at: 0) }
        try file.synchronize()
        try fileSystem.rename(path + ".tmp", to: path)
        try fileSystem.synchronizeDirectory(folder)
    }
}
