/// Who decides when no person does.
public enum EngineActor {
    /// In the `actor` of the engine's own decisions.
    public static let name = "engine"
}
