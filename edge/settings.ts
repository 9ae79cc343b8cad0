/**
 * The table of settings: flag, default, range, who knows it, and when a change takes effect. Flags, environment variables, the
 * settings file, `--help`, shell completion and the sample file all come from here; `config.ts` reads values by it.
 */
import type { MemberAeadSetting } from "../ffi/member_aead.ts";
import { ALL_OFFLOADS } from "../src/offload/switches.ts";
import type { OffloadSwitches } from "../src/ports.ts";
import * as values from "./config_values.ts";

/** Which commands know a setting. */
export type Scope = "agent" | "member" | "run" | "join" | "hub" | "client" | "hubClient";

/** One row of the table. */
export interface Setting<T> {
  readonly flag: string;
  readonly help: string;
  /** how the value is shown in help; none for a switch */
  readonly value?: string;
  /** undefined stays undefined: the command decides */
  readonly default: T;
  /** text of the default for people; else the default itself */
  readonly defaultText?: string;
  /** @throws RangeError whose message starts with "must" */
  readonly parse: (text: string) => unknown;
  readonly scopes: readonly Scope[];
  readonly effect: "reload" | "restart";
  readonly short?: string;
  /** may be given several times; separated by commas in a variable, a list in the file */
  readonly isList?: true;
  /** takes no value on the command line */
  readonly isSwitch?: true;
  /** never shown; may come from `<VARIABLE>_FILE` */
  readonly isSecret?: true;
}

function setting<T>(row: Setting<T> & { readonly parse: (text: string) => T }): Setting<T> {
  return row;
}

/** A row that may be given several times: `parse` reads one element. */
function list<E>(
  row: Omit<Setting<readonly E[]>, "default" | "isList" | "parse"> & { readonly parse: (text: string) => E },
): Setting<readonly E[]> {
  return { ...row, default: [], isList: true };
}

/** Smallest underlay MTU that any IPv6 link has (RFC 8200 §5). */
const MIN_UNDERLAY_MTU = 1280;

/** All settings. The key is the name in the program, with its unit. */
export const SETTINGS = {
  config: setting<string | undefined>({
    flag: "config",
    value: "FILE",
    help: "file of settings (YAML or JSON); names are those of the flags",
    default: undefined,
    parse: values.path,
    scopes: ["agent"],
    effect: "restart",
  }),
  stateDir: setting<string>({
    flag: "state-dir",
    value: "DIR",
    help: "where identity and state are kept",
    default: "/var/lib/edgemesh",
    parse: values.path,
    scopes: ["agent", "client"],
    effect: "restart",
  }),
  socket: setting<string>({
    flag: "socket",
    value: "PATH",
    help: "Unix socket of the agent",
    default: "/run/edgemesh/edgemesh.sock",
    parse: values.path,
    scopes: ["agent", "client"],
    effect: "restart",
  }),
  httpListen: setting<{ readonly host: string; readonly port: number } | undefined>({
    flag: "http-listen",
    value: "HOST:PORT",
    help: "loopback address of health and metrics; none switches it off",
    default: { host: "127.0.0.1", port: 9780 },
    defaultText: "127.0.0.1:9780",
    parse: values.loopbackListen,
    scopes: ["agent"],
    effect: "restart",
  }),
  tun: setting<string>({
    flag: "tun",
    value: "NAME",
    help: "name of the TUN device",
    default: "edgemesh0",
    parse: values.deviceName,
    scopes: ["agent"],
    effect: "restart",
  }),
  wireguardPort: setting<number>({
    flag: "wireguard-port",
    value: "PORT",
    help: "UDP port of WireGuard",
    default: 51871,
    parse: values.integer(1, 65535),
    scopes: ["agent"],
    effect: "restart",
  }),
  underlayMtuBytes: setting<number>({
    flag: "underlay-mtu",
    value: "BYTES",
    help: "largest packet of the network below; 145 less is the MTU inside",
    default: 1500,
    parse: values.integer(MIN_UNDERLAY_MTU, 9216),
    scopes: ["agent"],
    effect: "restart",
  }),
  underlayMark: setting<number | undefined>({
    flag: "underlay-mark",
    value: "MARK",
    help: "firewall mark of WireGuard packets (SO_MARK)",
    default: undefined,
    parse: values.integer(1, 0xffffffff),
    scopes: ["agent"],
    effect: "restart",
  }),
  aead: setting<"auto" | "libsodium">({
    flag: "aead",
    value: "LIBRARY",
    help:
      "who seals transport data: libsodium, or auto (also the host's libcrypto, where it is faster; 3 MB more memory)",
    default: "libsodium",
    parse: values.choice("auto", "libsodium"),
    scopes: ["agent"],
    effect: "restart",
  }),
  memberAead: setting<MemberAeadSetting>({
    flag: "member-aead",
    value: "CIPHER",
    help: "faster ciphers to offer other members: auto (where the CPU has AES), aegis128l, aes256gcm, or off",
    default: "auto",
    parse: values.choice("auto", "aegis128l", "aes256gcm", "off"),
    scopes: ["agent"],
    effect: "restart",
  }),
  offload: setting<OffloadSwitches>({
    flag: "offload",
    value: "LIST",
    help:
      "of tso, uso, udp-gso, udp-gro, tcp-merge, udp-merge; auto is all that the kernel has, none, or all but no-WORD",
    default: ALL_OFFLOADS,
    defaultText: "auto",
    parse: values.offloads,
    scopes: ["agent"],
    effect: "reload",
  }),
  pathMtuDiscovery: setting<boolean>({
    flag: "path-mtu-discovery",
    value: "on|off",
    help: "look for the largest packet that the way to each peer takes",
    default: true,
    defaultText: "on",
    parse: values.onOff,
    scopes: ["agent"],
    effect: "restart",
  }),
  copyDscp: setting<boolean>({
    flag: "copy-dscp",
    value: "on|off",
    help:
      "give WireGuard packets the DSCP of what is inside: routers may then prefer them, and onlookers tell them apart",
    default: false,
    defaultText: "off",
    parse: values.onOff,
    scopes: ["agent"],
    effect: "restart",
  }),
  datapathWorkers: setting<1 | 2>({
    flag: "datapath-workers",
    value: "1|2",
    help: "threads that move packets: with 2, sockets and ciphers get one of their own, for several MB more memory",
    default: 1,
    parse: (text) => values.choice("1", "2")(text) === "2" ? 2 : 1,
    scopes: ["agent"],
    effect: "restart",
  }),
  keyLogFile: setting<string | undefined>({
    flag: "key-log-file",
    value: "FILE",
    help: "append WireGuard's keys for Wireshark: whoever reads it reads the traffic",
    default: undefined,
    parse: values.path,
    scopes: ["agent"],
    effect: "restart",
  }),
  policyConfirmTimeoutMs: setting<number>({
    flag: "policy-confirm-timeout",
    value: "TIME",
    help: "policies after which a hub inside the mesh is not heard for so long are rolled back; 0 switches that off",
    default: 30_000,
    defaultText: "30s",
    parse: values.durationMs,
    scopes: ["agent"],
    effect: "restart",
  }),
  dnsListen: setting<{ readonly address: string; readonly port: number } | undefined>({
    flag: "dns-listen",
    value: "ADDRESS:PORT",
    help: "answer DNS questions of this machine here, under the rules of policies; toFQDNs learns from them",
    default: undefined,
    parse: values.addressPort(),
    scopes: ["agent"],
    effect: "restart",
  }),
  dnsUpstreams: list({
    flag: "dns-upstream",
    value: "ADDRESS[:PORT]",
    help: "name server that --dns-listen asks (repeatable); none: those of /etc/resolv.conf",
    parse: values.addressPort(53),
    scopes: ["agent"],
    effect: "restart",
  }),
  logLevel: setting<"debug" | "info" | "warn" | "error">({
    flag: "log-level",
    value: "LEVEL",
    help: "debug, info, warn or error",
    default: "info",
    parse: values.choice("debug", "info", "warn", "error"),
    scopes: ["agent"],
    effect: "reload",
  }),
  logFormat: setting<"text" | "json">({
    flag: "log-format",
    value: "FORMAT",
    help: "text or json, on standard error",
    default: "text",
    parse: values.choice("text", "json"),
    scopes: ["agent"],
    effect: "restart",
  }),
  mesh: setting<string | undefined>({
    flag: "mesh",
    value: "FILE",
    help: "run from a mesh file, without any hub",
    default: undefined,
    parse: values.path,
    scopes: ["run"],
    effect: "restart",
  }),
  enrolOnly: setting<boolean>({
    flag: "enrol-only",
    help: 'stop after enrolment; "edgemesh run" starts the member',
    default: false,
    parse: values.onOff,
    scopes: ["join"],
    effect: "restart",
    isSwitch: true,
  }),
  name: setting<string | undefined>({
    flag: "name",
    value: "NAME",
    help: "name of this node in the mesh",
    default: undefined,
    defaultText: "the token's, else chosen by the hub",
    parse: values.dnsLabel,
    scopes: ["join", "hub"],
    effect: "restart",
  }),
  namespace: setting<string | undefined>({
    flag: "namespace",
    value: "NAME",
    help: "namespace that this node's policies and services live in",
    default: undefined,
    defaultText: "the token's, else default",
    parse: values.dnsLabel,
    scopes: ["join", "hub"],
    effect: "restart",
  }),
  labels: list({
    flag: "label",
    value: "K=V",
    help: "label of this node (repeatable)",
    parse: values.label,
    scopes: ["join", "hub"],
    effect: "restart",
  }),
  network: setting<string | undefined>({
    flag: "network",
    value: "NAME",
    help: "network that this node is in: hybrid routing sends without an envelope inside one",
    default: undefined,
    defaultText: "what was said before, else the label topology.kubernetes.io/zone",
    parse: values.networkName,
    scopes: ["run", "join", "hub"],
    effect: "reload",
  }),
  clusterName: setting<string>({
    flag: "cluster-name",
    value: "NAME",
    help: "name of the cluster",
    default: "edgemesh",
    parse: values.clusterName,
    scopes: ["hub"],
    effect: "restart",
  }),
  clusterId: setting<number>({
    flag: "cluster-id",
    value: "1-255",
    help: "number of the cluster, unique in the mesh",
    default: 1,
    parse: values.integer(1, 255),
    scopes: ["hub"],
    effect: "restart",
  }),
  store: setting<string | undefined>({
    flag: "store",
    value: "sqlite:PATH",
    help: "where the hub keeps the mesh",
    default: undefined,
    defaultText: "sqlite:<state-dir>/hub.db",
    parse: (text) => {
      if (!/^sqlite:./.test(text)) throw new RangeError("must be sqlite:PATH");
      return text;
    },
    scopes: ["hub"],
    effect: "restart",
  }),
  listen: setting<string>({
    flag: "listen",
    value: "HOST:PORT",
    help: "where the hub's API listens (TLS)",
    default: "[::]:7443",
    parse: values.hostPort,
    scopes: ["hub"],
    effect: "restart",
  }),
  advertise: list({
    flag: "advertise",
    value: "HOST:PORT",
    help: "where members reach the hub; written into tokens (repeatable)",
    parse: values.hostPort,
    scopes: ["hub"],
    effect: "restart",
  }),
  memberCidrs: list({
    flag: "member-cidr",
    value: "CIDR",
    help: "prefix that members get their addresses from (one per family)",
    parse: values.cidr,
    scopes: ["hub"],
    effect: "restart",
  }),
  routingMode: setting<"tunnel" | "native" | "hybrid">({
    flag: "routing-mode",
    value: "MODE",
    help: "tunnel (in Geneve or VXLAN), native (bare), or hybrid (native between members of one network)",
    default: "tunnel",
    parse: values.choice("tunnel", "native", "hybrid"),
    scopes: ["hub"],
    effect: "restart",
  }),
  tunnelProtocol: setting<"geneve" | "vxlan">({
    flag: "tunnel-protocol",
    value: "PROTOCOL",
    help: "geneve or vxlan",
    default: "geneve",
    parse: values.choice("geneve", "vxlan"),
    scopes: ["hub"],
    effect: "restart",
  }),
  encryption: setting<"wireguard" | "none">({
    flag: "encryption",
    value: "KIND",
    help:
      "wireguard, or none: whoever is on the network below reads and forges everything; for a network that is trusted",
    default: "wireguard",
    parse: values.choice("wireguard", "none"),
    scopes: ["hub"],
    effect: "restart",
  }),
  enablePolicy: setting<"default" | "always" | "never">({
    flag: "enable-policy",
    value: "MODE",
    help: "which members are closed but for rules: default (those that a policy selects), always or never",
    default: "default",
    parse: values.choice("default", "always", "never"),
    scopes: ["hub"],
    effect: "restart",
  }),
  policyAuditMode: setting<boolean>({
    flag: "policy-audit-mode",
    help: "members forward what policy would drop, and report it",
    default: false,
    parse: values.onOff,
    scopes: ["hub"],
    effect: "restart",
    isSwitch: true,
  }),
  policyCidrMatchMode: setting<readonly ("nodes" | "pods")[]>({
    flag: "policy-cidr-match-mode",
    value: "LIST",
    help: "addresses inside the mesh that CIDR rules mean too: nodes, pods or nodes,pods",
    default: [],
    defaultText: "none",
    parse: values.cidrMatchModes,
    scopes: ["hub"],
    effect: "restart",
  }),
  policyDefaultLocalCluster: setting<boolean>({
    flag: "policy-default-local-cluster",
    value: "on|off",
    help: "selectors that name no cluster mean the local one only",
    default: true,
    defaultText: "on",
    parse: values.onOff,
    scopes: ["hub"],
    effect: "restart",
  }),
  allowLocalhost: setting<"always" | "policy">({
    flag: "allow-localhost",
    value: "WHEN",
    help: "whether a member's own machine reaches it: always, or as policy says",
    default: "always",
    parse: values.choice("always", "policy"),
    scopes: ["hub"],
    effect: "restart",
  }),
  enableHostFirewall: setting<boolean>({
    flag: "enable-host-firewall",
    help: "members enforce policies for hosts (nodeSelector)",
    default: false,
    parse: values.onOff,
    scopes: ["hub"],
    effect: "restart",
    isSwitch: true,
  }),
  fqdnMinTtlSeconds: setting<number>({
    flag: "tofqdns-min-ttl",
    value: "SECONDS",
    help: "addresses that members learn for names are kept at least so long",
    default: 0,
    parse: values.integer(0, 0x7fffffff),
    scopes: ["hub"],
    effect: "restart",
  }),
  fqdnMaxIpsPerName: setting<number>({
    flag: "tofqdns-endpoint-max-ip-per-hostname",
    value: "N",
    help: "addresses that a member keeps for one name",
    default: 1000,
    parse: values.integer(1, 1_000_000),
    scopes: ["hub"],
    effect: "restart",
  }),
  fqdnRejectCode: setting<"refused" | "nameError">({
    flag: "tofqdns-dns-reject-response-code",
    value: "CODE",
    help: "what a refused query for a name is answered with: refused or nameError",
    default: "refused",
    parse: values.choice("refused", "nameError"),
    scopes: ["hub"],
    effect: "restart",
  }),
  hubUrl: setting<string | undefined>({
    flag: "hub",
    value: "URL",
    help: "a hub elsewhere (https://HOST:7443) instead of the one on this machine",
    default: undefined,
    parse: (text) => {
      if (!/^https:\/\/[^/\s]+\/?$/.test(text)) throw new RangeError("must be https://HOST:PORT");
      return text;
    },
    scopes: ["hubClient"],
    effect: "restart",
  }),
  hubCa: setting<string | undefined>({
    flag: "hub-ca",
    value: "FILE",
    help: "certificate (PEM) that vouches for the hub of --hub",
    default: undefined,
    parse: values.path,
    scopes: ["hubClient"],
    effect: "restart",
  }),
  adminCredential: setting<string | undefined>({
    flag: "admin-credential",
    value: "SECRET",
    help: "admin credential for --hub",
    default: undefined,
    parse: values.nonEmpty,
    scopes: ["hubClient"],
    effect: "restart",
    isSecret: true,
  }),
  output: setting<"text" | "wide" | "json" | "yaml">({
    flag: "output",
    short: "o",
    value: "FORMAT",
    help: "text, wide, json or yaml",
    default: "text",
    parse: values.choice("text", "wide", "json", "yaml"),
    scopes: ["client"],
    effect: "restart",
  }),
  timeoutMs: setting<number | undefined>({
    flag: "timeout",
    value: "TIME",
    help: "give up after this long (30s, 5m)",
    default: undefined,
    defaultText: "the command's own",
    parse: values.durationMs,
    scopes: ["client", "join"],
    effect: "restart",
  }),
};

/** The name of a setting in the program. */
export type SettingKey = keyof typeof SETTINGS;

/** All settings, checked. Frozen. */
export type Config = { readonly [K in SettingKey]: (typeof SETTINGS)[K] extends Setting<infer T> ? T : never };

const KEYS = Object.keys(SETTINGS) as SettingKey[];
const BY_FLAG: ReadonlyMap<string, SettingKey> = new Map(KEYS.map((key) => [SETTINGS[key].flag, key]));

/** The row of a setting, with its type widened so that code may walk the table. */
export function rowOf(key: SettingKey): Setting<unknown> {
  return SETTINGS[key];
}

/** The setting that a long flag sets; `undefined` for a flag that nobody knows. */
export function settingOfFlag(flag: string): SettingKey | undefined {
  return BY_FLAG.get(flag);
}

/** Settings that a command with these scopes knows, in table order. */
export function settingsOf(scopes: readonly Scope[]): readonly SettingKey[] {
  return KEYS.filter((key) => SETTINGS[key].scopes.some((scope) => scopes.includes(scope)));
}

/** `EDGEMESH_STATE_DIR` for `state-dir`. */
export function variableOf(key: SettingKey): string {
  return `EDGEMESH_${SETTINGS[key].flag.toUpperCase().replaceAll("-", "_")}`;
}
