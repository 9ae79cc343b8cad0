import fc from "fast-check";
import { describe, expect, it } from "vitest";
import {
  FIRST_HANDLE,
  GENERATIONS,
  MAX_REDIRECTED,
  RedirectView,
  slotOfHandle,
} from "../../../src/datapath/redirect_view.ts";
import { parseAddress } from "../../../src/ip/address.ts";

const make = () => new RedirectView(new SharedArrayBuffer(RedirectView.bytes));

describe("RedirectView", () => {
  it("reads what was written, for the handle that it was written for and no other", () => {
    const handle = fc.integer({ min: FIRST_HANDLE, max: 65535 });
    const port = fc.integer({ min: 0, max: 65535 });
    const identity = fc.integer({ min: 0, max: 0xffff_ffff });
    const families = fc.constantFrom(["10.9.0.1", "192.168.255.254"], ["fd09::1", "2001:db8:ffff::8000:1"]);
    const flow = fc.record({
      handle,
      from: port,
      to: port,
      identity,
      families,
      isTcp: fc.boolean(),
      isOut: fc.boolean(),
    });
    fc.assert(fc.property(flow, ({ handle, from, to, identity, families, isTcp, isOut }) => {
      const view = make();
      const addresses = new Uint8Array(32);
      addresses.set(parseAddress(families[0]!)!, 0);
      addresses.set(parseAddress(families[1]!)!, 16);
      const version = families[0]!.includes(":") ? 6 : 4;
      view.write(handle, isOut ? 1 : 0, version, isTcp ? 6 : 17, identity, addresses, 0, 16, from, to);
      expect(view.read(handle)).toEqual({
        from: { address: families[0], port: from },
        to: { address: families[1], port: to },
        protocol: isTcp ? 6 : 17,
        direction: isOut ? 1 : 0,
        identity,
      });
      for (let generation = 0; generation <= GENERATIONS; generation++) {
        const other = generation * MAX_REDIRECTED + slotOfHandle(handle);
        if (other !== handle) expect(view.read(other)).toBeUndefined();
      }
      view.clear(slotOfHandle(handle));
      expect(view.read(handle)).toBeUndefined();
    }));
  });

  it("answers undefined to any number that is no handle", () => {
    const view = make();
    for (const number of [NaN, Infinity, -1, 0, 1.5, FIRST_HANDLE - 1, FIRST_HANDLE, 65535, 65536, 2 ** 40]) {
      expect(view.read(number)).toBeUndefined();
    }
  });

  it("answers undefined while a record is being written, and does not wait for ever", () => {
    const memory = new SharedArrayBuffer(RedirectView.bytes);
    const view = new RedirectView(memory);
    view.write(FIRST_HANDLE, 1, 4, 6, 1, new Uint8Array(8), 0, 4, 1, 2);
    expect(view.read(FIRST_HANDLE)).toBeDefined();
    new Int32Array(memory)[0]! += 1;
    expect(view.read(FIRST_HANDLE)).toBeUndefined();
  });

  it("forgets everything on request", () => {
    const view = make();
    view.write(FIRST_HANDLE, 1, 4, 6, 1, new Uint8Array(8), 0, 4, 1, 2);
    view.write(65535, 1, 4, 6, 1, new Uint8Array(8), 0, 4, 1, 2);
    view.clearAll();
    expect([view.read(FIRST_HANDLE), view.read(65535)]).toEqual([undefined, undefined]);
  });
});
