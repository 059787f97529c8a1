import ArgumentParser

/// The flags every command takes. nil means "not on the command line": environment, file and defaults decide then.
struct SettingOptions: ParsableArguments {
    @Option(help: ArgumentHelp(Setting.dataFolder.explanation, valueName: "path"))
    var dataFolder: String?
    @Option(help: ArgumentHelp(Setting.rootKeyFile.explanation, valueName: "path"))
    var rootKeyFile: String?
    @Option(help: ArgumentHelp(Setting.rootKeyWrappingKey.explanation, valueName: "uri"))
    var rootKeyWrappingKey: String?
    @Option(help: ArgumentHelp(Setting.credentialsFile.explanation, valueName: "path"))
    var credentialsFile: String?
    @Option(help: ArgumentHelp(Setting.domain.explanation, valueName: "name"))
    var domain: String?
    @Option(help: ArgumentHelp(Setting.address.explanation, valueName: "ip"))
    var address: String?
    @Option(help: ArgumentHelp(Setting.httpsPort.explanation, valueName: "port"))
    var httpsPort: String?
    @Option(help: ArgumentHelp(Setting.httpPort.explanation, valueName: "port"))
    var httpPort: String?
    @Option(help: ArgumentHelp(Setting.gatewayPort.explanation, valueName: "port"))
    var gatewayPort: String?
    @Option(help: ArgumentHelp(Setting.advertisedPort.explanation, valueName: "port"))
    var advertisedPort: String?
    @Option(help: ArgumentHelp(Setting.workerNetwork.explanation, valueName: "kind"))
    var workerNetwork: String?
    @Option(help: ArgumentHelp(Setting.packageMegabytes.explanation, valueName: "number"))
    var packageMegabytes: String?
    @Option(help: ArgumentHelp(Setting.logLevel.explanation, valueName: "level"))
    var logLevel: String?
    @Option(help: ArgumentHelp(Setting.shutdownSeconds.explanation, valueName: "seconds"))
    var shutdownSeconds: String?
    @Option(help: ArgumentHelp("JSON file of settings, e.g. {\"httpsPort\": \"9443\"}.", valueName: "path"))
    var configFile: String?

    var given: [Setting: String] {
        let pairs: [(Setting, String?)] = [
            (.dataFolder, dataFolder), (.rootKeyFile, rootKeyFile), (.rootKeyWrappingKey, rootKeyWrappingKey),
            (.credentialsFile, credentialsFile), (.domain, domain),
            (.address, address), (.httpsPort, httpsPort), (.httpPort, httpPort), (.gatewayPort, gatewayPort),
            (.advertisedPort, advertisedPort), (.workerNetwork, workerNetwork),
            (.packageMegabytes, packageMegabytes), (.logLevel, logLevel),
            (.shutdownSeconds, shutdownSeconds),
        ]
        return Dictionary(uniqueKeysWithValues: pairs.compactMap { setting, value in value.map { (setting, $0) } })
    }
}
