// Output: what the process writes for people: log lines and the output of verbs.
//
// A logging call must never block or end the process: the reader of standard error may be slow, stopped or gone, and
// the disk behind it may be full. `LineQueue` is the bounded queue between both sides, a value without threads or
// clocks, so that tests can drive it through any order of failures. `LogOutput` adds the thread that writes.
// `terminalSafe` makes text from outside harmless for a terminal.

/// Bounded queue of whole log lines, with the state of the line that is being written.
///
/// Invariants: it never holds more than its limits plus one notice; lines leave it in the order in which they came;
/// every line offered is written, waiting or counted as dropped; a notice reports each dropped line once.
public struct LineQueue: Sendable {
    public struct Limits: Sendable {
        public var lines: Int
        public var bytes: Int
        public init(lines: Int = 2000, bytes: Int = 512 << 10) {
            self.lines = lines
            self.bytes = bytes
        }
    }

    /// What the writer does next.
    public enum Step: Sendable, Equatable {
        /// Write the next bytes at once.
        case goOn
        /// The output takes nothing at the moment: wait until it does (poll(2)), then write the same bytes.
        case waitForOutput
        /// The output failed and may recover (a full disk): write the same bytes after a pause.
        case pause
    }

    public struct Statistics: Sendable, Equatable {
        /// Lines written completely.
        public var written: UInt64 = 0
        /// Lines that were not written and never will be.
        public var dropped: UInt64 = 0
        /// Lines in the queue.
        public var waiting = 0
        /// errno of the last write; nil when it succeeded.
        public var lastErrorCode: Int32?
    }

    private struct Line {
        let bytes: [UInt8]
        /// Not 0: a notice that reports this number of dropped lines.
        let reports: UInt64
    }

    public let limits: Limits
    /// The line that reports a number of dropped lines.
    public var makeNotice: @Sendable (UInt64) -> [UInt8]
    private var lines: [Line] = []
    private var head = 0
    private var bytes = 0
    /// Bytes of the first line that are written.
    private var offset = 0
    /// Dropped lines that no notice reports yet.
    private var unreported: UInt64 = 0
    private var notices = 0
    /// Part of a line was written and the rest dropped: the next line begins behind a newline.
    private var owesNewline = false
    public private(set) var statistics = Statistics()

    public init(_ limits: Limits = Limits(), makeNotice: @escaping @Sendable (UInt64) -> [UInt8]) {
        self.limits = limits
        self.makeNotice = makeNotice
    }

    public var isEmpty: Bool { head == lines.count }
    public var byteCount: Int { bytes }

    /// Adds a line, or drops it when the queue is full. Never waits.
    public mutating func add(_ line: [UInt8]) {
        let isFull = statistics.waiting >= limits.lines || bytes + line.count > limits.bytes
        // After a failed write the line at the head shows whether the output works again: nothing overtakes it.
        guard !isFull else { return drop(1) }
        addNotice()
        append(Line(bytes: line, reports: 0))
        statistics.waiting += 1
    }

    /// The bytes to write next; nil when there are none.
    public mutating func next() -> ArraySlice<UInt8>? {
        if isEmpty, statistics.lastErrorCode == nil { addNotice() }
        guard !isEmpty else { return nil }
        return owesNewline && offset == 0 ? [0x0A] : lines[head].bytes[offset...]
    }

    /// The output took `count` bytes of those that `next` returned.
    public mutating func wrote(_ count: Int) {
        guard !isEmpty, count > 0 || lines[head].bytes.isEmpty else { return }
        statistics.lastErrorCode = nil
        if owesNewline, offset == 0 {
            owesNewline = false
            return
        }
        offset += count
        guard offset >= lines[head].bytes.count else { return }
        if lines[head].reports == 0 {
            statistics.written += 1
            statistics.waiting -= 1
        }
        removeHead()
    }

    /// A write failed with `code`, an errno.
    public mutating func failed(_ code: Int32) -> Step {
        switch code {
        case Errno.interrupted: return .goOn
        case Errno.wouldBlock: return .waitForOutput
        case _ where Errno.mayPass.contains(code):
            statistics.lastErrorCode = code
            return .pause
        default:
            // No reader, no such descriptor, a dead terminal: this line cannot be written any more.
            statistics.lastErrorCode = code
            guard !isEmpty else { return .goOn }
            if offset > 0 { owesNewline = true }
            // What lacks only its newline is complete with the newline owed.
            let isWhole = offset > 0 && offset == lines[head].bytes.count - 1
            if lines[head].reports == 0 {
                statistics.waiting -= 1
                if isWhole { statistics.written += 1 } else { drop(1) }
            } else if !isWhole {
                unreported += lines[head].reports
            }
            removeHead()
            return .goOn
        }
    }

    private mutating func drop(_ count: UInt64) {
        statistics.dropped &+= count
        unreported &+= count
    }

    private mutating func addNotice() {
        guard unreported > 0, notices == 0 else { return }
        append(Line(bytes: makeNotice(unreported), reports: unreported))
        unreported = 0
    }

    private mutating func append(_ line: Line) {
        lines.append(line)
        bytes += line.bytes.count
        if line.reports > 0 { notices += 1 }
    }

    private mutating func removeHead() {
        bytes -= lines[head].bytes.count
        if lines[head].reports > 0 { notices -= 1 }
        offset = 0
        head += 1
        if isEmpty {
            lines.removeAll(keepingCapacity: true)
            head = 0
        } else if head >= 1024 {
            lines.removeFirst(head)
            head = 0
        }
    }
}
