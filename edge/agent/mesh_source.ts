/** The source of `run --mesh FILE`: gives the file's entries once, and again when the file is read anew. */
import type { SnapshotFrame } from "../../src/mesh/entries.ts";
import type { StateSink, StateSource } from "./source.ts";

/** See the head of the file. */
export class MeshFileSource implements StateSource {
  #frame: SnapshotFrame;
  #sink: StateSink | undefined;

  constructor(frame: SnapshotFrame) {
    this.#frame = frame;
  }

  /** Nobody to tell: the file says what each node seals with. */
  announce(): void {}

  start(sink: StateSink): void {
    this.#sink = sink;
    sink.apply(this.#frame);
    sink.status({ state: "synced" });
  }

  /** Puts another reading of the file into force: what is not in it is gone. */
  replace(frame: SnapshotFrame): void {
    this.#frame = frame;
    this.#sink?.apply(frame);
  }

  stop(): Promise<void> {
    this.#sink = undefined;
    return Promise.resolve();
  }
}
