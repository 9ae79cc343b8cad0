/**
 * State frames as octets, encoded once for all members that get the same. The layout is plain MessagePack of `StateFrame`
 * (`src/mesh/entries.ts`); entries are encoded once each and copied into every frame that holds them, because a snapshot is
 * made anew for every member of a mesh that grows.
 */
import { writeU32 } from "../../src/bytes/integers.ts";
import type { EntryValue, StateFrame } from "../../src/mesh/entries.ts";
import { FRAME_HEADER_BYTES } from "../sync/frames.ts";
import { encodeMsgpack } from "../sync/msgpack.ts";

/** A key and its value, as it stands in frames. The same object wherever the same entry is sent. */
export type FrameEntry = readonly [key: string, value: EntryValue];

const encodedFrames = new WeakMap<StateFrame, Uint8Array>();
const encodedEntries = new WeakMap<FrameEntry, Uint8Array>();

const MAP_OF_4 = 0x84;
const ARRAY_32 = 0xdd;

/** The octets of a frame; cached for as long as the frame object lives. The caller must not change them. */
export function encodeFrame(frame: StateFrame): Uint8Array {
  let bytes = encodedFrames.get(frame);
  if (bytes === undefined) {
    bytes = joinParts(frame.t === "snapshot" ? snapshotParts(frame) : deltaParts(frame));
    encodedFrames.set(frame, bytes);
  }
  return bytes;
}

function snapshotParts(frame: Extract<StateFrame, { t: "snapshot" }>): Uint8Array[] {
  const head = ["t", frame.t, "epoch", frame.epoch, "revision", frame.revision, "entries"].map(encodeMsgpack);
  return [Uint8Array.of(MAP_OF_4), ...head, ...arrayParts(frame.entries)];
}

function deltaParts(frame: Extract<StateFrame, { t: "delta" }>): Uint8Array[] {
  const head = ["t", frame.t, "revision", frame.revision, "puts"].map(encodeMsgpack);
  const deletes = ["deletes", frame.deletes].map(encodeMsgpack);
  return [Uint8Array.of(MAP_OF_4), ...head, ...arrayParts(frame.puts), ...deletes];
}

function arrayParts(entries: readonly FrameEntry[]): Uint8Array[] {
  const count = entries.length;
  const header = Uint8Array.of(ARRAY_32, count >>> 24, count >>> 16, count >>> 8, count);
  return [header, ...entries.map(entryBytes)];
}

function entryBytes(entry: FrameEntry): Uint8Array {
  let bytes = encodedEntries.get(entry);
  if (bytes === undefined) {
    bytes = encodeMsgpack(entry);
    encodedEntries.set(entry, bytes);
  }
  return bytes;
}

function joinParts(parts: readonly Uint8Array[]): Uint8Array {
  const bytes = new Uint8Array(parts.reduce((sum, part) => sum + part.length, 0));
  let at = 0;
  for (const part of parts) {
    bytes.set(part, at);
    at += part.length;
  }
  return bytes;
}

const framedStates = new WeakMap<StateFrame, Uint8Array>();

/** A state frame with its length in front; the same octets for all members that get the same object. */
export function framedState(frame: StateFrame): Uint8Array {
  let bytes = framedStates.get(frame);
  if (bytes === undefined) {
    const body = encodeFrame(frame);
    bytes = new Uint8Array(FRAME_HEADER_BYTES + body.length);
    writeU32(bytes, 0, body.length);
    bytes.set(body, FRAME_HEADER_BYTES);
    framedStates.set(frame, bytes);
  }
  return bytes;
}
