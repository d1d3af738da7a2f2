import Enforcement
import Foundation
import TestSupport
import Testing

struct ReloadCommandTests {
    @Test func theCommandGetsPathAndBroker() throws {
        let folder = try makeTemporaryFolder("reload")
        let command = ReloadCommand("echo %p %f $CRL_PATH \"$BROKER_NAME\" > \(folder)/out")
        try command.run(crlPath: folder + "/a-b.crl", broker: "north; id")
        let text = try String(contentsOfFile: folder + "/out", encoding: .utf8)
        #expect(text == "\(folder)/a-b.crl a-b.crl \(folder)/a-b.crl north; id\n")
    }

    /// 300 times what a pipe holds.
    @Test func aCommandThatPrintsALotIsNotHeldUp() throws {
        try ReloadCommand("head -c 20000000 /dev/zero", timeoutSeconds: 8).run(crlPath: "/c.crl", broker: "north")
    }

    struct Failure: Sendable {
        let command: String
        var seconds = 5
        let exitCode: Int32?
        let output: String
        let text: String
    }

    @Test(arguments: [
        Failure(
            command: "echo no such process >&2; exit 3", exitCode: 3, output: "no such process", text: "exit code 3"),
        Failure(command: "kill -9 $$", exitCode: nil, output: "", text: "signal 9"),
        Failure(command: "echo begun; sleep 60", seconds: 1, exitCode: nil, output: "begun", text: "killed after 1 s"),
        Failure(
            command: "/nonexistent", exitCode: 127, output: "/bin/sh: 1: /nonexistent: not found", text: "not found"),
    ])
    func failures(_ failure: Failure) {
        let error = #expect(throws: ReloadError.self) {
            try ReloadCommand(failure.command, timeoutSeconds: failure.seconds).run(crlPath: "/c.crl", broker: "north")
        }
        #expect(error?.exitCode == failure.exitCode && error?.output == failure.output, "\(error?.output ?? "")")
        let text = error?.description ?? ""
        #expect(text.contains("broker \"north\"") && text.contains(failure.text) && text.contains("old CRL"), "\(text)")
    }

    @Test func whatIsNotRun() {
        #expect(ReloadCommand.problem(with: "kill %x") != nil && ReloadCommand.problem(with: "kill -HUP 1") == nil)
        let error = #expect(throws: ReloadError.self) {
            try ReloadCommand("true").run(crlPath: "/$(id).crl", broker: "north")
        }
        #expect(error?.exitCode == nil)
    }

    @Test func aStopEndsIt() {
        let began = ContinuousClock.now
        #expect(throws: ReloadError.self) {
            try ReloadCommand("sleep 60", timeoutSeconds: 60).run(crlPath: "/c.crl", broker: "north") { true }
        }
        #expect(ContinuousClock.now - began < .seconds(5))
    }
}
