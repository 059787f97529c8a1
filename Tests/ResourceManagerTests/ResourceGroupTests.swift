import AccessControl
import CofferCore
import Foundation
import IdentityService
import NIOHTTP1
import ResourceManager
import Testing

@Suite struct ResourceGroupTests {
    @Test func createShowExistsListDelete() async throws {
        let plane = try await ControlPlane()
        let created = await plane.send(.PUT, plane.group("rg"), ["location": "East US", "tags": ["a": "b"]])
        #expect(created.status == 201)
        #expect(created.body["location"] == "eastus")
        #expect(created.body["properties"]?["provisioningState"] == "Succeeded")
        #expect(created.body["id"]?.stringValue == plane.group("rg"))
        #expect(await plane.send(.PUT, plane.group("RG"), ["location": "eastus"]).status == 200)
        #expect(await plane.send(.GET, plane.group("rg").lowercased()).body["name"] == "rg")
        #expect(await plane.send(.HEAD, plane.group("rg")).status == 204)
        #expect(await plane.send(.HEAD, plane.group("nope")).status == 404)
        let missing = await plane.send(.GET, plane.group("nope"))
        #expect(missing.status == 404 && missing.code == "ResourceGroupNotFound")
        #expect(await plane.send(.GET, "\(plane.root)/resourcegroups").values.count == 1)
        let patched = await plane.send(.PATCH, plane.group("rg"), ["tags": ["c": "d"]])
        #expect(patched.body["tags"] == ["c": "d"])
        let filter = "?$filter=tagName eq 'c' and tagValue eq 'd'"
        #expect(await plane.send(.GET, "\(plane.root)/resourcegroups\(filter)").values.count == 1)
        #expect(await plane.send(.GET, "\(plane.root)/resourcegroups?$filter=tagName eq 'a'").values.isEmpty)
        #expect(await plane.send(.DELETE, plane.group("rg")).status == 200)
        #expect(await plane.send(.HEAD, plane.group("rg")).status == 404)
        #expect(await plane.send(.DELETE, plane.group("rg")).code == "ResourceGroupNotFound")
    }

    @Test func refusesWhatAzureRefuses() async throws {
        let plane = try await ControlPlane()
        #expect(await plane.send(.PUT, plane.group("rg"), [:]).code == "LocationRequired")
        #expect(
            await plane.send(.PUT, plane.group("rg"), ["location": "atlantis"]).code
                == "LocationNotAvailableForResourceGroup")
        #expect(await plane.send(.PUT, plane.group("rg."), ["location": "eastus"]).code == "InvalidResourceGroupName")
        #expect(await plane.send(.PUT, plane.group("a*b"), ["location": "eastus"]).code == "InvalidResourceGroupName")
        #expect(
            await plane.send(.PUT, plane.group(String(repeating: "a", count: 91)), ["location": "eastus"]).code
                == "InvalidResourceGroupName")
        #expect(
            await plane.send(.PUT, plane.group("rg"), ["location": "eastus", "tags": ["a/b": "c"]]).code
                == "InvalidTagName")
        #expect(await plane.send(.PUT, plane.group("rg"), raw: "{").code == "InvalidRequestContent")
        #expect(await plane.send(.PUT, plane.group("rg"), raw: "7").code == "InvalidRequestContent")
        #expect(await plane.send(.PUT, plane.group("rg")).code == "InvalidRequestContent")
        #expect(
            await plane.send(.PUT, plane.group("rg"), ["location": "eastus"], headers: ["Content-Type": "text/plain"])
                .status == 415)
        #expect(
            await plane.send(.PUT, plane.group("rg"), raw: "\"" + String(repeating: "a", count: 5 << 20) + "\"").status
                == 413)
        #expect(await plane.makeGroup().status == 201)
        let moved = await plane.send(.PUT, plane.group("rg"), ["location": "westus"])
        #expect(moved.status == 409 && moved.code == "InvalidResourceGroupLocation")
        #expect(await plane.send(.PUT, plane.widget("w", in: "nope"), [:]).code == "ResourceGroupNotFound")
    }

    @Test func deletionCascadesInTheOrderThatWorks() async throws {
        let plane = try await ControlPlane()
        _ = await plane.makeGroup()
        _ = await plane.makeGroup("other")
        for name in ["plan", "site", "store"] { #expect(await plane.send(.PUT, plane.widget(name), [:]).status == 200) }
        #expect(await plane.send(.PUT, plane.widget("kept", in: "other"), [:]).status == 200)
        plane.widgets.hold("plan", whileExists: "site")
        plane.widgets.hold("site", whileExists: "store")
        let stranger = try await plane.principal("p")
        #expect(await plane.assign(Role.reader, to: stranger.id, at: plane.widget("site")).status == 201)
        #expect(await plane.send(.DELETE, plane.group("rg")).status == 200)
        #expect(plane.widgets.names == ["kept"])
        _ = await plane.makeGroup()
        let action = Action.control("Contoso.Widgets/widgets/read")
        #expect(!plane.controller.decide(stranger.caller, action, at: ResourceID(plane.widget("site"))).isAllowed)
    }

    @Test func aRefusedResourceKeepsTheGroup() async throws {
        let plane = try await ControlPlane()
        _ = await plane.makeGroup()
        _ = await plane.send(.PUT, plane.widget("stuck"), [:])
        plane.widgets.forbidDeletion("stuck")
        let refused = await plane.send(.DELETE, plane.group("rg"))
        #expect(refused.status == 409 && refused.code == "InUse")
        #expect(await plane.send(.GET, plane.group("rg")).body["properties"]?["provisioningState"] == "Succeeded")
        #expect(await plane.send(.PUT, plane.widget("more"), [:]).status == 200)
    }

    @Test func whatCannotBeReadKeepsEveryGroupWhole() async throws {
        let plane = try await ControlPlane()
        _ = await plane.makeGroup()
        _ = await plane.send(.PUT, plane.widget("whole"), [:])
        plane.widgets.damage(true)
        #expect(await plane.send(.DELETE, plane.group("rg")).status == 500)
        #expect(plane.widgets.names == ["whole"])
        plane.widgets.damage(false)
        #expect(await plane.send(.DELETE, plane.group("rg")).status == 200)
    }

    @Test func groupsOutliveARestart() async throws {
        let plane = try await ControlPlane()
        _ = await plane.makeGroup()
        let reader = try await plane.principal("reader")
        #expect(await plane.assign(Role.reader, to: reader.id, at: plane.group("rg")).status == 201)
        let again = try await plane.restarted()
        #expect(await plane.send(.GET, plane.group("rg"), token: reader.token, to: again.manager).status == 200)
        #expect(await plane.send(.DELETE, plane.group("rg"), token: reader.token, to: again.manager).status == 403)
    }

    @Test func aRemovedOwnerStaysRemovedAfterRestart() async throws {
        let plane = try await ControlPlane()
        let path = "\(plane.root)/providers/Microsoft.Authorization/roleAssignments/\(plane.administrator.objectID)"
        #expect(await plane.send(.DELETE, path).status == 200)
        #expect(await plane.makeGroup().status == 403)
        let again = try await plane.restarted()
        #expect(await plane.send(.GET, plane.root, to: again.manager).status == 403)
        try await again.manager.restoreAdministrator(plane.administrator.objectID)
        #expect(await plane.send(.GET, plane.root, to: again.manager).status == 200)
    }

    /// Group names are told to nobody who has no role there: present, absent and half deleted answer alike.
    @Test func aStrangerCannotTellWhichGroupsExist() async throws {
        let plane = try await ControlPlane()
        _ = await plane.makeGroup()
        let stranger = try await plane.principal("stranger")
        for (method, below) in [
            (HTTPMethod.GET, ""), (.GET, "/resources"), (.GET, "/providers/Contoso.Widgets/widgets/w"),
            (.PUT, "/providers/Contoso.Widgets/widgets/w"), (.DELETE, "/providers/Contoso.Widgets/widgets/w"),
            (.PUT, "/providers/Microsoft.Resources/tags/default"),
        ] {
            let body: JSONValue? = method == .PUT ? [:] : nil
            let present = await plane.send(method, plane.group("rg") + below, body, token: stranger.token)
            let absent = await plane.send(method, plane.group("zz") + below, body, token: stranger.token)
            #expect(present.status == 403 && absent.status == 403, "\(method) \(below)")
            let message = present.body["error"]?["message"]?.stringValue ?? ""
            #expect(
                message.replacing("resourceGroups/rg", with: "resourceGroups/zz")
                    == absent.body["error"]?["message"]?.stringValue, "\(method) \(below)")
        }
    }
}
