/**
 * What a TUN device does for many packets at once: what the kernel is asked for, and whether it takes superpackets that we write.
 * @see include/uapi/linux/if_tun.h, include/linux/virtio_net.h
 */
import type { OffloadSwitches } from "../src/ports.ts";
import * as C from "./constants.ts";
import * as E from "./errno.ts";
import { libc } from "./libc.ts";
import { allocate } from "./memory.ts";

export const BY_CONFIGURATION = "off, by configuration";

const TSO = C.TUN_F_TSO4 | C.TUN_F_TSO6;
const USO = C.TUN_F_USO4 | C.TUN_F_USO6;

/** What superpackets may be read; each with the reason where it is off. */
export interface ReadOffloads {
  readonly tunTso: string;
  readonly tunUso: string;
}

/**
 * Tells the kernel which superpackets we read. It refuses a mask as a whole, so the most is asked for first.
 * @returns a negative errno when it takes none
 */
export function negotiate(fd: number, { tso, uso }: OffloadSwitches): ReadOffloads | number {
  let refused = 0;
  for (const mask of masksFor(tso, uso)) {
    const result = libc().ioctl(fd, C.TUNSETOFFLOAD, mask);
    if (result >= 0) return factsOf(mask, tso, uso, refused);
    refused = result;
  }
  return refused;
}

function masksFor(tso: boolean, uso: boolean): readonly number[] {
  const withTso = C.TUN_F_CSUM | TSO;
  const plain = tso ? [withTso | C.TUN_F_TSO_ECN, withTso] : [0];
  if (!uso) return plain;
  return tso ? [withTso | C.TUN_F_TSO_ECN | USO, withTso | USO, ...plain] : [C.TUN_F_CSUM | USO, ...plain];
}

function factsOf(mask: number, tso: boolean, uso: boolean, refused: number): ReadOffloads {
  const hasEcn = (mask & C.TUN_F_TSO_ECN) !== 0;
  const usoRefused = `off, the kernel refuses it (Linux 6.2 has it): ${E.describeErrno(refused)}`;
  return {
    tunTso: !tso ? BY_CONFIGURATION : hasEcn ? "on" : "on, without ECN",
    tunUso: !uso ? BY_CONFIGURATION : (mask & USO) !== 0 ? "on" : usoRefused,
  };
}

/** Each: gso_type, IP version, protocol, header octets of the transport, where its checksum is. */
const TCP_PROBES = [[1, 4, 6, 20, 16], [4, 6, 6, 20, 16]] as const;
const UDP_PROBES = [[5, 4, 17, 8, 6], [5, 6, 17, 8, 6]] as const;
const VIRTIO_BYTES = 10;
const SEGMENT_BYTES = 512;

/**
 * Asks whether the kernel takes merged packets, of both IP versions. The device must be down: the kernel looks at the virtio header
 * first, and what passes is refused with EIO and goes nowhere. (Some kernels of 6.1 and 6.6 refuse merged TCP; before 6.2 all refuse
 * merged UDP.)
 * @returns undefined, or why not
 */
export function probeMerged(fd: number, isUdp: boolean): string | undefined {
  for (const [gsoType, version, protocol, transportBytes, checksumAt] of isUdp ? UDP_PROBES : TCP_PROBES) {
    const ipBytes = version === 4 ? 20 : 40;
    const headerBytes = ipBytes + transportBytes;
    const totalBytes = headerBytes + 2 * SEGMENT_BYTES;
    const packet = allocate(VIRTIO_BYTES + totalBytes);
    const { bytes } = packet;
    bytes.set([1, gsoType, headerBytes, 0, SEGMENT_BYTES & 255, SEGMENT_BYTES >> 8, ipBytes, 0, checksumAt, 0]);
    // between loopback addresses: even a device that is up would not let it pass
    if (version === 4) {
      bytes.set([0x45, 0, totalBytes >> 8, totalBytes & 255, 0, 0, 0x40, 0, 1, protocol], VIRTIO_BYTES);
      bytes.set([127, 0, 0, 1, 127, 0, 0, 1], VIRTIO_BYTES + 12);
    } else {
      const payload = totalBytes - ipBytes;
      bytes.set([0x60, 0, 0, 0, payload >> 8, payload & 255, protocol, 1], VIRTIO_BYTES);
      bytes[VIRTIO_BYTES + 23] = 1;
      bytes[VIRTIO_BYTES + 39] = 1;
    }
    if (!isUdp) bytes.set([0x50, 0x10], VIRTIO_BYTES + ipBytes + 12);
    else bytes.set([(totalBytes - ipBytes) >> 8, (totalBytes - ipBytes) & 255], VIRTIO_BYTES + ipBytes + 4);
    const result = libc().write(fd, packet.address, VIRTIO_BYTES + totalBytes);
    if (result === -E.EINVAL) return `off, the kernel refuses a merged write: ${E.describeErrno(result)}`;
  }
  return undefined;
}
