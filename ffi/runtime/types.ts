/**
 * The little that the rest of `ffi/` needs from a runtime's foreign function interface. `bun.ts` and `deno.ts` implement it.
 *
 * Addresses are plain numbers on both (user space ends far below 2^53), and so are sizes and results. Nothing here checks what
 * it is given: a wrapper passes complete integers, because Bun turns `undefined`, NaN and 3.7 into 0, 0 and 3 in silence.
 */

/**
 * The C types in use. `size` is `size_t` or any other unsigned 64-bit value up to 2^31 - 1, `ptr` is an address or 0. `null` is
 * a pointer or a 64-bit number for which we always pass 0; it costs nothing on either runtime.
 * A result that C calls `ssize_t` is declared `i32`: our sizes stay below 2^31, and the low half of a register is then the
 * whole value, -1 included, without a bigint on either runtime.
 */
export type CType = "i32" | "u32" | "size" | "ptr" | "null";

/** What a C function takes and gives. */
export interface Signature {
  readonly args: readonly CType[];
  readonly result: "i32" | "u32" | "size" | "ptr" | "void";
}

/** A loaded C function: numbers in, a number out (`void` gives an unspecified value). */
export type CFunction<S extends Signature> = (...args: Numbers<S["args"]>) => number;

type Numbers<A extends readonly CType[]> = { [I in keyof A]: number };

/** The functions of a loaded library, by name. */
export type Symbols<T extends Readonly<Record<string, Signature>>> = { readonly [K in keyof T]: CFunction<T[K]> };

/** One runtime's foreign function interface. */
export interface Runtime {
  readonly name: "bun" | "deno";
  /**
   * Loads a library, which then stays loaded for the life of the process.
   * @throws Error when the library or one of the symbols is not there
   */
  dlopen<const T extends Readonly<Record<string, Signature>>>(path: string, signatures: T): Symbols<T>;
  /**
   * The address of the first octet of an array that is not empty; its octets do not move afterwards, until somebody transfers
   * or resizes its buffer. An address does not keep its memory alive: whoever stores the one stores the array too.
   */
  pointerOf(bytes: Uint8Array): number;
  /** Reads a 32-bit integer in the CPU's byte order. A wrong address ends the process. */
  readI32(address: number): number;
  /** Reads text that ends in a zero octet. A wrong address ends the process. */
  readText(address: number): string;
}
