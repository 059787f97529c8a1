import Foundation

/// Everything that can be set, in one table: the flag `--data-folder` is `COFFER_DATA_FOLDER` in the environment and
/// `dataFolder` in the file.
enum Setting: String, CaseIterable {
    case dataFolder, rootKeyFile, rootKeyWrappingKey, credentialsFile, domain, address, httpsPort, httpPort,
        gatewayPort, advertisedPort
    case workerNetwork, packageMegabytes, logLevel, shutdownSeconds

    var explanation: String {
        switch self {
        case .dataFolder: "Folder of all data. Everything in it is encrypted."
        case .rootKeyFile: "The root key (mode 0600). Keep it outside the data folder, and keep a copy."
        case .rootKeyWrappingKey:
            "A key in a PKCS#11 token that wraps the root key: an RFC 7512 URI with module-path and pin-source (empty: none)."
        case .credentialsFile: "The administrator's client id and secret (mode 0600), read by 'coffer env'."
        case .domain: "Domain of Coffer's own host names, such as management.DOMAIN."
        case .address: "Address to listen on. Anything but a loopback address opens the server to the network."
        case .httpsPort: "Port of all services over TLS (0 picks a free one)."
        case .httpPort: "Port of what may be served over plain http (0 picks a free one)."
        case .gatewayPort: "Port of the CONNECT gateway for HTTPS_PROXY (0 picks a free one)."
        case .advertisedPort:
            "Port to write into URLs, for clients that reach the TLS port without the gateway (0: none)."
        case .workerNetwork:
            "Network of function workers: 'isolated', one each, or 'host', the machine's with its whole loopback."
        case .packageMegabytes: "Memory for all mounted function packages together, in MiB; each counts twice."
        case .logLevel: "trace, debug, info, notice, warning, error or critical."
        case .shutdownSeconds: "Longest wait for running requests at shutdown, in seconds."
        }
    }

    func defaultValue(home: String) -> String {
        switch self {
        case .dataFolder: home + "/.local/share/coffer"
        case .rootKeyFile: home + "/.config/coffer/root.key"
        case .rootKeyWrappingKey: ""
        case .credentialsFile: home + "/.config/coffer/administrator.json"
        case .domain: "coffer.localhost"
        case .address: "127.0.0.1"
        case .httpsPort: "18443"
        case .httpPort: "18081"
        case .gatewayPort: "18080"
        case .advertisedPort: "0"
        case .workerNetwork: "isolated"
        case .packageMegabytes: "8192"
        case .logLevel: "notice"
        case .shutdownSeconds: "15"
        }
    }
}
