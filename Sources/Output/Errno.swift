import Glibc

/// Groups of errno values by what a writer does about them.
enum Errno {
    static let interrupted = EINTR
    static let wouldBlock = EAGAIN
    static let nothingTaken = EIO
    /// write(2): no space, a quota, a file size limit, a device error, short of memory.
    static let mayPass: Set<Int32> = [ENOSPC, EDQUOT, EFBIG, EIO, ENOMEM, ENOBUFS]
}

/// What an errno means, in the C library's words.
public func errorText(_ code: Int32) -> String { strerror(code).map { String(cString: $0) } ?? "error \(code)" }
