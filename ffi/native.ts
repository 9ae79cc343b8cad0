/**
 * libsodium for this CPU: its octets, from the binary that carries them or from the source tree, and loading it from memory.
 *
 * A compiled Bun binary embeds the one library of its target: the bundler knows `process.arch` of that target, and drops the
 * branch of the other CPU. (`require`, as an `import` would embed both; and no other runtime reads either line.)
 */
import { readFileSync } from "node:fs";
import { MFD_CLOEXEC } from "./constants.ts";
import { describeErrno, FfiError } from "./errno.ts";
import { libc } from "./libc.ts";
import { allocate, cText } from "./memory.ts";
import { runtime } from "./runtime/index.ts";
import type { Signature, Symbols } from "./runtime/types.ts";

declare const require: (path: string) => { readonly default: string };

/** Where the library stands: a file of the source tree, or a name inside the compiled binary. */
function libraryPath(): string | URL {
  if (runtime().name === "bun") {
    if (process.arch === "arm64") return require("./native/embed_arm64.ts").default;
    if (process.arch === "x64") return require("./native/embed_x64.ts").default;
  }
  if (process.arch === "arm64" || process.arch === "x64") {
    return new URL(`./native/libsodium-linux-${process.arch}.so`, import.meta.url);
  }
  throw new FfiError("EDGE_SODIUM", `Cannot load libsodium: none was built for CPU "${process.arch}"`);
}

/** The octets of libsodium for this CPU. A fresh copy. */
export function readNativeLibrary(): Uint8Array {
  return readFileSync(libraryPath());
}

/**
 * Loads a library from memory, through a file that has no name on any disk: it works where the temporary directory is
 * read-only or may hold no programs.
 * @param name shown in /proc only
 * @throws FfiError EDGE_SODIUM when the kernel refuses, or the loader does
 */
export function loadFromMemory<const T extends Readonly<Record<string, Signature>>>(
  name: string,
  library: Uint8Array,
  signatures: T,
): Symbols<T> {
  const c = libc();
  const fd = c.memfdCreate(cText(name).address, MFD_CLOEXEC);
  if (fd < 0) throw new FfiError("EDGE_SODIUM", `Cannot load "${name}": memfd_create: ${describeErrno(fd)}`, fd);
  try {
    const copy = allocate(library.length);
    copy.bytes.set(library);
    for (let at = 0; at < library.length;) {
      const written = c.write(fd, copy.address + at, library.length - at);
      if (written <= 0) {
        throw new FfiError("EDGE_SODIUM", `Cannot load "${name}": write: ${describeErrno(written)}`, written);
      }
      at += written;
    }
    return runtime().dlopen(`/proc/self/fd/${fd}`, signatures);
  } catch (error) {
    if (error instanceof FfiError) throw error;
    throw new FfiError(
      "EDGE_SODIUM",
      `Cannot load "${name}": ${error instanceof Error ? error.message : String(error)}`,
    );
  } finally {
    c.close(fd); // what was loaded stays mapped
  }
}
