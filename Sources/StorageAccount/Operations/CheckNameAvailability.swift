internal import CofferCore
internal import ResourceProviders

extension StorageAccountService {
    /// Storage Accounts – Check Name Availability.
    func checkNameAvailability(_ request: ControlRequest, as caller: Caller) async throws(ControlError)
        -> ControlResponse
    {
        guard let subscription = request.path.subscription else { throw methodNotAllowed(request) }
        try require(
            caller, .control("Microsoft.Storage/checknameavailability/read"),
            at: ResourceID(segments: ["subscriptions", subscription]))
        guard let name = request.body?.member("name")?.stringValue else { throw .badRequest("The body needs a name.") }
        guard AccountRules.isName(name) else {
            return .json(
                200,
                [
                    "nameAvailable": false, "reason": "AccountNameInvalid",
                    "message": .string("\(name) is not a valid storage account name. \(AccountRules.nameMessage)"),
                ])
        }
        let existing: LoadedAccount?
        do { existing = try await directory.account(named: name) } catch { throw ControlError(error) }
        guard existing != nil else { return .json(200, ["nameAvailable": true]) }
        return .json(
            200,
            [
                "nameAvailable": false, "reason": "AlreadyExists",
                "message": .string("The storage account named \(name) is already taken."),
            ])
    }
}
