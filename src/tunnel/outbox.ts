/**
 * Messages that the device wants sent: handshakes, cookie replies and keepalives. The loop drains it after each batch,
 * control message and tick: `WireGuard.writeOutgoing` for each, then `clear`. Entries are reused.
 */
import { INITIATION_BYTES } from "../wire/wg_message.ts";
import type { Peer } from "./peer.ts";
import type { Session } from "./session.ts";

/** One message to send. Valid until `clear`. */
export class OutgoingMessage {
  /** who it goes to; none for a cookie reply, and when the peer was removed meanwhile */
  peer: Peer | undefined = undefined;
  /** a keepalive of this session, sealed when it is written out; else the message is in `bytes` */
  session: Session | undefined = undefined;
  /** arena offset of the address record to send to */
  toAt = 0;
  /** octets of `bytes` that are the message; 0 for a keepalive */
  size = 0;
  readonly bytes = new Uint8Array(INITIATION_BYTES);
}

export class Outbox {
  readonly #entries: OutgoingMessage[] = [];
  #count = 0;
  /** spare address records in use */
  replies = 0;

  get count(): number {
    return this.#count;
  }

  /** @param i 0 to `count` - 1 */
  at(i: number): OutgoingMessage {
    return this.#entries[i]!;
  }

  /** A fresh entry at the end. The caller fills `bytes` and `size`, or `session`. */
  add(peer: Peer | undefined, toAt: number): OutgoingMessage {
    if (this.#count === this.#entries.length) this.#entries.push(new OutgoingMessage());
    const message = this.#entries[this.#count++]!;
    message.peer = peer;
    message.session = undefined;
    message.toAt = toAt;
    message.size = 0;
    return message;
  }

  /** Takes back the newest entry. */
  dropLast(): void {
    this.#count--;
  }

  /** Empties the messages to a peer that is being removed, so that its address record can go. */
  dropPeer(peer: Peer): void {
    for (let i = 0; i < this.#count; i++) {
      const message = this.#entries[i]!;
      if (message.peer !== peer) continue;
      message.peer = undefined;
      message.session = undefined;
      message.size = 0;
    }
  }

  clear(): void {
    for (let i = 0; i < this.#count; i++) {
      this.#entries[i]!.peer = undefined;
      this.#entries[i]!.session = undefined;
    }
    this.#count = 0;
    this.replies = 0;
  }
}
