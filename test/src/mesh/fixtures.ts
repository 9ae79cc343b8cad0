/** Entries of a small mesh for the tests of this room. Signatures are made by a stand-in: the record's first octets, repeated. */
import type { EntryValue, MemberRecord, MeshSettings, SignedRecord } from "../../../src/mesh/entries.ts";
import { MeshState, type MeshStateOptions } from "../../../src/mesh/state.ts";

export const RECORD_KEY = new Uint8Array(32).fill(7);
export const NOW_MS = Date.UTC(2026, 10, 24);

export const SETTINGS: MeshSettings = {
  cluster: { name: "edge1", id: 1 },
  routing: { mode: "tunnel", tunnelProtocol: "geneve", encryption: "wireguard" },
  policy: { enforcementMode: "default", defaultLocalCluster: true, allowLocalhost: "always" },
  memberCidrs: ["10.9.0.0/16"],
};

/** A member whose key, addresses and identity come from one small number. */
export function memberOf(number: number, changes: Partial<MemberRecord> = {}): MemberRecord {
  return {
    name: `m${number}`,
    cluster: { name: "edge1", id: 1 },
    publicKey: new Uint8Array(32).fill(number),
    deviceKey: new Uint8Array(32).fill(100 + number),
    addresses: [`10.9.0.${number}`, `fd09::${number}`],
    underlay: `172.31.0.${number}`,
    endpoints: [`192.0.2.${number}:51871`],
    network: "",
    namespace: "default",
    labels: { app: `app${number}` },
    namedPorts: [],
    aeads: [],
    identity: 65536 + 256 + number,
    notBefore: 0,
    notAfter: NOW_MS + 30 * 86_400_000,
    isHub: number === 1,
    ...changes,
  };
}

// JSON with octets as lists is enough of a codec here
const encode = (record: MemberRecord): Uint8Array =>
  new TextEncoder().encode(
    JSON.stringify(record, (_, value) => value instanceof Uint8Array ? { octets: [...value] } : value),
  );
export const decode = (bytes: Uint8Array): unknown =>
  JSON.parse(new TextDecoder().decode(bytes), (_, value) => value?.octets ? new Uint8Array(value.octets) : value);

/** Sum of all octets: changes with any of them. */
function digest(bytes: Uint8Array): number {
  return bytes.reduce((sum, octet, i) => (sum + octet * (i + 1)) % 65_521, 0);
}

export function signed(record: MemberRecord, key = RECORD_KEY): SignedRecord {
  const bytes = encode(record);
  const heading = new TextEncoder().encode("edgemesh member record v1\0");
  const sum = digest(new Uint8Array([...key, ...heading, ...bytes]));
  const signature = new Uint8Array(64);
  signature[0] = sum >> 8;
  signature[1] = sum;
  return { record: bytes, signature };
}

export const ciphers = {
  verify: (key: Uint8Array, message: Uint8Array, signature: Uint8Array): boolean => {
    const sum = digest(new Uint8Array([...key, ...message]));
    return signature.length === 64 && signature[0] === sum >> 8 && signature[1] === (sum & 255);
  },
};

export function entryOf(record: MemberRecord): readonly [string, EntryValue] {
  return [`member/${record.cluster.name}/${record.name}`, signed(record)];
}

/** The state of member 2; member 1 is the hub. */
export function makeState(changes: Partial<MeshStateOptions> = {}): MeshState {
  return new MeshState({
    selfName: "edge1/m2",
    publicKey: new Uint8Array(32).fill(2),
    trust: { kind: "signed", keys: [RECORD_KEY], ciphers, decode },
    peerOptions: (member) => ({ keepaliveSeconds: member.isHub ? 25 : 0 }),
    ...changes,
  });
}

export function entriesOf(...numbers: number[]): (readonly [string, EntryValue])[] {
  return [["settings", SETTINGS], ...numbers.map((number) => entryOf(memberOf(number)))];
}
