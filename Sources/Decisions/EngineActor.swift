/// Actor of the decisions that the campaign engine makes.
public enum EngineActor {
    /// In the `actor` of the engine's own decisions.
    public static let name = "engine"
}
