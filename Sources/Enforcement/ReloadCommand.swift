import PrivateServices

/// `reload_command`: makes a broker read its CRL file again, such as `systemctl reload mosquitto`. `/bin/sh -c` runs it
/// with `%p` replaced by the path of the CRL file and `%f` by its name. Its environment has CRL_PATH and BROKER_NAME.
public struct ReloadCommand: Sendable {
    private let command: ShellCommand

    public init(_ template: String, timeoutSeconds: Int = 10) {
        command = ShellCommand(template, timeoutSeconds: timeoutSeconds)
    }

    /// What is wrong with a template; nil when nothing is.
    public static func problem(with template: String) -> String? { ShellCommand.problem(with: template) }

    /// Runs the command to its end. Blocks for as long as the timeout. Call it only after `CRLFile.write` succeeded.
    public func run(crlPath: String, broker: String, isStopped: () -> Bool = { false }) throws(ReloadError) {
        let name = String(crlPath[(crlPath.lastIndex(of: "/").map(crlPath.index(after:)) ?? crlPath.startIndex)...])
        do throws(ShellCommand.Failure) {
            try command.run(
                path: crlPath, file: name, environment: ["CRL_PATH": crlPath, "BROKER_NAME": broker],
                isStopped: isStopped)
        } catch {
            throw ReloadError(
                broker: broker, exitCode: error.exitCode, output: error.output, reason: error.description)
        }
    }
}

/// The broker may not have read the new CRL.
public struct ReloadError: Error, Sendable, CustomStringConvertible {
    public let broker: String
    /// Nil when the command was killed, or not run.
    public let exitCode: Int32?
    /// The last of what the command printed.
    public let output: String
    let reason: String

    public var description: String {
        "reload_command of broker \(broker.debugDescription) failed: \(reason); it may still have the old CRL in force"
    }
}
