import Foundation

// Sockets on 127.0.0.1.

/// Binds to 127.0.0.1 and returns the port.
func bindLoopback(_ descriptor: Int32, port: Int) -> Int {
    withLoopbackAddress(port: port) { address, length in
        var length = length
        precondition(bind(descriptor, address, length) == 0, "bind: \(String(cString: strerror(errno)))")
        precondition(getsockname(descriptor, address, &length) == 0, "getsockname failed")
        return Int(UInt16(bigEndian: UnsafeRawPointer(address).load(fromByteOffset: 2, as: UInt16.self)))
    }
}

/// False where nobody listens, or where the connection of a socket that does not block is still being made.
@discardableResult
public func connectLoopback(_ descriptor: Int32, port: Int) -> Bool {
    withLoopbackAddress(port: port) { connect(descriptor, $0, $1) == 0 }
}

private func withLoopbackAddress<R>(port: Int, _ body: (UnsafeMutablePointer<sockaddr>, socklen_t) -> R) -> R {
    var address = sockaddr_in()
    address.sin_family = sa_family_t(AF_INET)
    address.sin_port = in_port_t(UInt16(port)).bigEndian
    address.sin_addr.s_addr = UInt32(0x7F00_0001).bigEndian
    return withUnsafeMutablePointer(to: &address) {
        $0.withMemoryRebound(to: sockaddr.self, capacity: 1) { body($0, socklen_t(MemoryLayout<sockaddr_in>.size)) }
    }
}
