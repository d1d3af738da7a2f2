extension SystemStatus {
    /// How the last comparison of the live tables with the log ended.
    public struct SelfCheck: Codable, Sendable, Equatable {
        /// When it ended; nil when none has yet.
        public var at: String?
        /// Nil when none has ended yet.
        public var agrees: Bool?
        /// Rows that differed.
        public var differences: Int
        public var seconds: Double
        /// Why one could not be done, or not of all projections.
        public var lastError: String?

        public init(at: String?, agrees: Bool?, differences: Int, seconds: Double, lastError: String?) {
            self.at = at
            self.agrees = agrees
            self.differences = differences
            self.seconds = seconds
            self.lastError = lastError
        }

        enum CodingKeys: String, CodingKey { case at, agrees, differences, seconds, lastError = "last_error" }

        public func encode(to encoder: any Encoder) throws {
            var container = encoder.container(keyedBy: CodingKeys.self)
            try container.encode(at, forKey: .at)
            try container.encode(agrees, forKey: .agrees)
            try container.encode(differences, forKey: .differences)
            try container.encode(seconds, forKey: .seconds)
            try container.encode(lastError, forKey: .lastError)
        }
    }
}
