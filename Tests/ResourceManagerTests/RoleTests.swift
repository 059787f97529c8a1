import AccessControl
import CofferCore
import Foundation
import IdentityService
import NIOHTTP1
import Testing

@Suite struct RoleAssignmentTests {
    @Test func anAssignmentIsInForceWhenItIsAnswered() async throws {
        let plane = try await ControlPlane()
        _ = await plane.makeGroup()
        _ = await plane.send(.PUT, plane.widget("w"), [:])
        let someone = try await plane.principal("someone")
        #expect(await plane.send(.GET, plane.widget("w"), token: someone.token).status == 403)
        let made = await plane.assign(Role.reader, to: someone.id, at: plane.widget("w"))
        #expect(made.status == 201)
        #expect(made.body["properties"]?["principalType"] == "ServicePrincipal")
        #expect(made.body["properties"]?["scope"]?.stringValue == plane.widget("w"))
        #expect(await plane.send(.GET, plane.widget("w"), token: someone.token).status == 200)
        #expect(await plane.send(.DELETE, plane.widget("w"), token: someone.token).code == "AuthorizationFailed")
        let id = try #require(made.body["id"]?.stringValue)
        #expect(await plane.send(.GET, id).status == 200)
        #expect(await plane.send(.DELETE, id).status == 200)
        #expect(await plane.send(.DELETE, id).status == 204)
        #expect(await plane.send(.GET, id).code == "RoleAssignmentNotFound")
        #expect(await plane.send(.GET, plane.widget("w"), token: someone.token).status == 403)
    }

    @Test func refusesWhatAzureRefuses() async throws {
        let plane = try await ControlPlane()
        _ = await plane.makeGroup()
        let someone = try await plane.principal("someone")
        let scope = plane.group("rg")
        let name = UUID().uuidString.lowercased()
        #expect(await plane.assign(Role.reader, to: someone.id, at: scope, name: name).status == 201)
        #expect(await plane.assign(Role.reader, to: someone.id, at: scope, name: name).status == 200)
        let twin = await plane.assign(
            Role.reader, to: someone.id, at: scope.uppercased().replacing("SUBSCRIPTIONS", with: "subscriptions"))
        #expect(twin.status == 409 && twin.code == "RoleAssignmentExists")
        #expect(
            await plane.assign(Role.owner, to: someone.id, at: scope, name: name).code
                == "RoleAssignmentUpdateNotPermitted")
        #expect(await plane.assign(Role.reader, to: UUID().uuidString, at: scope).code == "PrincipalNotFound")
        #expect(await plane.assign(Role.reader, to: "x", at: scope).code == "InvalidPrincipalId")
        #expect(await plane.assign(UUID().uuidString, to: someone.id, at: scope).code == "RoleDefinitionDoesNotExist")
        #expect(await plane.assign(Role.reader, to: someone.id, at: scope, name: "x").code == "InvalidRoleAssignmentId")
        #expect(
            await plane.assign(Role.reader, to: someone.id, at: plane.group("nope")).code == "ResourceGroupNotFound")
        #expect(await plane.assign(Role.reader, to: someone.id, at: plane.widget("nope")).code == "ResourceNotFound")
        let path = "\(scope)/providers/Microsoft.Authorization/roleAssignments/\(UUID().uuidString)"
        #expect(await plane.send(.PUT, path, ["properties": [:]]).code == "BadRequestFormat")
        var body: JSONValue = [
            "properties": [
                "roleDefinitionId": .string(Role.contributor), "principalId": .string(someone.id),
                "principalType": "User",
            ]
        ]
        #expect(await plane.send(.PUT, path, body).code == "UnmatchedPrincipalType")
        body["properties"]?["principalType"] = nil
        body["properties"]?["condition"] = "@Resource[x] StringEquals 'y'"
        #expect(await plane.send(.PUT, path, body).code == "ConditionNotSupported")
    }

    @Test func onlyWhoMayAssignAssigns() async throws {
        let plane = try await ControlPlane()
        _ = await plane.makeGroup()
        let scope = plane.group("rg")
        let target = try await plane.principal("target")
        for (role, expected) in [
            (Role.reader, 403), (Role.contributor, 403), (Role.userAccessAdministrator, 201), (Role.owner, 201),
        ] {
            let actor = try await plane.principal(role)
            await plane.assign(role, to: actor.id, at: scope)
            let made = await plane.assign(Role.reader, to: target.id, at: scope, token: actor.token)
            #expect(made.status == expected, "\(role)")
            #expect(
                await plane.assign(Role.owner, to: actor.id, at: plane.root, token: actor.token).status == 403,
                "\(role)")
            if made.status == 201 { #expect(await plane.send(.DELETE, made.body["id"]!.stringValue!).status == 200) }
        }
    }

    @Test func filtersFollowAzuresMeaning() async throws {
        let plane = try await ControlPlane()
        _ = await plane.makeGroup()
        _ = await plane.send(.PUT, plane.widget("w"), [:])
        let someone = try await plane.principal("someone")
        await plane.assign(Role.reader, to: someone.id, at: plane.widget("w"))
        await plane.assign(Role.contributor, to: someone.id, at: plane.group("rg"))
        func count(_ scope: String, _ filter: String) async -> Int {
            let path =
                "\(scope)/providers/Microsoft.Authorization/roleAssignments"
                + (filter.isEmpty ? "" : "?$filter=\(filter)")
            return await plane.send(.GET, path, version: "2022-04-01").values.count
        }
        // The administrator's own Owner assignment lies at the subscription.
        #expect(await count(plane.root, "") == 3)
        #expect(await count(plane.group("rg"), "") == 3)
        #expect(await count(plane.root, "atScope()") == 1)
        #expect(await count(plane.group("rg"), "atScope()") == 2)
        #expect(await count(plane.widget("w"), "atScope()") == 3)
        #expect(await count(plane.root, "principalId eq '\(someone.id)'") == 2)
        #expect(await count(plane.root, "assignedTo('\(someone.id.uppercased())')") == 2)
        #expect(await count(plane.group("rg"), "atScope() and assignedTo('\(someone.id)')") == 1)
        let unknown = await plane.send(
            .GET, "\(plane.root)/providers/Microsoft.Authorization/roleAssignments?$filter=anything()")
        #expect(unknown.code == "InvalidFilterInQueryString")
        let stranger = try await plane.principal("stranger")
        #expect(
            await plane.send(
                .GET, "\(plane.root)/providers/Microsoft.Authorization/roleAssignments", token: stranger.token
            ).status == 403)
    }

    @Test func deletingAResourceDropsItsAssignments() async throws {
        let plane = try await ControlPlane()
        _ = await plane.makeGroup()
        _ = await plane.send(.PUT, plane.widget("w"), [:])
        _ = await plane.send(.PUT, plane.widget("ww"), [:])
        let someone = try await plane.principal("someone")
        await plane.assign(Role.reader, to: someone.id, at: plane.widget("w"))
        await plane.assign(Role.reader, to: someone.id, at: plane.widget("ww"))
        #expect(await plane.send(.DELETE, plane.widget("w")).status == 200)
        _ = await plane.send(.PUT, plane.widget("w"), [:])
        #expect(await plane.send(.GET, plane.widget("w"), token: someone.token).status == 403)
        #expect(await plane.send(.GET, plane.widget("ww"), token: someone.token).status == 200)
    }

    @Test func concurrentTwinsMakeOneAssignment() async throws {
        let plane = try await ControlPlane()
        _ = await plane.makeGroup()
        let someone = try await plane.principal("someone")
        let statuses = await withTaskGroup(of: Int.self) { group in
            for _ in 0..<12 {
                group.addTask { await plane.assign(Role.reader, to: someone.id, at: plane.group("rg")).status }
            }
            return await group.reduce(into: [Int]()) { $0.append($1) }
        }
        #expect(statuses.count { $0 == 201 } == 1)
        #expect(statuses.count { $0 == 409 } == 11)
    }

    @Test func listsThatCannotHoldAnythingAreEmpty() async throws {
        let plane = try await ControlPlane()
        for type in ["locks", "policyAssignments", "denyAssignments"] {
            let answer = await plane.send(.GET, "\(plane.root)/providers/Microsoft.Authorization/\(type)")
            #expect(answer.status == 200 && answer.body["value"] == [])
        }
        #expect(await plane.send(.PUT, "\(plane.root)/providers/Microsoft.Authorization/locks/l", [:]).status == 501)
        let permissions = await plane.send(.GET, "\(plane.root)/providers/Microsoft.Authorization/permissions")
        #expect(permissions.values.first?["actions"] == ["*"])
    }
}

@Suite struct RoleDefinitionTests {
    @Test func builtInRolesAreFoundByName() async throws {
        let plane = try await ControlPlane()
        let path = "\(plane.root)/providers/Microsoft.Authorization/roleDefinitions"
        let all = await plane.send(.GET, path).values
        #expect(all.count == BuiltInRoles.all.count)
        let one = await plane.send(.GET, "\(path)?$filter=roleName eq 'Key Vault Crypto Service Encryption User'")
            .values
        #expect(one.count == 1)
        #expect(one.first?["name"] == "e147488a-f6f5-4113-8e2d-b22465e65bf6")
        #expect(one.first?["id"]?.stringValue == "\(path)/e147488a-f6f5-4113-8e2d-b22465e65bf6")
        #expect(await plane.send(.GET, "\(path)?$filter=type eq 'CustomRole'").values.isEmpty)
        #expect(await plane.send(.GET, "\(path)/\(Role.owner)").body["properties"]?["roleName"] == "Owner")
        #expect(await plane.send(.GET, "\(path)/\(UUID().uuidString)").code == "RoleDefinitionDoesNotExist")
    }

    @Test func customRoles() async throws {
        let plane = try await ControlPlane()
        _ = await plane.makeGroup()
        let path = "\(plane.root)/providers/Microsoft.Authorization/roleDefinitions"
        let id = UUID().uuidString.lowercased()
        var body: JSONValue = [
            "properties": [
                "roleName": "Widget Writer", "type": "CustomRole", "assignableScopes": [.string(plane.group("rg"))],
                "permissions": [["actions": ["Contoso.Widgets/*"], "notActions": ["Contoso.Widgets/widgets/delete"]]],
            ]
        ]
        #expect(await plane.send(.PUT, "\(path)/\(id)", body).status == 201)
        let writer = try await plane.principal("writer")
        #expect(
            await plane.assign(id, to: writer.id, at: plane.root).code
                == "RoleAssignmentScopeNotAssignableToRoleDefinition")
        #expect(await plane.assign(id, to: writer.id, at: plane.group("rg")).status == 201)
        #expect(await plane.send(.PUT, plane.widget("w"), [:], token: writer.token).status == 200)
        #expect(await plane.send(.DELETE, plane.widget("w"), token: writer.token).status == 403)
        #expect(await plane.send(.DELETE, "\(path)/\(id)").code == "RoleDefinitionHasAssignments")
        // A change of the role is in force at once.
        body["properties"]?["permissions"] = [["actions": ["Contoso.Widgets/widgets/read"]]]
        #expect(await plane.send(.PUT, "\(path)/\(id)", body).status == 201)
        #expect(await plane.send(.PUT, plane.widget("w"), [:], token: writer.token).status == 403)
        #expect(await plane.send(.PUT, "\(path)/\(UUID().uuidString)", body).code == "RoleDefinitionWithSameNameExists")
        #expect(await plane.send(.PUT, "\(path)/\(Role.reader)", body).status >= 400)
        #expect(await plane.send(.DELETE, "\(path)/\(Role.reader)").status == 400)
        #expect(await plane.send(.PUT, "\(path)/\(id)", body, token: writer.token).status == 403)
        body["properties"]?["assignableScopes"] = ["/"]
        #expect(await plane.send(.PUT, "\(path)/\(UUID().uuidString)", body).code == "InvalidAssignableScopes")
        let again = try await plane.restarted()
        let shown = await plane.send(.GET, "\(path)/\(id)", to: again.manager)
        #expect(shown.body["properties"]?["type"] == "CustomRole")
    }
}
