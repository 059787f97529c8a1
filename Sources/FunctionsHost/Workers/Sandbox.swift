internal import CofferCore
internal import Crypto
internal import Glibc

/// What the sandbox gives a worker, and the command line that builds it.
///
/// Two bubblewrap stages. The outer one has a mount namespace with an empty tmpfs, sized to the package, into which it
/// unpacks our own tar from a memory file; the inner one binds that tmpfs read-only at `/home/site/wwwroot` and shows
/// nothing else of the machine but `/usr` and a few files of `/etc`. So the app's files exist in memory alone, in a
/// namespace nobody else sees, however many they are (one mount, where `--ro-bind-data` would need a mount and a
/// descriptor per file), and they end with the worker.
///
/// The outer stage has a process namespace too. What it starts beside the worker (`pasta`, which carries the worker's
/// network, and a shell that watches it) cannot outlive it, however the worker or the server ends.
///
/// Settings never stand on a command line or in the environment of a privileged stage (`TAR_OPTIONS` and `LD_PRELOAD`
/// would be the app's way to root there): a shell that already runs as the worker's user reads them from a memory file.
struct Sandbox: Sendable {
    static let root = "/home/site/wwwroot"
    /// Where the outer stage has it.
    private static let unpacked = "/mnt/package"
    static let path = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
    private static let searched = ["/usr/bin", "/bin", "/usr/local/bin", "/usr/sbin", "/sbin"]
    /// The files of `/etc` that programs need and that tell nothing: names, certificates, time zone.
    private static let sharedConfiguration = [
        "/etc/hosts", "/etc/nsswitch.conf", "/etc/ssl/certs", "/etc/ca-certificates.conf",
        "/etc/localtime", "/etc/ld.so.cache",
        "/etc/alternatives", "/etc/gai.conf", "/etc/protocols", "/etc/services",
    ]
    static let descriptorsLimit = 4_096
    static let processesLimit = 512
    static let temporaryBytes = 512 << 20

    struct Tools: Sendable, Equatable {
        let bubblewrap: String
        let tar: String
        /// Needed only when the server runs as root.
        let setpriv: String?
    }

    let tools: Tools
    let runsAsRoot: Bool

    /// Throws when the machine lacks a tool; the message names the package to install.
    init(network: WorkerNetwork) throws(PackageError) {
        func find(_ name: String) -> String? { Self.searched.map { "\($0)/\(name)" }.first { access($0, X_OK) == 0 } }
        if network == .isolated { try Self.checkNetworkTools(find) }
        guard let bubblewrap = find("bwrap") else {
            throw PackageError(
                .configuration, "Workers need bubblewrap on the server (Debian: apt install bubblewrap).")
        }
        guard let tar = find("tar") else { throw PackageError(.configuration, "Workers need tar on the server.") }
        runsAsRoot = geteuid() == 0
        let setpriv = find("setpriv")
        guard !runsAsRoot || setpriv != nil else {
            throw PackageError(
                .configuration, "Workers need setpriv on the server while it runs as root (Debian: util-linux).")
        }
        tools = Tools(bubblewrap: bubblewrap, tar: tar, setpriv: setpriv)
    }

    static func checkNetworkTools(_ find: (String) -> String?) throws(PackageError) {
        let packages = [
            "pasta": "passt", "nft": "nftables", "nsenter": "util-linux", "unshare": "util-linux",
            "setpriv": "util-linux",
        ]
        for (tool, package) in packages.sorted(by: { $0.key < $1.key }) where find(tool) == nil {
            throw PackageError(
                .configuration,
                "Workers need \(tool) on the server for a network of their own (Debian: apt install \(package)). "
                    + IsolatedNetwork.alternative)
        }
        let device = open(IsolatedNetwork.device, O_RDWR | O_CLOEXEC)
        guard device >= 0 else {
            throw PackageError(
                .configuration,
                "Workers need \(IsolatedNetwork.device) for a network of their own, and the server cannot open it "
                    + "(\(String(cString: strerror(errno)))): load the module 'tun', give a container the device, and "
                    + "let the server's user read and write it. \(IsolatedNetwork.alternative)")
        }
        close(device)
    }

    /// A user of its own for each site, so that one app can neither signal another's processes nor stand in for them on
    /// a port of a network they share.
    static func userID(of site: String) -> UInt32 {
        let digest = Array(SHA256.hash(data: Array(site.lowercased().utf8)))
        return 0x6000_0000 | UInt32(digest[0]) << 20 | UInt32(digest[1]) << 12 | UInt32(digest[2]) << 4
    }

    struct Worker: Sendable {
        var site: String
        /// As it appears in host.json; found below the root when the package has it, otherwise by PATH.
        var executable: String
        var arguments: [String]
        var workingDirectory: String
        var unpackedBytes: Int
        /// Of memory the worker may hold, when no control group enforces it.
        var dataBytes: Int?
        /// `cgroup.procs` of the worker's control group.
        var controlGroup: String?
        /// nil: the machine's.
        var network: IsolatedNetwork?
        /// Files shown read-only at the same path (Coffer's certificate authority).
        var sharedFiles: [String]
    }

    /// Descriptor 3 is the package's tar, 4 the settings. With a network of its own, 5 takes what went wrong with it,
    /// and 6 is its resolv.conf(5).
    func commandLine(_ worker: Worker) -> [String] {
        var outer = [tools.bubblewrap, "--dev-bind", "/", "/"]
        if !runsAsRoot { outer.append("--unshare-user") }
        // The package's pages, its folders' and some air.
        outer += [
            "--size", String(worker.unpackedBytes + worker.unpackedBytes / 8 + (8 << 20)), "--perms", "0755", "--tmpfs",
            "/mnt", "--perms", "0755", "--dir", Self.unpacked, "--unshare-pid", "--proc", "/proc",
        ]
        if runsAsRoot || worker.network != nil { outer += ["--cap-add", "ALL"] }
        outer += ["--die-with-parent", "--", "/bin/sh", "-c", Self.outerScript, "worker"]
        outer += [tools.tar, worker.controlGroup ?? "", worker.dataBytes.map { String($0 / 1_024) } ?? ""]
        outer += [String(Self.descriptorsLimit), runsAsRoot ? String(Self.processesLimit) : ""]
        outer += [worker.network?.arguments.joined(separator: " ") ?? "", IsolatedNetwork.filter]
        return outer + innerCommandLine(worker)
    }

    private func innerCommandLine(_ worker: Worker) -> [String] {
        var inner = [
            tools.bubblewrap, "--unshare-pid", "--unshare-ipc", "--unshare-uts", "--unshare-cgroup-try", "--hostname",
            "functions",
            "--ro-bind", "/usr", "/usr",
        ]
        if !runsAsRoot { inner.append("--unshare-user") }
        for folder in ["bin", "sbin", "lib", "lib32", "lib64"] {
            var status = stat()
            guard lstat("/" + folder, &status) == 0 else { continue }
            inner +=
                status.st_mode & S_IFMT == S_IFLNK
                ? ["--symlink", "usr/" + folder, "/" + folder] : ["--ro-bind", "/" + folder, "/" + folder]
        }
        for folder in ["/etc", "/etc/ssl"] { inner += ["--perms", "0755", "--dir", folder] }
        for path in Self.sharedConfiguration { inner += ["--ro-bind-try", path, path] }
        let resolver = "/etc/resolv.conf"
        inner +=
            worker.network == nil
            ? ["--ro-bind-try", resolver, resolver] : ["--perms", "0644", "--ro-bind-data", "6", resolver]
        inner += [
            "--proc", "/proc", "--dev", "/dev", "--size", String(Self.temporaryBytes), "--perms", "1777", "--tmpfs",
            "/tmp",
        ]
        inner += ["--size", String(Self.temporaryBytes), "--perms", "1777", "--tmpfs", "/dev/shm"]
        for folder in ["/home", "/home/site"] { inner += ["--perms", "0755", "--dir", folder] }
        // After the mounts above, which would hide a file below /tmp. bubblewrap itself makes folders only root may
        // enter.
        for path in worker.sharedFiles {
            for folder in Self.folders(above: path) { inner += ["--perms", "0755", "--dir", folder] }
            inner += ["--ro-bind-try", path, path]
        }
        inner += ["--ro-bind", Self.unpacked, Self.root, "--remount-ro", "/"]
        inner += ["--die-with-parent", "--new-session", "--clearenv", "--setenv", "PATH", Self.path]
        inner += ["--chdir", worker.workingDirectory.isEmpty ? Self.root : Self.root + "/" + worker.workingDirectory]
        if runsAsRoot { inner += ["--cap-add", "CAP_SETUID", "--cap-add", "CAP_SETGID", "--cap-add", "CAP_SETPCAP"] }
        inner.append("--")
        if runsAsRoot, let setpriv = tools.setpriv {
            let user = String(Self.userID(of: worker.site))
            inner += [
                setpriv, "--reuid=" + user, "--regid=" + user, "--clear-groups", "--no-new-privs",
                "--bounding-set=-all", "--inh-caps=-all",
            ]
        }
        return inner + ["/bin/sh", "-c", Self.startScript, "worker", worker.executable] + worker.arguments
    }

    /// Outermost first: `/a`, `/a/b` for `/a/b/c`.
    private static func folders(above path: String) -> [String] {
        var folders: [String] = []
        for component in path.parts(at: UInt8(ascii: "/")).dropLast() {
            folders.append((folders.last ?? "") + "/" + component)
        }
        return folders
    }

    /// The outer stage: the package, then the network, then the limits.
    ///
    /// The network's part: a sleeper that can do nothing holds a new pair of user and network namespaces; pasta, in the
    /// former and so without the server's capabilities, joins the latter to the machine's network, and tells by its PID
    /// file that it is ready; then the worker moves in. When pasta ends, so does the worker. Where memory is short, the
    /// kernel takes the worker first, if the server may say so: not when its own score is above the worker's and it
    /// lacks the capability to lower one.
    private static let outerScript = """
        set -e
        umask 022
        tar=$1 group=$2 data=$3 files=$4 processes=$5 network=$6 filter=$7
        shift 7
        [ -z "$group" ] || echo $$ > "$group"
        ulimit -c 0
        "$tar" -x -p --no-same-owner -C /mnt/package -f /dev/fd/3
        exec 3<&-
        if [ -n "$network" ]; then
          refuse() { echo "$1" >&5; exit 1; }
          bare="setpriv --bounding-set=-all --inh-caps=-all"
          sleeper='sleep 600 >/dev/null 2>&1 & echo $!'
          space=$(unshare -U -r -n $bare sh -c "$sleeper" 2>&1 4<&- 5>&- 6<&-) || refuse "unshare: $space"
          case $space in "" | *[!0-9]*) refuse "unshare: $space" ;; esac
          enter="nsenter --preserve-credentials -t $space -U"
          mkfifo /mnt/ready
          (
            $enter pasta -f -q $network -P /mnt/ready --no-netns-quit --netns "/proc/$space/ns/net" \
              >/mnt/log 2>&1 5>&- || :
            { echo "pasta ended"; tail -n 20 /mnt/log; } >&5 || :
            kill -9 $$
          ) 4<&- 6<&- &
          read -r started </mnt/ready
          answer=$(echo "$filter" | $enter -n nft -f - 2>&1) || refuse "nft: $answer"
          exec 5>&-
          echo 500 2>/dev/null >/proc/self/oom_score_adj || :
        fi
        ulimit -n "$files"
        [ -z "$data" ] || ulimit -d "$data"
        [ -z "$processes" ] || ulimit -p "$processes"
        [ -n "$network" ] || exec "$@"
        exec nsenter --net="/proc/$space/ns/net" sh -c 'kill "$0"; exec setpriv --ambient-caps=-all "$@"' "$space" "$@"
        """
    private static let startScript = """
        . /dev/fd/4
        exec 4<&-
        exec "$@"
        """

    /// The settings as a shell script of assignments. Names a shell cannot hold are spelled as App Service on Linux
    /// spells them: `.` and `-` become `_`, `:` becomes `__`; what is still no name is left out, as are values with a
    /// NUL byte.
    static func script(environment: [String: RedactedString]) -> [UInt8] {
        var script: [UInt8] = []
        for (name, value) in environment.sorted(by: { $0.key < $1.key }) {
            guard let name = variableName(name), !value.reveal().utf8.contains(0) else { continue }
            script += Array("export \(name)='".utf8)
            for byte in value.reveal().utf8 {
                if byte == 0x27 { script += Array(#"'\''"#.utf8) } else { script.append(byte) }
            }
            script += Array("'\n".utf8)
        }
        return script
    }

    static func variableName(_ name: String) -> String? {
        let spelled = name.replacing(":", with: "__").map { $0 == "." || $0 == "-" ? "_" : String($0) }.joined()
        guard let first = spelled.utf8.first, !(48...57).contains(first), spelled.utf8.count <= 256 else { return nil }
        let isPlain = spelled.utf8.allSatisfy {
            (48...57).contains($0) || (65...90).contains($0) || (97...122).contains($0) || $0 == 0x5f
        }
        return isPlain ? spelled : nil
    }
}
