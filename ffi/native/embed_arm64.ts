// Only for Bun, which gives the file's path, inside a compiled binary too. Reached from ffi/native.ts.
import path from "./libsodium-linux-arm64.so" with { type: "file" };

export default path;
