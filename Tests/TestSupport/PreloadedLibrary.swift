import Foundation

/// Compiles `{name}/{name}.c` beside this file into `folder`.
/// - Returns: the library, for LD_PRELOAD.
func preloadedLibrary(_ name: String, in folder: String) throws -> String {
    let source = URL(fileURLWithPath: #filePath).deletingLastPathComponent().appending(path: "\(name)/\(name).c").path
    let library = "\(folder)/\(name).so", log = "\(folder)/\(name).log"
    let compiler = try ChildProcess(
        ["/usr/bin/env", "cc", "-O2", "-shared", "-fPIC", "-o", library, source], log: log)
    compiler.wait()
    guard compiler.exitCode == 0 else {
        throw SystemError("cc \(source): \((try? String(contentsOfFile: log, encoding: .utf8)) ?? "")")
    }
    return library
}
