import ArgumentParser

@main
struct Coffer: AsyncParsableCommand {
    func run() async throws {}
}
