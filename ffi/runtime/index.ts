/**
 * Picks the foreign function interface of the runtime that we run on. Everything else in `ffi/` imports this file, and learns
 * from nothing but `runtime()` which one it is.
 */
import { FfiError } from "../errno.ts";
import { makeBunRuntime } from "./bun.ts";
import { makeDenoRuntime } from "./deno.ts";
import type { Runtime } from "./types.ts";

const versions = process.versions as Readonly<Record<string, string | undefined>>;

/** Whether this runtime can call C at all: Bun and Deno can, Node cannot. */
export const hasFfi: boolean = versions["bun"] !== undefined || versions["deno"] !== undefined;

let made: Runtime | undefined;

/**
 * The runtime's interface; made on first use, so that a command which calls no C pays nothing.
 * @throws FfiError EDGE_FFI_UNAVAILABLE on Node
 */
export function runtime(): Runtime {
  if (made === undefined) {
    if (versions["bun"] !== undefined) made = makeBunRuntime();
    else if (versions["deno"] !== undefined) made = makeDenoRuntime();
    else throw new FfiError("EDGE_FFI_UNAVAILABLE", "Cannot call C: this runtime is neither Bun nor Deno");
  }
  return made;
}
