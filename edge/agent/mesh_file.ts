/**
 * The mesh file of `run --mesh FILE` (design, section 3): one YAML document that says what a hub would have sent. Read into the same
 * entries as the hub's, but unsigned: this machine's operator vouches for them.
 *
 * `readMeshFile` reports all faults at once, each with its line. Loads `yaml`, so it is imported only when there is a mesh file.
 */
import { readdirSync, readFileSync, statSync } from "node:fs";
import { dirname, join, resolve } from "node:path";
import { LineCounter, parseDocument } from "yaml";
import { fromBase64 } from "../../src/bytes/text.ts";
import type { Labels } from "../../src/identity/labels.ts";
import { labelsOfMember } from "../../src/identity/member_labels.ts";
import { formatAddress, formatPrefix, parseAddress, parsePrefixOrAddress } from "../../src/ip/address.ts";
import { parseUnderlayAddr } from "../../src/ip/underlay_addr.ts";
import type { ClusterRef, EntryValue, MeshSettings, NamedPort, SnapshotFrame } from "../../src/mesh/entries.ts";
import { routingFault } from "../../src/mesh/routing.ts";
import type { PeerOptions } from "../../src/mesh/tables.ts";
import * as values from "../config_values.ts";
import { EdgeError, messageOf } from "../errors.ts";
import { readManifest } from "../manifest.ts";
import { IdentityBook } from "./mesh_identities.ts";
import { MeshObjects, readPolicyBlock } from "./mesh_objects.ts";
import { type DataPath, type Fault, pathText, Shape } from "./shape.ts";

/** A mesh file, read. */
export interface MeshFile {
  /** "<cluster>/<name>" of this node */
  readonly selfName: string;
  /** X25519 secret key, 32 octets */
  readonly privateKey: Uint8Array;
  readonly listenPort: number | undefined;
  readonly frame: SnapshotFrame;
  /** by "<cluster>/<name>" */
  readonly peerOptions: ReadonlyMap<string, PeerOptions>;
}

/** What reading needs from outside. */
export interface MeshFileContext {
  readonly publicKeyOf: (secretKey: Uint8Array) => Uint8Array;
  /** position in this source's history: grows with each reload */
  readonly revision: number;
}

const KEY_BYTES = 32;
/** Longest file that is read; a mesh of a thousand boxes has about 400 KB. */
const MAX_FILE_BYTES = 16 * 1024 * 1024;
const FOREVER = Number.MAX_SAFE_INTEGER;
const DEFAULT_CLUSTER: ClusterRef = { name: "default", id: 1 };

/**
 * Reads a mesh file with all that it names.
 * @throws EdgeError EDGE_MESH_FILE_INVALID with every fault, one a line
 */
export function readMeshFile(path: string, context: MeshFileContext): MeshFile {
  const text = readText(path);
  const lines = new LineCounter();
  const document = parseDocument(text, { lineCounter: lines, uniqueKeys: true, maxAliasCount: 100 } as object);
  if (document.errors.length > 0) throw invalid(path, document.errors.map((error) => error.message.split("\n")[0]!));
  const faults: Fault[] = [];
  const file = new Reader(document.toJS(), dirname(resolve(path)), context, faults).read();
  if (faults.length === 0 && file !== undefined) return file;
  const lineOf = (at: DataPath): string => {
    for (let length = at.length; length > 0; length--) {
      const node = document.getIn(at.slice(0, length), true) as { range?: [number, number, number] } | undefined;
      if (node?.range) return `line ${lines.linePos(node.range[0]).line}: `;
    }
    return "";
  };
  throw invalid(path, faults.map((fault) => `${lineOf(fault.path)}${pathText(fault.path)} ${fault.message}`));
}

function invalid(path: string, faults: readonly string[]): EdgeError {
  return new EdgeError("EDGE_MESH_FILE_INVALID", `Cannot use mesh file "${path}":\n  ${faults.join("\n  ")}`);
}

function readText(path: string): string {
  try {
    if (statSync(path).size > MAX_FILE_BYTES) throw new RangeError("it is larger than 16 MB");
    return readFileSync(path, "utf8");
  } catch (error) {
    throw new EdgeError("EDGE_MESH_FILE_INVALID", `Cannot read mesh file "${path}": ${messageOf(error)}`, {
      fix: "Check the path and its permissions.",
    });
  }
}

/** A key as `wg genkey`, `wg genpsk` and `wg pubkey` print it. */
function wireguardKey(text: string): Uint8Array {
  const key = fromBase64(text.trim());
  if (key?.length !== KEY_BYTES) throw new RangeError("must be a WireGuard key: 44 characters of base64");
  return key;
}

function prefixOrAddress(text: string): string {
  const prefix = parsePrefixOrAddress(text);
  if (prefix === undefined) throw new RangeError("must be an address or a prefix");
  return formatPrefix(prefix);
}

function address(text: string): string {
  const bytes = parseAddress(text);
  if (bytes === undefined) throw new RangeError("must be an IP address");
  return formatAddress(bytes);
}

function endpoint(text: string): string {
  if (parseUnderlayAddr(text) === undefined) throw new RangeError("must be ADDRESS:PORT ([ADDRESS]:PORT for IPv6)");
  return text;
}

function namedPort(text: string, name: string): NamedPort {
  const match = /^([1-9][0-9]{0,4})(?:\/(TCP|UDP|SCTP))?$/.exec(text);
  if (match === null || Number(match[1]) > 65535) throw new RangeError("must be PORT/TCP, PORT/UDP or PORT/SCTP");
  return { name, port: Number(match[1]), protocol: (match[2] ?? "TCP") as NamedPort["protocol"] };
}

function memberAead(text: string): string {
  if (text !== "aegis128l" && text !== "aes256gcm") throw new RangeError("must be aegis128l or aes256gcm");
  return text;
}

function isHost(prefix: string): boolean {
  return prefix.endsWith(prefix.includes(":") ? "/128" : "/32");
}

function hostOf(prefix: string): string {
  return prefix.slice(0, prefix.indexOf("/"));
}

/** What `node` and each of `peers` have in common. */
interface NodeFacts {
  readonly shape: Shape;
  readonly name: string;
  readonly cluster: ClusterRef;
  /** with lengths, host bits as given */
  readonly addresses: readonly string[];
  readonly underlay: string | undefined;
  readonly namespace: string;
  readonly labels: Readonly<Record<string, string>>;
  readonly namedPorts: readonly NamedPort[];
  readonly aeads: readonly string[];
  readonly network: string;
  readonly identity: number | undefined;
}

class Reader {
  readonly #root: Shape;
  readonly #folder: string;
  readonly #context: MeshFileContext;
  readonly #faults: Fault[];
  readonly #entries = new Map<string, EntryValue>();
  readonly #namespaces = new Map<string, Readonly<Record<string, string>>>();
  readonly #peerOptions = new Map<string, PeerOptions>();
  readonly #identities = new IdentityBook();
  readonly #objects = new MeshObjects();

  constructor(data: unknown, folder: string, context: MeshFileContext, faults: Fault[]) {
    this.#root = new Shape(data, [], faults);
    this.#folder = folder;
    this.#context = context;
    this.#faults = faults;
  }

  read(): MeshFile | undefined {
    this.#readNamespaces();
    this.#readIdentities();
    const nodeShape = this.#root.shape("node");
    if (nodeShape === undefined) return this.#root.fault("node", "is missing");
    const privateKey = this.#readKey(nodeShape, "privateKey", true);
    const listenPort = nodeShape.optional("listenPort", values.integer(1, 65535));
    const node = this.#readNode(nodeShape, DEFAULT_CLUSTER);
    nodeShape.done();
    const given = nodeShape.take("addresses");
    if (Array.isArray(given) && given.length === 0) nodeShape.fault("addresses", "must not be empty");
    const settings = this.#readSettings(node);
    const selfName = `${node.cluster.name}/${node.name}`;
    if (privateKey !== undefined) this.#putMember(node, this.#context.publicKeyOf(privateKey), []);
    const names = this.#readPeers(node.cluster);
    this.#readIps(node.cluster, names);
    this.#readPolicies();
    this.#root.list("services").forEach((item, i) => {
      this.#objects.putService(item, (message) => void this.#faults.push({ path: ["services", i], message }));
    });
    for (const [key, value] of this.#objects.finish()) this.#entries.set(key, value);
    this.#root.done();
    if (this.#faults.length > 0 || privateKey === undefined) return undefined;
    this.#entries.set("settings", settings);
    for (const [name, labels] of this.#namespaces) this.#entries.set(`namespace/${name}`, { labels });
    for (const [id, labels] of this.#identities.all) this.#entries.set(`identity/${id}`, { labels });
    const frame: SnapshotFrame = {
      t: "snapshot",
      epoch: "mesh-file",
      revision: this.#context.revision,
      entries: [...this.#entries],
    };
    return { selfName, privateKey, listenPort, frame, peerOptions: this.#peerOptions };
  }

  #readNode(shape: Shape, defaultCluster: ClusterRef): NodeFacts {
    const cluster = shape.shape("cluster");
    const clusterRef = {
      name: cluster?.required("name", values.clusterName) ?? defaultCluster.name,
      id: cluster?.required("id", values.integer(1, 255)) ?? defaultCluster.id,
    };
    cluster?.done();
    const namespace = shape.optional("namespace", values.dnsLabel) ?? "default";
    if (!this.#namespaces.has(namespace)) this.#namespaces.set(namespace, {});
    shape.take("addresses");
    if (!shape.has("addresses")) shape.fault("addresses", "is missing");
    return {
      shape,
      name: shape.required("name", values.dnsName) ?? "",
      cluster: clusterRef,
      addresses: shape.texts("addresses", prefixOrAddress),
      underlay: shape.optional("underlay", address),
      namespace,
      labels: shape.map("labels", (text, key) => values.label(`${key}=${text}`)[1]),
      namedPorts: Object.values(shape.map("namedPorts", namedPort)),
      aeads: shape.texts("aeads", memberAead),
      network: shape.optional("network", values.networkName) ?? "",
      identity: shape.optional("identity", values.integer(1, 0xffffff)),
    };
  }

  #putMember(node: NodeFacts, publicKey: Uint8Array, endpoints: readonly string[]): void {
    const labels = labelsOfMember({
      cluster: node.cluster.name,
      namespace: node.namespace,
      namespaceLabels: this.#namespaces.get(node.namespace) ?? {},
      labels: node.labels,
    });
    const identity = this.#identities.identityOf(labels, node.identity, node.cluster.id);
    if (typeof identity === "string") return void node.shape.fault("identity", identity);
    const hosts = node.addresses.map(hostOf);
    const underlay = node.underlay ?? hosts[0];
    if (underlay === undefined) return void node.shape.fault("underlay", "is missing");
    const key = `member/${node.cluster.name}/${node.name}`;
    if (this.#entries.has(key)) return void node.shape.fault("name", "is the name of another node too");
    this.#entries.set(key, {
      name: node.name,
      cluster: node.cluster,
      publicKey,
      deviceKey: new Uint8Array(KEY_BYTES), // nobody authenticates to a hub here
      addresses: hosts,
      underlay,
      endpoints,
      namespace: node.namespace,
      labels: node.labels,
      namedPorts: node.namedPorts,
      aeads: node.aeads,
      network: node.network,
      identity,
      notBefore: 0,
      notAfter: FOREVER,
      isHub: false,
    } as unknown as EntryValue);
  }

  /** @returns peers by the name that `ips` may use */
  #readPeers(nodeCluster: ClusterRef): ReadonlySet<string> {
    const names = new Set<string>();
    for (const shape of this.#root.shapes("peers")) {
      const facts = this.#readNode(shape, nodeCluster);
      const publicKey = shape.required("publicKey", wireguardKey);
      const presharedKey = this.#readKey(shape, "presharedKey", false);
      const at = shape.optional("endpoint", endpoint);
      const keepaliveSeconds = shape.optional("persistentKeepalive", values.integer(0, 65535)) ?? 0;
      shape.done();
      const name = `${facts.cluster.name}/${facts.name}`;
      names.add(name);
      this.#peerOptions.set(name, { keepaliveSeconds, ...(presharedKey === undefined ? {} : { presharedKey }) });
      if (publicKey === undefined) continue;
      const hosts = facts.addresses.filter(isHost);
      const underlay = facts.underlay ?? (facts.addresses[0] === undefined ? undefined : hostOf(facts.addresses[0]));
      this.#putMember({ ...facts, addresses: hosts, underlay }, publicKey, at === undefined ? [] : [at]);
      const identity = (this.#entries.get(`member/${name}`) as { identity?: number } | undefined)?.identity;
      if (identity === undefined) continue;
      for (const prefix of facts.addresses.filter((text) => !isHost(text))) {
        this.#entries.set(`ip/${values.cidr(prefix)}`, { identity, member: name });
      }
    }
    return names;
  }

  #readIps(cluster: ClusterRef, names: ReadonlySet<string>): void {
    for (const shape of this.#root.shapes("ips")) {
      const prefix = shape.required("prefix", (text) => values.cidr(prefixOrAddress(text)));
      const identity = shape.required("identity", values.integer(1, 0xffffff));
      const peer = shape.optional("peer", values.nonEmpty);
      shape.done();
      const member = peer === undefined || peer.includes("/") ? peer : `${cluster.name}/${peer}`;
      if (member !== undefined && !names.has(member)) shape.fault("peer", `is no peer of this file ("${peer}")`);
      if (prefix === undefined || identity === undefined) continue;
      this.#entries.set(`ip/${prefix}`, { identity, ...(member === undefined ? {} : { member }) });
    }
  }

  #readSettings(node: NodeFacts): MeshSettings {
    const routing = this.#root.shape("routing");
    const settings: MeshSettings = {
      cluster: node.cluster,
      routing: {
        mode: routing?.optional("mode", values.choice("tunnel", "native", "hybrid")) ?? "tunnel",
        tunnelProtocol: routing?.optional("tunnelProtocol", values.choice("geneve", "vxlan")) ?? "geneve",
        encryption: routing?.optional("encryption", values.choice("wireguard", "none")) ?? "wireguard",
      },
      policy: readPolicyBlock(this.#root.shape("policy")),
      memberCidrs: [...new Set(node.addresses.filter((prefix) => !isHost(prefix)).map(values.cidr))],
    };
    routing?.done();
    const fault = routingFault(settings.routing);
    if (fault !== undefined) routing?.fault("encryption", `cannot be so: ${fault}`);
    return settings;
  }

  #readNamespaces(): void {
    const shape = this.#root.shape("namespaces");
    for (const name of shape?.names() ?? []) {
      const inner = shape!.shape(name);
      try {
        values.dnsLabel(name);
      } catch (error) {
        shape!.fault(name, messageOf(error));
      }
      this.#namespaces.set(name, inner?.map("labels", (text, key) => values.label(`${key}=${text}`)[1]) ?? {});
      inner?.done();
    }
  }

  #readIdentities(): void {
    for (const shape of this.#root.shapes("identities")) {
      const id = shape.required("id", values.integer(1, 0xffffff));
      const labels: Labels = shape.map("labels", (text) => text);
      shape.done();
      const wrong = id === undefined ? undefined : this.#identities.add(id, labels);
      if (wrong !== undefined) shape.fault("id", wrong);
    }
  }

  /** `<name>` holds the key itself, `<name>File` the name of a file with it, relative to the mesh file. */
  #readKey(shape: Shape, name: string, isNeeded: boolean): Uint8Array | undefined {
    if (shape.has(name) && shape.has(`${name}File`)) {
      return shape.fault(name, `is given twice: here and by "${name}File"`);
    }
    if (shape.has(name)) return shape.required(name, wireguardKey);
    const path = shape.optional(`${name}File`, values.path);
    shape.take(name);
    if (path === undefined) return isNeeded ? shape.fault(`${name}File`, "is missing") : undefined;
    try {
      return wireguardKey(readFileSync(join(isAbsolute(path) ? "" : this.#folder, path), "utf8"));
    } catch (error) {
      const wrong = messageOf(error);
      return shape.fault(
        `${name}File`,
        wrong.startsWith("must") ? `names a file that ${wrong}` : `cannot be read: ${wrong}`,
      );
    }
  }

  #readPolicies(): void {
    this.#root.list("policies").forEach((item, i) => {
      const fail = (message: string) => void this.#faults.push({ path: ["policies", i], message });
      if (typeof item === "object" && item !== null) return this.#objects.put(item, fail);
      if (typeof item !== "string") return fail("must be a document, a file or a folder");
      for (const file of this.#policyFiles(item, fail)) this.#readPolicyFile(file, fail);
    });
  }

  #policyFiles(item: string, fail: (message: string) => void): readonly string[] {
    const path = isAbsolute(item) ? item : join(this.#folder, item);
    try {
      if (!statSync(path).isDirectory()) return [path];
      return readdirSync(path).filter((name) => /\.(ya?ml|json)$/.test(name)).sort().map((name) => join(path, name));
    } catch (error) {
      fail(`names "${item}", which cannot be read: ${messageOf(error)}`);
      return [];
    }
  }

  #readPolicyFile(path: string, fail: (message: string) => void): void {
    let text: string;
    try {
      text = readFileSync(path, "utf8");
    } catch (error) {
      return fail(`names "${path}", which cannot be read: ${messageOf(error)}`);
    }
    const manifest = readManifest(text);
    if ("errors" in manifest) {
      for (const { message, position } of manifest.errors) fail(`names "${path}", line ${position.line}: ${message}`);
      return;
    }
    for (const { value, position } of manifest.documents) {
      this.#objects.put(
        value,
        (message) => fail(`names "${path}", where the document of line ${position.line} ${message}`),
      );
    }
  }
}

function isAbsolute(path: string): boolean {
  return path.startsWith("/");
}
