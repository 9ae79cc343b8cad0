/**
 * State frames as octets, encoded once for all members that get the same. The layout is plain MessagePack of `StateFrame`
 * (`src/mesh/entries.ts`); entries are encoded once each and copied into every frame that holds them.
 */
import { Packr } from "msgpackr";
import type { EntryValue, StateFrame } from "../../src/mesh/entries.ts";

/** A key and its value, as it stands in frames. The same object wherever the same entry is sent. */
export type FrameEntry = readonly [key: string, value: EntryValue];

const packr = new Packr({ useRecords: false, variableMapSize: true });
const encodedFrames = new WeakMap<StateFrame, Uint8Array>();

/** The octets of a frame; cached for as long as the frame object lives. The caller must not change them. */
export function encodeFrame(frame: StateFrame): Uint8Array {
  let bytes = encodedFrames.get(frame);
  if (bytes === undefined) {
    bytes = new Uint8Array(packr.pack(frame));
    encodedFrames.set(frame, bytes);
  }
  return bytes;
}
