internal import Synchronization

/// Guesses whether a name that memory knows nothing of is a new one, from what the last such names turned out to be.
///
/// Looking for a row that is not there costs a reader four pages while others commit, and the commit looks again. A
/// wrong guess costs a commit that conflicts, so one name that was not new ends the guessing for a while.
final class NewNames: Sendable {
    /// Larger bodies are not taken on a guess: the look costs little beside them, and a refusal would waste them.
    static let bodyBytes = 16 << 10
    /// New names in a row after which the next is presumed to be one.
    private static let enough = 4
    private let inARow = Atomic<Int>(0)

    // Relaxed: a guess may be made on an old count.
    var areLikely: Bool { inARow.load(ordering: .relaxed) >= Self.enough }

    func learn(wasNew: Bool) {
        if !wasNew {
            inARow.store(0, ordering: .relaxed)
        } else if !areLikely {
            inARow.add(1, ordering: .relaxed)
        }
    }
}
