/** Started by `denied.test.ts` where something is missing: tries, and prints what the errors are. */
import { openNetlink } from "../../ffi/netlink.ts";
import { makeArena } from "../../ffi/sodium.ts";
import { openTun } from "../../ffi/tun.ts";
import { openUnderlay, receiveBytes } from "../../ffi/udp.ts";
import { ALL_OFFLOADS } from "../../src/offload/switches.ts";

function errorOf(call: () => void): { code?: unknown; message: string } {
  try {
    call();
    return { message: "it worked" };
  } catch (error) {
    return error instanceof Error
      ? { code: (error as { code?: unknown }).code, message: error.message }
      : { message: "?" };
  }
}

const arena = makeArena(receiveBytes(1));
console.log(JSON.stringify({
  tun: errorOf(() => openTun({ name: "edgemesh-t3", arena, offload: ALL_OFFLOADS })),
  netlink: errorOf(() => openNetlink().setLinkUp(1, 65536)),
  mark: errorOf(() =>
    openUnderlay({ port: 0, arena, receiveAt: 0, slots: 1, bufferBytes: 1 << 16, segmentation: true, mark: 1 })
  ),
}));
