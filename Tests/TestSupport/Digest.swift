import Primitives

/// SHA-256 in hexadecimal digits.
public func sha256(_ bytes: [UInt8]) -> String { SHA256.digest(bytes).description }
