/** Two ends of a stream in memory; what one writes the other reads. Backpressure is real: the peer must read. */
import { Duplex } from "node:stream";

class End extends Duplex {
  peer: End | undefined;
  #onRead: (() => void) | undefined;

  override _read(): void {
    const onRead = this.#onRead;
    this.#onRead = undefined;
    onRead?.();
  }

  override _write(chunk: Buffer, _encoding: string, done: (error?: Error) => void): void {
    const { peer } = this;
    if (peer === undefined || peer.destroyed) return done();
    if (peer.push(chunk)) return done();
    peer.#onRead = () => done();
  }

  override _final(done: () => void): void {
    this.peer?.push(null);
    done();
  }

  override _destroy(error: Error | null, done: (error?: Error | null) => void): void {
    const { peer } = this;
    this.peer = undefined;
    if (peer !== undefined && !peer.destroyed && !peer.readableEnded) setImmediate(() => peer.destroy());
    done(error);
  }
}

export function duplexPair(): [Duplex, Duplex] {
  const a = new End();
  const b = new End();
  a.peer = b;
  b.peer = a;
  return [a, b];
}
