/**
 * The foreign function interface of Bun (`bun:ffi`). Loaded by `index.ts` only.
 *
 * The module is asked for at run time, not imported: Deno and Node refuse the name even when the line never runs. That also
 * spares the binary a top-level await, with which Bun cannot compile to bytecode.
 */
import type { CType, Runtime, Signature, Symbols } from "./types.ts";

/** The part of `bun:ffi` in use. */
interface BunFfi {
  dlopen(
    path: string,
    symbols: Record<string, { args: readonly string[]; returns: string }>,
  ): { symbols: Record<string, unknown> };
  ptr(view: Uint8Array): number;
  readonly read: { i32(address: number, offset: number): number };
  readonly CString: new (address: number) => { toString(): string };
}

const TYPES: Readonly<Record<CType | "void", string>> = {
  i32: "i32",
  u32: "u32",
  size: "u64_fast",
  ptr: "ptr",
  null: "ptr",
  void: "void",
};

/** Makes the adapter. Only to be called on Bun. */
export function makeBunRuntime(): Runtime {
  const ffi = process.getBuiltinModule("bun:ffi") as unknown as BunFfi;
  return {
    name: "bun",
    dlopen<const T extends Readonly<Record<string, Signature>>>(path: string, signatures: T): Symbols<T> {
      const symbols: Record<string, { args: string[]; returns: string }> = {};
      for (const [name, signature] of Object.entries(signatures)) {
        symbols[name] = {
          args: signature.args.map((type) => TYPES[type]),
          // as an address a result would be null for 0
          returns: signature.result === "ptr" ? "u64_fast" : TYPES[signature.result],
        };
      }
      return ffi.dlopen(path, symbols).symbols as Symbols<T>;
    },
    // asking for the buffer makes Bun give the array one of its own, outside of the heap, if it has none yet
    pointerOf: (bytes) => bytes.buffer.byteLength === 0 ? 0 : ffi.ptr(bytes),
    readI32: (address) => ffi.read.i32(address, 0),
    readText: (address) => new ffi.CString(address).toString(),
  };
}
