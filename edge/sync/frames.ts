/**
 * Frames of the sync stream: a length (u32, network order) and that many octets of MessagePack.
 *
 *     0  u32  length of the body, 1 to the reader's limit
 *     4  ...  body: one value of plain data (msgpack.ts)
 */
import { readU32, writeU32 } from "../../src/bytes/integers.ts";
import { decodeMsgpack, encodeMsgpack } from "./msgpack.ts";

export const FRAME_HEADER_BYTES = 4;
/** Longest frame that a hub takes from a member. */
export const MAX_MEMBER_FRAME_BYTES = 32_768;
/** Longest frame that a member takes from its hub: a snapshot of a large mesh. */
export const MAX_HUB_FRAME_BYTES = 64 * 1024 * 1024;

/** Why a stream of frames cannot be read on. */
export type FrameFault = "frame-empty" | "frame-too-long" | "frame-malformed";

/** A message as one frame. */
export function encodeFrame(message: unknown): Uint8Array {
  const body = encodeMsgpack(message);
  const frame = new Uint8Array(FRAME_HEADER_BYTES + body.length);
  writeU32(frame, 0, body.length);
  frame.set(body, FRAME_HEADER_BYTES);
  return frame;
}

/**
 * Cuts a stream into frames, however it was split into chunks. Memory grows with what has arrived, never with what a header claims.
 * Total: any octets give messages or a fault, none throws. After a fault or `stop` it takes nothing more.
 */
export class FrameReader {
  readonly #maxBytes: number;
  readonly #onMessage: (message: unknown) => void;
  readonly #header = new Uint8Array(FRAME_HEADER_BYTES);
  #headerBytes = 0;
  #bodyBytes = 0;
  #parts: Uint8Array[] = [];
  #arrivedBytes = 0;
  #isStopped = false;

  /** @param onMessage gets each message; octet strings in it are its own */
  constructor(maxBytes: number, onMessage: (message: unknown) => void) {
    this.#maxBytes = maxBytes;
    this.#onMessage = onMessage;
  }

  /** Takes the next octets; they may be reused afterwards. @returns a fault, once, when the stream is broken */
  push(chunk: Uint8Array): FrameFault | undefined {
    let at = 0;
    while (at < chunk.length && !this.#isStopped) {
      if (this.#headerBytes < FRAME_HEADER_BYTES) {
        this.#header[this.#headerBytes++] = chunk[at++]!;
        if (this.#headerBytes < FRAME_HEADER_BYTES) continue;
        this.#bodyBytes = readU32(this.#header, 0);
        if (this.#bodyBytes === 0) return this.#fail("frame-empty");
        if (this.#bodyBytes > this.#maxBytes) return this.#fail("frame-too-long");
        continue;
      }
      const count = Math.min(chunk.length - at, this.#bodyBytes - this.#arrivedBytes);
      this.#parts.push(Uint8Array.prototype.slice.call(chunk, at, at + count));
      this.#arrivedBytes += count;
      at += count;
      if (this.#arrivedBytes < this.#bodyBytes) continue;
      const message = decodeMsgpack(this.#takeBody());
      if (message === undefined) return this.#fail("frame-malformed");
      this.#onMessage(message);
    }
    return undefined;
  }

  /** Nothing more is read, not even the rest of the chunk being pushed. */
  stop(): void {
    this.#isStopped = true;
    this.#parts = [];
  }

  #takeBody(): Uint8Array {
    const body = new Uint8Array(this.#bodyBytes);
    let at = 0;
    for (const part of this.#parts) {
      body.set(part, at);
      at += part.length;
    }
    this.#parts = [];
    this.#arrivedBytes = 0;
    this.#headerBytes = 0;
    return body;
  }

  #fail(fault: FrameFault): FrameFault {
    this.stop();
    return fault;
  }
}
