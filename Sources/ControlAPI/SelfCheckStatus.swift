extension SystemStatus {
    /// How the last comparison of the live tables with the log ended.
    public struct SelfCheck: Codable, Sendable, Equatable {
        /// When it ended; nil when none has yet.
        @Nullable public var at: String?
        /// Nil when none has ended yet.
        @Nullable public var agrees: Bool?
        /// Rows that differed.
        public var differences: Int
        public var seconds: Double
        /// Why one could not be done, or not of all projections.
        @Nullable public var lastError: String?

        public init(at: String?, agrees: Bool?, differences: Int, seconds: Double, lastError: String?) {
            self.at = at
            self.agrees = agrees
            self.differences = differences
            self.seconds = seconds
            self.lastError = lastError
        }

        enum CodingKeys: String, CodingKey { case at, agrees, differences, seconds, lastError = "last_error" }
    }
}
