/** DNS over TCP: each message behind two octets of length (RFC 1035 §4.2.2, RFC 7766 §8). */

const LENGTH_BYTES = 2;

/** A message as it is written to a stream. @param message at most 65535 octets */
export function frameOf(message: Uint8Array): Uint8Array {
  const frame = new Uint8Array(LENGTH_BYTES + message.length);
  frame[0] = message.length >> 8;
  frame[1] = message.length & 255;
  frame.set(message, LENGTH_BYTES);
  return frame;
}

/** Longest message that the length can tell. */
export const MAX_FRAME_BYTES = 0xffff;

/** Cuts a stream into messages, however it arrives. Holds less than one message and one chunk. */
export class FrameReader {
  readonly #maxBytes: number;
  #chunks: Uint8Array[] = [];
  #byteCount = 0;

  /** @param maxBytes longest message that is welcome */
  constructor(maxBytes: number) {
    this.#maxBytes = maxBytes;
  }

  /** Adds octets; they are kept, not copied, until their message is complete. @returns the messages that are, as copies; undefined for one that is too long: give the stream up */
  push(chunk: Uint8Array): readonly Uint8Array[] | undefined {
    this.#chunks.push(chunk);
    this.#byteCount += chunk.length;
    const wantedBytes = this.#wantedBytes();
    if (wantedBytes > LENGTH_BYTES + this.#maxBytes) return undefined;
    if (this.#byteCount < wantedBytes) return [];
    const bytes = this.#joined();
    const messages: Uint8Array[] = [];
    let at = 0;
    while (at + LENGTH_BYTES <= bytes.length) {
      const length = (bytes[at]! << 8) | bytes[at + 1]!;
      const end = at + LENGTH_BYTES + length;
      if (length > this.#maxBytes) return undefined;
      if (end > bytes.length) break;
      messages.push(new Uint8Array(bytes.subarray(at + LENGTH_BYTES, end)));
      at = end;
    }
    this.#chunks = at < bytes.length ? [new Uint8Array(bytes.subarray(at))] : [];
    this.#byteCount = bytes.length - at;
    return messages;
  }

  /** Octets until the first message is complete, as far as they can be told; the first chunk holds its length, mostly. */
  #wantedBytes(): number {
    const first = this.#chunks[0]!;
    return first.length < LENGTH_BYTES ? LENGTH_BYTES : LENGTH_BYTES + ((first[0]! << 8) | first[1]!);
  }

  #joined(): Uint8Array {
    if (this.#chunks.length === 1) return this.#chunks[0]!;
    const bytes = new Uint8Array(this.#byteCount);
    let at = 0;
    for (const chunk of this.#chunks) {
      bytes.set(chunk, at);
      at += chunk.length;
    }
    return bytes;
  }
}
