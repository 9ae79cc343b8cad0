/**
 * The join exchange: what a device sends, what it proves, what it gets.
 *
 *     device                                hub
 *       TLS, CA checked against the token's pin
 *       ask for a challenge          ->
 *                                    <-     challenge (32 octets, single use, short-lived)
 *       JoinRequest with proof       ->
 *       and device signature         <-     JoinAnswer or JoinRefusal
 *
 * The proof shows knowledge of the token's secret without sending it, and is bound to everything that the device asks for;
 * the signature shows that the device holds its key. Both are over `transcriptOf`.
 */
import { hmac } from "@noble/hashes/hmac.js";
import { sha256 } from "@noble/hashes/sha2.js";
import { equalConstantTime } from "../bytes/compare.ts";
import type { MeshSettings, NamedPort, SignedRecord } from "../mesh/entries.ts";
import { isCount, isObject, readList, readTextMap } from "./json.ts";
import { readNamedPort } from "./records.ts";
import { verifierOf } from "./token.ts";

export const CHALLENGE_BYTES = 32;

/** What a device asks for. Text fields that the device leaves to the hub are empty. */
export interface JoinRequest {
  /** from the hub, 32 octets */
  readonly challenge: Uint8Array;
  /** 8 octets */
  readonly tokenId: Uint8Array;
  /** Ed25519 public key, 32 octets: who the device is to its hub from now on */
  readonly deviceKey: Uint8Array;
  /** WireGuard public key, 32 octets */
  readonly publicKey: Uint8Array;
  /** the pin that the device checked the hub against, 32 octets */
  readonly caPin: Uint8Array;
  /** wanted member name, or "" */
  readonly name: string;
  /** wanted namespace, or "" */
  readonly namespace: string;
  readonly labels: Readonly<Record<string, string>>;
  readonly namedPorts: readonly NamedPort[];
  /** the device's own address on its network, or "" */
  readonly localAddress: string;
  /** UDP port that its WireGuard listens on */
  readonly listenPort: number;
  /** HMAC-SHA256 over the transcript, 32 octets */
  readonly proof: Uint8Array;
  /** Ed25519 by the device key over "edgemesh join device v1" || 0x00 || transcript, 64 octets */
  readonly signature: Uint8Array;
}

/** What the proof and the signature are about: a request without them. */
export type JoinTranscript = Omit<JoinRequest, "proof" | "signature">;

/** A hub's yes. The same request of the same device gets the same answer for 15 minutes. */
export interface JoinAnswer {
  /** "pending": an administrator must approve first; everything else is already settled */
  readonly status: "joined" | "pending";
  /** history of the hub's revisions, and the hub's clock */
  readonly epoch: string;
  readonly unixMs: number;
  readonly name: string;
  readonly addresses: readonly string[];
  /** the device's own record, signed */
  readonly record: SignedRecord;
  /** Ed25519 public key that records are signed with */
  readonly recordKey: Uint8Array;
  readonly settings: MeshSettings;
}

/**
 * The octets that a device proves and signs: a fixed heading, then every field behind its length (u32, network order), lists
 * behind their count. So no two different requests have the same transcript.
 */
export function transcriptOf(request: JoinTranscript): Uint8Array {
  const fields: (Uint8Array | string)[] = [
    "edgemesh join transcript v1",
    request.challenge,
    request.tokenId,
    request.deviceKey,
    request.publicKey,
    request.caPin,
    request.name,
    request.namespace,
    request.localAddress,
    String(request.listenPort),
    String(Object.keys(request.labels).length),
  ];
  for (const key of Object.keys(request.labels).sort()) fields.push(key, request.labels[key]!);
  fields.push(String(request.namedPorts.length));
  for (const port of request.namedPorts) fields.push(port.name, String(port.port), port.protocol);
  return joinFields(fields);
}

/** The device's side: the proof for a transcript. */
export function proveJoin(secret: Uint8Array, transcript: Uint8Array): Uint8Array {
  return hmac(sha256, verifierOf(secret), transcript);
}

/** The hub's side, with what it kept of the secret. Constant time. */
export function isJoinProof(verifier: Uint8Array, transcript: Uint8Array, proof: Uint8Array): boolean {
  return equalConstantTime(hmac(sha256, verifier, transcript), proof);
}

/** What the device key signs in a join. */
export function deviceMessageOf(transcript: Uint8Array): Uint8Array {
  return withHeading("edgemesh join device v1", transcript);
}

/** What the hub's record key signs: "edgemesh member record v1" || 0x00 || record. */
export function recordMessageOf(record: Uint8Array): Uint8Array {
  return withHeading("edgemesh member record v1", record);
}

function withHeading(heading: string, bytes: Uint8Array): Uint8Array {
  const head = new TextEncoder().encode(heading + "\0");
  const message = new Uint8Array(head.length + bytes.length);
  message.set(head);
  message.set(bytes, head.length);
  return message;
}

function joinFields(fields: readonly (Uint8Array | string)[]): Uint8Array {
  const parts = fields.map((field) => typeof field === "string" ? new TextEncoder().encode(field) : field);
  const bytes = new Uint8Array(parts.reduce((sum, part) => sum + 4 + part.length, 0));
  const view = new DataView(bytes.buffer);
  let at = 0;
  for (const part of parts) {
    view.setUint32(at, part.length);
    bytes.set(part, at + 4);
    at += 4 + part.length;
  }
  return bytes;
}

/**
 * Reads a request that came over the network; `undefined` for anything that is not exactly one. Only shapes are checked here,
 * whether the wishes in it are granted is `token_rules.ts`.
 */
export function readJoinRequest(value: unknown): JoinRequest | undefined {
  if (!isObject(value)) return undefined;
  const { name, namespace, localAddress, listenPort } = value;
  const octets = (key: string, count: number) => {
    const bytes = value[key];
    return bytes instanceof Uint8Array && bytes.length === count ? new Uint8Array(bytes) : undefined;
  };
  const challenge = octets("challenge", CHALLENGE_BYTES);
  const tokenId = octets("tokenId", 8);
  const deviceKey = octets("deviceKey", 32);
  const publicKey = octets("publicKey", 32);
  const caPin = octets("caPin", 32);
  const proof = octets("proof", 32);
  const signature = octets("signature", 64);
  const labels = readTextMap(value["labels"]);
  const namedPorts = readList(value["namedPorts"], readNamedPort);
  if (!challenge || !tokenId || !deviceKey || !publicKey || !caPin || !proof || !signature) return undefined;
  if (!labels || !namedPorts || !isShort(name) || !isShort(namespace) || !isShort(localAddress)) return undefined;
  if (!isCount(listenPort) || listenPort > 65535) return undefined;
  return {
    challenge,
    tokenId,
    deviceKey,
    publicKey,
    caPin,
    name,
    namespace,
    labels,
    namedPorts,
    localAddress,
    listenPort,
    proof,
    signature,
  };
}

function isShort(value: unknown): value is string {
  return typeof value === "string" && value.length <= 255;
}
