/**
 * The foreign function interface of Deno. Loaded by `index.ts` only.
 *
 * Deno wants a bigint where C wants 64 bits; a plain number is taken too, but on a slow path. So each function gets a small
 * wrapper that converts, in a form that V8 compiles to integer instructions, with no bigint ever made. Three 64-bit arguments,
 * Deno 2.9.6 on x86-64, nanoseconds a call: ready bigints 3, this 5, `BigInt(n)` 34, pointer objects 81, plain numbers 96.
 */
import type { CType, Runtime, Signature, Symbols } from "./types.ts";

/** The part of Deno's API in use. */
interface DenoFfi {
  dlopen(
    path: string,
    symbols: Record<string, { parameters: readonly string[]; result: string }>,
  ): { symbols: Record<string, (...args: never[]) => unknown> };
  readonly UnsafePointer: {
    of(view: Uint8Array): unknown;
    value(pointer: unknown): bigint;
    create(address: bigint): unknown;
  };
  readonly UnsafePointerView: {
    new (pointer: unknown): { getInt32(): number };
    getCString(pointer: unknown): string;
  };
}

const TYPES: Readonly<Record<CType | "void", string>> = {
  i32: "i32",
  u32: "u32",
  size: "u64",
  ptr: "u64",
  null: "u64",
  void: "void",
};

/** A non-negative integer below 2^53 as a 64-bit bigint. `asUintN` around every step is what keeps V8 on integers. */
function to64(value: number): bigint {
  const high = BigInt.asUintN(64, BigInt((value / 4294967296) | 0) * 4294967296n);
  return BigInt.asUintN(64, high + BigInt(value >>> 0));
}

/** A size, likewise. */
function size64(value: number): bigint {
  return BigInt.asUintN(64, BigInt(value | 0));
}

const PASSED: Readonly<Record<CType, (name: string) => string>> = {
  i32: (name) => name,
  u32: (name) => name,
  size: (name) => `size64(${name})`,
  ptr: (name) => `to64(${name})`,
  null: () => "0n",
};

/**
 * Wraps one function so that it takes and gives numbers. The text is compiled for each function apart: wrappers made from one
 * closure would share their call site, and V8 makes a direct call to C only where the site knows a single target. Short, so
 * that V8 puts them into their callers: else the addresses, which are doubles, go through the heap.
 */
function wrap(symbol: (...args: never[]) => unknown, signature: Signature): unknown {
  const names = signature.args.map((_, i) => `a${i}`);
  const passed = signature.args.map((type, i) => PASSED[type](`a${i}`));
  const call = `symbol(${passed.join(", ")})`;
  const isWide = signature.result === "ptr" || signature.result === "size";
  const text = `return (${names.join(", ")}) => ${isWide ? `Number(${call})` : call}`;
  return new Function("symbol", "to64", "size64", text)(symbol, to64, size64);
}

/** Makes the adapter. Only to be called on Deno. */
export function makeDenoRuntime(): Runtime {
  const ffi = (globalThis as unknown as { Deno: DenoFfi }).Deno;
  // one address is read again and again: errno's
  let viewAddress = -1;
  let view: { getInt32(): number } | undefined;
  return {
    name: "deno",
    dlopen<const T extends Readonly<Record<string, Signature>>>(path: string, signatures: T): Symbols<T> {
      const wanted: Record<string, { parameters: string[]; result: string }> = {};
      for (const [name, signature] of Object.entries(signatures)) {
        wanted[name] = { parameters: signature.args.map((type) => TYPES[type]), result: TYPES[signature.result] };
      }
      const { symbols } = ffi.dlopen(path, wanted);
      const wrapped: Record<string, unknown> = {};
      for (const [name, signature] of Object.entries(signatures)) wrapped[name] = wrap(symbols[name]!, signature);
      return wrapped as Symbols<T>;
    },
    pointerOf: (bytes) => Number(ffi.UnsafePointer.value(ffi.UnsafePointer.of(bytes))),
    readI32(address) {
      if (view === undefined || address !== viewAddress) {
        view = new ffi.UnsafePointerView(ffi.UnsafePointer.create(to64(address)));
        viewAddress = address;
      }
      return view.getInt32();
    },
    readText: (address) => ffi.UnsafePointerView.getCString(ffi.UnsafePointer.create(to64(address))),
  };
}
