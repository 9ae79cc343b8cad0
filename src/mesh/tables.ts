/**
 * What the datapath holds, made from the checked entries: this node, its peers, and the ipcache. Each update is compared with
 * what was sent before, and only the difference goes out. Used by `MeshState`.
 *
 * The result depends on the entries alone, not on the order in which they came: this member's own record claims first, the
 * others in the order of their names; a claim on a key or an address that is taken is refused.
 */
import { toHex } from "../bytes/text.ts";
import type { DatapathCommand, PutIp, PutPeer, SetSelf } from "../datapath/control.ts";
import { formatPrefix, maskedPrefix, parseAddress, parsePrefix } from "../ip/address.ts";
import { parseUnderlayAddr } from "../ip/underlay_addr.ts";
import type { IpEntry, MemberRecord, MeshSettings } from "./entries.ts";
import { agreedAead } from "./agreed_aead.ts";
import { equalData } from "./equal_data.ts";
import { modeBetween, plainAddressOf } from "./routing.ts";

/** How long past its `notAfter` a record is still used: the hub may be away for long, and drawers are deep. */
export const RECORD_GRACE_MS = 30 * 86_400_000;

/** What a peer gets beyond its record. */
export interface PeerOptions {
  readonly presharedKey?: Uint8Array;
  /** 0 = off */
  readonly keepaliveSeconds: number;
}

/** The entries that tables are made from. */
export interface TableInputs {
  readonly selfName: string;
  readonly settings: MeshSettings | undefined;
  readonly members: ReadonlyMap<string, MemberRecord>;
  readonly ips: ReadonlyMap<string, IpEntry>;
  readonly peerOptions: (member: MemberRecord) => PeerOptions;
  /** for `notAfter` */
  readonly trustedUnixMs: number;
}

/** The tables as last sent. */
export class MeshTables {
  #self: SetSelf | undefined;
  #members = new Map<string, MemberRecord>();
  #conflicts = new Map<string, string>();
  #peers = new Map<string, PutPeer>();
  #ips = new Map<string, PutIp>();

  /** Members that own all they claim and are in time, by "<cluster>/<name>"; this one among them. */
  get members(): ReadonlyMap<string, MemberRecord> {
    return this.#members;
  }

  /** Entry keys of members and prefixes that lost a claim or ran out, with the reason. */
  get conflicts(): ReadonlyMap<string, string> {
    return this.#conflicts;
  }

  /** Everything, for a datapath that holds nothing yet. */
  all(): readonly DatapathCommand[] {
    return [...(this.#self ? [this.#self] : []), ...this.#peers.values(), ...this.#ips.values()];
  }

  /** Makes all tables anew. @returns what differs from before, in the order in which it must be applied */
  update(inputs: TableInputs): { commands: DatapathCommand[]; isSelfChanged: boolean } {
    this.#conflicts = new Map();
    this.#members = this.#electMembers(inputs);
    const self = selfOf(this.#members.get(inputs.selfName), inputs.settings);
    const peers = this.#peersOf(inputs);
    const ips = this.#ipsOf(inputs, peers);
    const isSelfChanged = !equalData(self, this.#self);
    const commands: DatapathCommand[] = [];
    // removals first: what is freed may be claimed by a put of the same message
    for (const [prefix, ip] of this.#ips) if (!ips.has(prefix)) commands.push({ op: "removeIp", prefix: ip.prefix });
    for (const [key, peer] of this.#peers) {
      if (!peers.has(key)) commands.push({ op: "removePeer", publicKey: peer.publicKey });
    }
    if (isSelfChanged && self !== undefined) commands.push(self);
    for (const [key, peer] of peers) if (!equalData(peer, this.#peers.get(key))) commands.push(peer);
    for (const [prefix, ip] of ips) if (!equalData(ip, this.#ips.get(prefix))) commands.push(ip);
    this.#self = self;
    this.#peers = peers;
    this.#ips = ips;
    return { commands, isSelfChanged };
  }

  /** The quick way when only `ip/` entries changed: looks at those prefixes alone, with the same result as `update`. */
  updateIps(prefixes: ReadonlySet<string>, inputs: TableInputs): DatapathCommand[] {
    const commands: DatapathCommand[] = [];
    const ownedByMember = this.#memberPrefixes();
    for (const prefix of prefixes) {
      if (ownedByMember.has(prefix)) continue;
      const entry = inputs.ips.get(prefix);
      const before = this.#ips.get(prefix);
      const after = entry === undefined ? undefined : this.#ipOf(prefix, entry, inputs.selfName);
      if (after === undefined) this.#ips.delete(prefix);
      else this.#ips.set(prefix, after);
      if (after === undefined && before !== undefined) commands.push({ op: "removeIp", prefix: before.prefix });
      else if (after !== undefined && !equalData(before, after)) commands.push(after);
    }
    return commands;
  }

  /** Prefixes that belong into the TUN device, none covered by another: members' prefixes and all that lies behind peers. */
  routes(settings: MeshSettings | undefined): readonly string[] {
    const wanted = new Set(settings?.memberCidrs ?? []);
    for (const [prefix, ip] of this.#ips) if (ip.peer !== undefined) wanted.add(prefix);
    return withoutCovered(wanted);
  }

  /** Prefixes of the ipcache that are behind a peer. */
  prefixesBehind(publicKey: Uint8Array): readonly string[] {
    return [...this.#ips].filter(([, ip]) => ip.peer !== undefined && equalData(ip.peer, publicKey)).map(([prefix]) =>
      prefix
    );
  }

  #electMembers(inputs: TableInputs): Map<string, MemberRecord> {
    const elected = new Map<string, MemberRecord>();
    const claims = new Map<string, string>();
    const names = [...inputs.members.keys()].filter((name) => name !== inputs.selfName).sort();
    if (inputs.members.has(inputs.selfName)) names.unshift(inputs.selfName);
    for (const name of names) {
      const member = inputs.members.get(name)!;
      const reason = name === inputs.selfName ? undefined : reasonAgainst(member, claims, inputs.trustedUnixMs);
      if (reason !== undefined) {
        this.#conflicts.set(`member/${name}`, reason);
        continue;
      }
      for (const claim of claimsOf(member)) claims.set(claim, name);
      elected.set(name, member);
    }
    return elected;
  }

  #peersOf(inputs: TableInputs): Map<string, PutPeer> {
    const peers = new Map<string, PutPeer>();
    const self = this.#members.get(inputs.selfName);
    const own = self?.aeads ?? [];
    const { settings } = inputs;
    const isPlain = settings?.routing.encryption === "none";
    for (const [name, member] of this.#members) {
      if (name === inputs.selfName) continue;
      const { presharedKey, keepaliveSeconds } = inputs.peerOptions(member);
      const endpoint = member.endpoints[0] === undefined ? undefined : parseUnderlayAddr(member.endpoints[0]);
      const aead = agreedAead(own, member.aeads);
      const plain = settings && plainAddressOf(member, settings);
      peers.set(toHex(member.publicKey), {
        op: "peer",
        name,
        publicKey: member.publicKey,
        ...(presharedKey === undefined ? {} : { presharedKey }),
        // without an endpoint or keepalives no handshake is ever begun
        ...(endpoint === undefined || isPlain ? {} : { endpoint }),
        keepaliveSeconds: isPlain ? 0 : keepaliveSeconds,
        underlay: parseAddress(member.underlay)!,
        mode: settings === undefined ? "tunnel" : modeBetween(self, member, settings.routing),
        ...(plain === undefined ? {} : { plain }),
        ...(aead === undefined ? {} : { aead }),
      });
    }
    return peers;
  }

  #ipsOf(inputs: TableInputs, peers: ReadonlyMap<string, PutPeer>): Map<string, PutIp> {
    const ips = new Map<string, PutIp>();
    for (const peer of peers.values()) {
      const member = this.#members.get(peer.name)!;
      for (const prefix of hostPrefixesOf(member)) {
        ips.set(prefix, { op: "ip", prefix: parsePrefix(prefix)!, identity: member.identity, peer: member.publicKey });
      }
    }
    const ownedByMember = this.#memberPrefixes();
    for (const [prefix, entry] of inputs.ips) {
      const ip = ownedByMember.has(prefix) ? undefined : this.#ipOf(prefix, entry, inputs.selfName);
      if (ip !== undefined) ips.set(prefix, ip);
    }
    return ips;
  }

  /** A prefix behind a member that is not usable is known, not reachable; one behind ourselves needs no entry. */
  #ipOf(prefix: string, entry: IpEntry, selfName: string): PutIp | undefined {
    if (entry.member === selfName) return undefined;
    const peer = entry.member === undefined ? undefined : this.#members.get(entry.member)?.publicKey;
    return {
      op: "ip",
      prefix: parsePrefix(prefix)!,
      identity: entry.identity,
      ...(peer === undefined ? {} : { peer }),
    };
  }

  #memberPrefixes(): ReadonlySet<string> {
    const prefixes = new Set<string>();
    for (const member of this.#members.values()) for (const prefix of hostPrefixesOf(member)) prefixes.add(prefix);
    return prefixes;
  }
}

function selfOf(self: MemberRecord | undefined, settings: MeshSettings | undefined): SetSelf | undefined {
  if (self === undefined || settings === undefined) return undefined;
  const plain = plainAddressOf(self, settings);
  return {
    op: "self",
    addresses: self.addresses.map((address) => parseAddress(address)!),
    underlay: parseAddress(self.underlay)!,
    identity: self.identity,
    tunnelProtocol: settings.routing.tunnelProtocol,
    encryption: settings.routing.encryption,
    acceptsNative: settings.routing.mode !== "tunnel",
    ...(plain === undefined ? {} : { plain }),
  };
}

function claimsOf(member: MemberRecord): string[] {
  return [
    `key ${toHex(member.publicKey)}`,
    `underlay ${member.underlay}`,
    ...member.addresses.map((a) => `address ${a}`),
  ];
}

function reasonAgainst(member: MemberRecord, claims: ReadonlyMap<string, string>, unixMs: number): string | undefined {
  if (unixMs > member.notAfter + RECORD_GRACE_MS) return "record ran out and was not renewed";
  const taken = claimsOf(member).find((claim) => claims.has(claim));
  if (taken === undefined) return undefined;
  const what = taken.startsWith("key ") ? "key" : taken;
  return `${what} belongs to ${claims.get(taken)}`;
}

function hostPrefixesOf(member: MemberRecord): string[] {
  return member.addresses.map((address) => `${address}/${address.includes(":") ? 128 : 32}`);
}

/** The prefixes that no other of them covers, sorted. */
function withoutCovered(prefixes: ReadonlySet<string>): readonly string[] {
  const lengths = [...new Set([...prefixes].map((prefix) => parsePrefix(prefix)!.length))].sort((a, b) => a - b);
  return [...prefixes].filter((text) => {
    const { address, length } = parsePrefix(text)!;
    return !lengths.some((shorter) =>
      shorter < length && prefixes.has(formatPrefix(maskedPrefix({ address, length: shorter })))
    );
  }).sort();
}
