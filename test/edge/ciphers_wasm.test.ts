import { loadSodiumWasm } from "../../edge/ciphers_wasm.ts";
import { cipherSuite } from "../suites/ciphers.ts";

cipherSuite("ciphers as WebAssembly", loadSodiumWasm, (bytes) => new Uint8Array(bytes), ["aes256gcm"]);
