import Foundation
import Testing
@testable import PrivateServices

struct ShellCommandTests {
    @Test func placeholders() {
        let command = ShellCommand("cp %p /archive/%f && echo 100%%", timeoutSeconds: 5)
        #expect(command.expanded(path: "/a/b", file: "b") == "cp /a/b /archive/b && echo 100%")
        #expect(ShellCommand.problem(with: "cp %p %f %%") == nil)
        #expect(ShellCommand.problem(with: "cp %x")?.contains("%x") == true)
        #expect(ShellCommand.problem(with: "cp %") != nil)
        #expect(ShellCommand.problem(with: "cp %%%") != nil)
    }

    @Test func howItEndsIsSaid() throws {
        try ShellCommand("test %f = name", timeoutSeconds: 5).run(path: "/x", file: "name")
        func failure(_ template: String, seconds: Int = 5) -> String {
            do {
                try ShellCommand(template, timeoutSeconds: seconds).run(path: "p", file: "f")
                return "done"
            } catch {
                return error.description
            }
        }
        #expect(failure("echo no room >&2; exit 3") == "exit code 3: no room")
        #expect(failure("kill -9 $$") == "signal 9")
        #expect(failure("yes | head -c 300000; exit 1").count < 1100)
        let began = ContinuousClock.now
        #expect(failure("sleep 60 & sleep 60", seconds: 1) == "it was killed after 1 s")
        #expect(ContinuousClock.now - began < .seconds(5))
    }

    @Test func aStopEndsIt() {
        let began = ContinuousClock.now
        #expect(throws: ShellCommand.Failure.self) {
            try ShellCommand("sleep 60", timeoutSeconds: 60).run(path: "", file: "") { true }
        }
        #expect(ContinuousClock.now - began < .seconds(5))
    }
}
