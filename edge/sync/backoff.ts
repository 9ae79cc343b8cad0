/** How long to wait before the next try: doubling up to a cap, with jitter, so that a thousand members do not come back at once. */

export interface BackoffOptions {
  readonly firstMs: number;
  readonly capMs: number;
  /** 0 to 1, exclusive; default Math.random */
  readonly random?: () => number;
}

export class Backoff {
  readonly #options: BackoffOptions;
  #tries = 0;

  constructor(options: BackoffOptions) {
    this.#options = options;
  }

  /** The next pause: half to all of `firstMs * 2^tries`, at most `capMs`. */
  next(): number {
    const { firstMs, capMs, random = Math.random } = this.#options;
    const ceilingMs = Math.min(capMs, firstMs * 2 ** Math.min(this.#tries++, 30));
    return ceilingMs * (0.5 + random() / 2);
  }

  /** A try worked: start again from the first pause. */
  reset(): void {
    this.#tries = 0;
  }
}

/** Waits. Ends early, without an error, when `signal` is aborted. */
export function pause(ms: number, signal?: AbortSignal): Promise<void> {
  return new Promise((resolve) => {
    if (signal?.aborted) return resolve();
    const done = () => {
      clearTimeout(timer);
      signal?.removeEventListener("abort", done);
      resolve();
    };
    const timer = setTimeout(done, ms);
    signal?.addEventListener("abort", done, { once: true });
  });
}
