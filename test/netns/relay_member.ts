/**
 * A member whose datapath hands flows to a proxy that passes everything on: the datapath Worker, the machine's network and a relay,
 * without policies and agent. Prints "ready", then one line per flow that its relay was given.
 *
 *   relay_member.ts '{"privateKey", "addresses", "underlay", "identity", "peer": {...}, "rules": {"ingress"?, "egress"?}}'
 */
import { Buffer } from "node:buffer";
import { createSocket, type Socket as UdpSocket } from "node:dgram";
import { connect, createServer } from "node:net";
import process from "node:process";
import { netlinkDoor } from "../../edge/agent/netlink_door.ts";
import { Network } from "../../edge/agent/network.ts";
import { startDatapath } from "../../edge/agent/link.ts";
import { PROXY_ROUTES, proxyClientAddress, proxyServerAddress } from "../../src/datapath/proxy_addresses.ts";
import { parseAddress, parsePrefixOrAddress } from "../../src/ip/address.ts";
import { parseUnderlayAddr } from "../../src/ip/underlay_addr.ts";
import { ALL_OFFLOADS, NO_OFFLOADS } from "../../src/offload/switches.ts";
import { policyOf, type TestRule } from "../fakes/mesh_node.ts";

export interface RelayConfig {
  readonly privateKey: string;
  readonly addresses: readonly string[];
  readonly underlay: string;
  readonly identity: number;
  readonly offload: boolean;
  readonly peer: {
    readonly publicKey: string;
    readonly endpoint: string;
    readonly underlay: string;
    readonly addresses: readonly string[];
    readonly identity: number;
  };
  readonly rules: { readonly ingress?: readonly TestRule[]; readonly egress?: readonly TestRule[] };
}

const PROXY_PORT = 31_000;
const MTU_BYTES = 1355;

const config = JSON.parse(process.argv[2]!) as RelayConfig;
const octets = (base64: string) => new Uint8Array(Buffer.from(base64, "base64"));
const families = [4, 6] as const;
const ownOf = (family: 4 | 6) => config.addresses.find((address) => address.includes(":") === (family === 6))!;

const link = startDatapath({
  tun: "edgemesh0",
  mtu: MTU_BYTES,
  wireguardPort: 51_871,
  privateKey: octets(config.privateKey),
  aead: "libsodium",
  memberAead: "off",
  offload: config.offload ? ALL_OFFLOADS : NO_OFFLOADS,
});
link.onEvent = (event) => console.log(JSON.stringify(event));
await link.ready;
const { peer } = config;
link.send([
  {
    op: "self",
    addresses: config.addresses.map((text) => parseAddress(text)!),
    underlay: parseAddress(config.underlay)!,
    identity: config.identity,
    tunnelProtocol: "geneve",
  },
  {
    op: "peer",
    name: "peer",
    publicKey: octets(peer.publicKey),
    endpoint: parseUnderlayAddr(peer.endpoint)!,
    keepaliveSeconds: 0,
    underlay: parseAddress(peer.underlay)!,
    mode: "tunnel",
  },
  ...peer.addresses.map((text) => ({
    op: "ip" as const,
    prefix: parsePrefixOrAddress(text)!,
    identity: peer.identity,
    peer: octets(peer.publicKey),
  })),
  { op: "policy", update: policyOf(1, config.rules.ingress, config.rules.egress) },
]);
const network = new Network(netlinkDoor());
network.apply({
  tun: "edgemesh0",
  mtuBytes: MTU_BYTES,
  addresses: config.addresses.map((address) => `${address}/${address.includes(":") ? 128 : 32}`),
  routes: [...peer.addresses.map((address) => `${address}/${address.includes(":") ? 128 : 32}`), ...PROXY_ROUTES],
});

/** The flow of a client, if it is one that the datapath made; says so. */
function note(family: 4 | 6, address: string | undefined, handle: number): boolean {
  const flow = address === proxyClientAddress(family) ? link.redirectedFlow(handle) : undefined;
  if (flow === undefined) return false;
  const { from, to, protocol, direction, identity } = flow;
  console.log(`flow ${protocol} ${direction} ${identity} ${from.address} ${from.port} ${to.address} ${to.port}`);
  return true;
}

function relayTcp(family: 4 | 6): Promise<void> {
  const server = createServer((client) => {
    const handle = client.remotePort ?? 0;
    client.on("error", () => {});
    if (!note(family, client.remoteAddress, handle)) return void client.destroy();
    const upstream = connect(handle, proxyServerAddress(family));
    upstream.on("error", () => client.destroy());
    client.on("close", () => upstream.destroy());
    client.pipe(upstream).pipe(client);
  });
  return new Promise((resolve) => server.listen(PROXY_PORT, ownOf(family), resolve));
}

function relayUdp(family: 4 | 6): Promise<void> {
  const type = family === 4 ? "udp4" : "udp6";
  const server = createSocket(type);
  const upstreams = new Map<number, UdpSocket>();
  server.on("message", (message, client) => {
    let upstream = upstreams.get(client.port);
    if (upstream === undefined) {
      if (!note(family, client.address, client.port)) return;
      upstream = createSocket(type);
      upstream.on("message", (answer) => server.send(answer, client.port, client.address));
      upstreams.set(client.port, upstream);
    }
    upstream.send(message, client.port, proxyServerAddress(family));
  });
  return new Promise((resolve) => server.bind(PROXY_PORT, ownOf(family), resolve));
}

// An IPv6 address takes a moment until it can be bound.
for (const family of families) {
  await relayTcp(family);
  await relayUdp(family);
}
link.send([{ op: "proxy", http: PROXY_PORT, dns: PROXY_PORT }]);
await link.settled();
console.log(`guard ${network.guardFault ?? "on"}`);
console.log("ready");

process.on("SIGTERM", () => {
  void link.flows(100).then(async (flows) => {
    console.log(`flows ${JSON.stringify(flows)}`);
    network.release();
    await link.stop();
    process.exit(0);
  });
});
